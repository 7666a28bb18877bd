/* winograd.c - pass_winograd: convolutions with fewer multiplications, as a rewrite of the compute.
 *
 * Before: y[n,k,h,w] = f(sum(c, r, s) x[n, c, step*h+r-p, step*w+s-q] * g[k,c,r,s])
 * After:  V[g,a,b,t,c] = (B^T d B)[a,b]      d: the tile t of band g of x, what m x m outputs are made of
 *         M[g,a,b,t,k] = sum(c) V[g,a,b,t,c] * U[a,b,c,k]    U = G g G^T, made when it is stored
 *         y = f((A^T M A)[h % m, w % m])     of the tile at h / m, w / m
 * A band is some rows and columns of tiles of one image, and all three are one group that works band by band, so that V and M stay in cache; or
 * everything is one band and each is a kernel. Of maps whose size is open a band is a number of tiles in their order, whatever row or image
 * they are of, and y is made tile by tile: of a tile that ends beyond the map what lies outside is not stored. The transforms are
 * expressions that select by a, b (by h % m, w % m); their schedules unroll those. Each dimension has an algorithm of its own; a map of one
 * dimension has one row in the other. Source: winograd.def.
 */
#include <math.h>
#include <string.h>

#include "bilinear.h"
#include "passes.h"

enum { MOST_OUTPUTS = 4, MOST_TAPS = 7, MOST_PRODUCTS = BILINEAR_MOST };

/* In one dimension: m outputs, `step` apart in the input, of `in` elements, by n products: B^T is n x in, G n x r, A^T m x n. */
typedef struct {
  int m, r, step, in, n;
  int points;                      /* the most that products of one filter need */
  double bt[MOST_PRODUCTS][MOST_PRODUCTS], g[MOST_PRODUCTS][MOST_TAPS], at[MOST_OUTPUTS][MOST_PRODUCTS];
} Transform;

typedef struct {
  Sym *tap;                        /* of the reduction; NULL: there is one only */
  int64_t taps, step, apart, pad, extent;        /* apart: taps lie; an extent that is open counts as usual ones are */
  bool turned;                     /* the last tap meets the first element */
  Transform t;
  int64_t tiles;
} Side;

typedef Expr *Square[MOST_PRODUCTS][MOST_PRODUCTS];

/* Weights that were transformed: the elements that they come from, at the stage's axes. */
typedef struct { Side side[2]; Stage *stage; Tensor *from; Square g; } Made;
typedef VEC(Made *) MadeList;

typedef struct {
  Module *m;
  Ctx *c;
  MadeList *made;
  Stage *st;
  Expr *reduce;
  const Expr *load, *weights;      /* of the map, of the weights */
  Sym *ch;                         /* the other axis of the reduction */
  Expr *first_ch;                  /* of the map's channels */
  int64_t in_channels, channels, n;
  Side side[2];                    /* of the map's dimensions 2 and 3 */
  bool open;                       /* the map's size is */
  int64_t band, cols;              /* rows and columns of tiles, or tiles where the size is open; 0: all in one band */
} Conv;

/* ---- algorithms ---- */
#define S 1.41421356237309504880
typedef struct { int m, r; double point[MOST_PRODUCTS]; } Points;
static const Points by_points[] = {
#define WINOGRAD(m, r, ...) {m, r, {__VA_ARGS__}},
#include "winograd.def"
#undef WINOGRAD
};
#undef S

/* p *= x - point, p's highest power being n */
static void times_root(double *p, int n, double point) {
  for (int i = n + 1; i >= 0; i--) p[i] = (i > 0 ? p[i - 1] : 0) - (i <= n ? p[i] * point : 0);
}

/* Toom and Cook's: both factors and their product at the points; row by row, filter tap i standing at offset + step*i. */
static void add_points(Transform *t, const Points *f, int offset) {
  int finite = f->m + f->r - 2;
  t->points = MAX(t->points, finite + 1);
  for (int j = 0; j <= finite; j++, t->n++) {
    double all[MOST_PRODUCTS + 1] = {1}, scale = 1, power = 1, x = f->point[j];
    bool last = j == finite;                                 /* at infinity */
    for (int i = 0, n = 0; i < finite; i++)
      if (i != j) times_root(all, n++, f->point[i]), scale *= last ? 1 : x - f->point[i];
    for (int i = 0; i <= finite; i++) t->bt[t->n][offset + t->step * i] = (float)all[i];
    for (int i = 0; i < MAX(f->m, f->r); i++, power *= x) {
      if (i < f->r) t->g[t->n][offset + t->step * i] = last ? i == f->r - 1 : power / scale;
      if (i < f->m) t->at[i][t->n] = last ? i == f->m - 1 : (float)power;
    }
  }
}

