/* slice.c - Slice, Split, Concat, Pad: parts of tensors. Starts, ends and pads may be symbolic. */
#include "../op_impl.h"

/* ---- Slice: per axis y[i] = x[start + i*step] ---- */

typedef struct { Expr *start[MAX_RANK], *count[MAX_RANK]; int64_t step[MAX_RANK]; } Range1;

static const int64_t FAR = (int64_t)1 << 50;                 /* beyond any dimension */

/* A start or end as the user gives it, as a place in [lo, hi]; negative ones count from the end. */
static Expr *place(Ctx *c, Expr *e, Expr *n, Expr *lo, Expr *hi) {
  int64_t v;
  if (ex_is_int(e, &v)) e = ex_int(c, v < -FAR ? -FAR : v > FAR ? FAR : v);
  Expr *zero = ex_int(c, 0);
  return op_clamp(c, ex_select(c, ex_lt(c, e, zero), ex_add(c, e, n), e), lo, hi);
}

static void slice_axis(Ctx *c, Range1 *r, int d, Expr *n, Expr *start, Expr *end, int64_t step) {
  Expr *zero = ex_int(c, 0), *before = ex_int(c, -1), *last = ex_sub(c, n, ex_int(c, 1));
  bool up = step > 0;
  Expr *from = place(c, start, n, up ? zero : before, up ? n : last),
       *to = place(c, end, n, up ? zero : before, up ? n : last);
  Expr *span = up ? ex_sub(c, to, from) : ex_sub(c, from, to);
  r->start[d] = from;
  r->step[d] = step;
  r->count[d] = ex_max(c, ex_ceil_div(c, span, up ? step : -step), zero);
}

static bool slice_ranges(OpCtx *oc, Range1 *r) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  Expr **starts, **ends;
  int64_t axes[MAX_RANK], steps[MAX_RANK];
  int n, m, k = 0;
  bool mask[MAX_RANK];
  OP_BAIL(op_known_exprs(oc, 1, &starts, &n) && op_known_exprs(oc, 2, &ends, &m));
  if (n != m || n > x->rank) return op_error(oc, E0411, NULL, "%s: %d starts and %d ends", op_inputs_text(oc), n, m);
  for (int i = 0; i < n; i++) axes[i] = i, steps[i] = 1;
  if (op_has_input(oc->node, 3) && (!op_known_ints(oc, 3, axes, MAX_RANK, &k) || k != n))
    return op_error(oc, E0413, NULL, "there must be %d axes, known before the model runs", n);
  if (op_has_input(oc->node, 4) && (!op_known_ints(oc, 4, steps, MAX_RANK, &k) || k != n))
    return op_error(oc, E0413, NULL, "there must be %d steps, known before the model runs", n);
  OP_BAIL(op_axes_mask(oc, axes, n, x->rank, mask));
  for (int d = 0; d < x->rank; d++) r->start[d] = ex_int(c, 0), r->count[d] = x->shape[d], r->step[d] = 1;
  for (int i = 0; i < n; i++) {
    int d = (int)(axes[i] < 0 ? axes[i] + x->rank : axes[i]);
    if (!steps[i]) return op_error(oc, E0412, NULL, "a step of 0");
    slice_axis(c, r, d, x->shape[d], starts[i], ends[i], steps[i] < -FAR ? -FAR : steps[i] > FAR ? FAR : steps[i]);
  }
  return true;
}

bool shape_slice(OpCtx *oc) {
  Range1 r;
  OP_BAIL(slice_ranges(oc, &r));
  op_out(oc, 0, oc->node->in[0]->dtype, oc->node->in[0]->rank, r.count);
  return true;
}

Expr *index_slice(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  Range1 r;
  Expr *at[MAX_RANK];
  slice_ranges(oc, &r);
  for (int d = 0; d < oc->node->in[0]->rank; d++)
    at[d] = ex_add(c, r.start[d], ex_mul(c, axes[d]->self, ex_int(c, r.step[d])));
  return op_in(oc, 0, at);
}

/* ---- Split ---- */

