/* pools.c - pass_pools: a reduction over all of a map's places (global pooling) is taken while the parts of the map are made.
 *
 * Before: map[n,c,h,w] = ..;  y[n,c] = f(sum(h, w) map[n,c,h,w])
 * After:  one group: map, kept, by blocks of channels and of rows, and with every part sums[n,c,g] = sum(h<b, w) map[n,c,g*b+h,w], read while
 *         the part is in the first-level cache;  y[n,c] = f(sum(g) sums[n,c,g])
 * Where all rows make one block the group's root is y itself. Blocks follow from extents alone, so results do not depend on how many threads
 * there are. Only maps that are no products of a panel: those have tiles over several blocks of channels.
 *
 * Windows side by side: where a map is made in blocks of rows (Winograd's bands) for a pool alone, whose windows do not overlap, the pool
 * becomes the root of that group and the map is never stored.
 */
#include "contract.h"
#include "passes.h"

typedef struct { Module *m; Ctx *c; Body *body; int lanes; Map *readers; } Pools;   /* readers: Tensor* -> number of stages that load it */
typedef struct { const Tensor *map; Expr *load; bool other; } MapLoad;

static void find_map(const Expr *e, void *user) {
  MapLoad *w = user;
  if (e->op != EX_LOAD || e->u.tensor->data) return;
  if (!w->map) w->map = e->u.tensor, w->load = (Expr *)e;
  w->other |= e != w->load;
}

/* The load of a map, all of whose places the stage reduces, once, for each image and channel; NULL: it does not. */
static Expr *pooled(Ctx *c, const Stage *st) {
  const Expr *red = stage_reduce(st->body);
  MapLoad w = {0};
  if (!red || st->at || st->out->rank < 2) return NULL;
  expr_visit(red->a[0], find_map, &w);
  if (!w.map || w.other || w.load->n < 3 || red->n != w.load->n - 1) return NULL;
  for (int d = 0; d < w.load->n; d++) {
    const Sym *s = d < 2 ? st->axes[d] : red->a[d - 1]->u.sym;
    if (w.load->a[d] != s->self || s->kind == SYM_DIM || s->extent != w.map->shape[d]) return NULL;
  }
  return tensor_elements(c, st->out) == ex_mul(c, st->out->shape[0], st->out->shape[1]) ? w.load : NULL;
}

static Item *maker(Pools *p, const Tensor *t, int before) {
  for (int i = before - 1; i >= 0; i--)
    if (p->body->items.v[i]->kind == ITEM_GROUP && group_root(p->body->items.v[i]->group)->out == t) return p->body->items.v[i];
  return NULL;
}

/* Can parts of the map be made as well as the whole: alone in its kernel, channel by channel, in vectors of them? */
static bool goes_by_parts(Pools *p, const Group *g) {
  const Stage *st = group_root(g);
  const Layout *l = st->out->layout;
  Contract k;
  if (g->stages.n > 1 || g->block || st->at || !l || l->n != st->out->rank + 1 || l->part[1].div != p->lanes) return false;
  if (st->axes[0]->kind == SYM_DIM || module_is_state(p->m, st->out) || !contract_view(p->c, st, p->lanes, &k)) return false;
  Walk w = access_walk(p->c, st->body, st->axes[1], p->lanes);
  return !w.bad && !w.turned && access_vector_axis(p->c, st, p->lanes) == 1;
}

/* Rows of a part: as many as leave it in half of the first-level cache and threads enough parts to share; -1: extents are open. */
static int64_t rows_of(const Pools *p, const Tensor *map) {
  enum { PARTS = 32 };
  int64_t n = 1, channels, rows, row = p->lanes * dtype_bytes(map->dtype), extent, best = 1;
  for (int d = 1; d < map->rank; d++)
    if (!ex_is_int(map->shape[d], &extent)) return -1;
    else if (d > 2) row *= extent;
  ex_is_int(map->shape[0], &n), ex_is_int(map->shape[1], &channels), ex_is_int(map->shape[2], &rows);
  for (int64_t b = 2; b <= rows && b * row <= p->m->target->l1_bytes / 2; b++)
    if (rows % b == 0 && n * ((channels + p->lanes - 1) / p->lanes) * (rows / b) >= PARTS) best = b;
  return best;
}

