/* winograd.c - pass_winograd: 3x3 convolutions of stride 1 with fewer multiplications, as a rewrite of the compute.
 *
 * Before: y[n,k,h,w] = f(sum(c, r, s) x[n, c, h+r-p, w+s-q] * g[k,c,r,s])
 * After:  V[g,a,b,t,c] = (B^T d B)[a,b]      d: the tile t of band g of x, (m+2) x (m+2), tiles m apart
 *         M[g,a,b,t,k] = sum(c) V[g,a,b,t,c] * U[a,b,c,k]    U = G g G^T, made when it is stored
 *         y = f((A^T M A)[h % m, w % m])     of the tile at h / m, w / m
 * A band is some rows of tiles of one image, and all three are one group that works band by band, so that V and M stay in cache; or
 * everything is one band and each is a kernel. Of maps whose size is open a band is a number of tiles in their order, whatever row or image
 * they are of, and y is made tile by tile: of a tile that ends beyond the map what lies outside is not stored. The transforms are
 * expressions that select by a, b (by h % m, w % m); their schedules unroll those. Source: winograd.def.
 */
#include <math.h>

#include "bilinear.h"
#include "passes.h"

#define S 1.41421356237309504880
#define M(...) {__VA_ARGS__}
typedef struct { int m, r; double bt[36], g[18], at[24]; } Transform;
static const Transform transforms[] = {
#define WINOGRAD(m, r, bt, g, at) {m, r, bt, g, at},
#include "winograd.def"
#undef WINOGRAD
};
#undef M
#undef S

typedef struct {
  Module *m;
  Ctx *c;
  Map *made;                       /* transformed weights, by those they come from and tile */
  Stage *st;
  Expr *reduce, *load, *fill_cond; /* of the map: its load, and the bounds checks around it or NULL */
  Tensor *weights;
  Sym *ch, *row, *col;             /* reduction axes */
  Expr *first_ch;                  /* of the map's channels */
  int64_t in_channels, channels, pad_h, pad_w;
  int64_t n, h, w;                 /* an extent that is open counts as usual ones are */
  bool open;                       /* the map's size is */
  const Transform *t;
  int64_t tiles_h, tiles_w;
  int64_t band;                    /* rows of tiles, tiles where the size is open; 0: all in one band */
} Conv;

/* ---- is it one? ---- */
static bool offset_by(Ctx *c, Expr *index, Sym *out, Sym *tap, int64_t *pad) {
  Expr *rest = ex_sub(c, ex_sub(c, index, out->self), tap->self);
  int64_t v;
  if (!ex_is_int(rest, &v)) return false;
  *pad = -v;
  return v <= 0;
}

static bool match_weights(Conv *k, const Expr *e) {
  if (e->op != EX_LOAD || e->n != 4 || !e->u.tensor->data || e->a[0] != k->st->axes[1]->self) return false;
  for (int i = 1; i < 4; i++)
    if (e->a[i]->op != EX_SYM || e->a[i]->u.sym->kind != SYM_REDUCE) return false;
  k->weights = e->u.tensor;
  k->ch = e->a[1]->u.sym;
  k->row = e->a[2]->u.sym;
  k->col = e->a[3]->u.sym;
  return ex_equals_int(e->u.tensor->shape[2], 3) && ex_equals_int(e->u.tensor->shape[3], 3);
}

static bool match_map(Conv *k, Expr *e) {
  Sym **axes = k->st->axes;
  if (e->op == EX_SELECT && ex_is_const(e->a[2]) && e->a[2]->u.f == 0) k->fill_cond = e->a[0], e = e->a[1];
  k->load = e;
  return e->op == EX_LOAD && e->n == 4 && !e->u.tensor->data && (e->a[0] == axes[0]->self || axes[0]->max == 0) &&
         ex_is_int(k->first_ch = ex_sub(k->c, e->a[1], k->ch->self), NULL) && offset_by(k->c, e->a[2], axes[2], k->row, &k->pad_h) &&
         offset_by(k->c, e->a[3], axes[3], k->col, &k->pad_w);
}

enum { OPEN_IMAGES = 1, OPEN_SIDE = 56 };

