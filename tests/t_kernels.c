/* t_kernels.c - stages to kernels: every schedule rule, layout and epilogue against a direct evaluation of the stages. */
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

static Options options;
static const char *cpu;
static bool far_cores;             /* threads part rows, however small maps are */
static bool small_caches;          /* of the target: bands of tiles pay for small maps already */
static bool slow_sums;             /* of the target: fewer multiplications pay always */
static int which_tile;             /* of contractions: 0 the best, others smaller */

typedef struct {
  Ctx *c;
  Module *m;
  VEC(Stage *) stages;
  uint32_t seed;
  Map data;
  char *weights;
  int64_t open;
  int calls;                       /* expected in the program; 0: any number */
  int sums;                        /* that some kernel holds in registers, at least */
  const char *says;                /* some kernel's text */
} Case;

static float next(Case *k) { return (float)((int)((k->seed = k->seed * 1664525 + 1013904223) >> 16) % 2001 - 1000) / 1000.0f; }

/* ---- extents: some are symbols, which all stand for the case's one open size ---- */
typedef struct { ExprEnv env; const Case *k; } Extents;
static Scalar open_size(ExprEnv *env, const Sym *s) { (void)s; return (Scalar){.i = ((Extents *)env)->k->open}; }

static int64_t size(const Case *k, const Expr *e) {
  Extents x = {{open_size, NULL}, k};
  return expr_eval(&x.env, e).i;
}

static int64_t count(Case *k, const Tensor *t) { return size(k, layout_elements(k->c, t)); }

