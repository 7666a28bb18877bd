/* layout.c - pass_layout: an index map per tensor, for the whole model.
 *
 * A map lies in rows, NCHWc (channels split by the vector width, the block innermost) or with its channels last, whichever costs least: what its
 * maker and all of its readers pay for a vector, from the last reader of the model back and then, as makers' own maps are laid out, forward.
 * Convolutions write blocks and channels that lie last as they are made, those of few channels rows, and element-wise and window stages follow
 * what they read; rows of products by weights are read along; parts that begin inside a block are taken from it an element at a time, and can
 * only be written where channels lie last, or rows do. A tensor that is read with zero
 * padding gets a ring of zeros as wide as its readers need, so that padded loads become plain ones; a model input gets a
 * ringed copy. Everything else stays row-major.
 */
#include <math.h>

#include "passes.h"
#include "stages.h"

typedef struct { Module *m; Ctx *c; int lanes; Body *body; Map ringed, turned, rows, readers; VEC(Tensor *) list; } Planner;

static Layout *layout_of(Ctx *c, Tensor *t) {
  if (t->layout) return t->layout;
  Layout *l = NEW(c, Layout);
  for (int d = 0; d < t->rank; d++) l->part[l->n++] = (LayoutPart){(int8_t)d, 1, 0, 0};
  return t->layout = l;
}

static bool is_blocked(const Tensor *t) { return t->layout && t->layout->n > t->rank; }

static bool has_channels_last(const Tensor *t) { return t->layout && t->layout->n == t->rank && t->rank > 2 && t->layout->part[t->rank - 1].dim == 1; }

static void block_channels(Ctx *c, Tensor *t, int lanes) {
  Layout *l = layout_of(c, t);
  l->part[1].div = lanes;
  l->part[l->n++] = (LayoutPart){1, 1, lanes, 0};
}

static void channels_last(Ctx *c, Tensor *t) {
  Layout *l = layout_of(c, t);
  for (int d = 1; d + 1 < t->rank; d++) l->part[d].dim = (int8_t)(d + 1);
  l->part[t->rank - 1].dim = 1;
}

/* ---- which maps are blocked ---- */
typedef struct { Ctx *c; const Stage *st; int lanes; bool weights, map, same_channel, channel_last, row_major, last; } Roles;   /* last: of a map that it reads */

static bool uses_axes(const Expr *load, const Stage *st, int from, int to) {
  for (int d = 0; d < load->n; d++)
    for (int i = from; i < to; i++)
      if (expr_uses(load->a[d], st->axes[i])) return true;
  return false;
}

/* Do lanes of the load's channels move with lanes of the stage's? */
static bool in_lanes(Ctx *c, const Expr *load, const Stage *st) {
  Expr *from = ex_sub(c, load->a[1], st->axes[1]->self);
  return !expr_uses(from, st->axes[1]) && expr_range(c, from).multiple % load->u.tensor->layout->part[1].div == 0;
}

/* Do lanes of the index move with lanes of the axis? Panels of whole vectors may follow each other elsewhere. */
static bool is_lane_of(const Expr *index, const Sym *axis, int lanes) {
  int64_t panel;
  if (index->op == EX_MOD && ex_is_int(index->a[1], &panel) && panel % lanes == 0) index = index->a[0];
  return index == axis->self;
}

static void find_roles(const Expr *e, void *user) {
  Roles *r = user;
  if (e->op != EX_LOAD || e->u.tensor->data) return;
  const Stage *st = r->st;
  const Tensor *t = e->u.tensor;
  bool spatial = uses_axes(e, st, 2, st->out->rank) || (st->clipped && uses_axes(e, st, 0, 1));       /* tile by tile, all in one axis */
  r->channel_last |= !is_blocked(t) && spatial && is_lane_of(e->a[e->n - 1], st->axes[1], r->lanes);
  r->same_channel |= is_blocked(t) && t->rank == st->out->rank && in_lanes(r->c, e, st);
  r->last |= has_channels_last(t) && t->rank == st->out->rank && spatial && expr_uses(e->a[1], st->axes[1]);
}

