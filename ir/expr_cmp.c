/* expr_cmp.c - comparisons, min and max of integers: resolved where ranges or a proof allow, else in canonical form.
 *
 * Index comparisons become  positive terms + k < negated negative terms (or ==, !=), without common divisor; a <= b is
 * a < b + 1. Data may wrap, so its comparisons are only resolved. */
#include "expr_impl.h"

static Expr *truth(Ctx *c, bool v) { return ex_bool(c, v); }

/* Whether a op b is settled: 1 true, 0 false, -1 open. */
static int decide(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  if (a == b) return op == EX_LE || op == EX_EQ;
  Range ra = expr_range(c, a), rb = expr_range(c, b);
  bool order = a->dtype != DT_U64 || (ra.max != INT64_MAX && rb.max != INT64_MAX);     /* ranges hold no more of u64 */
  switch (op) {
  case EX_LT:
    if (order && (ra.max < rb.min || prove_le(c, a, b, 1))) return 1;
    return order && (ra.min >= rb.max || prove_le(c, b, a, 0)) ? 0 : -1;
  case EX_LE:
    if (order && (ra.max <= rb.min || prove_le(c, a, b, 0))) return 1;
    return order && (ra.min > rb.max || prove_le(c, b, a, 1)) ? 0 : -1;
  default: {
    int equal = -1;
    if (order && (ra.max < rb.min || ra.min > rb.max || prove_le(c, a, b, 1) || prove_le(c, b, a, 1))) equal = 0;
    else if (order && prove_le(c, a, b, 0) && prove_le(c, b, a, 0)) equal = 1;
    return equal < 0 ? -1 : op == EX_EQ ? equal : !equal;
  }
  }
}

/* The sum's positive terms on one side, the others on the other. */
static void sides(const Lin *l, Lin *left, Lin *right) {
  *left = *right = (Lin){.t = l->t};
  for (int i = 0; i < l->n; i++) {
    if (l->term[i].coef > 0) lin_add_core(left, l->term[i].core, l->term[i].coef);
    else lin_add_core(right, l->term[i].core, -l->term[i].coef);
  }
  if (right->n == 0 || (left->n > 0 && l->k < 0)) right->k = -l->k;
  else left->k = l->k;
}

static int64_t term_multiple(Ctx *c, const Term *t) {
  int64_t whole;
  return mul_ok(t->coef, expr_range(c, t->core).multiple, &whole) ? whole : t->coef;
}

/* The sum is < 0 whatever a term is that only fills the gaps between multiples of what the others share: 16*o + v - 64 for v < 16. */
static void drop_fillers(Ctx *c, Lin *l) {
  for (int i = 0; i < l->n && l->n > 1; i++) {
    Range r = expr_range(c, l->term[i].core);
    int64_t g = 0, one, two;
    for (int k = 0; k < l->n; k++)
      if (k != i) g = int_gcd(g, term_multiple(c, &l->term[k]));
    if (!g || r.min == INT64_MIN || r.max == INT64_MAX || !mul_ok(r.min, l->term[i].coef, &one) || !mul_ok(r.max, l->term[i].coef, &two)) continue;
    int64_t rest = l->k - floor_div(l->k, g) * g, span = g - rest;       /* k = a multiple of g and the rest */
    if (MIN(one, two) < -rest || MAX(one, two) >= span) continue;
    l->k -= rest;
    memmove(&l->term[i], &l->term[i + 1], sizeof *l->term * (size_t)(--l->n - i));
    i = -1;
  }
}