static Tensor *tensor(Case *k, const char *name, int rank, const int64_t *dims) {
  Expr *shape[MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = ex_int(k->c, dims[i]);
  return tensor_new(k->c, name, DT_F32, rank, shape);
}
#define DIMS(...) COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}

static float *fill(Case *k, const Tensor *t) {
  int64_t n = count(k, t);
  float *v = NEW_ARRAY(k->c, float, n + 64);
  for (int64_t i = 0; i < n; i++) v[i] = next(k);
  return v;
}

static Tensor *as_input(Case *k, Tensor *t) {
  t->scope = SCOPE_INPUT;
  vec_push(k->c, &k->m->graph->inputs, t);
  map_set(&k->data, KEY(t), fill(k, t));
  return t;
}

static Tensor *input(Case *k, const char *name, int rank, const int64_t *dims) { return as_input(k, tensor(k, name, rank, dims)); }

/* n, or where it is open the symbol that stands for it */
static Expr *maybe_open(Case *k, int64_t n, bool open) {
  if (!open) return ex_int(k->c, n);
  k->open = n;
  Sym *n_sym = sym_new(k->c, SYM_DIM, ctx_printf(k->c, "n%d", k->m->graph->dims.n), 1, 1000);
  vec_push(k->c, &k->m->graph->dims, n_sym);
  return n_sym->self;
}
#define EXTENTS(...) COUNT(((Expr *[]){__VA_ARGS__})), (Expr *[]){__VA_ARGS__}

static Tensor *weight(Case *k, const char *name, int rank, const int64_t *dims) {
  Tensor *t = tensor(k, name, rank, dims);
  t->data = NEW(k->c, ConstData);
  t->data->bytes = fill(k, t);
  map_set(&k->data, KEY(t), (void *)t->data->bytes);
  return t;
}

static Stage *stage(Case *k, Tensor *out) {
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

static Case start(uint32_t seed) {
  Case k = {.c = ctx_new(), .seed = seed};
  options.cpu = cpu;
  k.m = NEW(k.c, Module);
  *k.m = (Module){.c = k.c, .opt = &options, .target = target_find(k.c, cpu), .schedule = sched_rules_choose, .notes = str_new(k.c)};
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
  char path[] = "/tmp/t_kernels.XXXXXX.so";
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
static void finish(Case *k, const char *rule, int n) {
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

static Expr *at(Case *k, Tensor *t, Expr *a, Expr *b, Expr *c, Expr *d) {
  Expr *index[] = {a, b, c, d};
  return ex_load(k->c, t, index, t->rank);
}

static Expr *relu(Case *k, Expr *x) { return ex_max(k->c, x, ex_const(k->c, DT_F32, 0)); }

static void matmul(int64_t m, int64_t n, int64_t kk, bool epilogue) {
  Case k = start((uint32_t)(m * 31 + n));
  Tensor *x = input(&k, "x", DIMS(m, kk)), *w = weight(&k, "w", DIMS(kk, n)), *b = weight(&k, "bias", DIMS(n));
  Stage *mm = stage(&k, tensor(&k, "mm", DIMS(m, n)));
  Sym *r = sym_axis(k.c, SYM_REDUCE, "k", ex_int(k.c, kk));
  Expr *i = mm->axes[0]->self, *j = mm->axes[1]->self;
  mm->body = ex_reduce(k.c, RED_SUM, ex_mul(k.c, at(&k, x, i, r->self, 0, 0), at(&k, w, r->self, j, 0, 0)), &r, 1);
  if (epilogue) {
    Stage *y = stage(&k, tensor(&k, "y", DIMS(m, n)));
    Expr *p = y->axes[0]->self, *q = y->axes[1]->self;
    y->body = relu(&k, ex_add(k.c, at(&k, mm->out, p, q, 0, 0), at(&k, b, q, 0, 0, 0)));
    if (m > 14) y->body = ex_unary(k.c, EX_TANH, y->body);   /* the sums wait in memory */
  }
  finish(&k, m * n > 16 ? "contraction" : NULL, 1);
}

static const char *const cpus[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
#define EACH_CPU for (int cpu_row = 0; cpu_row < COUNT(cpus) && (cpu = cpus[cpu_row]); cpu_row++)

static void test_matmul(void) {
  EACH_CPU {
    matmul(14, 64, 32, true);
    matmul(1, 100, 37, true);
    matmul(30, 40, 5, false);
    matmul(65, 17, 9, true);
    matmul(29, 70, 12, true);
    matmul(3, 5, 7, true);
  }
}

/* ---- products in seven multiplications of half the size ---- */
/* [.., rows, n] of x[batch, rows, depth] and w[depth, n] (turned: w[n, depth]), with heads > 1 stored [batch, heads, rows, n / heads], with
 * columns first [batch, heads, n / heads, rows]. */
typedef struct { int64_t batch, rows, depth, n, heads; bool turned, columns_first; } Shape;

static Stage *product(Case *k, const Shape *s, const char *name, Tensor *x) {
  Ctx *c = k->c;
  int64_t d = s->n / s->heads;
  Tensor *w = s->turned ? weight(k, ctx_printf(c, "%s.w", name), DIMS(s->n, s->depth)) : weight(k, ctx_printf(c, "%s.w", name), DIMS(s->depth, s->n));
  Tensor *bias = weight(k, ctx_printf(c, "%s.b", name), DIMS(s->n));
  Stage *st = stage(k, s->heads == 1 ? tensor(k, name, DIMS(s->batch, s->rows, s->n)) : s->columns_first ?
                    tensor(k, name, DIMS(s->batch, s->heads, d, s->rows)) : tensor(k, name, DIMS(s->batch, s->heads, s->rows, d)));
  Expr *axis[4] = {0};
  for (int i = 0; i < st->out->rank; i++) axis[i] = st->axes[i]->self;
  Expr *row = s->heads == 1 ? axis[1] : axis[s->columns_first ? 3 : 2];
  Expr *column = s->heads == 1 ? axis[2] : ex_add(c, ex_mul(c, axis[1], ex_int(c, d)), axis[s->columns_first ? 2 : 3]);
  Sym *r = sym_axis(c, SYM_REDUCE, "k", ex_int(c, s->depth));
  Expr *by = s->turned ? at(k, w, column, r->self, 0, 0) : at(k, w, r->self, column, 0, 0);
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, at(k, x, axis[0], row, r->self, 0), by), &r, 1);
  st->body = relu(k, ex_add(c, sum, at(k, bias, column, 0, 0, 0)));
  return st;
}

static void one_product(Shape s) {
  Case k = start((uint32_t)(s.rows + s.n));
  product(&k, &s, "y", input(&k, "x", DIMS(s.batch, s.rows, s.depth)));
  k.calls = 2;                                               /* sums, the rest */
  finish(&k, "block", 1);
}

/* The second one's sums are made where the first one's elements are, which then need no place unless they are read once more. */
static void feed_forward(int64_t batch, int64_t rows, int64_t depth, int64_t n, bool again, int calls) {
  Case k = start((uint32_t)rows);
  Tensor *x = input(&k, "x", DIMS(batch, rows, depth));
  Stage *up = product(&k, &(Shape){batch, rows, depth, n, 1, false, false}, "up", x);
  Stage *down = product(&k, &(Shape){batch, rows, n, depth, 1, true, false}, "down", up->out);
  down->body = ex_add(k.c, down->body, at(&k, again ? up->out : x, down->axes[0]->self, down->axes[1]->self, down->axes[2]->self, 0));
  k.calls = calls;
  finish(&k, "block", 1);
}

/* Two products of the same rows have one stage of sums. */
static void siblings(int64_t rows, int64_t depth, int64_t n) {
  Case k = start((uint32_t)rows);
  Shape s = {1, rows, depth, n, 1, false, false};
  Tensor *x = input(&k, "x", DIMS(1, rows, depth));
  Stage *a = product(&k, &s, "a", x), *b = product(&k, &s, "b", x);
  b->body = ex_sub(k.c, b->body, at(&k, a->out, b->axes[0]->self, b->axes[1]->self, b->axes[2]->self, 0));
  k.calls = 3;
  finish(&k, "block", 1);
}

static void test_strassen(void) {
  options.eager = options.explain = true;                    /* the notes tell which rules took the stages of a block */
  EACH_CPU {
    one_product((Shape){1, 12, 10, 256, 1, false, false});
    one_product((Shape){1, 9, 22, 200, 1, true, false});     /* an odd row, columns short of a panel, weights turned */
    one_product((Shape){2, 7, 6, 131, 1, false, false});
    one_product((Shape){1, 515, 4, 130, 1, false, false});   /* blocks of rows, the last one short */
    one_product((Shape){2, 11, 8, 256, 4, false, false});    /* panels within heads */
    one_product((Shape){1, 10, 6, 96, 6, false, false});     /* panels of a head, if vectors are 16 wide */
    one_product((Shape){1, 13, 8, 256, 4, false, true});     /* turned when stored */
    feed_forward(2, 15, 70, 256, false, 3);
    feed_forward(1, 259, 70, 128, false, 3);                 /* blocks of rows */
    feed_forward(1, 9, 98, 98, false, 4);                    /* the columns of one are no whole panels of the other's sums */
    feed_forward(1, 8, 128, 128, true, 4);
    siblings(17, 8, 130);
  }
  options.eager = options.explain = false;
}

/* Scores of products of the same rows, with heads of their own: q by v, and by u. */
static void scores_of(int n, const int64_t *heads, int64_t rows, int64_t d, bool scaled, const char *says) {
  Case k = start((uint32_t)rows);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(1, rows, 40)), *part[3], *last = NULL;
  for (int i = 0; i < n; i++) {
    Stage *p = product(&k, &(Shape){1, rows, 40, heads[i] * d, heads[i], n == 2, false}, i ? i > 1 ? "u" : "v" : "q", x);
    if (scaled && !i) p->body = ex_mul(c, p->body, ex_const(c, DT_F32, 0.125));
    part[i] = p->out;
  }
  for (int i = 1; i < n; i++) {
    Stage *st = stage(&k, tensor(&k, "scores", DIMS(heads[0], rows, rows)));
    Sym *r = sym_axis(c, SYM_REDUCE, "d", ex_int(c, d));
    Expr *h = st->axes[0]->self, *p = st->axes[1]->self, *q = st->axes[2]->self, *zero = ex_int(c, 0);
    Expr *by = at(&k, part[i], zero, ex_div(c, h, ex_int(c, heads[0] / heads[i])), q, r->self);
    st->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, part[0], zero, h, p, r->self), by), &r, 1);
    if (last) st->body = ex_add(c, st->body, at(&k, last, h, p, q, 0));
    last = st->out;
  }
  k.says = says;
  finish(&k, NULL, 0);
}

static void test_merge(void) {
  static const int64_t heads[] = {4, 4, 2};
  EACH_CPU {
    scores_of(2, heads, 9, 24, false, "q.merged{");
    scores_of(2, heads + 1, 13, 16, false, "q.merged{");
    scores_of(3, heads, 7, 20, false, "q.merged{");
    scores_of(3, heads, 7, 20, true, "v.merged{");           /* q differs from the others */
  }
}

