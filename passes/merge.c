/* merge.c - pass_merge: products of the same rows by different constant matrices become one.
 *
 * Before: q[.., i, ..] = f(sum(k) a[.., k] * w[k, i], b[i])   v[.., i, ..] = f(sum(k) a[.., k] * u[k, i], d[i])   (Q, K and V of an attention)
 * After:  t[.., i, ..] = f(sum(k) a[.., k] * wu[k, i], bd[i])   where constants continue each other; q's readers read t[.., i, ..], v's
 *         t[.., i + n, ..], n being the extent of q's i
 * Stages are alike if they differ in constants alone. Parts of a concatenation stay as they are: they are made in their place there.
 */
#include <string.h>

#include "bilinear.h"
#include "passes.h"

enum { MOST = 4 };                 /* stages in one; STORAGE_SOURCES at the most */

typedef struct { const Expr *load; int dim; const Tensor *part[MOST]; } Constant;     /* that moves with the axis; part[0]: what load loads */

typedef struct {
  Module *m;
  Ctx *c;
  Map makers;                      /* Tensor* -> how many stages write it; FIXED: it has to stay */
  Map views;                       /* Tensor* -> View*, of what was merged */
} Merger;
enum { FIXED = 1 << 16 };

typedef struct {
  Merger *g;
  Ctx *c;
  int axis, n;
  const Stage *stage[MOST];
  int item[MOST];
  VEC(Constant) constants;
} Merge;

/* ---- are they alike? ---- */
/* From the end of a's constant on, its index goes on in b's. */
static bool alike_constants(Merge *w, const Expr *a, const Expr *b) {
  Ctx *c = w->c;
  const Sym *s = w->stage[0]->axes[w->axis];
  const Tensor *from = a->u.tensor, *to = b->u.tensor;
  Constant k = {.load = a, .dim = -1, .part = {from}};
  if (from->data->splat || to->data->splat || from->dtype != DT_F32 || to->dtype != DT_F32 || from->rank != to->rank) return false;
  for (int d = 0; d < a->n; d++) {
    if (a->a[d] != b->a[d]) return false;
    if (!expr_uses(a->a[d], s)) {
      if (from->shape[d] != to->shape[d]) return false;
      continue;
    }
    Expr *next = expr_subst1(c, a->a[d], s, ex_add(c, s->self, s->extent));
    if (k.dim >= 0 || ex_sub(c, next, a->a[d]) != from->shape[d]) return false;
    k.dim = d;
  }
  for (int i = 0; i < w->constants.n; i++)
    if (w->constants.v[i].load == a) {
      const Tensor **part = &w->constants.v[i].part[w->n];
      bool same = !*part || *part == to;
      *part = to;
      return same;
    }
  k.part[w->n] = to;
  vec_push(c, &w->constants, k);
  return w->n == 1;
}

static bool alike(Merge *w, const Expr *a, const Expr *b);

static bool alike_operands(Merge *w, const Expr *a, const Expr *b, bool turned) {
  for (int i = 0; i < a->n; i++)
    if (!alike(w, a->a[i], b->a[turned ? a->n - 1 - i : i])) return false;
  return true;
}

static bool alike_reductions(Merge *w, const Expr *a, const Expr *b) {
  Subst to = subst_new(w->c);
  for (int i = 1; i < a->n; i++) {
    if (a->a[i]->u.sym->extent != b->a[i]->u.sym->extent) return false;
    subst_set(&to, b->a[i]->u.sym, a->a[i]);
  }
  return alike(w, a->a[0], subst_apply(&to, b->a[0]));
}

/* b is of a's axes. */
static bool alike(Merge *w, const Expr *a, const Expr *b) {
  bool moves = expr_uses(a, w->stage[0]->axes[w->axis]);
  if (!moves && a == b) return true;
  if (a->op != b->op || a->dtype != b->dtype || a->n != b->n || !a->n) return false;
  if (a->op == EX_LOAD) return moves && a->u.tensor->data && b->u.tensor->data && alike_constants(w, a, b);
  if (a->op == EX_FETCH || a->u.i != b->u.i) return false;
  if (a->op == EX_REDUCE) return alike_reductions(w, a, b);
  bool commutes = a->n == 2 && strchr(expr_info[a->op].flags, 'C');
  if (!commutes) return alike_operands(w, a, b, false);
  int known = w->constants.n;
  Constant *before = known ? ctx_copy(w->c, w->constants.v, sizeof *before * (size_t)known) : NULL;
  if (alike_operands(w, a, b, false)) return true;
  w->constants.n = known;
  if (known) memcpy(w->constants.v, before, sizeof *before * (size_t)known);
  return alike_operands(w, a, b, true);
}

