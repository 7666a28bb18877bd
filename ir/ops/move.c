/* move.c - operators that move elements without computing: each gives the load that an output element is.
 *
 * Reshape and its kin: y[i..] = x[j..] where j is i's row-major number taken apart by x's dimensions. Dimensions that stand alone on
 * both sides map one to one, so that only what really merges or splits becomes division. */
#include "../op_impl.h"

/* ---- Identity, Dropout ---- */

bool shape_identity(OpCtx *oc) { return op_like(oc, 0, 0); }

Expr *index_identity(OpCtx *oc, Sym *const *axes) {
  Expr *at[MAX_RANK];
  for (int i = 0; i < oc->node->in[0]->rank; i++) at[i] = axes[i]->self;
  return op_in(oc, 0, at);
}

bool shape_dropout(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int64_t training = 0;
  int n = 0;
  if (op_has_input(oc->node, 2) && (!op_known_ints(oc, 2, &training, 1, &n) || training))
    return op_error(oc, E0405, NULL, "Dropout in training mode is not supported");
  op_out(oc, 1, DT_BOOL, x->rank, x->shape);
  return op_like(oc, 0, 0);
}

void compute_dropout(OpCtx *oc) {
  for (int i = 0; i < 2; i++) {
    if (!op_wants(oc->node, i)) continue;
    Stage *st = op_stage(oc, oc->node->out[i]);
    st->body = i ? ex_bool(oc->c, true) : index_identity(oc, st->axes);
  }
}

/* ---- Transpose ---- */

static int perm_of(const Node *n, int d) { return (int)op_attr_at(n, "perm", d, n->in[0]->rank - 1 - d); }

bool shape_transpose(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int n = op_attr_len(oc->node, "perm");
  bool mask[MAX_RANK];
  Expr *shape[MAX_RANK];
  if (n >= 0 && n != x->rank)
    return op_error(oc, E0412, NULL, "perm has %d axes, '%s' has rank %d", n, diag_quote(oc->c, x->name), x->rank);
  if (n > 0) OP_BAIL(op_axes_mask(oc, op_attr(oc->node, "perm")->ints, n, x->rank, mask));
  for (int d = 0; d < x->rank; d++) {
    int from = perm_of(oc->node, d);
    shape[d] = x->shape[from < 0 ? from + x->rank : from];
  }
  op_out(oc, 0, x->dtype, x->rank, shape);
  return true;
}

Expr *index_transpose(OpCtx *oc, Sym *const *axes) {
  int rank = oc->node->in[0]->rank;
  Expr *at[MAX_RANK];
  for (int d = 0; d < rank; d++) {
    int from = perm_of(oc->node, d);
    at[from < 0 ? from + rank : from] = axes[d]->self;
  }
  return op_in(oc, 0, at);
}

/* ---- Reshape, Flatten, Squeeze, Unsqueeze ---- */

/* Takes apart the numbers of in[0..ni) from those of out[0..no), whose products are equal. */
static void regroup(Ctx *c, Expr *const *out_dims, Expr *const *out_at, int no, Expr *const *in_dims, Expr **in_at,
                    int ni) {
  op_unflat(c, op_flat(c, out_at, out_dims, no), in_dims, ni, in_at);
}

Expr *index_reshape(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  Tensor *x = oc->node->in[0];
  const Tensor *y = oc->node->out[0];
  Expr *at[MAX_RANK + 1], *out_at[MAX_RANK + 1];
  for (int i = 0; i < y->rank; i++) out_at[i] = axes[i]->self;
  int i0 = 0, o0 = 0;              /* up to here the products agree */
  Expr *pi = ex_int(c, 1);
  for (int i = 0; i < x->rank; i++) {
    Expr *po = ex_int(c, 1);
    int match = -1;
    pi = ex_mul(c, pi, x->shape[i]);
    for (int o = o0; o <= y->rank; o++) {
      if (pi == po) match = o;     /* the longest: trailing ones go along */
      if (o < y->rank) po = ex_mul(c, po, y->shape[o]);
    }
    if (i == x->rank - 1) match = y->rank;
    if (match < 0) continue;
    regroup(c, y->shape + o0, out_at + o0, match - o0, x->shape + i0, at + i0, i + 1 - i0);
    i0 = i + 1;
    o0 = match;
    pi = ex_int(c, 1);
  }
  return op_in(oc, 0, at);
}

