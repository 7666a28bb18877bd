/* resize.c - Resize: nearest, linear and cubic, all coordinate modes, antialiasing.
 *
 * The input coordinate of output o is a fraction num/den of integer expressions wherever the scale is a ratio of small numbers or of
 * sizes, so that places are exact and plain index arithmetic; else a float. Nearest is one stage. Linear and cubic resample one axis a
 * stage: y[o] = sum over taps t of K((t - frac) * min(scale, 1)) * x[clamp(floor + t)], where K is the filter. */
#include <math.h>

#include "../op_impl.h"

static const double SCALE_MIN = 1e-6;         /* the filter has some 4 / scale taps */

typedef struct {
  bool active;                     /* this axis is resized */
  Expr *in, *out;
  Expr *p, *q;                     /* scale = p / q; NULL if it is no ratio */
  Expr *scale;                     /* f32 */
  int roi;                         /* number of its start in the region of interest */
} Axis;

typedef struct { OpCtx *oc; Ctx *c; Tensor *x; Axis axis[MAX_RANK]; int naxes; } Resize;

/* ---- sizes ---- */

/* The ratio that v, an f32, was rounded from. */
static bool small_ratio(double v, int64_t *p, int64_t *q) {
  for (*q = 1; *q <= 4096; ++*q) {
    double n = nearbyint(v * (double)*q);
    if (n >= 1 && n < 1e9 && (float)(n / (double)*q) == (float)v) {
      *p = (int64_t)n;
      return true;
    }
  }
  return false;
}

static bool scaled_axis(Resize *r, Axis *a, Expr *scale) {
  Ctx *c = r->c;
  int64_t p, q, n;
  a->scale = ex_cast(c, DT_F32, scale);
  if (!ex_is_const(scale)) {
    a->out = ex_cast(c, DT_I64, ex_unary(c, EX_FLOOR, ex_mul(c, ex_cast(c, DT_F32, a->in), a->scale)));
    a->active = true;
    return true;
  }
  double v = scale->u.f;
  if (!(v > 0) || v > 1e6) return op_error(r->oc, E0412, NULL, "a scale of %g", v);
  if (small_ratio(v, &p, &q)) a->p = ex_int(c, p), a->q = ex_int(c, q);
  if (a->p && q == 1) a->out = ex_mul(c, a->in, a->p);
  else if (ex_is_int(a->in, &n)) a->out = ex_int(c, (int64_t)floorf((float)n * (float)v));
  else if (a->p) a->out = ex_div(c, ex_mul(c, a->in, a->p), a->q);
  else a->out = ex_cast(c, DT_I64, ex_unary(c, EX_FLOOR, ex_mul(c, ex_cast(c, DT_F32, a->in), a->scale)));
  a->active = v != 1;
  return true;
}

static void sized_axis(Resize *r, Axis *a, Expr *size) {
  Ctx *c = r->c;
  a->out = a->p = size;
  a->q = a->in;
  a->scale = ex_div(c, ex_cast(c, DT_F32, size), ex_cast(c, DT_F32, a->in));
  a->active = !op_same_dim(c, a->in, a->out);
}

/* One scale for all axes, the smallest or the largest that the sizes ask for. */
static bool keep_aspect(Resize *r, const int *list, Expr **sizes, bool larger) {
  double scale = 0;
  for (int i = 0; i < r->naxes; i++) {
    int64_t n, m;
    if (!ex_is_int(r->axis[list[i]].in, &n) || !ex_is_int(sizes[i], &m))
      return op_error(r->oc, E0413, NULL, "sizes that keep the aspect ratio must be known before the model runs");
    double s = n ? (double)m / (double)n : 0;
    if (!i || (larger ? s > scale : s < scale)) scale = s;
  }
  for (int i = 0; i < r->naxes; i++)
    sizes[i] = ex_int(r->c, (int64_t)floor(scale * (double)r->axis[list[i]].in->u.i + 0.5));
  return true;
}

static bool given(const Node *n, int i) {
  return op_has_input(n, i) && !(n->in[i]->rank == 1 && ex_equals_int(n->in[i]->shape[0], 0));
}

