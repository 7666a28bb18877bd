/* t_kernels.c - stages to kernels: maps, every schedule rule, layout and epilogue against a direct evaluation of the stages. */
#include <CUnit/Basic.h>

#include "../passes/passes.h"
#include "kernel_case.h"

/* Of maps of one or two sides; open: both sides are one that is not known; turned: the last tap meets the first element and the weights are
 * [in, out, ..], as in a phase of a transposed convolution. */
typedef struct { int64_t n, ci, co; int sides; int64_t size[2], kern[2], pad[2], stride, apart; bool chain, open, turned; const char *says; } Conv;

static Stage *conv_stage(Case *k, const Conv *v, int layer, Tensor *x, int64_t ci) {
  Ctx *c = k->c;
  Expr *shape[4] = {x->shape[0], ex_int(c, v->co)}, *from[4], *tap[4], *ok = ex_bool(c, true), *zero = ex_int(c, 0);
  int64_t weights[4] = {v->turned ? ci : v->co, v->turned ? v->co : ci};
  int rank = 2 + v->sides;
  Sym *r[3] = {sym_axis(c, SYM_REDUCE, "ci", ex_int(c, ci))};
  for (int i = 0; i < v->sides; i++) {
    Expr *span = ex_add(c, x->shape[2 + i], ex_int(c, 2 * v->pad[i] - (v->kern[i] - 1) * v->apart - 1));
    shape[2 + i] = ex_add(c, ex_div(c, span, ex_int(c, v->stride)), ex_int(c, 1));
    weights[2 + i] = v->kern[i];
    r[1 + i] = sym_axis(c, SYM_REDUCE, i ? "s" : "r", ex_int(c, v->kern[i]));
  }
  Tensor *w = weight(k, layer ? "w1" : "w0", rank, weights), *b = weight(k, "b", DIMS(v->co));
  Stage *st = stage(k, tensor_new(c, layer ? "c1" : "c0", DT_F32, rank, shape));
  from[0] = st->axes[0]->self, from[1] = r[0]->self;
  tap[v->turned] = st->axes[1]->self, tap[!v->turned] = r[0]->self;
  for (int i = 0; i < v->sides; i++) {
    Expr *e = v->turned ? ex_sub(c, ex_int(c, v->kern[i] - 1), r[1 + i]->self) : r[1 + i]->self;
    e = ex_add(c, ex_mul(c, st->axes[2 + i]->self, ex_int(c, v->stride)), ex_mul(c, e, ex_int(c, v->apart)));
    from[2 + i] = e = ex_sub(c, e, ex_int(c, v->pad[i]));
    tap[2 + i] = r[1 + i]->self;
    ok = ex_and(c, ok, ex_and(c, ex_le(c, zero, e), ex_lt(c, e, x->shape[2 + i])));
  }
  Expr *in = ex_select(c, ok, ex_load(c, x, from, rank), ex_const(c, DT_F32, 0));
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, in, ex_load(c, w, tap, rank)), r, 1 + v->sides);
  st->body = relu(k, ex_add(c, sum, at(k, b, st->axes[1]->self, 0, 0, 0)));
  return st;
}

static Tensor *pool_of(Case *k, Tensor *x, int64_t n, Combiner how) {
  Ctx *c = k->c;
  Expr *shape[] = {x->shape[0], x->shape[1], ex_div(c, x->shape[2], ex_int(c, n)), ex_div(c, x->shape[3], ex_int(c, n))}, *from[2];
  Stage *st = stage(k, tensor_new(c, "pool", DT_F32, 4, shape));
  Sym *r[2];
  for (int i = 0; i < 2; i++) {
    r[i] = sym_axis(c, SYM_REDUCE, "p", ex_int(c, n));
    from[i] = ex_add(c, ex_mul(c, st->axes[2 + i]->self, ex_int(c, n)), r[i]->self);
  }
  st->body = ex_reduce(c, how, at(k, x, st->axes[0]->self, st->axes[1]->self, from[0], from[1]), r, 2);
  return st->out;
}

