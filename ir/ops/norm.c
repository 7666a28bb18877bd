/* norm.c - operators that scale by statistics of their input: softmax, the normalizations, log-sum-exp.
 *
 * Statistics are stages of their own, with extent 1 where they reduce, in the accumulation type. So each stage has one reduction and
 * the scheduler can keep the stages of a row together. */
#include "../op_impl.h"

typedef struct {
  OpCtx *oc;
  Ctx *c;
  Tensor *x;
  DType acc;
  bool over[MAX_RANK];             /* the dimensions that the statistics go over */
} Stats;

static Stats stats_over(OpCtx *oc, int from, int to) {
  Tensor *x = oc->node->in[0];
  Stats s = { .oc = oc, .c = oc->c, .x = x, .acc = op_acc_type(oc, 0) };
  for (int d = from; d < to; d++) s.over[d] = true;
  return s;
}

/* Starts a statistic: a stage with the reduction axes it needs, and x (in the accumulation type) at one element of them. */
typedef struct { Stage *st; Sym *axes[MAX_RANK]; int n; Expr *x; } Stat;

static Stat stat_begin(Stats *s, const char *name) {
  Expr *shape[MAX_RANK], *at[MAX_RANK];
  Stat k = { .n = 0 };
  for (int d = 0; d < s->x->rank; d++) shape[d] = s->over[d] ? ex_int(s->c, 1) : s->x->shape[d];
  k.st = op_stage(s->oc, op_temp(s->oc, name, s->acc, s->x->rank, shape));
  for (int d = 0; d < s->x->rank; d++) {
    at[d] = k.st->axes[d]->self;
    if (!s->over[d]) continue;
    k.axes[k.n] = op_reduce_axis(s->oc, ctx_printf(s->c, "r%d", d), s->x->shape[d]);
    at[d] = k.axes[k.n++]->self;
  }
  k.x = op_acc(s->oc, op_in(s->oc, 0, at));
  return k;
}

static Expr *stat_reduce(Stats *s, const Stat *k, Combiner how, Expr *body) {
  return ex_reduce(s->c, how, body, k->axes, k->n);
}

/* The statistic t as a stage at `st` sees it. */
static Expr *stat_of(Stats *s, const Stage *st, Tensor *t) {
  Expr *at[MAX_RANK];
  for (int d = 0; d < t->rank; d++) at[d] = s->over[d] ? ex_int(s->c, 0) : st->axes[d]->self;
  return ex_load(s->c, t, at, t->rank);
}

static Expr *element_of(Stats *s, const Stage *st) {
  Expr *at[MAX_RANK];
  op_axes_exprs(st, at);
  return op_acc(s->oc, op_in(s->oc, 0, at));
}

/* (x - mean) * inv at the stage's point; either may be NULL. Built in this order, so that texts do not depend on the C compiler. */
static Expr *normalized(Stats *s, const Stage *st, Tensor *mean, Tensor *inv) {
  Expr *v = element_of(s, st);
  if (mean) v = ex_sub(s->c, v, stat_of(s, st, mean));
  return inv ? ex_mul(s->c, v, stat_of(s, st, inv)) : v;
}

static Expr *size_of(Stats *s) {
  Expr *n = ex_int(s->c, 1);
  for (int d = 0; d < s->x->rank; d++)
    if (s->over[d]) n = ex_mul(s->c, n, s->x->shape[d]);
  return ex_cast(s->c, s->acc, n);
}

static Expr *real(Stats *s, double v) { return ex_const(s->c, s->acc, v); }

/* ---- softmax ---- */

bool shape_softmax(OpCtx *oc) {
  int axis;
  return op_axis(oc, op_attr_i(oc->node, "axis"), oc->node->in[0]->rank, &axis) && op_like(oc, 0, 0);
}

static Stats softmax_stats(OpCtx *oc) {
  int axis;
  op_axis(oc, op_attr_i(oc->node, "axis"), oc->node->in[0]->rank, &axis);
  return stats_over(oc, axis, axis + 1);
}

static Tensor *stat_max(Stats *s) {
  Stat m = stat_begin(s, "max");
  m.st->body = stat_reduce(s, &m, RED_MAX, m.x);
  return m.st->out;
}