/* Is the product made so? Its size decides, and whether other roundings are allowed. */
static bool takes_strassen(int64_t rows, int64_t depth, int64_t n, bool strict) {
  Case k = start(1);
  options.fp32_strict = strict;
  product(&k, &(Shape){1, rows, depth, n, 1, false, false}, "y", input(&k, "x", DIMS(1, rows, depth)))->out->scope = SCOPE_OUTPUT;
  pass_fuse(k.m);
  pass_strassen(k.m);
  bool taken = k.m->body->items.n == 2;
  options.fp32_strict = false;
  ctx_free(k.c);
  return taken;
}

static void test_strassen_place(void) {
  EACH_CPU {
    CU_ASSERT(takes_strassen(128, 512, 512, false));
    CU_ASSERT(takes_strassen(197, 768, 2304, false));
    CU_ASSERT(!takes_strassen(128, 512, 512, true));         /* --fp32=strict */
    CU_ASSERT(!takes_strassen(1, 512, 512, false));          /* one row reads all weights, and these are more */
    CU_ASSERT(!takes_strassen(512, 32, 512, false));         /* short sums: what they add up is as long */
    CU_ASSERT(!takes_strassen(512, 512, 32, false));
    CU_ASSERT(!takes_strassen(128, 511, 512, false));
  }
}

/* q k^T: the keys lie contiguous along the sum */
static void scores(int64_t heads, int64_t rows, int64_t d) {
  Case k = start((uint32_t)rows);
  Tensor *x = input(&k, "x", DIMS(2, rows, heads, d));
  Stage *st = stage(&k, tensor(&k, "scores", DIMS(heads, rows, rows)));
  Sym *r = sym_axis(k.c, SYM_REDUCE, "d", ex_int(k.c, d));
  Expr *h = st->axes[0]->self, *q = at(&k, x, ex_int(k.c, 0), st->axes[1]->self, h, r->self), *key = at(&k, x, ex_int(k.c, 1), st->axes[2]->self, h, r->self);
  st->body = ex_mul(k.c, ex_reduce(k.c, RED_SUM, ex_mul(k.c, q, key), &r, 1), ex_const(k.c, DT_F32, 0.125));
  finish(&k, "contraction", 1);
}

static void test_scores(void) {
  EACH_CPU {
    scores(3, 20, 16), scores(2, 37, 9);
  }
}

/* the scores times the values, heads side by side in the output; with open rows and, in the scores above them, open keys */
static void weighted(int64_t heads, int64_t rows, int64_t d, bool open) {
  Case k = start((uint32_t)rows);
  Ctx *c = k.c;
  Expr *n = maybe_open(&k, rows, open);
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(ex_int(c, 2), n, ex_int(c, heads), ex_int(c, d))));
  Expr *square[] = {ex_int(c, heads), n, n}, *merged[] = {n, ex_int(c, heads * d)};
  Stage *st = stage(&k, tensor_new(c, "scores", DT_F32, 3, square)), *out = stage(&k, tensor_new(c, "values", DT_F32, 2, merged));
  Sym *r = sym_axis(c, SYM_REDUCE, "d", ex_int(c, d)), *key = sym_axis(c, SYM_REDUCE, "key", n);
  Expr *h = st->axes[0]->self, *i = out->axes[0]->self, *head = ex_div(c, out->axes[1]->self, ex_int(c, d)), *e = ex_mod(c, out->axes[1]->self, ex_int(c, d));
  st->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, ex_int(c, 0), st->axes[1]->self, h, r->self), at(&k, x, ex_int(c, 1), st->axes[2]->self, h, r->self)), &r, 1);
  out->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, st->out, head, i, key->self, 0), at(&k, x, ex_int(c, 1), key->self, head, e)), &key, 1);
  finish(&k, "contraction", 2);
}

static void test_weighted(void) {
  EACH_CPU {
    weighted(3, 20, 32, false);
    weighted(2, 37, 32, true);
    weighted(2, 16, 48, true);
    weighted(3, 1, 16, true);
  }
}

/* Of maps of one or two sides; open: both sides are one that is not known; turned: the last tap meets the first element and the weights are
 * [in, out, ..], as in a phase of a transposed convolution. */
typedef struct { int64_t n, ci, co; int sides; int64_t size[2], kern[2], pad[2], stride, apart; bool chain, open, turned; const char *says; } Conv;

static Stage *conv_stage(Case *k, const Conv *v, int layer, Tensor *x, int64_t ci) {
  Ctx *c = k->c;
  Expr *shape[4] = {x->shape[0], ex_int(c, v->co)}, *from[4], *tap[4], *ok = ex_bool(c, true), *zero = ex_int(c, 0);
  int64_t weights[4] = {v->turned ? ci : v->co, v->turned ? v->co : ci};
  int rank = 2 + v->sides;
  Sym *r[3] = {sym_axis(c, SYM_REDUCE, "ci", ex_int(c, ci))};
  for (int i = 0; i < v->sides; i++) {
    Expr *span = ex_add(c, x->shape[2 + i], ex_int(c, 2 * v->pad[i] - (v->kern[i] - 1) * v->apart - 1));
    shape[2 + i] = ex_add(c, ex_div(c, span, ex_int(c, v->stride)), ex_int(c, 1));
    weights[2 + i] = v->kern[i];
    r[1 + i] = sym_axis(c, SYM_REDUCE, i ? "s" : "r", ex_int(c, v->kern[i]));
  }
  Tensor *w = weight(k, layer ? "w1" : "w0", rank, weights), *b = weight(k, "b", DIMS(v->co));
  Stage *st = stage(k, tensor_new(c, layer ? "c1" : "c0", DT_F32, rank, shape));
  from[0] = st->axes[0]->self, from[1] = r[0]->self;
  tap[v->turned] = st->axes[1]->self, tap[!v->turned] = r[0]->self;
  for (int i = 0; i < v->sides; i++) {
    Expr *e = v->turned ? ex_sub(c, ex_int(c, v->kern[i] - 1), r[1 + i]->self) : r[1 + i]->self;
    e = ex_add(c, ex_mul(c, st->axes[2 + i]->self, ex_int(c, v->stride)), ex_mul(c, e, ex_int(c, v->apart)));
    from[2 + i] = e = ex_sub(c, e, ex_int(c, v->pad[i]));
    tap[2 + i] = r[1 + i]->self;
    ok = ex_and(c, ok, ex_and(c, ex_le(c, zero, e), ex_lt(c, e, x->shape[2 + i])));
  }
  Expr *in = ex_select(c, ok, ex_load(c, x, from, rank), ex_const(c, DT_F32, 0));
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, in, ex_load(c, w, tap, rank)), r, 1 + v->sides);
  st->body = relu(k, ex_add(c, sum, at(k, b, st->axes[1]->self, 0, 0, 0)));
  return st;
}