static bool resize_axes(Resize *r, int *list) {
  const Attr *axes = op_attr(r->oc->node, "axes");
  bool mask[MAX_RANK];
  r->naxes = axes->kind == ATTR_INTS ? axes->n : r->x->rank;
  if (axes->kind == ATTR_INTS) OP_BAIL(op_axes_mask(r->oc, axes->ints, axes->n, r->x->rank, mask));
  for (int i = 0; i < r->naxes; i++) {
    int64_t d = axes->kind == ATTR_INTS ? axes->ints[i] : i;
    list[i] = (int)(d < 0 ? d + r->x->rank : d);
    r->axis[list[i]].roi = i;
  }
  return true;
}

static bool resize_make(OpCtx *oc, Resize *r) {
  const Node *n = oc->node;
  int list[MAX_RANK], count;
  Expr **v;
  bool crop = op_attr_is(n, "coordinate_transformation_mode", "tf_crop_and_resize"), sizes = given(n, 3);
  *r = (Resize){ .oc = oc, .c = oc->c, .x = n->in[0] };
  for (int d = 0; d < r->x->rank; d++) r->axis[d].in = r->axis[d].out = r->x->shape[d];
  OP_BAIL(resize_axes(r, list));
  if (sizes == given(n, 2)) return op_error(oc, E0403, NULL, "one of scales and sizes must be given");
  if (sizes) OP_BAIL(op_known_exprs(oc, 3, &v, &count));
  else if (!op_elements(oc, 2, MAX_RANK, &v, &count))
    return op_error(oc, E0413, NULL, "the scales must be known before the model runs");
  if (count != r->naxes)
    return op_error(oc, E0411, NULL, "%s: %d scales or sizes for %d axes", op_inputs_text(oc), count, r->naxes);
  if (sizes && !op_attr_is(n, "keep_aspect_ratio_policy", "stretch"))
    OP_BAIL(keep_aspect(r, list, v, op_attr_is(n, "keep_aspect_ratio_policy", "not_smaller")));
  for (int i = 0; i < r->naxes; i++) {
    Axis *a = &r->axis[list[i]];
    if (sizes) sized_axis(r, a, v[i]);
    else OP_BAIL(scaled_axis(r, a, v[i]));
    a->active |= crop;
  }
  if (crop && !given(n, 1)) return op_error(oc, E0403, NULL, "tf_crop_and_resize needs a region of interest");
  if (crop && (n->in[1]->rank != 1 || !op_meet(oc, n->in[1]->shape[0], ex_int(oc->c, 2 * r->naxes))))
    return op_error(oc, E0411, NULL, "%s: a region of interest of %d axes has %d numbers", op_inputs_text(oc), r->naxes,
                    2 * r->naxes);
  for (int i = 0; i < r->naxes && op_attr_i(n, "antialias"); i++) {
    const Axis *a = &r->axis[list[i]];
    if (a->active && !ex_is_const(a->scale))
      return op_error(oc, E0413, NULL, "antialiasing needs scales that are known before the model runs");
    if (a->active && !(a->scale->u.f > SCALE_MIN)) return op_error(oc, E0412, NULL, "antialiasing with a scale of %g", a->scale->u.f);
  }
  return true;
}

bool shape_resize(OpCtx *oc) {
  Resize r;
  Expr *shape[MAX_RANK];
  OP_BAIL(resize_make(oc, &r));
  if (r.x->dtype == DT_BOOL && !op_attr_is(oc->node, "mode", "nearest"))
    return op_error(oc, E0404, NULL, "%s: booleans have no mean; only mode nearest takes them", op_inputs_text(oc));
  for (int d = 0; d < r.x->rank; d++) shape[d] = r.axis[d].out;
  op_out(oc, 0, r.x->dtype, r.x->rank, shape);
  for (int d = 0; d < r.x->rank; d++)
    if (r.axis[d].active) OP_BAIL(op_not_empty(oc, r.axis[d].in, op_product(oc->c, shape, r.x->rank)));
  return true;
}

/* ---- coordinates ---- */

typedef struct {
  Expr *num, *den;                 /* the coordinate as a fraction, or ... */
  Expr *x;                         /* ... as an f32 */
  Expr *outside;                   /* where the extrapolation value stands; NULL: nowhere */
} Coord;

static Expr *num(Resize *r, int64_t v) { return ex_int(r->c, v); }
static Expr *real(Resize *r, double v) { return ex_const(r->c, DT_F32, v); }
static Expr *as_real(Resize *r, Expr *e) { return ex_cast(r->c, DT_F32, e); }
static bool mode_is(const Resize *r, const char *mode) {
  return op_attr_is(r->oc->node, "coordinate_transformation_mode", mode);
}