static void add_single_tap(Transform *t, int offset) {
  for (int i = 0; i < t->m; i++, t->n++) t->bt[t->n][offset + t->step * i] = t->g[t->n][offset] = t->at[i][t->n] = 1;
}

/* m outputs of r taps: those at each remainder by `step` are a filter of their own. False: there is no such. */
static bool find_transform(int64_t m, int64_t r, int64_t step, Transform *t) {
  if (r > MOST_TAPS || (m - 1) * step + r > MOST_PRODUCTS) return false;
  *t = (Transform){.m = (int)m, .r = (int)r, .step = (int)step, .in = (int)((m - 1) * step + r)};
  for (int offset = 0; offset < MIN(r, step); offset++) {
    int taps = (int)((r - offset + step - 1) / step), row = 0;
    while (row < COUNT(by_points) && (by_points[row].m != m || by_points[row].r != taps)) row++;
    if (taps > 1 && row == COUNT(by_points)) return false;
    if (taps == 1) add_single_tap(t, offset);
    else add_points(t, &by_points[row], offset);
  }
  return true;
}

/* ---- is it one? ---- */
enum { OPEN_IMAGES = 1, OPEN_SIDE = 56 };

static int64_t usual(const Expr *extent, int64_t open) {
  int64_t n;
  return ex_is_int(extent, &n) ? n : open;
}

static int sides(const Conv *k) { return k->st->out->rank - 2; }

/* index = step*out + apart*tap - pad, or with taps - 1 - tap; without a tap it is 0 */
static bool match_tap(Conv *k, Expr *rest, Sym *tap, Side *s) {
  Expr *coef = ex_int(k->c, 1);
  int64_t v, taps = 1, by;
  if (tap && (!ex_is_int(tap->extent, &taps) || !expr_is_linear(k->c, rest, tap, &coef, &rest))) return false;
  if (!ex_is_int(rest, &v) || !ex_is_int(coef, &by) || !by) return false;
  s->tap = tap, s->taps = taps, s->turned = by < 0, s->apart = by < 0 ? -by : by;
  s->pad = (s->turned ? (taps - 1) * s->apart : 0) - v;
  return s->pad >= 0 && (s->apart == 1 || s->step == 1);
}

static bool match_side(Conv *k, Expr *index, Sym *out, Side *s) {
  enum { MOST_STEPS = 2 };
  for (s->step = 1; s->step <= MOST_STEPS; s->step++) {
    Expr *rest = ex_sub(k->c, index, ex_mul(k->c, out->self, ex_int(k->c, s->step)));
    if (match_tap(k, rest, NULL, s)) return true;
    for (int i = 1; i < k->reduce->n; i++)
      if (k->reduce->a[i]->u.sym != k->ch && match_tap(k, rest, k->reduce->a[i]->u.sym, s)) return true;
  }
  return false;
}

static bool match_map(Conv *k, const Expr *e) {
  Sym **axes = k->st->axes;
  if (e->op == EX_SELECT && ex_is_const(e->a[2]) && e->a[2]->u.f == 0) e = e->a[1];
  k->load = e;
  if (e->op != EX_LOAD || e->n != k->st->out->rank || e->u.tensor->data || (e->a[0] != axes[0]->self && axes[0]->max != 0)) return false;
  for (int i = 1; i < k->reduce->n && !k->ch; i++)
    if (ex_is_int(k->first_ch = ex_sub(k->c, e->a[1], k->reduce->a[i]), NULL)) k->ch = k->reduce->a[i]->u.sym;
  int taps = 0;
  for (int i = 0; i < sides(k) && k->ch; i++) {
    if (!match_side(k, e->a[2 + i], axes[2 + i], &k->side[i])) return false;
    taps += k->side[i].tap != NULL;
  }
  return k->ch && k->reduce->n == 2 + taps && (taps < 2 || k->side[0].tap != k->side[1].tap);
}

