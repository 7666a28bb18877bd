/* t_stmt.c - the tensor IR: text there and back, the verifier, and the interpreter against plain C. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <stdlib.h>

#include "../ir/diag.h"
#include "../ir/stmt.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

/* Runs the statement and is true if it fails with the code and a message that contains the text. */
#define FAILS(code_, part, statement) \
  (failed(c, code_, part, setjmp(ctx_diags(c)->unwind) || (ctx_diags(c)->armed = true, statement, 0)))

static bool failed(Ctx *ctx, DiagCode code, const char *part, bool unwound) {
  Diags *d = ctx_diags(ctx);
  bool ok = unwound && d->list.n == 1 && d->list.v[0].code == code && strstr(d->list.v[0].text, part);
  if (!ok)
    printf("\n  expected %s with '%s'; got %s '%s'\n", diag_code_name(code), part,
           d->list.n ? diag_code_name(d->list.v[0].code) : "nothing", d->list.n ? d->list.v[0].text : "");
  d->list.n = 0;
  d->armed = false;
  return ok;
}

static void expect_same(const char *got, const char *want) {
  CU_ASSERT_STRING_EQUAL(got, want);
  if (strcmp(got, want)) printf("\n--- got\n%s--- want\n%s", got, want);
}

/* ---- text ---- */

static const char *const matmul =
  "kernel matmul(a: f32[M,20], b: f32[20,24], out y: f32[M,24]; M=1..1000) @\"MatMul_7\" {\n"
  "  parallel io < (M + 3) / 4 {\n"
  "    for jo < 3 {\n"
  "      alloc reg acc: f32[4,8] {\n"
  "        unroll i < 4 {\n"
  "          vector v:8 < 8 {\n"
  "            acc{i * 8 + v} = f32(0)\n"
  "          }\n"
  "        }\n"
  "        for k < 20 {\n"
  "          unroll i < 4 {\n"
  "            vector v:8 < 8 {\n"
  "              acc{i * 8 + v} sum= select(io * 4 + i < M, a{io * 80 + i * 20 + k}, f32(0)) * b{k * 24 + jo * 8 + v}\n"
  "            }\n"
  "          }\n"
  "        }\n"
  "        unroll i < 4 {\n"
  "          if (io * 4 + i < M) {\n"
  "            vector v:8 < 8 {\n"
  "              y{io * 96 + i * 24 + jo * 8 + v} = acc{i * 8 + v}\n"
  "            }\n"
  "          }\n"
  "        }\n"
  "      }\n"
  "    }\n"
  "  }\n"
  "}\n";

static const char *const symbolic =
  "kernel sum(x: f32[N,M], out y: f32[N]; N, M=4..64%4) scratch 0 why \"rows\" {\n"
  "  parallel i < N {\n"
  "    y{i} = 0\n"
  "    for j < M {\n"
  "      y{i} sum= max(x{i*M + j}, 0) * 0.1f\n"
  "    }\n"
  "  }\n"
  "}\n";

static const char *const copy =
  "kernel \"a strange-name\"(\"x:0\": f32[4,4] layout \"d1,d0\", out y: f32[4,4]) scratch 256 {\n"
  "  alloc scratch t: f32[16] {\n"
  "    for i < 16 {\n"
  "      t{i} = \"x:0\"{i/4 + i%4*4}\n"
  "    }\n"
  "    barrier\n"
  "    for i.1 < 16 {\n"
  "      prefetch \"x:0\"{i.1 + 64}\n"
  "      if (i.1 < 8) {\n"
  "        y{i.1} max= t{i.1}\n"
  "      } else {\n"
  "        y{i.1} = t{i.1}\n"
  "      }\n"
  "    }\n"
  "  }\n"
  "}\n";

/* What is printed reads back to the same text,
    in this context (whose symbols have those names already) and in a fresh one. */
static void test_text(void) {
  const char *const texts[] = { matmul, symbolic, copy };
  for (int i = 0; i < COUNT(texts); i++) {
    Kernel *k = kernel_parse(c, texts[i]);
    kernel_verify(c, k);
    const char *text = kernel_text(c, k);
    Kernel *again = kernel_parse(c, text);
    kernel_verify(c, again);
    expect_same(kernel_text(c, again), text);
    Ctx *other = ctx_new();
    expect_same(kernel_text(other, kernel_parse(other, text)), text);
    ctx_free(other);
  }
  expect_same(kernel_text(c, kernel_parse(c, copy)), copy);
}

