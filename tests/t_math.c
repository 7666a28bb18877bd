/* t_math.c - the rows of math.def against libm: dense grids of operands and all specials, each row with products and sums fused (as fma
 * is where the processor has it) and with both rounded (as it is elsewhere). The errors found are the table of docs/math.md, which
 * `t_math --table > docs/math.md` writes. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../codegen/codegen.h"
#include "../ir/ctx.h"

typedef struct { ExprOp op; DType type; double ulps, below; const char *where; } Row;
static const Row rows[] = {
#define MATH(op, dtype, ulps, below, where, text) {op, dtype, ulps, below, where},
#include "../codegen/math.def"
#undef MATH
};

/* ---- the exact values ---- */

static long double sigmoidl(long double x) { return 1 / (1 + expl(-x)); }

static const struct { ExprOp op; long double (*of)(long double); } unary[] = {
  {EX_EXP, expl}, {EX_LOG, logl}, {EX_TANH, tanhl}, {EX_ERF, erfl}, {EX_SIGMOID, sigmoidl}, {EX_SIN, sinl}, {EX_COS, cosl},
  {EX_TAN, tanl}, {EX_ASIN, asinl}, {EX_ACOS, acosl}, {EX_ATAN, atanl}, {EX_SINH, sinhl}, {EX_COSH, coshl}, {EX_ASINH, asinhl},
  {EX_ACOSH, acoshl}, {EX_ATANH, atanhl},
};

static bool is_binary(ExprOp op) { return op == EX_POW || op == EX_TMOD; }

static long double exact(ExprOp op, long double x, long double y) {
  if (is_binary(op)) return op == EX_POW ? powl(x, y) : fmodl(x, y);
  for (int i = 0; i < COUNT(unary); i++)
    if (unary[i].op == op) return unary[i].of(x);
  abort();
}

/* The distance of neighbours of the type at v. */
static long double ulp_at(DType t, long double v) {
  int digits = t == DT_F64 ? 53 : t == DT_F32 ? 24 : 11, least = t == DT_F64 ? -1021 : t == DT_F32 ? -125 : -13;
  int most = t == DT_F64 ? 1024 : t == DT_F32 ? 128 : 16, e;
  frexpl(v, &e);
  if (v == 0 || e < least) e = least;
  return ldexpl(1, (isinf(v) || e > most ? most : e) - digits);
}

/* Errors of one kind; an infinity counts as the number that would follow the largest. */
typedef struct { long double ulps, absolute; double x, y; int wrong; double bad_x, bad_y, bad; } Errors;

static void note_error(Errors *e, const Row *row, double x, double y, double got) {
  long double want = exact(row->op, x, y), most = ldexpl(1, row->type == DT_F64 ? 1024 : 128);
  bool ok = isnan(want) == isnan(got) && (isnan(want) || want != 0 || got != 0 || !signbit(want) == !signbit(got));
  if (ok && !isnan(want) && !(isinf(got) && fabsl(want) >= most && !signbit(got) == !signbit(want))) {
    long double error = fabsl((isinf(got) ? copysignl(most, got) : got) - want), ulps = error / ulp_at(row->type, want);
    ok = !isinf(want);
    if (error > e->absolute && ok) e->absolute = error;
    if (error >= row->below && ulps > e->ulps && ok) e->ulps = ulps, e->x = x, e->y = y;
  }
  if (!ok && !e->wrong++) e->bad_x = x, e->bad_y = y, e->bad = got;
}

/* ---- operands ---- */

typedef struct { int n; double *x, *y; } Points;
static uint64_t seed;
static uint64_t next(void) { return mix64(seed += 0x9e3779b97f4a7c15); }
static double uniform(double lo, double hi) { return lo + (hi - lo) * (double)(next() >> 11) * 0x1p-53; }

static double to_type(DType t, double v) {
  uint64_t place = 0;
  dtype_store_f(t, &place, v);
  return dtype_load_f(t, &place);
}

/* any bit pattern */
static double any(DType t) {
  uint64_t bits = next();
  return dtype_load_f(t, &bits);
}

