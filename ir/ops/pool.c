/* pool.c - MaxPool, AveragePool, LpPool and their global forms: reductions over a window. */
#include "window.h"

static bool pool_window(OpCtx *oc, Window *w) {
  const Node *n = oc->node;
  const Tensor *x = n->in[0];
  OP_BAIL(op_rank(oc, 0, 3, -1));
  w->n = x->rank - 2;
  if (op_attr_len(n, "kernel_shape") != w->n)
    return op_error(oc, E0412, NULL, "%s: kernel_shape has %d values for %d dimensions", op_inputs_text(oc),
                    op_attr_len(n, "kernel_shape"), w->n);
  for (int i = 0; i < w->n; i++) {
    int64_t k = op_attr_at(n, "kernel_shape", i, 1);
    if (k < 1 || k > INT32_MAX) return op_error(oc, E0412, NULL, "kernel_shape has the value %lld", (long long)k);
    w->in[i] = x->shape[2 + i];
    w->kernel[i] = ex_int(oc->c, k);
  }
  return window_attrs(oc, w, op_attr_is(n, "auto_pad", "NOTSET")) && window_make(oc, w, op_attr_i(n, "ceil_mode"));
}

bool shape_pool(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Window w;
  Expr *shape[MAX_RANK] = { 0 };
  OP_BAIL(pool_window(oc, &w));
  shape[0] = x->shape[0];
  shape[1] = x->shape[1];
  for (int i = 0; i < w.n; i++) shape[2 + i] = w.out[i];
  op_out(oc, 0, x->dtype, x->rank, shape);
  op_out(oc, 1, DT_I64, x->rank, shape);
  return true;
}

/* The places in x that the window at the stage's point covers. */
static void pool_places(OpCtx *oc, const Window *w, const Stage *st, Sym **axes, Expr **at) {
  at[0] = st->axes[0]->self;
  at[1] = st->axes[1]->self;
  for (int i = 0; i < w->n; i++) {
    axes[i] = op_reduce_axis(oc, ctx_printf(oc->c, "r%d", i), w->kernel[i]);
    at[2 + i] = window_place(oc->c, w, i, st->axes[2 + i]->self, axes[i]->self);
  }
}

/* How many of the window's elements lie within the input, or within input and padding. Without padding and in floor mode all do. */
static Expr *covered(Ctx *c, const Window *w, const Stage *st, bool padding) {
  Expr *count = ex_int(c, 1), *one = ex_int(c, 1), *zero = ex_int(c, 0);
  for (int i = 0; i < w->n; i++) {
    Expr *begin = ex_sub(c, ex_mul(c, st->axes[2 + i]->self, ex_int(c, w->stride[i])), w->lo[i]),
         *d = ex_int(c, w->dilation[i]);
    Expr *end = padding ? ex_add(c, w->in[i], w->hi[i]) : w->in[i];
    Expr *first = padding ? zero : ex_max(c, ex_ceil_div(c, ex_sub(c, zero, begin), w->dilation[i]), zero);
    Expr *last = ex_min(c, ex_div(c, ex_sub(c, ex_sub(c, end, one), begin), d), ex_sub(c, w->kernel[i], one));
    count = ex_mul(c, count, ex_add(c, ex_sub(c, last, first), one));
  }
  return count;
}

void compute_average_pool(OpCtx *oc) {
  Ctx *c = oc->c;
  Window w;
  Sym *axes[MAX_RANK];
  Expr *at[MAX_RANK];
  pool_window(oc, &w);
  Stage *st = op_stage(oc, oc->node->out[0]);
  pool_places(oc, &w, st, axes, at);
  Expr *x = op_acc(oc, op_in_pad(oc, 0, at, ex_const_i(c, oc->node->in[0]->dtype, 0)));
  Expr *n = ex_cast(c, (DType)x->dtype, covered(c, &w, st, op_attr_i(oc->node, "count_include_pad")));
  op_done(oc, st, ex_div(c, ex_reduce(c, RED_SUM, x, axes, w.n), n));
}

/* ---- MaxPool ---- */

/* The number of the element at `at` in x, spatial dimensions in row-major or column-major order. */
static Expr *max_number(OpCtx *oc, const Window *w, Expr *const *at) {
  Ctx *c = oc->c;
  Expr *flat = op_flat(c, at, oc->node->in[0]->shape, 2);
  bool column_major = op_attr_i(oc->node, "storage_order");
  Expr *place = ex_int(c, 0);
  for (int i = 0; i < w->n; i++) {
    int d = column_major ? w->n - 1 - i : i;
    place = ex_add(c, ex_mul(c, place, w->in[d]), at[2 + d]);
  }
  return ex_add(c, ex_mul(c, flat, op_product(c, w->in, w->n)), place);
}