static Tensor *pool_of(Case *k, Tensor *x, int64_t n, Combiner how) {
  Ctx *c = k->c;
  Expr *shape[] = {x->shape[0], x->shape[1], ex_div(c, x->shape[2], ex_int(c, n)), ex_div(c, x->shape[3], ex_int(c, n))}, *from[2];
  Stage *st = stage(k, tensor_new(c, "pool", DT_F32, 4, shape));
  Sym *r[2];
  for (int i = 0; i < 2; i++) {
    r[i] = sym_axis(c, SYM_REDUCE, "p", ex_int(c, n));
    from[i] = ex_add(c, ex_mul(c, st->axes[2 + i]->self, ex_int(c, n)), r[i]->self);
  }
  st->body = ex_reduce(c, how, at(k, x, st->axes[0]->self, st->axes[1]->self, from[0], from[1]), r, 2);
  return st->out;
}

/* pool: between layers over so many places a side; 1: none */
static void pooled_convs(Conv v, int64_t pool, const char *rule) {
  Case k = start((uint32_t)(v.ci * 7 + v.co + v.kern[0]));
  Ctx *c = k.c;
  Expr *h = maybe_open(&k, v.size[0], v.open), *shape[] = {ex_int(c, v.n), ex_int(c, v.ci), h, v.open ? h : ex_int(c, v.size[1])};
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, 2 + v.sides, shape));
  for (int layer = 0; layer <= v.chain; layer++) {
    if (layer && pool > 1) x = pool_of(&k, x, pool, pool == 2 ? RED_MAX : RED_SUM);
    x = conv_stage(&k, &v, layer, x, layer ? v.co : v.ci)->out;
  }
  k.says = v.says;
  finish(&k, rule, 1);
}

static void conv_of(Conv v, const char *rule) { pooled_convs(v, 1, rule); }

static void conv(int64_t n, int64_t ci, int64_t co, int64_t h, int64_t w, int64_t kern, int64_t stride, int64_t pad, bool chain) {
  conv_of((Conv){n, ci, co, 2, {h, w}, {kern, kern}, {pad, pad}, stride, 1, chain, false, false, NULL}, small_caches ? "block" : "contraction");
}

static void conv_open(int64_t n, int64_t ci, int64_t co, int64_t h, int64_t pad, bool chain) {
  conv_of((Conv){n, ci, co, 2, {h, 0}, {3, 3}, {pad, pad}, 1, 1, chain, true, false, NULL}, "block");
}

/* 1x1 convolutions: the points of a map are rows, of which the last one may be odd; every second point; a line; depths that are no whole blocks. */
static void test_strassen_maps(void) {
  options.eager = true;
  EACH_CPU {
    conv_of((Conv){1, 32, 128, 2, {9, 7}, {1, 1}, {0, 0}, 1, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){2, 24, 130, 2, {11, 12}, {1, 1}, {0, 0}, 2, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){1, 44, 128, 2, {23, 24}, {1, 1}, {0, 0}, 1, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){3, 32, 128, 1, {31}, {1}, {0}, 1, 1, true, false, false, "c0.S"}, "block");
  }
  options.eager = false;
}

/* With fewer multiplications: strides by phases, taps apart, one side, sides that differ, as many taps as there are points for. */
static void test_winograd(void) {
  slow_sums = true;
  EACH_CPU {
    conv_of((Conv){1, 16, 24, 2, {21, 14}, {3, 3}, {1, 1}, 2, 1, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 16, 2, {19, 16}, {5, 5}, {2, 2}, 2, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {9, 7}, {5, 5}, {2, 1}, 1, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 24, 16, 2, {5, 19}, {1, 7}, {0, 3}, 1, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){2, 16, 24, 1, {41}, {3}, {1}, 1, 1, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 16, 1, {70}, {5}, {0}, 2, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {9, 8}, {2, 3}, {1, 0}, 1, 1, true, false, true, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {16, 12}, {3, 3}, {2, 2}, 1, 2, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){2, 16, 16, 1, {26}, {3}, {3}, 1, 3, false, false, true, "c0.V"}, "cases");
  }
  slow_sums = false;
}

static void test_conv(void) {
  EACH_CPU {
    conv(1, 3, 32, 9, 11, 3, 1, 1, true);
    conv(1, 16, 24, 7, 7, 3, 2, 1, true);
    conv(1, 32, 40, 6, 6, 1, 1, 0, true);
    conv(1, 3, 64, 15, 15, 7, 2, 3, false);
    conv(1, 32, 24, 14, 13, 3, 1, 1, true);                     /* F(4,3) */
    conv(1, 16, 32, 7, 6, 3, 1, 0, false);                      /* F(2,3) */
    conv(2, 24, 1, 6, 21, 3, 1, 1, false);                      /* so few output channels that vectors run along the width */
  }
}

/* Threads far from each other part the rows of maps, of two axes or of one that lies contiguous, and not those that are odd. */
static void test_parted_rows(void) {
  far_cores = options.explain = true;
  EACH_CPU {
    conv_of((Conv){1, 32, 40, 2, {14, 10}, {1, 1}, {0, 0}, 1, 1, true, false, false, "order c.d.t b.o"}, "contraction");
    conv_of((Conv){1, 16, 24, 2, {8, 21}, {3, 3}, {1, 1}, 2, 1, true, false, false, "order c.t b.o"}, "contraction");
    conv_of((Conv){1, 16, 40, 2, {7, 7}, {1, 1}, {0, 0}, 1, 1, true, false, false, "order b.o"}, "contraction");
  }
  far_cores = options.explain = false;
}

