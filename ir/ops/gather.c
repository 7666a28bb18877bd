/* gather.c - operators whose indices are data. Negative indices count from the end; all are clamped into the tensor, so that memory
 * is never violated whatever the data. Scatter is a reduction over the updates that looks for the last one of an element. */
#include "../op_impl.h"

/* ---- Gather: y[pre.., i.., post..] = x[pre.., index[i..], post..] ---- */

bool shape_gather(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int axis, rank = 0;
  Expr *shape[2 * MAX_RANK];
  OP_BAIL(op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis));
  for (int d = 0; d < x->rank; d++) {
    if (d != axis) shape[rank++] = x->shape[d];
    for (int i = 0; d == axis && i < index->rank; i++) shape[rank++] = index->shape[i];
  }
  op_out(oc, 0, x->dtype, rank, shape);
  return op_not_empty(oc, x->shape[axis], op_product(oc->c, shape, rank));
}

Expr *index_gather(OpCtx *oc, Sym *const *axes) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  Expr *at[MAX_RANK], *iat[MAX_RANK];
  int axis, o = 0;
  op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis);
  for (int d = 0; d < x->rank; d++) {
    if (d != axis) {
      at[d] = axes[o++]->self;
      continue;
    }
    for (int i = 0; i < index->rank; i++) iat[i] = axes[o++]->self;
    at[d] = op_index_of_data(oc, op_in(oc, 1, iat), x->shape[d]);
  }
  return op_in(oc, 0, at);
}

/* ---- GatherElements: y[i..] = x[i.., index[i..], ..i] ---- */

static bool elements_axis(OpCtx *oc, int *axis) {
  const Tensor *x = oc->node->in[0];
  return op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, axis) && op_rank(oc, 1, x->rank, x->rank);
}

bool shape_gather_elements(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int axis;
  OP_BAIL(elements_axis(oc, &axis));
  for (int d = 0; d < x->rank; d++) {          /* an index tensor may be smaller than x, not larger */
    Expr *fits = ex_le(oc->c, index->shape[d], x->shape[d]);
    if (d != axis && ex_is_const(fits) && !fits->u.i)
      return op_error(oc, E0411, NULL, "%s: dimension %d of the indices is larger", op_inputs_text(oc), d);
    if (d != axis) op_assume(oc, fits);
  }
  op_out(oc, 0, x->dtype, index->rank, index->shape);
  return op_not_empty(oc, x->shape[axis], tensor_elements(oc->c, index));
}

Expr *index_gather_elements(OpCtx *oc, Sym *const *axes) {
  const Tensor *x = oc->node->in[0];
  Expr *at[MAX_RANK];
  int axis;
  elements_axis(oc, &axis);
  for (int d = 0; d < x->rank; d++) at[d] = axes[d]->self;
  at[axis] = op_index_of_data(oc, op_in(oc, 1, at), x->shape[axis]);
  return op_in(oc, 0, at);
}

/* ---- GatherND: y[batch.., i.., post..] = x[batch.., index[batch.., i.., 0], index[batch.., i.., 1] .., post..] ---- */

/* m: how many dimensions one row of the index tensor addresses. */
static bool nd_width(OpCtx *oc, int batch, int *m) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int64_t v;
  OP_BAIL(op_rank(oc, 0, 1, -1) && op_rank(oc, 1, 1, -1));
  if (!ex_is_int(index->shape[index->rank - 1], &v))
    return op_error(oc, E0413, NULL, "%s: the last dimension of the indices must be a constant", op_inputs_text(oc));
  if (batch < 0 || batch >= index->rank || batch + v > x->rank || v < 1)
    return op_error(oc, E0411, NULL, "%s: rows of %lld indices do not fit", op_inputs_text(oc), (long long)v);
  *m = (int)v;
  return true;
}

bool shape_gather_nd(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int batch = (int)op_attr_i(oc->node, "batch_dims"), m, rank = 0;
  Expr *shape[2 * MAX_RANK];
  OP_BAIL(nd_width(oc, batch, &m));
  for (int i = 0; i < index->rank - 1; i++) shape[rank++] = index->shape[i];
  for (int d = batch + m; d < x->rank; d++) shape[rank++] = x->shape[d];
  for (int d = 0; d < batch; d++)
    if (!op_meet(oc, x->shape[d], index->shape[d]))
      return op_error(oc, E0411, NULL, "%s: batch dimensions %d differ", op_inputs_text(oc), d);
  op_out(oc, 0, x->dtype, rank, shape);
  return op_not_empty(oc, op_product(oc->c, x->shape + batch, m), op_product(oc->c, shape, rank));
}