typedef struct { const Conv *k; bool other; } Syms;
static void check_sym(const Expr *e, void *user) {
  Syms *w = user;
  const Conv *k = w->k;
  if (e->op == EX_SYM) w->other |= e->u.sym != k->st->axes[1] && e->u.sym != k->ch && e->u.sym != k->side[0].tap && e->u.sym != k->side[1].tap;
}

/* Constants that channels and taps alone tell apart. */
static bool match_weights(Conv *k, const Expr *e) {
  Syms w = {k, e->op != EX_LOAD || !e->u.tensor->data};
  bool in = false, out = false;
  for (int i = 0; i < e->n && !w.other; i++) {
    in |= e->a[i] == k->ch->self;
    out |= e->a[i] == k->st->axes[1]->self;
    expr_visit(e->a[i], check_sym, &w);
  }
  k->weights = e;
  return in && out && !w.other;
}

static bool match(Conv *k, Group *g) {
  k->st = group_root(g);
  k->reduce = stage_reduce(k->st->body);
  Expr *r = k->reduce, *p = r ? r->a[0] : NULL;
  int rank = k->st->out->rank;
  if (g->stages.n > 1 || !r || r->u.i != RED_SUM || r->dtype != DT_F32 || p->op != EX_MUL || rank < 3 || rank > 4) return false;
  for (int i = 0; i < rank; i++)
    if (k->st->axes[i]->kind == SYM_DIM) return false;
  if (!ex_is_int(stage_shape(k->st, 1), &k->channels)) return false;
  k->n = usual(stage_shape(k->st, 0), OPEN_IMAGES);
  for (int i = 0; i < 2; i++) {
    k->side[i] = (Side){.taps = 1, .step = 1, .apart = 1, .extent = i < sides(k) ? usual(stage_shape(k->st, 2 + i), OPEN_SIDE) : 1};
    k->open |= i < sides(k) && !ex_is_int(stage_shape(k->st, 2 + i), NULL);
  }
  bool second = match_map(k, p->a[0]);
  if (!second && !match_map(k, p->a[1])) return false;
  bool spread = k->side[0].apart > 1 || k->side[1].apart > 1;
  return !(k->open && (k->st->at || spread)) && !(k->st->at && spread) && match_weights(k, p->a[second]) && ex_is_int(k->ch->extent, &k->in_channels);
}

/* ---- what it costs, in cycles of a core; measured on Zen 3, 4 and 5 ---- */
static const double efficiency = 0.9,                        /* of products in register tiles */
    per_element = 6,                                         /* a vector of V or M made or used */
    l2 = 64;                                                 /* bytes a cycle */

/* Bytes read again and again out of `size`; what little does not fit is met in order. */
static double traffic(const Target *t, double bytes, double size) {
  return bytes / (size <= (double)t->l2_bytes * 1.25 ? l2 : size <= (double)t->l3_bytes / 2 ? t->rate.l3 : t->rate.memory / 2);
}

/* Of a core's multiply-adds. */
static double lanes_a_cycle(const Conv *k) { return k->m->target->rate.fma * target_lanes(k->m->target, 32); }

static double direct_cost(const Conv *k) {
  double pairs = (double)k->in_channels * (double)k->channels, taps = k->side[0].t.r * k->side[1].t.r;
  double points = (double)(k->n * k->side[0].extent * k->side[1].extent);
  return bilinear_cycles(k->m->target, points * taps * pairs / lanes_a_cycle(k) / efficiency, BILINEAR_EVEN, 4 * taps * pairs);
}

static int64_t all_tiles(const Conv *k) { return k->n * k->side[0].tiles * k->side[1].tiles; }
static int64_t band_tiles(const Conv *k) { return !k->band ? all_tiles(k) : k->open ? k->band : k->band * k->cols; }
static int64_t products(const Conv *k) { return k->side[0].t.n * k->side[1].t.n; }

/* Working in bands, what V, M and the repeated reading of U cost: V and M are written, which moves a line twice, and read; U is asked for
 * while products are computed. */
static double band_cost(const Conv *k) {
  const double hidden = 0.7;
  int64_t tiles = band_tiles(k), bands = (all_tiles(k) + tiles - 1) / tiles;
  double planes = (double)products(k) * 4, both = planes * (double)(tiles * (k->in_channels + k->channels));
  double u = planes * (double)k->in_channels * (double)k->channels;
  return (double)bands * traffic(k->m->target, 3 * both, both) + (double)(bands - 1) * (1 - hidden) * traffic(k->m->target, u, u);
}

