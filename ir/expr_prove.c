/* expr_prove.c - proves a + k <= b over the integers, for guards and tails with symbolic extents.
 *
 * The difference is expanded to a polynomial over atoms (symbols, divisions, minima, loads ...) and bounded from above:
 *   - atoms shifted to be >= 0: every term whose coefficient is negative counts 0, every other its largest value;
 *   - an axis is replaced by its largest (extent - 1) or smallest value, as the sign of its coefficient says;
 *     dimensions then cancel:  i*W + w < H*W  with i <= H-1, w <= W-1  becomes  H*W - 1 < H*W;
 *   - d*(x/d) lies in [x-d+1, x], x%d in [0, d-1]; min, max and select are one of their sides.
 * A failed search says nothing. The search is bounded by a budget, in depth and in size. */
#include "expr_impl.h"

enum { POLY_MAX = 40, DEPTH_MAX = 14, BUDGET = 80, TODO_MAX = 24 };

typedef struct { bool bad; int n; Mono m[POLY_MAX]; } Poly;
typedef struct { Ctx *c; int budget; } Prover;

/* ---- polynomials ---- */
static bool same_factors(const Mono *a, const Mono *b) {
  return a->n == b->n && !memcmp(a->f, b->f, sizeof a->f[0] * (size_t)a->n);
}

static void poly_add(Poly *p, const Mono *m) {
  if (p->bad || m->coef == 0) return;
  for (int i = 0; i < p->n; i++)
    if (same_factors(&p->m[i], m)) {
      if (!add_ok(p->m[i].coef, m->coef, &p->m[i].coef) || p->m[i].coef == INT64_MIN) p->bad = true;
      if (p->m[i].coef == 0) p->m[i] = p->m[--p->n];
      return;
    }
  if (p->n == POLY_MAX) p->bad = true;
  else p->m[p->n++] = *m;
}

static void mono_insert(Mono *m, Expr *f) {
  int at = m->n++;
  for (; at > 0 && m->f[at - 1]->id > f->id; at--) m->f[at] = m->f[at - 1];
  m->f[at] = f;
}

/* p += m * todo[0] * todo[1] ..., sums multiplied out */
static void poly_product(Poly *p, Mono m, Expr *const *todo, int n) {
  Expr *rest[TODO_MAX];
  memcpy(rest, todo, sizeof *rest * (size_t)n);
  while (n > 0 && !p->bad) {
    Expr *e = rest[--n];
    if (e->op == EX_CONST) {
      if (!mul_ok(m.coef, e->u.i, &m.coef) || m.coef == INT64_MIN) p->bad = true;
    } else if (e->op == EX_MUL) {
      if (n + 2 > TODO_MAX) p->bad = true;
      else rest[n++] = e->a[0], rest[n++] = e->a[1];
    } else if (e->op == EX_ADD) {
      rest[n] = e->a[0];
      poly_product(p, m, rest, n + 1);
      rest[n++] = e->a[1];
    } else if (m.n == MONO_MAX) {
      p->bad = true;
    } else {
      mono_insert(&m, e);
    }
  }
  poly_add(p, &m);
}

static void poly_expr(Poly *p, Expr *e, int64_t scale) { poly_product(p, (Mono){.coef = scale}, &e, 1); }
static void poly_const(Poly *p, int64_t k) { poly_add(p, &(Mono){.coef = k}); }

/* ---- bounds ---- */
static Range atom_range(Ctx *c, const Expr *e) { return expr_range(c, e); }

/* Adds m with every factor f written as (f - min) + min; the factors of the sum stand for f - min. */
static void add_shifted(Ctx *c, Poly *to, const Mono *m) {
  Mono at[1 << 5];
  int n = 1;
  at[0] = (Mono){.coef = m->coef};
  if (m->n > 5) {
    to->bad = true;
    return;
  }
  for (int i = 0; i < m->n; i++) {
    int64_t min = atom_range(c, m->f[i]).min;
    if (min == INT64_MIN) to->bad = true;
    for (int j = 0, end = n; j < end; j++) {
      if (min != 0) {
        at[n] = at[j];
        if (!mul_ok(at[n].coef, min, &at[n].coef)) to->bad = true;
        n++;
      }
      mono_insert(&at[j], m->f[i]);
    }
    if (to->bad) return;
  }
  for (int j = 0; j < n; j++) poly_add(to, &at[j]);
}

static bool add_bounded(int64_t *sum, int64_t v) { return add_ok(*sum, v, sum); }

