/* expr_lin.c - integer sums and products in canonical form, so that equal arithmetic is one pointer and addresses
 * cancel.
 *
 * Everything here is exact modulo 2^width, so it holds for data that wraps as well as for indices. What is only worth
 * it for indices (distributing a product over a sum) is done for EXPR_INDEX alone. */
#include "expr_impl.h"

int64_t int_gcd(int64_t a, int64_t b) {
  uint64_t x = a < 0 ? -(uint64_t)a : (uint64_t)a, y = b < 0 ? -(uint64_t)b : (uint64_t)b;
  while (y) {
    uint64_t r = x % y;
    x = y, y = r;
  }
  return x > INT64_MAX ? 1 : (int64_t)x;
}


static int64_t wrap_mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

/* ---- sums ---- */
void lin_add_core(Lin *l, Expr *core, int64_t coef) {
  for (int i = 0; i < l->n; i++)
    if (l->term[i].core == core) {
      l->term[i].coef = scalar_wrap(l->t, wrap_add(l->term[i].coef, coef));
      return;
    }
  if (l->n == LIN_MAX) l->over = true;
  else l->term[l->n++] = (Term){core, scalar_wrap(l->t, coef)};
}

void lin_add(Lin *l, Expr *e, int64_t scale) {
  if (l->over) return;
  bool constant_factor = e->op == EX_MUL && ex_is_const(e->a[1]);
  if (e->op == EX_CONST) {
    l->k = scalar_wrap(l->t, wrap_add(l->k, wrap_mul(scale, e->u.i)));
  } else if (e->op == EX_ADD && (scale == 1 || scale == -1 || e->flags & EXPR_INDEX)) {
    lin_add(l, e->a[0], scale);
    lin_add(l, e->a[1], scale);
  } else if (constant_factor) {
    lin_add_core(l, e->a[0], wrap_mul(scale, e->a[1]->u.i));
  } else {
    lin_add_core(l, e, scale);
  }
}

Lin lin_of(Expr *e) {
  Lin l = {.t = (DType)e->dtype};
  lin_add(&l, e, 1);
  return l;
}

static int find_core(const Lin *l, const Expr *core) {
  for (int i = 0; i < l->n; i++)
    if (l->term[i].core == core) return i;
  return -1;
}

static void drop_zeros(Lin *l) {
  int n = 0;
  for (int i = 0; i < l->n; i++)
    if (l->term[i].coef) l->term[n++] = l->term[i];
  l->n = n;
}

/* If product e is one term of l, with `scale` times its coefficient there: its number. */
static int find_term(const Lin *l, Expr *e, int64_t scale) {
  Lin one = lin_of(e);
  if (one.over || one.n != 1 || one.k) return -1;
  int at = find_core(l, one.term[0].core);
  return at >= 0 && l->term[at].coef == scalar_wrap(l->t, wrap_mul(scale, one.term[0].coef)) ? at : -1;
}

/* t*(m % e) + t*e*(m / e)  is  t*m;   t*(m % e) + t*e*((m / e) % b)  is  t*(m % (e*b)). */
static bool join_mod(Ctx *c, Lin *l, int i) {
  Expr *mod = l->term[i].core, *m = mod->a[0], *e = mod->a[1];
  int64_t t = l->term[i].coef;
  Range r = expr_range(c, e);
  if (r.min < 1) return false;
  Expr *quotient = ex_div(c, m, e);
  int at = find_term(l, ex_mul(c, quotient, e), t);
  if (at >= 0 && at != i) {
    l->term[i].coef = l->term[at].coef = 0;
    lin_add(l, m, t);
    return true;
  }
  for (int j = 0; j < l->n; j++) {
    Mono p = mono_of(l->term[j].core, 1);
    for (int f = 0; f < p.n; f++) {
      Expr *inner = p.f[f];
      if (j == i || inner->op != EX_MOD || inner->a[0] != quotient || expr_range(c, inner->a[1]).min < 1) continue;
      if (find_term(l, ex_mul(c, inner, e), t) != j) continue;
      Expr *b = inner->a[1];
      if (!(m->flags & inner->flags & e->flags & EXPR_INDEX)) {          /* e*b must not wrap */
        int64_t period;
        if (!ex_is_const(e) || !ex_is_const(b) || !mul_ok(e->u.i, b->u.i, &period) || period > range_of_type(l->t).max)
          continue;
      }
      l->term[i].coef = l->term[j].coef = 0;
      lin_add(l, ex_mod(c, m, ex_mul(c, e, b)), t);
      return true;
    }
  }
  return false;
}

