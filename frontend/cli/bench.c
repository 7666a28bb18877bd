/* bench.c - dlc bench: how long a run takes, and how much of the machine it uses, on one screen. */
#include "kernels.h"
#include "term.h"
#include "../../codegen/codegen.h"
#include "../../ir/diag.h"
#include <math.h>
#include <stdlib.h>

enum { LEAST_RUNS = 10, MOST_RUNS = 1000000, MOST_PERCENTILES = 16 };

typedef struct {
  double *seconds;                 /* of every run, as they came */
  int n;
  double span;                     /* of all of them */
  double others;                   /* CPUs that others used meanwhile; NAN: not known */
  bool same;                       /* the last run's outputs equal the first's */
} Runs;

typedef struct { double least, most, mean, median, deviation, at[MOST_PERCENTILES]; } Summary;   /* seconds */

typedef struct {
  Cli *cli;
  Ctx *c;
  Session *s;
  Runs runs;
  Summary sum;
  double percent[MOST_PERCENTILES];
  int npercent;
  int64_t memory;                  /* resident, at most */
  Profile profile;
  Peak peak;
  double products;                 /* multiplications of a run as the operators define them */
  int64_t batch;                   /* 0: there is none */
  double started;
} Bench;

/* ---- the command line ---- */
static void read_percentiles(Bench *b) {
  const char *text = cli_value(b->cli, OPT_PERCENTILE);
  if (!text) text = option_info[OPT_PERCENTILE].dflt;
  for (const char *p = text; b->npercent < MOST_PERCENTILES;) {
    char *end;
    double v = strtod(p, &end);
    if (end == p || (*end && *end != ',') || !(v > 0 && v <= 100)) break;
    b->percent[b->npercent++] = v;
    if (!*end) return;
    p = end + 1;
  }
  diag_fail(b->c, E0202, NULL, NULL, "--percentile: %s is not a list of up to %d numbers above 0 and up to 100", diag_quote(b->c, text),
            MOST_PERCENTILES);
}

/* ---- runs ---- */
static void *copy_outputs(const Session *s) {
  size_t bytes = 0, at = 0;
  for (int i = 0; i < s->library->model->n_outputs; i++) bytes += array_bytes(&s->out[i]);
  char *copy = ctx_alloc(s->c, bytes + 1);
  for (int i = 0; i < s->library->model->n_outputs; at += array_bytes(&s->out[i++]))
    if (array_bytes(&s->out[i])) memcpy(copy + at, s->out[i].data, array_bytes(&s->out[i]));
  return copy;
}

static bool equal_outputs(const Session *s, const char *copy) {
  bool same = true;
  size_t at = 0;
  for (int i = 0; i < s->library->model->n_outputs; at += array_bytes(&s->out[i++]))
    same &= array_bytes(&s->out[i]) == 0 || !memcmp(copy + at, s->out[i].data, array_bytes(&s->out[i]));
  return same;
}

