/* compare.c - dlc compare: outputs beside a reference's, element by element, and one word at the end. */
#include "../json.h"
#include "runner.h"
#include "term.h"
#include "../../ir/diag.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

typedef struct {
  double atol, rtol;
} Tolerance;

typedef struct {
  double max_abs, max_rel, mean_abs, cosine_gap;
  int64_t at, count, wrong, nan[2], inf[2], rows, same_top; /* at: of max_abs; [0] ours, [1] the reference's */
  bool top; /* rows counts */
} Difference;

typedef struct {
  Cli *cli;
  Runner *runner;
  const char *reference; /* "onnxruntime 1.31.1" */
  FILE *out;
  Json json;
  bool color, as_json;
  int wrong, samples;
} Compare;

static Tolerance tolerance_of(const Cli *cli, DType t) {
  Tolerance d = {0, 0};
  if (t == DT_F64) d = (Tolerance){1e-7, 1e-7};
  else if (t == DT_F32) d = (Tolerance){1e-5, 1e-3};
  else if (t == DT_F16) d = (Tolerance){1e-3, 1e-2};
  else if (t == DT_BF16) d = (Tolerance){1e-2, 2e-2};
  return (Tolerance){cli_number(cli, OPT_ATOL, d.atol), cli_number(cli, OPT_RTOL, d.rtol)};
}

/* Integers above 2^53 do not fit a double: their difference is taken exactly. */
static double distance(const Array *a, const Array *r, int64_t i) {
  if (dtype_is_float(a->dtype)) return fabs(array_element(a, i) - array_element(r, i));
  const size_t at = (size_t)i * (size_t)dtype_bytes(a->dtype);
  int64_t x = dtype_load_i(a->dtype, (const char *)a->data + at),
          y = dtype_load_i(r->dtype, (const char *)r->data + at);
  bool swap = a->dtype == DT_U64 ? (uint64_t)x < (uint64_t)y : x < y;
  return (double)(swap ? (uint64_t)y - (uint64_t)x : (uint64_t)x - (uint64_t)y);
}

/* NaN equals NaN, an infinity equals itself. */
static void compare_element(Difference *d, const Array *a, const Array *r, int64_t i, Tolerance tol, double *sums) {
  double x = array_element(a, i), y = array_element(r, i);
  d->nan[0] += isnan(x) != 0;
  d->nan[1] += isnan(y) != 0;
  d->inf[0] += isinf(x) != 0;
  d->inf[1] += isinf(y) != 0;
  if ((isnan(x) && isnan(y)) || (isinf(x) && x == y)) return;
  double gap = distance(a, r, i), rel = gap == 0 ? 0 : gap / fabs(y);
  if (!isfinite(gap)) gap = rel = INFINITY;
  if (!(gap <= tol.atol + tol.rtol * fabs(y)) || isinf(y)) d->wrong++;
  if (gap > d->max_abs) {
    d->max_abs = gap;
    d->at = i;
  }
  d->max_rel = MAX(d->max_rel, rel);
  d->mean_abs += gap;
  sums[0] += x * x;
  sums[1] += y * y;
  sums[2] += (x - y) * (x - y);
}

static int64_t largest(const Array *a, int64_t start, int64_t width) {
  int64_t best = 0;
  for (int64_t i = 1; i < width; i++)
    if (array_element(a, start + i) > array_element(a, start + best)) best = i;
  return best;
}

static Difference compare_arrays(const Array *a, const Array *r, Tolerance tol) {
  Difference d = {.count = array_count(a)};
  double sums[3] = {0, 0, 0};
  for (int64_t i = 0; i < d.count; i++) compare_element(&d, a, r, i, tol, sums);
  d.mean_abs /= (double)MAX(d.count, 1);
  /* 1 - cos(x, y), from |x-y|^2 = |x|^2 + |y|^2 - 2 x.y, without cancellation */
  double nx = sqrt(sums[0]), ny = sqrt(sums[1]);
  d.cosine_gap = nx > 0 && ny > 0 ? (sums[2] - (nx - ny) * (nx - ny)) / (2 * nx * ny) : nx == ny ? 0 : 1;
  int64_t width = a->rank ? a->dims[a->rank - 1] : 1;
  d.top = dtype_is_float(a->dtype) && width > 1;
  for (int64_t row = 0; d.top && row < d.count / width; row++, d.rows++)
    d.same_top += largest(a, row * width, width) == largest(r, row * width, width);
  return d;
}

