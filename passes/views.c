/* views.c - pass_views: concatenation by writing into place.
 *
 * Before: t[.., i, ..] = i < n0 ? a[.., i, ..] : b[.., i - n0, ..]
 * After:  a and b are parts of t: their makers write t[.., i, ..] and t[.., i + n0, ..], their readers read there, and t needs no stage.
 * What cannot be made in place (an input, a constant, a slice, a part of another concatenation) is copied, each part by a stage of its own.
 * From the last concatenation to the first, so that one of a prefix (dense blocks) becomes a view of the longer one.
 */
#include "passes.h"
#include "stages.h"

typedef struct { Stage *stage; int writers; bool fixed; } Maker;

typedef struct {
  Module *m;
  Ctx *c;
  Map makers;                      /* Tensor* -> Maker*, of the body at hand */
  Map views;                       /* Tensor* -> View* */
  bool found;
} Viewer;

/* ---- the parts of a concatenation ---- */
/* e is what elements [offset, offset + n) are; whole: it reads all of that tensor, NULL: anything else. */
typedef struct { Expr *e; Tensor *whole; int64_t offset, n; } Part;
typedef VEC(Part) PartList;

static Tensor *whole_tensor(Ctx *c, const Stage *st, const Expr *e, int axis, int64_t offset, int64_t n) {
  if (e->op != EX_LOAD || e->n != st->out->rank || !ex_equals_int(e->u.tensor->shape[axis], n)) return NULL;
  for (int d = 0; d < e->n; d++) {
    Expr *at = d == axis ? ex_sub(c, st->axes[d]->self, ex_int(c, offset)) : st->axes[d]->self;
    bool same = e->a[d] == at || (d != axis && st->axes[d]->max == 0 && ex_equals_int(e->a[d], 0));
    if (!same || (d != axis && e->u.tensor->shape[d] != st->out->shape[d])) return NULL;
  }
  return e->u.tensor;
}

/* Elements [from, to) of e; false if a limit is not known or a part is empty. */
static bool collect(Viewer *w, const Stage *st, Expr *e, int axis, int64_t from, int64_t to, PartList *parts) {
  int64_t limit;
  if (e->op == EX_SELECT && e->a[0]->op == EX_LT && e->a[0]->a[0] == st->axes[axis]->self && ex_is_int(e->a[0]->a[1], &limit))
    return limit > from && limit < to && collect(w, st, e->a[1], axis, from, limit, parts) && collect(w, st, e->a[2], axis, limit, to, parts);
  if (e->op != EX_LOAD) return false;
  vec_push(w->c, parts, ((Part){e, whole_tensor(w->c, st, e, axis, from, to - from), from, to - from}));
  return true;
}

static int concat_axis(Viewer *w, const Stage *st, PartList *parts) {
  if (st->at || st->body->op != EX_SELECT || stage_reduce(st->body)) return -1;
  for (int d = 0; d < st->out->rank; d++)
    if (st->axes[d]->kind == SYM_DIM) return -1;
  for (int d = 0; d < st->out->rank; d++) {
    int64_t n;
    parts->n = 0;
    if (st->body->a[0]->op == EX_LT && st->body->a[0]->a[0] == st->axes[d]->self && ex_is_int(st->out->shape[d], &n) &&
        collect(w, st, st->body, d, 0, n, parts))
      return d;
  }
  return -1;
}

/* ---- what may become a part ---- */
static bool can_view(Viewer *w, const Part *p, const Tensor *whole) {
  const Tensor *t = p->whole;
  const Maker *k = t ? map_get(&w->makers, KEY(t)) : NULL;
  return k && k->stage && k->writers == 1 && !k->fixed && !k->stage->at && t->scope == SCOPE_NONE && !t->data && !module_is_state(w->m, t) &&
         t != whole && t->dtype == whole->dtype && !map_get(&w->views, KEY(t));
}

static void make_view(Viewer *w, Tensor *t, Tensor *whole, int axis, int64_t offset) {
  const View *outer = map_get(&w->views, KEY(whole));
  View *v = NEW(w->c, View);
  *v = outer ? (View){outer->whole, axis, outer->offset + offset} : (View){whole, axis, offset};
  map_set(&w->views, KEY(t), v);
  w->found = true;
}

/* Do the parts already lie one behind the other in a longer tensor? */
static const View *common_whole(Viewer *w, const PartList *parts, int axis) {
  const View *first = parts->v[0].whole ? map_get(&w->views, KEY(parts->v[0].whole)) : NULL;
  for (int i = 0; i < parts->n; i++) {
    const View *v = parts->v[i].whole ? map_get(&w->views, KEY(parts->v[i].whole)) : NULL;
    if (!first || !v || v->whole != first->whole || v->axis != axis || v->offset - first->offset != parts->v[i].offset - parts->v[0].offset) return NULL;
  }
  return first;
}

