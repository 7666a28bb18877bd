/* bilinear.c - see bilinear.h. */
#include "bilinear.h"

Expr *bilinear_sum(Ctx *c, const double *row, Expr *const *v, int n) {
  Expr *sum = NULL;
  int first = 0;
  while (first < n - 1 && row[first] <= 0) first++;          /* what is subtracted comes after what it is subtracted from */
  for (int k = 0; k < n; k++) {
    int i = k == 0 ? first : k - (k <= first);
    if (row[i] == 0) continue;
    if (row[i] == -1 && sum) {
      sum = ex_sub(c, sum, v[i]);
      continue;
    }
    Expr *term = row[i] == 1 ? v[i] : ex_mul(c, v[i], ex_const(c, (DType)v[i]->dtype, row[i]));
    sum = sum ? ex_add(c, sum, term) : term;
  }
  return sum;
}

Expr *bilinear_case(Ctx *c, Expr *at, Expr *const *item, int n) {
  Expr *e = item[n - 1];
  for (int i = n - 2; i >= 0; i--) e = ex_select(c, ex_eq(c, at, ex_int(c, i)), item[i], e);
  return e;
}

Stage *bilinear_stage(Ctx *c, const char *name, int rank, Expr *const *shape, const char *const *axes) {
  Stage *st = NEW(c, Stage);
  st->out = tensor_new(c, name, DT_F32, rank, shape);
  st->axes = NEW_ARRAY(c, Sym *, rank);
  for (int i = 0; i < rank; i++) st->axes[i] = sym_axis(c, SYM_AXIS, axes[i], shape[i]);
  return st;
}

Tensor *bilinear_weights(Ctx *c, Stage *st) {
  Tensor *t = tensor_new(c, st->out->name, st->out->dtype, st->out->rank, st->out->shape);
  t->data = NEW(c, ConstData);
  t->data->stage = st;
  return t;
}

Tensor *bilinear_source(Ctx *c, const Tensor *weights, const char *layout) {
  Tensor *t = ctx_copy(c, weights, sizeof *weights);
  t->layout = layout_parse(c, layout);
  return t;
}