/* The dimension that stands for -1: what of the input's elements the other dimensions leave. Equal factors cancel. */
static Expr *remaining_dim(Ctx *c, const Tensor *x, Expr *const *dims, int n, int hole) {
  Expr *over[MAX_RANK], *under[MAX_RANK];
  int nover = 0, nunder = 0;
  int64_t k, a = 1, b = 1;
  for (int i = 0; i < x->rank; i++)
    if (!ex_is_int(x->shape[i], &k) || !mul_ok(a, k, &a)) over[nover++] = x->shape[i];
  for (int i = 0; i < n; i++)
    if (i != hole && (!ex_is_int(dims[i], &k) || !mul_ok(b, k, &b))) under[nunder++] = dims[i];
  for (int i = 0; i < nunder; i++)
    for (int j = 0; j < nover; j++)
      if (op_same_dim(c, under[i], over[j])) {
        under[i--] = under[--nunder];
        over[j] = over[--nover];
        break;
      }
  Expr *num = ex_mul(c, op_product(c, over, nover), ex_int(c, a)),
       *den = ex_mul(c, op_product(c, under, nunder), ex_int(c, b));
  return ex_equals_int(den, 1) ? num : ex_div(c, num, den);
}

bool shape_reshape(OpCtx *oc) {
  Ctx *c = oc->c;
  Tensor *x = oc->node->in[0];
  Expr **want, *dims[MAX_RANK];
  int n, hole = -1;
  OP_BAIL(op_known_exprs(oc, 1, &want, &n));
  if (n > MAX_RANK) return op_error(oc, E0602, NULL, "%d dimensions; the most is %d", n, MAX_RANK);
  for (int i = 0; i < n; i++) {
    int64_t v;
    dims[i] = want[i];
    if (!ex_is_int(want[i], &v)) continue;
    if (v < -1) return op_error(oc, E0412, NULL, "dimension %lld", (long long)v);
    if (v == -1 && hole >= 0) return op_error(oc, E0412, NULL, "more than one dimension is -1");
    if (v == -1) hole = i;
    if (v == 0 && !op_attr_i(oc->node, "allowzero")) {
      if (i >= x->rank) return op_error(oc, E0411, NULL, "dimension %d is to be copied from %s", i, op_inputs_text(oc));
      dims[i] = x->shape[i];
    }
  }
  if (hole >= 0) dims[hole] = remaining_dim(c, x, dims, n, hole);
  Expr *have = tensor_elements(c, x), *need = op_product(c, dims, n);
  if (!op_meet(oc, have, need)) {
    if (hole >= 0) dims[hole] = ex_int(c, -1);
    return op_error(oc, E0411, NULL, "%s: %s elements cannot be reshaped to %s", op_inputs_text(oc), expr_text(c, have),
                    op_shape_text(c, dims, n));
  }
  op_out(oc, 0, x->dtype, n, dims);
  return true;
}

bool shape_flatten(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int64_t axis = op_attr_i(oc->node, "axis");
  if (axis < 0) axis += x->rank;
  if (axis < 0 || axis > x->rank)
    return op_error(oc, E0412, NULL, "axis %lld of a tensor of rank %d", (long long)op_attr_i(oc->node, "axis"),
                    x->rank);
  op_out(oc, 0, x->dtype, 2,
         (Expr *[]){ op_product(oc->c, x->shape, (int)axis), op_product(oc->c, x->shape + axis, x->rank - (int)axis) });
  return true;
}

