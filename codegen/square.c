/* square.c - the rule for copies and element-wise stages whose store lies contiguous along one axis and whose loads do along another.
 *
 * Such a stage is computed in square tiles of a vector's length: the tile's elements are made in vectors along the loads' axis, held in
 * registers, and stored in vectors along the other one. The tile is a stage of its own inside the root's loops:
 *   tile[.., u, .., v, ..] = what is loaded along u         out[.., u, .., v, ..] = f(tile[.., u, .., v, ..])
 */
#include "../passes/access.h"
#include "rules.h"

typedef struct {
  Case *k;
  int u, v;                        /* axes of the loads and of the store */
  Sym *su, *sv;
  bool ok, along_v;                /* along_v: a load is contiguous along v */
  int n;                           /* loads that are so along u alone */
  const Expr *load;                /* the last of them */
} Tiling;

static int64_t load_stride(const Tiling *t, const Expr *load, Sym *s) {
  Ctx *c = t->k->c;
  return access_stride(c, layout_offset(c, load->u.tensor, load->a), s, t->k->lanes);
}

static void sort_load(const Expr *e, void *user) {
  Tiling *t = user;
  if (e->op != EX_LOAD) return;
  int64_t u = load_stride(t, e, t->su), v = load_stride(t, e, t->sv);
  bool packable = access_is_packable(e, t->sv);
  t->along_v |= v == 1;
  if (v == 0 || v == 1 || packable || e == t->load) return;
  t->ok &= u == 1;
  t->load = e;
  t->n++;
}

/* What the tile holds: the whole value where nothing is loaded along v and all goes well along u, else the one load; NULL: there are more. */
static const Expr *tiled_value(const Tiling *t) {
  Walk w = access_walk(t->k->c, t->k->st->body, t->su, t->k->lanes);
  return !t->along_v && !w.bad && !w.packable ? t->k->st->body : t->n == 1 ? t->load : NULL;
}

static bool sort_loads(Tiling *t) {
  *t = (Tiling){t->k, t->u, t->v, t->su, t->sv, .ok = true};
  expr_visit(t->k->st->body, sort_load, t);
  return t->ok && t->n && tiled_value(t);
}

/* Does some axis u go with v? */
static bool choose_axes(Tiling *t) {
  Case *k = t->k;
  Stage *st = k->st;
  int rank = st->out->rank;
  for (t->v = 0; t->v < rank; t->v++)
    if (st->axes[t->v]->kind != SYM_DIM && access_store_stride(k->c, st, t->sv = st->axes[t->v], k->lanes) == 1) break;
  if (t->v == rank) return false;
  for (t->u = rank - 1; t->u >= 0; t->u--) {
    t->su = st->axes[t->u];
    if (t->u == t->v || t->su->kind == SYM_DIM || t->su->max + 1 < k->lanes / 2) continue;
    if (sort_loads(t)) return true;
  }
  return false;
}

static Expr *put_load(Ctx *c, Expr *e, void *user) {
  const Expr **pair = user;
  (void)c;
  return e == pair[0] ? (Expr *)pair[1] : e;
}

/* ---- a load that leaves its tensor where the root does not read it is not made there either ---- */
typedef struct { Ctx *c; const Expr *load; Map known; } Guard;

/* Does computing e read the load? */
static Expr *reads_load(Guard *g, const Expr *e) {
  Ctx *c = g->c;
  if (e == g->load || !(e->flags & EXPR_LOAD)) return ex_bool(c, e == g->load);
  Expr *reads = map_get(&g->known, KEY(e));
  if (reads) return reads;
  reads = ex_bool(c, false);
  for (int i = 0; i < e->n; i++) {
    Expr *part = reads_load(g, e->a[i]);
    if (e->op == EX_SELECT && i) part = ex_and(c, i == 1 ? e->a[0] : ex_unary(c, EX_NOT, e->a[0]), part);
    reads = ex_or(c, reads, part);
  }
  map_set(&g->known, KEY(e), reads);
  return reads;
}

/* What the tile holds, with zeros where it must not be read. */
static Expr *guarded_value(const Tiling *t, const Expr *value) {
  Ctx *c = t->k->c;
  if (value->op != EX_LOAD || value == t->k->st->body || layout_covers(c, value->u.tensor, value->a)) return (Expr *)value;
  Guard g = {c, value, map_new(c)};
  return ex_select(c, reads_load(&g, t->k->st->body), (Expr *)value, ex_const(c, (DType)value->dtype, 0));
}