/* m = max x;  e = exp(x - m);  z = sum e;  y = e / z */
void compute_softmax(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = softmax_stats(oc);
  Tensor *m = stat_max(&s), *e = op_temp(oc, "exp", s.acc, s.x->rank, s.x->shape);
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, e);
  st->body = ex_unary(c, EX_EXP, normalized(&s, st, m, NULL));
  Stat z = stat_begin(&s, "sum");
  for (int d = 0; d < e->rank; d++) at[d] = s.over[d] ? z.axes[0]->self : z.st->axes[d]->self;
  z.st->body = stat_reduce(&s, &z, RED_SUM, ex_load(c, e, at, e->rank));
  st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  Expr *v = ex_load(c, e, at, e->rank);
  op_done(oc, st, ex_div(c, v, stat_of(&s, st, z.st->out)));
}

/* m = max x;  z = log sum exp(x - m);  y = x - m - z */
void compute_log_softmax(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = softmax_stats(oc);
  Tensor *m = stat_max(&s);
  Stat z = stat_begin(&s, "logsum");
  Expr *e = ex_unary(c, EX_EXP, ex_sub(c, z.x, stat_of(&s, z.st, m)));
  z.st->body = ex_unary(c, EX_LOG, stat_reduce(&s, &z, RED_SUM, e));
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_done(oc, st, ex_sub(c, normalized(&s, st, m, NULL), stat_of(&s, st, z.st->out)));
}

/* m = max x, or 0 where that is infinite;  y = log(sum exp(x - m)) + m */
void compute_reduce_log_sum_exp(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = stats_over(oc, 0, 0);
  Tensor *y = oc->node->out[0];
  Expr *at[MAX_RANK];
  reduce_axes(oc, s.over);
  Stat m = stat_begin(&s, "max");
  Expr *max = stat_reduce(&s, &m, RED_MAX, m.x), *inf = combiner_identity(c, RED_MIN, s.acc);
  m.st->body = ex_select(c, ex_binary(c, EX_EQ, ex_unary(c, EX_ABS, max), inf), real(&s, 0), max);
  Stat z = stat_begin(&s, "logsum");
  Expr *e = ex_unary(c, EX_EXP, ex_sub(c, z.x, stat_of(&s, z.st, m.st->out)));
  z.st->body = ex_add(c, ex_unary(c, EX_LOG, stat_reduce(&s, &z, RED_SUM, e)), stat_of(&s, z.st, m.st->out));
  Stage *st = op_stage(oc, y);
  bool keep = y->rank == s.x->rank;
  for (int d = 0, o = 0; d < s.x->rank; d++) {
    at[d] = s.over[d] ? ex_int(c, 0) : st->axes[keep ? d : o]->self;
    o += !s.over[d];
  }
  op_done(oc, st, ex_load(c, z.st->out, at, s.x->rank));
}

/* ---- mean and variance ---- */

static Tensor *stat_mean(Stats *s) {
  Stat k = stat_begin(s, "mean");
  k.st->body = ex_div(s->c, stat_reduce(s, &k, RED_SUM, k.x), size_of(s));
  return k.st->out;
}

/* The mean of (x - mean)^2; a NULL mean counts as 0. */
static Expr *stat_moment(Stats *s, const Stat *k, Tensor *mean) {
  Expr *d = mean ? ex_sub(s->c, k->x, stat_of(s, k->st, mean)) : k->x;
  return ex_div(s->c, stat_reduce(s, k, RED_SUM, ex_mul(s->c, d, d)), size_of(s));
}

static Tensor *stat_inverse_deviation(Stats *s, Tensor *mean, double epsilon) {
  Stat k = stat_begin(s, "inv_std");
  Expr *variance = ex_add(s->c, stat_moment(s, &k, mean), real(s, epsilon));
  k.st->body = ex_div(s->c, real(s, 1), ex_unary(s->c, EX_SQRT, variance));
  return k.st->out;
}

static bool scale_fits(OpCtx *oc, int input) {
  const Tensor *x = oc->node->in[0], *t = op_input(oc->node, input);
  Expr *both[MAX_RANK];
  int rank;
  if (!t) return true;
  OP_BAIL(op_broadcast(oc, x->shape, x->rank, t->shape, t->rank, both, &rank));
  for (int d = 0; d < rank; d++)
    if (rank > x->rank || !op_meet(oc, x->shape[d], both[d]))
      return op_error(oc, E0411, NULL, "%s: '%s' does not broadcast to the shape of the first input",
                      op_inputs_text(oc), oc->node->op->in[input].name);
  return true;
}

