/* kernel_case.c - see kernel_case.h. */
#include "kernel_case.h"

#include <CUnit/Basic.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "../codegen/codegen.h"
#include "../codegen/link.h"
#include "../passes/passes.h"
#include "../runtime/dlc.h"
#include "library.h"

Options options;
const char *cpu_name;
bool far_cores, small_caches, slow_sums;
int which_tile;
const char *const cpus[CPUS] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};

static float next(Case *k) { return (float)((int)((k->seed = k->seed * 1664525 + 1013904223) >> 16) % 2001 - 1000) / 1000.0f; }

/* ---- extents: some are symbols, which all stand for the case's one open size ---- */
typedef struct { ExprEnv env; const Case *k; } Extents;
static Scalar open_size(ExprEnv *env, const Sym *s) { (void)s; return (Scalar){.i = ((Extents *)env)->k->open}; }

static int64_t size(const Case *k, const Expr *e) {
  Extents x = {{open_size, NULL}, k};
  return expr_eval(&x.env, e).i;
}

static int64_t count(Case *k, const Tensor *t) { return size(k, layout_elements(k->c, t)); }

Tensor *tensor(Case *k, const char *name, int rank, const int64_t *dims) {
  Expr *shape[MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = ex_int(k->c, dims[i]);
  return tensor_new(k->c, name, DT_F32, rank, shape);
}

static float *fill(Case *k, const Tensor *t) {
  int64_t n = count(k, t);
  float *v = NEW_ARRAY(k->c, float, n + 64);
  for (int64_t i = 0; i < n; i++) v[i] = next(k);
  return v;
}

Tensor *as_input(Case *k, Tensor *t) {
  t->scope = SCOPE_INPUT;
  vec_push(k->c, &k->m->graph->inputs, t);
  map_set(&k->data, KEY(t), fill(k, t));
  return t;
}

Tensor *input(Case *k, const char *name, int rank, const int64_t *dims) { return as_input(k, tensor(k, name, rank, dims)); }

/* n, or where it is open the symbol that stands for it */
Expr *maybe_open(Case *k, int64_t n, bool open) {
  if (!open) return ex_int(k->c, n);
  k->open = n;
  Sym *n_sym = sym_new(k->c, SYM_DIM, ctx_printf(k->c, "n%d", k->m->graph->dims.n), 1, 1000);
  vec_push(k->c, &k->m->graph->dims, n_sym);
  return n_sym->self;
}

Tensor *weight(Case *k, const char *name, int rank, const int64_t *dims) {
  Tensor *t = tensor(k, name, rank, dims);
  t->data = NEW(k->c, ConstData);
  t->data->bytes = fill(k, t);
  map_set(&k->data, KEY(t), (void *)t->data->bytes);
  return t;
}

Stage *stage(Case *k, Tensor *out) {
  static const char *const names[] = {"a", "b", "c", "d", "e"};
  Stage *st = NEW(k->c, Stage);
  st->out = out;
  st->axes = NEW_ARRAY(k->c, Sym *, out->rank + 1);
  for (int i = 0; i < out->rank; i++) st->axes[i] = sym_axis(k->c, SYM_AXIS, names[i], out->shape[i]);
  vec_push(k->c, &k->stages, st);
  Item *it = NEW(k->c, Item);
  it->group = NEW(k->c, Group);
  it->group->source = out->name;
  vec_push(k->c, &it->group->stages, st);
  vec_push(k->c, &k->m->body->items, it);
  return st;
}

static Stage *copy_of(Ctx *c, const Stage *st) {
  Stage *s = NEW(c, Stage);
  *s = *st;
  return s;
}

/* ---- direct evaluation: one element at a time, as the stages stand ---- */
typedef struct { ExprEnv env; Case *k; Map values; } Direct;
static Scalar sym_value(ExprEnv *env, const Sym *s) {
  const Direct *d = (Direct *)env;
  return (Scalar){.i = s->kind == SYM_DIM ? d->k->open : *(int64_t *)map_get(&d->values, KEY(s))};
}
static Scalar load_value(ExprEnv *env, const Expr *load, const int64_t *index) {
  Direct *d = (Direct *)env;
  const Tensor *t = load->u.tensor;
  int64_t at = 0;
  for (int i = 0; i < t->rank; i++) at = at * size(d->k, t->shape[i]) + index[i];
  return (Scalar){.f = ((float *)map_get(&d->k->data, KEY(t)))[at]};
}

static Expr *swap_reduce(Ctx *c, Expr *e, void *user) {
  Expr **pair = user;
  (void)c;
  return e == pair[0] ? pair[1] : e;
}

static void evaluate(Case *k, const Stage *st) {
  Direct d = {{sym_value, load_value}, k, map_new(k->c)};
  int64_t n = 1, at[MAX_RANK] = {0};
  for (int i = 0; i < st->out->rank; i++) n *= size(k, st->out->shape[i]), map_set(&d.values, KEY(st->axes[i]), &at[i]);
  Expr *red = stage_reduce(st->body);
  float *out = NEW_ARRAY(k->c, float, n + 1);
  int64_t r[MAX_RANK] = {0};
  for (int i = 1; red && i < red->n; i++) map_set(&d.values, KEY(red->a[i]->u.sym), &r[i - 1]);
  Tensor *sum = tensor(k, "sum", 0, NULL);
  Expr *load = ex_load(k->c, sum, NULL, 0);
  for (int64_t e = 0; e < n; e++) {
    float acc = red && red->u.i == RED_MAX ? -INFINITY : 0;
    int64_t steps = 1;
    for (int i = 1; red && i < red->n; i++) steps *= size(k, red->a[i]->u.sym->extent);
    for (int64_t s = 0; red && s < steps; s++) {
      int64_t rest = s;
      for (int i = red->n - 1; i >= 1; i--) r[i - 1] = rest % size(k, red->a[i]->u.sym->extent), rest /= size(k, red->a[i]->u.sym->extent);
      float v = (float)expr_eval(&d.env, red->a[0]).f;
      acc = red->u.i == RED_MAX ? fmaxf(acc, v) : acc + v;
    }
    map_set(&k->data, KEY(sum), &acc);
    Expr *pair[] = {red, load}, *body = red ? expr_map(k->c, st->body, swap_reduce, pair) : st->body;
    out[e] = (float)expr_eval(&d.env, body).f;
    for (int i = st->out->rank - 1; i >= 0 && ++at[i] == size(k, st->out->shape[i]); i--) at[i] = 0;
  }
  map_set(&k->data, KEY(st->out), out);
}

/* ---- the program, interpreted ---- */
static void *place(Case *k, char *arena, const Tensor *t) {
  if (t->scope == SCOPE_INPUT) return map_get(&k->data, KEY(t));
  if (t->scope == SCOPE_OUTPUT) return map_get(&k->data, KEY(t) + 1);
  return (t->scope == SCOPE_CONST ? k->weights : arena) + size(k, t->offset);
}

static void run_program(Case *k, char *arena, const Stmt *s) {
  void *params[64];
  int64_t dims[8];
  if (s->op == ST_CALL) {
    for (int i = 0; i < s->kernel->dims.n; i++) dims[i] = k->open;
    for (int i = 0; i < s->kernel->nparams; i++) params[i] = place(k, arena, s->args[i]);
    kernel_run(k->c, s->kernel, params, dims);
  }
  for (int i = 0; i < s->n; i++) run_program(k, arena, s->body[i]);
}

static int count_calls(const Stmt *s) {
  int n = s->op == ST_CALL;
  for (int i = 0; i < s->n; i++) n += count_calls(s->body[i]);
  return n;
}

Case start(uint32_t seed) {
  Case k = {.c = ctx_new(), .seed = seed};
  options.cpu = cpu_name;
  k.m = NEW(k.c, Module);
  *k.m = (Module){.c = k.c, .opt = &options, .target = target_find(k.c, cpu_name), .schedule = sched_rules_choose, .notes = str_new(k.c)};
  Target *t = ctx_copy(k.c, k.m->target, sizeof *t);
  if (small_caches) t->l2_bytes = 48 << 10, t->l3_bytes = 96 << 10;
  if (slow_sums) t->rate.fma /= 100;
  if (far_cores) t->rate.remote /= 1000;
  k.m->target = t;
  k.m->graph = graph_new(k.c, NULL, "test");
  k.m->body = NEW(k.c, Body);
  k.data = map_new(k.c);
  return k;
}

/* ---- the program, compiled and linked ---- */
static bool write_weights(void *module, int to, int64_t at, uint64_t *digest) { return weights_write(module, to, at, digest); }

/* false: this machine cannot run code for that CPU */
static bool run_native(Case *k, float *got, int64_t n) {
  char path[] = "/tmp/kernel_case.XXXXXX.so";
  ObjectList objects = {0};
  EntryInfo info = {"test", "{}"};
  const char *exports[] = {"test_model", "test_run"};
  int fd = mkstemps(path, 3);
  emit_kernels(k->m, &objects);
  entry_emit(k->m, &info, &objects);
  Link *l = link_begin(k->c, k->m->target->triple, path);
  for (int i = 0; i < objects.n; i++) link_object(l, objects.v[i].name, objects.v[i].bytes, objects.v[i].size);
  if (k->m->weight_bytes) link_data(l, "dlc_weights", k->m->weight_bytes, write_weights, k->m);
  link_shared(l, exports, 2, NULL);
  close(fd);
  void *so = dlopen(path, RTLD_NOW);
  if (!so) printf("%s\n", dlerror());
  CU_ASSERT_FATAL(so != NULL);
  const dlc_model *model = dlsym(so, "test_model");
  size_t bytes;
  bool runs = model->check_host(NULL, 0) == 0;
  int64_t dims[] = {k->open, k->open};
  CU_ASSERT_FATAL(k->m->graph->dims.n <= COUNT(dims) && model->workspace_size(NULL, dims, &bytes) == 0);
  void *workspace = aligned_alloc(64, bytes / 64 * 64 + 128);
  memset(workspace, 0x7f, bytes);
  memset(got, 0, sizeof *got * (size_t)n);
  CU_ASSERT_FATAL(k->m->graph->inputs.n == 1);
  void *x = map_get(&k->data, KEY(k->m->graph->inputs.v[0])), *run = dlsym(so, "test_run");
  int failed = -1;
  if (k->m->graph->dims.n == 0) failed = ((int (*)(void *, void *, void *))run)(x, got, workspace);
  if (k->m->graph->dims.n == 1) failed = ((int (*)(void *, void *, int64_t, void *))run)(x, got, dims[0], workspace);
  if (k->m->graph->dims.n == 2) failed = ((int (*)(void *, void *, int64_t, int64_t, void *))run)(x, got, dims[0], dims[1], workspace);
  CU_ASSERT((failed == 0) == runs);
  free(workspace);
  dlclose(so);
  unlink(path);
  return runs;
}

/* Errors are held against the largest value: sums that happen to be near zero are no more exact than others. */
static void compare(Case *k, const char *how, const float *got, const float *want, int64_t n) {
  double worst = 0, scale = 1;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(want[i]));
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, isfinite(got[i]) ? fabs(got[i] - want[i]) / scale : INFINITY);
  if (!(worst < 1e-5)) printf("  %s %s: worst %g\n", k->stages.v[0]->out->name, how, worst);
  CU_ASSERT(worst < 1e-5);
}