static bool split_sizes(OpCtx *oc, int *axis, Expr **sizes) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  const Tensor *x = n->in[0];
  OP_BAIL(op_axis(oc, op_attr_i(n, "axis"), x->rank, axis));
  Expr *total = x->shape[*axis], **given;
  int k;
  if (op_has_input(n, 1)) {
    OP_BAIL(op_known_exprs(oc, 1, &given, &k));
    if (k != n->nout) return op_error(oc, E0411, NULL, "%d sizes for %d outputs", k, n->nout);
    Expr *sum = ex_int(c, 0);
    for (int i = 0; i < k; i++) sum = ex_add(c, sum, sizes[i] = given[i]);
    if (!op_meet(oc, sum, total))
      return op_error(oc, E0411, NULL, "%s: the parts along axis %d make up %s of %s", op_inputs_text(oc), *axis,
                      expr_text(c, sum), expr_text(c, total));
    return true;
  }
  const Attr *parts = op_attr(n, "num_outputs");
  if (parts->kind == ATTR_INT && parts->i != n->nout)
    return op_error(oc, E0412, NULL, "num_outputs is %lld, the node has %d outputs", (long long)parts->i, n->nout);
  Expr *each = ex_ceil_div(c, total, n->nout), *left = total;
  for (int i = 0; i < n->nout; i++, left = ex_sub(c, left, each))
    sizes[i] = i < n->nout - 1 ? op_clamp(c, left, ex_int(c, 0), each) : ex_max(c, left, ex_int(c, 0));
  return true;
}

bool shape_split(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Expr **sizes = NEW_ARRAY(oc->c, Expr *, oc->node->nout), *shape[MAX_RANK];
  int axis;
  OP_BAIL(split_sizes(oc, &axis, sizes));
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  for (int i = 0; i < oc->node->nout; i++) {
    shape[axis] = sizes[i];
    op_out(oc, i, x->dtype, x->rank, shape);
  }
  return true;
}

void compute_split(OpCtx *oc) {
  Ctx *c = oc->c;
  Expr **sizes = NEW_ARRAY(c, Expr *, oc->node->nout), *at[MAX_RANK], *start = ex_int(c, 0);
  int axis;
  split_sizes(oc, &axis, sizes);
  for (int i = 0; i < oc->node->nout; i++, start = ex_add(c, start, sizes[i - 1])) {
    if (!op_wants(oc->node, i)) continue;
    Stage *st = op_stage(oc, oc->node->out[i]);
    op_axes_exprs(st, at);
    at[axis] = ex_add(c, at[axis], start);
    st->body = op_in(oc, 0, at);
  }
}

/* ---- Concat ---- */

bool shape_concat(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  const Tensor *x = n->in[0];
  int axis;
  Expr *shape[MAX_RANK];
  OP_BAIL(op_axis(oc, op_attr_i(n, "axis"), x->rank, &axis));
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  for (int i = 1; i < n->nin; i++) {
    const Tensor *t = n->in[i];
    if (!t) return op_error(oc, E0403, NULL, "input %d is missing", i);
    if (t->rank != x->rank)
      return op_error(oc, E0411, NULL, "%s: ranks %d and %d differ", op_inputs_text(oc), x->rank, t->rank);
    for (int d = 0; d < x->rank; d++) {
      Expr *both = d == axis ? ex_add(c, shape[d], t->shape[d]) : op_meet(oc, shape[d], t->shape[d]);
      if (!both)
        return op_error(oc, E0411, NULL, "%s: dimensions %d are %s and %s", op_inputs_text(oc), d,
                        expr_text(c, shape[d]), expr_text(c, t->shape[d]));
      shape[d] = both;
    }
  }
  op_out(oc, 0, x->dtype, x->rank, shape);
  return true;
}

/* Inputs [from, to) as a tree of selects on where along the axis the element lies; start[i] is where input i begins. */
static Expr *concat_part(OpCtx *oc, int axis, Expr *const *at, Expr *const *start, int from, int to) {
  Ctx *c = oc->c;
  if (to - from == 1) {
    Expr *index[MAX_RANK];
    memcpy(index, at, sizeof *index * (size_t)oc->node->in[from]->rank);
    index[axis] = ex_sub(c, at[axis], start[from]);
    return op_in(oc, from, index);
  }
  int mid = (from + to) / 2;
  return ex_select(c, ex_lt(c, at[axis], start[mid]), concat_part(oc, axis, at, start, from, mid),
                   concat_part(oc, axis, at, start, mid, to));
}

void compute_concat(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  int axis;
  Expr *at[MAX_RANK], **start = NEW_ARRAY(c, Expr *, n->nin + 1);
  op_axis(oc, op_attr_i(n, "axis"), n->in[0]->rank, &axis);
  start[0] = ex_int(c, 0);
  for (int i = 0; i < n->nin; i++) start[i + 1] = ex_add(c, start[i], n->in[i]->shape[axis]);
  Stage *st = op_stage(oc, n->out[0]);
  op_axes_exprs(st, at);
  st->body = concat_part(oc, axis, at, start, 0, n->nin);
}