/* LayerNormalization and RMSNormalization over the axes from `axis` on; optional outputs keep those with extent 1. */
bool shape_layer_norm(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int axis;
  Expr *shape[MAX_RANK];
  OP_BAIL(op_axis(oc, op_attr_i(oc->node, "axis"), x->rank, &axis) && scale_fits(oc, 1) && scale_fits(oc, 2));
  DType stash = dtype_from_onnx((int)op_attr_i(oc->node, "stash_type"));
  if (stash == DT_NONE || !dtype_is_float(stash))
    return op_error(oc, E0412, NULL, "stash_type is %lld", (long long)op_attr_i(oc->node, "stash_type"));
  for (int d = 0; d < x->rank; d++) shape[d] = d < axis ? x->shape[d] : ex_int(oc->c, 1);
  op_out(oc, 1, stash, x->rank, shape);
  op_out(oc, 2, stash, x->rank, shape);
  op_out(oc, 0, row_type(oc->node, &oc->node->op->out[0]), x->rank, x->shape);
  return true;
}

static Stats layer_stats(OpCtx *oc) {
  int axis, rank = oc->node->in[0]->rank;
  op_axis(oc, op_attr_i(oc->node, "axis"), rank, &axis);
  return stats_over(oc, axis, rank);
}

static Expr *with_scale(Stats *s, const Stage *st, Expr *v) {
  Expr *at[MAX_RANK];
  op_axes_exprs(st, at);
  v = ex_mul(s->c, v, ex_cast(s->c, s->acc, op_in_bcast(s->oc, 1, at, s->x->rank)));
  return op_has_input(s->oc->node, 2) ? ex_add(s->c, v, ex_cast(s->c, s->acc, op_in_bcast(s->oc, 2, at, s->x->rank)))
                                      : v;
}

static void stat_output(Stats *s, int i, Tensor *t) {
  if (!op_wants(s->oc->node, i)) return;
  Stage *st = op_stage(s->oc, s->oc->node->out[i]);
  op_done(s->oc, st, stat_of(s, st, t));
}

void compute_layer_norm(OpCtx *oc) {
  Stats s = layer_stats(oc);
  Tensor *mean = stat_mean(&s), *inv = stat_inverse_deviation(&s, mean, op_attr_f(oc->node, "epsilon"));
  stat_output(&s, 1, mean);
  stat_output(&s, 2, inv);
  if (!op_wants(oc->node, 0)) return;
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *v = normalized(&s, st, mean, inv);
  op_done(oc, st, with_scale(&s, st, v));
}

void compute_rms_norm(OpCtx *oc) {
  Stats s = layer_stats(oc);
  Tensor *inv = stat_inverse_deviation(&s, NULL, op_attr_f(oc->node, "epsilon"));
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_done(oc, st, with_scale(&s, st, normalized(&s, st, NULL, inv)));
}

/* ---- per channel: InstanceNormalization, BatchNormalization ---- */

/* Inputs [1, n] have one value a channel; the output has the input's shape. */
static bool channel_shape(OpCtx *oc, int n) {
  const Tensor *x = oc->node->in[0];
  Expr *shape[MAX_RANK];
  memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
  for (int i = 1; i <= n; i++) {
    OP_BAIL(op_rank(oc, i, 1, 1));
    if (!(shape[1] = op_meet(oc, shape[1], oc->node->in[i]->shape[0])))
      return op_error(oc, E0411, NULL, "%s: '%s' has not one value for each channel", op_inputs_text(oc),
                      oc->node->op->in[i].name);
  }
  op_out(oc, 0, x->dtype, x->rank, shape);
  return true;
}

static Expr *channel_value(OpCtx *oc, int i, const Stage *st) {
  return ex_cast(oc->c, op_acc_type(oc, 0), op_in(oc, i, &st->axes[1]->self));
}

bool shape_instance_norm(OpCtx *oc) { return op_rank(oc, 0, 3, -1) && channel_shape(oc, 2); }

void compute_instance_norm(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = stats_over(oc, 2, oc->node->in[0]->rank);
  Tensor *mean = stat_mean(&s), *inv = stat_inverse_deviation(&s, mean, op_attr_f(oc->node, "epsilon"));
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *v = normalized(&s, st, mean, inv);
  op_done(oc, st, ex_add(c, ex_mul(c, v, channel_value(oc, 1, st)), channel_value(oc, 2, st)));
}

/* In training mode the statistics are those of x, and the running ones move towards them. */
static bool trains(const Node *n) { return op_attr_i(n, "training_mode") != 0; }

bool shape_batch_norm(OpCtx *oc) {
  const Node *n = oc->node;
  OP_BAIL(op_rank(oc, 0, 2, -1) && channel_shape(oc, 4));
  if (!trains(n) && (op_wants(n, 1) || op_wants(n, 2)))
    return op_error(oc, E0403, NULL, "running statistics are outputs of training mode only");
  op_out(oc, 1, n->in[3]->dtype, 1, n->in[3]->shape);
  op_out(oc, 2, n->in[4]->dtype, 1, n->in[4]->shape);
  return true;
}