static void take_tile(Group *g, void *user) { (void)user, g->tile = which_tile; }

/* At least n kernels come from the rule. */
void finish(Case *k, const char *rule, int n) {
  Stage *last = k->stages.v[k->stages.n - 1];
  VEC(Stage *) plain = {0};
  for (int i = 0; i < k->stages.n; i++) vec_push(k->c, &plain, copy_of(k->c, k->stages.v[i]));
  last->out->scope = SCOPE_OUTPUT;
  vec_push(k->c, &k->m->graph->outputs, last->out);
  Tensor *out = last->out;
  for (int i = 0; i < plain.n; i++) evaluate(k, plain.v[i]);
  float *want = map_get(&k->data, KEY(out));
  int64_t elements = count(k, out), arena;
  float *got = NEW_ARRAY(k->c, float, elements + 64);
  map_set(&k->data, KEY(out) + 1, got);
  pass_fuse(k->m);
  pass_windows(k->m);
  pass_attention(k->m);
  pass_winograd(k->m);
  pass_merge(k->m);
  pass_strassen(k->m);
  pass_views(k->m);
  pass_layout(k->m);
  pass_pack(k->m);
  pass_pools(k->m);
  body_each_group(k->m->body, take_tile, NULL);
  pass_lower(k->m);
  pass_weights(k->m);
  pass_memplan(k->m);
  int found = 0, sums = 0;
  bool said = !k->says || (k->m->notes.s && strstr(k->m->notes.s, k->says));
  for (int i = 0; i < k->m->kernels.n; i++) {
    const char *text = kernel_text(k->c, k->m->kernels.v[i]), *acc = strstr(text, "alloc reg acc: f32[");
    kernel_verify(k->c, k->m->kernels.v[i]);
    if (getenv("DLC_TEST_PRINT")) puts(text);
    said |= k->says && strstr(text, k->says);
    sums = MAX(sums, acc ? atoi(strchr(acc, '[') + 1) : 0);
    found += rule && k->m->kernels.v[i]->why && !strcmp(k->m->kernels.v[i]->why, rule);
  }
  CU_ASSERT(!rule || found >= n);
  if (!said) printf("  %s: no %s\n", expr_text(k->c, k->stages.v[0]->out->shape[2]), k->says);
  CU_ASSERT(sums >= k->sums && said);
  CU_ASSERT(!k->calls || count_calls(k->m->program) == k->calls);
  CU_ASSERT(!k->calls || (!strstr(k->m->notes.s, "line: taken") && !strstr(k->m->notes.s, "serial: taken")));
  arena = size(k, k->m->arena_bytes);
  char *memory = malloc((size_t)arena + 64);
  memset(memory, 0x7f, (size_t)arena + 64);                  /* what nobody writes is a huge number */
  memset(memory, 0, (size_t)size(k, k->m->zeroed_bytes));
  k->weights = test_weights(k->m);
  for (int runs = size(k, k->m->zeroed_bytes) ? 2 : 1; runs > 0; runs--) run_program(k, memory, k->m->program);       /* rings stay as they were */
  free(k->weights);
  free(memory);
  compare(k, "interpreted", got, want, elements);
  if (run_native(k, got, elements)) compare(k, "compiled", got, want, elements);
  ctx_free(k->c);
}

Expr *at(Case *k, Tensor *t, Expr *a, Expr *b, Expr *c, Expr *d) {
  Expr *index[] = {a, b, c, d};
  return ex_load(k->c, t, index, t->rank);
}

Expr *relu(Case *k, Expr *x) { return ex_max(k->c, x, ex_const(k->c, DT_F32, 0)); }
