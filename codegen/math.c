/* math.c - the rows of math.def: transcendental operations become polynomials before emission, so that no back end has special cases and
 * no library calls libm. */
#include "codegen.h"

#include "../ir/diag.h"

static const struct { ExprOp op; DType dtype; const char *text; } rows[] = {
#define MATH(op, dtype, accuracy, text) {op, dtype, text},
#include "math.def"
#undef MATH
};

static const char *find_row(ExprOp op, DType t) {
  for (int i = 0; i < COUNT(rows); i++)
    if (rows[i].op == op && rows[i].dtype == t) return rows[i].text;
  return NULL;
}

static Expr *put_row(Ctx *c, const char *text, Expr *x, Expr *y) {
  Scope s = scope_new(c);
  map_set(&s.lets, KEY(ctx_intern(c, "x")), x);
  if (y) map_set(&s.lets, KEY(ctx_intern(c, "y")), y);
  return expr_parse(c, &s, text);
}

/* x^n for a small whole n as products; NULL otherwise. */
static Expr *whole_power(Ctx *c, Expr *x, const Expr *y) {
  double n = dtype_is_float((DType)y->dtype) ? y->u.f : (double)y->u.i;
  if (!ex_is_const(y) || n != (int)n || n < 0 || n > 16) return NULL;
  Expr *r = NULL;
  for (int k = (int)n; k; k >>= 1, x = k ? ex_mul(c, x, x) : x)
    if (k & 1) r = r ? ex_mul(c, r, x) : x;
  return r ? r : ex_const(c, (DType)x->dtype, 1);
}

static Expr *expand_pow(Ctx *c, Expr *e) {
  DType t = (DType)e->dtype;
  Expr *r = whole_power(c, e->a[0], e->a[1]);
  if (r) return r;
  if (dtype_is_float(t) && ex_is_const(e->a[1]) && e->a[1]->u.f == 0.5) return ex_unary(c, EX_SQRT, e->a[0]);
  r = put_row(c, find_row(EX_POW, DT_F64), ex_cast(c, DT_F64, e->a[0]), ex_cast(c, DT_F64, e->a[1]));
  return ex_cast(c, t, dtype_is_float(t) ? r : ex_unary(c, EX_ROUND, r));
}

static Expr *expand(Ctx *c, Expr *e, void *user) {
  DType t = (DType)e->dtype;
  if (e->op == EX_POW) return *(bool *)user = true, expand_pow(c, e);
  if (e->op == EX_TMOD && dtype_is_float(t))
    return ex_sub(c, e->a[0], ex_mul(c, e->a[1], ex_unary(c, EX_TRUNC, ex_div(c, e->a[0], e->a[1]))));
  if (e->op == EX_MOD && dtype_is_float(t))
    return ex_sub(c, e->a[0], ex_mul(c, e->a[1], ex_unary(c, EX_FLOOR, ex_div(c, e->a[0], e->a[1]))));
  if (e->op < EX_EXP) return e;
  *(bool *)user = true;
  const char *row = find_row((ExprOp)e->op, t);
  if (row) return put_row(c, row, e->a[0], NULL);
  if (t == DT_F16 || t == DT_BF16) return ex_cast(c, t, ex_unary(c, (ExprOp)e->op, ex_cast(c, DT_F32, e->a[0])));
  diag_fail(c, E0404, NULL, NULL, "%s of %s is not supported by this target", expr_info[e->op].text, dtype_info[t].name);
}

static Expr *expand_all(Ctx *c, Expr *e) {
  for (bool again = e != NULL; again;) {                     /* rows use other rows */
    again = false;
    e = expr_map(c, e, expand, &again);
  }
  return e;
}

Stmt *math_expand(Ctx *c, Stmt *s) {
  s->value = expand_all(c, s->value);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) math_expand(c, s->body[i]);
  return s;
}
