/* contract.c - see contract.h. The vector axis is the one with the least estimated cost per element of the output. */
#include "contract.h"

#include <math.h>

#include "sched.h"

enum { OPEN = 128,                 /* what an extent that is not known counts as */
       MIN_POINTS = 4 };           /* fewer rows than this do not repay a copy of the panel */

/* ---- axes ---- */
typedef struct { const Sym *s; int64_t by; bool any, same; } Taken;
static void find_taken(const Expr *e, void *user) {
  Taken *t = user;
  int64_t by;
  if ((e->op != EX_DIV && e->op != EX_MOD) || e->a[0] != t->s->self || !ex_is_int(e->a[1], &by)) return;
  t->same = !t->any || t->by == by;
  t->any = true;
  t->by = by;
}

static Expr *axis_extent(Ctx *c, const Stage *st, int axis) { return st->at ? st->axes[axis]->extent : stage_extent(c, st->out, axis); }

int64_t contract_taken_apart(Ctx *c, const Stage *st, int axis) {
  Taken t = {st->axes[axis], 1, false, true};
  int64_t n;
  const Expr *extent = axis_extent(c, st, axis);
  expr_visit(stage_reduce(st->body)->a[0], find_taken, &t);
  return t.any && t.same && ex_is_int(extent, &n) && t.by > 1 && t.by < n && n % t.by == 0 ? t.by : 1;
}

static void add_axis(Contract *k, int axis, AxisPart part, int64_t by, Sym *s, Expr *extent) {
  k->axis[k->n++] = (ContractAxis){axis, part, by, s, extent};
}

static void find_axes(Contract *k, Subst *s) {
  Ctx *c = k->c;
  const Stage *st = k->st;
  for (int i = 0; i < st->out->rank; i++) {
    Sym *whole = st->axes[i];
    Expr *extent = axis_extent(c, st, i);
    if (whole->kind == SYM_DIM) continue;
    int64_t n, by = contract_taken_apart(c, st, i);
    if (by == 1 || !ex_is_int(extent, &n)) { add_axis(k, i, AXIS_WHOLE, 1, whole, extent); continue; }
    Expr *outer = ex_int(c, n / by), *inner = ex_int(c, by);
    Sym *q = sym_axis(c, SYM_AXIS, whole->name, outer), *r = sym_axis(c, SYM_AXIS, whole->name, inner);
    add_axis(k, i, AXIS_HIGH, by, q, outer);
    add_axis(k, i, AXIS_LOW, by, r, inner);
    subst_set(s, whole, ex_add(c, ex_mul(c, q->self, inner), r->self));
  }
}

Expr *contract_back(const Contract *k, Expr *e) {
  Ctx *c = k->c;
  Subst s = subst_new(c);
  for (int i = 0; i < k->n; i++) {
    const ContractAxis *a = &k->axis[i];
    if (a->part == AXIS_WHOLE) continue;
    Expr *whole = k->st->axes[a->axis]->self;
    subst_set(&s, a->sym, ex_binary(c, a->part == AXIS_HIGH ? EX_DIV : EX_MOD, whole, ex_int(c, a->by)));
  }
  return subst_apply(&s, e);
}

/* ---- which axis vectors run along ---- */
static double size_of(const Expr *extent) {
  int64_t n;
  return ex_is_int(extent, &n) ? (double)n : OPEN;
}

static double size_of_all(const Tensor *t) {
  double n = 1;
  for (int d = 0; d < t->rank; d++) n *= size_of(t->shape[d]);
  return n;
}

int64_t contract_rows(const Contract *k, int64_t open) {
  int64_t n, rows = 1;
  for (int i = 0; i < k->n; i++)
    if (!expr_uses(k->panel, k->axis[i].sym)) rows *= ex_is_int(k->axis[i].extent, &n) ? n : open;
  return rows;
}

static void find_nested(const Expr *e, void *user) { *(bool *)user |= e->op == EX_LOAD || e->op == EX_SELECT; }

/* The load that the panel is, if its operand can be copied with dimension *dim, which moves by ones with v, last; else NULL. */
static const Expr *whole_operand(Ctx *c, const Expr *panel, const Sym *v, int *dim) {
  const Expr *load = is_padded_load(c, panel) ? panel->a[1] : panel;
  Expr *coef, *rest;
  int uses = 0;
  if (load->op != EX_LOAD || load->u.tensor->data || !load->u.tensor->layout) return NULL;
  for (int d = 0; d < load->n; d++) {
    bool nested = false;
    expr_visit(load->a[d], find_nested, &nested);
    if (nested) return NULL;
    if (!expr_uses(load->a[d], v)) continue;
    if (!expr_is_linear(c, load->a[d], v, &coef, &rest) || !ex_equals_int(coef, 1)) return NULL;
    *dim = d;
    uses++;
  }
  return uses == 1 ? load : NULL;
}

