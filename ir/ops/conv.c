/* conv.c - Conv and ConvTranspose of any rank.
 *
 * Conv           y[n,k,o..] = sum(c, r..) pad(x)[n, (k / (K/g))*C/g + c, o*stride + r*dilation - lo] * w[k,c,r..] + b[k]
 * ConvTranspose  y[n,k,o..] = sum(c, r..) x[n, (k / (K/g))*C/g + c, (o + lo - r*dilation) / stride] * w[.., k % (K/g), r..] + b[k], where
 *                the division has no remainder and lands inside; without dilation these r are stride*q + (o + lo) % stride, and the sum
 *                is over q */
#include "window.h"

static bool divides(OpCtx *oc, int64_t g, Expr *e) {
  return op_meet(oc, ex_mod(oc->c, e, ex_int(oc->c, g)), ex_int(oc->c, 0));
}

/* What both have in common: ranks, groups, kernel_shape, bias. */
static bool conv_check(OpCtx *oc, Window *w) {
  const Node *n = oc->node;
  const Tensor *x = n->in[0], *f = n->in[1], *b = op_input(n, 2);
  int64_t g = op_attr_i(n, "group");
  OP_BAIL(op_rank(oc, 0, 3, -1) && op_rank(oc, 1, x->rank, x->rank));
  if (b) OP_BAIL(op_rank(oc, 2, 1, 1));
  w->n = x->rank - 2;
  if (g < 1 || g > INT32_MAX) return op_error(oc, E0412, NULL, "group is %lld", (long long)g);
  if (!divides(oc, g, x->shape[1]) || !divides(oc, g, f->shape[0]))
    return op_error(oc, E0411, NULL, "%s: the channels do not divide into %lld groups", op_inputs_text(oc),
                    (long long)g);
  int len = op_attr_len(n, "kernel_shape");
  if (len >= 0 && len != w->n)
    return op_error(oc, E0412, NULL, "%s: kernel_shape has %d values for %d dimensions", op_inputs_text(oc), len, w->n);
  for (int i = 0; i < w->n; i++) {
    w->in[i] = x->shape[2 + i];
    w->kernel[i] = f->shape[2 + i];
    if (len >= 0 && !op_meet(oc, ex_int(oc->c, op_attr_at(n, "kernel_shape", i, 1)), w->kernel[i]))
      return op_error(oc, E0411, NULL, "%s: kernel_shape %lld is not that of the weights", op_inputs_text(oc),
                      (long long)op_attr_at(n, "kernel_shape", i, 1));
  }
  return window_attrs(oc, w, op_attr_is(n, "auto_pad", "NOTSET"));
}

static bool conv_window(OpCtx *oc, Window *w) {
  const Node *n = oc->node;
  const Tensor *x = n->in[0], *f = n->in[1], *b = op_input(n, 2);
  OP_BAIL(conv_check(oc, w));
  Expr *channels = ex_mul(oc->c, f->shape[1], ex_int(oc->c, op_attr_i(n, "group")));
  if (!op_meet(oc, x->shape[1], channels))
    return op_error(oc, E0411, NULL, "%s: %s input channels, the weights take %s", op_inputs_text(oc),
                    expr_text(oc->c, x->shape[1]), expr_text(oc->c, channels));
  if (b && !op_meet(oc, b->shape[0], f->shape[0]))
    return op_error(oc, E0411, NULL, "%s: %s biases for %s channels", op_inputs_text(oc), expr_text(oc->c, b->shape[0]),
                    expr_text(oc->c, f->shape[0]));
  return window_make(oc, w, false);
}

static bool conv_out(OpCtx *oc, const Window *w, Expr *channels) {
  const Tensor *x = oc->node->in[0];
  Expr *shape[MAX_RANK] = { x->shape[0], channels };
  for (int i = 0; i < w->n; i++) shape[2 + i] = w->out[i];
  op_out(oc, 0, x->dtype, x->rank, shape);
  return true;
}

bool shape_conv(OpCtx *oc) {
  Window w;
  return conv_window(oc, &w) && conv_out(oc, &w, oc->node->in[1]->shape[0]);
}

