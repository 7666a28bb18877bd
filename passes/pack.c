/* pack.c - pass_pack: an operand of a contraction that is computed while the model runs and does not lie contiguous along the vector axis
 * (the keys of attention, say) is first copied so that it does, by a kernel of its own. Constants need none: they are stored packed. */
#include "access.h"
#include "passes.h"

enum { MIN_POINTS = 4 };           /* fewer rows than this do not repay the copy */

static bool reuses_panel(Ctx *c, const Stage *st, const Expr *panel) {
  Expr *points = ex_int(c, 1);
  for (int i = 0; i < st->out->rank; i++)
    if (!expr_uses(panel, st->axes[i])) points = ex_mul(c, points, st->out->shape[i]);
  return expr_range(c, points).max >= MIN_POINTS;
}

typedef struct { Ctx *c; const Expr *panel; Expr *load; } Replace;
static Expr *put_load(Ctx *c, Expr *e, void *user) {
  Replace *r = user;
  return e == r->panel ? r->load : e;
}

/* packed[axes the panel moves with, vector axis last] = panel */
static Stage *packed_stage(Ctx *c, Stage *st, const Expr *reduce, const Expr *panel, int v) {
  Sym *from[2 * MAX_RANK];
  Expr *shape[MAX_RANK], *index[MAX_RANK];
  int n = 0;
  for (int i = 0; i < st->out->rank; i++)
    if (i != v && expr_uses(panel, st->axes[i])) from[n++] = st->axes[i];
  for (int i = 1; i < reduce->n; i++)
    if (expr_uses(panel, reduce->a[i]->u.sym)) from[n++] = reduce->a[i]->u.sym;
  from[n++] = st->axes[v];
  if (n > MAX_RANK) return NULL;
  for (int i = 0; i < n; i++) {
    if (from[i]->kind == SYM_DIM || !from[i]->extent) return NULL;
    shape[i] = from[i]->extent;
    index[i] = from[i]->self;
  }
  Stage *p = NEW(c, Stage);
  p->out = tensor_new(c, ctx_printf(c, "%s.packed", st->out->name), (DType)panel->dtype, n, shape);
  p->axes = NEW_ARRAY(c, Sym *, n);
  Subst s = subst_new(c);
  for (int i = 0; i < n; i++) {
    p->axes[i] = sym_axis(c, SYM_AXIS, from[i]->name, shape[i]);
    subst_set(&s, from[i], p->axes[i]->self);
  }
  p->body = subst_apply(&s, (Expr *)panel);
  Replace r = {c, panel, ex_load(c, p->out, index, n)};
  st->body = expr_map(c, st->body, put_load, &r);
  return p;
}

static Stage *pack_operand(Module *m, Group *g) {
  Ctx *c = m->c;
  Stage *st = group_root(g);
  Expr *reduce = stage_reduce(st->body);
  const Expr *broadcast, *panel;
  int lanes = target_lanes(m->target, 32);
  if (g->stages.n > 1 || !is_contraction(reduce) || reduce->dtype != DT_F32) return NULL;
  int v = access_vector_axis(c, st, lanes);
  if (v < 0 || !access_split(reduce->a[0], st->axes[v], &broadcast, &panel)) return NULL;
  if (!access_walk(c, panel, st->axes[v], lanes).bad || !reuses_panel(c, st, panel)) return NULL;
  return packed_stage(c, st, reduce, panel, v);
}

static void pack_body(Module *m, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) pack_body(m, it->body[k]);
    Stage *p = it->kind == ITEM_GROUP ? pack_operand(m, it->group) : NULL;
    if (!p) continue;
    body_insert(m->c, b, i++, p, it->group->source);
  }
}

void pass_pack(Module *m) { pack_body(m, m->body); }