/* pool: between layers over so many places a side; 1: none */
static void pooled_convs(Conv v, int64_t pool, const char *rule) {
  Case k = start((uint32_t)(v.ci * 7 + v.co + v.kern[0]));
  Ctx *c = k.c;
  Expr *h = maybe_open(&k, v.size[0], v.open), *shape[] = {ex_int(c, v.n), ex_int(c, v.ci), h, v.open ? h : ex_int(c, v.size[1])};
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, 2 + v.sides, shape));
  for (int layer = 0; layer <= v.chain; layer++) {
    if (layer && pool > 1) x = pool_of(&k, x, pool, pool == 2 ? RED_MAX : RED_SUM);
    x = conv_stage(&k, &v, layer, x, layer ? v.co : v.ci)->out;
  }
  k.says = v.says;
  finish(&k, rule, 1);
}

static void conv_of(Conv v, const char *rule) { pooled_convs(v, 1, rule); }

static void conv(int64_t n, int64_t ci, int64_t co, int64_t h, int64_t w, int64_t kern, int64_t stride, int64_t pad, bool chain) {
  conv_of((Conv){n, ci, co, 2, {h, w}, {kern, kern}, {pad, pad}, stride, 1, chain, false, false, NULL}, small_caches ? "block" : "contraction");
}

/* y = conv(relu(d * x | d * conv(x))): what is concatenated begins anywhere in a vector. */
static void dense(int64_t ci, int64_t co, int64_t h, int64_t w, const char *says) {
  Case k = start((uint32_t)(ci + co));
  Ctx *c = k.c;
  Conv v = {1, ci, co, 2, {h, w}, {3, 3}, {1, 1}, 1, 1, false, false, false, NULL};
  Tensor *x = conv_stage(&k, &v, 0, input(&k, "x", DIMS(1, 5, h, w)), 5)->out, *grown = conv_stage(&k, &v, 1, x, co)->out;
  Stage *both = stage(&k, tensor(&k, "both", DIMS(1, 2 * co, h, w))), *y = stage(&k, tensor(&k, "y", DIMS(1, 2 * co, h, w)));
#define AT(st, from) st->axes[0]->self, from, st->axes[2]->self, st->axes[3]->self
  Expr *i = both->axes[1]->self, *first = ex_int(c, co);
  both->body = ex_select(c, ex_lt(c, i, first), at(&k, x, AT(both, i)), at(&k, grown, AT(both, ex_sub(c, i, first))));
  i = y->axes[1]->self;
  y->body = relu(&k, ex_mul(c, at(&k, weight(&k, "d", DIMS(2 * co)), i, 0, 0, 0), at(&k, both->out, AT(y, i))));
#undef AT
  conv_stage(&k, &v, 1, y->out, 2 * co);
  k.says = says;
  finish(&k, NULL, 0);
}

/* Few channels are computed in vectors of points, and lie in rows; channels that parts of a vector hold lie last. */
static void test_dense(void) {
  options.explain = true;
  EACH_CPU {
    int lanes = 4 << cpu_row;
    dense(5, lanes * 3 / 4, 6, 32, "both: rows");
    dense(5, lanes * 3 / 2, 6, 9, "both: channels last");
    dense(5, 11, 7, 15, NULL);
  }
  options.explain = false;
}

static void conv_open(int64_t n, int64_t ci, int64_t co, int64_t h, int64_t pad, bool chain) {
  conv_of((Conv){n, ci, co, 2, {h, 0}, {3, 3}, {pad, pad}, 1, 1, chain, true, false, NULL}, "block");
}

/* 1x1 convolutions: the points of a map are rows, of which the last one may be odd; every second point; a line; depths that are no whole blocks. */
static void test_strassen_maps(void) {
  options.eager = true;
  EACH_CPU {
    conv_of((Conv){1, 32, 128, 2, {9, 7}, {1, 1}, {0, 0}, 1, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){2, 24, 130, 2, {11, 12}, {1, 1}, {0, 0}, 2, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){1, 44, 128, 2, {23, 24}, {1, 1}, {0, 0}, 1, 1, true, false, false, "c0.S"}, "block");
    conv_of((Conv){3, 32, 128, 1, {31}, {1}, {0}, 1, 1, true, false, false, "c0.S"}, "block");
  }
  options.eager = false;
}

