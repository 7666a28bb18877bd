/* expr_eval.c - the meaning of every scalar operation, once: for constant folding, the interpreter and the tests. */
#include "expr_impl.h"
#include <math.h>
#include <stdlib.h>

/* ---- values of a type ---- */
int64_t scalar_wrap(DType t, int64_t v) {
  switch (t) {
  case DT_BOOL: return v != 0;
  case DT_I8: return (int8_t)v;
  case DT_U8: return (uint8_t)v;
  case DT_I16: return (int16_t)v;
  case DT_U16: return (uint16_t)v;
  case DT_I32: return (int32_t)v;
  case DT_U32: return (uint32_t)v;
  default: return v;
  }
}

double scalar_round(DType t, double v) {
  if (isnan(v)) return NAN;
  if (t == DT_F64) return v;
  if (t == DT_F32) return (float)v;
  uint16_t half;
  dtype_store_f(t, &half, v);
  return dtype_load_f(t, &half);
}

Scalar scalar_cast(DType to, DType from, Scalar v) {
  bool from_float = dtype_is_float(from), to_float = dtype_is_float(to);
  if (to == DT_BOOL) return (Scalar){.i = from_float ? v.f != 0 : v.i != 0};
  if (from_float && to_float) return (Scalar){.f = scalar_round(to, v.f)};
  if (!from_float && !to_float) return (Scalar){.i = scalar_wrap(to, v.i)};
  uint64_t place = 0;
  if (from_float) {
    dtype_store_f(to, &place, v.f);
    return (Scalar){.i = dtype_load_i(to, &place)};
  }
  if (to == DT_F32) return (Scalar){.f = from == DT_U64 ? (float)(uint64_t)v.i : (float)v.i};
  if (to == DT_F64) return (Scalar){.f = from == DT_U64 ? (double)(uint64_t)v.i : (double)v.i};
  /* To a half type in one rounding: bits that do not fit a double are kept as one sticky bit. */
  uint64_t u = from == DT_U64 || v.i >= 0 ? (uint64_t)v.i : -(uint64_t)v.i;
  if (u >> 53) u = u >> 11 << 11 | (uint64_t)((u & 2047) != 0) << 11;
  double d = (double)u;
  return (Scalar){.f = scalar_round(to, from != DT_U64 && v.i < 0 ? -d : d)};
}

/* ---- integers ---- */
static int64_t power_i(int64_t base, int64_t e, bool is_unsigned) {
  if (e < 0 && !is_unsigned) return base == 1 ? 1 : base == -1 ? (e & 1 ? -1 : 1) : 0;
  uint64_t r = 1, b = (uint64_t)base;
  for (uint64_t n = (uint64_t)e; n; n >>= 1, b *= b)
    if (n & 1) r *= b;
  return (int64_t)r;
}

static int64_t signed_div(int op, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return op == EX_DIV || op == EX_TDIV ? (int64_t)-(uint64_t)a : 0;
  switch (op) {
  case EX_DIV: return floor_div(a, b);
  case EX_MOD: return floor_mod(a, b);
  case EX_TDIV: return a / b;
  default: return a % b;
  }
}

static int64_t unsigned_div(int op, uint64_t a, uint64_t b) {
  if (b == 0) return 0;
  return (int64_t)(op == EX_DIV || op == EX_TDIV ? a / b : a % b);
}

