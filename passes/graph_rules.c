/* graph_rules.c - the graph rewrite rules and what matches them.
 *
 * A pattern is an operator with arguments that are variables (one letter) or operators again: "Mul(Conv(x,w,b?)@1, c)". x? also
 * matches an input that is absent, @1 asks that nothing else reads the value, a letter that occurs twice must be the same tensor,
 * and operators that commute are tried both ways. Conditions: const(x,y) are constants, float(x) has a float type. All rules are
 * exact up to reassociation and the rounding of constants.
 */
#include "graph_rules.h"

#include <ctype.h>
#include <math.h>

#include "../ir/ctx.h"

/* ---- building blocks of replacements ---- */

Node *rule_node(Rewrite *r, const char *op, Tensor *const *in, int nin) {
  const Op *row = op_find(r->c, "", op);
  if (!row) diag_bug(r->c, "a rule needs the operator %s", op);
  Node *n = graph_node_before(r->root->graph, r->root, row, r->root->name, in, nin, 1);
  n->index = r->root->index;
  return n;
}

Tensor *rule_done(Rewrite *r, Node *n) {
  if (!op_infer(r->c, n)) diag_bug(r->c, "a rule on node '%s' (%s) made a wrong %s", r->root->name, r->root->op->name, n->op->name);
  return n->out[0];
}

static Tensor *op1(Rewrite *r, const char *op, Tensor *x) { return rule_done(r, rule_node(r, op, &x, 1)); }

static Tensor *op2(Rewrite *r, const char *op, Tensor *x, Tensor *y) {
  Tensor *in[] = { x, y };
  return rule_done(r, rule_node(r, op, in, 2));
}

/* The same operator with the same attributes on other inputs. */
Node *rule_copy(Rewrite *r, const Node *n, Tensor *const *in, int nin) {
  Node *to = graph_node_before(r->root->graph, r->root, n->op, n->name, in, nin, 1);
  to->index = n->index;
  memcpy(to->attrs, n->attrs, sizeof(Attr) * (size_t)n->op->nattr);
  return to;
}

static Attr *attr_of(Node *n, const char *name) { return (Attr *)op_attr(n, name); }

static void rule_set_ints(Ctx *c, Node *n, const char *name, const int64_t *v, int count) {
  Attr *a = attr_of(n, name);
  a->kind = ATTR_INTS;
  a->n = count;
  a->ints = ctx_copy(c, v, sizeof(*v) * (size_t)count);
}

void rule_set_int(Node *n, const char *name, int64_t v) {
  Attr *a = attr_of(n, name);
  a->kind = ATTR_INT;
  a->i = v;
}

Tensor *rule_ints(Rewrite *r, const int64_t *v, int n) {
  int64_t dims[] = { n };
  return graph_const(r->root->graph, "shape", DT_I64, dims, 1, ctx_copy(r->c, v, sizeof(*v) * (size_t)n));
}

static Tensor *scalar_const(Rewrite *r, DType t, double v) {
  void *bytes = ctx_alloc(r->c, 16);
  dtype_store_f(t, bytes, v);
  return graph_const(r->root->graph, "value", t, NULL, 0, bytes);
}

static Tensor *reshape(Rewrite *r, Tensor *x, const int64_t *dims, int rank) { return op2(r, "Reshape", x, rule_ints(r, dims, rank)); }

/* ---- questions ---- */

bool rule_is_op(const Tensor *t, const char *name) { return t && t->def && !*t->def->op->domain && !strcmp(t->def->op->name, name); }

bool rule_is_window(Ctx *c, Node *n, int i, int64_t *from) {
  OpCtx oc = { .c = c, .node = n };
  const Tensor *out = n->out[i];
  if ((!rule_is_op(out, "Split") && !rule_is_op(out, "Slice")) || out->rank != n->in[0]->rank || !op_compute(c, n, &oc)) return false;
  for (int k = 0; k < oc.stages.n; k++) {
    const Stage *st = oc.stages.v[k];
    for (int d = 0; st->out == out && d < out->rank; d++)
      if (st->body->op != EX_LOAD || !ex_is_int(ex_sub(c, st->body->a[d], st->axes[d]->self), &from[d])) return false;
  }
  return true;
}

static bool same_shape(Ctx *c, const Tensor *a, const Tensor *b) {
  if (a->rank != b->rank || a->rank < 0 || a->dtype != b->dtype) return false;
  for (int i = 0; i < a->rank; i++)
    if (!op_same_dim(c, a->shape[i], b->shape[i])) return false;
  return true;
}

static int64_t elements_of(const Tensor *t) {
  int64_t dims[MAX_RANK], n = 1;
  if (!tensor_dims(t, dims)) return -1;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(n, dims[i], &n)) return -1;
  return n;
}

/* Every element is v, to the bit for floats. */
static bool is_all(const Tensor *t, double v) {
  enum { MOST = 4096 };
  int64_t n = elements_of(t);
  if (!t->data || n < 1 || (n > MOST && !t->data->splat)) return false;
  for (int64_t i = 0; i < (t->data->splat ? 1 : n); i++) {
    double x = dtype_is_float(t->dtype) ? tensor_const_float(t, i) : (double)tensor_const_int(t, i);
    if (x != v || signbit(x) != signbit(v)) return false;
  }
  return true;
}