static const double specials[] = {
  0, 1, 0.5, 2, 3, 4, 7, 0.25, 0.75, 1.5, 0.1, 10, 100, 1e4, 1e5, 16777216, 16777217, 4294967297, 9007199254740993, 1e22, 1e30, 3e38, 3.5e38,
  1e300, 1.7e308, 1e-5, 1e-20, 1e-38, 1e-40, 1e-45, 1e-300, 1e-310, 5e-324, INFINITY, NAN, 87.3, 88.72, 88.73, 89.41, 89.42, 103.9, 104.1,
  709.78, 709.79, 710.47, 710.48, 745.1, 745.2, 0.78539816339744831, 1.5707963267948966, 3.1415926535897931, 6.2831853071795862, 0.99999994, 0.9999999999999999,
  1.0000001, 5.9, 8.3, 9.1, 19, 22, 6381956970095103.0 * 0x1p797,     /* the last: closest of all to a multiple of pi / 2 */
};

static void add_point(Points *p, DType t, double x, double y) {
  p->x[p->n] = to_type(t, x);
  p->y[p->n++] = to_type(t, y);
}

static double special(int i) { return i & 1 ? -specials[i / 2] : specials[i / 2]; }

static void unary_points(Points *p, DType t, int n) {
  static const double most[] = {0x1p-12, 0.5, 1.01, 2.5, 10, 105, 760, 1e4};
  for (int i = 0; i < 2 * COUNT(specials); i++) add_point(p, t, special(i), 0);
  for (int i = 0; i < n; i++) {                              /* patterns at a stride */
    uint64_t bits = t == DT_F32 ? (uint64_t)i * (UINT32_MAX / (uint32_t)n) : (uint64_t)i * (UINT64_MAX / (uint64_t)n);
    add_point(p, t, dtype_load_f(t, &bits), 0);
  }
  for (int i = 0; i < n; i++) add_point(p, t, uniform(-1, 1) * most[i % COUNT(most)], 0);
}

static void binary_points(Points *p, ExprOp op, DType t, int n) {
  for (int i = 0; i < 2 * COUNT(specials); i++)
    for (int j = 0; j < 2 * COUNT(specials); j++) add_point(p, t, special(i), special(j));
  for (int i = 0; i < n; i++) {
    double x = any(t), most = t == DT_F64 ? 1075 : 150;
    if (op == EX_POW && i % 2) x = 1 + uniform(-0.5, 0.5) * exp2(-(double)(next() % 24));
    add_point(p, t, x, op == EX_POW ? uniform(-1, 1) * most / fmax(fabs(log2(fabs(to_type(t, x)))), 1e-300) : any(t));
    if (op == EX_TMOD) add_point(p, t, uniform(-1e9, 1e9), uniform(-1, 1));
  }
}

static Points points_of(Ctx *c, const Row *row) {
  int n = 12000, all = is_binary(row->op) ? 4 * COUNT(specials) * COUNT(specials) + 2 * n : 2 * COUNT(specials) + 2 * n;
  Points p = {0, NEW_ARRAY(c, double, all), NEW_ARRAY(c, double, all)};
  seed = (uint64_t)row->op;
  if (is_binary(row->op)) binary_points(&p, row->op, row->type, n);
  else unary_points(&p, row->type, n);
  return p;
}

/* ---- running what replaces an operation ---- */

static Expr *round_twice(Ctx *c, Expr *e, void *user) {
  return e->op == EX_FMA ? ex_add(c, ex_mul(c, e->a[0], e->a[1]), e->a[2]) : e;
}

static int left;                   /* operations that no back end has */
static void count_left(const Expr *e, void *user) {
  bool division = dtype_is_float((DType)e->dtype) && (e->op == EX_MOD || e->op == EX_TMOD || e->op == EX_TDIV);
  left += e->op == EX_POW || e->op >= EX_EXP || division;
}

