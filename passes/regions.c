/* regions.c - see regions.h. From the root back to the members: an index over intervals of axes is an interval, found by the ranges of
 * expressions. */
#include "regions.h"

typedef struct { Sym *sym; Region part; } Axis;
typedef struct { Axis v[2 * MAX_RANK]; int n; } Axes;

static Axes axes_of(const Stage *st, const Region *data) {
  Axes a = {.n = 0};
  const Expr *red = stage_reduce(st->body);
  for (int i = 0; i < st->out->rank; i++) a.v[a.n++] = (Axis){st->axes[i], data[i]};
  for (int i = 1; red && i < red->n; i++) a.v[a.n++] = (Axis){red->a[i]->u.sym, {NULL, red->a[i]->u.sym->extent}};
  return a;
}

static Expr *begin(Ctx *c, const Axis *a) { return a->part.min ? a->part.min : ex_int(c, 0); }

/* The interval that an index of dimension `shape` runs over. */
static Region index_region(Ctx *c, Expr *index, const Axes *axes, Expr *shape) {
  Subst all = subst_new(c), first = subst_new(c);
  Region whole = {ex_int(c, 0), shape};
  for (int i = 0; i < axes->n; i++) {
    const Axis *a = &axes->v[i];
    if (!expr_uses(index, a->sym)) continue;
    if (index == a->sym->self) return (Region){begin(c, a), a->part.extent};
    Expr *from = begin(c, a), *one = ex_int(c, 1);
    subst_set(&first, a->sym, from);
    subst_set(&all, a->sym, a->part.extent == one ? from : ex_add(c, from, sym_axis(c, SYM_AXIS, "p", a->part.extent)->self));
  }
  Expr *min = subst_apply(&first, index), *span = ex_sub(c, subst_apply(&all, index), min);
  Range r = expr_range(c, span);
  if (r.min < 0 || r.max == INT64_MAX) return whole;
  Region part = {min, span->op == EX_SYM && span->u.sym->extent ? span->u.sym->extent : ex_int(c, r.max + 1)};
  bool inside = expr_proves(c, ex_le(c, ex_int(c, 0), min)) && expr_proves(c, ex_le(c, ex_add(c, min, part.extent), shape));
  return inside ? part : whole;
}

typedef struct { Ctx *c; const Tensor *of; const Axes *axes; Region *out; } Reader;

static void add_load(const Expr *e, void *user) {
  Reader *r = user;
  for (int d = 0; e->op == EX_LOAD && e->u.tensor == r->of && d < e->n; d++) {
    Expr *shape = r->of->shape[d];
    Region part = index_region(r->c, e->a[d], r->axes, shape), *known = &r->out[d];
    if (!known->min) *known = part;
    else if (known->min != part.min || known->extent != part.extent) *known = (Region){ex_int(r->c, 0), shape};
  }
}

void group_regions(Ctx *c, const Group *g, const Region *root, Region (*out)[MAX_RANK]) {
  int n = g->stages.n;
  for (int i = 0; i < n; i++)
    for (int d = 0; d < MAX_RANK; d++) out[i][d] = (Region){NULL, NULL};
  for (int i = n - 1; i > 0; i--) {                          /* readers stand behind what they read */
    const Stage *st = g->stages.v[i];
    Axes axes = axes_of(st, i == n - 1 ? root : out[i]);
    const Expr *red = stage_reduce(st->body);
    for (int k = 1; i == n - 1 && red && k < red->n; k++) axes.v[st->out->rank + k - 1].part = root[st->out->rank + k - 1];
    for (int k = 0; k < i; k++) expr_visit(st->body, add_load, &(Reader){c, g->stages.v[k]->out, &axes, out[k]});
  }
}

/* Any block, but the last where the extent is known; a last one may be shorter where it is not. */
static Region block_region(Ctx *c, Expr *extent, Expr *block) {
  bool known = ex_is_int(extent, NULL);
  Expr *whole = ex_max(c, ex_div(c, extent, block), ex_int(c, 1)), *count = known ? whole : ex_ceil_div(c, extent, block->u.i);
  Expr *min = ex_mul(c, sym_axis(c, SYM_AXIS, "o", count)->self, block);
  return (Region){min, known ? block : ex_min(c, block, ex_sub(c, extent, min))};
}

void group_block_axes(Ctx *c, const Group *g, Region *root) {
  const Stage *st = group_root(g);
  const Expr *red = stage_reduce(st->body);
  for (int i = 0; i < st->out->rank; i++) {
    Expr *extent = st->axes[i]->extent ? st->axes[i]->extent : st->out->shape[i], *block = ex_int(c, g->block[i]);
    if (st->axes[i]->kind == SYM_DIM) root[i] = (Region){st->axes[i]->self, ex_int(c, 1)};
    else if (!g->block[i]) root[i] = (Region){ex_int(c, 0), extent};
    else root[i] = block_region(c, extent, block);
  }
  for (int k = 1; red && k < red->n; k++) root[st->out->rank + k - 1] = (Region){ex_int(c, 0), red->a[k]->u.sym->extent};
}
