/* profile.c - dlc profile: the table of kernels, or a trace of some runs that Perfetto and chrome://tracing show. */
#include "kernels.h"
#include "term.h"
#include "../../ir/diag.h"
#include <math.h>

/* ---- the trace: a row for each thread, a slice for each of its parts in a step; the caller's has the runs around them ---- */
typedef struct { Session *s; int runs, nsteps; dlc_span *spans; uint64_t (*run)[2], start; } Trace;    /* run: start and end, ns */

static void begin_slice(Json *j, const Trace *t, const char *name, const char *category, int thread, uint64_t from, uint64_t to) {
  json_object(j, NULL);
  json_text(j, "name", name);
  json_text(j, "cat", category);
  json_text(j, "ph", "X");
  json_int(j, "pid", 1);
  json_int(j, "tid", thread);
  json_number(j, "ts", (double)(from - t->start) * 1e-3);
  json_number(j, "dur", (double)(to - from) * 1e-3);
}

static void name_row(Json *j, const char *what, int thread, const char *name) {
  json_object(j, NULL);
  json_text(j, "name", what);
  json_text(j, "ph", "M");
  json_int(j, "pid", 1);
  json_int(j, "tid", thread);
  json_object(j, "args");
  json_text(j, "name", name);
  json_close(j, '}');
  json_close(j, '}');
}

static void put_step(Json *j, const Trace *t, const Step *step, int run, int thread, const dlc_span *span) {
  const Records *r = t->s->records;
  const KernelRecord *k = step->kernel < 0 ? NULL : &r->kernels.v[step->kernel];
  const char *node = step->site >= 0 ? r->steps.v[step->site].source : k ? k->source : NULL;
  begin_slice(j, t, node && *node ? node : span->name, k && k->rule ? k->rule : "kernel", thread, span->start_ns, span->end_ns);
  json_object(j, "args");
  json_text(j, "kernel", span->name);
  json_int(j, "run", run);
  if (isfinite(step->counts.flops)) json_number(j, "flops", step->counts.flops);
  if (isfinite(step->counts.reads)) json_number(j, "reads", step->counts.reads);
  if (isfinite(step->counts.writes)) json_number(j, "writes", step->counts.writes);
  json_close(j, '}');
  json_close(j, '}');
}

static void put_trace(const Trace *t, const Step *steps, FILE *out) {
  Ctx *c = t->s->c;
  Json j = json_begin(out, "trace");
  json_text(&j, "displayTimeUnit", "ns");
  json_array(&j, "traceEvents");
  name_row(&j, "process_name", 0, t->s->library->path);
  for (int i = 0; i < t->s->threads; i++) name_row(&j, "thread_name", i, i ? ctx_printf(c, "worker %d", i) : "caller");
  for (int run = 0; run < t->runs; run++) {
    begin_slice(&j, t, ctx_printf(c, "run %d", run + 1), "run", 0, t->run[run][0], t->run[run][1]);
    json_close(&j, '}');
    for (int i = 0; i < t->nsteps; i++)
      for (int k = 0; k < t->s->threads; k++) {
        const dlc_span *span = &t->spans[((int64_t)run * t->nsteps + i) * t->s->threads + k];
        if (span->name) put_step(&j, t, &steps[i], run + 1, k, span);
      }
  }
  json_close(&j, ']');
  json_end(&j);
}

static uint64_t nanoseconds(void) { return (uint64_t)(clock_seconds() * 1e9); }

static void write_trace(Session *s, const Step *steps, int nsteps, CliFile *file) {
  enum { SPANS = 1 << 24 };        /* in memory at once */
  int most = (int)MIN((int64_t)SPANS / MAX((int64_t)nsteps * s->threads, 1), 100000);
  Trace t = {.s = s, .nsteps = nsteps, .runs = (int)cli_int(s->cli, OPT_ITERATIONS, 1, MAX(most, 1), MIN(3, MAX(most, 1)))};
  int per_run = nsteps * s->threads;
  const dlc_model *m = s->library->model;
  t.spans = NEW_ARRAY(s->c, dlc_span, (int64_t)t.runs * per_run);
  t.run = (uint64_t (*)[2])NEW_ARRAY(s->c, uint64_t, 2 * t.runs);
  for (int i = 0; i < t.runs; i++) {
    m->trace(s->library->ctx, t.spans + (int64_t)i * per_run, per_run);
    t.run[i][0] = nanoseconds();
    library_run(s->library, s->call);
    t.run[i][1] = nanoseconds();
  }
  m->trace(s->library->ctx, NULL, 0);
  t.start = t.run[0][0];
  put_trace(&t, steps, file->to);
  cli_file_done(s->cli, file);
  if (s->cli->verbose < 0 || cli_has(s->cli, OPT_JSON)) return;
  printf("%s: %d run%s of %d steps on %d thread%s; open it in https://ui.perfetto.dev or chrome://tracing\n",
         diag_quote(s->c, cli_value(s->cli, OPT_TRACE)), t.runs, t.runs == 1 ? "" : "s", nsteps, s->threads, s->threads == 1 ? "" : "s");
}

int verb_profile(Cli *cli) {
  int status, runs = (int)cli_int(cli, OPT_ITERATIONS, 1, 1000000, 0);
  double seconds = cli_duration(cli, OPT_DURATION, 3);
  CliFile trace = cli_file(cli, OPT_TRACE);
  Session *s = session_open(cli, &status);
  if (!s) return status;
  session_warm_up(s);
  Profile p = trace.to ? profile_take(s, 0, 1, 1) : runs ? profile_take(s, 0, runs, runs) : profile_take(s, seconds, 10, 100000);
  if (trace.to) write_trace(s, p.steps, p.nsteps, &trace);
  if (trace.to && !cli_has(cli, OPT_JSON)) return 0;
  FILE *out = cli_out(cli);
  Peak peak = session_peak(s);
  if (cli_has(cli, OPT_JSON)) {
    Json j = json_begin(out, "profile");
    json_text(&j, "model", cli->args.v[0]);
    json_int(&j, "threads", s->threads);
    kernels_json(s, &j, &p, &peak);
    peak_json(&j, &peak);
    json_end(&j);
  } else if (cli->verbose >= 0) kernels_print(s, out, &p, &peak);
  cli_out_done(cli, out);
  return 0;
}