/* Groups narrower than a vector, twice: the second reads blocks of channels. */
static void grouped(int64_t channels, int64_t width, int64_t h, int64_t w, bool open) {
  Case k = start((uint32_t)(channels + width));
  Ctx *c = k.c;
  Expr *images = maybe_open(&k, 1 + open, open), *all = ex_int(c, channels);
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(images, all, ex_int(c, h), ex_int(c, w))));
  for (int layer = 0; layer < 2; layer++, h -= 2, w -= 2) {
    Tensor *wt = weight(&k, layer ? "w1" : "w0", DIMS(channels, width, 3, 3));
    Stage *st = stage(&k, tensor_new(c, layer ? "g1" : "g0", DT_F32, EXTENTS(images, all, ex_int(c, h - 2), ex_int(c, w - 2))));
    Sym *r[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, width)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, 3))};
    Expr *n = ex_int(c, width), *o = st->axes[1]->self, *in = ex_add(c, ex_mul(c, ex_div(c, o, n), n), r[0]->self);
    Expr *load = at(&k, x, st->axes[0]->self, in, ex_add(c, st->axes[2]->self, r[1]->self), ex_add(c, st->axes[3]->self, r[2]->self));
    st->body = relu(&k, ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, wt, o, r[0]->self, r[1]->self, r[2]->self)), r, 3));
    x = st->out;
  }
  finish(&k, width < target_lanes(k.m->target, 32) ? "nest" : "contraction", 1);
}

static void test_grouped(void) {
  EACH_CPU {
    grouped(32, 4, 7, 9, false);
    grouped(48, 8, 6, 11, false);
    grouped(24, 2, 6, 6, false);
    grouped(60, 20, 9, 10, false);                             /* no whole vectors */
    grouped(32, 8, 7, 6, true);
  }
}

/* x with zeros around it, at the tap of a 3x3 window. */
static Expr *windowed(Case *k, Tensor *x, const Stage *st, Expr *channel, int stride, Sym **r) {
  Ctx *c = k->c;
  Expr *ih = ex_add(c, ex_mul(c, st->axes[2]->self, ex_int(c, stride)), ex_sub(c, r[0]->self, ex_int(c, 1))), *zero = ex_int(c, 0);
  Expr *iw = ex_add(c, ex_mul(c, st->axes[3]->self, ex_int(c, stride)), ex_sub(c, r[1]->self, ex_int(c, 1)));
  Expr *ok = ex_and(c, ex_and(c, ex_le(c, zero, ih), ex_lt(c, ih, x->shape[2])), ex_and(c, ex_le(c, zero, iw), ex_lt(c, iw, x->shape[3])));
  return ex_select(c, ok, at(k, x, st->axes[0]->self, channel, ih, iw), ex_const(c, DT_F32, 0));
}

/* A map that a depthwise convolution makes is pooled, and read with a ring by the next one, which adds what the pool gives. */
static void pooled(int64_t n, int64_t channels, int64_t h, int64_t w) {
  enum { IN = 16, OUT = 24 };
  Case k = start((uint32_t)(channels + w));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(n, IN, h, w)), *w0 = weight(&k, "w0", DIMS(channels, IN)), *w1 = weight(&k, "w1", DIMS(channels, 3, 3));
  Tensor *w2 = weight(&k, "w2", DIMS(OUT, channels, 3, 3));
  Stage *wide = stage(&k, tensor(&k, "wide", DIMS(n, channels, h, w))), *map = stage(&k, tensor(&k, "map", DIMS(n, channels, h, w)));
  Stage *pool = stage(&k, tensor(&k, "pool", DIMS(n, channels, 1, 1))), *y = stage(&k, tensor(&k, "y", DIMS(n, OUT, (h + 1) / 2, (w + 1) / 2)));
  Sym *over = sym_axis(c, SYM_REDUCE, "i", ex_int(c, IN)), **a = wide->axes, **b = map->axes, *r[3], *q[2];
  wide->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, a[0]->self, over->self, a[2]->self, a[3]->self), at(&k, w0, a[1]->self, over->self, 0, 0)), &over, 1);
  for (int i = 0; i < 2; i++) r[i] = sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3));
  map->body = ex_mul(c, windowed(&k, wide->out, map, b[1]->self, 1, r), at(&k, w1, b[1]->self, r[0]->self, r[1]->self, 0));
  map->body = ex_add(c, ex_reduce(c, RED_SUM, map->body, r, 2), ex_const(c, DT_F32, 1));       /* not zero where channels end */
  for (int i = 0; i < 2; i++) q[i] = sym_axis(c, SYM_REDUCE, "q", map->out->shape[2 + i]);
  pool->body = ex_reduce(c, RED_SUM, at(&k, map->out, pool->axes[0]->self, pool->axes[1]->self, q[0]->self, q[1]->self), q, 2);
  pool->body = ex_mul(c, pool->body, ex_const(c, DT_F32, 1.0 / (double)(h * w)));
  for (int i = 0; i < 3; i++) r[i] = sym_axis(c, SYM_REDUCE, "s", ex_int(c, i < 2 ? 3 : channels));
  Expr *sum = ex_mul(c, windowed(&k, map->out, y, r[2]->self, 2, r), at(&k, w2, y->axes[1]->self, r[2]->self, r[0]->self, r[1]->self));
  y->body = ex_add(c, ex_reduce(c, RED_SUM, sum, r, 3), at(&k, pool->out, y->axes[0]->self, y->axes[1]->self, ex_int(c, 0), ex_int(c, 0)));
  finish(&k, "block", 1);
}

static void test_pooled(void) {
  EACH_CPU {
    pooled(2, 40, 6, 9);
    pooled(3, 45, 8, 7);
    pooled(2, 256, 3, 5);                                      /* all rows in one part */
  }
}

/* y[k, h, w] = sum(c, r, s) x[c, place(h, r), place(w, s)] * w[.., r, s]: as the place says, transposed or dilated; a tap is met if `hit`. */
typedef struct { Expr *at, *tap, *hit; } Meet;
static Meet transposed_place(Ctx *c, Expr *o, Expr *q, int64_t kern, int64_t stride, int64_t pad) {
  Expr *s = ex_int(c, stride), *from = ex_add(c, o, ex_int(c, pad)), *tap = ex_add(c, ex_mul(c, q, s), ex_mod(c, from, s));
  return (Meet){ex_sub(c, ex_div(c, from, s), q), ex_min(c, tap, ex_int(c, kern - 1)), ex_lt(c, tap, ex_int(c, kern))};
}
static Meet dilated_place(Ctx *c, Expr *o, Expr *r, int64_t kern, int64_t dilation, int64_t pad) {
  (void)kern;
  return (Meet){ex_sub(c, ex_add(c, o, ex_mul(c, r, ex_int(c, dilation))), ex_int(c, pad)), r, ex_bool(c, true)};
}