static const char *index_text(Ctx *c, const Array *a, int64_t at) {
  Str s = str_new(c);
  int64_t step = array_count(a);
  str_add(&s, "[");
  for (int i = 0; i < a->rank; i++) {
    step /= a->dims[i];
    str_add(&s, "%s%lld", i ? "," : "", (long long)(at / step));
    at %= step;
  }
  str_add(&s, "]");
  return s.s;
}

static void print_difference(Compare *k, const Difference *d, Tolerance tol, const Array *a) {
  FILE *out = k->out;
  fprintf(out, "  max abs %.2g", d->max_abs);
  if (d->max_abs > 0) fprintf(out, " at %s", index_text(k->cli->c, a, d->at));
  fprintf(out, "   max rel %.2g   mean abs %.2g   cos 1-%.1g   NaN %lld/%lld  Inf %lld/%lld", d->max_rel, d->mean_abs,
          MAX(d->cosine_gap, 0), (long long)d->nan[0], (long long)d->nan[1], (long long)d->inf[0],
          (long long)d->inf[1]);
  if (d->top) fprintf(out, "   top-1 %lld/%lld", (long long)d->same_top, (long long)d->rows);
  fprintf(out, "\n  needed: atol %.2g or rtol %.2g     allowed: atol %.2g + rtol %.2g x |ref|     ", d->max_abs,
          d->max_rel, tol.atol, tol.rtol);
  if (d->wrong)
    fprintf(out, "%s%lld of %lld WRONG%s\n", term_on(k->color, TERM_RED), (long long)d->wrong, (long long)d->count,
            term_off(k->color));
  else fprintf(out, "%sOK%s\n", term_on(k->color, TERM_GREEN), term_off(k->color));
}

static void difference_json(Json *j, const Difference *d, Tolerance tol) {
  json_number(j, "max_abs", d->max_abs);
  json_number(j, "max_rel", d->max_rel);
  json_number(j, "mean_abs", d->mean_abs);
  json_number(j, "cosine_gap", d->cosine_gap);
  json_number(j, "atol", tol.atol);
  json_number(j, "rtol", tol.rtol);
  json_int(j, "elements", d->count);
  json_int(j, "wrong", d->wrong);
}

static bool same_type(const Array *a, const Array *b) {
  bool same = a->dtype == b->dtype && a->rank == b->rank;
  for (int i = 0; i < a->rank && same; i++) same = a->dims[i] == b->dims[i];
  return same;
}

static void compare_output(Compare *k, const Port *port, const Array *a, const Array *r) {
  Ctx *c = k->cli->c;
  bool comparable = same_type(a, r);
  Tolerance tol = tolerance_of(k->cli, a->dtype);
  Difference d = {.wrong = 1};
  if (comparable) d = compare_arrays(a, r, tol);
  k->wrong += d.wrong > 0;
  if (k->as_json) {
    json_object(&k->json, NULL);
    json_text(&k->json, "name", port->name);
    json_text(&k->json, "type", array_type_text(c, a));
    json_text(&k->json, "reference_type", array_type_text(c, r));
    if (comparable) difference_json(&k->json, &d, tol);
    json_close(&k->json, '}');
  } else if (k->cli->verbose >= 0) {
    fprintf(k->out, "output %s %s  vs %s\n", diag_quote(c, port->name), array_type_text(c, a), k->reference);
    if (comparable) print_difference(k, &d, tol, a);
    else
      fprintf(k->out, "  %sthe reference is %s%s\n", term_on(k->color, TERM_RED), array_type_text(c, r),
              term_off(k->color));
  }
}

static void compare_sample(Compare *k, Array *in, const Array *reference) {
  Runner *r = k->runner;
  Array *out = NEW_ARRAY(k->cli->c, Array, r->noutputs);
  runner_check(r, in, r->ninputs);
  r->run(r, in, out);
  for (int i = 0; i < r->noutputs; i++) compare_output(k, &r->outputs[i], &out[i], &reference[i]);
  k->samples++;
}

static bool exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0;
}

/* DIR/input_0.pb, output_0.pb and so on, in the order of the model's inputs and outputs. */
static void compare_folder(Compare *k, const char *dir) {
  Ctx *c = k->cli->c;
  Runner *r = k->runner;
  Array *in = NEW_ARRAY(c, Array, r->ninputs), *reference = NEW_ARRAY(c, Array, r->noutputs);
  for (int i = 0; i < r->ninputs; i++)
    in[i] = array_read_pb(c, ctx_printf(c, "%s/input_%d.pb", dir, i), r->inputs[i].rank);
  for (int i = 0; i < r->noutputs; i++) reference[i] = array_read_pb(c, ctx_printf(c, "%s/output_%d.pb", dir, i), 0);
  compare_sample(k, in, reference);
}