static bool const_ints(const Tensor *t, int64_t *v, int *n) {
  int64_t count = elements_of(t);
  if (!t->data || count < 0 || count > 2 * MAX_RANK) return false;
  for (int i = 0; i < count; i++) v[i] = tensor_const_int(t, i);
  *n = (int)count;
  return true;
}

/* Weights that a rule may multiply out: those that folding takes. */
static bool foldable(const Tensor *w, const Tensor *by) {
  double v;
  return (w->data->splat && tensor_is_scalar_const(by, &v)) || elements_of(w) * dtype_bytes(w->dtype) <= (int64_t)64 << 20;
}

static bool same_types(const Tensor *a, const Tensor *b) { return !b || a->dtype == b->dtype; }

/* ---- neutral elements and other nothings ---- */

static Tensor *neutral(Rewrite *r) {
  static const struct { const char *op; double ints, floats; } rows[] = {
    { "Add", 0, -0.0 }, { "Sub", 0, 0 }, { "Mul", 1, 1 }, { "Div", 1, 1 }, { "Pow", 1, 1 }, { "And", 1, 1 }, { "Or", 0, 0 },
  };
  Tensor *x = VAR(r, 'x'), *c = VAR(r, 'c');
  for (int i = 0; i < COUNT(rows); i++)
    if (!strcmp(rows[i].op, r->root->op->name))
      return is_all(c, dtype_is_float(c->dtype) ? rows[i].floats : rows[i].ints) && same_shape(r->c, x, r->root->out[0]) ? x : NULL;
  return NULL;
}

static Tensor *same_as_input(Rewrite *r) { return same_shape(r->c, VAR(r, 'x'), r->root->out[0]) ? VAR(r, 'x') : NULL; }

static Tensor *slice_all(Rewrite *r) {
  return !VAR(r, 't') || is_all(VAR(r, 't'), 1) ? same_as_input(r) : NULL;
}

static Tensor *pad_nothing(Rewrite *r) { return is_all(VAR(r, 'p'), 0) ? same_as_input(r) : NULL; }

static Tensor *dropout(Rewrite *r) {
  Tensor *training = VAR(r, 't');
  return !training || is_all(training, 0) ? VAR(r, 'x') : NULL;
}

static Tensor *where_known(Rewrite *r) {
  Tensor *side = is_all(VAR(r, 'c'), 1) ? VAR(r, 'x') : is_all(VAR(r, 'c'), 0) ? VAR(r, 'y') : NULL;
  return side && same_shape(r->c, side, r->root->out[0]) ? side : NULL;
}

/* ---- views: operators that keep the elements in their order ---- */

static bool is_view(const Tensor *t) { return rule_is_op(t, "Reshape") || rule_is_op(t, "Flatten") || rule_is_op(t, "Squeeze") || rule_is_op(t, "Unsqueeze"); }

/* The shape as Reshape's operand: at most one size may be open. */
static bool reshape_dims(const Tensor *t, int64_t *dims) {
  int open = 0;
  for (int i = 0; i < t->rank; i++) {
    if (!ex_is_int(t->shape[i], &dims[i])) dims[i] = -1, open++;
    if (dims[i] == 0) return false;
  }
  return open <= 1;
}

static Tensor *view(Rewrite *r) {
  Tensor *x = VAR(r, 'x'), *out = r->root->out[0];
  int64_t dims[MAX_RANK];
  if (same_shape(r->c, x, out)) return x;
  if (!is_view(x)) return NULL;
  Tensor *from = x->def->in[0];
  if (same_shape(r->c, from, out)) return from;
  if (!reshape_dims(out, dims)) return NULL;
  Tensor *y = reshape(r, from, dims, out->rank);
  return same_shape(r->c, y, out) ? y : NULL;
}

/* ---- transposes ---- */

static void perm_of(const Node *n, int *perm) {
  const Attr *a = op_attr(n, "perm");
  int rank = n->in[0]->rank;
  for (int i = 0; i < rank; i++) perm[i] = a->kind == ATTR_INTS ? (int)a->ints[i] : rank - 1 - i;
}

static Tensor *transpose_identity(Rewrite *r) {
  int perm[MAX_RANK];
  perm_of(r->root, perm);
  for (int i = 0; i < VAR(r, 'x')->rank; i++)
    if (perm[i] != i) return NULL;
  return VAR(r, 'x');
}

static Tensor *transpose_pair(Rewrite *r) {
  int outer[MAX_RANK], inner[MAX_RANK], rank = VAR(r, 'x')->rank;
  int64_t perm[MAX_RANK];
  perm_of(r->node[0], outer);
  perm_of(r->node[1], inner);
  for (int i = 0; i < rank; i++) perm[i] = inner[outer[i]];
  Node *n = rule_node(r, "Transpose", &VAR(r, 'x'), 1);
  rule_set_ints(r->c, n, "perm", perm, rank);
  return rule_done(r, n);
}

/* Which of the dimensions of the shape `to` each dimension of `from` is split into: part[i] of them from first[i] on; false where it is not so. */
static bool split_of(Ctx *c, const Tensor *from, const Tensor *to, int *first, int *part) {
  int at = 0;
  for (int i = 0; i < from->rank; i++) {
    Expr *n = NULL;
    first[i] = at;
    while (at < to->rank && !(n && op_same_dim(c, n, from->shape[i]))) n = n ? ex_mul(c, n, to->shape[at]) : to->shape[at], at++;
    if (!n || !op_same_dim(c, n, from->shape[i])) return false;
    part[i] = at - first[i];
  }
  return at == to->rank;
}

