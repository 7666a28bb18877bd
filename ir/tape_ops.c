/* tape_ops.c - loops over rows of one element type, for the operations and types that models spend their time in. */
#include "tape.h"

#include <math.h>

/* ---- single elements ---- */

Scalar scalar_load(DType t, const void *p) {
  Scalar v;
  if (dtype_is_float(t)) v.f = dtype_load_f(t, p);
  else v.i = dtype_load_i(t, p);
  return v;
}

void scalar_store(DType t, void *p, Scalar v) {
  if (dtype_is_float(t)) dtype_store_f(t, p, v.f);
  else dtype_store_i(t, p, v.i);
}

/* ---- one loop per operation and type; x and y are the operands ---- */

#define LOOP(name, T, R, value)                                       \
  static void name(void *d, const void *a, const void *b, int n) {    \
    R *D = d;                                                         \
    const T *A = a, *B = b;                                           \
    (void)B;                                                          \
    _Pragma("GCC ivdep")                                              \
    for (int i = 0; i < n; i++) {                                     \
      T x = A[i];                                                     \
      D[i] = (R)(value);                                              \
    }                                                                 \
  }
#define y B[i]

#define ARITHMETIC(T, U, t)                                           \
  LOOP(add_##t, T, T, (U)x + (U)y)                                    \
  LOOP(sub_##t, T, T, (U)x - (U)y)                                    \
  LOOP(mul_##t, T, T, (U)x * (U)y)                                    \
  LOOP(neg_##t, T, T, (U)0 - (U)x)                                    \
  LOOP(lt_##t, T, uint8_t, x < y)                                     \
  LOOP(le_##t, T, uint8_t, x <= y)                                    \
  LOOP(eq_##t, T, uint8_t, x == y)                                    \
  LOOP(ne_##t, T, uint8_t, x != y)

#define INTEGER(T, U, t)                                              \
  ARITHMETIC(T, U, t)                                                 \
  LOOP(min_##t, T, T, x < y ? x : y)                                  \
  LOOP(max_##t, T, T, x > y ? x : y)                                  \
  LOOP(abs_##t, T, T, x < 0 ? (U)0 - (U)x : (U)x)                     \
  LOOP(and_##t, T, T, x & y)                                          \
  LOOP(or_##t, T, T, x | y)                                           \
  LOOP(xor_##t, T, T, x ^ y)                                          \
  LOOP(div_##t, T, T, y == 0 ? 0 : y == -1 ? (T)((U)0 - (U)x) : x / y - (x % y != 0 && (x < 0) != (y < 0))) \
  LOOP(mod_##t, T, T, y == 0 || y == -1 ? 0 : x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0))

INTEGER(int64_t, uint64_t, i64)
INTEGER(int32_t, uint32_t, i32)

/* min and max give NaN if either side is NaN */
#define FLOATING(T, t)                                                \
  LOOP(add_##t, T, T, x + y)                                          \
  LOOP(sub_##t, T, T, x - y)                                          \
  LOOP(mul_##t, T, T, x * y)                                          \
  LOOP(div_##t, T, T, x / y)                                          \
  LOOP(neg_##t, T, T, -x)                                             \
  LOOP(lt_##t, T, uint8_t, x < y)                                     \
  LOOP(le_##t, T, uint8_t, x <= y)                                    \
  LOOP(eq_##t, T, uint8_t, x == y)                                    \
  LOOP(ne_##t, T, uint8_t, x != y)                                    \
  LOOP(min_##t, T, T, x != x || x < y ? x : y)                        \
  LOOP(max_##t, T, T, x != x || x > y ? x : y)

FLOATING(float, f32)
FLOATING(double, f64)

#define FUNCTIONS(T, t, s)                                            \
  LOOP(abs_##t, T, T, fabs##s(x))                                     \
  LOOP(sqrt_##t, T, T, sqrt##s(x))                                    \
  LOOP(floor_##t, T, T, floor##s(x))                                  \
  LOOP(ceil_##t, T, T, ceil##s(x))                                    \
  LOOP(round_##t, T, T, rint##s(x))                                   \
  LOOP(trunc_##t, T, T, trunc##s(x))                                  \
  LOOP(exp_##t, T, T, exp(x))                                         \
  LOOP(log_##t, T, T, log(x))                                         \
  LOOP(tanh_##t, T, T, tanh(x))                                       \
  LOOP(erf_##t, T, T, erf(x))                                         \
  LOOP(sigmoid_##t, T, T, 1.0 / (1.0 + exp(-(double)x)))

FUNCTIONS(float, f32, f)
FUNCTIONS(double, f64, )

LOOP(and_b, uint8_t, uint8_t, x & y)
LOOP(or_b, uint8_t, uint8_t, x | y)
LOOP(xor_b, uint8_t, uint8_t, x ^ y)
LOOP(not_b, uint8_t, uint8_t, x ^ 1)
LOOP(eq_b, uint8_t, uint8_t, x == y)
LOOP(ne_b, uint8_t, uint8_t, x != y)
#undef y

#define BASIC(t) [EX_ADD] = add_##t, [EX_SUB] = sub_##t, [EX_MUL] = mul_##t, [EX_DIV] = div_##t, [EX_NEG] = neg_##t, \
  [EX_MIN] = min_##t, [EX_MAX] = max_##t, [EX_ABS] = abs_##t, [EX_LT] = lt_##t, [EX_LE] = le_##t, [EX_EQ] = eq_##t, [EX_NE] = ne_##t
#define INTEGERS(t) BASIC(t), [EX_MOD] = mod_##t, [EX_AND] = and_##t, [EX_OR] = or_##t, [EX_XOR] = xor_##t
#define FLOATS(t) BASIC(t), [EX_SQRT] = sqrt_##t, [EX_FLOOR] = floor_##t, [EX_CEIL] = ceil_##t, [EX_ROUND] = round_##t, \
  [EX_TRUNC] = trunc_##t, [EX_EXP] = exp_##t, [EX_LOG] = log_##t, [EX_TANH] = tanh_##t, [EX_ERF] = erf_##t, [EX_SIGMOID] = sigmoid_##t

static RowFn *const ops[DT_COUNT][EX_COUNT] = {
  [DT_F32] = { FLOATS(f32) },
  [DT_F64] = { FLOATS(f64) },
  [DT_I64] = { INTEGERS(i64) },
  [DT_I32] = { INTEGERS(i32) },
  [DT_BOOL] = { [EX_AND] = and_b, [EX_OR] = or_b, [EX_XOR] = xor_b, [EX_NOT] = not_b, [EX_EQ] = eq_b, [EX_NE] = ne_b,
                [EX_MIN] = and_b, [EX_MAX] = or_b },
};

RowFn *row_op(ExprOp op, DType operand) { return ops[operand][op]; }

/* ---- casts ---- */

#define y 0
LOOP(i64_to_f32, int64_t, float, x)
LOOP(i64_to_f64, int64_t, double, x)
LOOP(i64_to_i32, int64_t, int32_t, x)
LOOP(i64_to_b, int64_t, uint8_t, x != 0)
LOOP(i32_to_i64, int32_t, int64_t, x)
LOOP(i32_to_f32, int32_t, float, x)
LOOP(i32_to_f64, int32_t, double, x)
LOOP(u8_to_i32, uint8_t, int32_t, x)
LOOP(i8_to_i32, int8_t, int32_t, x)
LOOP(f32_to_f64, float, double, x)
LOOP(f64_to_f32, double, float, x)
LOOP(b_to_f32, uint8_t, float, x)
LOOP(b_to_i64, uint8_t, int64_t, x)
#undef y

static RowFn *const casts[DT_COUNT][DT_COUNT] = {   /* [from][to] */
  [DT_I64] = { [DT_F32] = i64_to_f32, [DT_F64] = i64_to_f64, [DT_I32] = i64_to_i32, [DT_BOOL] = i64_to_b },
  [DT_I32] = { [DT_I64] = i32_to_i64, [DT_F32] = i32_to_f32, [DT_F64] = i32_to_f64 },
  [DT_U8] = { [DT_I32] = u8_to_i32 },
  [DT_I8] = { [DT_I32] = i8_to_i32 },
  [DT_F32] = { [DT_F64] = f32_to_f64 },
  [DT_F64] = { [DT_F32] = f64_to_f32 },
  [DT_BOOL] = { [DT_F32] = b_to_f32, [DT_I64] = b_to_i64 },
};

RowFn *row_cast(DType to, DType from) { return casts[from][to]; }

/* ---- multiply and accumulate ---- */

#define MAC(name, T, operand)                                         \
  static void name(void *d, const void *a, const void *b, int n) {    \
    T *D = d;                                                         \
    const T *A = a, *B = b;                                           \
    _Pragma("GCC ivdep")                                              \
    for (int i = 0; i < n; i++) D[i] += A[i] * B[operand];            \
  }
MAC(mac_f32, float, i)
MAC(mac_f32_u, float, 0)
MAC(mac_f64, double, i)
MAC(mac_f64_u, double, 0)

RowFn *row_mac(DType t, bool uniform) {
  if (t == DT_F32) return uniform ? mac_f32_u : mac_f32;
  if (t == DT_F64) return uniform ? mac_f64_u : mac_f64;
  return NULL;
}

/* ---- by element size ---- */

#define BY_SIZE(bytes, DO)                                            \
  switch (bytes) {                                                    \
  case 1: DO(uint8_t); break;                                         \
  case 2: DO(uint16_t); break;                                        \
  case 4: DO(uint32_t); break;                                        \
  default: DO(uint64_t); break;                                       \
  }

void row_select(int bytes, void *d, const uint8_t *cond, const void *a, const void *b, int n) {
#define SELECT(T) do { T *D = d; const T *A = a, *B = b; for (int i = 0; i < n; i++) D[i] = cond[i] ? A[i] : B[i]; } while (0)
  BY_SIZE(bytes, SELECT)
}

void row_fill(int bytes, void *d, const void *value, int n) {
#define FILL(T) do { T *D = d, v; memcpy(&v, value, sizeof v); for (int i = 0; i < n; i++) D[i] = v; } while (0)
  BY_SIZE(bytes, FILL)
}

void row_repeat(int bytes, void *d, const void *a, int n, int times) {
#define REPEAT(T) do { T *D = d; const T *A = a; \
    for (int i = 0; i < n; i++) for (int j = 0; j < times; j++) *D++ = A[i]; } while (0)
  BY_SIZE(bytes, REPEAT)
}

/* The tensor's elements may be unaligned: constants lie in a mapped file as they come. */
#define TAKE_LOOP(T, place, active) do { T *D = d; const char *p = base; \
    for (int i = 0; i < n; i++) if (active) memcpy(&D[i], p + (place) * (int64_t)sizeof(T), sizeof(T)); } while (0)

void row_take(int bytes, void *d, const void *base, const int64_t *offset, const uint8_t *mask, int n) {
#define TAKE(T) do { if (mask) TAKE_LOOP(T, offset[i], mask[i]); else TAKE_LOOP(T, offset[i], true); } while (0)
  BY_SIZE(bytes, TAKE)
}

void row_take_stride(int bytes, void *d, const void *base, int64_t stride, const uint8_t *mask, int n) {
#define TAKE_STRIDE(T) do { if (mask) TAKE_LOOP(T, i * stride, mask[i]); else TAKE_LOOP(T, i * stride, true); } while (0)
  if (mask || stride != 1) BY_SIZE(bytes, TAKE_STRIDE)
  else memcpy(d, base, (size_t)bytes * (size_t)n);
}