/* text: of x{i} and y{i}, elements of arrays of type t. The n values in the form of the type, bytes each. */
static void *run(Ctx *c, DType t, const char *text, const void *x, const void *y, int64_t n, bool fused) {
  const char *type = dtype_info[t].name;
  Kernel *k = kernel_parse(c, ctx_printf(c, "kernel k(x: %s[N], y: %s[N], out z: %s[N]; N=1..1000000) {\n for i < N {\n z{i} = %s\n }\n}\n", type,
                                         type, type, text));
  Stmt *s = math_expand(c, k->body)->body[0];
  if (!fused) s->value = expr_map(c, s->value, round_twice, NULL);
  expr_visit(s->value, count_left, NULL);
  void *z = ctx_alloc(c, (size_t)(n * dtype_bytes(t)));
  kernel_run(c, k, (void *[]){(void *)x, (void *)y, z}, &n);
  return z;
}

static void *packed(Ctx *c, DType t, const double *v, int n) {
  char *to = ctx_alloc(c, (size_t)(n * dtype_bytes(t)));
  for (int i = 0; i < n; i++) dtype_store_f(t, to + i * dtype_bytes(t), v[i]);
  return to;
}

static bool is_meant(const Row *row, double x, double y) { return !row->where || !isfinite(x) || !isfinite(y) || y == 0 || fabs(x / y) < 0x1p75; }

static Errors measure(const Row *row, bool fused) {
  Ctx *c = ctx_new();
  Errors e = {0};
  Points p = points_of(c, row);
  const char *text = ctx_printf(c, is_binary(row->op) ? "%s(x{i}, y{i})" : "%s(x{i})", expr_info[row->op].text);
  const char *z = run(c, row->type, text, packed(c, row->type, p.x, p.n), packed(c, row->type, p.y, p.n), p.n, fused);
  for (int i = 0; i < p.n; i++)
    if (is_meant(row, p.x[i], p.y[i])) note_error(&e, row, p.x[i], p.y[i], dtype_load_f(row->type, z + i * dtype_bytes(row->type)));
  ctx_free(c);
  return e;
}

/* ---- the table ---- */

typedef struct { Errors fused, twice; } Measured;
static Measured measured[COUNT(rows)];

static void measure_all(void) {
  for (int i = 0; i < COUNT(rows); i++) measured[i] = (Measured){measure(&rows[i], true), measure(&rows[i], false)};
}

static const char *table_text(Ctx *c) {
  Str s = str_new(c);
  str_add(&s, "# Accuracy of functions\n\n"
              "Compiled models call no mathematical library: exponentials, logarithms, powers and their kin are computed by polynomials inside the\n"
              "kernels. A result is off by at most the stated units in the last place (ulp) of the exact value, or by less than the amount behind \"or\".\n"
              "The largest errors that the tests find are beside it: with products and sums fused (processors with an FMA instruction) and with both\n"
              "rounded (x86-64-v2).\n\n"
              "| function | type | at most (ulp) | found, fused | found, not fused | where |\n| --- | --- | --- | --- | --- | --- |\n");
  for (int i = 0; i < COUNT(rows); i++) {
    str_add(&s, "| %s | %s | %g", rows[i].op == EX_TMOD ? "fmod" : expr_info[rows[i].op].text, dtype_info[rows[i].type].name, rows[i].ulps);
    if (rows[i].below) str_add(&s, " or %.1g", rows[i].below);
    str_add(&s, " | %.2Lf | %.2Lf | %s |\n", measured[i].fused.ulps, measured[i].twice.ulps, rows[i].where ? rows[i].where : "everywhere");
  }
  str_add(&s, "\nSpecial values are those of IEEE 754 and C: NaN gives NaN (but x^0 and 1^y are 1), exp(-inf) is 0, log(0) is -inf, tanh, erf and sigmoid\n"
              "reach their limits exactly, sin, cos and tan hold for arguments of any size and are NaN at infinity, denormal numbers count, and the\n"
              "sign of a zero is kept. f16 and bf16 are computed in f32 and rounded once more.\n\n"
              "Powers of a constant exponent that is a multiple of 1/4 up to 8 are products and square roots, good to 8 ulp; those of integers are\n"
              "exact, modulo two to the width of the type.\n");
  return s.s;
}