static int64_t apply_int(const Expr *e, DType t, int64_t a, int64_t b, int64_t third) {
  bool wide = t == DT_U64;         /* the only type whose order is not that of int64_t */
  uint64_t ua = (uint64_t)a, ub = (uint64_t)b, width = (uint64_t)dtype_info[t].bits;
  bool less = wide ? ua < ub : a < b;
  switch (e->op) {
  case EX_ADD: return (int64_t)(ua + ub);
  case EX_SUB: return (int64_t)(ua - ub);
  case EX_MUL: return (int64_t)(ua * ub);
  case EX_FMA: return (int64_t)(ua * ub + (uint64_t)third);
  case EX_DIV: case EX_MOD: case EX_TDIV: case EX_TMOD:
    return wide ? unsigned_div(e->op, ua, ub) : signed_div(e->op, a, b);
  case EX_POW: return power_i(a, b, dtype_info[t].kind == 'u');
  case EX_MIN: return less ? a : b;
  case EX_MAX: return less ? b : a;
  case EX_NEG: return (int64_t)-ua;
  case EX_ABS: return wide || a >= 0 ? a : (int64_t)-ua;
  case EX_AND: return a & b;
  case EX_OR: return a | b;
  case EX_XOR: return a ^ b;
  case EX_NOT: return t == DT_BOOL ? !a : ~a;
  case EX_SHL: return ub >= width ? 0 : (int64_t)(ua << ub);
  case EX_SHR: return ub >= width ? 0 : wide ? (int64_t)(ua >> ub) : a >> ub;
  case EX_LT: return less;
  case EX_LE: return wide ? ua <= ub : a <= b;
  case EX_EQ: return a == b;
  case EX_NE: return a != b;
  default: abort();                /* the constructors admit no other */
  }
}

/* ---- floats: computed in double, rounded once to the type by the caller ---- */

/* a*b + c such that rounding it to at most 24 digits rounds the exact value rightly; a*b is exact in a double. */
static double fma_sticky(double a, double b, double c) {
  double p = a * b, s = p + c, part = s - p, error = (p - (s - part)) + (c - part);
  if (!isfinite(s) || error == 0 || isnan(error)) return s;
  uint64_t bits;
  memcpy(&bits, &s, 8);
  if (!(bits & 1)) bits += (error > 0) == (s > 0) ? 1 : -1;
  memcpy(&s, &bits, 8);
  return s;
}

static double min_f(double a, double b) {
  if (isnan(a) || isnan(b)) return NAN;
  return a < b ? a : b < a ? b : signbit(a) ? a : b;
}