bool shape_squeeze(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  bool mask[MAX_RANK];
  Expr *shape[MAX_RANK];
  int n, rank = 0;
  OP_BAIL(op_input_axes(oc, 1, x->rank, mask, &n));
  for (int d = 0; d < x->rank; d++) {
    if (n < 0) mask[d] = ex_equals_int(x->shape[d], 1);
    else if (mask[d] && !op_meet(oc, x->shape[d], ex_int(oc->c, 1)))
      return op_error(oc, E0411, NULL, "%s: dimension %d is %s and cannot be squeezed", op_inputs_text(oc), d,
                      expr_text(oc->c, x->shape[d]));
    if (!mask[d]) shape[rank++] = x->shape[d];
  }
  op_out(oc, 0, x->dtype, rank, shape);
  return true;
}

bool shape_unsqueeze(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int64_t axes[MAX_RANK];
  bool mask[MAX_RANK];
  Expr *shape[MAX_RANK];
  int n, from = 0;
  if (!op_known_ints(oc, 1, axes, MAX_RANK, &n))
    return op_error(oc, E0413, NULL, "the axes are not known before the model runs");
  if (x->rank + n > MAX_RANK)
    return op_error(oc, E0602, NULL, "a result of rank %d; the most is %d", x->rank + n, MAX_RANK);
  OP_BAIL(op_axes_mask(oc, axes, n, x->rank + n, mask));
  for (int d = 0; d < x->rank + n; d++) shape[d] = mask[d] ? ex_int(oc->c, 1) : x->shape[from++];
  op_out(oc, 0, x->dtype, x->rank + n, shape);
  return true;
}

/* ---- Expand, Tile ---- */

bool shape_expand(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Expr **want, *shape[MAX_RANK];
  int n, rank;
  OP_BAIL(op_known_exprs(oc, 1, &want, &n));
  if (n > MAX_RANK) return op_error(oc, E0602, NULL, "%d dimensions; the most is %d", n, MAX_RANK);
  OP_BAIL(op_broadcast(oc, x->shape, x->rank, want, n, shape, &rank));
  op_out(oc, 0, x->dtype, rank, shape);
  return true;
}

Expr *index_expand(OpCtx *oc, Sym *const *axes) {
  Expr *at[MAX_RANK];
  int rank = oc->node->out[0]->rank;
  for (int d = 0; d < rank; d++) at[d] = axes[d]->self;
  return op_in_bcast(oc, 0, at, rank);
}

bool shape_tile(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  Expr **times, *shape[MAX_RANK];
  int n;
  OP_BAIL(op_known_exprs(oc, 1, &times, &n));
  if (n != x->rank) return op_error(oc, E0411, NULL, "%s: %d repeats for rank %d", op_inputs_text(oc), n, x->rank);
  for (int d = 0; d < n; d++) shape[d] = ex_mul(oc->c, x->shape[d], times[d]);
  op_out(oc, 0, x->dtype, n, shape);
  return true;
}

Expr *index_tile(OpCtx *oc, Sym *const *axes) {
  const Tensor *x = oc->node->in[0], *y = oc->node->out[0];
  Expr *at[MAX_RANK];
  for (int d = 0; d < x->rank; d++)
    at[d] = x->shape[d] == y->shape[d] ? axes[d]->self : ex_mod(oc->c, axes[d]->self, x->shape[d]);
  return op_in(oc, 0, at);
}

/* ---- DepthToSpace, SpaceToDepth ---- */

static bool block_shape(OpCtx *oc, int64_t *b) {
  *b = op_attr_i(oc->node, "blocksize");
  OP_BAIL(op_rank(oc, 0, 4, 4));
  if (*b < 1 || *b > 1 << 15) return op_error(oc, E0412, NULL, "blocksize %lld", (long long)*b);
  return true;
}