static double winograd_cost(const Conv *k) {
  int64_t points = products(k) * all_tiles(k);
  double pairs = (double)k->in_channels * (double)k->channels;
  double compute = (double)points * pairs / lanes_a_cycle(k) / efficiency;
  double both = (double)(points * (k->in_channels + k->channels)) / target_lanes(k->m->target, 32) * per_element;
  int64_t bands = k->band && !k->open ? all_tiles(k) / band_tiles(k) : BILINEAR_EVEN;
  return bilinear_cycles(k->m->target, compute + both + band_cost(k), bands, (double)products(k) * 4 * pairs);
}

static void try_band(Conv *k, int64_t band, int64_t cols, double *least) {
  Conv other = *k;
  other.band = band, other.cols = cols;
  double cost = winograd_cost(&other);
  if (cost < *least) *k = other, *least = cost;
}

/* The least cost. Bands are parts of all rows and columns of tiles, so that no band is shorter; of columns where one row is much already;
 * none or enough for some threads. Where the number of tiles is open some full register tiles are one. */
static double choose_band(Conv *k) {
  enum { FEW = 14, MANY = 448, FEWEST_BANDS = 4 };
  int64_t rows = k->side[0].tiles, cols = k->side[1].tiles, row = k->side[0].apart, col = k->side[1].apart, all = k->n * rows * cols;
  k->band = k->cols = 0;
  double least = winograd_cost(k);
  for (int64_t band = 2 * FEW; k->open && band <= MANY; band *= 2) try_band(k, band, 0, &least);
  for (int64_t c = cols; !k->open && c >= 1; c -= col)
    for (int64_t band = row; band <= (c == cols ? rows : row); band += row)
      if (rows % band == 0 && cols % c == 0 && (c == cols || c >= FEW) && all >= FEWEST_BANDS * band * c) try_band(k, band, c, &least);
  return least;
}

static bool set_transform(Side *s, int64_t m) {
  if ((s->taps == 1) != (m == 1) || !find_transform(m, s->taps, s->step, &s->t)) return false;
  s->tiles = (s->extent + m * s->apart - 1) / (m * s->apart) * s->apart;
  return s->taps == 1 || s->extent >= MOST_OUTPUTS;
}

/* Of 8 points in both dimensions sums lose two digits more than direct ones. */
static bool loses_digits(const Conv *k) {
  enum { EXACT = 6 };
  return MIN(k->side[0].t.points, k->side[1].t.points) > EXACT;
}

/* Sets the tile, its count and the band; false: direct computation is as fast. */
static bool choose(Conv *k) {
  int lanes = target_lanes(k->m->target, 32);
  Conv best = *k;
  double least = INFINITY;
  if (k->in_channels < lanes || k->channels < lanes) return false;
  for (int64_t i = 1; i <= MOST_OUTPUTS; i++)
    for (int64_t j = 1; j <= MOST_OUTPUTS; j++) {
      if (!set_transform(&k->side[0], i) || !set_transform(&k->side[1], j) || loses_digits(k)) continue;
      double cost = choose_band(k);
      if (cost < least && cost < direct_cost(k)) best = *k, least = cost;
    }
  *k = best;
  return least < INFINITY;
}

/* ---- expressions ---- */
/* Tiles along side i of the map; at least one, since one is divided by. */
static Expr *tiles_along(Conv *k, int i) {
  Ctx *c = k->c;
  const Side *s = &k->side[i];
  if (i >= sides(k)) return ex_int(c, 1);
  return ex_mul(c, ex_max(c, ex_ceil_div(c, stage_shape(k->st, 2 + i), s->t.m * s->apart), ex_int(c, 1)), ex_int(c, s->apart));
}

static Expr *count_tiles(Conv *k) { return ex_mul(k->c, stage_shape(k->st, 0), ex_mul(k->c, tiles_along(k, 0), tiles_along(k, 1))); }
static Expr *tiles_a_band(Conv *k) { return k->band ? ex_int(k->c, band_tiles(k)) : count_tiles(k); }