/* With fewer multiplications: strides by phases, taps apart, one side, sides that differ, as many taps as there are points for. */
static void test_winograd(void) {
  slow_sums = true;
  EACH_CPU {
    conv_of((Conv){1, 16, 24, 2, {21, 14}, {3, 3}, {1, 1}, 2, 1, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 16, 2, {19, 16}, {5, 5}, {2, 2}, 2, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {9, 7}, {5, 5}, {2, 1}, 1, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 24, 16, 2, {5, 19}, {1, 7}, {0, 3}, 1, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){2, 16, 24, 1, {41}, {3}, {1}, 1, 1, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 16, 1, {70}, {5}, {0}, 2, 1, false, false, false, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {9, 8}, {2, 3}, {1, 0}, 1, 1, true, false, true, "c0.V"}, "cases");
    conv_of((Conv){1, 16, 24, 2, {16, 12}, {3, 3}, {2, 2}, 1, 2, true, false, false, "c0.V"}, "cases");
    conv_of((Conv){2, 16, 16, 1, {26}, {3}, {3}, 1, 3, false, false, true, "c0.V"}, "cases");
  }
  slow_sums = false;
}

static void test_conv(void) {
  EACH_CPU {
    conv(1, 3, 32, 9, 11, 3, 1, 1, true);
    conv(1, 16, 24, 7, 7, 3, 2, 1, true);
    conv(1, 32, 40, 6, 6, 1, 1, 0, true);
    conv(1, 3, 64, 15, 15, 7, 2, 3, false);
    conv(1, 32, 24, 14, 13, 3, 1, 1, true);                     /* F(4,3) */
    conv(1, 16, 32, 7, 6, 3, 1, 0, false);                      /* F(2,3) */
    conv(2, 24, 1, 6, 21, 3, 1, 1, false);                      /* so few output channels that vectors run along the width */
  }
}

/* Threads far from each other part the rows of maps, of two axes or of one that lies contiguous, and not those that are odd. */
static void test_parted_rows(void) {
  far_cores = options.explain = true;
  EACH_CPU {
    conv_of((Conv){1, 32, 40, 2, {14, 10}, {1, 1}, {0, 0}, 1, 1, true, false, false, "order c.d.t b.o"}, "contraction");
    conv_of((Conv){1, 16, 24, 2, {8, 21}, {3, 3}, {1, 1}, 2, 1, true, false, false, "order c.t b.o"}, "contraction");
    conv_of((Conv){1, 16, 40, 2, {7, 7}, {1, 1}, {0, 0}, 1, 1, true, false, false, "order b.o"}, "contraction");
  }
  far_cores = options.explain = false;
}

/* Groups narrower than a vector, twice: the second reads blocks of channels. */
static void grouped(int64_t channels, int64_t width, int64_t h, int64_t w, bool open) {
  Case k = start((uint32_t)(channels + width));
  Ctx *c = k.c;
  Expr *images = maybe_open(&k, 1 + open, open), *all = ex_int(c, channels);
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(images, all, ex_int(c, h), ex_int(c, w))));
  for (int layer = 0; layer < 2; layer++, h -= 2, w -= 2) {
    Tensor *wt = weight(&k, layer ? "w1" : "w0", DIMS(channels, width, 3, 3));
    Stage *st = stage(&k, tensor_new(c, layer ? "g1" : "g0", DT_F32, EXTENTS(images, all, ex_int(c, h - 2), ex_int(c, w - 2))));
    Sym *r[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, width)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, 3))};
    Expr *n = ex_int(c, width), *o = st->axes[1]->self, *in = ex_add(c, ex_mul(c, ex_div(c, o, n), n), r[0]->self);
    Expr *load = at(&k, x, st->axes[0]->self, in, ex_add(c, st->axes[2]->self, r[1]->self), ex_add(c, st->axes[3]->self, r[2]->self));
    st->body = relu(&k, ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, wt, o, r[0]->self, r[1]->self, r[2]->self)), r, 3));
    x = st->out;
  }
  finish(&k, width < target_lanes(k.m->target, 32) ? "nest" : "contraction", 1);
}