/* Of one output element only, the coordinate is 0. */
static Expr *unless_single(Resize *r, const Axis *a, Expr *e) {
  return ex_select(r->c, ex_eq(r->c, a->out, num(r, 1)), ex_const_i(r->c, (DType)e->dtype, 0), e);
}

static Coord ratio_coord(Resize *r, const Axis *a, Expr *o) {
  Ctx *c = r->c;
  if (mode_is(r, "align_corners")) {         /* o*(in-1) / (in*scale-1) */
    Expr *span = ex_mul(c, o, ex_sub(c, a->in, num(r, 1)));
    if (a->p == a->out) return (Coord){ .num = span, .den = ex_max(c, ex_sub(c, a->out, num(r, 1)), num(r, 1)) };
    return (Coord){ .num = ex_mul(c, span, a->q),
                    .den = ex_max(c, ex_sub(c, ex_mul(c, a->in, a->p), a->q), num(r, 1)) };
  }
  if (mode_is(r, "asymmetric")) return (Coord){ .num = ex_mul(c, o, a->q), .den = a->p };
  Expr *twice = ex_add(c, ex_mul(c, o, num(r, 2)), num(r, 1)), *e = ex_sub(c, ex_mul(c, twice, a->q), a->p);
  if (mode_is(r, "half_pixel_symmetric")) e = ex_add(c, e, ex_sub(c, ex_mul(c, a->in, a->p), ex_mul(c, a->out, a->q)));
  if (mode_is(r, "pytorch_half_pixel")) e = unless_single(r, a, e);
  return (Coord){ .num = e, .den = ex_mul(c, a->p, num(r, 2)) };
}

static Coord crop_coord(Resize *r, const Axis *a, Expr *o) {
  Ctx *c = r->c;
  Expr *start = num(r, a->roi), *end = num(r, a->roi + r->naxes), *last = as_real(r, ex_sub(c, a->in, num(r, 1)));
  start = as_real(r, op_in(r->oc, 1, &start));
  end = as_real(r, op_in(r->oc, 1, &end));
  Expr *steps = as_real(r, ex_max(c, ex_sub(c, a->out, num(r, 1)), num(r, 1)));
  Expr *x = ex_add(c, ex_mul(c, start, last),
                   ex_div(c, ex_mul(c, as_real(r, o), ex_mul(c, ex_sub(c, end, start), last)), steps));
  Expr *middle = ex_mul(c, ex_mul(c, real(r, 0.5), ex_add(c, start, end)), last);
  x = ex_select(c, ex_eq(c, a->out, num(r, 1)), middle, x);
  return (Coord){ .x = x, .outside = ex_or(c, ex_lt(c, x, real(r, 0)), ex_lt(c, last, x)) };
}

static Coord coord(Resize *r, const Axis *a, Expr *o) {
  Ctx *c = r->c;
  if (mode_is(r, "tf_crop_and_resize")) return crop_coord(r, a, o);
  if (a->p) return ratio_coord(r, a, o);
  Expr *f = as_real(r, o), *half = real(r, 0.5);
  if (mode_is(r, "asymmetric")) return (Coord){ .x = ex_div(c, f, a->scale) };
  if (mode_is(r, "align_corners")) {
    Expr *in = as_real(r, a->in), *one = real(r, 1);
    Expr *x = ex_div(c, ex_mul(c, f, ex_sub(c, in, one)), ex_sub(c, ex_mul(c, in, a->scale), one));
    return (Coord){ .x = unless_single(r, a, x) };
  }
  Expr *x = ex_sub(c, ex_div(c, ex_add(c, f, half), a->scale), half);
  if (mode_is(r, "pytorch_half_pixel")) x = unless_single(r, a, x);
  if (mode_is(r, "half_pixel_symmetric")) {
    Expr *in = as_real(r, a->in), *used = ex_div(c, as_real(r, a->out), ex_mul(c, a->scale, in));
    x = ex_add(c, x, ex_mul(c, ex_mul(c, in, half), ex_sub(c, real(r, 1), used)));
  }
  return (Coord){ .x = x };
}

static Expr *to_index(Resize *r, ExprOp round, Expr *x) { return ex_cast(r->c, DT_I64, ex_unary(r->c, round, x)); }