static int64_t usual(const Expr *extent, int64_t open) {
  int64_t n;
  return ex_is_int(extent, &n) ? n : open;
}

static bool match(Conv *k, Group *g) {
  k->st = group_root(g);
  k->reduce = stage_reduce(k->st->body);
  Expr *r = k->reduce, *p = r ? r->a[0] : NULL;
  Expr **shape = k->st->out->shape;
  if (g->stages.n > 1 || k->st->at || !r || r->n != 4 || r->u.i != RED_SUM || r->dtype != DT_F32 || p->op != EX_MUL || k->st->out->rank != 4) return false;
  for (int i = 0; i < 4; i++)
    if (k->st->axes[i]->kind == SYM_DIM) return false;
  if (!ex_is_int(shape[1], &k->channels)) return false;
  k->n = usual(shape[0], OPEN_IMAGES);
  k->h = usual(shape[2], OPEN_SIDE);
  k->w = usual(shape[3], OPEN_SIDE);
  k->open = !ex_is_int(shape[2], NULL) || !ex_is_int(shape[3], NULL);
  bool second = match_weights(k, p->a[1]);
  if (!second && !match_weights(k, p->a[0])) return false;
  return match_map(k, p->a[!second]) && ex_is_int(k->ch->extent, &k->in_channels);
}

/* ---- what it costs: cycles of a core that does two multiply-adds of vectors in one; measured on Zen 3 and Zen 5 ---- */
static const double efficiency = 0.9,                        /* of products in register tiles */
    per_element = 6.4,                                       /* a vector of V or M made or used */
    dram = 9.5, l3 = 12, l2 = 64;                            /* bytes a cycle */

/* Bytes read again and again out of `size`; what little does not fit is met in order. */
static double traffic(const Target *t, double bytes, double size) {
  return bytes / (size <= (double)t->l2_bytes * 1.25 ? l2 : size <= (double)t->l3_bytes / 2 ? l3 : dram / 2);
}

/* Weights come from memory at every run, while products are computed. */
static double with_weights(double compute, double bytes) {
  double load = bytes / dram;
  return MAX(compute, load) + 0.25 * MIN(compute, load);
}

static double direct_cost(const Conv *k, int lanes) {
  double pairs = (double)k->in_channels * (double)k->channels;
  return with_weights((double)(k->n * k->h * k->w) * 9 * pairs / (2 * lanes) / efficiency, 36 * pairs);
}

static int64_t tiles_along(const Conv *k, int64_t extent) { return (extent + k->t->m - 1) / k->t->m; }

static int64_t all_tiles(const Conv *k) { return k->n * k->tiles_h * k->tiles_w; }
static int64_t band_tiles(const Conv *k, int64_t band) { return !band ? all_tiles(k) : k->open ? band : band * k->tiles_w; }

/* Working in bands (0: all at once), what V, M and the repeated reading of U cost. */
static double band_cost(const Conv *k, int64_t band) {
  int64_t tiles = band_tiles(k, band), bands = (all_tiles(k) + tiles - 1) / tiles, a = k->t->m + 2;
  double planes = (double)(a * a) * 4, both = planes * (double)(tiles * (k->in_channels + k->channels));
  double u = planes * (double)k->in_channels * (double)k->channels;
  return (double)bands * traffic(k->m->target, 2 * both, both) + (double)(bands - 1) * traffic(k->m->target, u, u);
}

/* Rows of tiles a band: a divisor of all, so that no band is shorter. Tiles where their number is open: some full register tiles. */
static int64_t choose_band(const Conv *k) {
  enum { FEW = 28, MANY = 448 };
  int64_t best = 0, last = k->open ? MANY : k->tiles_h;
  double least = band_cost(k, 0);
  for (int64_t band = k->open ? FEW : 1; band <= last; band += k->open ? band : 1) {
    bool all = band == k->tiles_h && ex_equals_int(k->st->out->shape[0], 1);
    if ((!k->open && (k->tiles_h % band || all)) || band_cost(k, band) >= least) continue;
    best = band;
    least = band_cost(k, band);
  }
  return best;
}