static void test_grouped(void) {
  EACH_CPU {
    grouped(32, 4, 7, 9, false);
    grouped(48, 8, 6, 11, false);
    grouped(24, 2, 6, 6, false);
    grouped(60, 20, 9, 10, false);                             /* no whole vectors */
    grouped(32, 8, 7, 6, true);
  }
}

/* x with zeros around it, at the tap of a 3x3 window. */
static Expr *windowed(Case *k, Tensor *x, const Stage *st, Expr *channel, int stride, Sym **r) {
  Ctx *c = k->c;
  Expr *ih = ex_add(c, ex_mul(c, st->axes[2]->self, ex_int(c, stride)), ex_sub(c, r[0]->self, ex_int(c, 1))), *zero = ex_int(c, 0);
  Expr *iw = ex_add(c, ex_mul(c, st->axes[3]->self, ex_int(c, stride)), ex_sub(c, r[1]->self, ex_int(c, 1)));
  Expr *ok = ex_and(c, ex_and(c, ex_le(c, zero, ih), ex_lt(c, ih, x->shape[2])), ex_and(c, ex_le(c, zero, iw), ex_lt(c, iw, x->shape[3])));
  return ex_select(c, ok, at(k, x, st->axes[0]->self, channel, ih, iw), ex_const(c, DT_F32, 0));
}

/* A map that a depthwise convolution makes is pooled, and read with a ring by the next one, which adds what the pool gives. */
static void pooled(int64_t n, int64_t channels, int64_t h, int64_t w) {
  enum { IN = 16, OUT = 24 };
  Case k = start((uint32_t)(channels + w));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(n, IN, h, w)), *w0 = weight(&k, "w0", DIMS(channels, IN)), *w1 = weight(&k, "w1", DIMS(channels, 3, 3));
  Tensor *w2 = weight(&k, "w2", DIMS(OUT, channels, 3, 3));
  Stage *wide = stage(&k, tensor(&k, "wide", DIMS(n, channels, h, w))), *map = stage(&k, tensor(&k, "map", DIMS(n, channels, h, w)));
  Stage *pool = stage(&k, tensor(&k, "pool", DIMS(n, channels, 1, 1))), *y = stage(&k, tensor(&k, "y", DIMS(n, OUT, (h + 1) / 2, (w + 1) / 2)));
  Sym *over = sym_axis(c, SYM_REDUCE, "i", ex_int(c, IN)), **a = wide->axes, **b = map->axes, *r[3], *q[2];
  wide->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, a[0]->self, over->self, a[2]->self, a[3]->self), at(&k, w0, a[1]->self, over->self, 0, 0)), &over, 1);
  for (int i = 0; i < 2; i++) r[i] = sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3));
  map->body = ex_mul(c, windowed(&k, wide->out, map, b[1]->self, 1, r), at(&k, w1, b[1]->self, r[0]->self, r[1]->self, 0));
  map->body = ex_add(c, ex_reduce(c, RED_SUM, map->body, r, 2), ex_const(c, DT_F32, 1));       /* not zero where channels end */
  for (int i = 0; i < 2; i++) q[i] = sym_axis(c, SYM_REDUCE, "q", map->out->shape[2 + i]);
  pool->body = ex_reduce(c, RED_SUM, at(&k, map->out, pool->axes[0]->self, pool->axes[1]->self, q[0]->self, q[1]->self), q, 2);
  pool->body = ex_mul(c, pool->body, ex_const(c, DT_F32, 1.0 / (double)(h * w)));
  for (int i = 0; i < 3; i++) r[i] = sym_axis(c, SYM_REDUCE, "s", ex_int(c, i < 2 ? 3 : channels));
  Expr *sum = ex_mul(c, windowed(&k, map->out, y, r[2]->self, 2, r), at(&k, w2, y->axes[1]->self, r[2]->self, r[0]->self, r[1]->self));
  y->body = ex_add(c, ex_reduce(c, RED_SUM, sum, r, 3), at(&k, pool->out, y->axes[0]->self, y->axes[1]->self, ex_int(c, 0), ex_int(c, 0)));
  finish(&k, "block", 1);
}

