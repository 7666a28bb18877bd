/* expr_range.c - intervals and multiples of integer expressions by structure.
 *
 * INT64_MIN and INT64_MAX stand for "no bound". Index arithmetic (EXPR_INDEX) saturates; arithmetic on data wraps, so
 * that a result that might leave its type is known to be in the type and nothing more. */
#include "expr_impl.h"

static bool unbounded(int64_t v) { return v == INT64_MIN || v == INT64_MAX; }

static int64_t add_sat(int64_t a, int64_t b) {
  int64_t r;
  if (unbounded(a)) return a;
  if (unbounded(b)) return b;
  return add_ok(a, b, &r) ? r : a < 0 ? INT64_MIN : INT64_MAX;
}

static int64_t mul_sat(int64_t a, int64_t b) {
  int64_t r;
  if (a == 0 || b == 0) return 0;
  bool negative = (a < 0) != (b < 0);
  if (unbounded(a) || unbounded(b)) return negative ? INT64_MIN : INT64_MAX;
  return mul_ok(a, b, &r) ? r : negative ? INT64_MIN : INT64_MAX;
}

static int64_t div_sat(int64_t a, int64_t b) {              /* b >= 1 */
  if (unbounded(a)) return b == INT64_MAX && a < 0 ? -1 : a;
  return b == INT64_MAX ? (a < 0 ? -1 : 0) : floor_div(a, b);
}

Range range_of_type(DType t) {
  int bits = dtype_info[t].bits;
  if (t == DT_BOOL) return (Range){0, 1, 1};
  if (dtype_info[t].kind == 'u') return (Range){0, bits == 64 ? INT64_MAX : (int64_t)(UINT64_MAX >> (64 - bits)), 1};
  int64_t max = (int64_t)(UINT64_MAX >> (65 - bits));
  return (Range){-max - 1, max, 1};
}

/* r as the range of e: data that may wrap is anywhere. */
static Range fit(const Expr *e, Range r) {
  Range all = range_of_type((DType)e->dtype);
  bool may_wrap = e->op == EX_ADD || e->op == EX_MUL || e->op == EX_SHL || e->op == EX_ABS;
  if (e->flags & EXPR_INDEX || !may_wrap) return r;
  bool known = dtype_info[e->dtype].bits < 64 || (!unbounded(r.min) && !unbounded(r.max));
  bool fits = known && r.min >= all.min && r.max <= all.max;
  return fits ? r : all;
}

static Range range_add(Range a, Range b) {
  int64_t lo = a.min == INT64_MIN || b.min == INT64_MIN ? INT64_MIN : add_sat(a.min, b.min);
  int64_t hi = a.max == INT64_MAX || b.max == INT64_MAX ? INT64_MAX : add_sat(a.max, b.max);
  return (Range){lo, hi, int_gcd(a.multiple, b.multiple)};
}

static Range range_mul(Range a, Range b) {
  int64_t v[4] = {mul_sat(a.min, b.min), mul_sat(a.min, b.max), mul_sat(a.max, b.min), mul_sat(a.max, b.max)};
  Range r = {v[0], v[0], 1};
  for (int i = 1; i < 4; i++) r.min = MIN(r.min, v[i]), r.max = MAX(r.max, v[i]);
  if (!mul_ok(a.multiple, b.multiple, &r.multiple)) r.multiple = MAX(a.multiple, b.multiple);
  return r;
}

static Range range_div(Range a, Range b) {                  /* b.min >= 1 */
  Range r = {div_sat(a.min, a.min < 0 ? b.min : b.max), div_sat(a.max, a.max < 0 ? b.max : b.min), 1};
  if (b.min == b.max && a.multiple % b.min == 0) r.multiple = a.multiple / b.min;
  return r;
}

static Range range_mod(Range a, Range b) {                  /* b.min >= 1 */
  int64_t top = b.max == INT64_MAX ? b.max : b.max - 1;
  Range r = {0, a.min >= 0 ? MIN(a.max, top) : top, 1};
  if (b.min == b.max) r.multiple = int_gcd(a.multiple, b.min);
  return r;
}

static Range range_tdivmod(const Expr *e, Range a, Range b) {
  bool mod = e->op == EX_TMOD;
  if (b.min < 1) return range_of_type((DType)e->dtype);
  if (a.min >= 0) return mod ? range_mod(a, b) : range_div(a, b);
  if (mod) {
    int64_t top = b.max == INT64_MAX ? b.max : b.max - 1;
    int64_t down = a.min == INT64_MIN ? -top : MAX(a.min, -top);
    return (Range){down, a.max <= 0 ? 0 : MIN(a.max, top), 1};
  }
  int64_t lo = unbounded(a.min) ? a.min : a.min / b.min;
  int64_t hi = unbounded(a.max) ? a.max : a.max / (a.max < 0 ? b.max : b.min);
  return (Range){lo, hi, 1};
}

static int64_t ones_to_top(int64_t v) { return v <= 0 ? 0 : (int64_t)(UINT64_MAX >> __builtin_clzll((uint64_t)v)); }

static Range range_bits(const Expr *e, Range a, Range b) {
  if (e->dtype == DT_BOOL || a.min < 0 || b.min < 0) {
    if (e->op == EX_AND && e->dtype != DT_BOOL && (a.min >= 0 || b.min >= 0))
      return (Range){0, a.min >= 0 ? a.max : b.max, 1};
    return range_of_type((DType)e->dtype);
  }
  if (e->op == EX_AND) return (Range){0, MIN(a.max, b.max), 1};
  return (Range){0, ones_to_top(MAX(a.max, b.max)), 1};
}