/* The tile's stage; its rows along v are u long, and those of a channel tail that only the layout has are zero. */
static Stage *tile_stage(Tiling *t) {
  Case *k = t->k;
  Ctx *c = k->c;
  Stage *root = k->st, *st = NEW(c, Stage);
  int rank = root->out->rank;
  const Expr *value = tiled_value(t), *pair[2] = {value};
  Expr *shape[MAX_RANK], *at[MAX_RANK], *real = NULL;
  Layout *l = NEW(c, Layout);
  Subst s = subst_new(c);
  for (int i = 0; i < rank; i++) shape[i] = root->at ? root->axes[i]->extent : stage_extent(c, root->out, i);
  st->out = tensor_new(c, ctx_printf(c, "%s.tile", root->out->name), (DType)value->dtype, rank, shape);
  st->axes = NEW_ARRAY(c, Sym *, rank);
  for (int i = 0; i < rank; i++) {
    st->axes[i] = sym_axis(c, SYM_AXIS, root->axes[i]->name, shape[i]);
    subst_set(&s, root->axes[i], st->axes[i]->self);
    at[i] = root->axes[i]->self;
    if (root->at || shape[i] == root->out->shape[i]) continue;
    Expr *in = ex_lt(c, st->axes[i]->self, root->out->shape[i]);
    real = real ? ex_and(c, real, in) : in;
  }
  for (int i = 0; i < rank; i++)
    if (i != t->u && i != t->v) l->part[l->n++] = (LayoutPart){(int8_t)i, 1, 0, 0};
  l->part[l->n++] = (LayoutPart){(int8_t)t->v, 1, 0, k->lanes};                      /* rows apart, however short */
  l->part[l->n++] = (LayoutPart){(int8_t)t->u, 1, 0, 0};
  st->out->layout = l;
  st->body = subst_apply(&s, guarded_value(t, value));
  if (real) st->body = ex_select(c, real, st->body, ex_const(c, st->out->dtype, 0));
  pair[1] = ex_load(c, st->out, at, rank);
  root->body = expr_map(c, root->body, put_load, pair);
  return st;
}

static void tile_loops(Tiling *t, Stage *tile) {
  Case *k = t->k;
  Ctx *c = k->c;
  Names par = {0};
  Str outer = str_new(c), inner = str_new(c);
  const char *nu = rule_axis_name(k, t->u), *nv = rule_axis_name(k, t->v);
  str_add(&k->text, "split %s %d -> %s.o %s.i; split %s %d -> %s.o %s.i; ", nu, k->lanes, nu, nu, nv, k->lanes, nv, nv);
  for (int i = 0; i < k->st->out->rank; i++)
    if (i != t->u && i != t->v && k->st->axes[i]->kind != SYM_DIM) vec_push(c, &par, rule_axis_name(k, i));
  vec_push(c, &par, ctx_printf(c, "%s.o", nu));
  vec_push(c, &par, ctx_printf(c, "%s.o", nv));
  for (int i = 0; i < par.n; i++) str_add(&outer, " %s", par.v[i]);
  str_add(&k->text, "order%s %s.i %s.i; unroll %s.i; vector %s.i %d; ", outer.s, nu, nv, nu, nv, k->lanes);
  rule_share_loops(k, &par);
  for (int i = 0; i < tile->out->rank; i++)
    if (i != t->u && i != t->v && tile->axes[i]->kind != SYM_DIM) str_add(&inner, " %s", stage_axis_name(c, tile, i));
  const char *tu = stage_axis_name(c, tile, t->u), *tv = stage_axis_name(c, tile, t->v);
  str_add(&k->text, "in %s; at par%d; reg; order%s %s %s; unroll %s; vector %s %d", tile->out->name, par.n - 1, inner.n ? inner.s : "", tv, tu, tv, tu, k->lanes);
}

const char *rule_square(Case *k) {
  Tiling t = {.k = k};
  if (k->g->stages.n > 1 || k->loop || k->reduce || k->st->out->rank < 2) return "not element-wise";
  if (dtype_bytes(k->st->out->dtype) != 4) return "not of 32 bits";
  if (!choose_axes(&t)) return "no tiles";
  if (rule_axis_extent(k, t.u) < 0 || rule_axis_extent(k, t.v) < k->lanes / 2) return "an axis is short, or its extent not known";
  rule_pack_constants(k, t.sv, NULL, k->lanes, NULL);
  if (!sort_loads(&t)) return "constants lie along both";
  Stage *tile = tile_stage(&t);
  vec_push(k->c, &k->g->stages, k->st);
  k->g->stages.v[0] = tile;
  tile_loops(&t, tile);
  return NULL;
}