typedef Meet MeetRule(Ctx *c, Expr *o, Expr *r, int64_t kern, int64_t step, int64_t pad);
static void window(MeetRule *rule, int64_t ci, int64_t co, int64_t in, int64_t out, int64_t kern, int64_t taps, int64_t step, int64_t pad, int kernels) {
  Case k = start((uint32_t)(ci + out));
  Ctx *c = k.c;
  bool open = !out;                                          /* step times as large as the input, whose size is open */
  Expr *from = maybe_open(&k, in, open), *to = open ? ex_mul(c, from, ex_int(c, step)) : ex_int(c, out), *one = ex_int(c, 1);
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(one, ex_int(c, ci), from, from))), *w = weight(&k, "w", DIMS(ci, co, kern, kern));
  Stage *st = stage(&k, tensor_new(c, "y", DT_F32, EXTENTS(one, ex_int(c, co), to, to)));
  Sym *r[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, ci)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, taps)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, taps))};
  Meet h = rule(c, st->axes[2]->self, r[1]->self, kern, step, pad), v = rule(c, st->axes[3]->self, r[2]->self, kern, step, pad);
  Expr *ok = ex_and(c, ex_and(c, ex_le(c, ex_int(c, 0), h.at), ex_lt(c, h.at, x->shape[2])), ex_and(c, ex_le(c, ex_int(c, 0), v.at), ex_lt(c, v.at, x->shape[3])));
  Expr *zero = ex_const(c, DT_F32, 0), *load = ex_select(c, ok, at(&k, x, st->axes[0]->self, r[0]->self, h.at, v.at), zero);
  Expr *met = ex_select(c, ex_and(c, h.hit, v.hit), load, zero);
  st->body = relu(&k, ex_reduce(c, RED_SUM, ex_mul(c, met, at(&k, w, r[0]->self, st->axes[1]->self, h.tap, v.tap)), r, 3));
  finish(&k, "contraction", kernels);
}

static void test_windows(void) {
  EACH_CPU {
    window(transposed_place, 16, 24, 5, 10, 4, 2, 2, 1, 4);  /* phases: 2 by 2 */
    window(transposed_place, 8, 16, 4, 9, 3, 2, 2, 0, 4);    /* with fewer taps in one of them */
    window(transposed_place, 9, 16, 4, 12, 3, 1, 3, 0, 9);
    window(transposed_place, 32, 2, 20, 40, 4, 2, 2, 1, 4);
    window(transposed_place, 16, 24, 5, 0, 4, 2, 2, 1, 4);
    window(transposed_place, 16, 24, 1, 0, 4, 2, 2, 1, 4);
    window(dilated_place, 16, 16, 7, 7, 3, 3, 8, 8, 1);      /* one tap of nine is left */
    window(dilated_place, 8, 16, 12, 12, 3, 3, 9, 9, 9);     /* segments: 3 by 3 */
  }
}

/* Rows of a product that are read in the order of n by n windows of w by w points each. */
static void unwindowed(int64_t n, int64_t w) {
  Case k = start((uint32_t)(n * w));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(n * n, w * w, 24)), *wt = weight(&k, "w", DIMS(24, 32)), *b = weight(&k, "b", DIMS(n * w, n * w, 32));
  Stage *y = stage(&k, tensor(&k, "y", DIMS(n * w, n * w, 32)));
  Sym *r = sym_axis(c, SYM_REDUCE, "k", ex_int(c, 24));
  Expr *h = y->axes[0]->self, *v = y->axes[1]->self, *o = y->axes[2]->self, *by = ex_int(c, w);
  Expr *outside = ex_add(c, ex_mul(c, ex_div(c, h, by), ex_int(c, n)), ex_div(c, v, by));
  Expr *inside = ex_add(c, ex_mul(c, ex_mod(c, h, by), by), ex_mod(c, v, by));
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, outside, inside, r->self, 0), at(&k, wt, r->self, o, 0, 0)), &r, 1);
  y->body = ex_add(c, sum, at(&k, b, h, v, o, 0));
  k.calls = 1;
  k.sums = target_lanes(k.m->target, 32) * 8;
  finish(&k, "contraction", 1);
}

static void test_unwindowed(void) {
  EACH_CPU {
    unwindowed(2, 7);
    unwindowed(2, 4);
    unwindowed(5, 3);
  }
}

/* A 1x1 convolution of more blocks of channels than the hardware follows, which do not fit the cache. */
static void many_blocks(int64_t channels, int64_t h, int64_t w) {
  Case k = start((uint32_t)channels);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(1, 3, h, w));
  for (int layer = 0; layer < 2; layer++) {
    int64_t from = layer ? channels : 3, to = layer ? 16 : channels;
    Tensor *wt = weight(&k, layer ? "w1" : "w0", DIMS(to, from));
    Stage *st = stage(&k, tensor(&k, layer ? "c1" : "c0", DIMS(1, to, h, w)));
    Sym *r = sym_axis(c, SYM_REDUCE, "c", ex_int(c, from));
    Expr *load = at(&k, x, st->axes[0]->self, r->self, st->axes[2]->self, st->axes[3]->self);
    st->body = ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, wt, st->axes[1]->self, r->self, 0, 0)), &r, 1);
    x = st->out;
  }
  k.says = "prefetch c0{";
  finish(&k, "contraction", 2);
}

/* Bands of tiles in their order, the last one short: of maps smaller than a tile, of no whole tiles, of several images. */
static void test_open_bands(void) {
  EACH_CPU {
    conv_open(2, 16, 24, 1, 1, true);
    conv_open(1, 16, 24, 6, 1, true);
    conv_open(2, 16, 16, 23, 0, false);
  }
}

