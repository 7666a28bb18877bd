/* windows.c - pass_windows: sums over windows without products that are known to be zero.
 *
 * Phases: a sum that takes an output axis apart by its stride (transposed convolution: x[(h + p)/s - q] * w[.. s*q + (h + p)%s]) becomes s
 *   sums, each over the elements h = s*t + j: in each the quotient moves by ones and the remainder is a constant.
 * Segments: where the taps of a window are so far apart that most lie in the padding for much of an axis (dilated convolution), the axis is
 *   cut where a tap enters or leaves the map.
 * Taps: steps of a reduction axis at which the product is zero for all elements are dropped from its ends.
 * The parts write to the same tensor, each through an index map of its own.
 */
#include "passes.h"
#include "stages.h"

enum { MOST_PHASES = 8, MOST_TAPS = 64, MOST_CUTS = 4 };

/* ---- parts of a stage ---- */
/* st with its axis i = step*t + start for t < count, the others as they are. */
static Stage *part_of(Ctx *c, const Stage *st, int i, int64_t step, int64_t start, Expr *count) {
  Stage *p = NEW(c, Stage);
  int rank = st->out->rank;
  *p = *st;
  p->axes = NEW_ARRAY(c, Sym *, rank);
  p->at = NEW_ARRAY(c, Expr *, rank);
  Subst s = subst_new(c);
  for (int d = 0; d < rank; d++) {
    Expr *extent = d == i ? count : stage_shape(st, d);
    p->axes[d] = sym_axis(c, SYM_AXIS, st->axes[d]->name, extent);
    Expr *e = p->axes[d]->self;
    subst_set(&s, st->axes[d], d == i ? ex_add(c, ex_mul(c, e, ex_int(c, step)), ex_int(c, start)) : e);
  }
  for (int d = 0; d < rank; d++) p->at[d] = subst_apply(&s, stage_index(st, d));
  p->body = subst_apply(&s, st->body);
  return p;
}

/* ---- phases ---- */
typedef struct { Ctx *c; Sym *axis; int64_t by; bool mixed; } Apart;
static void find_apart(const Expr *e, void *user) {
  Apart *a = user;
  Expr *coef, *rest;
  int64_t by;
  if ((e->op != EX_DIV && e->op != EX_MOD) || !expr_uses(e, a->axis)) return;
  bool plain = ex_is_int(e->a[1], &by) && by > 1 && by <= MOST_PHASES && expr_is_linear(a->c, e->a[0], a->axis, &coef, &rest) &&
               ex_equals_int(coef, 1) && ex_is_int(rest, NULL);
  a->mixed |= !plain || (a->by && a->by != by);
  a->by = plain ? by : a->by;
}

static void find_shifted(const Expr *e, void *user) {
  Apart *a = user;
  a->mixed |= (e->op == EX_DIV || e->op == EX_MOD) && expr_uses(e, a->axis) && e->a[0] != a->axis->self;
}

/* By what the sum takes axis i apart; 1: it does not. Where just one factor does, into whole parts (windows of a map, say), quotient and
 * remainder are rows of one product (contract.h), whose other factor is better read once. */
static int64_t phases_along(Ctx *c, const Stage *st, int i) {
  Apart a = {c, st->axes[i], 0, false}, whole = a;
  const Expr *reduce = stage_reduce(st->body), *product = reduce->a[0];
  expr_visit(reduce, find_apart, &a);
  if (a.mixed || !a.by) return 1;
  bool both = product->op != EX_MUL || (expr_uses(product->a[0], a.axis) && expr_uses(product->a[1], a.axis));
  expr_visit(reduce, find_shifted, &whole);
  return !both && !whole.mixed && expr_range(c, stage_shape(st, i)).multiple % a.by == 0 ? 1 : a.by;
}

/* ---- taps ---- */
static bool is_zero(const Expr *e) { return ex_is_const(e) && dtype_is_float((DType)e->dtype) && e->u.f == 0; }