/* Constants are stored in blocks of whole vectors along an axis that moves by ones in one of their dimensions, or lie so. */
typedef struct { Ctx *c; Sym *s; int lanes; bool fits; } Storable;
static void check_storable(const Expr *e, void *user) {
  Storable *w = user;
  Expr *coef, *rest;
  if (e->op != EX_LOAD || !access_is_packable(e, w->s) || access_stride(w->c, layout_offset(w->c, e->u.tensor, e->a), w->s, w->lanes) == 1) return;
  for (int d = 0; d < e->n; d++)
    if (expr_uses(e->a[d], w->s))
      w->fits &= expr_is_linear(w->c, e->a[d], w->s, &coef, &rest) && ex_equals_int(coef, 1) && expr_range(w->c, rest).multiple % w->lanes == 0;
}

/* Cycles per element of the output for vectors along axis i; INFINITY where that cannot be. Two multiply-adds a cycle; a scattered store
 * or load of a vector takes some 25 cycles, a copied element of a scattered panel 2.5, one of a whole operand 1. */
static double axis_cost(Contract *k, int i, bool may_move) {
  Ctx *c = k->c;
  Sym *s = k->axis[i].sym;
  double lanes = k->lanes, n = size_of(k->axis[i].extent), products = 1, elements = 1;
  if (n == 1 || !access_split(k->reduce->a[0], s, &k->broadcast, &k->panel)) return INFINITY;
  Storable storable = {c, s, k->lanes, true};
  expr_visit(k->panel, check_storable, &storable);
  if (!storable.fits) return INFINITY;
  for (int r = 1; r < k->reduce->n; r++) products *= size_of(k->reduce->a[r]->u.sym->extent);
  for (int a = 0; a < k->n; a++) elements *= size_of(k->axis[a].extent);
  int bad = access_walk(c, k->panel, s, k->lanes).bad;
  int64_t rows = contract_rows(k, OPEN);
  double cost = products / lanes / 2 * ceil(n / lanes) * lanes / n;
  cost += (access_stride(c, k->store, s, k->lanes) == 1 ? 1 : 25) / lanes;
  cost += (access_walk(c, k->body, s, k->lanes).bad - bad) * 25 / lanes;
  k->scattered = bad > 0;
  k->operand = NULL;
  if (!bad) return cost;
  double copy = rows < MIN_POINTS ? INFINITY : 2.5 * products / (double)rows, whole = INFINITY;
  const Expr *operand = whole_operand(c, k->panel, s, &k->dim);
  if (operand && may_move) whole = size_of_all(operand->u.tensor) / elements;
  k->operand = whole < copy ? operand : NULL;
  return cost + fmin(copy, whole);
}

/* Is there an axis that vectors of both factors lie along (the channels of a depthwise convolution)? Then no copy is worth its while. */
static bool both_move(Contract *k) {
  for (int i = 0; i < k->n; i++) {
    Sym *s = k->axis[i].sym;
    bool both = expr_uses(k->reduce->a[0]->a[0], s) && expr_uses(k->reduce->a[0]->a[1], s);
    if (both && size_of(k->axis[i].extent) * 2 >= k->lanes && !access_walk(k->c, k->body, s, k->lanes).bad && access_stride(k->c, k->store, s, k->lanes) == 1)
      return true;
  }
  return false;
}

/* Groups narrower than a vector whose channels lie side by side: vectors hold those of several groups. */
static bool has_narrow_groups(const Contract *k) {
  for (int i = 0; i < k->n; i++) {
    Sym *s = k->st->axes[k->axis[i].axis];
    if (k->axis[i].part != AXIS_LOW || k->axis[i].by >= k->lanes || access_store_stride(k->c, k->st, s, k->lanes) != 1) continue;
    Walk w = access_walk(k->c, k->st->body, s, k->lanes);
    if (w.turned && !w.bad) return true;
  }
  return false;
}

const char *contract_view(Ctx *c, const Stage *st, int lanes, Contract *k) {
  Expr *index[MAX_RANK];
  Subst s = subst_new(c);
  double best = INFINITY;
  *k = (Contract){.c = c, .st = st, .lanes = lanes, .v = -1, .reduce = stage_reduce(st->body)};
  if (!is_contraction(k->reduce)) return "not a sum of products";
  if (st->out->dtype != DT_F32 || k->reduce->dtype != DT_F32) return "not f32";
  find_axes(k, &s);
  if (has_narrow_groups(k)) return "groups are narrower than a vector";
  for (int i = 0; i < st->out->rank; i++) index[i] = subst_apply(&s, stage_index(st, i));
  k->body = subst_apply(&s, st->body);
  k->reduce = stage_reduce(k->body);
  k->store = layout_offset(c, st->out, index);
  bool may_move = !both_move(k);
  for (int i = 0; i < k->n; i++) {
    double cost = axis_cost(k, i, may_move);
    if (cost <= best && cost < INFINITY) best = cost, k->v = i;
  }
  if (k->v < 0) return "no axis that only one factor moves with";
  axis_cost(k, k->v, may_move);                              /* sets the operands */
  return NULL;
}