/* The first place in the window, row by row, that has the maximum; then its number. */
static void max_indices(OpCtx *oc, const Window *w, Tensor *y) {
  Ctx *c = oc->c;
  Tensor *x = oc->node->in[0], *place = op_temp(oc, "place", DT_I64, y->rank, y->shape);
  Sym *axes[MAX_RANK];
  Expr *at[MAX_RANK], *o[MAX_RANK], *r[MAX_RANK], *many = ex_const_i(c, DT_I64, INT64_MAX),
                                                  *lowest = combiner_identity(c, RED_MAX, x->dtype);
  Stage *st = op_stage(oc, place);
  pool_places(oc, w, st, axes, at);
  op_axes_exprs(st, o);
  for (int i = 0; i < w->n; i++) r[i] = axes[i]->self;
  Expr *v = op_in_pad(oc, 0, at, lowest), *hit = ex_eq(c, v, ex_load(c, y, o, y->rank));
  if (v->op == EX_SELECT) hit = ex_and(c, v->a[0], hit);       /* not in the padding */
  st->body = ex_reduce(c, RED_MIN, ex_select(c, hit, op_flat(c, r, w->kernel, w->n), many), axes, w->n);

  Stage *out = op_stage(oc, oc->node->out[1]);
  op_axes_exprs(out, o);
  Expr *where = ex_min(c, ex_load(c, place, o, place->rank), ex_sub(c, op_product(c, w->kernel, w->n), ex_int(c, 1)));
  op_unflat(c, where, w->kernel, w->n, r);
  for (int i = 0; i < w->n; i++) at[2 + i] = window_place(c, w, i, o[2 + i], r[i]);
  at[0] = o[0];
  at[1] = o[1];
  op_done(oc, out, max_number(oc, w, at));
}

void compute_max_pool(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  const Tensor *x = n->in[0];
  Window w;
  Sym *axes[MAX_RANK];
  Expr *at[MAX_RANK];
  pool_window(oc, &w);
  Expr *shape[MAX_RANK] = { x->shape[0], x->shape[1] };
  for (int i = 0; i < w.n; i++) shape[2 + i] = w.out[i];
  Tensor *y = op_wants(n, 0) ? n->out[0] : op_temp(oc, "max", x->dtype, x->rank, shape);
  Stage *st = op_stage(oc, y);
  pool_places(oc, &w, st, axes, at);
  op_done(oc, st, ex_reduce(c, RED_MAX, op_in_pad(oc, 0, at, combiner_identity(c, RED_MAX, x->dtype)), axes, w.n));
  if (op_wants(n, 1)) max_indices(oc, &w, y);
}

/* ---- Lp ---- */

static Expr *power(OpCtx *oc, Expr *x, double p) {
  Ctx *c = oc->c;
  if (p == 1) return x;
  if (p == 2) return ex_mul(c, x, x);
  if (p == 0.5) return ex_unary(c, EX_SQRT, x);
  return ex_binary(c, EX_POW, x, ex_const(c, (DType)x->dtype, p));
}

static void compute_lp(OpCtx *oc, Stage *st, Expr *x, Sym **axes, int naxes) {
  double p = (double)op_attr_i(oc->node, "p");
  Expr *sum = ex_reduce(oc->c, RED_SUM, power(oc, ex_unary(oc->c, EX_ABS, op_acc(oc, x)), p), axes, naxes);
  op_done(oc, st, power(oc, sum, 1 / p));
}

static bool lp_check(OpCtx *oc) {
  return op_attr_i(oc->node, "p") > 0 || op_error(oc, E0412, NULL, "p is %lld", (long long)op_attr_i(oc->node, "p"));
}

bool shape_lp_pool(OpCtx *oc) { return lp_check(oc) && shape_pool(oc); }

void compute_lp_pool(OpCtx *oc) {
  Window w;
  Sym *axes[MAX_RANK];
  Expr *at[MAX_RANK];
  pool_window(oc, &w);
  Stage *st = op_stage(oc, oc->node->out[0]);
  pool_places(oc, &w, st, axes, at);
  compute_lp(oc, st, op_in_pad(oc, 0, at, ex_const_i(oc->c, oc->node->in[0]->dtype, 0)), axes, w.n);
}

/* ---- global forms ---- */

bool shape_global_pool(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Expr *shape[MAX_RANK];
  OP_BAIL(op_rank(oc, 0, 2, -1));
  for (int d = 0; d < x->rank; d++) shape[d] = d < 2 ? x->shape[d] : ex_int(oc->c, 1);
  op_out(oc, 0, x->dtype, x->rank, shape);
  return true;
}

bool shape_global_lp_pool(OpCtx *oc) { return lp_check(oc) && shape_global_pool(oc); }

static Stage *global_stage(OpCtx *oc, Sym **axes, Expr **x) {
  Tensor *t = oc->node->in[0];
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, oc->node->out[0]);
  for (int d = 0; d < t->rank; d++) {
    if (d >= 2) axes[d - 2] = op_reduce_axis(oc, ctx_printf(oc->c, "r%d", d - 2), t->shape[d]);
    at[d] = d < 2 ? st->axes[d]->self : axes[d - 2]->self;
  }
  *x = op_in(oc, 0, at);
  return st;
}

void compute_global_average_pool(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *t = oc->node->in[0];
  Sym *axes[MAX_RANK];
  Expr *x;
  Stage *st = global_stage(oc, axes, &x);
  Expr *sum = ex_reduce(c, RED_SUM, op_acc(oc, x), axes, t->rank - 2);
  op_done(oc, st, ex_div(c, sum, ex_cast(c, (DType)sum->dtype, op_product(c, t->shape + 2, t->rank - 2))));
}

void compute_global_max_pool(OpCtx *oc) {
  Sym *axes[MAX_RANK];
  Expr *x;
  Stage *st = global_stage(oc, axes, &x);
  op_done(oc, st, ex_reduce(oc->c, RED_MAX, x, axes, oc->node->in[0]->rank - 2));
}

void compute_global_lp_pool(OpCtx *oc) {
  Sym *axes[MAX_RANK];
  Expr *x;
  Stage *st = global_stage(oc, axes, &x);
  compute_lp(oc, st, x, axes, oc->node->in[0]->rank - 2);
}