static void test_pooled(void) {
  EACH_CPU {
    pooled(2, 40, 6, 9);
    pooled(3, 45, 8, 7);
    pooled(2, 256, 3, 5);                                      /* all rows in one part */
  }
}

/* y[k, h, w] = sum(c, r, s) x[c, place(h, r), place(w, s)] * w[.., r, s]: as the place says, transposed or dilated; a tap is met if `hit`. */
typedef struct { Expr *at, *tap, *hit; } Meet;
static Meet transposed_place(Ctx *c, Expr *o, Expr *q, int64_t kern, int64_t stride, int64_t pad) {
  Expr *s = ex_int(c, stride), *from = ex_add(c, o, ex_int(c, pad)), *tap = ex_add(c, ex_mul(c, q, s), ex_mod(c, from, s));
  return (Meet){ex_sub(c, ex_div(c, from, s), q), ex_min(c, tap, ex_int(c, kern - 1)), ex_lt(c, tap, ex_int(c, kern))};
}
static Meet dilated_place(Ctx *c, Expr *o, Expr *r, int64_t kern, int64_t dilation, int64_t pad) {
  (void)kern;
  return (Meet){ex_sub(c, ex_add(c, o, ex_mul(c, r, ex_int(c, dilation))), ex_int(c, pad)), r, ex_bool(c, true)};
}

typedef Meet MeetRule(Ctx *c, Expr *o, Expr *r, int64_t kern, int64_t step, int64_t pad);
static void window(MeetRule *rule, int64_t ci, int64_t co, int64_t in, int64_t out, int64_t kern, int64_t taps, int64_t step, int64_t pad, int kernels) {
  Case k = start((uint32_t)(ci + out));
  Ctx *c = k.c;
  bool open = !out;                                          /* step times as large as the input, whose size is open */
  Expr *from = maybe_open(&k, in, open), *to = open ? ex_mul(c, from, ex_int(c, step)) : ex_int(c, out), *one = ex_int(c, 1);
  Tensor *x = as_input(&k, tensor_new(c, "x", DT_F32, EXTENTS(one, ex_int(c, ci), from, from))), *w = weight(&k, "w", DIMS(ci, co, kern, kern));
  Stage *st = stage(&k, tensor_new(c, "y", DT_F32, EXTENTS(one, ex_int(c, co), to, to)));
  Sym *r[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, ci)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, taps)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, taps))};
  Meet h = rule(c, st->axes[2]->self, r[1]->self, kern, step, pad), v = rule(c, st->axes[3]->self, r[2]->self, kern, step, pad);
  Expr *ok = ex_and(c, ex_and(c, ex_le(c, ex_int(c, 0), h.at), ex_lt(c, h.at, x->shape[2])), ex_and(c, ex_le(c, ex_int(c, 0), v.at), ex_lt(c, v.at, x->shape[3])));
  Expr *zero = ex_const(c, DT_F32, 0), *load = ex_select(c, ok, at(&k, x, st->axes[0]->self, r[0]->self, h.at, v.at), zero);
  Expr *met = ex_select(c, ex_and(c, h.hit, v.hit), load, zero);
  st->body = relu(&k, ex_reduce(c, RED_SUM, ex_mul(c, met, at(&k, w, r[0]->self, st->axes[1]->self, h.tap, v.tap)), r, 3));
  finish(&k, "contraction", kernels);
}

static void test_windows(void) {
  EACH_CPU {
    window(transposed_place, 16, 24, 5, 10, 4, 2, 2, 1, 4);  /* phases: 2 by 2 */
    window(transposed_place, 8, 16, 4, 9, 3, 2, 2, 0, 4);    /* with fewer taps in one of them */
    window(transposed_place, 9, 16, 4, 12, 3, 1, 3, 0, 9);
    window(transposed_place, 32, 2, 20, 40, 4, 2, 2, 1, 4);
    window(transposed_place, 16, 24, 5, 0, 4, 2, 2, 1, 4);
    window(transposed_place, 16, 24, 1, 0, 4, 2, 2, 1, 4);
    window(dilated_place, 16, 16, 7, 7, 3, 3, 8, 8, 1);      /* one tap of nine is left */
    window(dilated_place, 8, 16, 12, 12, 3, 3, 9, 9, 9);     /* segments: 3 by 3 */
  }
}

