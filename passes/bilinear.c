/* bilinear.c - see bilinear.h. */
#include "bilinear.h"

#include <math.h>
#include <string.h>

double bilinear_cycles(const Target *t, double compute, int64_t pieces, double bytes) {
  double sum = 0;
  for (int threads = 1; threads <= 2; threads++) {
    double load = bytes / MIN(threads * t->rate.memory, t->rate.memory_limit);
    double each = compute * (double)((pieces + threads - 1) / threads) / (double)pieces;
    sum += threads * (MAX(each, load) + 0.25 * MIN(each, load));
  }
  return sum / 2;
}

static Expr *scaled(Ctx *c, Expr *v, double by) { return by == 1 ? v : ex_mul(c, v, ex_const(c, (DType)v->dtype, by)); }

Expr *bilinear_sum(Ctx *c, const double *row, Expr *const *v, int n, bool fused) {
  Expr *sum = NULL;
  int first = 0;                                             /* what is subtracted comes after what it is subtracted from */
  for (int i = 1; i < n; i++)
    if ((row[i] == 1) + (row[i] > 0) > (row[first] == 1) + (row[first] > 0)) first = i;
  for (int k = 0; k < n; k++) {
    int i = k == 0 ? first : k - (k <= first);
    if (row[i] == 0) continue;
    if (!sum) sum = scaled(c, v[i], row[i]);
    else if (row[i] == -1) sum = ex_sub(c, sum, v[i]);
    else if (fused && row[i] != 1) sum = ex_fma(c, v[i], ex_const(c, (DType)v[i]->dtype, row[i]), sum);
    else sum = ex_add(c, sum, scaled(c, v[i], row[i]));
  }
  return sum;
}

typedef double Coefs[BILINEAR_MOST][BILINEAR_MOST];

/* Where columns p and q agree but for signs, both ways: their sum and their difference take their places. */
static void pair_columns(Ctx *c, Coefs a, int rows, int cols, Expr **v) {
  for (int p = 0; p < cols; p++)
    for (int q = p + 1; q < cols; q++) {
      int same = 0, opposite = 0, other = 0;
      for (int i = 0; i < rows; i++) {
        other += fabs(a[i][p]) != fabs(a[i][q]);
        if (a[i][p] != 0) *(a[i][p] == a[i][q] ? &same : &opposite) += 1;
      }
      if (other || !same || !opposite || same + opposite <= 2) continue;
      Expr *sum = ex_add(c, v[p], v[q]), *difference = ex_sub(c, v[p], v[q]);
      v[p] = sum, v[q] = difference;
      for (int i = 0; i < rows; i++) a[i][a[i][p] == a[i][q] ? q : p] = 0;
      for (int i = 0; i < rows; i++)
        if (a[i][q] != 0) a[i][q] = -a[i][q];                 /* the difference counts as the first did */
    }
}

/* Rows that agree but for signs: what they share, and what one adds and the other subtracts. */
static bool pair_rows(Ctx *c, const double *one, const double *two, int cols, Expr *const *v, Expr **out_one, Expr **out_two, bool fused) {
  double same[BILINEAR_MOST] = {0}, opposite[BILINEAR_MOST] = {0};
  int n_same = 0, n_opposite = 0;
  for (int i = 0; i < cols; i++) {
    if (fabs(one[i]) != fabs(two[i])) return false;
    if (one[i] == 0) continue;
    if (one[i] == two[i]) same[i] = one[i], n_same++;
    else opposite[i] = one[i], n_opposite++;
  }
  if (!n_same || !n_opposite || n_same + n_opposite <= 2) return false;
  Expr *e = bilinear_sum(c, same, v, cols, fused), *o = bilinear_sum(c, opposite, v, cols, fused);
  *out_one = ex_add(c, e, o);
  *out_two = ex_sub(c, e, o);
  return true;
}

void bilinear_multiply(Ctx *c, const BilinearMatrix *l, Expr *const *v, Expr **out, bool fused) {
  Coefs a;
  Expr *in[BILINEAR_MOST];
  for (int i = 0; i < l->rows; i++) memcpy(a[i], l->row + i * l->stride, (size_t)l->cols * sizeof(double));
  memcpy(in, v, (size_t)l->cols * sizeof *in);
  memset(out, 0, (size_t)l->rows * sizeof *out);
  pair_columns(c, a, l->rows, l->cols, in);
  for (int i = 0; i < l->rows; i++) {
    for (int j = i + 1; j < l->rows && !out[i]; j++)
      if (!out[j]) pair_rows(c, a[i], a[j], l->cols, in, &out[i], &out[j], fused);
    if (!out[i]) out[i] = bilinear_sum(c, a[i], in, l->cols, fused);
  }
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