static Expr *coord_floor(Resize *r, const Coord *k) {
  return k->num ? ex_div(r->c, k->num, k->den) : to_index(r, EX_FLOOR, k->x);
}

static Expr *coord_fraction(Resize *r, const Coord *k) {
  Ctx *c = r->c;
  if (k->num) return ex_div(c, as_real(r, ex_mod(c, k->num, k->den)), as_real(r, k->den));
  return ex_sub(c, k->x, ex_unary(c, EX_FLOOR, k->x));
}

static Expr *coord_nearest(Resize *r, const Coord *k) {
  Ctx *c = r->c;
  const Node *n = r->oc->node;
  bool floor_mode = op_attr_is(n, "nearest_mode", "floor"), ceil_mode = op_attr_is(n, "nearest_mode", "ceil"),
       up = op_attr_is(n, "nearest_mode", "round_prefer_ceil");
  if (floor_mode) return coord_floor(r, k);
  if (!k->num) {
    if (ceil_mode) return to_index(r, EX_CEIL, k->x);
    return up ? to_index(r, EX_FLOOR, ex_add(c, k->x, real(r, 0.5)))
              : to_index(r, EX_CEIL, ex_sub(c, k->x, real(r, 0.5)));
  }
  Expr *one = num(r, 1), *twice = ex_mul(c, k->den, num(r, 2));
  if (ceil_mode) return ex_div(c, ex_add(c, k->num, ex_sub(c, k->den, one)), k->den);
  Expr *middle = ex_add(c, ex_mul(c, k->num, num(r, 2)), k->den);
  return ex_div(c, up ? middle : ex_sub(c, middle, one), twice);
}

static Expr *clamped(Resize *r, const Axis *a, Expr *i) {
  return op_clamp(r->c, i, num(r, 0), ex_sub(r->c, a->in, num(r, 1)));
}

static Expr *extrapolated(Resize *r, Expr *outside, Expr *v) {
  return outside ? ex_select(r->c, outside,
                             ex_const(r->c, (DType)v->dtype, op_attr_f(r->oc->node, "extrapolation_value")), v)
                 : v;
}

/* ---- nearest ---- */

static void compute_nearest(Resize *r) {
  Ctx *c = r->c;
  Expr *at[MAX_RANK], *outside = NULL;
  Stage *st = op_stage(r->oc, r->oc->node->out[0]);
  op_axes_exprs(st, at);
  for (int d = 0; d < r->x->rank; d++) {
    const Axis *a = &r->axis[d];
    if (!a->active) continue;
    Coord k = coord(r, a, at[d]);
    at[d] = clamped(r, a, coord_nearest(r, &k));
    if (k.outside) outside = outside ? ex_or(c, outside, k.outside) : k.outside;
  }
  st->body = extrapolated(r, outside, op_in(r->oc, 0, at));
}

/* ---- linear and cubic ---- */

/* The filter at distance u. */
static Expr *filter(Resize *r, bool cubic, Expr *u) {
  Ctx *c = r->c;
  Expr *one = real(r, 1), *zero = real(r, 0);
  u = ex_unary(c, EX_ABS, u);
  if (!cubic) return ex_max(c, ex_sub(c, one, u), zero);
  double a = op_attr_f(r->oc->node, "cubic_coeff_a");
  Expr *u2 = ex_mul(c, u, u), *u3 = ex_mul(c, u2, u);
  Expr *inner = ex_add(c, ex_sub(c, ex_mul(c, real(r, a + 2), u3), ex_mul(c, real(r, a + 3), u2)), one);
  Expr *outer = ex_sub(c, ex_mul(c, real(r, a), u3), ex_mul(c, real(r, 5 * a), u2));
  outer = ex_sub(c, ex_add(c, outer, ex_mul(c, real(r, 8 * a), u)), real(r, 4 * a));
  return ex_select(c, ex_le(c, u, one), inner, ex_select(c, ex_lt(c, u, real(r, 2)), outer, zero));
}

typedef struct { Coord k; Expr *floor, *fraction; double shrink; int first, taps; bool cubic; } Filter;

