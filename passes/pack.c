/* pack.c - pass_pack: an operand of a contraction that is computed while the model runs and does not lie contiguous along the vector axis
 * (the keys of attention, say) is first copied so that it does, by a kernel of its own. Constants need none: they are stored packed, and
 * those of groups that are no whole vectors with a dimension for the groups. */
#include "bilinear.h"
#include "contract.h"
#include "passes.h"

/* {outer axes, last / lanes, reduction axes, last % lanes}: vectors are aligned and follow each other along the reduction. */
static Layout *block_last(Ctx *c, int outer, int rank, int lanes) {
  Layout *l = NEW(c, Layout);
  for (int i = 0; i < rank - 1; i++) {
    if (i == outer) l->part[l->n++] = (LayoutPart){(int8_t)(rank - 1), lanes, 0, 0};
    l->part[l->n++] = (LayoutPart){(int8_t)i, 1, 0, 0};
  }
  l->part[l->n++] = (LayoutPart){(int8_t)(rank - 1), 1, lanes, 0};
  return l;
}

/* An axis taken apart counts the channels behind the last, too; the panel has none there. */
static Expr *panel_inside(const Contract *k, const Stage *st) {
  Ctx *c = k->c;
  Expr *panel = (Expr *)k->panel, *zero = ex_const(c, (DType)panel->dtype, 0);
  for (int i = 0; i < k->n; i++) {
    const ContractAxis *a = &k->axis[i];
    if (a->part != AXIS_HIGH || !expr_uses(k->panel, a->sym)) continue;
    Expr *whole = ex_mul(c, a->sym->self, ex_int(c, a->by));
    if (expr_uses(k->panel, a[1].sym)) whole = ex_add(c, whole, a[1].sym->self);
    panel = ex_select(c, ex_lt(c, whole, stage_shape(st, a->axis)), panel, zero);
  }
  return panel;
}

/* packed[axes the panel moves with, vector axis last] = panel */
static Stage *packed_stage(const Contract *k, Stage *st) {
  Ctx *c = k->c;
  Sym *from[2 * MAX_RANK];
  Expr *shape[MAX_RANK], *index[MAX_RANK];
  int n = 0;
  for (int i = 0; i < k->n; i++)
    if (i != k->v && expr_uses(k->panel, k->axis[i].sym)) from[n++] = k->axis[i].sym;
  int outer = n;
  for (int i = 1; i < k->reduce->n; i++)
    if (expr_uses(k->panel, k->reduce->a[i]->u.sym)) from[n++] = k->reduce->a[i]->u.sym;
  from[n++] = k->axis[k->v].sym;
  if (n > MAX_RANK) return NULL;
  for (int i = 0; i < n; i++) {
    if (!from[i]->extent) return NULL;
    shape[i] = from[i]->extent;
    index[i] = from[i]->self;
  }
  Stage *p = NEW(c, Stage);
  p->out = tensor_new(c, ctx_printf(c, "%s.packed", st->out->name), (DType)k->panel->dtype, n, shape);
  p->out->layout = outer < n - 1 ? block_last(c, outer, n, k->lanes) : NULL;
  p->axes = NEW_ARRAY(c, Sym *, n);
  Subst s = subst_new(c);
  for (int i = 0; i < n; i++) {
    p->axes[i] = sym_axis(c, SYM_AXIS, from[i]->name, shape[i]);
    subst_set(&s, from[i], p->axes[i]->self);
  }
  p->body = subst_apply(&s, panel_inside(k, st));
  st->body = contract_back(k, expr_replace(c, k->body, (Expr *)k->panel, ex_load(c, p->out, index, n)));
  return p;
}

/* A tensor and its copy with dimension dim last, inside the same ring. */
typedef struct { const Tensor *from; int dim; Tensor *to; } Moved;
typedef VEC(Moved) MovedList;

static Expr *read_moved(Ctx *c, Expr *e, void *user) {
  const Moved *w = user;
  return e->op == EX_LOAD && e->u.tensor == w->from ? ex_load(c, w->to, e->a, e->n) : e;
}