/* t*d*(x/d) is t*x where d divides x. */
static bool join_exact(Ctx *c, Lin *l, int i) {
  Mono m = mono_of(l->term[i].core, 1), rest = {.coef = 1};
  int64_t t = l->term[i].coef;
  for (int f = 0; f < m.n; f++) {
    Expr *x = m.f[f], *d;
    if (x->op != EX_DIV || !ex_is_const(d = x->a[1]) || d->u.i < 2 || t % d->u.i) continue;
    if (expr_range(c, x->a[0]).multiple % d->u.i) continue;
    for (int j = 0; j < m.n; j++)
      if (j != f) rest.f[rest.n++] = m.f[j];
    l->term[i].coef = 0;
    lin_add(l, ex_mul(c, mono_build(c, l->t, &rest), x->a[0]), t / d->u.i);
    return true;
  }
  return false;
}

static void recompose(Ctx *c, Lin *l) {
  for (int i = 0; i < l->n; i++) {
    Expr *core = l->term[i].core;
    bool joined = core->op == EX_MOD && l->n > 1 && join_mod(c, l, i);
    if (joined || ((core->op == EX_DIV || core->op == EX_MUL) && join_exact(c, l, i))) {
      drop_zeros(l);
      i = -1;
    }
  }
}

Expr *lin_build(Ctx *c, Lin *l) {
  drop_zeros(l);
  recompose(c, l);
  for (int i = 1; i < l->n; i++) {
    Term t = l->term[i];
    int j = i;
    for (; j > 0 && l->term[j - 1].core->id > t.core->id; j--) l->term[j] = l->term[j - 1];
    l->term[j] = t;
  }
  Expr *sum = NULL;
  for (int i = 0; i < l->n; i++) {
    Expr *core = l->term[i].core;
    int64_t coef = l->term[i].coef;
    if (coef != 1) core = expr_raw2(c, EX_MUL, l->t, core, ex_const_i(c, l->t, coef));
    sum = sum ? expr_raw2(c, EX_ADD, l->t, sum, core) : core;
  }
  if (!sum) return ex_const_i(c, l->t, l->k);
  return l->k ? expr_raw2(c, EX_ADD, l->t, sum, ex_const_i(c, l->t, l->k)) : sum;
}

Expr *lin_sum(Ctx *c, Expr *a, Expr *b, int64_t scale_b) {
  Lin l = {.t = (DType)a->dtype};
  lin_add(&l, a, 1);
  lin_add(&l, b, scale_b);
  if (!l.over) return lin_build(c, &l);
  if (scale_b != 1) b = expr_raw2(c, EX_MUL, (DType)b->dtype, b, ex_const_i(c, (DType)b->dtype, scale_b));
  return a->id < b->id || ex_is_const(b) ? expr_raw2(c, EX_ADD, l.t, a, b) : expr_raw2(c, EX_ADD, l.t, b, a);
}

/* ---- products ---- */
static void mono_push(Mono *m, Expr *e) {
  if (m->n < 0) return;
  if (e->op == EX_MUL) {
    mono_push(m, e->a[0]);
    mono_push(m, e->a[1]);
  } else if (e->op == EX_CONST) {
    m->coef = wrap_mul(m->coef, e->u.i);
  } else if (m->n == MONO_MAX) {
    m->n = -1;
  } else {
    int at = m->n++;
    for (; at > 0 && m->f[at - 1]->id > e->id; at--) m->f[at] = m->f[at - 1];
    m->f[at] = e;
  }
}

Mono mono_of(Expr *core, int64_t coef) {
  Mono m = {.coef = coef};
  mono_push(&m, core);
  return m;
}