/* Of a sum of products: weights move with the channels, the map with space; weights that move with space are a matrix's columns. */
static void find_factors(const Expr *e, void *user) {
  Roles *r = user;
  if (e->op != EX_LOAD) return;
  bool spatial = uses_axes(e, r->st, 2, r->st->out->rank);
  r->weights |= e->u.tensor->data && uses_axes(e, r->st, 1, 2);
  r->row_major |= e->u.tensor->data && spatial;
  r->map |= !e->u.tensor->data && spatial;
}

/* Of a shape that is worth being stored by channel blocks. */
static bool is_map(const Tensor *t, int lanes) {
  int64_t channels;
  return t->rank >= 3 && t->rank <= 5 && t->dtype == DT_F32 && ex_is_int(t->shape[1], &channels) && channels * 2 >= lanes;
}

/* ---- who reads a map, and what that costs ---- */
/* Cycles for a vector of a map that is not read or written as it lies: an element at a time; by way of a copy; twice an element at a time; in
 * lines that are apart from each other, once or, as products do, for every panel; lines that are not those of the neighbouring point. */
static const double SCATTERED = 25, COPIED = 16, OFTEN = 50, APART = 1, AGAIN = 1000, NEXT = 0.5;
typedef enum { IN_ROWS, IN_BLOCKS, CHANNELS_LAST, WAYS } Way;
typedef struct {
  double lines;                    /* readers along whose last axis the channels lie, more than others */
  bool skewed, parted;             /* read, written from the middle of a block on */
  double narrow, wide;             /* convolutions that read it, or what is made of it point by point, and compute vectors of points, of channels */
  double narrow_made, all_made;    /* channels that such ones make of it */
} Readers;

static Readers *readers_of(Planner *p, const Tensor *t) {
  Readers *r = map_get(&p->readers, KEY(t));
  if (!r) map_set(&p->readers, KEY(t), r = NEW(p->c, Readers));
  return r;
}

typedef struct { Planner *p; const Stage *st; const Expr *reduce; } Reader;

/* A stage that has the channels last. */
static void find_turned(const Expr *e, void *user) {
  Reader *r = user;
  int last = r->st->out->rank - 1;
  if (e->op == EX_LOAD && e->n >= 3 && last > 1 && e->a[1] == r->st->axes[last]->self) map_set(&r->p->turned, KEY(e->u.tensor), e->u.tensor);
}

/* Are channels read, as they move with s, from the middle of a block on? Groups that parts of a block hold are not. */
static bool is_skewed(const Reader *r, const Expr *load, const Sym *s) {
  Expr *step, *rest;
  int lanes = r->p->lanes;
  if (!expr_uses(load->a[1], s) || !expr_is_linear(r->p->c, load->a[1], s, &step, &rest) || !ex_equals_int(step, 1)) return false;
  int64_t begins = expr_range(r->p->c, rest).multiple, n;
  bool inside = !ex_is_int(rest, NULL) && begins && lanes % begins == 0 && ex_is_int(s->extent, &n) && n <= begins;
  return begins % lanes && !inside;
}

static void count_reader(const Expr *e, void *user) {
  Reader *r = user;
  Expr *step, *rest;
  if (e->op != EX_LOAD || e->n < 3) return;
  Sym *last = r->st->out->rank ? r->st->axes[r->st->out->rank - 1] : NULL;
  bool line = last && !is_contraction(r->reduce) && expr_is_linear(r->p->c, e->a[1], last, &step, &rest) && ex_equals_int(step, 1);
  for (int d = 2; d < e->n; d++) line &= last && !expr_uses(e->a[d], last);
  Readers *k = readers_of(r->p, e->u.tensor);
  k->lines += line ? APART : -AGAIN;
  for (int i = 1; is_contraction(r->reduce) && i < r->reduce->n; i++) {
    if (!is_skewed(r, e, r->reduce->a[i]->u.sym)) continue;
    k->skewed = true;
    if (expr_uses(e->a[1], r->st->axes[1])) readers_of(r->p, r->st->out)->skewed = true;       /* groups: the result has them as well */
  }
  if (r->st->out->rank < 3 || !is_skewed(r, e, r->st->axes[1])) return;
  k->skewed = true;
  if (!r->reduce) readers_of(r->p, r->st->out)->skewed = true;
}