static void test_rows(void) {
  for (int i = 0; i < COUNT(rows); i++)
    for (int k = 0; k < 2; k++) {
      const Errors *e = k ? &measured[i].twice : &measured[i].fused;
      const char *name = expr_info[rows[i].op].text, *type = dtype_info[rows[i].type].name, *how = k ? "not fused" : "fused";
      CU_ASSERT(e->wrong == 0 && e->ulps <= rows[i].ulps);
      if (e->wrong) printf("\n  %s %s, %s: wrong %d times: %.17g, %.17g gives %.17g", name, type, how, e->wrong, e->bad_x, e->bad_y, e->bad);
      if (e->ulps > rows[i].ulps) printf("\n  %s %s, %s: %.4Lg ulp at %.17g, %.17g", name, type, how, e->ulps, e->x, e->y);
    }
}

static void test_docs(void) {
  Ctx *c = ctx_new();
  const char *want = table_text(c);
  size_t n = strlen(want);
  char *got = NEW_ARRAY(c, char, n + 2);
  FILE *f = fopen(FIXTURES "/../docs/math.md", "r");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  CU_ASSERT_EQUAL(fread(got, 1, n + 1, f), n);
  CU_ASSERT_STRING_EQUAL(got, want);
  if (strcmp(got, want)) printf("\n  docs/math.md differs: t_math --table > docs/math.md");
  fclose(f);
  ctx_free(c);
}

/* ---- what is no row ---- */

static bool close_to(DType t, double got, long double want, double ulps) {
  if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
  if (isinf(got) || want == 0) return (float)want == got && !signbit(got) == !signbit(want);
  return fabsl(got - want) <= ulps * ulp_at(t, want);
}

/* Constant exponents. */
static void test_small_powers(void) {
  static const double exponents[] = {0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 2.75, 3, 4, 7, 8, -0.25, -0.5, -0.75, -1, -1.5, -2, -3, 0.3, 9, -9.5, 20};
  Ctx *c = ctx_new();
  double x[300];
  for (int i = 0; i < COUNT(x); i++) x[i] = to_type(DT_F32, i < 2 * COUNT(specials) ? special(i) : uniform(0, 1) * exp2((double)(next() % 30) - 15));
  const void *in = packed(c, DT_F32, x, COUNT(x));
  for (int j = 0; j < COUNT(exponents); j++)
    for (int fused = 0; fused < 2; fused++) {
      const float *z = run(c, DT_F32, ctx_printf(c, "pow(x{i}, %.17g)", exponents[j]), in, in, COUNT(x), fused);
      for (int i = 0; i < COUNT(x); i++) {
        long double want = powl(x[i], (float)exponents[j]);
        if (want != 0 && fabsl(want) < 0x1p-126L) want = z[i] == 0 ? copysignl(0, want) : want;       /* underflow may come early */
        CU_ASSERT(close_to(DT_F32, z[i], want, 8));
        if (!close_to(DT_F32, z[i], want, 8)) printf("\n  pow(%.9g, %g) = %.9g, not %.9Lg", x[i], exponents[j], z[i], want);
      }
    }
  ctx_free(c);
}

static int64_t defined_power(DType t, int64_t x, int64_t y) {
  Ctx *c = ctx_new();
  int64_t r = expr_apply(ex_binary(c, EX_POW, ex_cast(c, t, ex_fetch(c, tensor_new(c, "x", DT_I8, 0, NULL), ex_int(c, 0))), ex_const_i(c, t, 5)),
                         (Scalar[]){{.i = x}, {.i = y}}).i;
  ctx_free(c);
  return r;
}