/* Maps that a pool alone reads are not stored: windows of whole tiles, of parts of several, and what is left over at the border. */
static void test_pools_of_windows(void) {
  small_caches = options.explain = true;
  EACH_CPU {
    pooled_convs((Conv){1, 16, 24, 2, {32, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 2, "block");
    pooled_convs((Conv){2, 16, 20, 2, {24, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 4, "block");
  }
  small_caches = false;
  slow_sums = true;
  EACH_CPU pooled_convs((Conv){1, 16, 16, 2, {15, 13}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 2, "contraction");
  slow_sums = options.explain = false;
}

static void test_bands(void) {
  small_caches = true;
  EACH_CPU {
    many_blocks(528, 10, 10);
    conv(1, 16, 24, 22, 11, 3, 1, 1, true);
    conv(2, 16, 16, 14, 12, 3, 1, 1, false);
    conv_of((Conv){1, 16, 24, 2, {26, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "prefetch c0{"}, "block");
  }
  small_caches = false;
}

/* Channels in blocks, read with zeros in front of them: no ring may lie around blocks. */
static void padded_channels(int64_t co, int64_t more) {
  Case k = start((uint32_t)co);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(2, 3, 5, 4)), *w = weight(&k, "w", DIMS(co, 3));
  Stage *conv1 = stage(&k, tensor(&k, "c0", DIMS(2, co, 5, 4)));
  Sym *r = sym_axis(c, SYM_REDUCE, "ci", ex_int(c, 3));
  Expr *h = conv1->axes[2]->self, *v = conv1->axes[3]->self;
  conv1->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, conv1->axes[0]->self, r->self, h, v), at(&k, w, conv1->axes[1]->self, r->self, 0, 0)), &r, 1);
  Stage *pad = stage(&k, tensor(&k, "padded", DIMS(2, co + more, 5, 4)));
  Expr *from = ex_sub(c, pad->axes[1]->self, ex_int(c, more));
  Expr *load = at(&k, conv1->out, pad->axes[0]->self, from, pad->axes[2]->self, pad->axes[3]->self);
  pad->body = ex_select(c, ex_le(c, ex_int(c, 0), from), load, ex_const(c, DT_F32, 0));
  finish(&k, NULL, 0);
}

static void test_padded_channels(void) {
  EACH_CPU {
    padded_channels(18, 2);
    padded_channels(32, 3);
  }
}

/* y[b, j, i] from x[b - first, i, j] and constants: one that moves with i, or one stored as y is; zero below `first`, where x has nothing */
static void turned(int64_t rows, int64_t cols, bool added, int64_t first) {
  Case k = start((uint32_t)(rows + cols));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(2, rows, cols)), *w = weight(&k, "w", DIMS(cols, rows)), *s = weight(&k, "s", DIMS(rows));
  Stage *y = stage(&k, tensor(&k, "y", DIMS(2 + first, cols, rows)));
  Expr *b = y->axes[0]->self, *j = y->axes[1]->self, *i = y->axes[2]->self, *from = ex_int(c, first);
  Expr *load = at(&k, x, ex_sub(c, b, from), i, j, 0);
  Expr *value = added ? ex_add(c, load, at(&k, w, j, i, 0, 0)) : ex_mul(c, load, at(&k, s, i, 0, 0, 0));
  y->body = ex_select(c, ex_le(c, from, b), value, ex_const(c, DT_F32, 0));
  finish(&k, "square", 1);
}

static void test_turned(void) {
  EACH_CPU {
    turned(16, 32, false, 0);
    turned(19, 37, false, 0);
    turned(33, 21, true, 0);
    turned(8, 17, true, 0);
    turned(16, 16, true, 3);
  }
}

/* A 1x1 convolution, its channels from some place on to mean zero, and a 3x3 convolution of them and of that. */
static void slices_and_rows(int64_t channels, int64_t from_channel) {
  Case k = start((uint32_t)channels);
  Ctx *c = k.c;
  enum { IN = 5, H = 6, W = 7 };
  Tensor *x = input(&k, "x", DIMS(1, IN, H, W)), *w0 = weight(&k, "w0", DIMS(channels + from_channel, IN)), *w1 = weight(&k, "w1", DIMS(16, channels, 3, 3));
  Stage *all = stage(&k, tensor(&k, "all", DIMS(1, channels + from_channel, H, W))), *part = stage(&k, tensor(&k, "part", DIMS(1, channels, H, W)));
  Sym *r = sym_axis(c, SYM_REDUCE, "ci", ex_int(c, IN)), *h = sym_axis(c, SYM_REDUCE, "h", ex_int(c, H)), *v = sym_axis(c, SYM_REDUCE, "v", ex_int(c, W));
#define AXES(st) st->axes[0]->self, st->axes[1]->self, st->axes[2]->self, st->axes[3]->self
  Expr *load = at(&k, x, all->axes[0]->self, r->self, all->axes[2]->self, all->axes[3]->self);
  all->body = ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, w0, all->axes[1]->self, r->self, 0, 0)), &r, 1);
  Expr *n = part->axes[0]->self, *q = part->axes[1]->self, *zero = ex_int(c, 0);
  part->body = at(&k, all->out, n, ex_add(c, q, ex_int(c, from_channel)), part->axes[2]->self, part->axes[3]->self);
  Stage *mean = stage(&k, tensor(&k, "mean", DIMS(1, channels, 1, 1))), *centred = stage(&k, tensor(&k, "centred", DIMS(1, channels, H, W)));
  Expr *sum = ex_reduce(c, RED_SUM, at(&k, part->out, mean->axes[0]->self, mean->axes[1]->self, h->self, v->self), (Sym *[]){h, v}, 2);
  mean->body = ex_div(c, sum, ex_const(c, DT_F32, H * W));
  centred->body = ex_sub(c, at(&k, part->out, AXES(centred)), at(&k, mean->out, centred->axes[0]->self, centred->axes[1]->self, zero, zero));
  Tensor *from[] = {part->out, centred->out};
  for (int i = 0; i < 2; i++) {
    Stage *st = stage(&k, tensor(&k, i ? "y" : "c0", DIMS(1, 16, H, W)));
    Sym *red[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, channels)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, 3))};
    Expr *y = ex_sub(c, ex_add(c, st->axes[2]->self, red[1]->self), ex_int(c, 1)), *z = ex_sub(c, ex_add(c, st->axes[3]->self, red[2]->self), ex_int(c, 1));
    Expr *in = ex_and(c, ex_and(c, ex_le(c, zero, y), ex_lt(c, y, ex_int(c, H))), ex_and(c, ex_le(c, zero, z), ex_lt(c, z, ex_int(c, W))));
    Expr *map = ex_select(c, in, at(&k, from[i], zero, red[0]->self, y, z), ex_const(c, DT_F32, 0));
    st->body = ex_reduce(c, RED_SUM, ex_mul(c, map, at(&k, w1, st->axes[1]->self, red[0]->self, red[1]->self, red[2]->self)), red, 3);
    if (i) st->body = ex_add(c, st->body, at(&k, k.stages.v[k.stages.n - 2]->out, AXES(st)));
  }
#undef AXES
  finish(&k, (channels | from_channel) % 16 ? NULL : "block", 1);
}

static void test_slices_and_rows(void) {
  EACH_CPU {
    slices_and_rows(32, 16);
    slices_and_rows(24, 16);
    slices_and_rows(32, 10);                                 /* from the middle of a block on */
  }
}