static bool is_weight(const Expr *e) { return e->op == EX_LOAD && e->u.tensor->data; }

/* A product of rows by weights: it sums over the last dimension, and dimension 1 counts rows. */
static void find_rows(const Expr *e, void *user) {
  Reader *r = user;
  if (e->op != EX_LOAD || e->n < 3 || e->u.tensor->data || !uses_axes(e, r->st, 0, r->st->out->rank)) return;
  for (int i = 1; i < r->reduce->n; i++)
    if (e->a[e->n - 1] == r->reduce->a[i] && !expr_uses(e->a[1], r->reduce->a[i]->u.sym)) map_set(&r->p->rows, KEY(e->u.tensor), e->u.tensor);
}

/* What is read at the place that is written has its rows where the result has them. */
static void pass_rows_on(const Expr *e, void *user) {
  Reader *r = user;
  if (e->op != EX_LOAD || e->n != r->st->out->rank || e->u.tensor->data) return;
  bool same = e->a[1] == r->st->axes[1]->self;
  for (int d = 0; d < e->n; d++) same &= e->a[d] == r->st->axes[d]->self || ex_is_int(e->a[d], NULL) || (e->a[d]->op == EX_SYM && e->a[d]->u.sym->kind == SYM_REDUCE);
  if (same) map_set(&r->p->rows, KEY(e->u.tensor), e->u.tensor);
}

/* Of so few channels that vectors of them would be more idle than those of points are. */
static bool is_narrow(const Planner *p, const Stage *st, const Expr *map) {
  const double more = 1.1;
  int last = st->out->rank - 1;
  int64_t channels, points;
  Expr *step, *rest;
  if (!ex_is_int(st->axes[1]->extent, &channels) || !ex_is_int(st->axes[last]->extent, &points) || channels > p->lanes) return false;
  if (!expr_is_linear(p->c, map->a[map->n - 1], st->axes[last], &step, &rest) || !ex_equals_int(step, 1)) return false;
  return (double)p->lanes / (double)channels > more * ceil((double)points / p->lanes) * p->lanes / (double)points;
}

/* Which way a convolution's vectors run, for what it reads and what it makes. */
static void count_points(Planner *p, const Stage *st, const Expr *reduce) {
  const Expr *product = reduce->a[0];
  int64_t channels;
  if (st->out->rank < 3 || product->n != 2) return;
  for (int i = 0; i < 2; i++) {
    const Expr *w = product->a[i], *map = product->a[1 - i];
    if (is_padded_load(p->c, map)) map = map->a[1];
    if (!is_weight(w) || map->op != EX_LOAD || map->n != st->out->rank || !uses_axes(w, st, 1, 2) || uses_axes(w, st, 2, st->out->rank)) continue;
    bool narrow = !expr_uses(map->a[1], st->axes[1]) && is_narrow(p, st, map);     /* groups lie along the channels */
    Readers *from = readers_of(p, map->u.tensor), *to = readers_of(p, st->out);
    *(narrow ? &from->narrow : &from->wide) += 1;
    if (!ex_is_int(st->axes[1]->extent, &channels)) return;
    to->all_made += (double)channels;
    to->narrow_made += narrow ? (double)channels : 0;
  }
}