static Filter filter_of(Resize *r, const Axis *a, Expr *o) {
  const Node *n = r->oc->node;
  Filter f = { .k = coord(r, a, o), .shrink = 1, .cubic = op_attr_is(n, "mode", "cubic") };
  bool smooth = op_attr_i(n, "antialias");
  if (smooth) f.shrink = MIN(1.0, a->scale->u.f);
  f.first = (int)floor(-(f.cubic ? 2 : 1) / f.shrink) + 1;
  f.taps = 2 - 2 * f.first;
  f.floor = coord_floor(r, &f.k);
  f.fraction = coord_fraction(r, &f.k);
  return f;
}

/* Weight of tap t (a place relative to the coordinate's floor). */
static Expr *tap_weight(Resize *r, const Axis *a, const Filter *f, Expr *t) {
  Ctx *c = r->c;
  Expr *u = ex_sub(c, as_real(r, t), f->fraction);
  Expr *w = filter(r, f->cubic, f->shrink == 1 ? u : ex_mul(c, u, real(r, f->shrink)));
  if (!op_attr_i(r->oc->node, "exclude_outside")) return w;
  Expr *i = ex_add(c, f->floor, t);
  return ex_select(c, ex_and(c, ex_le(c, num(r, 0), i), ex_lt(c, i, a->in)), w, real(r, 0));
}

/* The sum of the weights for every output place along an axis. */
static Tensor *weight_sums(Resize *r, const Axis *a) {
  Ctx *c = r->c;
  Stage *st = op_stage(r->oc, op_temp(r->oc, "weights", DT_F32, 1, &a->out));
  Filter f = filter_of(r, a, st->axes[0]->self);
  Sym *t = op_reduce_axis(r->oc, "t", num(r, f.taps));
  st->body = ex_reduce(c, RED_SUM, tap_weight(r, a, &f, ex_add(c, t->self, num(r, f.first))), &t, 1);
  return st->out;
}

/* x resampled along axis d into `to`. */
static void resample(Resize *r, Tensor *x, Tensor *to, int d) {
  Ctx *c = r->c;
  const Axis *a = &r->axis[d];
  Expr *at[MAX_RANK], *sum = NULL;
  Tensor *sums =
      op_attr_i(r->oc->node, "antialias") || op_attr_i(r->oc->node, "exclude_outside") ? weight_sums(r, a) : NULL;
  Stage *st = op_stage(r->oc, to);
  op_axes_exprs(st, at);
  Expr *o = at[d];
  Filter f = filter_of(r, a, o);
  DType acc = dtype_is_float(x->dtype) ? dtype_info[x->dtype].acc : DT_F32;
  bool unroll = f.taps <= 4;
  Sym *tap = unroll ? NULL : op_reduce_axis(r->oc, "t", num(r, f.taps));
  for (int i = 0; i < (unroll ? f.taps : 1); i++) {
    Expr *t = ex_add(c, unroll ? num(r, i) : tap->self, num(r, f.first));
    at[d] = clamped(r, a, ex_add(c, f.floor, t));
    Expr *v = ex_mul(c, ex_cast(c, acc, ex_load(c, x, at, x->rank)), ex_cast(c, acc, tap_weight(r, a, &f, t)));
    sum = sum ? ex_add(c, sum, v) : v;
  }
  if (tap) sum = ex_reduce(c, RED_SUM, sum, &tap, 1);
  if (sums) sum = ex_div(c, sum, ex_cast(c, acc, ex_load(c, sums, &o, 1)));
  sum = extrapolated(r, f.k.outside, sum);
  if (dtype_is_int(to->dtype) && dtype_is_float((DType)sum->dtype)) sum = ex_unary(c, EX_ROUND, sum);
  op_done(r->oc, st, sum);
}

void compute_resize(OpCtx *oc) {
  Resize r;
  resize_make(oc, &r);
  int last = -1;
  for (int d = 0; d < r.x->rank; d++)
    if (r.axis[d].active) last = d;
  if (last < 0 || op_attr_is(oc->node, "mode", "nearest")) {
    compute_nearest(&r);
    return;
  }
  Tensor *x = r.x;
  DType between = dtype_is_float(x->dtype) ? dtype_info[x->dtype].acc : DT_F32;
  Expr *shape[MAX_RANK];
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  for (int d = 0; d <= last; d++) {
    if (!r.axis[d].active) continue;
    shape[d] = r.axis[d].out;
    Tensor *to = d == last ? oc->node->out[0] : op_temp(oc, "rows", between, x->rank, shape);
    resample(&r, x, to, d);
    x = to;
  }
}