/* Dimensions are split before they change places: what a map's rows and columns are is then known to whoever makes or reads it. */
static Tensor *split_before_transpose(Rewrite *r) {
  Tensor *x = VAR(r, 'x'), *out = r->root->out[0], *turned = r->node[1]->out[0];
  int perm[MAX_RANK], first[MAX_RANK], part[MAX_RANK], from[MAX_RANK], rank = 0, n = 0;
  int64_t dims[MAX_RANK], given[MAX_RANK], to[MAX_RANK];
  if (!reshape_dims(out, dims) || out->rank <= x->rank || !split_of(r->c, turned, out, first, part)) return NULL;
  perm_of(r->node[1], perm);
  for (int d = 0; d < x->rank; d++)
    for (int i = 0; i < x->rank; i++)
      if (perm[i] == d) {
        from[i] = rank;
        for (int k = 0; k < part[i]; k++) given[rank++] = dims[first[i] + k];
      }
  for (int i = 0; i < x->rank; i++)
    for (int k = 0; k < part[i]; k++) to[n++] = from[i] + k;
  Node *t = rule_node(r, "Transpose", (Tensor *[]){ reshape(r, x, given, rank) }, 1);
  rule_set_ints(r->c, t, "perm", to, rank);
  Tensor *y = rule_done(r, t);
  return same_shape(r->c, y, out) ? y : NULL;
}

/* ---- batch normalisation: y = a*x + (o - m*a), a = s / sqrt(v + epsilon) per channel ---- */

static bool plain_norm(const Node *n, const Tensor *x) {
  for (int i = 1; i < 5; i++)
    if (!same_types(x, n->in[i])) return false;
  return !op_attr_i(n, "training_mode");
}

static Tensor *norm_scale(Rewrite *r, const Node *norm) {
  Tensor *epsilon = scalar_const(r, VAR(r, 's')->dtype, op_attr_f(norm, "epsilon"));
  return op2(r, "Div", VAR(r, 's'), op1(r, "Sqrt", op2(r, "Add", VAR(r, 'v'), epsilon)));
}

static Tensor *norm_shift(Rewrite *r, Tensor *a, Tensor *bias) {
  if (bias) return op2(r, "Add", op2(r, "Mul", op2(r, "Sub", bias, VAR(r, 'm')), a), VAR(r, 'o'));
  return op2(r, "Sub", VAR(r, 'o'), op2(r, "Mul", VAR(r, 'm'), a));
}

/* w with dimension `axis` scaled by the vector. */
static Tensor *scale_axis(Rewrite *r, Tensor *w, Tensor *by, int axis) {
  int64_t dims[MAX_RANK];
  for (int i = 0; i < w->rank; i++) dims[i] = 1;
  dims[axis] = elements_of(by);
  return op2(r, "Mul", w, reshape(r, by, dims, w->rank));
}

/* Which dimension of the weights counts the output's channels; -1 where groups split them. */
static int channel_axis(const Node *conv) {
  if (!strcmp(conv->op->name, "Conv")) return 0;
  return op_attr_i(conv, "group") == 1 ? 1 : -1;
}

static Tensor *norm_into_conv(Rewrite *r) {
  Node *norm = r->node[0], *conv = r->node[1];
  Tensor *w = VAR(r, 'w'), *b = VAR(r, 'b');
  int axis = channel_axis(conv);
  if (!plain_norm(norm, w) || axis < 0 || !foldable(w, VAR(r, 's'))) return NULL;
  Tensor *a = norm_scale(r, norm);
  Tensor *in[] = { VAR(r, 'x'), scale_axis(r, w, a, axis), norm_shift(r, a, b) };
  return rule_done(r, rule_copy(r, conv, in, 3));
}

static Tensor *norm_into_gemm(Rewrite *r) {
  Node *norm = r->node[0], *gemm = r->node[1];
  Tensor *w = VAR(r, 'w'), *b = VAR(r, 'b');
  if (!plain_norm(norm, w) || (b && (op_attr_f(gemm, "beta") != 1 || b->rank != 1)) || !foldable(w, VAR(r, 's'))) return NULL;
  Tensor *a = norm_scale(r, norm);
  Tensor *in[] = { VAR(r, 'x'), scale_axis(r, w, a, op_attr_i(gemm, "transB") ? 0 : 1), norm_shift(r, a, b) };
  Node *n = rule_copy(r, gemm, in, 3);
  attr_of(n, "beta")->f = 1;
  return rule_done(r, n);
}

static Tensor *norm_alone(Rewrite *r) {
  Tensor *x = VAR(r, 'x');
  int64_t dims[MAX_RANK], channels;
  if (!plain_norm(r->root, x) || x->rank < 2 || !tensor_dims(VAR(r, 's'), &channels)) return NULL;
  Tensor *a = norm_scale(r, r->root), *shift = norm_shift(r, a, NULL);
  for (int i = 0; i < x->rank; i++) dims[i] = i == 1 ? channels : 1;
  return op2(r, "Add", op2(r, "Mul", x, reshape(r, a, dims, x->rank)), reshape(r, shift, dims, x->rank));
}

