/* expr_div.c - floor division and remainder of sums.
 *
 * n / d and n % d take out of n what is a multiple of d; for the rest r:
 *   0 <= r < d                    n/d = q            n%d = r
 *   r = g*a + b, 0 <= b < g, g|d  n/d = q + a/(d/g)  n%d = (a % (d/g))*g + b
 * so that an index composed of several is taken apart again; d may be symbolic (positive), g a part of its factors.
 * Both operations split n in the same way, which lets expr_lin.c put d*(n/d) + n%d together again. */
#include "expr_impl.h"

typedef struct {
  Ctx *c;
  DType t;
  bool mod, index;
  Expr *d;
  Mono dm;                         /* d as coefficient and factors */
  Lin q, r;                        /* n = q*d + r */
} Division;

static Expr *zero_of(Ctx *c, DType t) { return ex_const_i(c, t, 0); }

/* The sum of the magnitudes that the terms can have stays in the type: taking the sum apart wraps nowhere. */
static bool cannot_wrap(Ctx *c, const Lin *l) {
  Range all = range_of_type(l->t);
  int64_t total = l->k < 0 ? -(l->k + 1) : l->k;
  for (int i = 0; i < l->n; i++) {
    Range r = expr_range(c, l->term[i].core);
    int64_t size;
    if (r.min == INT64_MIN || r.max == INT64_MAX) return false;
    size = MAX(r.max, r.min < 0 ? -r.min : r.min);
    int64_t coef = l->term[i].coef;
    if (coef == INT64_MIN || !mul_ok(size, coef < 0 ? -coef : coef, &size) || !add_ok(total, size, &total))
      return false;
    if (coef < 0 && all.min == 0) return false;
  }
  return total < all.max;
}

/* d as a coefficient times factors; a sum of several terms is one factor, without common divisor. */
static Mono divisor_of(Ctx *c, Expr *d) {
  if (d->op != EX_ADD) return mono_of(d, 1);
  Mono one = mono_of(ex_mul(c, d, d), 1);        /* its form as a factor is what products make of it */
  Mono m = {.coef = 1, .n = 1, .f = {d}};
  if (one.n == 2 && one.f[0] == one.f[1] && one.f[0]->op == EX_ADD) {
    Lin whole = lin_of(d), part = lin_of(one.f[0]);
    int64_t by = part.n ? part.term[0].coef : 0;
    if (by && whole.n == part.n && whole.term[0].core == part.term[0].core && whole.term[0].coef % by == 0) {
      m.coef = whole.term[0].coef / by;
      m.f[0] = one.f[0];
    }
  }
  return m;
}

/* coef*core / d, where d is constant and divides the value: an atom. */
static Expr *exact_quotient(Ctx *c, DType t, Expr *core, int64_t coef, int64_t d) {
  int64_t g = int_gcd(coef, d);
  coef /= g, d /= g;
  if (d == 1) return ex_mul(c, core, ex_const_i(c, t, coef));
  int64_t both;                                              /* (x/a) / d is x / (a*d) */
  if (coef == 1 && core->op == EX_DIV && ex_is_const(core->a[1]) && core->a[1]->u.i > 0 && mul_ok(core->a[1]->u.i, d, &both) &&
      both <= INT32_MAX)
    return ex_div(c, core->a[0], ex_const_i(c, t, both));
  Expr *n = coef == 1 ? core : expr_raw2(c, EX_MUL, t, core, ex_const_i(c, t, coef));
  return expr_raw2(c, EX_DIV, t, n, ex_const_i(c, t, d));
}

/* Where d is itself a sum, n may contain it term by term. */
static void take_out_sum(Division *v) {
  Lin d = lin_of(v->d);
  if (d.over || d.n + (d.k != 0) < 2) return;
  int64_t times = 0;
  for (int i = 0; i < d.n; i++) {
    int64_t have = 0;
    for (int j = 0; j < v->r.n; j++)
      if (v->r.term[j].core == d.term[i].core) have = v->r.term[j].coef;
    if (d.term[i].coef == 0 || have % d.term[i].coef) return;
    if (i > 0 && have / d.term[i].coef != times) return;
    times = have / d.term[i].coef;
  }
  if (times == 0) return;
  lin_add(&v->r, v->d, -times);
  v->q.k += times;
}