static bool is_dead_at(Ctx *c, const Expr *reduce, const Sym *tap, int64_t v) {
  Expr *p = expr_subst1(c, reduce->a[0], tap, ex_int(c, v));
  return is_zero(p) || (p->op == EX_MUL && (is_zero(p->a[0]) || is_zero(p->a[1])));
}

typedef struct { const Sym *s; bool found; } Guard;
static void find_guard(const Expr *e, void *user) {
  Guard *g = user;
  g->found |= e->op == EX_SELECT && expr_uses(e->a[0], g->s);
}

static bool is_guarded(const Expr *reduce, const Sym *s) {
  Guard g = {s, false};
  expr_visit(reduce->a[0], find_guard, &g);
  return g.found;
}

typedef struct { const Expr *from; Expr *to; } Swap;
static Expr *swap(Ctx *c, Expr *e, void *user) {
  const Swap *s = user;
  return e == s->from ? s->to : e;
}

/* The sum over axis k from lo to hi only. */
static void narrow(Ctx *c, Stage *st, const Expr *reduce, int k, int64_t lo, int64_t hi) {
  Sym *axes[MAX_RANK + 1], *tap = reduce->a[k]->u.sym;
  int n = 0;
  Expr *at = ex_int(c, lo);
  for (int i = 1; i < reduce->n; i++)
    if (i != k) axes[n++] = reduce->a[i]->u.sym;
    else if (hi > lo) axes[n++] = sym_axis(c, SYM_REDUCE, tap->name, ex_int(c, hi - lo + 1)), at = ex_add(c, axes[n - 1]->self, at);
  Swap s = {reduce, ex_reduce(c, RED_SUM, expr_subst1(c, reduce->a[0], tap, at), axes, n)};
  st->body = expr_map(c, st->body, swap, &s);
}

static void drop_taps(Ctx *c, Stage *st) {
  for (int k = 1; stage_reduce(st->body) && k < stage_reduce(st->body)->n; k++) {
    const Expr *reduce = stage_reduce(st->body);
    int64_t n, lo = 0;
    if (!ex_is_int(reduce->a[k]->u.sym->extent, &n) || n > MOST_TAPS || !is_guarded(reduce, reduce->a[k]->u.sym)) continue;
    int64_t hi = n - 1;
    while (lo < hi && is_dead_at(c, reduce, reduce->a[k]->u.sym, lo)) lo++;
    while (hi > lo && is_dead_at(c, reduce, reduce->a[k]->u.sym, hi)) hi--;
    if (lo > 0 || hi < n - 1) {
      narrow(c, st, reduce, k, lo, hi);
      k -= hi == lo;
    }
  }
}

/* ---- segments ---- */
/* Where along axis i the index a*axis + b*tap + rest of a padded load of n elements lies inside, for one step of the tap: [first, end). */
typedef struct { Ctx *c; Sym *axis; const Sym *tap; int64_t a, b, rest, n; bool found, other; } Reach;
static void find_reach(const Expr *e, void *user) {
  Reach *r = user;
  Ctx *c = r->c;
  if (!is_padded_load(c, e) || !expr_uses(e, r->axis)) return;
  for (int d = 0; d < e->a[1]->n; d++) {
    Expr *at = e->a[1]->a[d], *step, *tap, *rest;
    if (!expr_uses(at, r->axis)) continue;
    bool plain = !r->found && expr_is_linear(c, at, r->axis, &step, &rest) && expr_is_linear(c, rest, r->tap, &tap, &rest) && ex_is_int(step, &r->a) &&
                 ex_is_int(tap, &r->b) && ex_is_int(rest, &r->rest) && ex_is_int(e->a[1]->u.tensor->shape[d], &r->n) && r->a > 0;
    r->other |= !plain;
    r->found = true;
  }
}

static int64_t first_inside(const Reach *r, int64_t tap, int64_t limit) {   /* the least i >= 0 with a*i + b*tap + rest >= limit */
  int64_t need = limit - r->b * tap - r->rest;
  return need <= 0 ? 0 : (need + r->a - 1) / r->a;
}