/* Statistics over [n, groups, rest] are those of groups of channels. */
static Tensor *group_norm(Rewrite *r) {
  const Tensor *x = VAR(r, 'x'), *grouped = r->node[2]->out[0];
  int64_t groups, channels;
  if (x->rank < 3 || grouped->rank != 3 || !same_shape(r->c, x, r->root->out[0]) || !op_same_dim(r->c, x->shape[0], grouped->shape[0])) return NULL;
  if (!ex_is_int(x->shape[1], &channels) || !ex_is_int(grouped->shape[1], &groups) || groups < 1 || channels % groups) return NULL;
  Tensor *in[] = { VAR(r, 'x'), VAR(r, 's'), VAR(r, 'b') };
  int64_t column[] = { groups, 1 }, matrix[] = { groups, channels / groups };
  for (int i = 1; i < 3; i++)
    in[i] = reshape(r, op2(r, "Expand", reshape(r, in[i], column, 2), rule_ints(r, matrix, 2)), &channels, 1);
  Node *n = rule_node(r, groups == channels ? "InstanceNormalization" : "GroupNormalization", in, 3);
  attr_of(n, "epsilon")->f = op_attr_f(r->node[1], "epsilon");
  if (groups != channels) rule_set_int(n, "num_groups", groups);
  return rule_done(r, n);
}

/* ---- factors and terms per channel into convolutions, normalizations and matrix products ---- */

/* c as a vector along `axis` of t (or a scalar) if broadcasting t with c gives no more than that, else NULL. */
static Tensor *per_axis(Rewrite *r, Tensor *c, const Tensor *t, int axis) {
  int64_t dims[MAX_RANK], n = 1;
  if (c->rank > t->rank || c->dtype != t->dtype || !tensor_dims(c, dims)) return NULL;
  for (int i = 0; i < c->rank; i++) {
    if (dims[i] != 1 && t->rank - c->rank + i != axis) return NULL;
    n *= dims[i];
  }
  if (n > 1 && !ex_equals_int(t->shape[axis], n)) return NULL;
  return n == 1 && c->rank == 0 ? c : c->rank == 1 ? c : reshape(r, c, &n, 1);
}

static Tensor *factor_into_conv(Rewrite *r) {
  Node *conv = r->node[1];
  Tensor *w = VAR(r, 'w'), *b = VAR(r, 'b');
  int axis = channel_axis(conv);
  if (axis < 0 || conv->out[0]->rank < 2 || !foldable(w, VAR(r, 'c'))) return NULL;
  Tensor *c = per_axis(r, VAR(r, 'c'), conv->out[0], 1);
  if (!c) return NULL;
  const char *op = r->root->op->name;
  Tensor *scaled = elements_of(c) == 1 ? op2(r, "Mul", w, c) : scale_axis(r, w, c, axis);
  if (!strcmp(op, "Div")) {
    Tensor *one = scalar_const(r, c->dtype, 1);
    Tensor *inverse = op2(r, "Div", one, c);
    scaled = elements_of(c) == 1 ? op2(r, "Mul", w, inverse) : scale_axis(r, w, inverse, axis);
  }
  Tensor *in[] = { VAR(r, 'x'), scaled, b ? op2(r, op, b, c) : NULL };
  return rule_done(r, rule_copy(r, conv, in, b ? 3 : 2));
}

static Tensor *term_into_conv(Rewrite *r) {
  Node *conv = r->node[1];
  Tensor *w = VAR(r, 'w'), *b = VAR(r, 'b'), *c;
  int64_t dims[MAX_RANK];
  int axis = channel_axis(conv);
  if (axis < 0 || conv->out[0]->rank < 2 || !tensor_dims(w, dims) || !(c = per_axis(r, VAR(r, 'c'), conv->out[0], 1))) return NULL;
  if (!strcmp(r->root->op->name, "Sub")) c = op1(r, "Neg", c);
  if (b) c = op2(r, "Add", b, c);
  else if (elements_of(c) != dims[axis]) c = op2(r, "Expand", c, rule_ints(r, &dims[axis], 1));
  Tensor *in[] = { VAR(r, 'x'), w, c };
  return rule_done(r, rule_copy(r, conv, in, 3));
}

/* The dimension `axis` = c*by + k of a constant becomes k*(size/by) + c. */
static Tensor *interleaved(Rewrite *r, Tensor *w, int axis, int64_t by) {
  int64_t dims[MAX_RANK], split[MAX_RANK], perm[MAX_RANK];
  tensor_dims(w, dims);
  for (int i = 0; i <= w->rank; i++) {
    split[i] = i < axis ? dims[i] : i == axis ? dims[axis] / by : i == axis + 1 ? by : dims[i - 1];
    perm[i] = i == axis ? axis + 1 : i == axis + 1 ? axis : i;
  }
  Node *t = rule_node(r, "Transpose", (Tensor *[]){ reshape(r, w, split, w->rank + 1) }, 1);
  rule_set_ints(r->c, t, "perm", perm, w->rank + 1);
  return reshape(r, rule_done(r, t), dims, w->rank);
}

/* The convolution makes its channels in the order in which whole blocks of them move to one place. */
static Tensor *depth_order(Rewrite *r) {
  enum { FEW = 8 };
  Node *move = r->node[0], *conv = r->node[1];
  int64_t size = op_attr_i(move, "blocksize"), dims[MAX_RANK], all = size * size;
  Tensor *w = VAR(r, 'w'), *b = VAR(r, 'b');
  if (strcmp(op_attr_s(move, "mode"), "CRD") || op_attr_i(conv, "group") != 1 || !tensor_dims(w, dims) || dims[0] % (all * FEW)) return NULL;
  Tensor *in[] = { VAR(r, 'x'), interleaved(r, w, 0, all), b ? interleaved(r, b, 0, all) : NULL };
  Tensor *made = rule_done(r, rule_copy(r, conv, in, b ? 3 : 2));
  Node *n = rule_node(r, "DepthToSpace", &made, 1);
  rule_set_int(n, "blocksize", size);
  return rule_done(r, n);
}