/* The reduction axes: c over a group's input channels, then the window. */
static int conv_axes(OpCtx *oc, const Window *w, Expr *channels, Sym **axes) {
  axes[0] = op_reduce_axis(oc, "c", channels);
  for (int i = 0; i < w->n; i++) axes[1 + i] = op_reduce_axis(oc, ctx_printf(oc->c, "r%d", i), w->kernel[i]);
  return 1 + w->n;
}

/* Input channel c of the group that output channel k belongs to. */
static Expr *group_channel(Ctx *c, int64_t groups, Expr *k, Expr *out_per_group, Expr *in_per_group, Expr *channel) {
  return groups == 1 ? channel : ex_add(c, ex_mul(c, ex_div(c, k, out_per_group), in_per_group), channel);
}

static Expr *with_bias(OpCtx *oc, Expr *sum, Expr *k) {
  return op_has_input(oc->node, 2) ? ex_add(oc->c, sum, op_acc(oc, op_in(oc, 2, &k))) : sum;
}

void compute_conv(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0], *f = oc->node->in[1];
  int64_t groups = op_attr_i(oc->node, "group");
  Window w;
  conv_window(oc, &w);
  Stage *st = op_stage(oc, oc->node->out[0]);
  Sym *axes[MAX_RANK + 1];
  Expr *o[MAX_RANK], *at[MAX_RANK], *fat[MAX_RANK];
  op_axes_exprs(st, o);
  int naxes = conv_axes(oc, &w, f->shape[1], axes);
  at[0] = o[0];
  at[1] = group_channel(c, groups, o[1], ex_div(c, f->shape[0], ex_int(c, groups)), f->shape[1], axes[0]->self);
  fat[0] = o[1];
  fat[1] = axes[0]->self;
  for (int i = 0; i < w.n; i++) {
    at[2 + i] = window_place(c, &w, i, o[2 + i], axes[1 + i]->self);
    fat[2 + i] = axes[1 + i]->self;
  }
  Expr *v = op_acc(oc, op_in_pad(oc, 0, at, ex_const_i(c, x->dtype, 0))),
       *product = ex_mul(c, v, op_acc(oc, op_in(oc, 1, fat)));
  op_done(oc, st, with_bias(oc, ex_reduce(c, RED_SUM, product, axes, naxes), o[1]));
}

/* ---- ConvTranspose ---- */

static int64_t extra(const Node *n, int i) { return op_attr_at(n, "output_padding", i, 0); }

/* Sizes: stride*(in-1) + output_padding + span - padding; output_shape gives the padding instead. */
static void transpose_dim(OpCtx *oc, Window *w, int i) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  bool upper = op_attr_is(n, "auto_pad", "SAME_UPPER"), same = upper || op_attr_is(n, "auto_pad", "SAME_LOWER");
  Expr *full = ex_mul(c, ex_sub(c, w->in[i], ex_int(c, 1)), ex_int(c, w->stride[i]));
  full = ex_add(c, full, ex_add(c, window_span(c, w, i), ex_int(c, extra(n, i))));
  if (op_attr_len(n, "output_shape") >= 0) w->out[i] = ex_int(c, op_attr_at(n, "output_shape", i, 1));
  else if (same) w->out[i] = ex_mul(c, w->in[i], ex_int(c, w->stride[i]));
  else {
    w->out[i] = ex_sub(c, full, ex_add(c, w->lo[i], w->hi[i]));
    return;
  }
  Expr *total = ex_max(c, ex_sub(c, full, w->out[i]), ex_int(c, 0)), *half = ex_div(c, total, ex_int(c, 2));
  w->lo[i] = upper ? half : ex_sub(c, total, half);
}

