/* libcalls.c - functions that LLVM calls where a CPU has no instruction: half precision conversions, remainder,
 * rounding. What a model does not use is dropped when it is linked. */
#include <stdint.h>

#define AS(to, from)                                                                                                   \
  (((union {                                                                                                           \
     __typeof__(from) in;                                                                                              \
     to out;                                                                                                           \
   }){.in = (from)})                                                                                                   \
       .out)

float __extendhfsf2(_Float16 h);
_Float16 __truncsfhf2(float f);
_Float16 __truncdfhf2(double d);
__bf16 __truncsfbf2(float f);
__bf16 __truncdfbf2(double d);
float fmodf(float x, float y);
double fmod(double x, double y);
float roundf(float x);
double round(double x);

float __extendhfsf2(_Float16 h) {
  uint32_t bits = AS(uint16_t, h), sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
  if (exponent == 31) return AS(float, sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000u : 0));
  if (exponent) return AS(float, sign | (exponent + 112) << 23 | mantissa << 13);
  float small = (float)mantissa * 0x1p-24f; /* zero or subnormal: exact */
  return sign ? -small : small;
}

/* A number 0.m x 2^e, given as 64-bit mantissa (top bit set, or 0) and exponent of that bit, rounded to nearest even
 * with `digits` bits below the leading one, `bias`, and the smallest normal exponent 1 - bias; infinity when too large.
 * Sign and special values are the caller's. */
static uint32_t narrow(uint64_t mantissa, int exponent, int digits, int bias) {
  if (!mantissa) return 0;
  int biased = exponent + bias, drop = 63 - digits;
  if (biased < 1) drop += 1 - biased, biased = 0;
  if (drop > 64) return 0;
  uint64_t kept = drop == 64 ? 0 : mantissa >> drop;
  uint64_t rest = drop == 64 ? mantissa : mantissa << (64 - drop), half = (uint64_t)1 << 63;
  uint64_t up = rest > half || (rest == half && (kept & 1));
  /* a normal number's leading one adds 1 to the exponent field; so does rounding up to the next power of two */
  uint64_t result = ((uint64_t)(biased ? biased - 1 : 0) << digits) + kept + up;
  uint64_t infinity = (uint64_t)(2 * bias + 1) << digits;
  return (uint32_t)(result < infinity ? result : infinity);
}

static uint32_t narrow_double(double d, int digits, int bias) {
  uint64_t bits = AS(uint64_t, d), mantissa = bits & 0xfffffffffffff;
  int exponent = (int)(bits >> 52 & 0x7ff), width = digits + (bias == 15 ? 5 : 8);
  uint32_t sign = (uint32_t)(bits >> 63) << width, infinity = (uint32_t)(2 * bias + 1) << digits;
  if (exponent == 0x7ff)
    return mantissa ? sign | infinity | 1u << (digits - 1) | (uint32_t)(mantissa >> (52 - digits)) : sign | infinity;
  if (!exponent) return sign; /* far below the smallest half or bfloat subnormal */
  return sign | narrow((mantissa | (uint64_t)1 << 52) << 11, exponent - 1023, digits, bias);
}

/* float is exact in double, so there is one rounding */
_Float16 __truncsfhf2(float f) { return AS(_Float16, (uint16_t)narrow_double((double)f, 10, 15)); }
_Float16 __truncdfhf2(double d) { return AS(_Float16, (uint16_t)narrow_double(d, 10, 15)); }
__bf16 __truncsfbf2(float f) { return AS(__bf16, (uint16_t)narrow_double((double)f, 7, 127)); }
__bf16 __truncdfbf2(double d) { return AS(__bf16, (uint16_t)narrow_double(d, 7, 127)); }

/* The remainder is exact: long division of the mantissas, one bit at a time, then back to the divisor's exponent. */
double fmod(double x, double y) {
  uint64_t a = AS(uint64_t, x), b = AS(uint64_t, y) & INT64_MAX, sign = a & ~(uint64_t)INT64_MAX;
  const uint64_t one = (uint64_t)1 << 52, infinity = (uint64_t)0x7ff << 52;
  a &= INT64_MAX;
  if (a >= infinity || b > infinity || !b) return (x * y) / (x * y);
  if (a < b) return x;
  int ea = (int)(a >> 52), eb = (int)(b >> 52);
  uint64_t ma = ea ? (a & (one - 1)) | one : a, mb = eb ? (b & (one - 1)) | one : b;
  for (ea += !ea, eb += !eb; ea > eb; ea--) {
    if (ma >= mb) ma -= mb;
    ma <<= 1;
  }
  if (ma >= mb) ma -= mb;
  if (!ma) return AS(double, sign);
  for (; !(ma & one) && ea > 1; ea--) ma <<= 1;
  return AS(double, sign | (ma & one ? (ma - one) | (uint64_t)ea << 52 : ma));
}

float fmodf(float x, float y) { return (float)fmod((double)x, (double)y); }

/* half away from zero */
double round(double x) {
  uint64_t bits = AS(uint64_t, x), sign = bits & ~(uint64_t)INT64_MAX;
  int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
  if (exponent >= 52) return x;
  if (exponent < -1) return AS(double, sign);
  uint64_t whole = ((uint64_t)1 << (exponent < 0 ? 52 : 52 - exponent)) - 1;
  if (exponent < 0) return AS(double, sign | (uint64_t)1023 << 52);
  bits += (uint64_t)1 << (51 - exponent);
  return AS(double, bits & ~whole);
}

float roundf(float x) { return (float)round((double)x); }
