/* kernels.c - profiled runs, and their table. */
#include "kernels.h"
#include "term.h"
#include "../../ir/diag.h"
#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *v, int n) {
  if (!n) return 0;
  qsort(v, (size_t)n, sizeof *v, by_value);
  return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ---- profiled runs ---- */
static Counts counts_add(Counts a, Counts b) {
  return (Counts){a.flops + b.flops, a.muls + b.muls, a.reads + b.reads, a.writes + b.writes, a.weights + b.weights};
}

static Step step_of(const Session *s, const char *name, int at, int nsteps) {
  const Records *r = s->records;
  Step step = {.kernel = records_kernel(r, name), .site = -1, .counts = {NAN, NAN, NAN, NAN, NAN}};
  if (r->straight && nsteps == r->steps.n && r->steps.v[at].kernel == step.kernel) step.site = at;
  if (step.kernel >= 0) step.counts = records_counts(r, step.kernel, step.site);
  return step;
}

dlc_span *profile_spans(Session *s, int *nsteps) {
  *nsteps = s->library->model->profile(s->library->ctx, NULL, 0);
  return NEW_ARRAY(s->c, dlc_span, (int64_t)*nsteps * s->threads);
}

/* One run; the time of step i to seconds[i * stride]; what is left of the run's. */
static double run_profiled(Session *s, dlc_op_time *times, dlc_span *spans, int n, double *seconds, int stride, double *busy) {
  const dlc_model *m = s->library->model;
  memset(times, 0, sizeof *times * (size_t)n);
  memset(spans, 0, sizeof *spans * (size_t)n * (size_t)s->threads);
  m->profile(s->library->ctx, times, n);
  m->trace(s->library->ctx, spans, n * s->threads);
  double start = clock_seconds();
  library_run(s->library, s->call);
  double span = clock_seconds() - start, inside = 0, left = span;
  m->trace(s->library->ctx, NULL, 0);
  if (m->profile(s->library->ctx, NULL, 0) != n)
    diag_fail(s->c, E0504, NULL, NULL, "%s takes another path from run to run and cannot be profiled", diag_quote(s->c, s->library->path));
  for (int i = 0; i < n; i++) left -= seconds[i * stride] = (double)times[i].ns * 1e-9;
  for (int i = 0; i < n * s->threads; i++) inside += (double)(spans[i].end_ns - spans[i].start_ns) * 1e-9;
  *busy = inside / span / s->threads;
  return left;
}

Profile profile_take(Session *s, double seconds, int least, int most) {
  enum { TIMES = 1 << 22 };        /* in memory at once */
  Profile p = {.sum = {0}};
  dlc_span *spans = profile_spans(s, &p.nsteps);
  dlc_op_time *times = NEW_ARRAY(s->c, dlc_op_time, p.nsteps);
  most = MAX(MIN(most, TIMES / MAX(p.nsteps, 1)), 1);
  double *each = NEW_ARRAY(s->c, double, (int64_t)p.nsteps * most), *between = NEW_ARRAY(s->c, double, most), *busy = NEW_ARRAY(s->c, double, most);
  double end = clock_seconds() + seconds;
  for (; p.runs < most && (p.runs < least || clock_seconds() < end); p.runs++)
    between[p.runs] = run_profiled(s, times, spans, p.nsteps, each + p.runs, most, &busy[p.runs]);
  p.between = median(between, p.runs);
  p.busy = median(busy, p.runs);
  p.steps = NEW_ARRAY(s->c, Step, p.nsteps);
  for (int i = 0; i < p.nsteps; i++) {
    p.steps[i] = step_of(s, times[i].name ? times[i].name : "", i, p.nsteps);
    p.steps[i].seconds = median(each + (int64_t)i * most, p.runs);
    p.sum = counts_add(p.sum, p.steps[i].counts);
  }
  return p;
}

/* ---- bounds ---- */
static DType type_of(const Session *s, const Step *step) { return step->kernel < 0 ? DT_NONE : s->records->kernels.v[step->kernel].type; }

/* Vectors have half as many of f64; smaller floats are computed as f32. */
static double compute_seconds(const Peak *p, DType t, double flops) { return flops / (t == DT_F64 ? p->flops / 2 : p->flops); }

double computing_seconds(const Session *s, const Profile *p, const Peak *peak) {
  double sum = 0;
  for (int i = 0; i < p->nsteps; i++) sum += compute_seconds(peak, type_of(s, &p->steps[i]), p->steps[i].counts.flops);
  return sum;
}

const PeakLevel *peak_level(const Peak *p, double bytes) {
  int i = 0;
  while (i < PEAK_LEVELS - 1 && bytes > (double)p->level[i].bytes) i++;
  return &p->level[i];
}