/* What is read at the place that is written is wanted as the result is. */
static void pass_points_on(const Expr *e, void *user) {
  Reader *r = user;
  if (e->op != EX_LOAD || e->n != r->st->out->rank || e->u.tensor->data) return;
  for (int d = 0; d < e->n; d++)
    if (!ex_is_int(ex_sub(r->p->c, e->a[d], r->st->axes[d]->self), NULL) && r->st->axes[d]->max > 0) return;
  Readers *from = readers_of(r->p, e->u.tensor), *to = readers_of(r->p, r->st->out);
  from->narrow += to->narrow;
  from->wide += to->wide;
}

static void stage_reader(Planner *p, const Stage *st) {
  Reader r = {p, st, stage_reduce(st->body)};
  if (st->at && st->out->rank >= 3 && expr_range(p->c, ex_sub(p->c, st->at[1], st->axes[1]->self)).multiple % p->lanes)
    readers_of(p, st->out)->parted = true;
  expr_visit(st->body, count_reader, &r);
  if (!r.reduce) expr_visit(st->body, find_turned, &r), expr_visit(st->body, pass_points_on, &r);
  if (is_contraction(r.reduce)) count_points(p, st, r.reduce);
  if (is_contraction(r.reduce) && (is_weight(r.reduce->a[0]->a[0]) || is_weight(r.reduce->a[0]->a[1]))) expr_visit(r.reduce->a[0], find_rows, &r);
  if (st->out->rank >= 3 && map_get(&p->rows, KEY(st->out))) expr_visit(st->body, pass_rows_on, &r);
}

/* From the last reader back. */
static void survey(Planner *p, Body *b) {
  for (int i = b->items.n - 1; i >= 0; i--) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) survey(p, it->body[k]);
    for (int k = it->kind == ITEM_GROUP ? it->group->stages.n - 1 : -1; k >= 0; k--) stage_reader(p, it->group->stages.v[k]);
  }
}

/* What its maker and its readers pay for each way that the stage's map may lie. */
static void weigh_ways(Planner *p, const Stage *st, double *cost) {
  const Readers *k = readers_of(p, st->out);
  Roles r = {.c = p->c, .st = st, .lanes = p->lanes};
  Expr *red = stage_reduce(st->body);
  bool product = is_contraction(red), rows = map_get(&p->rows, KEY(st->out)), turned = map_get(&p->turned, KEY(st->out));
  expr_visit(st->body, find_roles, &r);
  if (product) expr_visit(red->a[0], find_factors, &r);
  bool last = r.last && !product, by_rows = product && r.row_major;
  bool by_channels = r.same_channel || last || r.channel_last || (r.weights && r.map);
  if (!red && turned) by_channels = true, by_rows = false;   /* read with the channels last: turned once, here */
  double skew = k->skewed ? SCATTERED / 2 : 0;               /* of some of its readers */
  double points = k->all_made ? k->narrow_made / k->all_made : 0;
  cost[IN_ROWS] = (by_channels ? SCATTERED * (1 - points) : 0) + (k->narrow + points > 0 ? SCATTERED * k->wide : 0);
  cost[IN_BLOCKS] = (by_rows ? OFTEN : by_channels ? 0 : APART) + (rows ? OFTEN : 0) + COPIED * (k->narrow + points) + skew;
  cost[CHANNELS_LAST] = cost[IN_BLOCKS] - skew + NEXT;
  if (product) cost[IN_BLOCKS] += fmax(k->lines, 0);
  if (last) cost[IN_BLOCKS] += APART;
  if (k->parted) cost[IN_BLOCKS] = cost[CHANNELS_LAST] + AGAIN;
}

/* The way that costs least; rows where there is no choice. */
static Way choose_way(Planner *p, const Stage *st) {
  static const char *const names[WAYS] = {"rows", "blocks of channels", "channels last"};
  double cost[WAYS];
  Way best = IN_ROWS;
  if (!is_map(st->out, p->lanes) || module_is_state(p->m, st->out) || st->axes[1]->kind == SYM_DIM) return IN_ROWS;
  weigh_ways(p, st, cost);
  for (Way way = IN_BLOCKS; way < WAYS; way++)
    if (cost[way] < cost[best]) best = way;
  if (p->m->opt->explain && st->out->scope != SCOPE_OUTPUT)    /* an output lies in rows in the end */
    str_add(&p->m->notes, "  %s: %s (cycles a vector: rows %g, blocks %g, last %g)\n", st->out->name, names[best], cost[0], cost[1], cost[2]);
  return best;
}

