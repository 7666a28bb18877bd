/* arg.c - places of extreme elements along an axis: ArgMax, ArgMin, Hardmax, TopK. */
#include "../op_impl.h"

/* ---- ArgMax, ArgMin, Hardmax: the extreme value, then the first (or last) place that has it ---- */

bool shape_arg(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int axis, rank = 0;
  Expr *shape[MAX_RANK];
  OP_BAIL(op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis));
  for (int d = 0; d < x->rank; d++)
    if (d != axis) shape[rank++] = x->shape[d];
    else if (op_attr_i(oc->node, "keepdims")) shape[rank++] = ex_int(oc->c, 1);
  op_out(oc, 0, DT_I64, rank, shape);
  return true;
}

/* A stage over x's shape with `axis` at extent 1, and x at its reduction axis. */
static Stage *arg_stage(OpCtx *oc, const char *name, DType t, int axis, Sym **r, Expr **x) {
  Tensor *in = oc->node->in[0];
  Expr *shape[MAX_RANK], *at[MAX_RANK];
  for (int d = 0; d < in->rank; d++) shape[d] = d == axis ? ex_int(oc->c, 1) : in->shape[d];
  Stage *st = op_stage(oc, op_temp(oc, name, t, in->rank, shape));
  op_axes_exprs(st, at);
  *r = op_reduce_axis(oc, "r", in->shape[axis]);
  at[axis] = (*r)->self;
  *x = op_in(oc, 0, at);
  return st;
}

static Tensor *arg_place(OpCtx *oc, Combiner how, int axis, bool last) {
  Ctx *c = oc->c;
  Tensor *in = oc->node->in[0];
  Sym *r;
  Expr *x, *at[MAX_RANK], *end = ex_sub(c, in->shape[axis], ex_int(c, 1));
  Stage *best = arg_stage(oc, "best", in->dtype, axis, &r, &x);
  best->body = ex_reduce(c, how, x, &r, 1);
  Stage *st = arg_stage(oc, "place", DT_I64, axis, &r, &x);
  op_axes_exprs(st, at);
  Expr *hit = ex_eq(c, x, ex_load(c, best->out, at, in->rank));
  st->body = ex_reduce(c, last ? RED_MAX : RED_MIN, ex_select(c, hit, r->self, last ? ex_int(c, 0) : end), &r, 1);
  return st->out;
}

static void compute_arg(OpCtx *oc, Combiner how) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int axis;
  Expr *at[MAX_RANK];
  op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis);
  Tensor *place = arg_place(oc, how, axis, op_attr_i(oc->node, "select_last_index"));
  Stage *st = op_stage(oc, oc->node->out[0]);
  for (int d = 0, o = 0; d < x->rank; d++) {
    at[d] = d == axis ? ex_int(c, 0) : st->axes[o]->self;
    o += d != axis || st->out->rank == x->rank;
  }
  st->body = ex_load(c, place, at, x->rank);
}

void compute_arg_max(OpCtx *oc) { compute_arg(oc, RED_MAX); }
void compute_arg_min(OpCtx *oc) { compute_arg(oc, RED_MIN); }

void compute_hardmax(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int axis;
  Expr *at[MAX_RANK];
  op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis);
  Tensor *place = arg_place(oc, RED_MAX, axis, false);
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  at[axis] = ex_int(c, 0);
  op_done(oc, st, ex_eq(c, ex_load(c, place, at, x->rank), st->axes[axis]->self));
}

/* ---- TopK: an element's rank is the number of elements that stand before it; result k is the element of rank k ---- */

static bool top_axis(OpCtx *oc, int *axis, Expr **k) {
  const Tensor *x = oc->node->in[0];
  Expr **v;
  int n;
  OP_BAIL(op_rank(oc, 0, 1, -1) && op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, axis) &&
          op_known_exprs(oc, 1, &v, &n));
  if (n != 1) return op_error(oc, E0411, NULL, "%s: k has %d elements", op_inputs_text(oc), n);
  *k = v[0];
  Expr *fits = ex_and(oc->c, ex_le(oc->c, ex_int(oc->c, 0), *k), ex_le(oc->c, *k, x->shape[*axis]));
  if (ex_is_const(fits) && !fits->u.i)
    return op_error(oc, E0412, NULL, "%s: the first %s of %s", op_inputs_text(oc), expr_text(oc->c, *k),
                    expr_text(oc->c, x->shape[*axis]));
  op_assume(oc, fits);
  return true;
}

bool shape_top_k(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Expr *k, *shape[MAX_RANK];
  int axis;
  OP_BAIL(top_axis(oc, &axis, &k));
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  shape[axis] = k;
  op_out(oc, 0, x->dtype, x->rank, shape);
  op_out(oc, 1, DT_I64, x->rank, shape);
  return true;
}

static Tensor *top_ranks(OpCtx *oc, int axis) {
  Ctx *c = oc->c;
  Tensor *x = oc->node->in[0];
  Stage *st = op_stage(oc, op_temp(oc, "rank", DT_I64, x->rank, x->shape));
  Expr *at[MAX_RANK];
  op_axes_exprs(st, at);
  Expr *i = at[axis], *own = op_in(oc, 0, at);
  Sym *j = op_reduce_axis(oc, "j", x->shape[axis]);
  at[axis] = j->self;
  Expr *other = op_in(oc, 0, at), *ahead = op_attr_i(oc->node, "largest") ? ex_lt(c, own, other) : ex_lt(c, other, own);
  ahead = ex_or(c, ahead, ex_and(c, ex_eq(c, own, other), ex_lt(c, j->self, i)));
  st->body = ex_reduce(c, RED_SUM, ex_cast(c, DT_I64, ahead), &j, 1);
  return st->out;
}

void compute_top_k(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  Tensor *x = n->in[0];
  Expr *k, *at[MAX_RANK], *shape[MAX_RANK];
  int axis;
  top_axis(oc, &axis, &k);
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  shape[axis] = k;
  Tensor *ranks = top_ranks(oc, axis),
         *place = op_wants(n, 1) ? n->out[1] : op_temp(oc, "place", DT_I64, x->rank, shape);
  Stage *st = op_stage(oc, place);
  op_axes_exprs(st, at);
  Expr *want = at[axis];
  Sym *i = op_reduce_axis(oc, "i", x->shape[axis]);
  at[axis] = i->self;
  Expr *hit = ex_eq(c, ex_load(c, ranks, at, x->rank), want);
  st->body = ex_reduce(c, RED_MAX, ex_select(c, hit, i->self, ex_int(c, 0)), &i, 1);
  if (!op_wants(n, 0)) return;
  st = op_stage(oc, n->out[0]);
  op_axes_exprs(st, at);
  at[axis] = op_clamp(c, ex_load(c, place, at, x->rank), ex_int(c, 0), ex_sub(c, x->shape[axis], ex_int(c, 1)));
  st->body = op_in(oc, 0, at);
}