static Range range_shift(const Expr *e, Range a, Range b) {
  int width = dtype_info[e->dtype].bits;
  if (b.min != b.max || b.min < 0 || b.min >= width || b.min > 62) return range_of_type((DType)e->dtype);
  int64_t power = (int64_t)1 << b.min;
  Range p = {power, power, power};
  return e->op == EX_SHL ? range_mul(a, p) : range_div(a, p);
}

static Range range_join(Range a, Range b) {
  return (Range){MIN(a.min, b.min), MAX(a.max, b.max), int_gcd(a.multiple, b.multiple)};
}

static Range range_sym(Ctx *c, const Sym *s) {
  Range r = {s->min, s->max, MAX(s->multiple, 1)};
  if (s->extent) {
    int64_t end = expr_range(c, s->extent).max;
    if (end != INT64_MAX) r.max = MIN(r.max, MAX(end, 1) - 1);
  }
  if (r.min == r.max) r.multiple = r.min == INT64_MIN ? 1 : r.min < 0 ? -r.min : r.min;
  return r;
}

static Range range_cast(Ctx *c, const Expr *e) {
  Range all = range_of_type((DType)e->dtype);
  if (dtype_is_float((DType)e->a[0]->dtype)) return all;
  if (e->dtype == DT_BOOL) return all;
  Range r = expr_range(c, e->a[0]);
  if (e->dtype == DT_U64 && r.min < 0) return all;
  if (e->a[0]->dtype == DT_U64 && r.max == INT64_MAX) return all;
  return r.min >= all.min && r.max <= all.max ? r : all;
}

static Range range_reduce(Ctx *c, const Expr *e) {
  Range r = expr_range(c, e->a[0]), all = range_of_type((DType)e->dtype);
  if (e->u.i != RED_MIN && e->u.i != RED_MAX) return all;
  for (int i = 1; i < e->n; i++) {
    const Sym *s = e->a[i]->u.sym;
    if (s->extent && expr_range(c, s->extent).min < 1) return all;
  }
  return r;
}

static Range range_find(Ctx *c, const Expr *e) {
  Range all = range_of_type((DType)e->dtype), a = all, b = all;
  if (e->op == EX_CONST) {
    if (e->dtype == DT_U64 && e->u.i < 0) return (Range){INT64_MAX, INT64_MAX, 1};
    return (Range){e->u.i, e->u.i, e->u.i == INT64_MIN ? 1 : e->u.i < 0 ? -e->u.i : e->u.i};
  }
  if (e->op == EX_SYM) return range_sym(c, e->u.sym);
  if (e->op == EX_CAST) return range_cast(c, e);
  if (e->op == EX_REDUCE) return range_reduce(c, e);
  if (e->op == EX_SELECT) return range_join(expr_range(c, e->a[1]), expr_range(c, e->a[2]));
  if (e->op == EX_LOAD || e->op == EX_FETCH || e->op == EX_BITCAST || e->dtype == DT_BOOL) return all;
  a = expr_range(c, e->a[0]);
  if (e->n > 1) b = expr_range(c, e->a[1]);
  switch (e->op) {
  case EX_ADD: return range_add(a, b);
  case EX_MUL: return range_mul(a, b);
  case EX_DIV: return b.min >= 1 ? range_div(a, b) : all;
  case EX_MOD: return b.min >= 1 ? range_mod(a, b) : all;
  case EX_TDIV: case EX_TMOD: return range_tdivmod(e, a, b);
  case EX_MIN: return (Range){MIN(a.min, b.min), MIN(a.max, b.max), int_gcd(a.multiple, b.multiple)};
  case EX_MAX: return (Range){MAX(a.min, b.min), MAX(a.max, b.max), int_gcd(a.multiple, b.multiple)};
  case EX_ABS: {
    int64_t lo = a.min > 0 ? a.min : a.max < 0 ? mul_sat(a.max, -1) : 0;
    return (Range){lo, MAX(mul_sat(a.min, -1), a.max), a.multiple};
  }
  case EX_AND: case EX_OR: case EX_XOR: return range_bits(e, a, b);
  case EX_SHL: case EX_SHR: return range_shift(e, a, b);
  default: return all;
  }
}

Range expr_range(Ctx *c, const Expr *e) {
  if (dtype_is_float((DType)e->dtype)) diag_bug(c, "the range of a %s expression", dtype_info[e->dtype].name);
  while ((uint32_t)c->ranges.n <= e->id) vec_push(c, &c->ranges, NULL);
  if (c->ranges.v[e->id]) return *c->ranges.v[e->id];
  Range r = fit(e, range_find(c, e));
  Range *known = ctx_copy(c, &r, sizeof r);
  while ((uint32_t)c->ranges.n <= e->id) vec_push(c, &c->ranges, NULL);
  c->ranges.v[e->id] = known;
  return r;
}

bool expr_proves(Ctx *c, Expr *cond) {
  if (cond->dtype != DT_BOOL)
    diag_bug(c, "a proof of %s, which is %s", expr_text(c, cond), dtype_info[cond->dtype].name);
  if (ex_is_const(cond)) return cond->u.i;
  if (cond->op == EX_AND) return expr_proves(c, cond->a[0]) && expr_proves(c, cond->a[1]);
  if (cond->op == EX_OR) return expr_proves(c, cond->a[0]) || expr_proves(c, cond->a[1]);
  return false;                    /* the constructors have resolved every comparison that expr_prove.c can */
}