/* Cuts the axis where taps begin or end to be inside. Returns the number of cuts, ascending; 0: it does not pay. */
static int find_cuts(const Reach *r, int64_t taps, int64_t extent, int64_t *cut) {
  int n = 0;
  int64_t live = 0;
  for (int64_t v = 0; v < taps; v++) {
    int64_t edge[2] = {MIN(first_inside(r, v, 0), extent), MIN(first_inside(r, v, r->n), extent)};
    live += edge[1] - edge[0];
    for (int k = 0; k < 2; k++) {
      int at = n;
      bool known = edge[k] == 0 || edge[k] == extent;
      for (int j = 0; j < n; j++) known |= cut[j] == edge[k];
      if (known) continue;
      if (n == MOST_CUTS) return 0;
      for (; at > 0 && cut[at - 1] > edge[k]; at--) cut[at] = cut[at - 1];
      cut[at] = edge[k];
      n++;
    }
  }
  return live * 4 < taps * extent * 3 ? n : 0;
}

static int cuts_along(Ctx *c, const Stage *st, int i, int64_t *cut) {
  const Expr *reduce = stage_reduce(st->body);
  int64_t taps, extent;
  for (int k = 1; k < reduce->n && ex_is_int(stage_shape(st, i), &extent); k++) {
    Reach r = {.c = c, .axis = st->axes[i], .tap = reduce->a[k]->u.sym};
    if (!ex_is_int(r.tap->extent, &taps) || taps > MOST_TAPS) continue;
    expr_visit(reduce->a[0], find_reach, &r);
    int n = r.found && !r.other && r.b ? find_cuts(&r, taps, extent, cut) : 0;
    if (n) return n;
  }
  return 0;
}

/* ---- the pass ---- */
static bool is_candidate(Module *m, const Item *it) {
  if (it->kind != ITEM_GROUP || it->group->stages.n > 1) return false;
  const Stage *st = group_root(it->group);
  const Expr *reduce = stage_reduce(st->body);
  for (int d = 0; d < st->out->rank; d++)
    if (st->axes[d]->kind == SYM_DIM) return false;
  return is_contraction(reduce) && dtype_is_float((DType)reduce->dtype) && !module_is_state(m, st->out);
}

/* Puts parts in the place of item i, the first of them there and the others behind it. */
static bool take_apart(Module *m, Body *b, int i) {
  Ctx *c = m->c;
  Group *g = b->items.v[i]->group;
  Stage *st = group_root(g);
  int64_t cut[MOST_CUTS + 1];
  for (int d = 2; d < st->out->rank; d++) {
    Expr *extent = stage_shape(st, d);
    int64_t step = phases_along(c, st, d);
    int parts = step > 1 ? (int)step : cuts_along(c, st, d, cut) + 1;
    if (parts == 1) continue;
    for (int k = parts - 1; k >= 0; k--) {
      int64_t start = step > 1 ? k : k ? cut[k - 1] : 0;
      Expr *end = step > 1 || k == parts - 1 ? extent : ex_int(c, cut[k]), *count = ex_ceil_div(c, ex_sub(c, end, ex_int(c, start)), step);
      if (expr_range(c, count).max <= 0) continue;
      Stage *p = part_of(c, st, d, step, start, count);
      if (k) body_insert(c, b, i + 1, p, g->source);
      else g->stages.v[0] = p;
    }
    if (m->opt->explain) str_add(&m->notes, "  %s: %d %s along axis %d\n", st->out->name, parts, step > 1 ? "phases" : "segments", d);
    return true;
  }
  return false;
}

static void rewrite_body(Module *m, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) rewrite_body(m, it->body[k]);
    if (!is_candidate(m, it)) continue;
    while (take_apart(m, b, i)) continue;
    drop_taps(m->c, group_root(it->group));
  }
}

void pass_windows(Module *m) { rewrite_body(m, m->body); }