static void split(Division *v, const Lin *n) {
  Ctx *c = v->c;
  for (int i = 0; i < n->n; i++) {
    Expr *core = n->term[i].core;
    int64_t coef = n->term[i].coef, dc = v->dm.coef;
    Mono m = mono_of(core, 1), rest;
    if (!mono_divides(&v->dm, &m, &rest)) {
      lin_add_core(&v->r, core, coef);
      continue;
    }
    int64_t left = coef % dc, product;
    int64_t multiple = v->dm.n || left == 0 ? 1 : expr_range(c, core).multiple;
    if (left && mul_ok(left, multiple, &product) && product % dc == 0) {
      if (!v->mod) lin_add(&v->q, exact_quotient(c, v->t, core, coef, dc), 1);
      continue;
    }
    rest.coef = coef / dc;
    if (rest.coef && !v->mod) lin_add(&v->q, mono_build(c, v->t, &rest), 1);
    if (left) lin_add_core(&v->r, core, left);
  }
  v->r.k = n->k;
  if (v->dm.n == 0) {
    v->q.k += floor_div(n->k, v->dm.coef);
    v->r.k = floor_mod(n->k, v->dm.coef);
  } else {
    if (v->index) take_out_sum(v);
  }
}

static bool is_within(Ctx *c, Expr *e, Expr *end) {         /* 0 <= e < end */
  Range r = expr_range(c, e), re = expr_range(c, end);
  if (r.max < 0 || r.min >= re.max) return false;
  if (r.min < 0 && !prove_le(c, zero_of(c, (DType)e->dtype), e, 0)) return false;
  return r.max < re.min || prove_le(c, e, end, 1);
}

/* The rest lies in one period of d: nothing is left to divide. */
static bool settle(Division *v, Expr *r) {
  Ctx *c = v->c;
  Range rr = expr_range(c, r);
  if (v->dm.n == 0 && rr.min != INT64_MIN && rr.max != INT64_MAX) {
    int64_t d = v->dm.coef, period = floor_div(rr.min, d);
    if (period != floor_div(rr.max, d)) return false;
    v->q.k += period;
    v->r.k -= period * d;
    return true;
  }
  if (is_within(c, r, v->d)) return true;
  if (v->index && rr.max < 0 && prove_le(c, ex_sub(c, zero_of(c, v->t), v->d), r, 0)) {
    v->q.k -= 1;
    lin_add(&v->r, v->d, 1);
    return true;
  }
  return false;
}

static Expr *result(Division *v, Expr *quotient_of_rest, Expr *rest) {
  if (v->mod) return rest;
  if (quotient_of_rest) lin_add(&v->q, quotient_of_rest, 1);
  return v->q.over ? NULL : lin_build(v->c, &v->q);
}

static Mono common_factor(const Mono *a, const Mono *b) {
  Mono g = {.coef = int_gcd(a->coef, b->coef)};
  for (int i = 0, j = 0; i < a->n && j < b->n;) {
    if (a->f[i] == b->f[j]) g.f[g.n++] = a->f[i], i++, j++;
    else if (a->f[i]->id < b->f[j]->id) i++;
    else j++;
  }
  return g;
}

/* r = g*a + b with 0 <= b < g: goes on with a over d/g. NULL if b is not in range. */
static Expr *divide_by_part(Division *v, const Mono *g) {
  Ctx *c = v->c;
  Lin a = {.t = v->t}, b = {.t = v->t};
  for (int i = 0; i < v->r.n; i++) {
    Mono m = mono_of(v->r.term[i].core, v->r.term[i].coef), part;
    if (m.coef % g->coef == 0 && mono_divides(g, &m, &part)) {
      part.coef = m.coef / g->coef;
      lin_add(&a, mono_build(c, v->t, &part), 1);
    } else {
      lin_add_core(&b, v->r.term[i].core, v->r.term[i].coef);
    }
  }
  b.k = v->r.k;
  if (a.n == 0) return NULL;
  Expr *ge = mono_build(c, v->t, g);
  if (g->n == 0) {
    Lin copy = b;
    Range rb = expr_range(c, lin_build(c, &copy));
    if (rb.min == INT64_MIN || rb.max == INT64_MAX || floor_div(rb.min, g->coef) != floor_div(rb.max, g->coef))
      return NULL;
    a.k = floor_div(rb.min, g->coef);
    b.k -= a.k * g->coef;
  } else {
    Lin copy = b;
    if (!is_within(c, lin_build(c, &copy), ge)) return NULL;
  }
  Mono dg;
  mono_divides(g, &v->dm, &dg);
  dg.coef /= g->coef;
  Expr *ae = lin_build(c, &a), *de = mono_build(c, v->t, &dg);
  if (!v->mod) return result(v, ex_div(c, ae, de), NULL);
  return ex_add(c, ex_mul(c, ex_mod(c, ae, de), ge), lin_build(c, &b));
}

static Expr *try_parts(Division *v) {
  for (int i = 0; i < v->r.n; i++) {
    Mono m = mono_of(v->r.term[i].core, v->r.term[i].coef);
    if (m.n < 0 || v->dm.n < 0 || m.coef == INT64_MIN) continue;
    Mono g = common_factor(&m, &v->dm);
    bool whole = g.coef == v->dm.coef && g.n == v->dm.n;
    if (whole || (g.coef == 1 && g.n == 0)) continue;
    if (g.n && g.coef > 0 && expr_range(v->c, mono_build(v->c, v->t, &g)).min < 1) continue;
    Expr *e = divide_by_part(v, &g);
    if (e) return e;
  }
  return NULL;
}

