/* run.c - dlc-onnx-tests: runs folders of ONNX tests (model.onnx, test_data_set_N/{input,output}_I.pb) and tells which pass.
 *
 *   dlc-onnx-tests FOLDER [--cpu CPU] [--symbolic] [--texts] [--jobs N] [--only TEXT] [--skip TEXT] [--status FILE [--update]] [--quiet]
 *
 * On the interpreter, or with --cpu (a row of targets.def) compiled for that CPU and run from the library. --symbolic: extents of
 * inputs other than 0 and 1 are symbols, equal ones the same. --texts: what a pass leaves goes to the next as text.
 * Every test runs in a process of its own. Many tests give shapes, axes or sizes as inputs of the model; where dlc must know them before
 * the model runs, the test is tried again with its small inputs made constants and counts as FIXED if it passes then. The rule of
 * comparison is ONNX's: |got - want| <= 1e-7 + rtol * |want|, rtol 1e-3. With a status file no test may do worse than its line there:
 * else the exit status is 1. --update writes what is better now into the file.
 */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../frontend/onnx/onnx.h"
#include "../../ir/interp.h"
#include "../../passes/simplify.h"
#include "../library.h"

typedef struct { const char *name, *status; } Row;
typedef VEC(Row) RowList;
typedef VEC(const char *) NameList;

static Ctx *main_ctx;
static const char *only, *skip, *status_path, *cpu;
static bool update, quiet, symbolic, texts;
static char scratch[] = "/tmp/dlc-onnx-XXXXXX";      /* libraries, named by their test's process */
static int jobs = 2;

enum { SECONDS = 120, AHEAD = 16 };

/* ---- one test, in a child: says PASS, FAIL or UNSUPPORTED with a reason on the pipe ---- */

static bool exists(const char *path) {
  struct stat s;
  return !stat(path, &s);
}

static const char *type_text(Ctx *c, DType t, int rank, const int64_t *dims) {
  Str s = str_new(c);
  str_add(&s, "%s[", dtype_info[t].name);
  for (int i = 0; i < rank; i++) str_add(&s, "%s%lld", i ? "," : "", (long long)dims[i]);
  str_add(&s, "]");
  return s.s;
}

static bool close_enough(DType t, const char *got, const char *want, double rtol) {
  if (t == DT_I64 || t == DT_U64) {
    int64_t a = dtype_load_i(t, got), b = dtype_load_i(t, want);
    if (a == b) return true;
    return fabs((double)a - (double)b) <= 1e-7 + rtol * fabs((double)b);
  }
  double a = dtype_is_float(t) ? dtype_load_f(t, got) : (double)dtype_load_i(t, got);
  double b = dtype_is_float(t) ? dtype_load_f(t, want) : (double)dtype_load_i(t, want);
  if (a == b || (isnan(a) && isnan(b))) return true;
  return fabs(a - b) <= 1e-7 + rtol * fabs(b);
}

/* NULL, or how the output differs. */
static const char *difference(Ctx *c, const Value *got, const OnnxArray *want, double rtol) {
  if (got->dtype != want->dtype || got->rank != want->rank || memcmp(got->dims, want->dims, sizeof(int64_t) * (size_t)got->rank))
    return ctx_printf(c, "%s instead of %s", type_text(c, got->dtype, got->rank, got->dims), type_text(c, want->dtype, want->rank, want->dims));
  if (want->dtype == DT_BF16) rtol = MAX(rtol, 1.0 / 64);
  int64_t n = value_elements(got), bad = 0, first = 0;
  int each = dtype_bytes(got->dtype);
  for (int64_t i = 0; i < n; i++) {
    const char *a = (const char *)got->data + (got->splat ? 0 : i * each), *b = (const char *)want->data + i * each;
    if (!close_enough(got->dtype, a, b, rtol) && !bad++) first = i;
  }
  if (!bad) return NULL;
  const char *a = (const char *)got->data + (got->splat ? 0 : first * each), *b = (const char *)want->data + first * each;
  return ctx_printf(c, "%lld of %lld elements differ, the first at %lld: %g instead of %g", (long long)bad, (long long)n, (long long)first,
                    dtype_is_float(got->dtype) ? dtype_load_f(got->dtype, a) : (double)dtype_load_i(got->dtype, a),
                    dtype_is_float(got->dtype) ? dtype_load_f(want->dtype, b) : (double)dtype_load_i(want->dtype, b));
}