/* (L v R^T)[x, y] */
static Expr *both_sides(Ctx *c, BilinearMatrix l, Square v, BilinearMatrix r, Expr *x, Expr *y, bool fused) {
  Square half;                                               /* L v by columns */
  Expr *out[MOST_PRODUCTS];
  for (int j = 0; j < r.cols; j++) {
    Expr *column[MOST_PRODUCTS];
    for (int q = 0; q < l.cols; q++) column[q] = v[q][j];
    bilinear_multiply(c, &l, column, half[j], fused);
  }
  for (int i = 0; i < l.rows; i++) {
    Expr *row[MOST_PRODUCTS], *line[MOST_PRODUCTS];
    for (int j = 0; j < r.cols; j++) row[j] = half[j][i];
    bilinear_multiply(c, &r, row, line, fused);
    out[i] = bilinear_case(c, y, line, r.rows);
  }
  return bilinear_case(c, x, out, l.rows);
}

static BilinearMatrix input_matrix(const Transform *t) { return (BilinearMatrix){t->bt[0], MOST_PRODUCTS, t->n, t->in}; }
static BilinearMatrix weight_matrix(const Transform *t) { return (BilinearMatrix){t->g[0], MOST_TAPS, t->n, t->r}; }
static BilinearMatrix output_matrix(const Transform *t) { return (BilinearMatrix){t->at[0], MOST_PRODUCTS, t->m, t->n}; }

/* Planes of tiles by channels. A transform meets all of them at once: an odd number of cache lines apart, they do not fall on each other in
 * the cache. by_blocks: blocks of channels outside of tiles, so that a register tile of tiles by channels writes lines that follow each other. */
static Layout *layout_of(Conv *k, const Expr *plane, bool by_blocks) {
  enum { LINE = 16 };
  int lanes = target_lanes(k->m->target, 32);
  Layout *l = NEW(k->c, Layout);
  for (int d = 0; d < 3; d++) l->part[l->n++] = (LayoutPart){.dim = (int8_t)d, .div = 1};
  l->part[2].pad = expr_range(k->c, plane).multiple % (2 * LINE) ? 0 : LINE;
  if (by_blocks) l->part[l->n++] = (LayoutPart){.dim = 4, .div = lanes};
  l->part[l->n++] = (LayoutPart){.dim = 3, .div = 1};
  l->part[l->n++] = (LayoutPart){.dim = 4, .div = 1, .mod = by_blocks ? lanes : 0};
  return l;
}

/* [band, row of products, column of products, tile, channel] */
static Stage *stage_of(Conv *k, const char *name, Expr *channels, const char *channel, bool by_blocks) {
  Ctx *c = k->c;
  Expr *tiles = tiles_a_band(k), *bands = k->band ? ex_ceil_div(c, count_tiles(k), tiles->u.i) : ex_int(c, 1);
  Expr *shape[] = {bands, ex_int(c, k->side[0].t.n), ex_int(c, k->side[1].t.n), tiles, channels};
  const char *const axes[] = {"g", "a", "b", "t", channel};
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.%s", k->st->out->name, name), 5, shape, axes);
  st->out->layout = layout_of(k, ex_mul(c, tiles, channels), by_blocks);
  return st;
}

/* Where a tile lies: image, row and column of tiles. Those behind the last of the last band are as if in the last image. */
typedef struct { Expr *n, *i, *j; } Place;
static Place place_of(Conv *k, Expr *tile) {
  Ctx *c = k->c;
  Expr *tw = tiles_along(k, 1), *th = tiles_along(k, 0), *row = ex_div(c, tile, tw), *last = ex_sub(c, stage_shape(k->st, 0), ex_int(c, 1));
  return (Place){ex_min(c, ex_div(c, row, th), last), ex_mod(c, row, th), ex_mod(c, tile, tw)};
}

static Expr *divided(Ctx *c, Expr *e, int64_t by) { return ex_div(c, e, ex_int(c, by)); }
static Expr *remainder_of(Ctx *c, Expr *e, int64_t by) { return ex_mod(c, e, ex_int(c, by)); }
static Expr *at_step(Ctx *c, Expr *step, int64_t of, Expr *offset) { return ex_add(c, ex_mul(c, step, ex_int(c, of)), offset); }