/* Rows of a product that are read in the order of n by n windows of w by w points each. */
static void unwindowed(int64_t n, int64_t w) {
  Case k = start((uint32_t)(n * w));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(n * n, w * w, 24)), *wt = weight(&k, "w", DIMS(24, 32)), *b = weight(&k, "b", DIMS(n * w, n * w, 32));
  Stage *y = stage(&k, tensor(&k, "y", DIMS(n * w, n * w, 32)));
  Sym *r = sym_axis(c, SYM_REDUCE, "k", ex_int(c, 24));
  Expr *h = y->axes[0]->self, *v = y->axes[1]->self, *o = y->axes[2]->self, *by = ex_int(c, w);
  Expr *outside = ex_add(c, ex_mul(c, ex_div(c, h, by), ex_int(c, n)), ex_div(c, v, by));
  Expr *inside = ex_add(c, ex_mul(c, ex_mod(c, h, by), by), ex_mod(c, v, by));
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, outside, inside, r->self, 0), at(&k, wt, r->self, o, 0, 0)), &r, 1);
  y->body = ex_add(c, sum, at(&k, b, h, v, o, 0));
  k.calls = 1;
  k.sums = target_lanes(k.m->target, 32) * 8;
  finish(&k, "contraction", 1);
}

static void test_unwindowed(void) {
  EACH_CPU {
    unwindowed(2, 7);
    unwindowed(2, 4);
    unwindowed(5, 3);
  }
}

/* A 1x1 convolution of more blocks of channels than the hardware follows, which do not fit the cache. */
static void many_blocks(int64_t channels, int64_t h, int64_t w) {
  Case k = start((uint32_t)channels);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(1, 3, h, w));
  for (int layer = 0; layer < 2; layer++) {
    int64_t from = layer ? channels : 3, to = layer ? 16 : channels;
    Tensor *wt = weight(&k, layer ? "w1" : "w0", DIMS(to, from));
    Stage *st = stage(&k, tensor(&k, layer ? "c1" : "c0", DIMS(1, to, h, w)));
    Sym *r = sym_axis(c, SYM_REDUCE, "c", ex_int(c, from));
    Expr *load = at(&k, x, st->axes[0]->self, r->self, st->axes[2]->self, st->axes[3]->self);
    st->body = ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, wt, st->axes[1]->self, r->self, 0, 0)), &r, 1);
    x = st->out;
  }
  k.says = "prefetch c0{";
  finish(&k, "contraction", 2);
}

/* Bands of tiles in their order, the last one short: of maps smaller than a tile, of no whole tiles, of several images. */
static void test_open_bands(void) {
  EACH_CPU {
    conv_open(2, 16, 24, 1, 1, true);
    conv_open(1, 16, 24, 6, 1, true);
    conv_open(2, 16, 16, 23, 0, false);
  }
}