static double winograd_cost(const Conv *k, int lanes) {
  int64_t a = k->t->m + 2, points = a * a * all_tiles(k);
  double pairs = (double)k->in_channels * (double)k->channels;
  double products = (double)points * pairs / (2 * lanes) / efficiency, both = (double)(points * (k->in_channels + k->channels)) / lanes * per_element;
  return with_weights(products + both + band_cost(k, k->band), (double)(a * a) * 4 * pairs);
}

/* Sets the tile, its count and the band; false: direct computation is as fast. */
static bool choose(Conv *k) {
  int lanes = target_lanes(k->m->target, 32);
  Conv best = *k;
  double least = direct_cost(k, lanes);
  if (k->in_channels < lanes || k->channels < lanes || k->h < 4 || k->w < 4) return false;
  for (int i = 0; i < COUNT(transforms); i++) {
    k->t = &transforms[i];
    k->tiles_h = tiles_along(k, k->h);
    k->tiles_w = tiles_along(k, k->w);
    k->band = choose_band(k);
    double cost = winograd_cost(k, lanes);
    if (cost < least) best = *k, least = cost;
  }
  *k = best;
  return k->t != NULL;
}

/* ---- expressions ---- */
/* Tiles along dimension d of the map; at least one, since one is divided by. */
static Expr *tiles_in(Conv *k, int d) { return ex_max(k->c, ex_ceil_div(k->c, k->st->out->shape[d], k->t->m), ex_int(k->c, 1)); }

static Expr *count_tiles(Conv *k) { return ex_mul(k->c, k->st->out->shape[0], ex_mul(k->c, tiles_in(k, 2), tiles_in(k, 3))); }
static Expr *tiles_a_band(Conv *k) { return k->band ? ex_int(k->c, band_tiles(k, k->band)) : count_tiles(k); }

/* (L v L^T)[x, y] for a matrix L of rows x cols and v[cols][cols] */
static Expr *both_sides(Ctx *c, const double *l, int rows, int cols, Expr *v[6][6], Expr *x, Expr *y) {
  Expr *out[6];
  for (int i = 0; i < rows; i++) {
    Expr *half[6], *line[6], *column[6];
    for (int j = 0; j < cols; j++) {
      for (int q = 0; q < cols; q++) column[q] = v[q][j];
      half[j] = bilinear_sum(c, l + i * cols, column, cols);
    }
    for (int j = 0; j < rows; j++) line[j] = bilinear_sum(c, l + j * cols, half, cols);
    out[i] = bilinear_case(c, y, line, rows);
  }
  return bilinear_case(c, x, out, rows);
}

/* A transform meets all planes at once: an odd number of cache lines apart, they do not fall on each other in the cache. */
static Layout *skewed(Ctx *c, const Expr *plane) {
  enum { LINE = 16 };
  Layout *l = NEW(c, Layout);
  for (int d = 0; d < 5; d++) l->part[l->n++] = (LayoutPart){.dim = (int8_t)d, .div = 1};
  l->part[2].pad = expr_range(c, plane).multiple % (2 * LINE) ? 0 : LINE;
  return l;
}

static Stage *stage_of(Conv *k, const char *name, Expr *channels, const char *channel) {
  Ctx *c = k->c;
  int64_t a = k->t->m + 2;
  Expr *tiles = tiles_a_band(k), *bands = k->band ? ex_ceil_div(c, count_tiles(k), tiles->u.i) : ex_int(c, 1);
  Expr *shape[] = {bands, ex_int(c, a), ex_int(c, a), tiles, channels};
  const char *const axes[] = {"g", "a", "b", "t", channel};
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.%s", k->st->out->name, name), 5, shape, axes);
  st->out->layout = skewed(c, ex_mul(c, tiles, channels));
  return st;
}

/* Where a tile lies: image, row and column of tiles. Those behind the last of the last band are as if in the last image. */
typedef struct { Expr *n, *i, *j; } Place;
static Place place_of(Conv *k, Expr *tile) {
  Ctx *c = k->c;
  Expr *tw = tiles_in(k, 3), *th = tiles_in(k, 2), *row = ex_div(c, tile, tw), *last = ex_sub(c, k->st->out->shape[0], ex_int(c, 1));
  return (Place){ex_min(c, ex_div(c, row, th), last), ex_mod(c, row, th), ex_mod(c, tile, tw)};
}