/* Tile t of band g. */
static Place place_in_band(Conv *k, Expr *g, Expr *t) {
  Ctx *c = k->c;
  if (k->open || !k->band) return place_of(k, ex_add(c, ex_mul(c, g, tiles_a_band(k)), t));
  int64_t down = k->side[0].tiles / k->band, across = k->side[1].tiles / k->cols;
  Expr *row = divided(c, g, across);
  return (Place){divided(c, row, down), at_step(c, remainder_of(c, row, down), k->band, divided(c, t, k->cols)),
                 at_step(c, remainder_of(c, g, across), k->cols, remainder_of(c, t, k->cols))};
}

static Stage *input_stage(Conv *k) {
  Ctx *c = k->c;
  Stage *st = stage_of(k, "V", ex_int(c, k->in_channels), "c", false);
  const Transform *rows = &k->side[0].t, *cols = &k->side[1].t;
  Place p = place_in_band(k, st->axes[0]->self, st->axes[3]->self);
  Expr *tile[] = {p.i, p.j}, *zero = ex_int(c, 0), **shape = k->load->u.tensor->shape;
  Square d;
  for (int u = 0; u < rows->in; u++)
    for (int v = 0; v < cols->in; v++) {
      Expr *at[] = {p.n, ex_add(c, st->axes[4]->self, k->first_ch), NULL, NULL}, *in = ex_bool(c, true);
      for (int i = 0; i < sides(k); i++) {
        const Side *s = &k->side[i];
        Expr *first = at_step(c, divided(c, tile[i], s->apart), s->t.m * s->step * s->apart, remainder_of(c, tile[i], s->apart));
        at[2 + i] = ex_add(c, first, ex_int(c, (i ? v : u) * s->apart - s->pad));
        in = ex_and(c, in, ex_and(c, ex_le(c, zero, at[2 + i]), ex_lt(c, at[2 + i], shape[2 + i])));
      }
      d[u][v] = ex_select(c, in, ex_load(c, k->load->u.tensor, at, 2 + sides(k)), ex_const(c, DT_F32, 0));
    }
  st->body = both_sides(c, input_matrix(rows), d, input_matrix(cols), st->axes[1]->self, st->axes[2]->self, true);
  return st;
}

/* The elements that one output channel and one input channel of the transformed weights come from. */
static void weights_of(Conv *k, const Stage *st, Tensor *from, Square g) {
  Ctx *c = k->c;
  const Side *rows = &k->side[0], *cols = &k->side[1];
  for (int i = 0; i < rows->taps; i++)
    for (int j = 0; j < cols->taps; j++) {
      Subst s = subst_new(c);
      Expr *at[MAX_RANK];
      subst_set(&s, k->ch, st->axes[2]->self);
      subst_set(&s, k->st->axes[1], st->axes[3]->self);
      if (rows->tap) subst_set(&s, rows->tap, ex_int(c, rows->turned ? rows->taps - 1 - i : i));
      if (cols->tap) subst_set(&s, cols->tap, ex_int(c, cols->turned ? cols->taps - 1 - j : j));
      for (int d = 0; d < k->weights->n; d++) at[d] = subst_apply(&s, k->weights->a[d]);
      g[i][j] = ex_cast(c, DT_F64, ex_load(c, from, at, k->weights->n));
    }
}

/* Output channels last. */
static Tensor *source_of(Conv *k) {
  Str layout = str_new(k->c);
  int last = 0;
  while (k->weights->a[last] != k->st->axes[1]->self) last++;
  for (int d = 0; d < k->weights->n; d++)
    if (d != last) str_add(&layout, "d%d,", d);
  str_add(&layout, "d%d", last);
  return bilinear_source(k->c, k->weights->u.tensor, layout.s);
}

/* U[a,b,c,k] = sum(i, j) G[a,i] G[b,j] g[i,j], computed when it is stored. */
static Stage *weights_stage(Conv *k, Made *made) {
  Ctx *c = k->c;
  const Transform *rows = &k->side[0].t, *cols = &k->side[1].t;
  Expr *shape[] = {ex_int(c, rows->n), ex_int(c, cols->n), ex_int(c, k->in_channels), ex_int(c, k->channels)};
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.U", k->weights->u.tensor->name), 4, shape, (const char *const[]){"a", "b", "c", "k"});
  weights_of(k, st, made->from, made->g);
  Expr *sum = both_sides(c, weight_matrix(rows), made->g, weight_matrix(cols), st->axes[0]->self, st->axes[1]->self, false);
  st->body = ex_cast(c, DT_F32, sum);
  return st;
}