/* p <= 0, by the ranges of its atoms alone. */
static bool bounded_nonpos(Ctx *c, const Poly *p) {
  Poly s = {.n = 0};
  int64_t sum = 0;
  for (int i = 0; i < p->n; i++) {
    const Mono *m = &p->m[i];
    Range r = m->n == 1 ? atom_range(c, m->f[0]) : (Range){0, 0, 1};
    if (m->n == 1 && r.min == INT64_MIN && m->coef < 0) return false;
    if (m->n == 1 && r.min == INT64_MIN && r.max != INT64_MAX) {         /* bounded above only */
      int64_t top;
      if (!mul_ok(m->coef, r.max, &top) || !add_bounded(&sum, top)) return false;
    } else {
      add_shifted(c, &s, m);
    }
    if (s.bad) return false;
  }
  for (int i = 0; i < s.n; i++) {
    int64_t v = s.m[i].coef;
    if (s.m[i].n > 0 && v < 0) continue;
    for (int j = 0; j < s.m[i].n; j++) {
      Range r = atom_range(c, s.m[i].f[j]);
      int64_t width;
      if (r.max == INT64_MAX || __builtin_sub_overflow(r.max, r.min, &width) || !mul_ok(v, width, &v)) return false;
    }
    if (!add_bounded(&sum, v)) return false;
  }
  return sum <= 0;
}

/* The sign of m without one occurrence of `atom`: 1 (>= 0), -1 (<= 0), 0 unknown. */
static int sign_without(Ctx *c, const Mono *m, const Expr *atom) {
  int sign = m->coef > 0 ? 1 : -1;
  bool skipped = false;
  for (int i = 0; i < m->n; i++) {
    if (m->f[i] == atom && !skipped) {
      skipped = true;
      continue;
    }
    Range r = atom_range(c, m->f[i]);
    if (r.max <= 0) sign = -sign;
    else if (r.min < 0) return 0;
  }
  return sign;
}

static int degree(const Mono *m, const Expr *atom) {
  int n = 0;
  for (int i = 0; i < m->n; i++) n += m->f[i] == atom;
  return n;
}

static Mono without(const Mono *m, const Expr *atom) {
  Mono r = {.coef = m->coef};
  bool skipped = false;
  for (int i = 0; i < m->n; i++) {
    if (m->f[i] == atom && !skipped) skipped = true;
    else r.f[r.n++] = m->f[i];
  }
  return r;
}

static void replace(const Poly *p, const Expr *atom, Expr *by, Poly *q) {
  *q = (Poly){.n = 0};
  for (int i = 0; i < p->n; i++) {
    Mono m = p->m[i];
    int n = degree(&m, atom);
    if (n == 0) {
      poly_add(q, &m);
      continue;
    }
    Expr *todo[MONO_MAX];
    for (int j = 0; j < n; j++) {
      m = without(&m, atom);
      todo[j] = by;
    }
    poly_product(q, m, todo, n);
  }
}

static bool nonpos(Prover *pr, const Poly *p, int depth);

/* ---- axes ---- */

/* q += m * (the largest or smallest value of s) */
static bool add_extreme(Poly *q, Mono m, const Sym *s, bool largest) {
  int64_t limit = largest ? s->max : s->min;
  if (largest && s->extent) {
    poly_product(q, m, (Expr *const *)&s->extent, 1);
    limit = -1;
  } else if (limit == INT64_MAX || limit == INT64_MIN) {
    return false;
  }
  if (!mul_ok(m.coef, limit, &m.coef)) return false;
  poly_add(q, &m);
  return true;
}

/* The sign of the factor that all terms with `atom` have together, if they are linear in it. */
static int joint_sign(Prover *pr, const Poly *p, const Expr *atom) {
  Poly up = {.n = 0}, down = {.n = 0};
  for (int i = 0; i < p->n; i++) {
    int d = degree(&p->m[i], atom);
    if (d > 1) return 0;
    if (d == 0) continue;
    Mono m = without(&p->m[i], atom);
    poly_add(&down, &m);
    m.coef = -m.coef;
    poly_add(&up, &m);
  }
  if (up.bad || down.bad) return 0;
  return bounded_nonpos(pr->c, &up) ? 1 : bounded_nonpos(pr->c, &down) ? -1 : 0;
}

static bool without_axis(Prover *pr, const Poly *p, Expr *atom, Poly *q) {
  int joint = joint_sign(pr, p, atom);
  *q = (Poly){.n = 0};
  for (int i = 0; i < p->n; i++) {
    const Mono *m = &p->m[i];
    int d = degree(m, atom);
    if (d == 0) {
      poly_add(q, m);
      continue;
    }
    int sign = joint && d == 1 ? joint : sign_without(pr->c, m, atom);
    if (!sign || !add_extreme(q, without(m, atom), atom->u.sym, sign > 0)) return false;
  }
  return !q->bad;
}