/* Whole numbers, exactly, wrapped where the type ends; by a loaded and by a constant exponent. */
static void test_whole_powers(void) {
  static const DType types[] = {DT_I64, DT_I32, DT_U64, DT_I8};
  static const int64_t bases[] = {0, 1, -1, 2, -2, 3, -3, 7, 10, 12345, INT64_MAX, INT64_MIN};
  static const int64_t exponents[] = {0, 1, 2, 3, 5, 16, 30, 31, 39, 62, 63, 64, 65, 1000003, -1, -2, -7, INT64_MAX, INT64_MAX - 1, INT64_MIN};
  enum { N = COUNT(bases) * COUNT(exponents) };
  for (int k = 0; k < COUNT(types); k++) {
    Ctx *c = ctx_new();
    DType t = types[k];
    int bytes = dtype_bytes(t);
    char x[N * 8], y[N * 8];
    for (int i = 0; i < N; i++) {
      dtype_store_i(t, x + i * bytes, bases[i % COUNT(bases)]);
      dtype_store_i(t, y + i * bytes, exponents[i / COUNT(bases)]);
    }
    const char *z = run(c, t, "pow(x{i}, y{i})", x, y, N, true);
    for (int i = 0; i < N; i++) {
      int64_t a = dtype_load_i(t, x + i * bytes), b = dtype_load_i(t, y + i * bytes), want = defined_power(t, a, b), got = dtype_load_i(t, z + i * bytes);
      CU_ASSERT_EQUAL(got, want);
      if (got != want) printf("\n  %s: %lld^%lld = %lld", dtype_info[t].name, (long long)a, (long long)b, (long long)got);
      if (i % COUNT(bases) || t == DT_U64) continue;
      const char *w = run(c, t, ctx_printf(c, "pow(x{i}, %s(%lld))", dtype_info[t].name, (long long)b), x, y, COUNT(bases), true);
      for (int j = 0; j < COUNT(bases); j++)
        CU_ASSERT_EQUAL(dtype_load_i(t, w + j * bytes), defined_power(t, dtype_load_i(t, x + j * bytes), b));
    }
    ctx_free(c);
  }
}

/* The remainder of floor division, and types that are computed in another. */
static void test_others(void) {
  Ctx *c = ctx_new();
  enum { N = 400 };
  double x[N], y[N];
  for (int i = 0; i < N; i++) x[i] = to_type(DT_F16, uniform(-9, 9)), y[i] = to_type(DT_F16, i % 7 ? uniform(-3, 3) : i % 2 ? INFINITY : -INFINITY);
  const DType types[] = {DT_F16, DT_BF16, DT_F32, DT_F64};
  for (int k = 0; k < COUNT(types); k++) {
    DType t = types[k];
    const char *a = packed(c, t, x, N), *b = packed(c, t, y, N);
    const char *mod = run(c, t, "x{i} % y{i}", a, b, N, true), *quotient = run(c, t, "tdiv(x{i}, y{i})", a, b, N, true);
    const char *tanhs = run(c, t, "tanh(x{i})", a, b, N, true);
    for (int i = 0; i < N; i++) {
      int at = i * dtype_bytes(t);
      double u = dtype_load_f(t, a + at), v = dtype_load_f(t, b + at), r = fmod(u, v);
      if (r != 0 && (r < 0) != (v < 0)) r += v;
      CU_ASSERT_EQUAL(dtype_load_f(t, mod + at), to_type(t, r));
      CU_ASSERT_EQUAL(dtype_load_f(t, quotient + at), trunc(to_type(t, u / v)));
      if (t != DT_BF16) CU_ASSERT(close_to(t, dtype_load_f(t, tanhs + at), tanhl(u), t == DT_F16 ? 0.51 : 6));
    }
  }
  ctx_free(c);
}

static void test_left(void) { CU_ASSERT_EQUAL(left, 0); }

int main(int argc, char **argv) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("math", NULL, NULL);
  CU_add_test(s, "rows", test_rows);
  CU_add_test(s, "docs", test_docs);
  CU_add_test(s, "small powers", test_small_powers);
  CU_add_test(s, "whole powers", test_whole_powers);
  CU_add_test(s, "others", test_others);
  CU_add_test(s, "nothing is left", test_left);            /* of all that ran above */
  if (argc == 2 && !strcmp(argv[1], "--table")) {
    Ctx *c = ctx_new();
    measure_all();
    fputs(table_text(c), stdout);
    ctx_free(c);
    return 0;
  }
  measure_all();
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  int failed = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