static bool same_weights(Conv *k, const Made *made) {
  Square g;
  for (int i = 0; i < 2; i++)
    if (made->side[i].t.m != k->side[i].t.m || made->side[i].step != k->side[i].step || made->side[i].taps != k->side[i].taps) return false;
  if (made->from->data != k->weights->u.tensor->data) return false;
  weights_of(k, made->stage, made->from, g);
  for (int i = 0; i < k->side[0].taps; i++)
    if (memcmp(g[i], made->g[i], (size_t)k->side[1].taps * sizeof g[i][0])) return false;
  return true;
}

/* The same weights are transformed once. */
static Tensor *transformed(Conv *k) {
  for (int i = 0; i < k->made->n; i++)
    if (same_weights(k, k->made->v[i])) return bilinear_weights(k->c, k->made->v[i]->stage);
  Made *made = NEW(k->c, Made);
  memcpy(made->side, k->side, sizeof made->side);
  made->from = source_of(k);
  made->stage = weights_stage(k, made);
  vec_push(k->c, k->made, made);
  return bilinear_weights(k->c, made->stage);
}

static Stage *product_stage(Conv *k, Tensor *v) {
  Ctx *c = k->c;
  Stage *st = stage_of(k, "M", ex_int(c, k->channels), "k", !k->band);
  Sym *ch = sym_axis(c, SYM_REDUCE, "c", ex_int(c, k->in_channels));
  Expr *g = st->axes[0]->self, *x = st->axes[1]->self, *y = st->axes[2]->self, *t = st->axes[3]->self, *q = st->axes[4]->self;
  Expr *left[] = {g, x, y, t, ch->self}, *right[] = {x, y, ch->self, q};
  st->body = ex_reduce(c, RED_SUM, ex_mul(c, ex_load(c, v, left, 5), ex_load(c, transformed(k), right, 4)), &ch, 1);
  return st;
}

/* The element [x, y] that a tile's channel comes to, M at [g, .., t, channel]. */
static Expr *output_of(Conv *k, Tensor *m, Expr *g, Expr *t, Expr *channel, Expr *x, Expr *y) {
  Ctx *c = k->c;
  const Transform *rows = &k->side[0].t, *cols = &k->side[1].t;
  Square v;
  for (int i = 0; i < rows->n; i++)
    for (int j = 0; j < cols->n; j++) {
      Expr *at[] = {g, ex_int(c, i), ex_int(c, j), t, channel};
      v[i][j] = ex_load(c, m, at, 5);
    }
  return both_sides(c, output_matrix(rows), v, output_matrix(cols), x, y, true);
}

static void rewrite_output(Conv *k, Tensor *m) {
  Ctx *c = k->c;
  Sym **axes = k->st->axes;
  Expr *tile[2], *part[2], *in[2], *g = ex_int(c, 0), *t;   /* tile: of the part of the side that a band has, or of all */
  int64_t parts[2], band[2] = {k->band, k->cols};
  for (int i = 0; i < 2; i++) {
    const Side *s = &k->side[i];
    Expr *at = i < sides(k) ? axes[2 + i]->self : ex_int(c, 0), *q = divided(c, at, s->t.m * s->apart), *phase = remainder_of(c, at, s->apart);
    int64_t each = (k->band ? band[i] : s->tiles) / s->apart;
    parts[i] = s->tiles / s->apart / each;
    part[i] = divided(c, q, each);
    tile[i] = at_step(c, k->band ? remainder_of(c, q, each) : q, s->apart, phase);
    in[i] = remainder_of(c, divided(c, at, s->apart), s->t.m);
  }
  if (k->band) {
    g = at_step(c, at_step(c, axes[0]->self, parts[0], part[0]), parts[1], part[1]);
    t = at_step(c, tile[0], k->cols, tile[1]);
  } else {
    t = ex_add(c, ex_mul(c, ex_add(c, ex_mul(c, axes[0]->self, tiles_along(k, 0)), tile[0]), tiles_along(k, 1)), tile[1]);
  }
  k->st->body = expr_replace(c, k->st->body, k->reduce, output_of(k, m, g, t, axes[1]->self, in[0], in[1]));
}