/* Maps that a pool alone reads are not stored: windows of whole tiles, of parts of several, and what is left over at the border. */
static void test_pools_of_windows(void) {
  small_caches = options.explain = true;
  EACH_CPU {
    pooled_convs((Conv){1, 16, 24, 2, {32, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 2, "block");
    pooled_convs((Conv){2, 16, 20, 2, {24, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 4, "block");
  }
  small_caches = false;
  slow_sums = true;
  EACH_CPU pooled_convs((Conv){1, 16, 16, 2, {15, 13}, {3, 3}, {1, 1}, 1, 1, true, false, false, "made with c0"}, 2, "contraction");
  slow_sums = options.explain = false;
}

static void test_bands(void) {
  small_caches = true;
  EACH_CPU {
    many_blocks(528, 10, 10);
    conv(1, 16, 24, 22, 11, 3, 1, 1, true);
    conv(2, 16, 16, 14, 12, 3, 1, 1, false);
    conv_of((Conv){1, 16, 24, 2, {26, 24}, {3, 3}, {1, 1}, 1, 1, true, false, false, "prefetch c0{"}, "block");
  }
  small_caches = false;
}

/* Channels in blocks, read with zeros in front of them: no ring may lie around blocks. */
static void padded_channels(int64_t co, int64_t more) {
  Case k = start((uint32_t)co);
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(2, 3, 5, 4)), *w = weight(&k, "w", DIMS(co, 3));
  Stage *conv1 = stage(&k, tensor(&k, "c0", DIMS(2, co, 5, 4)));
  Sym *r = sym_axis(c, SYM_REDUCE, "ci", ex_int(c, 3));
  Expr *h = conv1->axes[2]->self, *v = conv1->axes[3]->self;
  conv1->body = ex_reduce(c, RED_SUM, ex_mul(c, at(&k, x, conv1->axes[0]->self, r->self, h, v), at(&k, w, conv1->axes[1]->self, r->self, 0, 0)), &r, 1);
  Stage *pad = stage(&k, tensor(&k, "padded", DIMS(2, co + more, 5, 4)));
  Expr *from = ex_sub(c, pad->axes[1]->self, ex_int(c, more));
  Expr *load = at(&k, conv1->out, pad->axes[0]->self, from, pad->axes[2]->self, pad->axes[3]->self);
  pad->body = ex_select(c, ex_le(c, ex_int(c, 0), from), load, ex_const(c, DT_F32, 0));
  finish(&k, NULL, 0);
}

static void test_padded_channels(void) {
  EACH_CPU {
    padded_channels(18, 2);
    padded_channels(32, 3);
  }
}

/* y[b, j, i] from x[b - first, i, j] and constants: one that moves with i, or one stored as y is; zero below `first`, where x has nothing */
static void turned(int64_t rows, int64_t cols, bool added, int64_t first) {
  Case k = start((uint32_t)(rows + cols));
  Ctx *c = k.c;
  Tensor *x = input(&k, "x", DIMS(2, rows, cols)), *w = weight(&k, "w", DIMS(cols, rows)), *s = weight(&k, "s", DIMS(rows));
  Stage *y = stage(&k, tensor(&k, "y", DIMS(2 + first, cols, rows)));
  Expr *b = y->axes[0]->self, *j = y->axes[1]->self, *i = y->axes[2]->self, *from = ex_int(c, first);
  Expr *load = at(&k, x, ex_sub(c, b, from), i, j, 0);
  Expr *value = added ? ex_add(c, load, at(&k, w, j, i, 0, 0)) : ex_mul(c, load, at(&k, s, i, 0, 0, 0));
  y->body = ex_select(c, ex_le(c, from, b), value, ex_const(c, DT_F32, 0));
  finish(&k, "square", 1);
}

static void test_turned(void) {
  EACH_CPU {
    turned(16, 32, false, 0);
    turned(19, 37, false, 0);
    turned(33, 21, true, 0);
    turned(8, 17, true, 0);
    turned(16, 16, true, 3);
  }
}

/* A 1x1 convolution, its channels from some place on to mean zero, and a 3x3 convolution of them and of that. */
static void slices_and_rows(int64_t channels, int64_t from_channel) {
  Case k = start((uint32_t)channels);
  Ctx *c = k.c;
  enum { IN = 5, H = 6, W = 7 };
  Tensor *x = input(&k, "x", DIMS(1, IN, H, W)), *w0 = weight(&k, "w0", DIMS(channels + from_channel, IN)), *w1 = weight(&k, "w1", DIMS(16, channels, 3, 3));
  Stage *all = stage(&k, tensor(&k, "all", DIMS(1, channels + from_channel, H, W))), *part = stage(&k, tensor(&k, "part", DIMS(1, channels, H, W)));
  Sym *r = sym_axis(c, SYM_REDUCE, "ci", ex_int(c, IN)), *h = sym_axis(c, SYM_REDUCE, "h", ex_int(c, H)), *v = sym_axis(c, SYM_REDUCE, "v", ex_int(c, W));
#define AXES(st) st->axes[0]->self, st->axes[1]->self, st->axes[2]->self, st->axes[3]->self
  Expr *load = at(&k, x, all->axes[0]->self, r->self, all->axes[2]->self, all->axes[3]->self);
  all->body = ex_reduce(c, RED_SUM, ex_mul(c, load, at(&k, w0, all->axes[1]->self, r->self, 0, 0)), &r, 1);
  Expr *n = part->axes[0]->self, *q = part->axes[1]->self, *zero = ex_int(c, 0);
  part->body = at(&k, all->out, n, ex_add(c, q, ex_int(c, from_channel)), part->axes[2]->self, part->axes[3]->self);
  Stage *mean = stage(&k, tensor(&k, "mean", DIMS(1, channels, 1, 1))), *centred = stage(&k, tensor(&k, "centred", DIMS(1, channels, H, W)));
  Expr *sum = ex_reduce(c, RED_SUM, at(&k, part->out, mean->axes[0]->self, mean->axes[1]->self, h->self, v->self), (Sym *[]){h, v}, 2);
  mean->body = ex_div(c, sum, ex_const(c, DT_F32, H * W));
  centred->body = ex_sub(c, at(&k, part->out, AXES(centred)), at(&k, mean->out, centred->axes[0]->self, centred->axes[1]->self, zero, zero));
  Tensor *from[] = {part->out, centred->out};
  for (int i = 0; i < 2; i++) {
    Stage *st = stage(&k, tensor(&k, i ? "y" : "c0", DIMS(1, 16, H, W)));
    Sym *red[] = {sym_axis(c, SYM_REDUCE, "c", ex_int(c, channels)), sym_axis(c, SYM_REDUCE, "r", ex_int(c, 3)), sym_axis(c, SYM_REDUCE, "s", ex_int(c, 3))};
    Expr *y = ex_sub(c, ex_add(c, st->axes[2]->self, red[1]->self), ex_int(c, 1)), *z = ex_sub(c, ex_add(c, st->axes[3]->self, red[2]->self), ex_int(c, 1));
    Expr *in = ex_and(c, ex_and(c, ex_le(c, zero, y), ex_lt(c, y, ex_int(c, H))), ex_and(c, ex_le(c, zero, z), ex_lt(c, z, ex_int(c, W))));
    Expr *map = ex_select(c, in, at(&k, from[i], zero, red[0]->self, y, z), ex_const(c, DT_F32, 0));
    st->body = ex_reduce(c, RED_SUM, ex_mul(c, map, at(&k, w1, st->axes[1]->self, red[0]->self, red[1]->self, red[2]->self)), red, 3);
    if (i) st->body = ex_add(c, st->body, at(&k, k.stages.v[k.stages.n - 2]->out, AXES(st)));
  }
#undef AXES
  finish(&k, (channels | from_channel) % 16 ? NULL : "block", 1);
}

static void test_slices_and_rows(void) {
  EACH_CPU {
    slices_and_rows(32, 16);
    slices_and_rows(24, 16);
    slices_and_rows(32, 10);                                 /* from the middle of a block on */
  }
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("kernels", NULL, NULL);
  CU_add_test(s, "Strassen of maps", test_strassen_maps);
  CU_add_test(s, "convolution", test_conv);
  CU_add_test(s, "concatenations of any parts", test_dense);
  CU_add_test(s, "parted rows", test_parted_rows);
  CU_add_test(s, "convolution with fewer multiplications", test_winograd);
  CU_add_test(s, "convolution in bands", test_bands);
  CU_add_test(s, "convolution in bands of open maps", test_open_bands);
  CU_add_test(s, "windows in parts", test_windows);
  CU_add_test(s, "rows in windows", test_unwindowed);
  CU_add_test(s, "grouped convolution", test_grouped);
  CU_add_test(s, "pools of windows", test_pools_of_windows);
  CU_add_test(s, "pools of maps as they are made", test_pooled);
  CU_add_test(s, "padded channels", test_padded_channels);
  CU_add_test(s, "loads across the store", test_turned);
  CU_add_test(s, "slices of channels and rows of maps", test_slices_and_rows);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed > 0;
}