static Tensor *into_norm(Rewrite *r) {
  Node *norm = r->node[1];
  const char *op = r->root->op->name;
  Tensor *c = norm->out[0]->rank < 2 ? NULL : per_axis(r, VAR(r, 'c'), norm->out[0], 1), *s = VAR(r, 's');
  if (!c) return NULL;
  Tensor *in[] = { VAR(r, 'x'), strcmp(op, "Mul") ? s : op2(r, op, s, c), op2(r, op, VAR(r, 'b'), c) };
  return rule_done(r, rule_copy(r, norm, in, 3));
}

static Tensor *factor_into_matmul(Rewrite *r) {
  Tensor *w = VAR(r, 'w'), *product = r->node[1]->out[0];
  if (w->rank != 2 || product->rank < 2 || !foldable(w, VAR(r, 'c'))) return NULL;
  Tensor *c = per_axis(r, VAR(r, 'c'), product, product->rank - 1);
  Tensor *in[] = { VAR(r, 'x'), NULL };
  if (!c) return NULL;
  in[1] = op2(r, r->root->op->name, w, c);
  return rule_done(r, rule_copy(r, r->node[1], in, 2));
}

/* ---- padding into windows ---- */

/* The padding of the spatial axes, begins then ends, if the Pad node fills them and nothing else with v. */
static bool spatial_pads(Rewrite *r, const Node *pad, double v, int64_t *pads) {
  int64_t given[2 * MAX_RANK], axes[2 * MAX_RANK];
  int n, naxes, rank = pad->in[0]->rank;
  double fill = 0;
  if (strcmp(op_attr_s(pad, "mode"), "constant") || !const_ints(VAR(r, 'p'), given, &n)) return false;
  if (VAR(r, 'f') && !tensor_is_scalar_const(VAR(r, 'f'), &fill)) return false;
  if (VAR(r, 'a')) {
    if (!const_ints(VAR(r, 'a'), axes, &naxes)) return false;
  } else {
    naxes = rank;
    for (int i = 0; i < rank; i++) axes[i] = i;
  }
  if (fill != v || n != 2 * naxes || rank < 3) return false;
  memset(pads, 0, sizeof(*pads) * (size_t)(2 * (rank - 2)));
  for (int i = 0; i < n; i++) {
    int64_t axis = axes[i % naxes] < 0 ? axes[i % naxes] + rank : axes[i % naxes];
    if (given[i] < 0 || (axis < 2 && given[i])) return false;
    if (axis >= 2) pads[(i < naxes ? 0 : rank - 2) + axis - 2] += given[i];
  }
  return true;
}

/* Adds the window's own padding; false where it is computed from sizes. */
static bool add_own_pads(const Node *n, int64_t *pads, int count, bool *own) {
  const Attr *a = op_attr(n, "pads");
  const char *mode = op_attr_s(n, "auto_pad");
  if (strcmp(mode, "NOTSET") && strcmp(mode, "VALID")) return false;
  *own = false;
  for (int i = 0; a->kind == ATTR_INTS && !strcmp(mode, "NOTSET") && i < count && i < a->n; i++) {
    pads[i] += a->ints[i];
    *own |= a->ints[i] != 0;
  }
  return true;
}

static Tensor *with_pads(Rewrite *r, Node *n, const int64_t *pads, int count) {
  rule_set_ints(r->c, n, "pads", pads, count);
  Attr *a = attr_of(n, "auto_pad");
  a->kind = ATTR_STRING;
  a->s = ctx_intern(r->c, "NOTSET");
  return rule_done(r, n);
}

static Tensor *pad_into_conv(Rewrite *r) {
  Node *conv = r->node[0], *pad = r->node[1];
  int64_t pads[2 * MAX_RANK];
  int count = 2 * (VAR(r, 'x')->rank - 2);
  bool own;
  if (!spatial_pads(r, pad, 0, pads) || !add_own_pads(conv, pads, count, &own)) return NULL;
  Tensor *in[] = { VAR(r, 'x'), VAR(r, 'w'), VAR(r, 'b') };
  return with_pads(r, rule_copy(r, conv, in, VAR(r, 'b') ? 3 : 2), pads, count);
}

static Tensor *pad_into_average(Rewrite *r) {
  Node *pool = r->node[0], *pad = r->node[1];
  int64_t pads[2 * MAX_RANK];
  int count = 2 * (VAR(r, 'x')->rank - 2);
  bool own;
  if (!spatial_pads(r, pad, 0, pads) || !add_own_pads(pool, pads, count, &own)) return NULL;
  if (op_attr_i(pool, "ceil_mode") || (own && !op_attr_i(pool, "count_include_pad"))) return NULL;
  Node *n = rule_copy(r, pool, &VAR(r, 'x'), 1);
  attr_of(n, "count_include_pad")->i = 1;
  return with_pads(r, n, pads, count);
}

static Tensor *pad_into_max(Rewrite *r) {
  Node *pool = r->node[0], *pad = r->node[1];
  int64_t pads[2 * MAX_RANK];
  int count = 2 * (VAR(r, 'x')->rank - 2);
  bool own;
  if (!spatial_pads(r, pad, -INFINITY, pads) || !add_own_pads(pool, pads, count, &own) || op_attr_i(pool, "ceil_mode")) return NULL;
  return with_pads(r, rule_copy(r, pool, &VAR(r, 'x'), 1), pads, count);
}

