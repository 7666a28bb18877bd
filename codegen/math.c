/* math.c - the rows of math.def: transcendental operations become polynomials before emission, so that no back end has special cases and
 * no library calls libm. Powers are here, since they depend on the exponent. */
#include "codegen.h"

#include <math.h>

#include "../ir/diag.h"

static const struct { ExprOp op; DType dtype; const char *text; } rows[] = {
#define MATH(op, dtype, ulps, below, where, text) {op, dtype, text},
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

/* ---- powers ---- */

/* x^n as products: as many as n has bits, and one more for each bit that is set. */
static Expr *product_power(Ctx *c, Expr *x, uint64_t n) {
  Expr *r = NULL;
  for (; n; n >>= 1, x = n ? ex_mul(c, x, x) : x)
    if (n & 1) r = r ? ex_mul(c, r, x) : x;
  return r ? r : ex_const(c, (DType)x->dtype, 1);
}

/* Small exponents in quarters: products and square roots, each rounded once; as pow has it, -0 and -inf give 0 and inf. NULL: another y. */
static Expr *small_power(Ctx *c, Expr *x, double y) {
  DType t = (DType)x->dtype;
  double a = fabs(y);
  if (!(a <= 8) || a * 4 != floor(a * 4)) return NULL;
  Expr *r = product_power(c, x, (uint64_t)a), *one = ex_const(c, t, 1);
  int quarters = (int)(a * 4) % 4;
  if (quarters) {
    Expr *inf = ex_const(c, t, INFINITY), *base = ex_add(c, x, ex_const(c, t, 0));
    base = ex_select(c, ex_eq(c, x, ex_const(c, t, -INFINITY)), inf, base);
    Expr *half = ex_unary(c, EX_SQRT, base), *root = quarters == 2 ? half : ex_unary(c, EX_SQRT, half);
    if (quarters == 3) root = ex_mul(c, half, root);
    r = a < 1 ? root : ex_mul(c, product_power(c, base, (uint64_t)a), root);
  }
  return y < 0 ? ex_div(c, one, r) : r;
}

/* Whole numbers by squaring, as many times as the exponent may have bits; factors are chosen rather than products, so that no side of a
 * select is long. x^y for y < 0 is 0 but for x = 1 and -1, whose powers tell odd from even only. */
static Expr *whole_power(Ctx *c, Expr *x, Expr *y) {
  DType t = (DType)x->dtype;
  Expr *one = ex_const(c, t, 1), *zero = ex_const(c, t, 0), *r = NULL;
  Range range = expr_range(c, y);
  bool is_signed = dtype_info[t].kind == 'i';
  int bits = dtype_info[t].bits - is_signed;
  while (bits > 1 && range.min >= 0 && range.max < INT64_MAX && range.max >> (bits - 1) == 0) bits--;
  for (int i = bits - 1; i >= 0; i--) {
    Expr *bit = ex_and(c, ex_binary(c, EX_SHR, y, ex_const(c, t, i)), one);
    Expr *factor = ex_select(c, ex_eq(c, bit, one), x, one);
    r = r ? ex_mul(c, ex_mul(c, r, r), factor) : factor;
  }
  if (!is_signed || range.min >= 0) return r;
  Expr *unit = ex_or(c, ex_eq(c, x, one), ex_eq(c, x, ex_const(c, t, -1)));
  return ex_select(c, ex_or(c, ex_le(c, zero, y), unit), r, zero);
}

static Expr *expand_pow(Ctx *c, Expr *x, Expr *y) {
  DType t = (DType)x->dtype;
  bool constant = ex_is_const(y);
  if (!dtype_is_float(t)) {
    bool product = constant && (y->u.i >= 0 || dtype_info[t].kind == 'u');
    return product ? product_power(c, x, (uint64_t)y->u.i) : whole_power(c, x, y);
  }
  if (t == DT_F16 || t == DT_BF16)
    return ex_cast(c, t, expand_pow(c, ex_cast(c, DT_F32, x), ex_cast(c, DT_F32, y)));
  Expr *r = constant ? small_power(c, x, y->u.f) : NULL;
  return r ? r : put_row(c, find_row(EX_POW, t), x, y);
}

/* ---- remainders of floats: that of division towards zero is a row ---- */

static Expr *expand_tmod(Ctx *c, Expr *x, Expr *y) {
  DType t = (DType)x->dtype;
  if (t == DT_F16 || t == DT_BF16)
    return ex_cast(c, t, expand_tmod(c, ex_cast(c, DT_F32, x), ex_cast(c, DT_F32, y)));
  return put_row(c, find_row(EX_TMOD, t), x, y);
}

/* The remainder of floor division has the divisor's sign. */
static Expr *expand_mod(Ctx *c, Expr *x, Expr *y) {
  Expr *r = expand_tmod(c, x, y), *zero = ex_const(c, (DType)x->dtype, 0);
  Expr *differ = ex_binary(c, EX_NE, ex_lt(c, r, zero), ex_lt(c, y, zero));
  return ex_select(c, ex_and(c, ex_binary(c, EX_NE, r, zero), differ), ex_add(c, r, y), r);
}

/* ---- expressions and statements ---- */

/* For erf and tanh, whose relative error is no larger than that of what they are given: a product costs much less than a quotient. */
static Expr *without_quotient(Ctx *c, Expr *x) {
  if (x->op != EX_DIV || !ex_is_const(x->a[1])) return x;
  return ex_mul(c, x->a[0], ex_const(c, (DType)x->dtype, 1 / x->a[1]->u.f));
}

static Expr *expand(Ctx *c, Expr *e, void *user) {
  DType t = (DType)e->dtype;
  bool division = dtype_is_float(t) && (e->op == EX_TMOD || e->op == EX_MOD || e->op == EX_TDIV);
  if (e->op != EX_POW && e->op < EX_EXP && !division) return e;
  *(bool *)user = true;
  switch (e->op) {
  case EX_POW: return expand_pow(c, e->a[0], e->a[1]);
  case EX_TMOD: return expand_tmod(c, e->a[0], e->a[1]);
  case EX_MOD: return expand_mod(c, e->a[0], e->a[1]);
  case EX_TDIV: return ex_unary(c, EX_TRUNC, ex_div(c, e->a[0], e->a[1]));
  default: break;
  }
  const char *row = find_row((ExprOp)e->op, t);
  if (row) return put_row(c, row, e->op == EX_ERF || e->op == EX_TANH ? without_quotient(c, e->a[0]) : e->a[0], NULL);
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
