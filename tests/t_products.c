/* t_products.c - stages to kernels: products of matrices and rows, every schedule rule and epilogue against a direct evaluation of the stages. */
#include <CUnit/Basic.h>

#include "../passes/passes.h"
#include "../passes/stages.h"
#include "kernel_case.h"

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

/* softmax(q^T k) and o = v p^T, where x[3, d, rows] is q, k and v: all that a column of o sums over lies along rows. */
static void attention_of_maps(int64_t d, int64_t rows) {
  Case k = start((uint32_t)rows);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(3, d, rows));
#define MADE(name, ...) stage(&k, tensor(&k, name, DIMS(__VA_ARGS__)))
  Stage *s = MADE("scores", rows, rows), *m = MADE("m", rows), *e = MADE("e", rows, rows), *z = MADE("z", rows), *p = MADE("p", rows, rows);
  Stage *o = MADE("o", d, rows);
#undef MADE
  Sym *r = sym_axis(c, SYM_REDUCE, "r", ex_int(c, d)), *key[3];
  for (int i = 0; i < 3; i++) key[i] = sym_axis(c, SYM_REDUCE, "key", ex_int(c, rows));
  Expr *i = s->axes[0]->self, *j = s->axes[1]->self;
  s->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, ex_int(c, 0), r->self, i, 0), at(&k, x, ex_int(c, 1), r->self, j, 0)), &r, 1);
  m->body = ex_reduce(c, RED_MAX, at(&k, s->out, m->axes[0]->self, key[0]->self, 0, 0), &key[0], 1);
  i = e->axes[0]->self;
  e->body = ex_unary(c, EX_EXP, ex_sub(c, at(&k, s->out, i, e->axes[1]->self, 0, 0), at(&k, m->out, i, 0, 0, 0)));
  z->body = ex_reduce(c, RED_SUM, at(&k, e->out, z->axes[0]->self, key[1]->self, 0, 0), &key[1], 1);
  i = p->axes[0]->self;
  p->body = ex_div(c, at(&k, e->out, i, p->axes[1]->self, 0, 0), at(&k, z->out, i, 0, 0, 0));
  Expr *v = at(&k, x, ex_int(c, 2), o->axes[0]->self, key[2]->self, 0);
  o->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, p->out, o->axes[1]->self, key[2]->self, 0, 0), v), &key[2], 1);
  k.says = "o.rows";
  finish(&k, "block", 1);
}

static void test_attention(void) {
  EACH_CPU {
    attention(2, 60, 20, 16, true);
    attention(3, 6, 35, 12, false);
    attention(2, 1, 0, 16, true);
    attention(2, 67, 0, 16, true);
    attention(3, 19, 0, 12, false);
    attention_of_maps(32, 49);
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
  CU_pSuite s = CU_add_suite("products", NULL, NULL);
  CU_add_test(s, "matmul", test_matmul);
  CU_add_test(s, "Strassen", test_strassen);
  CU_add_test(s, "Strassen's place", test_strassen_place);
  CU_add_test(s, "products of the same rows", test_merge);
  CU_add_test(s, "scores", test_scores);
  CU_add_test(s, "weighted values", test_weighted);
  CU_add_test(s, "smaller tiles", test_smaller_tiles);
  CU_add_test(s, "softmax", test_softmax);
  CU_add_test(s, "attention", test_attention);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed > 0;
}