Expr *index_gather_nd(OpCtx *oc, Sym *const *axes) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int batch = (int)op_attr_i(oc->node, "batch_dims"), m, row = index->rank - 1;
  Expr *at[MAX_RANK], *iat[MAX_RANK];
  nd_width(oc, batch, &m);
  for (int i = 0; i < row; i++) iat[i] = axes[i]->self;
  for (int d = 0; d < x->rank; d++) {
    if (d < batch) at[d] = axes[d]->self;
    else if (d >= batch + m) at[d] = axes[row + d - batch - m]->self;
    else {
      iat[row] = ex_int(oc->c, d - batch);
      at[d] = op_index_of_data(oc, op_in(oc, 1, iat), x->shape[d]);
    }
  }
  return op_in(oc, 0, at);
}

/* ---- scatter: out = x, overwritten by or combined with updates ---- */

/* What an update means for an element: updates number p of n, of which `hit` tells whether it goes to the element at hand. */
typedef struct { Sym *p; Expr *n, *hit; Expr *update; } Updates;

static int reduction_of(const Node *n) {
  static const struct { const char *name; Combiner how; } names[] = {
    { "add", RED_SUM }, { "mul", RED_PROD }, { "max", RED_MAX }, { "min", RED_MIN } };
  for (int i = 0; i < COUNT(names); i++)
    if (op_attr_is(n, "reduction", names[i].name)) return names[i].how;
  return -1;
}

static bool reduction_fits(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int how = reduction_of(oc->node);
  return x->dtype != DT_BOOL || (how != RED_SUM && how != RED_PROD) ||
         op_error(oc, E0404, NULL, "%s: bool has no sums and products", op_inputs_text(oc));
}

typedef Updates (*UpdatesAt)(OpCtx *oc, Expr *const *at,
                             Expr *number); /* number: of the update; NULL = a new reduction axis */

/* The stage that finds the last update of each element of `shape` (the leading dimensions that updates address), -1 if none. */
static Tensor *last_update(OpCtx *oc, UpdatesAt updates_at, int rank) {
  Ctx *c = oc->c;
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, op_temp(oc, "last", DT_I64, rank, oc->node->in[0]->shape));
  op_axes_exprs(st, at);
  Updates u = updates_at(oc, at, NULL);
  st->body = ex_max(c, ex_int(c, -1), ex_reduce(c, RED_MAX, ex_select(c, u.hit, u.p->self, ex_int(c, -1)), &u.p, 1));
  return st->out;
}

static void scatter(OpCtx *oc, UpdatesAt updates_at, int rank) {
  Ctx *c = oc->c;
  int how = reduction_of(oc->node);
  Expr *at[MAX_RANK];
  Tensor *last = how < 0 ? last_update(oc, updates_at, rank) : NULL;
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  Expr *old = op_in(oc, 0, at);
  if (last) {
    Expr *p = ex_load(c, last, at, rank);
    Updates u = updates_at(oc, at, ex_max(c, p, ex_int(c, 0)));
    st->body = ex_select(c, ex_le(c, ex_int(c, 0), p), u.update, old);
    return;
  }
  Updates u = updates_at(oc, at, NULL);
  Expr *none = combiner_identity(c, (Combiner)how, oc->node->in[0]->dtype);
  Expr *all = ex_reduce(c, (Combiner)how, ex_select(c, u.hit, u.update, none), &u.p, 1);
  op_done(oc, st, combiner_apply(c, (Combiner)how, old, all));
}

/* ScatterND: update p is row p of the indices, counted over all but their last dimension. */
static Updates nd_updates(OpCtx *oc, Expr *const *at, Expr *number) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  int m, row = index->rank - 1;
  Expr *iat[MAX_RANK], *uat[2 * MAX_RANK];
  nd_width(oc, 0, &m);
  Updates u = { .n = op_product(c, index->shape, row), .hit = ex_bool(c, true) };
  if (!number) u.p = op_reduce_axis(oc, "p", u.n);
  op_unflat(c, number ? number : u.p->self, index->shape, row, iat);
  memcpy(uat, iat, sizeof *uat * (size_t)row);
  for (int d = 0; d < m; d++) {
    iat[row] = ex_int(c, d);
    u.hit = ex_and(c, u.hit, ex_eq(c, op_index_of_data(oc, op_in(oc, 1, iat), x->shape[d]), at[d]));
  }
  if (!number && reduction_of(oc->node) < 0) return u;       /* the search alone: no update is read */
  for (int d = m; d < x->rank; d++) uat[row + d - m] = at[d];
  u.update = op_in(oc, 2, uat);
  return u;
}