static Runs measure(Bench *b) {
  Session *s = b->s;
  int wanted = (int)cli_int(b->cli, OPT_ITERATIONS, 1, MOST_RUNS, 0), room = wanted ? wanted : MOST_RUNS;
  double least = cli_duration(b->cli, OPT_DURATION, 3);
  Runs r = {.seconds = malloc(sizeof(double) * (size_t)room)};
  if (!r.seconds) diag_fail(b->c, E0601, NULL, NULL, "no memory for the times of %d runs", room);
  ctx_defer(b->c, free, r.seconds);
  const char *first = copy_outputs(s);
  session_warm_up(s);
  b->memory = memory_peak();
  Usage before = machine_usage(&s->machine);
  double start = clock_seconds(), from = start;
  while (r.n < room && (wanted || r.n < LEAST_RUNS || from < start + least)) {
    library_run(s->library, s->call);
    double now = clock_seconds();
    r.seconds[r.n++] = now - from;
    from = now;
  }
  r.span = from - start;
  r.others = usage_of_others(before, machine_usage(&s->machine));
  r.same = equal_outputs(s, first);
  return r;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The smallest time that at least p percent of the runs do not exceed. */
static double percentile(const double *sorted, int n, double p) {
  int at = (int)ceil(p / 100 * n) - 1;
  return sorted[MIN(MAX(at, 0), n - 1)];
}

static Summary summarise(const Bench *b) {
  const Runs *r = &b->runs;
  double *v = malloc(sizeof *v * (size_t)r->n), squares = 0;
  if (!v) diag_fail(b->c, E0601, NULL, NULL, "no memory");
  memcpy(v, r->seconds, sizeof *v * (size_t)r->n);
  qsort(v, (size_t)r->n, sizeof *v, by_value);
  Summary s = {.least = v[0], .most = v[r->n - 1], .median = percentile(v, r->n, 50)};
  for (int i = 0; i < r->n; i++) s.mean += v[i] / r->n;
  for (int i = 0; i < r->n; i++) squares += (v[i] - s.mean) * (v[i] - s.mean);
  s.deviation = sqrt(squares / r->n);
  for (int i = 0; i < b->npercent; i++) s.at[i] = percentile(v, r->n, b->percent[i]);
  free(v);
  return s;
}

/* The leading extent that all inputs and outputs have in common. */
static int64_t batch_of(const Session *s) {
  const dlc_model *m = s->library->model;
  int64_t batch = 0;
  for (int i = 0; i < m->n_inputs + m->n_outputs; i++) {
    const Array *a = i < m->n_inputs ? &s->in[i] : &s->out[i - m->n_inputs];
    if (!a->rank || (batch && a->dims[0] != batch)) return 0;
    batch = a->dims[0];
  }
  return batch;
}

/* ---- what follows from the numbers ---- */
static double gflops(const Bench *b) { return b->profile.sum.flops / b->sum.median * 1e-9; }
static double of_peak(const Bench *b) { return computing_seconds(b->s, &b->profile, &b->peak) / b->sum.median; }
static int64_t weight_bytes(const Bench *b) { return (int64_t)json_get(b->s->records->info, "weight_bytes")->number; }

/* The row of targets that the library was compiled for, where it is narrower than this machine; NULL otherwise. */
static const char *narrow_target(const Bench *b) {
  const char *cpu = json_get(b->s->records->info, "cpu")->text;
  for (int i = 0; target_at(i); i++)
    if (cpu && !strcmp(target_at(i)->name, cpu) && target_at(i)->vector_bits < target_find(b->c, "host")->vector_bits) return cpu;
  return NULL;
}

/* Symbolic dims that nobody gave a value, so that they are 1. */
static const char *unset_dims(const Bench *b) {
  const dlc_model *m = b->s->library->model;
  Str names = str_new(b->c);
  const char *name, *value;
  if (cli_has(b->cli, OPT_SHAPE) || cli_has(b->cli, OPT_INPUT)) return "";
  for (int i = 0; i < m->n_dims; i++) {
    const int64_t *v = map_get(&b->s->records->dims, KEY(ctx_intern(b->c, m->dim_names[i])));
    bool given = !v || *v != 1;
    for (int k = 0; cli_pair(b->cli, OPT_DIM, k, &name, &value); k++) given |= !strcmp(name, m->dim_names[i]);
    if (!given) str_add(&names, "%s%s", names.n ? ", " : "", diag_quote(b->c, m->dim_names[i]));
  }
  return names.n ? names.s : "";
}

typedef VEC(const char *) Warnings;
static Warnings warnings_of(const Bench *b) {
  Ctx *c = b->c;
  const Machine *m = &b->s->machine;
  Warnings w = {0};
  double p99 = 0;
  for (int i = 0; i < b->npercent; i++) p99 = b->percent[i] == 99 ? b->sum.at[i] : p99;
  if (!b->runs.same) vec_push(c, &w, "the outputs of the last run differ from those of the first, on the same inputs");
  if (b->runs.others > 0.1)
    vec_push(c, &w, ctx_printf(c, "others used %.1f of %d CPUs meanwhile: these times are longer than they could be", b->runs.others, m->ncpus));
  double ratio = p99 / b->sum.median;
  const char *more = ratio < 2 ? ctx_printf(c, "%.0f %% above", 100 * (ratio - 1)) : ctx_printf(c, "%.1f times", ratio);
  if (ratio > 1.1 && b->runs.n >= 100) vec_push(c, &w, ctx_printf(c, "p99 is %s the median%s", more, b->s->pinned ? "" : "; try --pin"));
  if (b->s->threads > m->ncpus) vec_push(c, &w, ctx_printf(c, "%d threads share %d CPUs", b->s->threads, m->ncpus));
  if (m->governor && strcmp(m->governor, "performance") != 0)
    vec_push(c, &w, ctx_printf(c, "the CPU governor is %s, so the clock may vary", m->governor));
  if (*unset_dims(b)) vec_push(c, &w, ctx_printf(c, "%s: not given, so 1; others by --dim NAME=N", unset_dims(b)));
  const char *narrow = narrow_target(b);
  if (narrow) vec_push(c, &w, ctx_printf(c, "compiled for %s: this machine has wider vectors (dlc compile --cpu=host)", narrow));
  return w;
}

/* ---- the screen ---- */
typedef struct { const char *unit; double scale; int decimals; } Unit;
static Unit unit_of(double seconds) {
  Unit u = seconds < 1e-3 ? (Unit){"us", 1e6, 0} : seconds < 10 ? (Unit){"ms", 1e3, 0} : (Unit){"s", 1, 0};
  double v = seconds * u.scale;
  u.decimals = v < 10 ? 3 : v < 100 ? 2 : 1;
  return u;
}

static const char *text_time(Ctx *c, double seconds) {
  Unit u = unit_of(seconds);
  return ctx_printf(c, "%.*f %s", MIN(u.decimals, 2), seconds * u.scale, u.unit);
}

static void put_title(const Bench *b, FILE *out, bool color) {
  const Session *s = b->s;
  const JsonValue *info = s->records->info;
  const char *sha = json_get(info, "model_sha256")->text, *precision = json_get(info, "precision")->text, *cpu = json_get(info, "cpu")->text;
  fprintf(out, "model      : %s%s%s  %s  sha256 %.8s  %s\n", term_on(color, TERM_BOLD), diag_quote(b->c, b->cli->args.v[0]), term_off(color),
          precision ? precision : "", sha ? sha : "?", session_inputs(s));
  fprintf(out, "host       : %s%s%d thread%s on %d of %d CPUs%s", s->machine.cpu, *s->machine.cpu ? ", " : "", s->threads, s->threads == 1 ? "" : "s",
          s->machine.ncpus, s->machine.online, s->pinned ? ", pinned" : "");
  if (s->machine.governor) fprintf(out, ", governor %s", s->machine.governor);
  fprintf(out, "; compiled for %s; dlc %s\n", cpu ? cpu : "?", DLC_VERSION);
}

static void put_latency(const Bench *b, FILE *out) {
  const Summary *s = &b->sum;
  Unit u = unit_of(s->median);
  double v[] = {s->least, s->most, s->mean, s->median};
  static const char *const names[] = {"min", "max", "mean", "median"};
  fprintf(out, "Latency    : ");
  for (int i = 0; i < COUNT(v); i++) fprintf(out, "%s %.*f  ", names[i], u.decimals, v[i] * u.scale);
  for (int i = 0; i < b->npercent; i++) fprintf(out, "p%g %.*f%s", b->percent[i], u.decimals, s->at[i] * u.scale, i + 1 < b->npercent ? "  " : "");
  fprintf(out, " %s\n", u.unit);
}

static void put_work(const Bench *b, FILE *out) {
  Ctx *c = b->c;
  const Counts *n = &b->profile.sum;
  if (isnan(n->flops)) fprintf(out, "Compute    : the data decide how much; dlc profile tells what the kernels do\n");
  else
    fprintf(out, "Compute    : %s a run, %.1f GFLOP/s, %.1f %% of the peak (%.0f GFLOP/s f32 on %d thread%s, measured)\n", text_si(c, n->flops, "FLOP"),
            gflops(b), 100 * of_peak(b), b->peak.flops * 1e-9, b->peak.threads, b->peak.threads == 1 ? "" : "s");
  if (b->products > 0 && n->muls >= 0)
    fprintf(out, "Multiplies : %s executed for %s by definition (%.0f %%); counted by definition: %.1f GFLOP/s\n", text_si(c, n->muls, ""),
            text_si(c, b->products, ""), 100 * n->muls / b->products, 2 * b->products / b->sum.median * 1e-9);
  double weights = fmin(n->weights, (double)weight_bytes(b));   /* loops read theirs again from a cache */
  const PeakLevel *from = peak_level(&b->peak, (double)weight_bytes(b));
  if (weights > 0)
    fprintf(out, "Weights    : %s read a run, %.1f GB/s, %.1f %% of what %s%s gives (%.0f GB/s, measured)\n", text_bytes(c, (int64_t)weights),
            weights / b->sum.median * 1e-9, 100 * weights / b->sum.median / from->rate, from->bytes == INT64_MAX ? "" : "the cache ", from->name,
            from->rate * 1e-9);
}

static void put_memory(const Bench *b, FILE *out) {
  Ctx *c = b->c;
  const Session *s = b->s;
  fprintf(out, "Memory     : weights %s, workspace %s", text_bytes(c, weight_bytes(b)),
          s->workspace < 0 ? "by the data" : text_bytes(c, s->workspace));
  if (b->memory >= 0)
    fprintf(out, ", peak RSS %s (%s before loading)", text_bytes(c, b->memory), text_bytes(c, s->memory_before));
  fprintf(out, "\nFirst run  : %s, after loading in %s\n", text_time(c, s->first_s), text_time(c, s->load_s));
}

static const char meaning[] =
    "  Latency: of one call of run() on the caller's thread, inputs and outputs in memory. Throughput: calls one after the other.\n"
    "  Compute: floating operations of the loops that ran, a multiply-add being two, by the median. Peak: of a loop of nothing but\n"
    "  multiply-adds on as many threads. By definition: as the operators are defined, without what Winograd and the like save.\n"
    "  Weights: constants that the kernels read, once a run; held against a loop that only reads as much.\n"
    "  Workspace: a context's memory at these sizes. Peak RSS: of this process, with the weights' pages that were touched.\n";

static void put_screen(const Bench *b, FILE *out) {
  bool color = term_color(b->cli, out);
  double cv = b->sum.deviation / b->sum.mean;
  put_title(b, out, color);
  fprintf(out, "%s=== Performance summary (warm-up %.0f ms, %d runs in %.2f s) ===%s\n", term_on(color, TERM_BOLD),
          cli_duration(b->cli, OPT_WARMUP, 0.2) * 1e3, b->runs.n, b->runs.span, term_off(color));
  double rate = b->runs.n / b->runs.span;
  fprintf(out, "Throughput : %.*f runs/s", rate < 10 ? 3 : rate < 1000 ? 1 : 0, rate);
  if (b->batch > 1) fprintf(out, "  (%.*f samples/s, batch %lld)", rate < 100 ? 1 : 0, rate * (double)b->batch, (long long)b->batch);
  fputc('\n', out);
  put_latency(b, out);
  put_work(b, out);
  put_memory(b, out);
  fprintf(out, "Spread     : CV %.1f %%  %s\n", 100 * cv, cv < 0.05 ? "ok" : "noisy");
  if (b->cli->verbose > 0) fputs(meaning, out);
  Warnings w = warnings_of(b);
  for (int i = 0; i < w.n; i++) fprintf(out, "! %s\n", w.v[i]);
  if (cli_has(b->cli, OPT_PER_OP)) {
    fputc('\n', out);
    kernels_print(b->s, out, &b->profile, &b->peak);
    fputc('\n', out);
  }
  fprintf(out, "%s%s%s | %.1f s | dlc bench %s\n", term_on(color, b->runs.same ? TERM_GREEN : TERM_RED), b->runs.same ? "PASSED" : "FAILED",
          term_off(color), clock_seconds() - b->started, diag_quote(b->c, b->cli->args.v[0]));
}

/* ---- JSON ---- */
static void json_model(const Bench *b, Json *j) {
  const Session *s = b->s;
  const JsonValue *info = s->records->info;
  json_object(j, "model");
  json_text(j, "path", b->cli->args.v[0]);
  json_text(j, "sha256", json_get(info, "model_sha256")->text);
  json_text(j, "precision", json_get(info, "precision")->text);
  json_text(j, "cpu", json_get(info, "cpu")->text);
  json_text(j, "inputs", session_inputs(s));
  json_close(j, '}');
  json_object(j, "host");
  json_text(j, "cpu", s->machine.cpu);
  json_int(j, "cpus", s->machine.ncpus);
  json_int(j, "online", s->machine.online);
  json_text(j, "governor", s->machine.governor);
  json_number(j, "cpus_used_by_others", b->runs.others);
  json_close(j, '}');
  json_object(j, "config");
  json_int(j, "threads", s->threads);
  json_bool(j, "pinned", s->pinned);
  json_number(j, "warmup_ms", cli_duration(b->cli, OPT_WARMUP, 0.2) * 1e3);
  json_int(j, "runs", b->runs.n);
  json_number(j, "seconds", b->runs.span);
  json_close(j, '}');
}

static void json_latency(const Bench *b, Json *j) {
  const Summary *s = &b->sum;
  json_object(j, "latency_us");
  json_number(j, "min", s->least * 1e6);
  json_number(j, "max", s->most * 1e6);
  json_number(j, "mean", s->mean * 1e6);
  json_number(j, "median", s->median * 1e6);
  for (int i = 0; i < b->npercent; i++) json_number(j, ctx_printf(b->c, "p%g", b->percent[i]), s->at[i] * 1e6);
  json_number(j, "cv", s->deviation / s->mean);
  json_close(j, '}');
  json_number(j, "throughput", b->runs.n / b->runs.span);
  json_int(j, "batch", b->batch);
  json_number(j, "load_us", b->s->load_s * 1e6);
  json_number(j, "first_run_us", b->s->first_s * 1e6);
}

static void json_work(const Bench *b, Json *j) {
  const Counts *n = &b->profile.sum;
  json_object(j, "memory");
  json_int(j, "weights", weight_bytes(b));
  json_int(j, "workspace", b->s->workspace);
  json_int(j, "peak_rss", b->memory);
  json_int(j, "rss_before_loading", b->s->memory_before);
  json_close(j, '}');
  json_object(j, "work");
  json_number(j, "flops", n->flops);
  json_number(j, "multiplications", n->muls);
  json_number(j, "multiplications_by_definition", b->products);
  json_number(j, "reads", n->reads);
  json_number(j, "writes", n->writes);
  json_number(j, "weight_bytes", n->weights);
  json_number(j, "gflops", gflops(b));
  json_number(j, "of_peak", of_peak(b));
  json_close(j, '}');
  peak_json(j, &b->peak);
}

static void put_json(const Bench *b, FILE *out) {
  Json j = json_begin(out, "bench");
  Warnings w = warnings_of(b);
  json_model(b, &j);
  json_latency(b, &j);
  json_work(b, &j);
  if (cli_has(b->cli, OPT_PER_OP)) kernels_json(b->s, &j, &b->profile, &b->peak);
  json_array(&j, "warnings");
  for (int i = 0; i < w.n; i++) json_text(&j, NULL, w.v[i]);
  json_close(&j, ']');
  json_text(&j, "status", b->runs.same ? "passed" : "failed");
  json_end(&j);
}

static void export_times(const Bench *b, CliFile *file) {
  if (!file->to) return;
  Json j = json_begin(file->to, "times");
  json_text(&j, "model", b->cli->args.v[0]);
  json_array(&j, "us");
  for (int i = 0; i < b->runs.n; i++) json_number(&j, NULL, b->runs.seconds[i] * 1e6);
  json_close(&j, ']');
  json_end(&j);
  cli_file_done(b->cli, file);
}

int verb_bench(Cli *cli) {
  Bench b = {.cli = cli, .c = cli->c, .started = clock_seconds()};
  int status;
  read_percentiles(&b);
  CliFile times = cli_file(cli, OPT_EXPORT_TIMES);
  b.s = session_open(cli, &status);
  if (!b.s) return status;
  FILE *out = cli_out(cli);
  b.runs = measure(&b);
  b.sum = summarise(&b);
  b.batch = batch_of(b.s);
  b.products = records_products(b.s->records);
  b.profile = cli_has(cli, OPT_PER_OP) ? profile_take(b.s, 1, 3, 1000) : profile_take(b.s, 0, 1, 1);
  b.peak = session_peak(b.s);
  export_times(&b, &times);
  if (cli_has(cli, OPT_JSON)) put_json(&b, out);
  else if (cli->verbose >= 0) put_screen(&b, out);
  cli_out_done(cli, out);
  return b.runs.same ? 0 : 1;
}