static bool same_axes(const Merge *w, const Stage *a, const Stage *b) {
  if (a->out->rank != b->out->rank || a->out->dtype != b->out->dtype) return false;
  for (int d = 0; d < a->out->rank; d++)
    if (d == w->axis ? !ex_is_int(b->axes[d]->extent, NULL) : a->axes[d]->extent != b->axes[d]->extent) return false;
  return true;
}

static bool joins(Merge *w, const Stage *b) {
  const Stage *a = w->stage[0];
  if (!same_axes(w, a, b)) return false;
  Subst to = subst_new(w->c);
  int known = w->constants.n;
  for (int d = 0; d < a->out->rank; d++) subst_set(&to, b->axes[d], a->axes[d]->self);
  if (alike(w, a->body, subst_apply(&to, b->body)) && w->constants.n > 0) return true;
  w->constants.n = w->n == 1 ? 0 : known;
  for (int i = 0; i < w->constants.n; i++) w->constants.v[i].part[w->n] = NULL;
  return false;
}

/* ---- which may be one ---- */
/* Parts of a concatenation: shorter than it along one axis. */
static void keep_parts(Merger *g, const Stage *st, const Expr *e) {
  int shorter = 0;
  if (e->op == EX_SELECT) {
    keep_parts(g, st, e->a[1]);
    keep_parts(g, st, e->a[2]);
  }
  if (e->op != EX_LOAD || e->n != st->out->rank) return;
  for (int d = 0; d < e->n; d++) shorter += e->u.tensor->shape[d] != st->out->shape[d];
  if (shorter == 1) map_set(&g->makers, KEY(e->u.tensor), (void *)FIXED);
}

static void count_writers(Group *group, void *user) {
  Merger *g = user;
  for (int i = 0; i < group->stages.n; i++) {
    const Stage *st = group->stages.v[i];
    map_set(&g->makers, KEY(st->out), (char *)map_get(&g->makers, KEY(st->out)) + 1);
    if (st->body->op == EX_SELECT) keep_parts(g, st, st->body);
  }
}

static void keep_conditions(Merger *g, const Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    if (b->items.v[i]->cond) map_set(&g->makers, KEY(b->items.v[i]->cond), (void *)FIXED);
    for (int k = 0; k < 2; k++)
      if (b->items.v[i]->body[k]) keep_conditions(g, b->items.v[i]->body[k]);
  }
}

/* A product by a constant that others may be merged with. */
static bool is_candidate(const Merger *g, const Item *it) {
  if (!it || it->kind != ITEM_GROUP || it->group->stages.n != 1) return false;
  const Stage *st = group_root(it->group);
  TensorList l = {.c = g->c};
  if (st->at || st->out->scope != SCOPE_NONE || st->out->dtype != DT_F32 || !is_contraction(stage_reduce(st->body))) return false;
  if (map_get(&g->makers, KEY(st->out)) != (void *)1 || module_is_state(g->m, st->out)) return false;
  for (int d = 0; d < st->out->rank; d++)
    if (st->axes[d]->kind == SYM_DIM) return false;
  expr_tensors(&l, st->body);
  for (int i = 0; i < l.list.n; i++)
    if (module_is_state(g->m, l.list.v[i])) return false;    /* it may be another one when the later stage reads it */
  return true;
}

/* Where columns lie side by side each part is to be whole register tiles. */
static bool is_aligned(const Merge *w, const Stage *st) {
  const Sym *s = w->stage[0]->axes[w->axis];
  int64_t n, lanes = target_lanes(w->g->m->target, 32);
  for (int i = 0; i < w->constants.n; i++)
    if (w->constants.v[i].load->a[w->constants.v[i].dim] == s->self && !(ex_is_int(st->axes[w->axis]->extent, &n) && n % (2 * lanes) == 0)) return false;
  return true;
}

static bool find_siblings(Merge *w, const Body *b) {
  const Stage *first = w->stage[0];
  if (!ex_is_int(first->axes[w->axis]->extent, NULL)) return false;
  w->constants.n = 0;
  w->n = 1;
  for (int i = w->item[0] + 1; i < b->items.n && w->n < MOST; i++) {
    if (!is_candidate(w->g, b->items.v[i]) || !joins(w, group_root(b->items.v[i]->group))) continue;
    w->stage[w->n] = group_root(b->items.v[i]->group);
    w->item[w->n++] = i;
  }
  for (int i = 0; i < w->n && w->n > 1; i++)
    if (!is_aligned(w, w->stage[i])) return false;
  return w->n > 1;
}