bool shape_scatter_nd(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1], *updates = oc->node->in[2];
  int m;
  OP_BAIL(reduction_fits(oc) && nd_width(oc, 0, &m) &&
          op_rank(oc, 2, index->rank - 1 + x->rank - m, index->rank - 1 + x->rank - m));
  for (int d = 0; d < updates->rank; d++) {
    Expr *want = d < index->rank - 1 ? index->shape[d] : x->shape[d - (index->rank - 1) + m];
    if (!op_meet(oc, want, updates->shape[d]))
      return op_error(oc, E0411, NULL, "%s: dimension %d of the updates is not %s", op_inputs_text(oc), d,
                      expr_text(oc->c, want));
  }
  return op_like(oc, 0, 0);
}

void compute_scatter_nd(OpCtx *oc) {
  int m;
  nd_width(oc, 0, &m);
  scatter(oc, nd_updates, m);
}

/* ScatterElements: update p along the axis, at the same place in all other dimensions (which the updates may not fill). */
static Updates element_updates(OpCtx *oc, Expr *const *at, Expr *number) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1];
  Expr *iat[MAX_RANK];
  int axis;
  elements_axis(oc, &axis);
  Updates u = { .n = index->shape[axis], .hit = ex_bool(c, true) };
  if (!number) u.p = op_reduce_axis(oc, "p", u.n);
  memcpy(iat, at, sizeof *iat * (size_t)x->rank);
  iat[axis] = number ? number : u.p->self;
  for (int d = 0; d < x->rank; d++)
    if (d != axis && !op_same_dim(c, x->shape[d], index->shape[d]))
      u.hit = ex_and(c, u.hit, ex_lt(c, at[d], index->shape[d]));
  Expr *to = op_index_of_data(oc, op_in(oc, 1, iat), x->shape[axis]), *same = ex_eq(c, to, at[axis]);
  u.hit = ex_is_const(u.hit) ? same : ex_select(c, u.hit, same, ex_bool(c, false));
  u.update = op_in(oc, 2, iat);
  return u;
}

bool shape_scatter_elements(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *index = oc->node->in[1], *updates = oc->node->in[2];
  int axis;
  OP_BAIL(reduction_fits(oc) && elements_axis(oc, &axis) && op_rank(oc, 2, x->rank, x->rank));
  for (int d = 0; d < x->rank; d++)
    if (!op_meet(oc, index->shape[d], updates->shape[d]))
      return op_error(oc, E0411, NULL, "%s: dimensions %d of indices and updates differ", op_inputs_text(oc), d);
  return op_like(oc, 0, 0);
}

void compute_scatter_elements(OpCtx *oc) { scatter(oc, element_updates, oc->node->in[0]->rank); }

/* ---- OneHot ---- */

static bool one_hot_depth(OpCtx *oc, Expr **depth) {
  Expr **v;
  int n;
  OP_BAIL(op_known_exprs(oc, 1, &v, &n));
  if (n != 1) return op_error(oc, E0411, NULL, "%s: depth has %d elements", op_inputs_text(oc), n);
  *depth = v[0];
  return true;
}

bool shape_one_hot(OpCtx *oc) {
  const Tensor *index = oc->node->in[0];
  Expr *depth, *shape[MAX_RANK + 1];
  int axis;
  OP_BAIL(one_hot_depth(oc, &depth) && op_axis(oc, op_attr_i(oc->node, "axis"), index->rank + 1, &axis) &&
          op_rank(oc, 2, 1, 1));
  if (!op_meet(oc, oc->node->in[2]->shape[0], ex_int(oc->c, 2)))
    return op_error(oc, E0411, NULL, "%s: values are two, off and on", op_inputs_text(oc));
  for (int d = 0; d <= index->rank; d++) shape[d] = d == axis ? depth : index->shape[d - (d > axis)];
  op_out(oc, 0, oc->node->in[2]->dtype, index->rank + 1, shape);
  return true;
}