/* ---- Pad ---- */

typedef struct { Expr *lo[MAX_RANK], *hi[MAX_RANK]; } Pads;

static bool pads_of(OpCtx *oc, Pads *p) {
  const Tensor *x = oc->node->in[0];
  Expr **v;
  int64_t axes[MAX_RANK];
  int n, naxes = x->rank;
  bool mask[MAX_RANK];
  OP_BAIL(op_known_exprs(oc, 1, &v, &n));
  for (int d = 0; d < x->rank; d++) axes[d] = d, p->lo[d] = p->hi[d] = ex_int(oc->c, 0);
  if (op_has_input(oc->node, 3) && !op_known_ints(oc, 3, axes, MAX_RANK, &naxes))
    return op_error(oc, E0413, NULL, "the axes are not known before the model runs");
  OP_BAIL(op_axes_mask(oc, axes, naxes, x->rank, mask));
  if (n != 2 * naxes) return op_error(oc, E0411, NULL, "%s: %d pads for %d axes", op_inputs_text(oc), n, naxes);
  for (int i = 0; i < naxes; i++) {
    int d = (int)(axes[i] < 0 ? axes[i] + x->rank : axes[i]);
    p->lo[d] = v[i];
    p->hi[d] = v[naxes + i];
  }
  return true;
}

bool shape_pad(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  Pads p;
  Expr *shape[MAX_RANK];
  OP_BAIL(pads_of(oc, &p) && op_one(oc, 2));
  for (int d = 0; d < x->rank; d++) {
    shape[d] = ex_add(c, ex_add(c, x->shape[d], p.lo[d]), p.hi[d]);
    if (expr_range(c, shape[d]).max < 0)
      return op_error(oc, E0411, NULL, "%s: the pads leave nothing of dimension %d", op_inputs_text(oc), d);
  }
  op_out(oc, 0, x->dtype, x->rank, shape);
  for (int d = 0; d < x->rank && !op_attr_is(oc->node, "mode", "constant"); d++)
    OP_BAIL(op_not_empty(oc, x->shape[d], op_product(c, shape, x->rank)));
  return true;
}

/* Place i of a dimension of n elements mirrored at both ends without repeating them, as often as it takes. */
static Expr *reflected(Ctx *c, Expr *i, Expr *n, Expr *lo, Expr *hi) {
  Expr *last = ex_sub(c, n, ex_int(c, 1)), *period = ex_mul(c, last, ex_int(c, 2));
  if (expr_proves(c, ex_le(c, lo, last)) && expr_proves(c, ex_le(c, hi, last))) {
    if (!ex_equals_int(lo, 0)) i = ex_max(c, i, ex_sub(c, ex_int(c, 0), i));
    return ex_equals_int(hi, 0) ? i : ex_min(c, i, ex_sub(c, period, i));
  }
  Expr *m = ex_mod(c, i, ex_max(c, period, ex_int(c, 1)));
  return ex_min(c, m, ex_sub(c, period, m));
}

static Expr *padded_place(OpCtx *oc, Expr *i, Expr *n, Expr *lo, Expr *hi) {
  Ctx *c = oc->c;
  if (ex_equals_int(lo, 0) && ex_equals_int(hi, 0)) return i;
  if (op_attr_is(oc->node, "mode", "edge")) return op_clamp(c, i, ex_int(c, 0), ex_sub(c, n, ex_int(c, 1)));
  if (op_attr_is(oc->node, "mode", "wrap")) return ex_mod(c, i, n);
  return op_attr_is(oc->node, "mode", "reflect") ? reflected(c, i, n, lo, hi) : i;
}

Expr *index_pad(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  Tensor *x = oc->node->in[0], *value = op_input(oc->node, 2);
  Pads p;
  Expr *at[MAX_RANK];
  pads_of(oc, &p);
  for (int d = 0; d < x->rank; d++)
    at[d] = padded_place(oc, ex_sub(c, axes[d]->self, p.lo[d]), x->shape[d], p.lo[d], p.hi[d]);
  if (!op_attr_is(oc->node, "mode", "constant")) return op_in(oc, 0, at);
  return op_in_pad(oc, 0, at, value ? op_scalar(oc, 2) : ex_const_i(c, x->dtype, 0));
}