/* whole[.., i + offset, ..] = part at [.., i + offset, ..] */
static Stage *copy_part(Viewer *w, const Stage *whole, const Part *p, int axis) {
  Ctx *c = w->c;
  Stage *st = NEW(c, Stage);
  Tensor *t = st->out = whole->out;
  Subst s = subst_new(c);
  st->axes = NEW_ARRAY(c, Sym *, t->rank);
  st->at = NEW_ARRAY(c, Expr *, t->rank);
  for (int d = 0; d < t->rank; d++) {
    st->axes[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", d), d == axis ? ex_int(c, p->n) : t->shape[d]);
    st->at[d] = d == axis ? ex_add(c, st->axes[d]->self, ex_int(c, p->offset)) : st->axes[d]->self;
    subst_set(&s, whole->axes[d], st->at[d]);
  }
  st->body = subst_apply(&s, p->e);
  return st;
}

/* Returns how many items take the place of item i. */
static int place_parts(Viewer *w, Body *b, int i, Stage *st, const PartList *parts, int axis) {
  const View *whole = st->out->scope == SCOPE_NONE && !map_get(&w->views, KEY(st->out)) ? common_whole(w, parts, axis) : NULL;
  const char *source = b->items.v[i]->group->source;
  int made = 0;
  if (whole) make_view(w, st->out, whole->whole, axis, whole->offset - parts->v[0].offset);
  b->items.n--;
  memmove(&b->items.v[i], &b->items.v[i + 1], sizeof(Item *) * (size_t)(b->items.n - i));
  for (int k = 0; k < parts->n && !whole; k++) {
    const Part *p = &parts->v[k];
    if (can_view(w, p, st->out)) make_view(w, p->whole, st->out, axis, p->offset);
    else body_insert(w->c, b, i + made++, copy_part(w, st, p, axis), source);
  }
  return made;
}

/* ---- readers and makers of views ---- */
static Expr *read_view(Ctx *c, Expr *e, void *user) {
  Viewer *w = user;
  const View *v = e->op == EX_LOAD ? map_get(&w->views, KEY(e->u.tensor)) : NULL;
  return v ? view_load(c, e, v) : e;
}

static void use_views(Group *g, void *user) {
  Viewer *w = user;
  for (int i = 0; i < g->stages.n; i++) {
    Stage *st = g->stages.v[i];
    const View *v = map_get(&w->views, KEY(st->out));
    st->body = expr_map(w->c, st->body, read_view, w);
    if (!v) continue;
    Expr **at = NEW_ARRAY(w->c, Expr *, st->out->rank);
    for (int d = 0; d < st->out->rank; d++) at[d] = d == v->axis ? ex_add(w->c, stage_index(st, d), ex_int(w->c, v->offset)) : stage_index(st, d);
    st->at = at;
    st->out = v->whole;
  }
}

static void survey(Viewer *w, Body *b) {
  w->makers = map_new(w->c);
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    if (it->kind != ITEM_GROUP) continue;
    Stage *st = group_root(it->group);
    Maker *k = map_get(&w->makers, KEY(st->out));
    if (!k) map_set(&w->makers, KEY(st->out), k = NEW(w->c, Maker));
    k->stage = st;
    k->writers++;
    for (int d = 0; d < st->out->rank; d++) k->fixed |= st->axes[d]->kind == SYM_DIM;
  }
  for (int i = 0; i < b->items.n; i++) {
    Maker *k = b->items.v[i]->cond ? map_get(&w->makers, KEY(b->items.v[i]->cond)) : NULL;
    if (k) k->fixed = true;
  }
}

static void view_body(Viewer *w, Body *b) {
  for (int i = b->items.n - 1; i >= 0; i--)
    for (int k = 0; k < 2; k++)
      if (b->items.v[i]->body[k]) view_body(w, b->items.v[i]->body[k]);
  survey(w, b);
  for (int i = b->items.n - 1; i >= 0; i--) {
    Item *it = b->items.v[i];
    PartList parts = {0};
    int axis = it->kind == ITEM_GROUP && it->group->stages.n == 1 ? concat_axis(w, group_root(it->group), &parts) : -1;
    if (axis >= 0) place_parts(w, b, i, group_root(it->group), &parts, axis);
  }
}

void pass_views(Module *m) {
  Viewer w = {.m = m, .c = m->c, .views = map_new(m->c)};
  view_body(&w, m->body);
  if (w.found) body_each_group(m->body, use_views, &w);
}