static void running_stat(Stats *s, int output, int input, Tensor *now) {
  Ctx *c = s->c;
  if (!op_wants(s->oc->node, output)) return;
  Stage *st = op_stage(s->oc, s->oc->node->out[output]);
  Expr *channel = st->axes[0]->self, *at[MAX_RANK];
  double momentum = op_attr_f(s->oc->node, "momentum");
  for (int d = 0; d < now->rank; d++) at[d] = d == 1 ? channel : ex_int(c, 0);
  Expr *was = ex_mul(c, ex_cast(c, s->acc, op_in(s->oc, input, &channel)), real(s, momentum));
  op_done(s->oc, st, ex_add(c, was, ex_mul(c, ex_load(c, now, at, now->rank), real(s, 1 - momentum))));
}

static void train_batch_norm(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = stats_over(oc, 0, oc->node->in[0]->rank);
  s.over[1] = false;
  Tensor *mean = stat_mean(&s);
  Stat var = stat_begin(&s, "var");
  var.st->body = stat_moment(&s, &var, mean);
  running_stat(&s, 1, 3, mean);
  running_stat(&s, 2, 4, var.st->out);
  if (!op_wants(oc->node, 0)) return;
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *deviation = ex_unary(c, EX_SQRT, ex_add(c, stat_of(&s, st, var.st->out), real(&s, op_attr_f(oc->node, "epsilon"))));
  Expr *v = ex_mul(c, normalized(&s, st, mean, NULL), ex_div(c, channel_value(oc, 1, st), deviation));
  op_done(oc, st, ex_add(c, v, channel_value(oc, 2, st)));
}

void compute_batch_norm(OpCtx *oc) {
  Ctx *c = oc->c;
  if (trains(oc->node)) {
    train_batch_norm(oc);
    return;
  }
  Stats s = stats_over(oc, 0, 0);
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *deviation = ex_unary(c, EX_SQRT, ex_add(c, channel_value(oc, 4, st), real(&s, op_attr_f(oc->node, "epsilon"))));
  Expr *scale = ex_div(c, channel_value(oc, 1, st), deviation);
  Expr *v = ex_mul(c, ex_sub(c, element_of(&s, st), channel_value(oc, 3, st)), scale);
  op_done(oc, st, ex_add(c, v, channel_value(oc, 2, st)));
}

/* ---- GroupNormalization: statistics over the channels of a group and all of space ---- */

bool shape_group_norm(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  int64_t groups = op_attr_i(oc->node, "num_groups");
  OP_BAIL(op_rank(oc, 0, 2, -1));
  if (groups < 1 || !op_meet(oc, ex_mod(oc->c, x->shape[1], ex_int(oc->c, groups)), ex_int(oc->c, 0)))
    return op_error(oc, E0412, NULL, "%s: the channels do not divide into %lld groups", op_inputs_text(oc),
                    (long long)groups);
  return channel_shape(oc, 2);
}

/* The group's statistic as a stage at channel axis 1 sees it. */
static Expr *group_value(Ctx *c, const Stage *st, Tensor *t, Expr *per_group) {
  Expr *at[] = { st->axes[0]->self, ex_div(c, st->axes[1]->self, per_group) };
  return ex_load(c, t, at, 2);
}

/* The mean of a group from the sums of its channels over space: channels lie side by side in any layout, groups do not. */
static Stage *group_mean(Stats *s, const char *name, Tensor *sums, Expr *groups, Expr *per_group) {
  Ctx *c = s->c;
  Expr *shape[] = { s->x->shape[0], groups }, *at[MAX_RANK];
  Stage *st = op_stage(s->oc, op_temp(s->oc, name, s->acc, 2, shape));
  Sym *channel = op_reduce_axis(s->oc, "c", per_group);
  for (int d = 0; d < sums->rank; d++) at[d] = ex_int(c, 0);
  at[0] = st->axes[0]->self;
  at[1] = ex_add(c, ex_mul(c, st->axes[1]->self, per_group), channel->self);
  Expr *n = ex_mul(c, size_of(s), ex_cast(c, s->acc, per_group));
  st->body = ex_div(c, ex_reduce(c, RED_SUM, ex_load(c, sums, at, sums->rank), &channel, 1), n);
  return st;
}