/* A model output is row-major: a blocked map is made first and copied. */
static void split_output(Planner *p, Body *b, int item) {
  Ctx *c = p->c;
  Group *g = b->items.v[item]->group;
  Stage *st = group_root(g), *copy = NEW(c, Stage);
  Tensor *map = tensor_new(c, ctx_printf(c, "%s.map", st->out->name), st->out->dtype, st->out->rank, st->out->shape);
  Expr *at[MAX_RANK];
  copy->out = st->out;
  copy->axes = NEW_ARRAY(c, Sym *, map->rank);
  for (int d = 0; d < map->rank; d++) at[d] = (copy->axes[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", d), map->shape[d]))->self;
  copy->body = ex_load(c, map, at, map->rank);
  st->out = map;
  body_insert(c, b, item + 1, copy, g->source);
}

/* Rows of maps that are stored by channel blocks lie side by side: the group computes a block of them at a time. Blocks that are not full
 * are not worth it: every stage is then a kernel of its own. Returns how many items the group takes more. */
static int rows_to_blocks(Planner *p, Body *b, int item) {
  Ctx *c = p->c;
  Group *g = b->items.v[item]->group;
  Stage *root = group_root(g);
  int members = g->stages.n - 1;
  if (!members || g->block) return 0;
  if (ex_equals_int(ex_mod(c, root->out->shape[1], ex_int(c, p->lanes)), 0)) {
    g->block = NEW_ARRAY(c, int64_t, root->out->rank);
    g->block[0] = 1;
    g->block[1] = p->lanes;
    return 0;
  }
  for (int i = 0; i < members; i++) body_insert(c, b, item + i, g->stages.v[i], g->source);
  g->stages.v[0] = root;
  g->stages.n = 1;
  return members;
}

static void choose_blocks(Planner *p, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) choose_blocks(p, it->body[k]);
    if (it->kind != ITEM_GROUP) continue;
    Stage *st = group_root(it->group);
    Way way = st->out->layout ? IN_ROWS : choose_way(p, st);
    if (way == IN_ROWS) continue;
    i += rows_to_blocks(p, b, i);
    if (st->out->scope == SCOPE_OUTPUT) {
      if (!stage_reduce(st->body) || st->at) continue;
      split_output(p, b, i);
    }
    if (way == CHANNELS_LAST) channels_last(p->c, st->out);
    else block_channels(p->c, st->out, p->lanes);
  }
}

/* ---- rings ---- */
enum { RING_MAX = 128 };

static bool ring_needed(Ctx *c, const Expr *load, int32_t *lo, int32_t *hi) {
  const Tensor *t = load->u.tensor;
  for (int d = 0; d < load->n; d++) {
    lo[d] = hi[d] = 0;
    while (lo[d] <= RING_MAX && !expr_proves(c, ex_le(c, ex_int(c, -lo[d]), load->a[d]))) lo[d]++;
    while (hi[d] <= RING_MAX && !expr_proves(c, ex_lt(c, load->a[d], ex_add(c, t->shape[d], ex_int(c, hi[d]))))) hi[d]++;
    if (lo[d] > RING_MAX || hi[d] > RING_MAX) return false;
  }
  return true;
}

