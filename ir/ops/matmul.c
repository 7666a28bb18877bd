/* matmul.c - MatMul with all its broadcast forms, Gemm. */
#include "../op_impl.h"

static bool inner_fits(OpCtx *oc, const Tensor *a, Expr *ka, const Tensor *b, Expr *kb) {
  if (op_meet(oc, ka, kb)) return true;
  return op_error(oc, E0411, NULL, "%s %s * %s %s: inner dimensions %s and %s differ", diag_quote(oc->c, a->name),
                  tensor_type_text(oc->c, a), diag_quote(oc->c, b->name), tensor_type_text(oc->c, b),
                  expr_text(oc->c, ka), expr_text(oc->c, kb));
}

static Expr *sum_of_products(OpCtx *oc, Expr *const *a_at, Expr *const *b_at, Sym *k) {
  Expr *a = op_acc(oc, op_in(oc, 0, a_at)), *b = op_acc(oc, op_in(oc, 1, b_at));
  return ex_reduce(oc->c, RED_SUM, ex_mul(oc->c, a, b), &k, 1);
}

/* ---- MatMul: y[batch.., i, j] = sum(k) a[batch.., i, k] * b[batch.., k, j]; a vector's missing dimension vanishes from y ---- */

static int batch_rank(const Tensor *t) { return MAX(t->rank - 2, 0); }
static Expr *inner_of_b(const Tensor *b) { return b->shape[MAX(b->rank - 2, 0)]; }

bool shape_matmul(OpCtx *oc) {
  const Tensor *a = oc->node->in[0], *b = oc->node->in[1];
  Expr *shape[MAX_RANK + 2];
  int rank;
  OP_BAIL(op_rank(oc, 0, 1, -1) && op_rank(oc, 1, 1, -1));
  OP_BAIL(inner_fits(oc, a, a->shape[a->rank - 1], b, inner_of_b(b)));
  OP_BAIL(op_broadcast(oc, a->shape, batch_rank(a), b->shape, batch_rank(b), shape, &rank));
  if (a->rank > 1) shape[rank++] = a->shape[a->rank - 2];
  if (b->rank > 1) shape[rank++] = b->shape[b->rank - 1];
  op_out(oc, 0, a->dtype, rank, shape);
  return true;
}

/* The batch index that t reads when the result's is o[0..n). */
static void batch_index(Ctx *c, const Tensor *t, Expr *const *o, int n, Expr **at) {
  int own = batch_rank(t);
  for (int i = 0; i < own; i++) at[i] = ex_equals_int(t->shape[i], 1) ? ex_int(c, 0) : o[n - own + i];
}

void compute_matmul(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *a = oc->node->in[0], *b = oc->node->in[1];
  Expr *o[MAX_RANK], *aat[MAX_RANK], *bat[MAX_RANK];
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, o);
  int n = st->out->rank - (a->rank > 1) - (b->rank > 1);
  const Expr *ka = a->shape[a->rank - 1];
  Sym *k = op_reduce_axis(oc, "k", ex_is_const(ka) ? (Expr *)ka : inner_of_b(b));
  batch_index(c, a, o, n, aat);
  batch_index(c, b, o, n, bat);
  if (a->rank > 1) aat[a->rank - 2] = o[n];
  aat[a->rank - 1] = k->self;
  bat[MAX(b->rank - 2, 0)] = k->self;
  if (b->rank > 1) bat[b->rank - 1] = o[st->out->rank - 1];
  op_done(oc, st, sum_of_products(oc, aat, bat, k));
}

/* ---- Gemm: alpha * a' * b' + beta * c ---- */

bool shape_gemm(OpCtx *oc) {
  const Node *n = oc->node;
  const Tensor *a = n->in[0], *b = n->in[1];
  int ta = op_attr_i(n, "transA") != 0, tb = op_attr_i(n, "transB") != 0, rank;
  OP_BAIL(op_rank(oc, 0, 2, 2) && op_rank(oc, 1, 2, 2));
  OP_BAIL(inner_fits(oc, a, a->shape[!ta], b, b->shape[tb]));
  Expr *shape[] = { a->shape[ta], b->shape[!tb] }, *both[MAX_RANK];
  if (op_has_input(n, 2)) {
    OP_BAIL(op_rank(oc, 2, 0, 2) && op_broadcast(oc, shape, 2, n->in[2]->shape, n->in[2]->rank, both, &rank));
    for (int d = 0; d < 2; d++)
      if (rank > 2 || !op_meet(oc, shape[d], both[d]))
        return op_error(oc, E0411, NULL, "%s: c does not broadcast to %s", op_inputs_text(oc),
                        op_shape_text(oc->c, shape, 2));
  }
  op_out(oc, 0, a->dtype, 2, shape);
  return true;
}

static Expr *scaled(OpCtx *oc, Expr *x, const char *attr) {
  double f = op_attr_f(oc->node, attr);
  if (f == 1) return x;
  if (dtype_is_float((DType)x->dtype)) return ex_mul(oc->c, x, ex_const(oc->c, (DType)x->dtype, f));
  return ex_cast(oc->c, (DType)x->dtype, ex_mul(oc->c, ex_cast(oc->c, DT_F64, x), ex_const(oc->c, DT_F64, f)));
}

void compute_gemm(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  const Tensor *a = n->in[0], *b = n->in[1];
  int ta = op_attr_i(n, "transA") != 0, tb = op_attr_i(n, "transB") != 0;
  Expr *o[2], *aat[2], *bat[2];
  Stage *st = op_stage(oc, n->out[0]);
  op_axes_exprs(st, o);
  Sym *k = op_reduce_axis(oc, "k", ex_is_const(a->shape[!ta]) ? a->shape[!ta] : b->shape[tb]);
  aat[ta] = o[0];
  aat[!ta] = k->self;
  bat[!tb] = o[1];
  bat[tb] = k->self;
  Expr *sum = scaled(oc, sum_of_products(oc, aat, bat, k), "alpha");
  if (op_has_input(n, 2) && op_attr_f(n, "beta") != 0)
    sum = ex_add(c, sum, scaled(oc, op_acc(oc, op_in_bcast(oc, 2, o, 2)), "beta"));
  op_done(oc, st, sum);
}