/* The innermost axis worth replacing: one with a symbolic bound, or multiplied with others. */
static Expr *find_axis(const Poly *p) {
  Expr *best = NULL;
  for (int i = 0; i < p->n; i++)
    for (int j = 0; j < p->m[i].n; j++) {
      Expr *f = p->m[i].f[j];
      if (f->op != EX_SYM || f->u.sym->kind == SYM_DIM) continue;
      const Sym *s = f->u.sym;
      bool symbolic = p->m[i].n > 1 || (s->extent && !ex_is_const(s->extent));
      if (symbolic && (!best || s->id > best->u.sym->id)) best = f;
    }
  return best;
}

/* ---- axes inside other atoms ---- */

/* 1 if e grows with s (or stays), -1 if it falls, 0 if neither is sure. */
static int trend(Ctx *c, const Expr *e, const Sym *s) {
  if (!expr_uses(e, s)) return 1;
  if (e->op == EX_SYM) return 1;
  if (e->op == EX_DIV && !expr_uses(e->a[1], s) && expr_range(c, e->a[1]).min >= 1) return trend(c, e->a[0], s);
  if (e->op == EX_MUL) {
    int with = expr_uses(e->a[0], s) ? 0 : 1;
    Range r = expr_range(c, e->a[!with]);
    if (expr_uses(e->a[!with], s)) return 0;
    return r.min >= 0 ? trend(c, e->a[with], s) : r.max <= 0 ? -trend(c, e->a[with], s) : 0;
  }
  if (e->op != EX_ADD && e->op != EX_MIN && e->op != EX_MAX) return 0;
  bool first = expr_uses(e->a[0], s), second = expr_uses(e->a[1], s);
  int a = trend(c, e->a[0], s), b = trend(c, e->a[1], s);
  return !second ? a : !first || a == b ? b : 0;
}

static void inner_axis(const Expr *e, void *user) {
  const Sym **best = user;
  if (e->op == EX_SYM && e->u.sym->kind != SYM_DIM && e->u.sym->extent && (!*best || e->u.sym->id > (*best)->id))
    *best = e->u.sym;
}

/* The atom with its innermost axis at the end that makes p largest: h/2 with h < H is at most (H - 1)/2. */
static bool without_inner_axis(Prover *pr, const Poly *p, Expr *atom, Poly *q) {
  Ctx *c = pr->c;
  const Sym *s = NULL;
  if (!(atom->flags & EXPR_AXIS) || atom->flags & EXPR_REDUCES || c->prove_depth > 2) return false;
  expr_visit(atom, inner_axis, &s);
  int sign = s ? joint_sign(pr, p, atom) * trend(c, atom, s) : 0;
  if (!sign || s->min == INT64_MIN) return false;
  c->prove_depth++;                /* the constructors may ask for proofs in turn */
  Expr *end = sign > 0 ? ex_sub(c, s->extent, ex_int(c, 1)) : ex_int(c, s->min);
  Expr *bound = expr_subst1(c, atom, s, end);
  c->prove_depth--;
  replace(p, atom, bound, q);
  return !q->bad;
}

/* ---- divisions and remainders ---- */
static bool without_mod(Prover *pr, const Poly *p, Expr *atom, Poly *q) {
  Expr *d = atom->a[1];
  if (expr_range(pr->c, d).min < 1) return false;
  *q = (Poly){.n = 0};
  for (int i = 0; i < p->n; i++) {
    const Mono *m = &p->m[i];
    int n = degree(m, atom), sign = n ? sign_without(pr->c, m, atom) : 0;
    if (n > 1 || (n && !sign)) return false;
    if (n == 0) poly_add(q, m);
    if (n == 0 || sign < 0) continue;                       /* x % d >= 0 */
    Mono rest = without(m, atom);
    poly_product(q, rest, &d, 1);
    rest.coef = -rest.coef;
    poly_add(q, &rest);
  }
  return !q->bad;
}

/* rest*(x/d): with d as a part of rest, (rest/d) times x or x - d + 1. */
static bool without_div(Prover *pr, const Poly *p, Expr *atom, Poly *q) {
  Expr *x = atom->a[0], *d = atom->a[1];
  Mono dm = mono_of(d, 1);
  int64_t scale = 1;
  if (expr_range(pr->c, d).min < 1 || dm.n < 0 || dm.coef < 1 || d->op == EX_ADD) return false;
  for (int i = 0; i < p->n; i++)
    if (degree(&p->m[i], atom)) {
      int64_t need = dm.coef / int_gcd(dm.coef, p->m[i].coef);
      if (!mul_ok(scale, need / int_gcd(scale, need), &scale)) return false;
    }
  *q = (Poly){.n = 0};
  for (int i = 0; i < p->n; i++) {
    Mono m = p->m[i], part;
    int n = degree(&m, atom), sign = n ? sign_without(pr->c, &m, atom) : 0;
    if (n > 1 || (n && !sign) || !mul_ok(m.coef, scale, &m.coef)) return false;
    if (n == 0) {
      poly_add(q, &m);
      continue;
    }
    Mono rest = without(&m, atom);
    if (rest.coef % dm.coef || !mono_divides(&dm, &rest, &part)) return false;
    part.coef = rest.coef / dm.coef;
    poly_product(q, part, &x, 1);
    if (sign > 0) continue;
    poly_add(q, &part);
    part.coef = -part.coef;
    poly_product(q, part, &d, 1);
  }
  return !q->bad;
}

