/* create.c - tensors made from sizes and numbers (Shape, Size, Range, ConstantOfShape, EyeLike), and changes of type (Cast, BitCast, Pow). */
#include "../op_impl.h"

#include <math.h>

/* ---- Shape, Size ---- */

static void shape_range(const Node *n, int *from, int *to) {
  int rank = n->in[0]->rank;
  const Attr *end = op_attr(n, "end");
  int64_t a = op_attr_i(n, "start"), b = end->kind == ATTR_INT ? end->i : rank;
  if (a < 0) a += rank;
  if (b < 0) b += rank;
  *from = (int)MAX(0, MIN(a, rank));
  *to = (int)MAX(*from, MIN(b, rank));
}

bool shape_shape(OpCtx *oc) {
  int from, to;
  shape_range(oc->node, &from, &to);
  op_out(oc, 0, DT_I64, 1, (Expr *[]){ ex_int(oc->c, to - from) });
  return true;
}

void compute_shape(OpCtx *oc) {
  Ctx *c = oc->c;
  const Tensor *x = oc->node->in[0];
  int from, to;
  shape_range(oc->node, &from, &to);
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *e = ex_int(c, 0);
  for (int d = to - 1; d >= from; d--)
    e = d == to - 1 ? x->shape[d] : ex_select(c, ex_eq(c, st->axes[0]->self, ex_int(c, d - from)), x->shape[d], e);
  st->body = e;
}

bool shape_size(OpCtx *oc) {
  op_out(oc, 0, DT_I64, 0, NULL);
  return true;
}

void compute_size(OpCtx *oc) { op_stage(oc, oc->node->out[0])->body = tensor_elements(oc->c, oc->node->in[0]); }

/* ---- ConstantOfShape, EyeLike ---- */

bool shape_constant_of_shape(OpCtx *oc) {
  const Tensor *value = op_attr(oc->node, "value")->tensor;
  Expr **dims;
  int n;
  OP_BAIL(op_known_exprs(oc, 0, &dims, &n));
  if (n > MAX_RANK) return op_error(oc, E0602, NULL, "%d dimensions; the most is %d", n, MAX_RANK);
  for (int i = 0; i < n; i++)
    if (expr_range(oc->c, dims[i]).max < 0)
      return op_error(oc, E0412, NULL, "dimension %d is %s", i, expr_text(oc->c, dims[i]));
  if (value && (!value->data || !ex_equals_int(tensor_elements(oc->c, value), 1)))
    return op_error(oc, E0412, NULL, "value must have one element, it is %s", tensor_type_text(oc->c, value));
  op_out(oc, 0, value ? value->dtype : DT_F32, n, dims);
  return true;
}

void compute_constant_of_shape(OpCtx *oc) {
  const Tensor *value = op_attr(oc->node, "value")->tensor;
  Stage *st = op_stage(oc, oc->node->out[0]);
  if (!value) st->body = ex_const(oc->c, DT_F32, 0);
  else if (dtype_is_float(value->dtype)) st->body = ex_const(oc->c, value->dtype, tensor_const_float(value, 0));
  else st->body = ex_const_i(oc->c, value->dtype, tensor_const_int(value, 0));
}

bool shape_eye_like(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  const Attr *type = op_attr(oc->node, "dtype");
  DType t = type->kind == ATTR_INT ? dtype_from_onnx((int)type->i) : x->dtype;
  if (t == DT_NONE) return op_error(oc, E0404, NULL, "dtype is %lld", (long long)type->i);
  OP_BAIL(op_rank(oc, 0, 2, 2));
  op_out(oc, 0, t, 2, x->shape);
  return true;
}

void compute_eye_like(OpCtx *oc) {
  Ctx *c = oc->c;
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *diagonal = ex_add(c, st->axes[0]->self, ex_int(c, op_attr_i(oc->node, "k")));
  op_done(oc, st, ex_eq(c, diagonal, st->axes[1]->self));
}

/* ---- Range ---- */

static bool range_parts(OpCtx *oc, Expr *part[3]) {
  for (int i = 0; i < 3; i++) {
    Expr **v;
    int n;
    if (!op_elements(oc, i, 1, &v, &n) || n != 1)
      return op_error(oc, E0413, NULL, "input '%s' must be one number that is known before the model runs",
                      oc->node->op->in[i].name);
    part[i] = v[0];
  }
  return true;
}

static bool float_count(OpCtx *oc, Expr *const part[3], int64_t *n) {
  double v[3];
  for (int i = 0; i < 3; i++) {
    if (!ex_is_const(part[i]))
      return op_error(oc, E0413, NULL, "the number of elements is not known before the model runs");
    v[i] = part[i]->u.f;
  }
  double count = v[2] == 0 ? -1 : ceil((v[1] - v[0]) / v[2]);
  if (v[2] == 0 || !(count < 1e15))
    return op_error(oc, E0412, NULL, "a range from %g to %g in steps of %g", v[0], v[1], v[2]);
  *n = count < 0 ? 0 : (int64_t)count;
  return true;
}