/* What is cut off a convolution's edges is not computed: less padding there (causal convolutions pad both sides and keep what depends on the past). */
static Tensor *slice_into_conv(Rewrite *r) {
  Node *conv = r->node[1];
  const Tensor *all = conv->out[0], *out = r->root->out[0];
  const Attr *strides = op_attr(conv, "strides");
  int64_t pads[2 * MAX_RANK] = {0}, from[MAX_RANK] = {0}, made[MAX_RANK], kept[MAX_RANK];
  int sides = all->rank - 2;
  bool own;
  if (!rule_is_window(r->c, r->root, 0, from) || !tensor_dims(all, made) || !tensor_dims(out, kept) || !add_own_pads(conv, pads, 2 * sides, &own)) return NULL;
  if (made[0] != kept[0] || made[1] != kept[1]) return NULL;
  for (int i = 0, d = 2; i < sides; i++, d++) {
    int64_t stride = strides->kind == ATTR_INTS ? strides->ints[i] : 1;
    pads[i] -= from[d] * stride;
    pads[sides + i] -= (made[d] - from[d] - kept[d]) * stride;
    if (pads[i] < 0 || pads[sides + i] < 0) return NULL;
  }
  Tensor *in[] = { VAR(r, 'x'), VAR(r, 'w'), VAR(r, 'b') };
  return with_pads(r, rule_copy(r, conv, in, VAR(r, 'b') ? 3 : 2), pads, 2 * sides);
}

/* ---- averages of what is linear ---- */
/* A convolution of single places and an average change places where few averages are left: these then are all that is multiplied. */
static bool is_pointwise(const Node *conv, const Tensor *x) {
  const Tensor *w = conv->in[1], *y = conv->out[0];
  for (int d = 2; d < w->rank; d++)
    if (!ex_equals_int(w->shape[d], 1) || x->shape[d] != y->shape[d]) return false;      /* no strides, no padding */
  return x->rank == y->rank;
}

static Tensor *average_before_conv(Rewrite *r) {
  enum { FEWER = 2 };
  Ctx *c = r->c;
  Node *pool = r->node[0], *conv = r->node[1];
  Tensor *x = VAR(r, 'x'), *y = pool->out[0], *in[] = { NULL, VAR(r, 'w'), VAR(r, 'b') };
  Expr *before = ex_int(c, 1), *after = ex_int(c, FEWER);
  bool padded = rule_is_op(y, "AveragePool") && op_attr_i(pool, "count_include_pad");
  if (!is_pointwise(conv, x) || (padded && in[2])) return NULL;           /* the bias would be averaged with zeros */
  for (int d = 2; d < x->rank; d++) before = ex_mul(c, before, x->shape[d]), after = ex_mul(c, after, y->shape[d]);
  if (!expr_proves(c, ex_le(c, after, before))) return NULL;
  in[0] = rule_done(r, rule_copy(r, pool, &x, 1));
  return rule_done(r, rule_copy(r, conv, in, in[2] ? 3 : 2));
}

/* ---- the rules, in the order in which they are tried ---- */