/* ---- the one ---- */
/* What the constants are, one behind the other along dim. */
static Tensor *joined(const Merge *w, const Constant *k) {
  Ctx *c = w->c;
  const Tensor *t = k->part[0];
  Expr *shape[MAX_RANK], *at[MAX_RANK], *begins[MOST], *n = ex_int(c, 0);
  const char *names[MAX_RANK];
  for (int i = 0; i < w->n; i++) begins[i] = n, n = ex_add(c, n, k->part[i]->shape[k->dim]);
  for (int d = 0; d < t->rank; d++) shape[d] = d == k->dim ? n : t->shape[d], names[d] = ctx_printf(c, "d%d", d);
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.merged", t->name), t->rank, shape, names);
  for (int i = w->n - 1; i >= 0; i--) {
    for (int d = 0; d < t->rank; d++) at[d] = d == k->dim ? ex_sub(c, st->axes[d]->self, begins[i]) : st->axes[d]->self;
    Expr *part = ex_load(c, (Tensor *)k->part[i], at, t->rank);
    st->body = i == w->n - 1 ? part : ex_select(c, ex_lt(c, st->axes[k->dim]->self, begins[i + 1]), part, st->body);
  }
  return bilinear_weights(c, st);
}

static Stage *whole_stage(const Merge *w) {
  Ctx *c = w->c;
  const Stage *first = w->stage[0];
  int rank = first->out->rank;
  Stage *st = ctx_copy(c, first, sizeof *first);
  Expr *shape[MAX_RANK], *n = ex_int(c, 0);
  for (int i = 0; i < w->n; i++) n = ex_add(c, n, w->stage[i]->axes[w->axis]->extent);
  for (int d = 0; d < rank; d++) shape[d] = d == w->axis ? n : first->out->shape[d];
  st->out = tensor_new(c, ctx_printf(c, "%s.merged", first->out->name), first->out->dtype, rank, shape);
  st->axes = ctx_copy(c, first->axes, sizeof *first->axes * (size_t)rank);
  st->axes[w->axis] = sym_axis(c, SYM_AXIS, first->axes[w->axis]->name, n);
  for (int i = 0; i < w->constants.n; i++) {
    const Constant *k = &w->constants.v[i];
    st->body = expr_replace(c, st->body, (Expr *)k->load, ex_load(c, joined(w, k), k->load->a, k->load->n));
  }
  st->body = expr_subst1(c, st->body, first->axes[w->axis], st->axes[w->axis]->self);
  return st;
}

static void merge(Merge *w, Body *b) {
  Ctx *c = w->c;
  Stage *whole = whole_stage(w);
  int64_t offset = 0, n = 0;
  for (int i = 0; i < w->n; i++, offset += n) {
    View *v = NEW(c, View);
    *v = (View){whole->out, w->axis, offset};
    map_set(&w->g->views, KEY(w->stage[i]->out), v);
    ex_is_int(w->stage[i]->axes[w->axis]->extent, &n);
    if (w->g->m->opt->explain && i) str_add(&w->g->m->notes, "  %s: one product with %s\n", w->stage[i]->out->name, w->stage[0]->out->name);
    if (i) b->items.v[w->item[i]] = NULL;
  }
  b->items.v[w->item[0]]->group->stages.v[0] = whole;
}

static Expr *read_whole(Ctx *c, Expr *e, void *user) {
  const View *v = e->op == EX_LOAD ? map_get(user, KEY(e->u.tensor)) : NULL;
  return v ? view_load(c, e, v) : e;
}

static void read_views(Group *group, void *user) {
  Merger *g = user;
  for (int i = 0; i < group->stages.n; i++) group->stages.v[i]->body = expr_map(g->c, group->stages.v[i]->body, read_whole, &g->views);
}

static void merge_body(Merger *g, Body *b) {
  int n = 0;
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; it && k < 2; k++)
      if (it->body[k]) merge_body(g, it->body[k]);
    if (!is_candidate(g, it)) continue;
    Merge w = {.g = g, .c = g->c, .stage = {group_root(it->group)}, .item = {i}};
    for (w.axis = w.stage[0]->out->rank - 1; w.axis >= 0 && !find_siblings(&w, b); w.axis--) {}
    if (w.axis >= 0) merge(&w, b);
  }
  for (int i = 0; i < b->items.n; i++)
    if (b->items.v[i]) b->items.v[n++] = b->items.v[i];
  b->items.n = n;
}

void pass_merge(Module *m) {
  Merger g = {m, m->c, map_new(m->c), map_new(m->c)};
  body_each_group(m->body, count_writers, &g);
  keep_conditions(&g, m->body);
  merge_body(&g, m->body);
  body_each_group(m->body, read_views, &g);
}