void compute_group_norm(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = stats_over(oc, 2, oc->node->in[0]->rank);
  Expr *groups = ex_int(c, op_attr_i(oc->node, "num_groups")), *per_group = ex_div(c, s.x->shape[1], groups);
  Stat sum = stat_begin(&s, "sum");
  sum.st->body = stat_reduce(&s, &sum, RED_SUM, sum.x);
  Tensor *mean = group_mean(&s, "mean", sum.st->out, groups, per_group)->out;
  Stat square = stat_begin(&s, "squares");
  Expr *d = ex_sub(c, square.x, group_value(c, square.st, mean, per_group));
  square.st->body = stat_reduce(&s, &square, RED_SUM, ex_mul(c, d, d));
  Stage *inv = group_mean(&s, "inv_std", square.st->out, groups, per_group);
  Expr *variance = ex_add(c, inv->body, real(&s, op_attr_f(oc->node, "epsilon")));
  inv->body = ex_div(c, real(&s, 1), ex_unary(c, EX_SQRT, variance));
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *v = ex_sub(c, element_of(&s, st), group_value(c, st, mean, per_group));
  v = ex_mul(c, v, group_value(c, st, inv->out, per_group));
  op_done(oc, st, ex_add(c, ex_mul(c, v, channel_value(oc, 1, st)), channel_value(oc, 2, st)));
}

/* ---- MeanVarianceNormalization, LpNormalization ---- */

bool shape_mean_variance(OpCtx *oc) {
  const Attr *axes = op_attr(oc->node, "axes");
  bool mask[MAX_RANK];
  return op_axes_mask(oc, axes->ints, axes->n, oc->node->in[0]->rank, mask) && op_like(oc, 0, 0);
}

void compute_mean_variance(OpCtx *oc) {
  Ctx *c = oc->c;
  const Attr *axes = op_attr(oc->node, "axes");
  Stats s = stats_over(oc, 0, 0);
  op_axes_mask(oc, axes->ints, axes->n, s.x->rank, s.over);
  Tensor *mean = stat_mean(&s);
  Stat dev = stat_begin(&s, "std");
  dev.st->body = ex_add(c, ex_unary(c, EX_SQRT, stat_moment(&s, &dev, mean)), real(&s, 1e-9));
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_done(oc, st, ex_div(c, normalized(&s, st, mean, NULL), stat_of(&s, st, dev.st->out)));
}

bool shape_lp_norm(OpCtx *oc) {
  int64_t p = op_attr_i(oc->node, "p");
  return (p == 1 || p == 2 || op_error(oc, E0412, NULL, "p is %lld", (long long)p)) && shape_softmax(oc);
}

void compute_lp_norm(OpCtx *oc) {
  Ctx *c = oc->c;
  Stats s = softmax_stats(oc);
  bool two = op_attr_i(oc->node, "p") == 2;
  Stat k = stat_begin(&s, "norm");
  Expr *sum = stat_reduce(&s, &k, RED_SUM, two ? ex_mul(c, k.x, k.x) : ex_unary(c, EX_ABS, k.x));
  k.st->body = two ? ex_unary(c, EX_SQRT, sum) : sum;
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *norm = stat_of(&s, st, k.st->out), *zero = real(&s, 0);
  op_done(oc, st, ex_select(c, ex_eq(c, norm, zero), zero, ex_div(c, element_of(&s, st), norm)));
}

/* ---- LRN: y = x / (bias + alpha/size * sum of squares over neighbouring channels)^beta ---- */

bool shape_lrn(OpCtx *oc) {
  int64_t size = op_attr_i(oc->node, "size");
  return ((size > 0 && size < 1 << 20) || op_error(oc, E0412, NULL, "size is %lld", (long long)size)) &&
         op_rank(oc, 0, 2, -1) && op_like(oc, 0, 0);
}

void compute_lrn(OpCtx *oc) {
  Ctx *c = oc->c;
  const Node *n = oc->node;
  Stats s = stats_over(oc, 0, 0);
  int64_t size = op_attr_i(n, "size");
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, n->out[0]);
  Sym *j = op_reduce_axis(oc, "j", ex_int(c, size));
  op_axes_exprs(st, at);
  at[1] = ex_add(c, at[1], ex_sub(c, j->self, ex_int(c, (size - 1) / 2)));
  Expr *v = op_acc(oc, op_in_pad(oc, 0, at, ex_const_i(c, s.x->dtype, 0)));
  Expr *sum = ex_reduce(c, RED_SUM, ex_mul(c, v, v), &j, 1);
  Expr *base =
      ex_add(c, ex_mul(c, sum, real(&s, op_attr_f(n, "alpha") / (double)size)), real(&s, op_attr_f(n, "bias")));
  op_done(oc, st, ex_div(c, element_of(&s, st), ex_binary(c, EX_POW, base, real(&s, op_attr_f(n, "beta")))));
}