/* ---- one of two ---- */
/* What the condition of a select says on one side, as a sum <= 0: taking it off what is to be <= 0 may make that
 * easier. */
static bool less_condition(Prover *pr, const Poly *p, const Expr *cond, bool holds, int depth) {
  if (cond->op != EX_LT || !(cond->flags & EXPR_INDEX) || cond->a[0]->dtype != DT_I64) return false;
  Poly q = *p;
  poly_expr(&q, cond->a[0], holds ? -1 : 1);
  poly_expr(&q, cond->a[1], holds ? 1 : -1);
  poly_const(&q, holds ? -1 : 0);
  return nonpos(pr, &q, depth);
}

static bool either_side(Prover *pr, const Poly *p, Expr *atom, int depth) {
  int sign = joint_sign(pr, p, atom), first = atom->op == EX_SELECT ? 1 : 0;
  bool one_suffices = (atom->op == EX_MIN && sign > 0) || (atom->op == EX_MAX && sign < 0);
  for (int i = 0; i < 2; i++) {
    Poly q;
    replace(p, atom, atom->a[first + i], &q);
    bool proved = nonpos(pr, &q, depth + 1) || (first && less_condition(pr, &q, atom->a[0], i == 0, depth + 1));
    if (proved == one_suffices) return one_suffices;
  }
  return !one_suffices;
}

static bool is_compound(const Expr *e) {
  return e->op == EX_DIV || e->op == EX_MOD || e->op == EX_MIN || e->op == EX_MAX || e->op == EX_SELECT;
}

/* The compound atom made last, which no other contains; selects first, since both sides of one must be proved in any
 * case. */
static Expr *find_compound(const Poly *p) {
  Expr *best = NULL;
  for (int i = 0; i < p->n; i++)
    for (int j = 0; j < p->m[i].n; j++) {
      Expr *f = p->m[i].f[j];
      if (!is_compound(f)) continue;
      int better = best ? (f->op == EX_SELECT) - (best->op == EX_SELECT) : 1;
      if (better > 0 || (better == 0 && f->id > best->id)) best = f;
    }
  return best;
}

static bool nonpos(Prover *pr, const Poly *p, int depth) {
  if (p->bad || depth > DEPTH_MAX || pr->budget-- <= 0) return false;
  if (bounded_nonpos(pr->c, p)) return true;
  Poly q;
  Expr *axis = find_axis(p), *compound = find_compound(p);
  if (axis && without_axis(pr, p, axis, &q) && nonpos(pr, &q, depth + 1)) return true;
  if (!compound) return false;
  if (without_inner_axis(pr, p, compound, &q) && nonpos(pr, &q, depth + 1)) return true;
  if (compound->op == EX_DIV) return without_div(pr, p, compound, &q) && nonpos(pr, &q, depth + 1);
  if (compound->op == EX_MOD) return without_mod(pr, p, compound, &q) && nonpos(pr, &q, depth + 1);
  return either_side(pr, p, compound, depth);
}

/* Computing e wraps nowhere, so that it means the same over the integers. */
static bool is_exact(Ctx *c, const Expr *e, int depth) {
  if (e->flags & EXPR_INDEX || e->n == 0 || e->op == EX_LOAD || e->op == EX_FETCH || e->op == EX_CAST) return true;
  if (depth > 8) return false;
  if (e->op == EX_ADD || e->op == EX_MUL) {
    Range r = expr_range(c, e), all = range_of_type((DType)e->dtype);
    if (r.min == all.min || r.max == all.max) return false;  /* may have been reset because it might wrap */
  } else if (!is_compound(e)) {
    return true;                                             /* an atom: its value is what it is */
  }
  for (int i = e->op == EX_SELECT ? 1 : 0; i < e->n; i++)
    if (!is_exact(c, e->a[i], depth + 1)) return false;
  return true;
}

bool prove_le(Ctx *c, Expr *a, Expr *b, int64_t k) {
  if (ex_is_const(a) && ex_is_const(b)) return a->dtype != DT_U64 && (__int128)a->u.i + k <= b->u.i;
  if (a->dtype == DT_U64 || !is_exact(c, a, 0) || !is_exact(c, b, 0)) return false;
  Poly p = {.n = 0};
  poly_expr(&p, a, 1);
  poly_expr(&p, b, -1);
  poly_const(&p, k);
  Prover pr = {c, BUDGET};
  return nonpos(&pr, &p, 0);
}