/* sums[n, c, g]: of b rows of the map. */
static Stage *part_sums(Pools *p, const Stage *pool, const Expr *load, int64_t b) {
  Ctx *c = p->c;
  const Expr *red = stage_reduce(pool->body);
  Expr *shape[] = {load->u.tensor->shape[0], load->u.tensor->shape[1], ex_div(c, load->u.tensor->shape[2], ex_int(c, b))};
  Stage *st = NEW(c, Stage);
  st->out = tensor_new(c, ctx_printf(c, "%s.sums", pool->out->name), (DType)red->dtype, 3, shape);
  Layout *l = st->out->layout = NEW(c, Layout);
  for (int d = 0; d < 3; d++) l->part[l->n++] = (LayoutPart){(int8_t)d, d == 1 ? p->lanes : 1, 0, 0};
  l->part[l->n++] = (LayoutPart){1, 1, p->lanes, 0};
  st->axes = NEW_ARRAY(c, Sym *, 3);
  for (int d = 0; d < 3; d++) st->axes[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", d), shape[d]);
  Subst s = subst_new(c);
  Sym *over[MAX_RANK];
  for (int i = 1; i < red->n; i++) over[i - 1] = i == 1 ? sym_axis(c, SYM_REDUCE, "h", ex_int(c, b)) : red->a[i]->u.sym;
  subst_set(&s, pool->axes[0], st->axes[0]->self);
  subst_set(&s, pool->axes[1], st->axes[1]->self);
  subst_set(&s, red->a[1]->u.sym, ex_add(c, ex_mul(c, st->axes[2]->self, ex_int(c, b)), over[0]->self));
  st->body = ex_reduce(c, (Combiner)red->u.i, subst_apply(&s, red->a[0]), over, red->n - 1);
  return st;
}

static void reduce_sums(Ctx *c, Stage *pool, Tensor *sums) {
  Expr *red = stage_reduce(pool->body);
  Sym *g = sym_axis(c, SYM_REDUCE, "g", sums->shape[2]);
  Expr *at[] = {pool->axes[0]->self, pool->axes[1]->self, g->self};
  pool->body = expr_replace(c, pool->body, red, ex_reduce(c, (Combiner)red->u.i, ex_load(c, sums, at, 3), &g, 1));
}

/* Does the pool read nothing but the map and constants, and write whole blocks? Then it may be made where the map is. */
static bool stands_early(Pools *p, const Stage *pool) {
  MapLoad w = {0};
  expr_visit(pool->body, find_map, &w);
  return !w.other && ex_equals_int(ex_mod(p->c, pool->out->shape[1], ex_int(p->c, p->lanes)), 0);
}

/* The group's pool, or a part of it, goes into the kernel that makes its map, one of the items `before`. Is the group empty then? */
static bool join(Pools *p, Group *at, int before) {
  Ctx *c = p->c;
  Stage *pool = group_root(at);
  Expr *load = at->stages.n == 1 && !at->block ? pooled(c, pool) : NULL;
  Item *made = load ? maker(p, load->u.tensor, before) : NULL;
  int64_t b = made && goes_by_parts(p, made->group) ? rows_of(p, load->u.tensor) : -1;
  if (b < 0 || module_is_state(p->m, pool->out)) return false;
  bool whole = ex_equals_int(load->u.tensor->shape[2], b) && stands_early(p, pool);
  Stage *root = whole ? pool : part_sums(p, pool, load, b);
  Group *g = made->group;
  if (!whole) reduce_sums(c, pool, root->out);
  group_root(g)->kept = true;
  vec_push(c, &g->stages, root);
  g->block = NEW_ARRAY(c, int64_t, root->out->rank);
  g->block[0] = 1;
  g->block[1] = p->lanes;
  if (!whole) g->block[2] = 1;
  if (p->m->opt->explain)
    str_add(&p->m->notes, "  %s: reduced with %s, in blocks of %lld rows\n", pool->out->name, load->u.tensor->name, (long long)b);
  return whole;
}

/* ---- windows side by side ---- */
/* How long the windows are that the stage takes from dimension d of a map, one beside the other; 1: it reads element by element; 0: neither. */
static int64_t window_along(Ctx *c, const Stage *pool, const Expr *load, int d) {
  const Expr *red = stage_reduce(pool->body);
  Expr *coef, *rest;
  int64_t step, n;
  if (load->a[d] == pool->axes[d]->self) return 1;
  if (!expr_is_linear(c, load->a[d], pool->axes[d], &coef, &rest) || !ex_is_int(coef, &step)) return 0;
  for (int i = 1; i < red->n; i++)
    if (rest == red->a[i] && ex_is_int(rest->u.sym->extent, &n) && n == step) return step;
  return 0;
}

/* The pool's blocks where those of its map are whole windows, and the pool's extents whole blocks; NULL: they are not. */
static int64_t *blocks_of_windows(Pools *p, const Stage *pool, const Expr *load, const Group *made) {
  int rank = pool->out->rank;
  int64_t *block = NEW_ARRAY(p->c, int64_t, rank), n;
  for (int d = 0; d < rank; d++) {
    int64_t step = window_along(p->c, pool, load, d);
    if (!step || pool->axes[d]->kind == SYM_DIM || !ex_is_int(pool->out->shape[d], &n)) return NULL;
    if (!made->block) continue;
    if (made->block[d] % step) return NULL;
    block[d] = made->block[d] / step;
    if (block[d] && n % block[d] && n > block[d]) return NULL;
  }
  return block;
}

/* The pool of few elements a window, in terms of what the map is made of: what neighbours share is computed once. */
static bool inline_map(Ctx *c, Stage *pool, const Stage *map, const Expr *load) {
  enum { FEW = 4 };
  Expr *red = stage_reduce(pool->body), *e = red->a[0], *all = NULL;
  int64_t n, count = 1;
  if (stage_reduce(map->body) || (red->u.i != RED_SUM && red->u.i != RED_MAX) || e != load) return false;
  for (int i = 1; i < red->n; i++) count *= ex_is_int(red->a[i]->u.sym->extent, &n) ? n : FEW + 1;
  for (int64_t k = 0; k < count && count <= FEW; k++) {
    Subst at = subst_new(c), axes = subst_new(c);
    for (int64_t i = 1, rest = k; i < red->n; i++, rest /= n) {
      ex_is_int(red->a[i]->u.sym->extent, &n);
      subst_set(&at, red->a[i]->u.sym, ex_int(c, rest % n));
    }
    for (int d = 0; d < load->n; d++) subst_set(&axes, map->axes[d], subst_apply(&at, load->a[d]));
    Expr *one = subst_apply(&axes, map->body);
    all = all ? combiner_apply(c, (Combiner)red->u.i, all, one) : one;
  }
  if (all) pool->body = expr_replace(c, pool->body, red, all);
  return all;
}

/* By blocks of channels, or not, both. */
static bool is_stored_alike(const Tensor *a, const Tensor *b) {
  return (a->layout ? a->layout->n - a->rank : 0) == (b->layout ? b->layout->n - b->rank : 0);
}

static bool join_windows(Pools *p, Group *at, int before) {
  Stage *pool = group_root(at);
  const Expr *red = at->stages.n == 1 && !at->block && !pool->at ? stage_reduce(pool->body) : NULL;
  MapLoad w = {0};
  if (!red || is_contraction(red) || module_is_state(p->m, pool->out)) return false;
  expr_visit(pool->body, find_map, &w);
  if (!w.map || w.other || w.load->n != pool->out->rank || map_get(p->readers, KEY(w.map)) != (void *)1) return false;
  Item *made = maker(p, w.map, before);
  Group *g = made ? made->group : NULL;
  if (!g || group_root(g)->at || w.map->scope != SCOPE_NONE || module_is_state(p->m, w.map) || !is_stored_alike(pool->out, w.map)) return false;
  for (int i = 0; i < g->stages.n; i++)
    if (g->stages.v[i]->kept) return false;
  int64_t *block = blocks_of_windows(p, pool, w.load, g);
  bool inlined = block && inline_map(p->c, pool, group_root(g), w.load);
  if (!block || !(inlined || g->block)) return false;
  if (p->m->opt->explain) str_add(&p->m->notes, "  %s: made with %s, which is not stored\n", pool->out->name, w.map->name);
  if (inlined) g->stages.n--;
  if (g->block) g->block = block;
  vec_push(p->c, &g->stages, pool);
  return true;
}

static void pools_body(Module *m, Body *b, Map *readers) {
  Pools p = {m, m->c, b, target_lanes(m->target, 32), readers};
  int n = 0;
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) pools_body(m, it->body[k], readers);
    if (it->kind == ITEM_GROUP && (join(&p, it->group, n) || join_windows(&p, it->group, n))) continue;
    b->items.v[n++] = it;
  }
  b->items.n = n;
}

void pass_pools(Module *m) {
  Map readers = body_readers(m->c, m->body);
  pools_body(m, m->body, &readers);
}