/* Makes constants of the inputs of few elements, which may be sizes; file[i] is the number of the file of what is then input i. */
static void fix_inputs(Ctx *c, Graph *g, const char *folder, int *file) {
  enum { FEW = 32 };
  int n = 0;
  for (int i = 0; i < g->inputs.n; i++) {
    Tensor *t = g->inputs.v[i];
    OnnxArray a = onnx_read_tensor(c, ctx_printf(c, "%s/test_data_set_0/input_%d.pb", folder, i));
    int64_t elements = 1;
    for (int d = 0; d < a.rank; d++) elements *= a.dims[d];
    bool sizes = i || a.rank == 0 || dtype_is_int(a.dtype);
    if (sizes && a.rank < 2 && elements <= FEW) tensor_replace(g, t, graph_const(g, t->name, a.dtype, a.dims, a.rank, a.data));
    else {
      file[n] = i;
      g->inputs.v[n++] = t;
    }
  }
  g->inputs.n = n;
}

static void make_symbolic(Ctx *c, Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) {
    Tensor *t = g->inputs.v[i];
    for (int d = 0; d < t->rank; d++) {
      int64_t n;
      if (ex_is_int(t->shape[d], &n) && n > 1) t->shape[d] = graph_dim(g, ctx_printf(c, "n%lld", (long long)n))->self;
    }
  }
}

/* ---- what runs a model: the interpreter, or a library ---- */

typedef struct { Graph *graph; Interp *interp; Runner *library; } Engine;

static const char *library_path(Ctx *c, pid_t pid, const char *suffix) { return ctx_printf(c, "%s/%d%s", scratch, (int)pid, suffix); }

static Runner *compile_library(Ctx *c, Graph *g) {
  Module *m = test_module(c, g, cpu, library_path(c, getpid(), ".so"));
  if (texts) m = test_run_by_texts(m);
  else pipeline_run(m);
  return test_library(m, 2);
}

static Engine engine_new(Ctx *c, Graph *g) {
  if (cpu) return (Engine){ .graph = g, .library = compile_library(c, g) };
  graph_simplify(c, g);
  graph_verify(g);
  return (Engine){ .graph = g, .interp = interp_new(c) };
}

static void engine_run(Ctx *c, const Engine *e, const Value *inputs, Value *outputs) {
  if (e->interp) {
    interp_graph(e->interp, e->graph, inputs, outputs);
    return;
  }
  Runner *r = e->library;
  Array *in = NEW_ARRAY(c, Array, r->ninputs + 1), *out = NEW_ARRAY(c, Array, r->noutputs + 1);
  for (int i = 0; i < r->ninputs; i++) {
    in[i] = (Array){ .dtype = inputs[i].dtype, .rank = inputs[i].rank, .data = (void *)inputs[i].data };
    memcpy(in[i].dims, inputs[i].dims, sizeof in[i].dims);
  }
  r->run(r, in, out);
  for (int i = 0; i < r->noutputs; i++) {
    outputs[i] = (Value){ .dtype = out[i].dtype, .rank = out[i].rank, .data = out[i].data };
    memcpy(outputs[i].dims, out[i].dims, sizeof out[i].dims);
  }
}