/* A folder of one sample, or of folders test_data_set_0, 1 ... */
static void compare_stored(Compare *k, const char *dir) {
  Ctx *c = k->cli->c;
  k->reference = ctx_printf(c, "%s", diag_quote(c, dir));
  if (exists(ctx_printf(c, "%s/output_0.pb", dir))) {
    compare_folder(k, dir);
    return;
  }
  for (int i = 0; exists(ctx_printf(c, "%s/test_data_set_%d", dir, i)); i++)
    compare_folder(k, ctx_printf(c, "%s/test_data_set_%d", dir, i));
  if (k->samples == 0)
    diag_fail(c, E0501, NULL, "it should hold input_0.pb, output_0.pb ... or folders test_data_set_0 ...",
              "no test data in %s", diag_quote(c, dir));
}

static void compare_runner(Compare *k, Runner *reference) {
  if (reference->noutputs != k->runner->noutputs)
    diag_fail(k->cli->c, E0504, NULL, NULL, "%s has %d outputs, the reference %d",
              diag_quote(k->cli->c, k->runner->path), k->runner->noutputs, reference->noutputs);
  Array *in = runner_inputs(k->cli, k->runner), *out = NEW_ARRAY(k->cli->c, Array, reference->noutputs);
  reference->run(reference, in, out);
  k->reference = reference->what;
  compare_sample(k, in, out);
}

static void compare_with(Compare *k, const char *ref, const char *model, const Options *shapes) {
  Ctx *c = k->cli->c;
  if (!strncmp(ref, "data:", 5)) {
    compare_stored(k, ref + 5);
    return;
  }
  bool interp = !strcmp(ref, "interp");
  if (!interp && strcmp(ref, "ort") != 0)
    diag_fail(c, E0202, NULL, NULL, "--ref=data:DIR, ort or interp, not %s", diag_quote(c, ref));
  if (!model)
    diag_fail(c, E0203, NULL, NULL, "--ref=%s wants the model: dlc compare LIBRARY.so --ref=%s MODEL.onnx", ref, ref);
  compare_runner(k, interp ? runner_interp(c, model, shapes) : runner_ort(c, model, k->runner));
}

static void finish(Compare *k, double seconds) {
  const char *word = k->wrong ? "FAILED" : "PASSED";
  if (k->as_json) {
    json_close(&k->json, ']');
    json_text(&k->json, "reference", k->reference);
    json_int(&k->json, "samples", k->samples);
    json_text(&k->json, "status", k->wrong ? "failed" : "passed");
    json_end(&k->json);
  } else if (k->cli->verbose >= 0) {
    int n = k->runner->noutputs;
    fprintf(k->out, "%s%s%s | %d output%s, %d sample%s | %.1f s\n", term_on(k->color, k->wrong ? TERM_RED : TERM_GREEN),
            word, term_off(k->color), n, n == 1 ? "" : "s", k->samples, k->samples == 1 ? "" : "s", seconds);
  }
}

int verb_compare(Cli *cli) {
  const char *path = cli->args.v[0], *model = cli->args.n > 1 ? cli->args.v[1] : cli_is_model(path) ? path : NULL;
  const char *ref = cli_value(cli, OPT_REF);
  if (!ref) diag_fail(cli->c, E0202, NULL, "dlc help compare", "--ref is missing: data:DIR, ort or interp");
  Options shapes = {.model = model};
  cli_shape_options(cli, &shapes);
  int threads = (int)cli_int(cli, OPT_THREADS, 0, 1024, 0);
  bool interp = cli_has(cli, OPT_INTERP) || cli_is_model(path);
  double start = clock_seconds();
  Compare k = {.cli = cli, .as_json = cli_has(cli, OPT_JSON)};
  k.runner = interp ? runner_interp(cli->c, path, &shapes) : runner_library(cli->c, path, threads);
  k.out = cli_out(cli);
  k.color = term_color(cli, k.out);
  if (k.as_json) {
    k.json = json_begin(k.out, "compare");
    json_text(&k.json, "model", path);
    json_array(&k.json, "outputs");
  }
  compare_with(&k, ref, model, &shapes);
  finish(&k, clock_seconds() - start);
  cli_out_done(cli, k.out);
  return k.wrong ? 1 : 0;
}