static Stage *input_stage(Conv *k) {
  Ctx *c = k->c;
  int a = k->t->m + 2;
  Stage *st = stage_of(k, "V", ex_int(c, k->in_channels), "c");
  Place p = place_of(k, ex_add(c, ex_mul(c, st->axes[0]->self, tiles_a_band(k)), st->axes[3]->self));
  Expr *d[6][6];
  for (int u = 0; u < a; u++)
    for (int v = 0; v < a; v++) {
      Expr *ih = ex_add(c, ex_mul(c, p.i, ex_int(c, k->t->m)), ex_int(c, u - k->pad_h)),
           *iw = ex_add(c, ex_mul(c, p.j, ex_int(c, k->t->m)), ex_int(c, v - k->pad_w));
      Expr *at[] = {p.n, ex_add(c, st->axes[4]->self, k->first_ch), ih, iw}, *x = ex_load(c, k->load->u.tensor, at, 4), *zero = ex_int(c, 0);
      Expr **shape_x = k->load->u.tensor->shape;
      Expr *in = ex_and(c, ex_and(c, ex_le(c, zero, ih), ex_lt(c, ih, shape_x[2])), ex_and(c, ex_le(c, zero, iw), ex_lt(c, iw, shape_x[3])));
      d[u][v] = ex_select(c, in, x, ex_const(c, DT_F32, 0));
    }
  st->body = both_sides(c, k->t->bt, a, a, d, st->axes[1]->self, st->axes[2]->self);
  return st;
}

/* U[a,b,c,k] = sum(i, j) G[a,i] G[b,j] g[k,c,i,j], computed when it is stored. */
static Tensor *transformed(Conv *k) {
  Ctx *c = k->c;
  int a = k->t->m + 2;
  uint64_t key = KEY(k->weights->data) + (uint64_t)k->t->m;   /* smaller than the struct: no other weights' key */
  Stage *st = map_get(k->made, key);
  Expr *shape[] = {ex_int(c, a), ex_int(c, a), ex_int(c, k->in_channels), ex_int(c, k->channels)}, *g[6][6];
  if (!st) {
    st = bilinear_stage(c, ctx_printf(c, "%s.U", k->weights->name), 4, shape, (const char *const[]){"a", "b", "c", "k"});
    Tensor *from = bilinear_source(c, k->weights, "d1,d2,d3,d0");
    for (int i = 0; i < 9; i++) {
      Expr *at[] = {st->axes[3]->self, st->axes[2]->self, ex_int(c, i / 3), ex_int(c, i % 3)};
      g[i / 3][i % 3] = ex_cast(c, DT_F64, ex_load(c, from, at, 4));
    }
    st->body = ex_cast(c, DT_F32, both_sides(c, k->t->g, a, 3, g, st->axes[0]->self, st->axes[1]->self));
    map_set(k->made, key, st);
  }
  return bilinear_weights(c, st);
}

static Stage *product_stage(Conv *k, Tensor *v) {
  Ctx *c = k->c;
  Stage *st = stage_of(k, "M", ex_int(c, k->channels), "k");
  Sym *ch = sym_axis(c, SYM_REDUCE, "c", ex_int(c, k->in_channels));
  Expr *g = st->axes[0]->self, *x = st->axes[1]->self, *y = st->axes[2]->self, *t = st->axes[3]->self, *q = st->axes[4]->self;
  Expr *left[] = {g, x, y, t, ch->self}, *right[] = {x, y, ch->self, q};
  st->body = ex_reduce(c, RED_SUM, ex_mul(c, ex_load(c, v, left, 5), ex_load(c, transformed(k), right, 4)), &ch, 1);
  return st;
}

/* The element [x, y] that a tile's channel comes to, M at [g, .., t, channel]. */
static Expr *output_of(Conv *k, Tensor *m, Expr *g, Expr *t, Expr *channel, Expr *x, Expr *y) {
  Ctx *c = k->c;
  int a = k->t->m + 2;
  Expr *v[6][6];
  for (int i = 0; i < a; i++)
    for (int j = 0; j < a; j++) {
      Expr *at[] = {g, ex_int(c, i), ex_int(c, j), t, channel};
      v[i][j] = ex_load(c, m, at, 5);
    }
  return both_sides(c, k->t->at, k->t->m, a, v, x, y);
}