static const char *run_data_set(Ctx *c, const Engine *e, const char *folder, const int *file, double rtol) {
  Graph *g = e->graph;
  Value *inputs = NEW_ARRAY(c, Value, g->inputs.n + 1), *outputs = NEW_ARRAY(c, Value, g->outputs.n + 1);
  for (int i = 0; i < g->inputs.n; i++) {
    OnnxArray a = onnx_read_tensor(c, ctx_printf(c, "%s/input_%d.pb", folder, file[i]));
    int more = MAX(g->inputs.v[i]->rank - a.rank, 0);        /* stored data may leave out leading dimensions of 1 */
    inputs[i] = (Value){ .dtype = a.dtype, .rank = a.rank + more, .data = a.data };
    for (int d = 0; d < inputs[i].rank; d++) inputs[i].dims[d] = d < more ? 1 : a.dims[d - more];
  }
  engine_run(c, e, inputs, outputs);
  for (int i = 0; i < g->outputs.n; i++) {
    const char *path = ctx_printf(c, "%s/output_%d.pb", folder, i);
    if (!exists(path)) continue;
    OnnxArray want = onnx_read_tensor(c, path);
    const char *how = difference(c, &outputs[i], &want, rtol);
    if (how) return ctx_printf(c, "output %d '%s': %s", i, diag_quote(c, g->outputs.v[i]->name), how);
  }
  if (exists(ctx_printf(c, "%s/output_%d.pb", folder, g->outputs.n))) return "outputs are missing";
  return NULL;
}

static const char *run_test(Ctx *c, const char *folder, bool fixed) {
  double rtol = strstr(folder, "densenet121") ? 2e-3 : 1e-3;
  ctx_diags(c)->file = "model.onnx";
  Graph *g = onnx_import(c, ctx_printf(c, "%s/model.onnx", folder), NULL);
  int *file = NEW_ARRAY(c, int, g->inputs.n + 1);
  for (int i = 0; i < g->inputs.n; i++) file[i] = i;
  if (fixed) fix_inputs(c, g, folder, file);
  if (symbolic) make_symbolic(c, g);
  Engine e = engine_new(c, g);
  for (int k = 0;; k++) {
    const char *data = ctx_printf(c, "%s/test_data_set_%d", folder, k);
    if (!exists(data) || (k && fixed)) return !k ? "FAIL no data" : fixed ? "FIXED" : "PASS";
    const char *how = run_data_set(c, &e, data, file, rtol);
    if (how) return ctx_printf(c, "FAIL %s", how);
  }
}

/* Tries the test once; what it comes to, in static memory. */
static const char *try_test(const char *folder, bool fixed) {
  static char text[2000];
  Ctx *c = ctx_new();
  Diags *d = ctx_diags(c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    snprintf(text, sizeof text, "%s", run_test(c, folder, fixed));
  } else {
    const Diag *e = &d->list.v[0];
    snprintf(text, sizeof text, "%s %s %s", diag_exit_status(c) == 4 ? "UNSUPPORTED" : "FAIL", diag_code_name(e->code), e->text);
  }
  ctx_free(c);
  return text;
}

static void child(const char *folder, int to) {
  alarm(SECONDS);
  const char *text = try_test(folder, false);
  if (!strncmp(text, "UNSUPPORTED", 11)) {
    const char *first = ctx_printf(main_ctx, "%s", text);
    text = try_test(folder, true);
    if (strncmp(text, "FIXED", 5)) text = first;
  }
  dprintf(to, "%s", text);
  _exit(0);
}

typedef struct { pid_t pid; int from; double start; } Running;

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static Running start_test(const char *folder) {
  int ends[2];
  Running r = { .pid = -1, .from = -1, .start = seconds() };
  if (pipe(ends)) return r;
  fflush(NULL);
  r.pid = fork();
  r.from = ends[0];
  if (!r.pid) {
    close(ends[0]);
    dup2(ends[1], 2);                /* an internal error's own words are the reason */
    child(folder, ends[1]);
  }
  close(ends[1]);
  return r;
}