/* Divisions and remainders within the rest, d positive:
 *   (x/a + k) / d  is  (x + a*k) / (a*d);   (x % e) / d, d|e  is  (x/d) % (e/d);   (x%e + y) % d, d|e  is  (x+y) % d */
static Expr *nested(Division *v) {
  Ctx *c = v->c;
  if (v->mod) {
    Lin r = {.t = v->t, .k = v->r.k};
    bool found = false;
    for (int i = 0; i < v->r.n; i++) {
      Expr *core = v->r.term[i].core;
      bool fits = core->op == EX_MOD && v->index && expr_range(c, core->a[1]).min >= 1;
      Mono e = fits ? divisor_of(c, core->a[1]) : (Mono){.n = -1}, part;
      bool inside = e.n >= 0 && e.coef % v->dm.coef == 0 && mono_divides(&v->dm, &e, &part);
      lin_add(&r, inside ? core->a[0] : core, v->r.term[i].coef);
      found |= inside;
    }
    return found && !r.over ? ex_mod(c, lin_build(c, &r), v->d) : NULL;
  }
  if (v->r.n != 1 || v->r.term[0].coef != 1) return NULL;
  Expr *core = v->r.term[0].core;
  if (core->op == EX_DIV && (v->index || (v->r.k == 0 && ex_is_const(core->a[1]) && ex_is_const(v->d)))) {
    Expr *a = core->a[1];
    int64_t da;
    if (expr_range(c, a).min < 1) return NULL;
    if (!v->index && (!mul_ok(a->u.i, v->d->u.i, &da) || da > range_of_type(v->t).max)) return NULL;
    Expr *n = ex_add(c, core->a[0], ex_mul(c, a, ex_const_i(c, v->t, v->r.k)));
    return result(v, ex_div(c, n, ex_mul(c, a, v->d)), NULL);
  }
  if (core->op == EX_MOD && v->r.k == 0) {
    Mono e = divisor_of(c, core->a[1]), part;
    if (e.n < 0 || expr_range(c, core->a[1]).min < 1 || e.coef % v->dm.coef || !mono_divides(&v->dm, &e, &part))
      return NULL;
    part.coef = e.coef / v->dm.coef;
    return result(v, ex_mod(c, ex_div(c, core->a[0], v->d), mono_build(c, v->t, &part)), NULL);
  }
  return NULL;
}

/* Without a positive divisor, or where n may wrap. */
static Expr *divide_plain(Ctx *c, Expr *n, Expr *d, bool mod) {
  DType t = (DType)n->dtype;
  if (ex_is_const(d) && !mod && t != DT_U64 && d->u.i == -1) return lin_sum(c, zero_of(c, t), n, -1);
  Range rn = expr_range(c, n), rd = expr_range(c, d);
  if (rn.min >= 0 && rn.max < rd.min) return mod ? n : zero_of(c, t);
  return expr_raw2(c, mod ? EX_MOD : EX_DIV, t, n, d);
}

Expr *lin_divmod(Ctx *c, Expr *n, Expr *d, bool mod) {
  DType t = (DType)n->dtype;
  if (ex_equals_int(n, 0) || ex_equals_int(d, 0)) return zero_of(c, t);
  if (ex_equals_int(d, 1)) return mod ? zero_of(c, t) : n;
  Division v = {.c = c, .t = t, .mod = mod, .d = d, .q = {.t = t}, .r = {.t = t}};
  v.index = n->flags & d->flags & EXPR_INDEX;
  Lin sum = lin_of(n);
  if (expr_range(c, d).min < 1 || sum.over || (!v.index && !cannot_wrap(c, &sum))) return divide_plain(c, n, d, mod);
  if (n == d) return mod ? zero_of(c, t) : ex_const_i(c, t, 1);
  v.dm = divisor_of(c, d);
  if (v.dm.n < 0 || v.dm.coef == 0) return divide_plain(c, n, d, mod);
  if (v.dm.coef < 0) v.dm = (Mono){.coef = 1, .n = 1, .f = {d}};
  split(&v, &sum);
  if (v.r.over || v.q.over) return divide_plain(c, n, d, mod);
  Lin copy = v.r;
  Expr *r = lin_build(c, &copy);
  v.r = copy;
  if (settle(&v, r)) return result(&v, NULL, lin_build(c, &v.r));
  Expr *e = nested(&v);
  if (!e) e = try_parts(&v);
  if (e) return e;
  if (mod) return expr_raw2(c, EX_MOD, t, r, d);
  e = result(&v, expr_raw2(c, EX_DIV, t, r, d), NULL);
  return e ? e : divide_plain(c, n, d, mod);
}