static double mod_f(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static double apply_float(const Expr *e, DType t, double a, double b, double third) {
  switch (e->op) {
  case EX_ADD: return a + b;
  case EX_SUB: return a - b;
  case EX_MUL: return a * b;
  case EX_DIV: return a / b;
  case EX_MOD: return mod_f(a, b);
  case EX_TDIV: return trunc(scalar_round(t, a / b));
  case EX_TMOD: return fmod(a, b);
  case EX_POW: return pow(a, b);
  case EX_MIN: return min_f(a, b);
  case EX_MAX: return -min_f(-a, -b);
  case EX_FMA: return t == DT_F64 ? fma(a, b, third) : fma_sticky(a, b, third);
  case EX_NEG: return -a;
  case EX_ABS: return fabs(a);
  case EX_FLOOR: return floor(a);
  case EX_CEIL: return ceil(a);
  case EX_ROUND: return rint(a);
  case EX_TRUNC: return trunc(a);
  case EX_SQRT: return sqrt(a);
  case EX_EXP: return exp(a);
  case EX_LOG: return log(a);
  case EX_TANH: return tanh(a);
  case EX_ERF: return erf(a);
  case EX_SIGMOID: return 1 / (1 + exp(-a));
  case EX_SIN: return sin(a);
  case EX_COS: return cos(a);
  case EX_TAN: return tan(a);
  case EX_ASIN: return asin(a);
  case EX_ACOS: return acos(a);
  case EX_ATAN: return atan(a);
  case EX_SINH: return sinh(a);
  case EX_COSH: return cosh(a);
  case EX_ASINH: return asinh(a);
  case EX_ACOSH: return acosh(a);
  case EX_ATANH: return atanh(a);
  default: abort();                /* the constructors admit no other */
  }
}

static bool compare_f(int op, double a, double b) {
  return op == EX_LT ? a < b : op == EX_LE ? a <= b : op == EX_EQ ? a == b : a != b;
}

static Scalar bitcast(DType to, DType from, Scalar v) {
  uint64_t place = 0;
  if (dtype_is_float(from)) dtype_store_f(from, &place, v.f);
  else dtype_store_i(from, &place, v.i);
  if (dtype_is_float(to)) return (Scalar){.f = dtype_load_f(to, &place)};
  return (Scalar){.i = dtype_load_i(to, &place)};
}

Scalar expr_apply(const Expr *e, const Scalar *v) {
  DType t = (DType)e->dtype, from = e->n ? (DType)e->a[0]->dtype : t;
  switch (e->op) {
  case EX_CONST: return dtype_is_float(t) ? (Scalar){.f = e->u.f} : (Scalar){.i = e->u.i};
  case EX_SELECT: return v[v[0].i ? 1 : 2];
  case EX_CAST: return scalar_cast(t, from, v[0]);
  case EX_BITCAST: return bitcast(t, from, v[0]);
  default: break;
  }
  if (dtype_is_float(from)) {
    if (t == DT_BOOL) return (Scalar){.i = compare_f(e->op, v[0].f, v[1].f)};
    return (Scalar){.f = scalar_round(t, apply_float(e, t, v[0].f, e->n > 1 ? v[1].f : 0, e->n > 2 ? v[2].f : 0))};
  }
  return (Scalar){.i = scalar_wrap(t, apply_int(e, from, v[0].i, e->n > 1 ? v[1].i : 0, e->n > 2 ? v[2].i : 0))};
}

/* ---- whole expressions ---- */

/* Values of the axes of the reductions being evaluated. */
typedef struct Bound { struct Bound *outer; const Sym *sym; int64_t value; } Bound;

/* Values found so far, where an expression shares so much that evaluating it as a tree would not end. */
typedef struct { const Expr **node; Scalar *value; uint32_t n, cap; } Memo;

typedef struct { ExprEnv *env; Bound *bound; Memo *memo; } Eval;

enum { TREE_LIMIT = 4096 };

static uint32_t memo_at(const Memo *m, const Expr *e) {
  uint32_t at = (uint32_t)mix64(e->id) & (m->cap - 1);
  while (m->node[at] && m->node[at] != e) at = (at + 1) & (m->cap - 1);
  return at;
}

static void memo_init(Memo *m, uint32_t cap) {
  *m = (Memo){calloc(cap, sizeof(Expr *)), calloc(cap, sizeof(Scalar)), 0, cap};
  if (!m->node || !m->value) abort();
}

static void memo_free(Memo *m) {
  free(m->node);
  free(m->value);
}

static void memo_set(Memo *m, const Expr *e, Scalar v) {
  if (2 * (m->n + 1) > m->cap) {
    Memo bigger;
    memo_init(&bigger, m->cap * 2);
    for (uint32_t i = 0; i < m->cap; i++)
      if (m->node[i]) memo_set(&bigger, m->node[i], m->value[i]);
    memo_free(m);
    *m = bigger;
  }
  uint32_t at = memo_at(m, e);
  if (!m->node[at]) m->n++;
  m->node[at] = e;
  m->value[at] = v;
}

static Scalar eval(Eval *ev, const Expr *e);

static Scalar eval_sym(Eval *ev, const Sym *s) {
  for (Bound *b = ev->bound; b; b = b->outer)
    if (b->sym == s) return (Scalar){.i = b->value};
  return ev->env->sym(ev->env, s);
}

static Scalar eval_load(Eval *ev, const Expr *e) {
  int64_t few[16] = {0}, *index = e->n <= COUNT(few) ? few : calloc(e->n, sizeof *index);
  if (!index) abort();
  for (int i = 0; i < e->n; i++) index[i] = eval(ev, e->a[i]).i;
  Scalar v = ev->env->load(ev->env, e, index);
  if (index != few) free(index);
  return v;
}

/* What combining two elements means: the operation of the combiner on the type of the reduction. */
static Scalar combine(const Expr *e, Scalar a, Scalar b) {
  static const ExprOp ops[RED_COUNT] = {EX_ADD, EX_MUL, EX_MIN, EX_MAX, EX_AND, EX_OR};
  Expr node = {.op = ops[e->u.i], .dtype = e->dtype};
  DType t = (DType)e->dtype;
  if (dtype_is_float(t)) return (Scalar){.f = scalar_round(t, apply_float(&node, t, a.f, b.f, 0))};
  return (Scalar){.i = scalar_wrap(t, apply_int(&node, t, a.i, b.i, 0))};
}

Scalar combiner_start(Combiner how, DType t) {
  bool is_signed = dtype_info[t].kind == 'i', is_float = dtype_is_float(t);
  int64_t max = t == DT_BOOL ? 1 : (int64_t)(UINT64_MAX >> (64 - dtype_info[t].bits + is_signed));
  switch (how) {
  case RED_PROD: return is_float ? (Scalar){.f = 1} : (Scalar){.i = 1};
  case RED_AND: return (Scalar){.i = t == DT_BOOL ? 1 : scalar_wrap(t, -1)};
  case RED_MIN: return is_float ? (Scalar){.f = INFINITY} : (Scalar){.i = max};
  case RED_MAX: return is_float ? (Scalar){.f = -INFINITY} : (Scalar){.i = is_signed ? -max - 1 : 0};
  default: return is_float ? (Scalar){.f = 0} : (Scalar){.i = 0};
  }
}

static Scalar eval_axes(Eval *ev, const Expr *e, int axis, Scalar so_far) {
  if (axis == e->n) {
    Memo *outer = ev->memo, inner; /* what depends on the axes must be found anew */
    if (outer && e->a[0]->size > TREE_LIMIT) {
      memo_init(&inner, 256);
      ev->memo = &inner;
    } else {
      ev->memo = NULL;
    }
    Scalar v = combine(e, so_far, eval(ev, e->a[0]));
    if (ev->memo) memo_free(ev->memo);
    ev->memo = outer;
    return v;
  }
  const Sym *s = e->a[axis]->u.sym;
  Memo *memo = ev->memo;
  ev->memo = NULL;                 /* an extent may depend on the axes before it */
  int64_t end = s->extent ? eval(ev, s->extent).i : s->max + 1;
  ev->memo = memo;
  Bound b = {ev->bound, s, 0};
  ev->bound = &b;
  for (b.value = s->min; b.value < end; b.value++) so_far = eval_axes(ev, e, axis + 1, so_far);
  ev->bound = b.outer;
  return so_far;
}

static Scalar eval_node(Eval *ev, const Expr *e) {
  switch (e->op) {
  case EX_CONST: return expr_apply(e, NULL);
  case EX_SYM: return eval_sym(ev, e->u.sym);
  case EX_LOAD: case EX_FETCH: return eval_load(ev, e);
  case EX_REDUCE: return eval_axes(ev, e, 1, combiner_start((Combiner)e->u.i, (DType)e->dtype));
  case EX_SELECT: return eval(ev, e->a[eval(ev, e->a[0]).i ? 1 : 2]);
  default: {
    Scalar v[3];
    for (int i = 0; i < e->n; i++) v[i] = eval(ev, e->a[i]);
    return expr_apply(e, v);
  }
  }
}

static Scalar eval(Eval *ev, const Expr *e) {
  if (!ev->memo || e->n == 0) return eval_node(ev, e);
  uint32_t at = memo_at(ev->memo, e);
  if (ev->memo->node[at]) return ev->memo->value[at];
  Scalar v = eval_node(ev, e);
  memo_set(ev->memo, e, v);
  return v;
}

Scalar expr_eval(ExprEnv *env, const Expr *e) {
  Memo memo;
  bool shared = e->size > TREE_LIMIT;
  if (shared) memo_init(&memo, 1024);
  Eval ev = {env, NULL, shared ? &memo : NULL};
  Scalar v = eval(&ev, e);
  if (shared) memo_free(&memo);
  return v;
}
