/* run.c - dlc run: one inference, and what came out. */
#include "../json.h"
#include "runner.h"
#include "term.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
  double least, most, mean;
  int64_t nans;
} Spread;

static Spread spread_of(const Array *a) {
  Spread s = {INFINITY, -INFINITY, 0, 0};
  int64_t n = array_count(a);
  for (int64_t i = 0; i < n; i++) {
    double v = array_element(a, i);
    if (isnan(v)) {
      s.nans++;
      continue;
    }
    s.least = MIN(s.least, v);
    s.most = MAX(s.most, v);
    s.mean += v;
  }
  s.mean /= (double)MAX(n - s.nans, 1);
  return s;
}

static void print_output(const Cli *cli, FILE *out, const Port *port, const Array *a) {
  enum { SHOWN = 8 };
  int64_t n = array_count(a);
  Spread s = spread_of(a);
  fprintf(out, "%s  %s", diag_quote(cli->c, port->name), array_type_text(cli->c, a));
  if (n > SHOWN) fprintf(out, "  min %.6g  max %.6g  mean %.6g", s.least, s.most, s.mean);
  if (s.nans) fprintf(out, "  NaN %lld", (long long)s.nans);
  fputs("  [", out);
  for (int64_t i = 0; i < MIN(n, SHOWN); i++) fprintf(out, "%s%.6g", i ? " " : "", array_element(a, i));
  fprintf(out, "%s]\n", n > SHOWN ? " ..." : "");
}

typedef struct {
  double value;
  int64_t index;
} Ranked;

static int by_value(const void *a, const void *b) {
  const Ranked *x = a, *y = b;
  if (isnan(x->value) != isnan(y->value)) return isnan(x->value) ? 1 : -1;
  if (x->value != y->value && !isnan(x->value)) return x->value > y->value ? -1 : 1;
  return x->index < y->index ? -1 : 1;
}

/* The largest elements of each row of the last axis, of the first rows. */
static void print_top(const Cli *cli, FILE *out, const Port *port, const Array *a, int64_t top) {
  enum { ROWS = 16 };
  int64_t width = a->rank ? a->dims[a->rank - 1] : 1, rows = width ? array_count(a) / width : 0;
  Ranked *ranked = NEW_ARRAY(cli->c, Ranked, MAX(width, 1));
  for (int64_t r = 0; r < MIN(rows, ROWS); r++) {
    for (int64_t i = 0; i < width; i++) ranked[i] = (Ranked){array_element(a, r * width + i), i};
    qsort(ranked, (size_t)width, sizeof *ranked, by_value);
    fprintf(out, "top %lld of %s", (long long)MIN(top, width), diag_quote(cli->c, port->name));
    if (rows > 1) fprintf(out, " row %lld", (long long)r);
    for (int64_t i = 0; i < MIN(top, width); i++)
      fprintf(out, "%s%lld: %.6g", i ? ", " : ":  ", (long long)ranked[i].index, ranked[i].value);
    fputc('\n', out);
  }
  if (rows > ROWS) fprintf(out, "... %lld rows more\n", (long long)(rows - ROWS));
}

static void print_json(const Cli *cli, FILE *out, const Runner *r, const Array *outputs) {
  Json j = json_begin(out, "run");
  json_text(&j, "model", r->path);
  json_array(&j, "outputs");
  for (int i = 0; i < r->noutputs; i++) {
    Spread s = spread_of(&outputs[i]);
    json_object(&j, NULL);
    json_text(&j, "name", r->outputs[i].name);
    json_text(&j, "dtype", dtype_info[outputs[i].dtype].name);
    json_array(&j, "shape");
    for (int d = 0; d < outputs[i].rank; d++) json_int(&j, NULL, outputs[i].dims[d]);
    json_close(&j, ']');
    json_number(&j, "min", s.least);
    json_number(&j, "max", s.most);
    json_number(&j, "mean", s.mean);
    json_int(&j, "nan", s.nans);
    json_close(&j, '}');
  }
  json_close(&j, ']');
  json_end(&j);
}

static int find_output(const Cli *cli, const Runner *r, const char *name) {
  for (int i = 0; i < r->noutputs; i++)
    if (!strcmp(r->outputs[i].name, name)) return i;
  diag_fail(cli->c, E0202, NULL, NULL, "--output: the model has no output %s", diag_quote(cli->c, name));
}

/* --output y=@y.npy: checked before the run, written after it. */
static void save_outputs(const Cli *cli, const Runner *r, const Array *outputs) {
  const char *name, *value;
  for (int i = 0; cli_pair(cli, OPT_SAVE, i, &name, &value); i++) {
    int at = find_output(cli, r, name);
    size_t n = strlen(value);
    if (*value != '@' || n < 6 || strcmp(value + n - 4, ".npy") != 0)
      diag_fail(cli->c, E0202, NULL, NULL, "--output=NAME=@FILE.npy, not %s", diag_quote(cli->c, value));
    if (outputs) npy_write(cli->c, value + 1, &outputs[at]);
  }
}

int verb_run(Cli *cli) {
  const char *path = cli->args.v[0];
  int threads = (int)cli_int(cli, OPT_THREADS, 0, 1024, 0);
  int64_t top = cli_int(cli, OPT_PRINT_TOP, 1, 1000000, 0);
  Options shapes = {.model = path};
  cli_shape_options(cli, &shapes);
  bool interp = cli_has(cli, OPT_INTERP) || cli_is_model(path);
  Runner *r = interp ? runner_interp(cli->c, path, &shapes) : runner_library(cli->c, path, threads);
  save_outputs(cli, r, NULL);
  const Array *in = runner_inputs(cli, r);
  Array *outputs = NEW_ARRAY(cli->c, Array, r->noutputs);
  r->run(r, in, outputs);
  save_outputs(cli, r, outputs);
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) print_json(cli, out, r, outputs);
  for (int i = 0; i < r->noutputs && !cli_has(cli, OPT_JSON); i++) {
    if (cli->verbose >= 0) print_output(cli, out, &r->outputs[i], &outputs[i]);
    if (top) print_top(cli, out, &r->outputs[i], &outputs[i], top);
  }
  cli_out_done(cli, out);
  return 0;
}