/* The text of a kernel does not tell in which order its parts were made. */
static const char *text_of_sums(bool inner_first) {
  Expr *n = ex_int(c, 64), *four = ex_int(c, 4), *t[3];
  Tensor *x = tensor_new(c, "x", DT_I64, 1, &n), *y = tensor_new(c, "y", DT_I64, 1, &n);
  Sym *first = sym_axis(c, SYM_AXIS, inner_first ? "j" : "i.o", four), *second = sym_axis(c, SYM_AXIS,
                                                                                        inner_first ? "i.7.o" : "j", four);
  Sym *i = inner_first ? second : first, *j = inner_first ? first : second;
  Expr *at = ex_add(c, ex_mul(c, i->self, four), j->self);
  for (int m = 0; m < 3; m++) {
    int what = inner_first ? 2 - m : m;
    t[what] = ex_fetch(c, x, ex_add(c, ex_mul(c, at, ex_int(c, what + 1)), ex_int(c, what)));
  }
  Expr *sum = inner_first ? ex_add(c, t[1], ex_add(c, t[2], t[0])) : ex_add(c, ex_add(c, t[0], t[1]), t[2]);
  Kernel k = { .name = "k", .params = (Tensor *[]){ x, y }, .nparams = 2, .writes = (bool[]){ false, true } };
  k.body = st_for(c, LOOP_SERIAL, i, four, st_for(c, LOOP_SERIAL, j, four, st_store(c, y, at, sum, -1)));
  kernel_verify(c, kernel_canonical(c, &k));
  return kernel_text(c, &k);
}

static void test_canonical(void) {
  const char *text = text_of_sums(false);
  expect_same(text_of_sums(true), text);
  expect_same(kernel_text(c, kernel_parse(c, text)), text);
}

static bool text_fails(const char *text, const char *message) { return FAILS(E0309, message, kernel_parse(c, text)); }

static void test_text_errors(void) {
  static const struct { const char *text, *message; } bad[] = {
    { "kernel k(out y: f32[4]) { y{j} = f32(1) }", "j" },
    { "kernel k(out y: f32[4]) { z{0} = f32(1) }", "z" },
    { "kernel k(out y: f32[4]) { y{0} = i64(1) }", "not f32" },
    { "kernel k(out y: f32[4]) { y{0} plus= f32(1) }", "a combiner" },
    { "kernel k(out y: f32[4]) { if (3) { y{0} = f32(1) } }", "true or false" },
    { "kernel k(out y: f32[4]) { for i < 4 { y{i} = f32(1) }", "the end" },
  };
  for (int i = 0; i < COUNT(bad); i++) CU_ASSERT(text_fails(bad[i].text, bad[i].message));
}

/* ---- the verifier ---- */

static bool body_fails(Kernel *k, Stmt *body, const char *message) {
  k->body = body;
  return FAILS(E0900, message, kernel_verify(c, k));
}