bool mono_divides(const Mono *by, const Mono *m, Mono *quotient) {
  Mono q = {.coef = m->coef};
  int j = 0;
  if (by->n < 0 || m->n < 0) return false;
  for (int i = 0; i < m->n; i++) {
    if (j < by->n && by->f[j] == m->f[i]) j++;
    else q.f[q.n++] = m->f[i];
  }
  if (j < by->n) return false;
  *quotient = q;
  return true;
}

Expr *mono_build(Ctx *c, DType t, const Mono *m) {
  int64_t coef = scalar_wrap(t, m->coef);
  if (coef == 0 || m->n == 0) return ex_const_i(c, t, coef);
  if (m->n == 1 && m->f[0]->op == EX_ADD) {      /* a lone sum is no factor: its terms take the coefficient */
    Lin l = {.t = t};
    lin_add(&l, m->f[0], coef);
    if (!l.over) return lin_build(c, &l);
  }
  Expr *e = m->f[0];
  for (int i = 1; i < m->n; i++) e = expr_raw2(c, EX_MUL, t, e, m->f[i]);
  if (coef == 1) return e;
  Lin l = {.t = t};
  lin_add_core(&l, e, coef);
  return lin_build(c, &l);
}

/* A sum as a factor: its common divisor goes to the coefficient, the first term is positive. */
static void push_factor(Ctx *c, Mono *m, Expr *e) {
  Lin l = {.over = true};
  if (e->op == EX_ADD && e->flags & EXPR_INDEX) l = lin_of(e);
  bool least = l.k == INT64_MIN;   /* has no negative */
  for (int i = 0; i < l.n; i++) least |= l.term[i].coef == INT64_MIN;
  if (l.over || l.n == 0 || least) {
    mono_push(m, e);
    return;
  }
  int64_t g = l.k;
  for (int i = 0; i < l.n; i++) g = int_gcd(g, l.term[i].coef);
  if (l.term[0].coef < 0) g = -g;
  for (int i = 0; i < l.n; i++) l.term[i].coef /= g;
  l.k /= g;
  m->coef = wrap_mul(m->coef, g);
  mono_push(m, lin_build(c, &l));
}

static int count_terms(const Expr *e) {
  Lin l = lin_of((Expr *)e);
  return l.over ? LIN_MAX : l.n + (l.k != 0);
}

/* (x + y)*b is x*b + y*b */
static Expr *distribute(Ctx *c, Expr *sum, Expr *b) {
  Lin from = lin_of(sum), to = {.t = from.t};
  for (int i = 0; i < from.n; i++) lin_add(&to, ex_mul(c, from.term[i].core, b), from.term[i].coef);
  lin_add(&to, b, from.k);
  return to.over ? NULL : lin_build(c, &to);
}

/* Whether a sum is multiplied out is its own property, so that parts of a product look like the whole. */
static bool distributes(const Expr *sum, const Expr *b) {
  enum { MOST = 6 };               /* MOST * MOST terms fit a Lin */
  return sum->op == EX_ADD && sum->flags & b->flags & EXPR_INDEX && sum->flags & EXPR_AXIS && count_terms(sum) <= MOST;
}

Expr *lin_product(Ctx *c, Expr *a, Expr *b) {
  DType t = (DType)a->dtype;
  if (ex_is_const(b)) {
    int64_t v = b->u.i;
    if (a->op == EX_ADD && !(a->flags & EXPR_INDEX) && v != 0 && v != 1 && v != -1)
      return expr_raw2(c, EX_MUL, t, a, b);
    Lin l = {.t = t};
    lin_add(&l, a, v);
    return l.over ? expr_raw2(c, EX_MUL, t, a, b) : lin_build(c, &l);
  }
  Expr *e = distributes(a, b) ? distribute(c, a, b) : distributes(b, a) ? distribute(c, b, a) : NULL;
  if (e) return e;
  Mono m = {.coef = 1};
  push_factor(c, &m, a);
  push_factor(c, &m, b);
  if (m.n < 0) return a->id < b->id ? expr_raw2(c, EX_MUL, t, a, b) : expr_raw2(c, EX_MUL, t, b, a);
  return mono_build(c, t, &m);
}