/* y[tile, channel, row, column], each of a tile. */
static void output_by_tiles(Conv *k, Tensor *m) {
  Ctx *c = k->c;
  Stage *st = k->st;
  int rank = 2 + sides(k);
  Expr *extent[] = {count_tiles(k), stage_shape(st, 1), ex_int(c, k->side[0].t.m), ex_int(c, k->side[1].t.m)}, *band = tiles_a_band(k);
  static const char *const names[] = {"t", "k", "x", "y"};
  Sym **axes = NEW_ARRAY(c, Sym *, rank);
  for (int d = 0; d < rank; d++) axes[d] = sym_axis(c, SYM_AXIS, names[d], extent[d]);
  Expr *t = axes[0]->self, *in = k->band ? ex_mod(c, t, band) : t, *offset[2] = {ex_int(c, 0), ex_int(c, 0)};
  Place p = place_of(k, t);
  Expr *tile[] = {p.i, p.j}, *at[MAX_RANK] = {p.n, axes[1]->self};
  for (int i = 0; i < sides(k); i++) {
    offset[i] = axes[2 + i]->self;
    at[2 + i] = ex_add(c, ex_mul(c, tile[i], extent[2 + i]), offset[i]);
  }
  Expr *sum = output_of(k, m, k->band ? ex_div(c, t, band) : ex_int(c, 0), in, axes[1]->self, offset[0], offset[1]);
  Subst s = subst_new(c);
  for (int d = 0; d < rank; d++) subst_set(&s, st->axes[d], at[d]);
  st->body = expr_replace(c, subst_apply(&s, st->body), subst_apply(&s, k->reduce), sum);
  st->at = ctx_copy(c, at, (size_t)rank * sizeof *at);
  st->axes = axes;
  st->clipped = true;
}

/* Loops over the tiles of phases have no tails: sides that end within one are made as long as it, and what lies outside is not stored. */
static void fill_tiles(Conv *k) {
  Ctx *c = k->c;
  Stage *st = k->st;
  Subst s = subst_new(c);
  bool longer = false;
  Sym **axes = ctx_copy(c, st->axes, (size_t)st->out->rank * sizeof *axes);
  Expr **at = NEW_ARRAY(c, Expr *, st->out->rank);
  for (int i = 0; i < sides(k); i++) {
    const Side *side = &k->side[i];
    if (side->apart == 1 || side->extent == side->tiles * side->t.m) continue;
    axes[2 + i] = sym_axis(c, SYM_AXIS, axes[2 + i]->name, ex_int(c, side->tiles * side->t.m));
    subst_set(&s, st->axes[2 + i], axes[2 + i]->self);
    longer = true;
  }
  for (int d = 0; d < st->out->rank; d++) at[d] = axes[d]->self;
  if (!longer) return;
  st->body = subst_apply(&s, st->body);
  k->reduce = subst_apply(&s, k->reduce);
  st->axes = axes;
  st->at = at;
  st->clipped = true;
}

static void rewrite(Conv *k, Body *b, int *item) {
  Ctx *c = k->c;
  Group *g = b->items.v[*item]->group;
  Stage *in = input_stage(k), *product = product_stage(k, in->out), *root = group_root(g);
  if (k->open) output_by_tiles(k, product->out);
  else fill_tiles(k), rewrite_output(k, product->out);
  if (k->m->opt->explain)
    str_add(&k->m->notes, "  %s: F(%dx%d,%dx%d), %s tiles, %s a band\n", root->out->name, k->side[0].t.m, k->side[1].t.m, k->side[0].t.r,
            k->side[1].t.r, expr_text(c, count_tiles(k)), expr_text(c, tiles_a_band(k)));
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
  if (!k->open) g->block[2] = k->band * k->side[0].t.m;
  if (k->cols && k->cols < k->side[1].tiles) g->block[3] = k->cols * k->side[1].t.m;
}

static void rewrite_body(Module *m, MadeList *made, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) rewrite_body(m, made, it->body[k]);
    Conv k = {.m = m, .c = m->c, .made = made};
    if (it->kind == ITEM_GROUP && match(&k, it->group) && choose(&k)) rewrite(&k, b, &i);
  }
}

void pass_winograd(Module *m) {
  MadeList made = {0};
  if (!m->opt->fp32_strict) rewrite_body(m, &made, m->body);
}