const GraphRule graph_rules[] = {
  { "identity", "Identity(x)", "", "x", NULL },
  { "dropout", "Dropout(x, r?, t?)", "", NULL, dropout },
  { "cast-same", "Cast(x)", "", NULL, same_as_input },
  { "concat-one", "Concat(x)", "", "x", NULL },
  { "sum-one", "Sum(x)", "", "x", NULL },
  { "max-one", "Max(x)", "", "x", NULL },
  { "min-one", "Min(x)", "", "x", NULL },
  { "mean-one", "Mean(x)", "", "x", NULL },
  { "add-zero", "Add(x, c)", "const(c)", NULL, neutral },
  { "sub-zero", "Sub(x, c)", "const(c)", NULL, neutral },
  { "mul-one", "Mul(x, c)", "const(c)", NULL, neutral },
  { "div-one", "Div(x, c)", "const(c)", NULL, neutral },
  { "pow-one", "Pow(x, c)", "const(c)", NULL, neutral },
  { "and-true", "And(x, c)", "const(c)", NULL, neutral },
  { "or-false", "Or(x, c)", "const(c)", NULL, neutral },
  { "not-not", "Not(Not(x))", "", "x", NULL },
  { "neg-neg", "Neg(Neg(x))", "", "x", NULL },
  { "swish", "Mul(x, Sigmoid(x)@1)", "", "Swish(x)", NULL },
  { "relu-relu", "Relu(Relu(x))", "", "Relu(x)", NULL },
  { "where-known", "Where(c, x, y)", "const(c)", NULL, where_known },
  { "expand-same", "Expand(x, s)", "", NULL, same_as_input },
  { "tile-same", "Tile(x, s)", "", NULL, same_as_input },
  { "slice-all", "Slice(x, s, e, a?, t?)", "", NULL, slice_all },
  { "pad-nothing", "Pad(x, p, f?, a?)", "const(p)", NULL, pad_nothing },
  { "reshape", "Reshape(x, s)", "", NULL, view },
  { "flatten", "Flatten(x)", "", NULL, view },
  { "squeeze", "Squeeze(x, s?)", "", NULL, view },
  { "unsqueeze", "Unsqueeze(x, s)", "", NULL, view },
  { "split-before-transpose", "Reshape(Transpose(x)@1, s)", "", NULL, split_before_transpose },
  { "transpose-identity", "Transpose(x)", "", NULL, transpose_identity },
  { "transpose-pair", "Transpose(Transpose(x))", "", NULL, transpose_pair },
  { "norm-into-conv", "BatchNormalization(Conv(x,w,b?)@1, s,o,m,v)", "const(w,b,s,o,m,v)", NULL, norm_into_conv },
  { "norm-into-convtranspose", "BatchNormalization(ConvTranspose(x,w,b?)@1, s,o,m,v)", "const(w,b,s,o,m,v)", NULL, norm_into_conv },
  { "norm-into-gemm", "BatchNormalization(Gemm(x,w,b?)@1, s,o,m,v)", "const(w,b,s,o,m,v)", NULL, norm_into_gemm },
  { "norm-alone", "BatchNormalization(x, s,o,m,v)", "const(s,o,m,v)", NULL, norm_alone },
  { "group-norm", "Reshape(InstanceNormalization(Reshape(x,a), s,b)@1, c)", "const(s,b)", NULL, group_norm },
  { "mul-into-groupnorm", "Mul(GroupNormalization(x,s,b)@1, c)", "const(s,b,c)", NULL, into_norm },
  { "add-into-groupnorm", "Add(GroupNormalization(x,s,b)@1, c)", "const(s,b,c)", NULL, into_norm },
  { "mul-into-instancenorm", "Mul(InstanceNormalization(x,s,b)@1, c)", "const(s,b,c)", NULL, into_norm },
  { "add-into-instancenorm", "Add(InstanceNormalization(x,s,b)@1, c)", "const(s,b,c)", NULL, into_norm },
  { "mul-into-conv", "Mul(Conv(x,w,b?)@1, c)", "const(w,b,c)", NULL, factor_into_conv },
  { "div-into-conv", "Div(Conv(x,w,b?)@1, c)", "const(w,b,c) float(c)", NULL, factor_into_conv },
  { "mul-into-convtranspose", "Mul(ConvTranspose(x,w,b?)@1, c)", "const(w,b,c)", NULL, factor_into_conv },
  { "add-into-conv", "Add(Conv(x,w,b?)@1, c)", "const(w,b,c)", NULL, term_into_conv },
  { "sub-into-conv", "Sub(Conv(x,w,b?)@1, c)", "const(w,b,c)", NULL, term_into_conv },
  { "add-into-convtranspose", "Add(ConvTranspose(x,w,b?)@1, c)", "const(w,b,c)", NULL, term_into_conv },
  { "mul-into-matmul", "Mul(MatMul(x,w)@1, c)", "const(w,c) float(c)", NULL, factor_into_matmul },
  { "div-into-matmul", "Div(MatMul(x,w)@1, c)", "const(w,c) float(c)", NULL, factor_into_matmul },
  { "depth-order", "DepthToSpace(Conv(x,w,b?)@1)", "const(w,b)", NULL, depth_order },
  { "average-before-conv", "AveragePool(Conv(x,w,b?)@1)", "const(w,b)", NULL, average_before_conv },
  { "global-average-before-conv", "GlobalAveragePool(Conv(x,w,b?)@1)", "const(w,b)", NULL, average_before_conv },
  { "slice-into-conv", "Slice(Conv(x,w,b?)@1, s,e,a?,t?)", "const(s,e,a,t)", NULL, slice_into_conv },
  { "pad-into-conv", "Conv(Pad(x,p,f?,a?), w, b?)", "const(p,f,a)", NULL, pad_into_conv },
  { "pad-into-averagepool", "AveragePool(Pad(x,p,f?,a?))", "const(p,f,a)", NULL, pad_into_average },
  { "pad-into-maxpool", "MaxPool(Pad(x,p,f?,a?))", "const(p,f,a)", NULL, pad_into_max },
};
const int graph_rule_count = COUNT(graph_rules);

/* ---- patterns ---- */

typedef struct Pat Pat;
struct Pat {
  const Op *op;                    /* NULL: a variable */
  int var;
  bool optional, once;
  int index, swap;                 /* number among the pattern's operators; bit of those that commute, or -1 */
  int n;
  Pat *a[8];
};

typedef struct { Ctx *c; const char *p, *rule; int nops, nswaps; bool missing; } PatParser;

static void skip_blanks(PatParser *k) { while (*k->p == ' ') k->p++; }

static bool accept(PatParser *k, const char *text) {
  skip_blanks(k);
  if (strncmp(k->p, text, strlen(text))) return false;
  k->p += strlen(text);
  return true;
}

static bool commutes(const char *name) {
  static const char *const names[] = { "Add", "Mul", "And", "Or" };
  for (int i = 0; i < COUNT(names); i++)
    if (!strcmp(names[i], name)) return true;
  return false;
}

static Pat *parse_pattern(PatParser *k) {
  Pat *p = NEW(k->c, Pat);
  skip_blanks(k);
  p->swap = -1;
  if (islower((unsigned char)*k->p)) {
    p->var = *k->p++ - 'a';
    p->optional = accept(k, "?");
    return p;
  }
  int length = 0;
  while (isalnum((unsigned char)k->p[length])) length++;
  const char *name = ctx_intern_n(k->c, k->p, (size_t)length);
  k->p += length;
  p->op = op_find(k->c, "", name);
  k->missing |= !p->op;
  p->index = k->nops++;
  bool more = accept(k, "(");
  if (!more || !length) diag_bug(k->c, "graph rule '%s' does not parse at '%s'", k->rule, k->p);
  while (more && p->n < COUNT(p->a)) {
    p->a[p->n++] = parse_pattern(k);
    more = accept(k, ",");
  }
  if (!accept(k, ")")) diag_bug(k->c, "graph rule '%s' does not parse at '%s'", k->rule, k->p);
  if (p->n == 2 && commutes(name)) p->swap = k->nswaps++;
  p->once = accept(k, "@1");
  return p;
}