static void softmax(int64_t rows, int64_t n) {
  Case k = start((uint32_t)n);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(rows, n));
  Stage *m = stage(&k, tensor(&k, "m", DIMS(rows))), *z = stage(&k, tensor(&k, "z", DIMS(rows))), *y = stage(&k, tensor(&k, "y", DIMS(rows, n)));
  Sym *r = sym_axis(c, SYM_REDUCE, "r", ex_int(c, n)), *s = sym_axis(c, SYM_REDUCE, "s", ex_int(c, n));
  m->body = ex_reduce(c, RED_MAX, at(&k, x, m->axes[0]->self, r->self, 0, 0), &r, 1);
  Expr *e = ex_unary(c, EX_EXP, ex_sub(c, at(&k, x, z->axes[0]->self, s->self, 0, 0), at(&k, m->out, z->axes[0]->self, 0, 0, 0)));
  z->body = ex_reduce(c, RED_SUM, e, &s, 1);
  Expr *i = y->axes[0]->self, *j = y->axes[1]->self;
  y->body = ex_div(c, ex_unary(c, EX_EXP, ex_sub(c, at(&k, x, i, j, 0, 0), at(&k, m->out, i, 0, 0, 0))), at(&k, z->out, i, 0, 0, 0));
  finish(&k, "row", 1);
}

static void test_softmax(void) {
  EACH_CPU {
    softmax(3, 64), softmax(5, 100), softmax(2, 7);
  }
}

/* softmax(q k^T * scale) v, the heads side by side in the output or not; keys 0: rows and keys are one open extent */
static void attention(int64_t heads, int64_t rows, int64_t keys, int64_t d, bool merged) {
  Case k = start((uint32_t)(rows + keys));
  Ctx *c = k.c;
  Expr *h_n = ex_int(c, heads), *r_n = maybe_open(&k, rows, !keys), *k_n = keys ? ex_int(c, keys) : r_n;
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(ex_int(c, 3), keys ? ex_int(c, MAX(rows, keys)) : r_n, h_n, ex_int(c, d))));
#define MADE(name, ...) stage(&k, tensor_new(c, name, DT_F32, EXTENTS(__VA_ARGS__)))
  Stage *s = MADE("scores", h_n, r_n, k_n), *m = MADE("m", h_n, r_n), *e = MADE("e", h_n, r_n, k_n), *z = MADE("z", h_n, r_n), *p = MADE("p", h_n, r_n, k_n);
  Stage *o = merged ? MADE("o", r_n, ex_int(c, heads * d)) : MADE("o", h_n, r_n, ex_int(c, d));
#undef MADE
  Sym *r = sym_axis(c, SYM_REDUCE, "r", ex_int(c, d)), *key[3];
  for (int i = 0; i < 3; i++) key[i] = sym_axis(c, SYM_REDUCE, "key", k_n);
#define AXES(st) st->axes[0]->self, st->axes[1]->self
  Expr *scale = ex_const(c, DT_F32, 0.5), *i = s->axes[1]->self, *j = s->axes[2]->self, *h = s->axes[0]->self;
  s->body = ex_mul(c, scale, ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, ex_int(c, 0), i, h, r->self), at(&k, x, ex_int(c, 1), j, h, r->self)), &r, 1));
  m->body = ex_reduce(c, RED_MAX, at(&k, s->out, AXES(m), key[0]->self, 0), &key[0], 1);
  e->body = ex_unary(c, EX_EXP, ex_sub(c, at(&k, s->out, AXES(e), e->axes[2]->self, 0), at(&k, m->out, AXES(e), 0, 0)));
  z->body = ex_reduce(c, RED_SUM, at(&k, e->out, AXES(z), key[1]->self, 0), &key[1], 1);
  p->body = ex_div(c, at(&k, e->out, AXES(p), p->axes[2]->self, 0), at(&k, z->out, AXES(p), 0, 0));
  Expr *n = ex_int(c, d), *row = o->axes[!merged]->self, *head = merged ? ex_div(c, o->axes[1]->self, n) : o->axes[0]->self;
  Expr *v = merged ? ex_mod(c, o->axes[1]->self, n) : o->axes[2]->self;
  o->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, p->out, head, row, key[2]->self, 0), at(&k, x, ex_int(c, 2), key[2]->self, head, v)), &key[2], 1);
#undef AXES
  k.says = "-69.25";                                         /* weights that vanish are no denormal numbers */
  finish(&k, "block", 1);
}

static void test_attention(void) {
  EACH_CPU {
    attention(2, 60, 20, 16, true);
    attention(3, 6, 35, 12, false);
    attention(2, 1, 0, 16, true);
    attention(2, 67, 0, 16, true);
    attention(3, 19, 0, 12, false);
    small_caches = true;
    attention(2, 29, 64, 16, true);
    small_caches = false;
  }
}

/* A smaller tile than the best computes the same, and can be asked for until there is none. */
static void test_smaller_tiles(void) {
  EACH_CPU
    for (which_tile = 1; which_tile < 20; which_tile += 6) matmul(65, 80, 9, true), matmul(29, 70, 12, false);
  which_tile = 0;
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("kernels", NULL, NULL);
  CU_add_test(s, "matmul", test_matmul);
  CU_add_test(s, "Strassen", test_strassen);
  CU_add_test(s, "Strassen's place", test_strassen_place);
  CU_add_test(s, "products of the same rows", test_merge);
  CU_add_test(s, "Strassen of maps", test_strassen_maps);
  CU_add_test(s, "scores", test_scores);
  CU_add_test(s, "weighted values", test_weighted);
  CU_add_test(s, "convolution", test_conv);
  CU_add_test(s, "parted rows", test_parted_rows);
  CU_add_test(s, "smaller tiles", test_smaller_tiles);
  CU_add_test(s, "convolution with fewer multiplications", test_winograd);
  CU_add_test(s, "convolution in bands", test_bands);
  CU_add_test(s, "convolution in bands of open maps", test_open_bands);
  CU_add_test(s, "windows in parts", test_windows);
  CU_add_test(s, "rows in windows", test_unwindowed);
  CU_add_test(s, "grouped convolution", test_grouped);
  CU_add_test(s, "pools of windows", test_pools_of_windows);
  CU_add_test(s, "pools of maps as they are made", test_pooled);
  CU_add_test(s, "padded channels", test_padded_channels);
  CU_add_test(s, "loads across the store", test_turned);
  CU_add_test(s, "slices of channels and rows of maps", test_slices_and_rows);
  CU_add_test(s, "softmax", test_softmax);
  CU_add_test(s, "attention", test_attention);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed > 0;
}