Expr *lin_compare(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  int known = decide(c, op, a, b);
  if (known >= 0) return truth(c, known);
  if (!(a->flags & b->flags & EXPR_INDEX)) return NULL;
  Lin l = lin_of(a), left, right;
  lin_add(&l, b, -1);
  if (l.over) return NULL;
  Lin copy = l;
  lin_build(c, &copy);             /* drops zeros, joins divisions and remainders, sorts */
  l = copy;
  if (op == EX_LE && l.k > INT64_MIN) l.k -= 1, op = EX_LT;
  int64_t g = 0, gm = 0;
  for (int i = 0; i < l.n; i++)
    if (l.term[i].coef == INT64_MIN || l.k == INT64_MIN) return NULL;
  if (op == EX_LT) drop_fillers(c, &l);
  for (int i = 0; i < l.n; i++) {
    g = int_gcd(g, l.term[i].coef);
    gm = int_gcd(gm, term_multiple(c, &l.term[i]));
  }
  if (l.n == 0) return truth(c, op == EX_LT ? l.k < 0 : (l.k == 0) == (op == EX_EQ));
  if (op != EX_LT && gm && l.k % gm) return truth(c, op == EX_NE);
  for (int i = 0; i < l.n; i++) l.term[i].coef /= g;
  l.k = floor_div(l.k, g);
  if (op != EX_LT && l.term[0].coef < 0) {
    for (int i = 0; i < l.n; i++) l.term[i].coef = -l.term[i].coef;
    l.k = -l.k;
  }
  sides(&l, &left, &right);
  Expr *x = lin_build(c, &left), *y = lin_build(c, &right);
  if (x != a || y != b) {
    known = decide(c, op, x, y);
    if (known >= 0) return truth(c, known);
  }
  return expr_raw2(c, op, DT_BOOL, x, y);
}

Expr *lin_minmax(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  int less = decide(c, EX_LE, a, b);
  if (less < 0 && decide(c, EX_LE, b, a) == 1) less = 0;
  if (less >= 0) return less == (op == EX_MIN) ? a : b;
  if (!(a->flags & b->flags & EXPR_INDEX)) return NULL;
  Lin la = lin_of(a), lb = lin_of(b);
  if (la.over || lb.over || la.k != lb.k || la.k == 0) return NULL;
  Expr *k = ex_int(c, la.k);
  return ex_add(c, ex_binary(c, op, ex_sub(c, a, k), ex_sub(c, b, k)), k);
}

/* ---- & and | of comparisons that differ by a constant ---- */

/* a->a[0] - a->a[1] + sign*(b->a[0] - b->a[1]), if that is a constant. Both are < 0 where a and b hold. */
static bool constant_gap(const Expr *a, const Expr *b, int sign, int64_t *gap) {
  Lin l = lin_of(a->a[0]);
  lin_add(&l, a->a[1], -1);
  lin_add(&l, b->a[0], sign);
  lin_add(&l, b->a[1], -sign);
  for (int i = 0; i < l.n; i++)
    if (l.term[i].coef) return false;
  *gap = l.k;
  return !l.over;
}

static bool is_index_less(const Expr *e) { return e->op == EX_LT && e->flags & EXPR_INDEX && e->a[0]->dtype == DT_I64; }

/* a op b of two leaves as one of them or as a constant; NULL if they have nothing to do with each other. */
static Expr *join_leaves(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  int64_t gap;
  if (!is_index_less(a) || !is_index_less(b)) return NULL;
  if (constant_gap(a, b, -1, &gap)) return (gap >= 0) == (op == EX_AND) ? a : b;       /* gap >= 0: a implies b */
  if (!constant_gap(a, b, 1, &gap)) return NULL;
  if (op == EX_AND && gap > -2) return ex_bool(c, false);    /* both at most -1 */
  return op == EX_OR && gap < 0 ? ex_bool(c, true) : NULL;   /* not both at least 0 */
}

enum { LONGEST = 1000 };           /* nodes of a chain worth searching */

/* leaf joined with one of the leaves of chain: the whole without either of the two, whichever is implied. */
static Expr *join_chain(Ctx *c, ExprOp op, Expr *chain, Expr *leaf) {
  if (chain->op != op) return join_leaves(c, op, chain, leaf);
  if (chain->size > LONGEST) return NULL;
  Expr *e = join_chain(c, op, chain->a[0], leaf);
  if (e) return ex_binary(c, op, e, chain->a[1]);
  e = join_chain(c, op, chain->a[1], leaf);
  return e ? ex_binary(c, op, chain->a[0], e) : NULL;
}

Expr *lin_logic(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  Expr *e = b->op != op ? join_chain(c, op, a, b) : NULL;
  return e || a->op == op ? e : join_chain(c, op, b, a);
}
