/* window.c - sizes and paddings of sliding windows (window.h). */
#include "window.h"

static bool positive_list(OpCtx *oc, const char *name, int n, int64_t *v) {
  int len = op_attr_len(oc->node, name);
  if (len >= 0 && len != n)
    return op_error(oc, E0412, NULL, "%s: %s has %d values for %d dimensions", op_inputs_text(oc), name, len, n);
  for (int i = 0; i < n; i++) {
    v[i] = op_attr_at(oc->node, name, i, 1);
    if (v[i] < 1 || v[i] > INT32_MAX) return op_error(oc, E0412, NULL, "%s has the value %lld", name, (long long)v[i]);
  }
  return true;
}

bool window_attrs(OpCtx *oc, Window *w, bool padded) {
  OP_BAIL(positive_list(oc, "strides", w->n, w->stride) && positive_list(oc, "dilations", w->n, w->dilation));
  int len = op_attr_len(oc->node, "pads");
  if (len >= 0 && len != 2 * w->n)
    return op_error(oc, E0412, NULL, "%s: pads has %d values for %d dimensions", op_inputs_text(oc), len, w->n);
  for (int i = 0; i < w->n; i++) {
    int64_t lo = padded ? op_attr_at(oc->node, "pads", i, 0) : 0,
            hi = padded ? op_attr_at(oc->node, "pads", w->n + i, 0) : 0;
    if (lo < INT32_MIN || lo > INT32_MAX || hi < INT32_MIN || hi > INT32_MAX)
      return op_error(oc, E0412, NULL, "pads out of range");
    w->lo[i] = ex_int(oc->c, lo);
    w->hi[i] = ex_int(oc->c, hi);
  }
  return true;
}

Expr *window_span(Ctx *c, const Window *w, int i) {
  return ex_add(c, ex_mul(c, ex_sub(c, w->kernel[i], ex_int(c, 1)), ex_int(c, w->dilation[i])), ex_int(c, 1));
}

/* auto_pad SAME: as many outputs as strides fit in the input; the odd element of padding goes behind (UPPER) or in front. */
static void same_dim(Ctx *c, Window *w, int i, bool upper) {
  Expr *one = ex_int(c, 1);
  w->out[i] = ex_ceil_div(c, w->in[i], w->stride[i]);
  Expr *reach = ex_add(c, ex_mul(c, ex_sub(c, w->out[i], one), ex_int(c, w->stride[i])), window_span(c, w, i));
  Expr *total = ex_max(c, ex_sub(c, reach, w->in[i]), ex_int(c, 0));
  Expr *less = ex_div(c, total, ex_int(c, 2)), *more = ex_sub(c, total, less);
  w->lo[i] = upper ? less : more;
  w->hi[i] = upper ? more : less;
}

/* A window may hang over the end in ceil mode, but must begin inside the input or the padding before it. */
static void plain_dim(Ctx *c, Window *w, int i, bool ceil_mode) {
  Expr *one = ex_int(c, 1), *s = ex_int(c, w->stride[i]), *begin = ex_add(c, w->in[i], w->lo[i]);
  Expr *room = ex_sub(c, ex_add(c, begin, w->hi[i]), window_span(c, w, i));
  Expr *steps = ceil_mode ? ex_ceil_div(c, room, w->stride[i]) : ex_div(c, room, s);
  w->out[i] = ex_add(c, steps, one);
  if (ceil_mode) w->out[i] = ex_min(c, w->out[i], ex_add(c, ex_div(c, ex_sub(c, begin, one), s), one));
}

bool window_make(OpCtx *oc, Window *w, bool ceil_mode) {
  Ctx *c = oc->c;
  bool upper = op_attr_is(oc->node, "auto_pad", "SAME_UPPER"),
       same = upper || op_attr_is(oc->node, "auto_pad", "SAME_LOWER");
  for (int i = 0; i < w->n; i++) {
    if (same) same_dim(c, w, i, upper);
    else plain_dim(c, w, i, ceil_mode);
    if (expr_range(c, w->out[i]).max < 1)
      return op_error(oc, E0411, NULL, "%s: the window of %s does not fit into %s elements with their padding",
                      op_inputs_text(oc), expr_text(c, window_span(c, w, i)), expr_text(c, w->in[i]));
  }
  return true;
}

Expr *window_place(Ctx *c, const Window *w, int i, Expr *o, Expr *r) {
  Expr *at = ex_add(c, ex_mul(c, o, ex_int(c, w->stride[i])), ex_mul(c, r, ex_int(c, w->dilation[i])));
  return ex_sub(c, at, w->lo[i]);
}