typedef struct { const GraphRule *rule; Pat *pattern, *text; int nswaps; } Compiled;
typedef struct { VEC(Compiled) rows; } RowList;

/* Root operator -> RowList*, made at first use. */
static Map *rule_table(Ctx *c) {
  if (c->slots[SLOT_GRAPH_RULES]) return c->slots[SLOT_GRAPH_RULES];
  Map *table = NEW(c, Map);
  *table = map_new(c);
  for (int i = 0; i < graph_rule_count; i++) {
    const GraphRule *rule = &graph_rules[i];
    PatParser k = { .c = c, .p = rule->pattern, .rule = rule->name };
    Compiled row = { .rule = rule, .pattern = parse_pattern(&k), .nswaps = k.nswaps };
    k.p = rule->text;
    if (rule->text) row.text = parse_pattern(&k);
    if (k.missing) continue;       /* dlc lacks an operator of the rule */
    RowList *list = map_get(table, KEY(row.pattern->op));
    if (!list) map_set(table, KEY(row.pattern->op), list = NEW(c, RowList));
    vec_push(c, &list->rows, row);
  }
  return c->slots[SLOT_GRAPH_RULES] = table;
}

static bool match(Rewrite *r, const Pat *p, Tensor *t, int swaps);

static bool match_node(Rewrite *r, const Pat *p, Node *n, int swaps) {
  if (n->op != p->op) return false;
  for (int i = p->n; i < n->nin; i++)
    if (n->in[i]) return false;
  for (int i = 1; i < n->nout; i++)
    if (n->out[i] && (n->out[i]->users.n || graph_returns(n->graph, n->out[i]))) return false;
  r->node[p->index] = n;
  bool swap = p->swap >= 0 && swaps >> p->swap & 1;
  for (int i = 0; i < p->n; i++) {
    int at = swap ? 1 - i : i;
    if (!match(r, p->a[i], at < n->nin ? n->in[at] : NULL, swaps)) return false;
  }
  return true;
}

static bool match(Rewrite *r, const Pat *p, Tensor *t, int swaps) {
  if (p->op) {
    if (!t || !t->def || t->def_index || t->def->graph != r->root->graph) return false;
    if (p->once && (t->users.n != 1 || graph_returns(r->root->graph, t))) return false;
    return match_node(r, p, t->def, swaps);
  }
  if (!t) return p->optional;
  if (r->var[p->var] && r->var[p->var] != t) return false;
  r->var[p->var] = t;
  return true;
}

/* "const(w,b) float(x)": absent variables satisfy everything. */
static bool conditions_hold(const Rewrite *r, const char *text) {
  while (*text) {
    bool constant = !strncmp(text, "const(", 6);
    if (!constant && strncmp(text, "float(", 6)) diag_bug(r->c, "a graph rule has the unknown condition '%s'", text);
    for (text += 6; *text != ')'; text++) {
      if (!islower((unsigned char)*text)) continue;
      const Tensor *t = r->var[*text - 'a'];
      if (t && (constant ? !t->data : !dtype_is_float(t->dtype))) return false;
    }
    do text++;
    while (*text == ' ');
  }
  return true;
}

static Tensor *build_text(Rewrite *r, const Pat *p) {
  Tensor *in[8];
  if (!p->op) return r->var[p->var];
  for (int i = 0; i < p->n; i++) in[i] = build_text(r, p->a[i]);
  return rule_done(r, rule_node(r, p->op->name, in, p->n));
}

/* Takes away what a declining rule has built: the nodes in front of n from the count on. */
static void erase_built(Graph *g, const Node *n, int count) {
  int at = g->nodes.n - 1;
  while (g->nodes.v[at] != n) at--;
  while (g->nodes.n > count) node_erase(g, g->nodes.v[--at]);
}

Tensor *graph_rules_apply(Ctx *c, Node *n, const GraphRule **rule) {
  RowList *list = map_get(rule_table(c), KEY(n->op));
  if (!list || !n->nout || !n->out[0]) return NULL;
  for (int i = 0; i < list->rows.n; i++) {
    const Compiled *row = &list->rows.v[i];
    for (int swaps = 0; swaps < 1 << row->nswaps; swaps++) {
      Rewrite r = { .c = c, .root = n };
      int count = n->graph->nodes.n;
      if (!match_node(&r, row->pattern, n, swaps) || !conditions_hold(&r, row->rule->conditions)) continue;
      Tensor *t = row->text ? build_text(&r, row->text) : row->rule->build(&r);
      if (!t || t == n->out[0]) {
        erase_built(n->graph, n, count);
        continue;
      }
      if (!same_shape(c, t, n->out[0]))
        diag_bug(c, "rule %s turns %s into %s", row->rule->name, tensor_type_text(c, n->out[0]), tensor_type_text(c, t));
      if (rule) *rule = row->rule;
      return t;
    }
  }
  return NULL;
}