/* Reading so much, as near as it fits: what the kernel before wrote is still there. */
static double nearest_seconds(const Peak *p, double bytes) {
  double sum = 0, before = 0;
  for (int i = 0; i < PEAK_LEVELS && bytes > before; i++) {
    double upto = fmin(bytes, (double)p->level[i].bytes);
    sum += (upto - before) / p->level[i].rate;
    before = upto;
  }
  return sum;
}

/* The least time that the machine could take: caches read while they are written. Constants come from where all of them fit: since this kernel
 * ran last, the others were read; but not when it runs `again` in the same run, in a loop. */
typedef struct { double seconds; const char *what; } Bound;

static Bound bound_of(const Session *s, const Peak *p, DType type, Counts counts, bool again) {
  const PeakLevel *far = peak_level(p, json_get(s->records->info, "weight_bytes")->number);
  double weights = again ? 0 : counts.weights, rest = fmax(counts.reads - weights, counts.writes), compute = compute_seconds(p, type, counts.flops);
  double far_seconds = weights / far->rate, near_seconds = nearest_seconds(p, rest);
  if (isnan(compute + counts.reads + counts.writes + counts.weights)) return (Bound){NAN, "-"};
  if (compute >= far_seconds + near_seconds) return (Bound){compute, "compute"};
  return (Bound){far_seconds + near_seconds, far_seconds > near_seconds ? far->name : peak_level(p, rest)->name};
}

/* In how many places the program calls a kernel. */
static int sites_of(const Records *r, int kernel) {
  int n = 0;
  for (int i = 0; i < r->steps.n; i++) n += r->steps.v[i].kernel == kernel;
  return n;
}

/* ---- rows ---- */
typedef struct { int kernel, calls; double seconds, least; Counts counts; const char *bound, *node; int nodes; } Row;
typedef struct { VEC(Row) rows; double seconds, least; } Table;

static const char *node_of(const Session *s, const Step *step) {
  const Records *r = s->records;
  const char *node = step->site >= 0 ? r->steps.v[step->site].source : step->kernel >= 0 ? r->kernels.v[step->kernel].source : NULL;
  return node ? node : "";
}

static Row *row_of(const Session *s, Table *t, const Step *step) {
  for (int i = 0; i < t->rows.n; i++)
    if (t->rows.v[i].kernel == step->kernel) return &t->rows.v[i];
  vec_push(s->c, &t->rows, ((Row){.kernel = step->kernel, .node = node_of(s, step), .bound = ""}));
  return &t->rows.v[t->rows.n - 1];
}

static Table table_of(const Session *s, const Profile *p, const Peak *peak) {
  Table t = {.seconds = 0};
  for (int i = 0; i < p->nsteps; i++) {
    const Step *step = &p->steps[i];
    Row *r = row_of(s, &t, step);
    Bound b = bound_of(s, peak, type_of(s, step), step->counts, r->calls >= sites_of(s->records, step->kernel));
    r->calls++;
    r->nodes += strcmp(r->node, node_of(s, step)) != 0;
    r->seconds += step->seconds;
    r->least += b.seconds;
    r->bound = b.what;
    r->counts = counts_add(r->counts, step->counts);
    t.seconds += step->seconds;
    t.least += isnan(b.seconds) ? 0 : b.seconds;
  }
  return t;
}

static int slowest_first(const void *a, const void *b) {
  const Row *x = a, *y = b;
  return x->seconds != y->seconds ? (x->seconds < y->seconds) - (x->seconds > y->seconds) : x->kernel - y->kernel;
}

/* A number in a column, "-" where it is not known. */
static void put_number(FILE *out, int width, int decimals, double v) {
  if (isfinite(v)) fprintf(out, "%*.*f", width, decimals, v);
  else fprintf(out, "%*s", width, "-");
}

/* On a terminal a row stays a row. */
static int room_for(FILE *out, const char *text, int used) {
  int n = (int)strlen(text), room = term_is_terminal(out) ? MAX(term_width(out) - used, 36) : n;
  if (room >= n) return n;
  while (room > 0 && ((unsigned char)text[room] & 0xc0) == 0x80) room--;     /* not within a character */
  return room;
}

static void put_row(FILE *out, const Row *r, double whole, const char *what) {
  fprintf(out, "%5d %10.1f %5.1f %%", r->calls, r->seconds * 1e6, 100 * r->seconds / whole);
  put_number(out, 9, 1, r->counts.flops / r->seconds * 1e-9);
  put_number(out, 8, 1, (r->counts.reads + r->counts.writes) / r->seconds * 1e-9);
  fprintf(out, "  %-8s", r->bound);
  put_number(out, 5, 0, 100 * r->least / r->seconds);
  fprintf(out, " %%  %.*s\n", room_for(out, what, 60), what);
}

static const char *row_text(const Session *s, const Row *r) {
  const KernelRecord *k = r->kernel < 0 ? NULL : &s->records->kernels.v[r->kernel];
  const char *more = r->nodes ? ctx_printf(s->c, " (+%d)", r->nodes) : "";
  if (!k) return "?";
  return ctx_printf(s->c, "%.*s %s%s%s%s", (int)strcspn(k->name, "_"), k->name, diag_quote(s->c, r->node), more, k->rule ? ", " : "", k->rule ? k->rule : "");
}