bool shape_range_op(OpCtx *oc) {
  Ctx *c = oc->c;
  Expr *part[3], *count;
  int64_t step, n = 0;
  OP_BAIL(range_parts(oc, part));
  if (dtype_is_float((DType)part[0]->dtype)) {
    OP_BAIL(float_count(oc, part, &n));
    count = ex_int(c, n);
  } else {
    Expr *start = ex_cast(c, DT_I64, part[0]), *limit = ex_cast(c, DT_I64, part[1]);
    if (!ex_is_int(part[2], &step)) return op_error(oc, E0413, NULL, "the step is not known before the model runs");
    if (!step || step == INT64_MIN) return op_error(oc, E0412, NULL, "the step is %lld", (long long)step);
    Expr *span = step > 0 ? ex_sub(c, limit, start) : ex_sub(c, start, limit);
    count = ex_max(c, ex_ceil_div(c, span, step > 0 ? step : -step), ex_int(c, 0));
  }
  op_out(oc, 0, oc->node->in[0]->dtype, 1, &count);
  return true;
}

void compute_range(OpCtx *oc) {
  Ctx *c = oc->c;
  Stage *st = op_stage(oc, oc->node->out[0]);
  Expr *start = op_acc(oc, op_scalar(oc, 0)), *step = op_acc(oc, op_scalar(oc, 2));
  op_done(oc, st, ex_add(c, start, ex_mul(c, ex_cast(c, (DType)start->dtype, st->axes[0]->self), step)));
}

/* ---- Cast, CastLike, BitCast ---- */

static bool cast_to(OpCtx *oc, int64_t code, DType *t) {
  *t = code >= 0 && code <= INT32_MAX ? dtype_from_onnx((int)code) : DT_NONE;
  return *t < DT_COUNT || op_error(oc, E0404, NULL, "a cast to element type %lld is not supported", (long long)code);
}

static bool shape_as(OpCtx *oc, DType t) {
  op_out(oc, 0, t, oc->node->in[0]->rank, oc->node->in[0]->shape);
  return true;
}

bool shape_cast(OpCtx *oc) {
  DType t;
  return cast_to(oc, op_attr_i(oc->node, "to"), &t) && shape_as(oc, t);
}

bool shape_cast_like(OpCtx *oc) { return shape_as(oc, oc->node->in[1]->dtype); }

void compute_cast(OpCtx *oc) {
  Ctx *c = oc->c;
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  Expr *x = op_in(oc, 0, at);
  bool test = st->out->dtype == DT_BOOL && x->dtype != DT_BOOL;
  op_done(oc, st, test ? ex_binary(c, EX_NE, x, ex_const_i(c, (DType)x->dtype, 0)) : x);
}

bool shape_bit_cast(OpCtx *oc) {
  DType t = DT_NONE, from = oc->node->in[0]->dtype;
  OP_BAIL(cast_to(oc, op_attr_i(oc->node, "to"), &t) && t < DT_COUNT);
  if (dtype_info[t].bits == dtype_info[from].bits && t != DT_BOOL && from != DT_BOOL) return shape_as(oc, t);
  return op_error(oc, E0404, NULL, "the bits of %s are not those of %s", dtype_info[from].name, dtype_info[t].name);
}

void compute_bit_cast(OpCtx *oc) {
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  st->body = ex_bitcast(oc->c, st->out->dtype, op_in(oc, 0, at));
}

/* ---- Pow: the result has the base's type, the exponent one of its own ---- */

bool shape_pow(OpCtx *oc) {
  const Tensor *x = oc->node->in[0], *y = oc->node->in[1];
  Expr *shape[MAX_RANK];
  int rank;
  OP_BAIL(op_broadcast(oc, x->shape, x->rank, y->shape, y->rank, shape, &rank));
  op_out(oc, 0, x->dtype, rank, shape);
  return true;
}

/* Whole powers of one constant exponent by multiplication. */
static Expr *power_of(Ctx *c, Expr *x, Expr *y) {
  double v = y->op != EX_CONST ? NAN : dtype_is_float((DType)y->dtype) ? y->u.f : (double)y->u.i;
  if (v == 1) return x;
  if (v == 2) return ex_mul(c, x, x);
  if (v == 3) return ex_mul(c, ex_mul(c, x, x), x);
  if (v == 0.5 && dtype_is_float((DType)x->dtype)) return ex_unary(c, EX_SQRT, x);
  return ex_binary(c, EX_POW, x, y);
}

void compute_pow(OpCtx *oc) {
  Ctx *c = oc->c;
  Expr *at[MAX_RANK];
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_axes_exprs(st, at);
  Expr *x = op_in_bcast(oc, 0, at, st->out->rank), *y = op_in_bcast(oc, 1, at, st->out->rank);
  bool fx = dtype_is_float((DType)x->dtype), fy = dtype_is_float((DType)y->dtype);
  DType t = fx ? dtype_info[x->dtype].acc : fy ? DT_F64 : DT_I64;
  op_done(oc, st, power_of(c, ex_cast(c, t, x), ex_cast(c, t, y)));
}