static void rewrite_output(Conv *k, Tensor *m) {
  Ctx *c = k->c;
  Sym **axes = k->st->axes;
  Expr *step = ex_int(c, k->t->m), *row = ex_div(c, axes[2]->self, step), *g = ex_int(c, 0), *th = tiles_in(k, 2);
  if (k->band) {
    g = ex_add(c, ex_mul(c, axes[0]->self, ex_int(c, k->tiles_h / k->band)), ex_div(c, axes[2]->self, ex_int(c, k->t->m * k->band)));
    row = ex_mod(c, row, ex_int(c, k->band));
  } else {
    row = ex_add(c, ex_mul(c, axes[0]->self, th), row);
  }
  Expr *t = ex_add(c, ex_mul(c, row, tiles_in(k, 3)), ex_div(c, axes[3]->self, step));
  Expr *y = output_of(k, m, g, t, axes[1]->self, ex_mod(c, axes[2]->self, step), ex_mod(c, axes[3]->self, step));
  k->st->body = expr_replace(c, k->st->body, k->reduce, y);
}

/* y[tile, channel, row, column], each of a tile. */
static void output_by_tiles(Conv *k, Tensor *m) {
  Ctx *c = k->c;
  Stage *st = k->st;
  Expr *step = ex_int(c, k->t->m), *extent[] = {count_tiles(k), st->out->shape[1], step, step}, *band = tiles_a_band(k);
  static const char *const names[] = {"t", "k", "x", "y"};
  Sym **axes = NEW_ARRAY(c, Sym *, 4);
  for (int d = 0; d < 4; d++) axes[d] = sym_axis(c, SYM_AXIS, names[d], extent[d]);
  Expr *t = axes[0]->self, *x = axes[2]->self, *y = axes[3]->self, *in = k->band ? ex_mod(c, t, band) : t;
  Place p = place_of(k, t);
  Expr *sum = output_of(k, m, k->band ? ex_div(c, t, band) : ex_int(c, 0), in, axes[1]->self, x, y);
  Expr *at[] = {p.n, axes[1]->self, ex_add(c, ex_mul(c, p.i, step), x), ex_add(c, ex_mul(c, p.j, step), y)};
  Subst s = subst_new(c);
  for (int d = 0; d < 4; d++) subst_set(&s, st->axes[d], at[d]);
  st->body = expr_replace(c, subst_apply(&s, st->body), subst_apply(&s, k->reduce), sum);
  st->at = ctx_copy(c, at, sizeof at);
  st->axes = axes;
  st->clipped = true;
}

static void rewrite(Conv *k, Body *b, int *item) {
  Ctx *c = k->c;
  Group *g = b->items.v[*item]->group;
  Stage *in = input_stage(k), *product = product_stage(k, in->out), *root = group_root(g);
  if (k->open) output_by_tiles(k, product->out);
  else rewrite_output(k, product->out);
  if (k->m->opt->explain)
    str_add(&k->m->notes, "  %s: F(%d,3), %s tiles, %lld %s a band\n", root->out->name, k->t->m, expr_text(c, count_tiles(k)),
            (long long)k->band, k->open ? "of them" : "rows of them");
  if (!k->band) {
    body_insert(c, b, (*item)++, in, g->source);
    body_insert(c, b, (*item)++, product, g->source);
    return;
  }
  g->stages.n = 0;
  vec_push(c, &g->stages, in);
  vec_push(c, &g->stages, product);
  vec_push(c, &g->stages, root);
  g->block = NEW_ARRAY(c, int64_t, 4);
  g->block[0] = k->open ? k->band : 1;
  if (!k->open) g->block[2] = k->band * k->t->m;
}

static void rewrite_body(Module *m, Map *made, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) rewrite_body(m, made, it->body[k]);
    Conv k = {.m = m, .c = m->c, .made = made};
    if (it->kind == ITEM_GROUP && match(&k, it->group) && choose(&k)) rewrite(&k, b, &i);
  }
}

void pass_winograd(Module *m) {
  Map made = map_new(m->c);
  if (!m->opt->fp32_strict) rewrite_body(m, &made, m->body);
}