void compute_one_hot(OpCtx *oc) {
  Ctx *c = oc->c;
  Expr *depth, *at[MAX_RANK];
  int axis, rank = oc->node->in[0]->rank;
  one_hot_depth(oc, &depth);
  op_axis(oc, op_attr_i(oc->node, "axis"), rank + 1, &axis);
  Stage *st = op_stage(oc, oc->node->out[0]);
  for (int d = 0; d < rank; d++) at[d] = st->axes[d + (d >= axis)]->self;
  Expr *i = ex_cast(c, DT_I64, op_in(oc, 0, at)), *zero = ex_int(c, 0), *one = ex_int(c, 1);
  i = ex_select(c, ex_lt(c, i, zero), ex_add(c, i, depth), i);
  st->body = ex_select(c, ex_eq(c, i, st->axes[axis]->self), op_in(oc, 2, &one), op_in(oc, 2, &zero));
}

/* ---- CumSum: a sum over the elements up to this one ---- */

static bool cumsum_axis(OpCtx *oc, int *axis) {
  int64_t v;
  int n;
  if (!op_known_ints(oc, 1, &v, 1, &n) || n != 1)
    return op_error(oc, E0413, NULL, "the axis is not known before the model runs");
  return op_axis(oc, v, oc->node->in[0]->rank, axis);
}

bool shape_cumsum(OpCtx *oc) {
  int axis;
  return cumsum_axis(oc, &axis) && op_like(oc, 0, 0);
}

static void cumulate(OpCtx *oc, Combiner how) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  Tensor *x = n->in[0];
  int axis;
  Expr *at[MAX_RANK];
  cumsum_axis(oc, &axis);
  Stage *st = op_stage(oc, n->out[0]);
  op_axes_exprs(st, at);
  Sym *k = op_reduce_axis(oc, "k", x->shape[axis]);
  Expr *first = op_attr_i(n, "reverse") ? at[axis] : k->self, *second = op_attr_i(n, "reverse") ? k->self : at[axis];
  Expr *counts = op_attr_i(n, "exclusive") ? ex_lt(c, first, second) : ex_le(c, first, second);
  at[axis] = k->self;
  Expr *v = op_acc(oc, op_in(oc, 0, at));
  op_done(oc, st, ex_reduce(c, how, ex_select(c, counts, v, combiner_identity(c, how, (DType)v->dtype)), &k, 1));
}

void compute_cumsum(OpCtx *oc) { cumulate(oc, RED_SUM); }
void compute_cumprod(OpCtx *oc) { cumulate(oc, RED_PROD); }

/* ---- ReverseSequence: the first lens[b] elements along time turned round ---- */

static bool sequence_axes(OpCtx *oc, int *batch, int *time) {
  int rank = oc->node->in[0]->rank;
  OP_BAIL(op_rank(oc, 0, 2, -1) && op_rank(oc, 1, 1, 1));
  OP_BAIL(op_axis(oc, op_attr_i(oc->node, "batch_axis"), rank, batch) &&
          op_axis(oc, op_attr_i(oc->node, "time_axis"), rank, time));
  return *batch != *time || op_error(oc, E0412, NULL, "batch and time are the same axis");
}

bool shape_reverse_sequence(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *lens = oc->node->in[1];
  int batch, time;
  OP_BAIL(sequence_axes(oc, &batch, &time));
  if (!op_meet(oc, lens->shape[0], x->shape[batch]))
    return op_error(oc, E0411, NULL, "%s: there is not one length for each sequence", op_inputs_text(oc));
  return op_like(oc, 0, 0);
}

Expr *index_reverse_sequence(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int batch, time;
  Expr *at[MAX_RANK], *one = ex_int(c, 1);
  sequence_axes(oc, &batch, &time);
  for (int d = 0; d < x->rank; d++) at[d] = axes[d]->self;
  Expr *t = at[time], *mirrored = ex_sub(c, ex_sub(c, op_in(oc, 1, &at[batch]), one), t);
  at[time] = op_clamp(c, ex_select(c, ex_le(c, ex_int(c, 0), mirrored), mirrored, t), ex_int(c, 0),
                      ex_sub(c, x->shape[time], one));
  return op_in(oc, 0, at);
}