static void test_verifier(void) {
  Expr *zero = ex_int(c, 0), *one = ex_const(c, DT_F32, 1), *four = ex_int(c, 4);
  Tensor *x = tensor_new(c, "x", DT_F32, 1, &four), *y = tensor_new(c, "y", DT_F32, 1, &four);
  Tensor *r = tensor_new(c, "r", DT_F32, 1, &four);
  Sym *i = sym_axis(c, SYM_AXIS, "i", four), *n = sym_new(c, SYM_DIM, "n", 1, 9);
  Kernel k = { .name = "k", .params = (Tensor *[]){ x, y }, .nparams = 2, .writes = (bool[]){ false, true } };
  k.body = st_store(c, y, zero, one, -1);
  kernel_verify(c, &k);
  const struct { Stmt *body; const char *message; } bad[] = {
    { st_store(c, x, zero, one, -1), "input 'x' is written" },
    { st_store(c, r, zero, one, -1), "'r' is written out of its scope" },
    { st_prefetch(c, r, zero), "'r' is prefetched out of its scope" },
    { st_prefetch(c, x, i->self), "'i' is not bound" },
    { st_store(c, y, i->self, one, -1), "'i' is not bound" },
    { st_store(c, y, ex_const(c, DT_I32, 0), one, -1), "is i32 and not i64" },
    { st_store(c, y, zero, ex_fetch(c, r, zero), -1), "'r' is read out of its scope" },
    { st_store(c, y, zero, ex_load(c, x, &zero, 1), -1), "a load is left" },
    { st_for(c, LOOP_UNROLL, i, n->self, k.body), "not bound" },
    { st_for(c, LOOP_SERIAL, i, four, st_for(c, LOOP_SERIAL, i, four, k.body)), "inside another" },
    { st_for(c, LOOP_VECTOR, i, four, k.body), "vector" },
    { st_alloc(c, r, k.body), "neither as reg" },
    { st_if(c, zero, k.body, NULL), "a condition" },
  };
  for (int j = 0; j < COUNT(bad); j++) CU_ASSERT(body_fails(&k, bad[j].body, bad[j].message));
  vec_push(c, &k.dims, n);
  CU_ASSERT(body_fails(&k, st_for(c, LOOP_UNROLL, i, n->self, st_store(c, y, zero, one, -1)), "no constant extent"));
  r = tensor_new(c, "r", DT_F32, 1, &n->self);
  r->scope = SCOPE_REG;
  CU_ASSERT(body_fails(&k, st_alloc(c, r, st_store(c, y, zero, one, -1)), "not constant"));
}

/* ---- the interpreter ---- */

static void test_matmul(void) {
  enum { K = 20, N = 24, MOST = 13 };
  Kernel *k = kernel_parse(c, matmul);
  for (int64_t m = 1; m <= MOST; m += 3) {
    float *a = malloc(sizeof(float) * (size_t)m * K), b[K * N], *y = malloc(sizeof(float) * (size_t)m * N);
    int wrong = 0;
    for (int i = 0; i < m * K; i++) a[i] = (float)(i * 7 % 23) - 11.25f;
    for (int i = 0; i < K * N; i++) b[i] = (float)(i * 5 % 19) / 16;
    kernel_run(c, k, (void *[]){ a, b, y }, &m);
    for (int i = 0; i < m; i++)
      for (int j = 0; j < N; j++) {
        float sum = 0;
        for (int l = 0; l < K; l++) {
          volatile float product = a[i * K + l] * b[l * N + j];
          sum += product;
        }
        wrong += y[i * N + j] != sum;
      }
    CU_ASSERT_EQUAL(wrong, 0);
    free(a);
    free(y);
  }
}

static void test_copy(void) {
  float x[16], y[16];
  for (int i = 0; i < 16; i++) x[i] = (float)i, y[i] = 7;
  kernel_run(c, kernel_parse(c, copy), (void *[]){ x, y }, NULL);
  for (int i = 0; i < 16; i++) {
    float t = x[i % 4 * 4 + i / 4];
    CU_ASSERT_EQUAL(y[i], i < 8 && t < 7 ? 7 : t);
  }
}

/* Sides that share subexpressions through several selects: each is computed where it is needed, and only there. */
static void test_shared_sides(void) {
  const char *text =
    "kernel k(x: i64[3], out y: i64[8]) {\n"
    "  for i < 8 {\n"
    "    y{i} = select(i < 3, x{i} * x{i} + 1, 5) + select(i < 2, x{i} * x{i}, select(i < 4, i, 0 - i))\n"
    "  }\n"
    "}\n";
  int64_t x[3] = { 4, -2, 9 }, y[8];
  kernel_run(c, kernel_parse(c, text), (void *[]){ x, y }, NULL);
  for (int64_t i = 0; i < 8; i++) {
    int64_t square = i < 3 ? x[i] * x[i] : 0;
    CU_ASSERT_EQUAL(y[i], (i < 3 ? square + 1 : 5) + (i < 2 ? square : i < 4 ? i : -i));
  }
}