static const char *finish_test(const Running *r) {
  char text[2000];
  size_t n = 0;
  if (r->pid < 0) return "FAIL no process";
  for (ssize_t got; n < sizeof text - 1 && (got = read(r->from, text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
  close(r->from);
  text[n] = 0;
  int status = 0;
  waitpid(r->pid, &status, 0);
  remove(library_path(main_ctx, r->pid, ".so"));
  remove(library_path(main_ctx, r->pid, ".h"));
  for (char *p = text; *p; p++)
    if (*p == '\n') *p = ' ';
  if (WIFSIGNALED(status)) return ctx_printf(main_ctx, "FAIL signal %d %s", WTERMSIG(status), text);
  if (WEXITSTATUS(status)) return ctx_printf(main_ctx, "FAIL %s", text);
  return ctx_printf(main_ctx, "%s", text);
}

/* ---- finding tests ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The names of all folders under root that hold a model.onnx, sorted. */
static void find_tests(const char *root, const char *below, NameList *list) {
  const char *folder = *below ? ctx_printf(main_ctx, "%s/%s", root, below) : root;
  if (exists(ctx_printf(main_ctx, "%s/model.onnx", folder))) {
    vec_push(main_ctx, list, below);
    return;
  }
  NameList names = { 0 };
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));)
    if (e->d_name[0] != '.' && e->d_type == DT_DIR) vec_push(main_ctx, &names, ctx_printf(main_ctx, "%s", e->d_name));
  if (d) closedir(d);
  qsort(names.v, (size_t)names.n, sizeof *names.v, by_name);
  for (int i = 0; i < names.n; i++)
    find_tests(root, *below ? ctx_printf(main_ctx, "%s/%s", below, names.v[i]) : names.v[i], list);
}

/* ---- what fails why: code and operator ---- */

static const char *reason_of(const char *status) {
  char code[16] = "", op[64] = "";
  const char *p = strstr(status, "E0"), *q = strstr(status, " (");
  if (!strncmp(status, "PASS", 4) || !strncmp(status, "FIXED", 5)) return NULL;
  if (p && p < status + 24) sscanf(p, "%15[E0-9]", code);
  if (!*code) {
    if (strstr(status, "elements differ")) return "values";
    if (strstr(status, "instead of")) return "shape or type";
    return ctx_printf(main_ctx, "%.60s", status);
  }
  if (!strstr(status, "E0900") && q && sscanf(q, " (%63[A-Za-z0-9._-])", op) == 1) return ctx_printf(main_ctx, "%s %s", code, op);
  return ctx_printf(main_ctx, "%s %.60s", code, p + strlen(code));
}

static int by_count(const void *a, const void *b) {
  const MapEntry *x = a, *y = b;
  intptr_t n = (intptr_t)y->value - (intptr_t)x->value;
  return n ? (n > 0 ? 1 : -1) : strcmp((const char *)(uintptr_t)x->key, (const char *)(uintptr_t)y->key);
}

static void print_histogram(const RowList *rows) {
  Map count = map_new(main_ctx);
  for (int i = 0; i < rows->n; i++) {
    const char *why = reason_of(rows->v[i].status);
    if (!why) continue;
    uint64_t key = KEY(ctx_intern(main_ctx, why));
    map_set(&count, key, (void *)((intptr_t)map_get(&count, key) + 1));
  }
  qsort(count.entries.v, (size_t)count.entries.n, sizeof(MapEntry), by_count);
  for (int i = 0; i < count.entries.n; i++)
    printf("%5ld  %s\n", (long)(intptr_t)count.entries.v[i].value, (const char *)(uintptr_t)count.entries.v[i].key);
}

/* ---- the status file: "PASS name" or "FIXED name" a line, sorted by name ---- */

static int level_of(const char *status) { return !strncmp(status, "PASS", 4) ? 2 : !strncmp(status, "FIXED", 5) ? 1 : 0; }

static void read_status(Map *level) {
  char line[512], word[16], name[400];
  FILE *f = fopen(status_path, "r");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "%15s %399s", word, name) == 2) map_set(level, KEY(ctx_intern(main_ctx, name)), (void *)(intptr_t)level_of(word));
  if (f) fclose(f);
}