static bool divisible(OpCtx *oc, int d, int64_t by) {
  if (op_meet(oc, ex_mod(oc->c, oc->node->in[0]->shape[d], ex_int(oc->c, by)), ex_int(oc->c, 0))) return true;
  return op_error(oc, E0411, NULL, "%s: dimension %d is no multiple of %lld", op_inputs_text(oc), d, (long long)by);
}

bool shape_depth_to_space(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int64_t b;
  OP_BAIL(block_shape(oc, &b) && divisible(oc, 1, b * b));
  Expr *e = ex_int(c, b);
  op_out(oc, 0, x->dtype, 4,
         (Expr *[]){ x->shape[0], ex_div(c, x->shape[1], ex_int(c, b * b)), ex_mul(c, x->shape[2], e),
                     ex_mul(c, x->shape[3], e) });
  return true;
}

/* The channel of the deep side: (row in block, column in block, channel) in DCR, channel first in CRD. */
static Expr *deep_channel(OpCtx *oc, Expr *row, Expr *col, Expr *channel, Expr *channels, Expr *b) {
  Ctx *c = oc->c;
  Expr *place = ex_add(c, ex_mul(c, row, b), col);
  if (op_attr_is(oc->node, "mode", "DCR")) return ex_add(c, ex_mul(c, place, channels), channel);
  return ex_add(c, ex_mul(c, channel, ex_mul(c, b, b)), place);
}

Expr *index_depth_to_space(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  Expr *b = ex_int(c, op_attr_i(oc->node, "blocksize")), *h = axes[2]->self, *w = axes[3]->self;
  Expr *deep = deep_channel(oc, ex_mod(c, h, b), ex_mod(c, w, b), axes[1]->self, oc->node->out[0]->shape[1], b);
  return op_in(oc, 0, (Expr *[]){ axes[0]->self, deep, ex_div(c, h, b), ex_div(c, w, b) });
}

bool shape_space_to_depth(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int64_t b;
  OP_BAIL(block_shape(oc, &b) && divisible(oc, 2, b) && divisible(oc, 3, b));
  Expr *e = ex_int(c, b);
  op_out(oc, 0, x->dtype, 4,
         (Expr *[]){ x->shape[0], ex_mul(c, x->shape[1], ex_int(c, b * b)), ex_div(c, x->shape[2], e),
                     ex_div(c, x->shape[3], e) });
  return true;
}

Expr *index_space_to_depth(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  bool dcr = op_attr_is(oc->node, "mode", "DCR");
  Expr *b = ex_int(c, op_attr_i(oc->node, "blocksize")), *bb = ex_mul(c, b, b), *deep = axes[1]->self,
       *channels = oc->node->in[0]->shape[1];
  Expr *place = dcr ? ex_div(c, deep, channels) : ex_mod(c, deep, bb),
       *channel = dcr ? ex_mod(c, deep, channels) : ex_div(c, deep, bb);
  Expr *h = ex_add(c, ex_mul(c, axes[2]->self, b), ex_div(c, place, b)),
       *w = ex_add(c, ex_mul(c, axes[3]->self, b), ex_mod(c, place, b));
  return op_in(oc, 0, (Expr *[]){ axes[0]->self, channel, h, w });
}

/* ---- Trilu ---- */

bool shape_trilu(OpCtx *oc) { return op_rank(oc, 0, 2, -1) && op_one(oc, 1) && op_like(oc, 0, 0); }

Expr *index_trilu(OpCtx *oc, Sym *const *axes) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  Expr *diagonal = op_has_input(oc->node, 1) ? op_scalar(oc, 1) : ex_int(c, 0);
  Expr *start = ex_add(c, axes[x->rank - 2]->self, diagonal), *col = axes[x->rank - 1]->self;
  Expr *inside = op_attr_i(oc->node, "upper") ? ex_le(c, start, col) : ex_le(c, col, start);
  return ex_select(c, inside, index_identity(oc, axes), ex_const_i(c, x->dtype, 0));
}