/* 60 selects, each using the one before on both sides: 2^60 if sharing were lost. */
static void test_deep_sharing(void) {
  Expr *eight = ex_int(c, 8), *e;
  Tensor *x = tensor_new(c, "x", DT_I64, 1, &eight), *y = tensor_new(c, "y", DT_I64, 1, &eight);
  Sym *i = sym_axis(c, SYM_AXIS, "i", eight);
  e = ex_fetch(c, x, i->self);
  int64_t values[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, got[8];
  for (int j = 0; j < 60; j++) {
    Expr *odd = ex_eq(c, ex_mod(c, ex_fetch(c, x, ex_int(c, j % 8)), ex_int(c, 2)), ex_int(c, 1));
    e = ex_add(c, ex_select(c, odd, ex_add(c, ex_mul(c, e, e), ex_int(c, j)), ex_sub(c, ex_int(c, 1), e)), ex_int(c,
                                                                                                                  1));
  }
  Kernel k = { .name = "k", .params = (Tensor *[]){ x, y }, .nparams = 2, .writes = (bool[]){ false, true } };
  k.body = st_for(c, LOOP_SERIAL, i, eight, st_store(c, y, i->self, e, -1));
  kernel_verify(c, &k);
  kernel_run(c, &k, (void *[]){ values, got }, NULL);
  for (int n = 0; n < 8; n++) {
    uint64_t v = (uint64_t)values[n];
    for (int j = 0; j < 60; j++) v = (values[j % 8] % 2 == 1 ? v * v + (uint64_t)j : 1 - v) + 1;
    CU_ASSERT_EQUAL((uint64_t)got[n], v);
  }
}

static void test_bounds(void) {
  float x[4] = { 0 }, y[4];
  const char *read = "kernel k(x: f32[4], out y: f32[4]) { for i < 4 { y{i} = x{i + 1} } }";
  const char *write = "kernel k(x: f32[4], out y: f32[4]) { for i < 4 { y{i - 1} = x{i} } }";
  CU_ASSERT(FAILS(E0900, "index 4 of 'x' is outside its 4 elements",
                  kernel_run(c, kernel_parse(c, read), (void *[]){ x, y }, NULL)));
  CU_ASSERT(FAILS(E0900, "index -1 of 'y' is outside its 4 elements",
                  kernel_run(c, kernel_parse(c, write), (void *[]){ x, y }, NULL)));
}

static void test_types(void) {
  const char *text =
    "kernel k(x: f16[4], b: bool[4], out y: u8[4], out z: bf16[4]) {\n"
    "  for i < 4 {\n"
    "    y{i} = u8(x{i})\n"
    "    z{i} = select(b{i}, bf16(f32(x{i}) * f32(0.5)), bf16(1))\n"
    "  }\n"
    "}\n";
  uint16_t x[4], z[4];
  uint8_t b[4] = { 1, 0, 1, 0 }, y[4];
  const double values[4] = { 3.5, -2, 300, 7 };
  for (int i = 0; i < 4; i++) dtype_store_f(DT_F16, &x[i], values[i]);
  kernel_run(c, kernel_parse(c, text), (void *[]){ x, b, y, z }, NULL);
  CU_ASSERT(y[0] == 3 && y[1] == 0 && y[2] == 255 && y[3] == 7);
  for (int i = 0; i < 4; i++) CU_ASSERT_EQUAL(dtype_load_f(DT_BF16, &z[i]), b[i] ? values[i] / 2 : 1);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite suite = CU_add_suite_with_setup_and_teardown("tensor ir", NULL, NULL, begin, end);
  CU_add_test(suite, "text there and back", test_text);
  CU_add_test(suite, "text is free of history", test_canonical);
  CU_add_test(suite, "text with mistakes", test_text_errors);
  CU_add_test(suite, "verifier", test_verifier);
  CU_add_test(suite, "tiled matrix product", test_matmul);
  CU_add_test(suite, "scratch, max=, else", test_copy);
  CU_add_test(suite, "shared sides of selects", test_shared_sides);
  CU_add_test(suite, "sharing through 60 selects", test_deep_sharing);
  CU_add_test(suite, "indices out of bounds", test_bounds);
  CU_add_test(suite, "element types", test_types);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0;
}