static Stage *moved_stage(Ctx *c, Tensor *from, int dim) {
  Stage *p = NEW(c, Stage);
  Expr *at[MAX_RANK];
  p->out = tensor_new(c, ctx_printf(c, "%s.rows", from->name), from->dtype, from->rank, from->shape);
  Layout *l = p->out->layout = ctx_copy(c, from->layout, sizeof *from->layout);
  l->n = 0;
  for (int last = 0; last <= 1; last++)
    for (int d = 0; d < from->rank; d++)
      if ((d == dim) == last) l->part[l->n++] = (LayoutPart){(int8_t)d, 1, 0, 0};
  p->axes = NEW_ARRAY(c, Sym *, from->rank + 1);
  for (int d = 0; d < from->rank; d++) at[d] = (p->axes[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", d), from->shape[d]))->self;
  p->body = ex_load(c, from, at, from->rank);
  return p;
}

/* Makes st read its operand from a copy; NULL if there is one already, as parts of a transposed convolution share it. */
static Stage *move_operand(Module *m, MovedList *moved, Stage *st, const Contract *k) {
  Moved w = {k->operand->u.tensor, k->dim, NULL};
  Stage *p = NULL;
  for (int i = 0; i < moved->n; i++)
    if (moved->v[i].from == w.from && moved->v[i].dim == w.dim) w.to = moved->v[i].to;
  if (!w.to) {
    p = moved_stage(m->c, k->operand->u.tensor, w.dim);
    w.to = p->out;
    if (!module_is_state(m, w.from)) vec_push(m->c, moved, w);
  }
  st->body = expr_map(m->c, st->body, read_moved, &w);
  return p;
}

static bool is_made_inside(Ctx *c, const Group *g, const Expr *e) {
  TensorList l = {.c = c};
  expr_tensors(&l, e);
  for (int i = 0; i < l.list.n; i++)
    for (int k = 0; k < g->stages.n; k++)
      if (g->stages.v[k]->out == l.list.v[i]) return true;
  return false;
}

/* ---- constants of groups ---- */
typedef struct { Ctx *c; Map made; const Sym *axis; int64_t by; } Groups;

/* w'[.., q, r, ..] = w[.., q * by + r, ..] in dimension d */
static Tensor *by_groups(Groups *g, const Tensor *w, int d) {
  Ctx *c = g->c;
  Expr *shape[MAX_RANK], *at[MAX_RANK], *by = ex_int(c, g->by);
  const char *names[MAX_RANK], *key = ctx_intern(c, ctx_printf(c, "%p %d %lld", (void *)w->data, d, (long long)g->by));
  Tensor *made = map_get(&g->made, KEY(key));
  if (made) return made;
  for (int i = 0; i <= w->rank; i++) {
    shape[i] = i == d ? ex_div(c, w->shape[d], by) : i == d + 1 ? by : w->shape[i - (i > d)];
    names[i] = ctx_printf(c, "g%d", i);
  }
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.groups", w->name), w->rank + 1, shape, names);
  for (int i = 0; i < w->rank; i++) at[i] = st->axes[i + (i > d)]->self;
  at[d] = ex_add(c, ex_mul(c, st->axes[d]->self, by), st->axes[d + 1]->self);
  st->body = ex_load(c, (Tensor *)w, at, w->rank);
  map_set(&g->made, KEY(key), made = bilinear_weights(c, st));
  return made;
}

static Expr *read_groups(Ctx *c, Expr *e, void *user) {
  Groups *g = user;
  Expr *at[MAX_RANK], *by = ex_int(c, g->by);
  if (e->op != EX_LOAD || !e->u.tensor->data || e->u.tensor->data->splat || e->u.tensor->dtype != DT_F32 || e->n == MAX_RANK) return e;
  int d = 0;
  while (d < e->n && e->a[d] != g->axis->self) d++;
  if (d == e->n) return e;
  for (int i = 0; i <= e->n; i++) at[i] = i == d ? ex_div(c, e->a[d], by) : i == d + 1 ? ex_mod(c, e->a[d], by) : e->a[i - (i > d)];
  return ex_load(c, by_groups(g, e->u.tensor, d), at, e->n + 1);
}

/* Groups of more channels than a vector has, but no whole vectors: in a dimension of their own they begin where blocks of vectors do. */
static void part_constants(Groups *g, Stage *st, int lanes) {
  Expr *reduce = stage_reduce(st->body);
  for (int i = 0; is_contraction(reduce) && i < st->out->rank; i++) {
    g->axis = st->axes[i];
    g->by = contract_taken_apart(g->c, st, i);
    if (g->by <= lanes || g->by % lanes == 0) continue;
    st->body = expr_replace(g->c, st->body, reduce, expr_map(g->c, reduce, read_groups, g));
    reduce = stage_reduce(st->body);
  }
}

static Stage *pack_operand(Module *m, MovedList *moved, const Group *g, Stage *st) {
  Contract k;
  if (contract_view(m->c, st, target_lanes(m->target, 32), &k) || !k.scattered || is_made_inside(m->c, g, k.panel)) return NULL;
  return k.operand ? move_operand(m, moved, st, &k) : packed_stage(&k, st);
}

static void pack_body(Module *m, Groups *groups, Body *b) {
  MovedList moved = {0};
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) pack_body(m, groups, it->body[k]);
    if (it->kind != ITEM_GROUP || (it->group->stages.n > 1 && !it->group->block)) continue;
    for (int k = 0; k < it->group->stages.n; k++) {
      part_constants(groups, it->group->stages.v[k], target_lanes(m->target, 32));
      Stage *p = pack_operand(m, &moved, it->group, it->group->stages.v[k]);
      if (p) body_insert(m->c, b, i++, p, it->group->source);
    }
  }
}

void pass_pack(Module *m) { pack_body(m, &(Groups){.c = m->c, .made = map_new(m->c)}, m->body); }
