/* window.h - sliding windows of Conv and the pools: element r of the window at output o is input o*stride + r*dilation - lo. */
#ifndef DLC_WINDOW_H
#define DLC_WINDOW_H

#include "../op_impl.h"

typedef struct Window {
  int n;                           /* spatial dimensions */
  Expr *in[MAX_RANK], *kernel[MAX_RANK], *lo[MAX_RANK], *hi[MAX_RANK], *out[MAX_RANK];
  int64_t stride[MAX_RANK], dilation[MAX_RANK];
} Window;

bool window_attrs(OpCtx *oc, Window *w, bool padded);        /* strides, dilations (and pads) with their lengths checked; w->n is set */
bool window_make(OpCtx *oc, Window *w, bool ceil_mode);      /* from w->in and w->kernel: paddings and sizes */
Expr *window_place(Ctx *c, const Window *w, int i, Expr *o, Expr *r);    /* in the input, negative in the padding */
Expr *window_span(Ctx *c, const Window *w, int i);           /* (kernel-1)*dilation + 1 */

#endif
