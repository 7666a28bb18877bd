/* dtype.c - element types: their table, and one element in memory as the widest value of its kind. */
#include "dtype.h"
#include <math.h>

const DTypeInfo dtype_info[DT_COUNT] = {
#define DTYPE(id, text, bits, kind, onnx, acc, ctype, numpy, dlpack) {text, bits, kind, onnx, acc, ctype, numpy, dlpack},
#include "dtype.def"
#undef DTYPE
};

DType dtype_from_onnx(int code) {
  for (int t = 0; t < DT_COUNT; t++)
    if (dtype_info[t].onnx == code) return (DType)t;
  return DT_NONE;
}

DType dtype_from_name(const char *text) {
  for (int t = 0; t < DT_COUNT; t++)
    if (!strcmp(dtype_info[t].name, text)) return (DType)t;
  return DT_NONE;
}

/* A binary format of `digits` significant bits whose smallest step is 2^step: v rounded to it, half to even, in one
 * rounding. */
static double round_to(double v, int digits, int step, double largest) {
  if (!isfinite(v) || v == 0) return v;
  int e;
  frexp(v, &e);
  int ulp = MAX(e - digits, step);
  double r = ldexp(rint(ldexp(v, -ulp)), ulp);
  return fabs(r) > largest ? copysign(INFINITY, v) : r;
}

static double f16_decode(uint16_t h) {
  int e = h >> 10 & 31, m = h & 1023;
  double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(m + 1024, e - 25) : ldexp(m, -24);
  return h >> 15 ? -v : v;
}

static uint16_t f16_encode(double v) {
  uint16_t sign = signbit(v) ? 0x8000 : 0;
  if (isnan(v)) return 0x7e00;
  double r = fabs(round_to(v, 11, -24, 65504));
  if (isinf(r)) return sign | 0x7c00;
  if (r < 0x1p-14) return sign | (uint16_t)ldexp(r, 24);
  int e;
  double m = frexp(r, &e);
  return (uint16_t)(sign + ((e + 14) << 10) + ((int)ldexp(m, 11) - 1024));
}

static double bf16_decode(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static uint16_t bf16_encode(double v) {
  if (isnan(v)) return 0x7fc0;
  float f = (float)round_to(v, 8, -133, 0x1.fep127);
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)(u >> 16);
}

#define READ(T) ({ T read_; memcpy(&read_, p, sizeof read_); read_; })
#define WRITE(T, value) do { T write_ = (T)(value); memcpy(p, &write_, sizeof write_); } while (0)

double dtype_load_f(DType t, const void *p) {
  switch (t) {
  case DT_F16: return f16_decode(READ(uint16_t));
  case DT_BF16: return bf16_decode(READ(uint16_t));
  case DT_F32: return READ(float);
  case DT_F64: return READ(double);
  case DT_U64: return (double)READ(uint64_t);
  default: return (double)dtype_load_i(t, p);
  }
}

static int64_t saturate(double v, double lo, double hi, int64_t min, int64_t max) {
  return isnan(v) ? 0 : v <= lo ? min : v >= hi ? max : (int64_t)v;
}

int64_t dtype_load_i(DType t, const void *p) {
  switch (t) {
  case DT_BOOL: return READ(uint8_t) != 0;
  case DT_U8: return READ(uint8_t);
  case DT_I8: return READ(int8_t);
  case DT_I16: return READ(int16_t);
  case DT_U16: return READ(uint16_t);
  case DT_I32: return READ(int32_t);
  case DT_U32: return READ(uint32_t);
  case DT_I64: case DT_U64: return READ(int64_t);
  default: return saturate(dtype_load_f(t, p), -0x1p63, 0x1p63, INT64_MIN, INT64_MAX);
  }
}

void dtype_store_i(DType t, void *p, int64_t v) {
  switch (t) {
  case DT_BOOL: WRITE(uint8_t, v != 0); break;
  case DT_I8: case DT_U8: WRITE(uint8_t, v); break;
  case DT_I16: case DT_U16: WRITE(uint16_t, v); break;
  case DT_I32: case DT_U32: WRITE(uint32_t, v); break;
  case DT_I64: case DT_U64: WRITE(int64_t, v); break;
  default: dtype_store_f(t, p, (double)v);
  }
}

void dtype_store_f(DType t, void *p, double v) {
  switch (t) {
  case DT_BOOL: WRITE(uint8_t, v != 0); break;
  case DT_F16: WRITE(uint16_t, f16_encode(v)); break;
  case DT_BF16: WRITE(uint16_t, bf16_encode(v)); break;
  case DT_F32: WRITE(float, v); break;
  case DT_F64: WRITE(double, v); break;
  case DT_U64: WRITE(uint64_t, isnan(v) || v <= 0 ? 0 : v >= 0x1p64 ? UINT64_MAX : (uint64_t)v); break;
  default: {                       /* float to integer saturates */
    int bits = dtype_info[t].bits;
    bool is_signed = dtype_info[t].kind == 'i';
    int64_t max = is_signed ? (int64_t)(UINT64_MAX >> (65 - bits)) : (int64_t)(UINT64_MAX >> (64 - bits));
    int64_t min = is_signed ? -max - 1 : 0;
    dtype_store_i(t, p, saturate(v, (double)min, (double)max, min, max));
  }
  }
}