static bool write_status(const Map *level) {
  NameList names = { 0 };
  for (int i = 0; i < level->entries.n; i++) vec_push(main_ctx, &names, (const char *)(uintptr_t)level->entries.v[i].key);
  qsort(names.v, (size_t)names.n, sizeof *names.v, by_name);
  FILE *f = fopen(status_path, "w");
  for (int i = 0; f && i < names.n; i++) {
    intptr_t l = (intptr_t)map_get(level, KEY(names.v[i]));
    if (l) fprintf(f, "%s %s\n", l == 2 ? "PASS" : "FIXED", names.v[i]);
  }
  return f && !fclose(f);
}

static int compare_status(const RowList *rows) {
  Map level = map_new(main_ctx);
  int worse = 0, better = 0;
  read_status(&level);
  for (int i = 0; i < rows->n; i++) {
    uint64_t key = KEY(ctx_intern(main_ctx, rows->v[i].name));
    intptr_t was = (intptr_t)map_get(&level, key), is = level_of(rows->v[i].status);
    if (is < was) printf("WORSE %s: %s\n", rows->v[i].name, rows->v[i].status), worse++;
    if (is > was) map_set(&level, key, (void *)is), better++;
  }
  if (worse || better) printf("%d tests do worse than %s says, %d better\n", worse, status_path, better);
  if (update && better && !worse && !write_status(&level)) perror(status_path), worse++;
  return worse != 0;
}

/* Some tests run ahead of the one whose result is next. */
static int run_all(const char *root) {
  NameList all = { 0 }, tests = { 0 };
  RowList rows = { 0 };
  Running running[AHEAD];
  int passed = 0, fixed = 0, unsupported = 0, started = 0;
  find_tests(root, "", &all);
  for (int i = 0; i < all.n; i++)
    if ((!only || strstr(all.v[i], only)) && !(skip && strstr(all.v[i], skip))) vec_push(main_ctx, &tests, all.v[i]);
  for (int i = 0; i < tests.n; i++) {
    for (; started < tests.n && started < i + jobs; started++)
      running[started % AHEAD] = start_test(ctx_printf(main_ctx, "%s/%s", root, tests.v[started]));
    const Running *r = &running[i % AHEAD];
    const char *status = finish_test(r);
    vec_push(main_ctx, &rows, ((Row){ tests.v[i], status }));
    passed += level_of(status) == 2;
    fixed += level_of(status) == 1;
    unsupported += !strncmp(status, "UNSUPPORTED", 11);
    if (!quiet) printf("%s: %s  (%.2f s)\n", tests.v[i], status, seconds() - r->start);
  }
  print_histogram(&rows);
  printf("%d tests: %d PASS, %d FIXED, %d FAIL, %d UNSUPPORTED\n", rows.n, passed, fixed, rows.n - passed - fixed - unsupported, unsupported);
  return status_path ? compare_status(&rows) : passed + fixed != rows.n;
}

int main(int argc, char **argv) {
  const char *root = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--only") && i + 1 < argc) only = argv[++i];
    else if (!strcmp(argv[i], "--skip") && i + 1 < argc) skip = argv[++i];
    else if (!strcmp(argv[i], "--status") && i + 1 < argc) status_path = argv[++i];
    else if (!strcmp(argv[i], "--cpu") && i + 1 < argc) cpu = argv[++i];
    else if (!strcmp(argv[i], "--jobs") && i + 1 < argc) jobs = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--symbolic")) symbolic = true;
    else if (!strcmp(argv[i], "--texts")) texts = true;
    else if (!strcmp(argv[i], "--update")) update = true;
    else if (!strcmp(argv[i], "--quiet")) quiet = true;
    else if (!root) root = argv[i];
  }
  if (!root || jobs < 1 || jobs > AHEAD) {
    fprintf(stderr, "dlc-onnx-tests FOLDER [--cpu CPU] [--symbolic] [--texts] [--jobs N] [--only TEXT] [--skip TEXT] [--status FILE [--update]] [--quiet]\n");
    return 2;
  }
  if (cpu && !mkdtemp(scratch)) {
    perror(scratch);
    return 1;
  }
  main_ctx = ctx_new();
  int result = run_all(root);
  if (cpu) rmdir(scratch);
  ctx_free(main_ctx);
  return result;
}