void kernels_print(const Session *s, FILE *out, const Profile *p, const Peak *peak) {
  enum { SHOWN = 20 };
  Table t = table_of(s, p, peak);
  bool color = term_color(s->cli, out);
  int shown = s->cli->verbose > 0 || t.rows.n <= SHOWN + 1 ? t.rows.n : SHOWN;
  Row rest = {.bound = ""};
  if (!t.rows.n) {
    fprintf(out, "the model has no kernels\n");
    return;
  }
  qsort(t.rows.v, (size_t)t.rows.n, sizeof *t.rows.v, slowest_first);
  fprintf(out, "%s%5s %10s %7s %8s %7s  %-8s%7s  %s%s\n", term_on(color, TERM_BOLD), "calls", "time us", "share", "GFLOP/s", "GB/s", "bound", "reached",
          "kernel, node, rule", term_off(color));
  for (int i = 0; i < t.rows.n; i++) {
    const Row *r = &t.rows.v[i];
    if (i < shown) put_row(out, r, t.seconds, row_text(s, r));
    else {
      rest.calls += r->calls, rest.seconds += r->seconds, rest.least += r->least;
      rest.counts = counts_add(rest.counts, r->counts);
    }
  }
  if (shown < t.rows.n) put_row(out, &rest, t.seconds, ctx_printf(s->c, "%d more kernels (-v)", t.rows.n - shown));
  fprintf(out, "%5d %10.1f us in kernels, %.1f us between them; bounds %.1f us, %.0f %% (medians of %d runs with the clock on)\n", p->nsteps,
          t.seconds * 1e6, p->between * 1e6, t.least * 1e6, 100 * t.least / t.seconds, p->runs);
  if (s->threads > 1) fprintf(out, "%d threads, in kernels for %.0f %% of a run\n", s->threads, 100 * p->busy);
  fprintf(out, "bound by: %s\n", peak_text(s->c, peak));
}

void kernels_json(const Session *s, Json *j, const Profile *p, const Peak *peak) {
  Table t = table_of(s, p, peak);
  json_array(j, "kernels");
  for (int i = 0; i < t.rows.n; i++) {
    const Row *r = &t.rows.v[i];
    const KernelRecord *k = r->kernel < 0 ? NULL : &s->records->kernels.v[r->kernel];
    json_object(j, NULL);
    json_text(j, "name", k ? k->name : NULL);
    json_text(j, "rule", k ? k->rule : NULL);
    json_text(j, "node", r->node);
    json_text(j, "type", k && k->type != DT_NONE ? dtype_info[k->type].name : NULL);
    json_int(j, "calls", r->calls);
    json_number(j, "time_us", r->seconds * 1e6);
    json_number(j, "share", r->seconds / t.seconds);
    json_number(j, "flops", r->counts.flops);
    json_number(j, "multiplications", r->counts.muls);
    json_number(j, "reads", r->counts.reads);
    json_number(j, "writes", r->counts.writes);
    json_number(j, "weight_bytes", r->counts.weights);
    json_number(j, "gflops", r->counts.flops / r->seconds * 1e-9);
    json_number(j, "gbs", (r->counts.reads + r->counts.writes) / r->seconds * 1e-9);
    json_text(j, "bound", r->bound);
    json_number(j, "bound_us", r->least * 1e6);
    json_number(j, "of_bound", r->least / r->seconds);
    json_close(j, '}');
  }
  json_close(j, ']');
  json_object(j, "profile");
  json_int(j, "runs", p->runs);
  json_int(j, "steps", p->nsteps);
  json_number(j, "between_us", p->between * 1e6);
  json_number(j, "kernels_us", t.seconds * 1e6);
  json_number(j, "bounds_us", t.least * 1e6);
  json_number(j, "busy", p->busy);
  json_close(j, '}');
}

void peak_json(Json *j, const Peak *p) {
  json_object(j, "peak");
  json_int(j, "threads", p->threads);
  json_number(j, "gflops", p->flops * 1e-9);
  json_object(j, "read_gbs");
  for (int i = 0; i < PEAK_LEVELS; i++) json_number(j, p->level[i].name, p->level[i].rate * 1e-9);
  json_close(j, '}');
  json_close(j, '}');
}

const char *peak_text(Ctx *c, const Peak *p) {
  Str s = str_new(c);
  str_add(&s, "computing, %.0f GFLOP/s f32; reading", p->flops * 1e-9);
  for (int i = 0; i < PEAK_LEVELS; i++) str_add(&s, "%s %s %.0f", i ? "," : "", p->level[i].name, p->level[i].rate * 1e-9);
  str_add(&s, " GB/s (measured on %d thread%s)", p->threads, p->threads == 1 ? "" : "s");
  return s.s;
}