static bool transpose_window(OpCtx *oc, Window *w) {
  const Node *n = oc->node;
  int len = op_attr_len(n, "output_padding"), sizes = op_attr_len(n, "output_shape");
  OP_BAIL(conv_check(oc, w));
  if (len >= 0 && len != w->n)
    return op_error(oc, E0412, NULL, "output_padding has %d values for %d dimensions", len, w->n);
  if (sizes >= 0 && sizes != w->n)
    return op_error(oc, E0412, NULL, "output_shape has %d values for %d dimensions", sizes, w->n);
  if (!op_meet(oc, n->in[0]->shape[1], n->in[1]->shape[0]))
    return op_error(oc, E0411, NULL, "%s: %s input channels, the weights take %s", op_inputs_text(oc),
                    expr_text(oc->c, n->in[0]->shape[1]), expr_text(oc->c, n->in[1]->shape[0]));
  for (int i = 0; i < w->n; i++) {
    transpose_dim(oc, w, i);
    if (expr_range(oc->c, w->out[i]).max < 1)
      return op_error(oc, E0411, NULL, "%s: the padding leaves nothing of dimension %d", op_inputs_text(oc), 2 + i);
  }
  return true;
}

bool shape_conv_transpose(OpCtx *oc) {
  Window w;
  return transpose_window(oc, &w) &&
         conv_out(oc, &w, ex_mul(oc->c, oc->node->in[1]->shape[1], ex_int(oc->c, op_attr_i(oc->node, "group"))));
}

/* Where output element o of dimension i meets the map, and which step of the window that is; hits: the condition that there is one. */
static void transpose_place(OpCtx *oc, const Window *w, int i, Expr *o, Sym **axis, Expr **at, Expr **tap, Expr **hits) {
  Ctx *c = oc->c;
  Expr *s = ex_int(c, w->stride[i]), *from = ex_add(c, o, w->lo[i]), *kernel = w->kernel[i];
  if (w->dilation[i] == 1 && w->stride[i] > 1) {
    Expr *count = ex_ceil_div(c, kernel, w->stride[i]);
    *axis = op_reduce_axis(oc, ctx_printf(c, "r%d", i), count);
    Expr *q = ex_equals_int(count, 1) ? ex_int(c, 0) : (*axis)->self, *r = ex_add(c, ex_mul(c, q, s), ex_mod(c, from, s));
    *at = ex_sub(c, ex_div(c, from, s), q);
    *tap = ex_min(c, r, ex_sub(c, kernel, ex_int(c, 1)));
    *hits = ex_and(c, *hits, ex_lt(c, r, kernel));
    return;
  }
  from = ex_sub(c, from, ex_mul(c, (*axis)->self, ex_int(c, w->dilation[i])));
  *at = ex_div(c, from, s);
  *tap = (*axis)->self;
  *hits = ex_and(c, *hits, ex_eq(c, ex_mod(c, from, s), ex_int(c, 0)));
}

void compute_conv_transpose(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0], *f = oc->node->in[1];
  int64_t groups = op_attr_i(oc->node, "group");
  Window w;
  transpose_window(oc, &w);
  Stage *st = op_stage(oc, oc->node->out[0]);
  Sym *axes[MAX_RANK + 1];
  Expr *o[MAX_RANK], *at[MAX_RANK], *fat[MAX_RANK], *hits = ex_bool(c, true);
  Expr *per_group = ex_div(c, f->shape[0], ex_int(c, groups));
  op_axes_exprs(st, o);
  int naxes = conv_axes(oc, &w, per_group, axes);
  at[0] = o[0];
  at[1] = fat[0] = group_channel(c, groups, o[1], f->shape[1], per_group, axes[0]->self);
  fat[1] = groups == 1 ? o[1] : ex_mod(c, o[1], f->shape[1]);
  for (int i = 0; i < w.n; i++) transpose_place(oc, &w, i, o[2 + i], &axes[1 + i], &at[2 + i], &fat[2 + i], &hits);
  Expr *zero = ex_const_i(c, x->dtype, 0), *v = op_acc(oc, ex_select(c, hits, op_in_pad(oc, 0, at, zero), zero));
  Expr *product = ex_mul(c, v, op_acc(oc, op_in(oc, 1, fat)));
  op_done(oc, st, with_bias(oc, ex_reduce(c, RED_SUM, product, axes, naxes), o[1]));
}