static void widen_ring(const Expr *e, void *user) {
  Planner *p = user;
  int32_t lo[MAX_RANK], hi[MAX_RANK];
  if (!is_padded_load(p->c, e)) return;
  Tensor *t = e->a[1]->u.tensor;
  if (t->data || t->scope == SCOPE_OUTPUT || module_is_state(p->m, t) || !ring_needed(p->c, e->a[1], lo, hi)) return;
  if (t->scope == SCOPE_INPUT) {
    if (!map_get(&p->ringed, KEY(t))) {
      Tensor *copy = tensor_new(p->c, ctx_printf(p->c, "%s.ring", t->name), t->dtype, t->rank, t->shape);
      map_set(&p->ringed, KEY(t), copy);
      vec_push(p->c, &p->list, t);
    }
    t = map_get(&p->ringed, KEY(t));
  }
  if (is_blocked(t) && (lo[1] || hi[1])) return;             /* a block begins where the channels do */
  Layout *l = layout_of(p->c, t);
  for (int d = 0; d < t->rank; d++) {
    l->ring_lo[d] = MAX(l->ring_lo[d], lo[d]);
    l->ring_hi[d] = MAX(l->ring_hi[d], hi[d]);
  }
}

static void group_rings(Group *g, void *user) {
  for (int i = 0; i < g->stages.n; i++) expr_visit(g->stages.v[i]->body, widen_ring, user);
}

static Expr *read_ringed(Ctx *c, Expr *e, void *user) {
  Planner *p = user;
  Tensor *copy = e->op == EX_LOAD ? map_get(&p->ringed, KEY(e->u.tensor)) : NULL;
  return copy ? ex_load(c, copy, e->a, e->n) : e;
}

static void use_ringed(Group *g, void *user) {
  Planner *p = user;
  for (int i = 0; i < g->stages.n; i++) g->stages.v[i]->body = expr_map(p->c, g->stages.v[i]->body, read_ringed, p);
}

static void add_ringed_copies(Planner *p) {
  Ctx *c = p->c;
  for (int i = 0; i < p->list.n; i++) {
    Tensor *from = p->list.v[i], *to = map_get(&p->ringed, KEY(from));
    Stage *st = NEW(c, Stage);
    Expr *at[MAX_RANK];
    const Layout *l = to->layout;
    if (is_map(to, p->lanes) && !l->ring_lo[1] && !l->ring_hi[1]) block_channels(c, to, p->lanes);   /* a block begins where the channels do */
    st->out = to;
    st->axes = NEW_ARRAY(c, Sym *, to->rank);
    for (int d = 0; d < to->rank; d++) at[d] = (st->axes[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", d), to->shape[d]))->self;
    st->body = ex_load(c, from, at, to->rank);
    body_insert(c, p->body, 0, st, from->name);
  }
}

/* ---- padded loads that a ring answers ---- */
typedef struct { Ctx *c; const Group *g; } Ringed;
static Expr *drop_bounds(Ctx *c, Expr *e, void *user) {
  const Ringed *r = user;
  if (!is_padded_load(c, e) || !e->a[1]->u.tensor->layout || !layout_covers(c, e->a[1]->u.tensor, e->a[1]->a)) return e;
  for (int i = 0; i + 1 < r->g->stages.n; i++)
    if (r->g->stages.v[i]->out == e->a[1]->u.tensor) return e;               /* held in part, without its ring */
  return e->a[1];
}

/* While indices still are those of axes: what loops make of them is harder to prove. */
static void group_padded(Group *g, void *user) {
  Planner *p = user;
  for (int i = 0; i < g->stages.n; i++) g->stages.v[i]->body = expr_map(p->c, g->stages.v[i]->body, drop_bounds, &(Ringed){p->c, g});
}

void pass_layout(Module *m) {
  Planner p = {.m = m, .c = m->c, .lanes = target_lanes(m->target, 32), .body = m->body};
  p.ringed = map_new(m->c), p.turned = map_new(m->c), p.rows = map_new(m->c), p.readers = map_new(m->c);
  survey(&p, m->body);
  choose_blocks(&p, m->body);
  body_each_group(m->body, group_rings, &p);
  body_each_group(m->body, use_ringed, &p);
  add_ringed_copies(&p);
  body_each_group(m->body, group_padded, &p);
}
