/* t_work.c - what kernels are counted to do, against counts by hand; and the JSON that carries such counts, read back. */
#include <CUnit/Basic.h>
#include <math.h>
#include <stdlib.h>

#include "../codegen/work.h"
#include "../frontend/json.h"

typedef struct { const char *dim; int64_t value; } Dim;
static Dim dims[4];

static Scalar dim_value(ExprEnv *env, const Sym *s) {
  for (int i = 0; i < COUNT(dims) && dims[i].dim; i++)
    if (!strcmp(s->name, dims[i].dim)) return (Scalar){.i = dims[i].value};
  CU_FAIL("an unknown symbol");
  return (Scalar){.i = 0};
}

static double value(const Expr *e) {
  ExprEnv env = {dim_value, NULL};
  return e ? (double)expr_eval(&env, e).i : NAN;
}

static void expect(const char *what, const char *name, double got, double want) {
  if (!(got == want || (isnan(got) && isnan(want)))) printf("\n  %s: %s is %.0f, not %.0f", what, name, got, want);
  CU_ASSERT(got == want || (isnan(got) && isnan(want)));
}

static Work check(const char *what, const char *text, double flops, double muls, double reads, double writes, double weights) {
  static Ctx *c;
  if (c) ctx_free(c);
  c = ctx_new();
  Kernel *k = kernel_parse(c, text);
  for (int i = 0; i < k->nparams; i++)
    if (k->params[i]->name[0] == 'w') k->params[i]->data = NEW(c, ConstData);          /* a constant */
  Work w = kernel_work(c, k);
  expect(what, "flops", value(w.flops), flops);
  expect(what, "muls", value(w.muls), muls);
  expect(what, "reads", value(w.reads), reads);
  expect(what, "writes", value(w.writes), writes);
  expect(what, "weights", value(w.weights), weights);
  return w;
}

static void test_contraction(void) {
  Work w = check("matrix product in a register tile",
                 "kernel k(x: f32[6,20], w: f32[20,32], wb: f32[32], out y: f32[6,32]) {\n"
                 "  parallel i < 3 { alloc reg acc: f32[64] {\n"
                 "    unroll c < 4 { vector l:16 < 16 { acc{c*16 + l} = 0.0f } }\n"
                 "    for k < 20 { unroll r < 2 { unroll j < 2 { vector v:16 < 16 {\n"
                 "      acc{r*32 + j*16 + v} sum= x{i*40 + r*20 + k}*w{k*32 + j*16 + v} } } } }\n"
                 "    unroll s < 2 { unroll t < 2 { vector u:16 < 16 {\n"
                 "      y{i*64 + s*32 + t*16 + u} = max(acc{s*32 + t*16 + u} + wb{t*16 + u}, 0.0f) } } }\n"
                 "  } }\n}",
                 2 * 6 * 20 * 32 + 2 * 6 * 32, 6 * 20 * 32, 4 * (6 * 20 + 20 * 32 + 32), 4 * 6 * 32, 4 * (20 * 32 + 32));
  CU_ASSERT_EQUAL(w.type, DT_F32);
  w = check("the last rows are fewer",
            "kernel k(x: f64[7,5], out y: f64[7]) {\n"
            "  parallel i < 4 { if (i < 3) { for r < 2 { for k < 5 { y{i*2 + r} sum= x{i*10 + r*5 + k} } } }\n"
            "                   else { for k.1 < 5 { y{i*2} sum= x{i*10 + k.1} } } }\n}",
            7 * 5, 0, 8 * (35 + 7), 8 * 7, 0);
  CU_ASSERT_EQUAL(w.type, DT_F64);
  check("a triangle", "kernel k(x: f32[8], out y: f32[8]) { for i < 8 { for j < i { y{i} sum= x{j} } } }", 28, 0, 4 * (7 + 7), 4 * 7, 0);
}

static void test_sharing(void) {
  check("what a loop does not change stands outside of it",
        "kernel k(x: f32[8], out y: f32[8,4]) { for i < 8 { for j < 4 { y{i*4 + j} = x{i}*2.0f + 1.0f } } }", 2 * 8, 8, 4 * 8, 4 * 32, 0);
  check("a serial loop repeats what is inside",
        "kernel k(x: f32[4], out y: f32[8,4]) { for i < 8 { for j < 4 { y{i*4 + j} = x{j}*2.0f } } }", 8 * 4, 8 * 4, 4 * 4, 4 * 32, 0);
  check("copies and lanes share it",
        "kernel k(x: f32[4,16], out y: f32[4,3,16]) { for i < 4 { unroll j < 3 { vector v:16 < 16 {\n"
        "  y{i*48 + j*16 + v} = x{i*16 + v}*3.0f } } } }",
        4 * 16, 4 * 16, 4 * 64, 4 * 192, 0);
  check("sides of a choice by an unrolled loop count once",
        "kernel k(x: f32[4,32], out y: f32[4,2,16]) { parallel i < 4 { unroll a < 2 { vector v:16 < 16 { y{i*32 + a*16 + v} =\n"
        "  select(a == 0, x{i*32 + v} + x{i*32 + 16 + v}, x{i*32 + v} - x{i*32 + 16 + v}) } } } }",
        4 * 16 * 2, 0, 4 * 128, 4 * 128, 0);
  check("copies share loads of what a loop before has written",
        "kernel k(x: f32[4], out y: f32[4,3]) { alloc reg a: f32[4] { unroll i < 4 { a{i} = x{i}*2.0f }\n"
        "  unroll j < 4 { unroll l < 3 { y{j*3 + l} = select(l == 0, a{j} + 1.0f, select(l == 1, a{j} - 3.0f, a{j})) } } } }", 4 + 8, 4, 4 * 4, 4 * 12, 0);
  check("what the kernel writes is read anew",
        "kernel k(x: f32[4], out y: f32[1]) { for i < 4 { y{0} = y{0}*x{i} } }", 4, 4, 4 * (4 + 1), 4, 0);
}

static void test_operations(void) {
  check("fma is two", "kernel k(x: f32[4], out y: f32[4]) { for i < 4 { y{i} = fma(x{i}, x{i}, 1.0f) } }", 8, 4, 16, 16, 0);
  check("integers are none", "kernel k(x: i32[4], out y: i32[4]) { for i < 4 { y{i} = x{i}*x{i} + i32(3) } }", 0, 0, 16, 16, 0);
  Work w = check("the kernel is one of integers", "kernel k(x: i8[4], out y: i8[4]) { for i < 4 { y{i} = x{i} } }", 0, 0, 4, 4, 0);
  CU_ASSERT_EQUAL(w.type, DT_NONE);
  Ctx *c = ctx_new();
  Work e = kernel_work(c, kernel_parse(c, "kernel k(x: f32[4], out y: f32[4]) { for i < 4 { y{i} = exp(x{i}) } }"));
  CU_ASSERT(value(e.flops) >= 4 * 6);                        /* a polynomial of some degree */
  CU_ASSERT_EQUAL(value(e.muls), 0);
  ctx_free(c);
}

static void test_bytes(void) {
  check("a slice", "kernel k(x: f32[100], out y: f32[10]) { for i < 10 { y{i} = x{i*2 + 40} } }", 0, 0, 40, 40, 0);
  check("windows overlap: no more than there is", "kernel k(x: f32[10], out y: f32[8]) { for i < 8 { for r < 3 { y{i} sum= x{i + r} } } }", 24, 0,
        4 * (10 + 8), 4 * 8, 0);
  check("half floats", "kernel k(x: f16[6], out y: f16[6]) { for i < 6 { y{i} = x{i} } }", 0, 0, 12, 12, 0);
}

static void test_symbols(void) {
  const char *text = "kernel k(x: f32[N,M], out y: f32[N]; N=1..100, M) { parallel i < N { for j < M { y{i} sum= x{i*M + j} } } }";
  dims[0] = (Dim){"N", 7}, dims[1] = (Dim){"M", 9};
  check("N rows", text, 63, 0, 4 * (63 + 7), 4 * 7, 0);
  dims[0].value = 100;
  check("more rows", text, 900, 0, 4 * (900 + 100), 4 * 100, 0);
  text = "kernel k(x: f32[N], out y: f32[N]; N) { if (16 <= N) { for i < N { y{i} = x{i} + 1.0f } } else { for j < N { y{j} = x{j}*2.0f + 1.0f } } }";
  dims[0].value = 20;
  check("one branch", text, 20, 0, 80, 80, 0);
  dims[0].value = 10;
  check("the other", text, 20, 10, 40, 40, 0);
  text = "kernel k(x: f32[N], out y: f32[N]; N) { for i < N/4 { unroll j < 4 { y{i*4 + j} = x{i*4 + j} + 1.0f } }\n"
         "  for p < N/2%2 { unroll l < 2 { y{N/4*4 + l} = x{N/4*4 + l} + 1.0f } } for q < N%2 { y{N - 1} = x{N - 1} + 1.0f } }";
  for (int n = 8; n < 16; n++) {
    dims[0].value = n;
    check("tiles of falling size", text, n, 0, 4 * n, 4 * n, 0);
  }
  dims[0].value = 3;
  check("both branches read the same constants",
        "kernel k(x: f32[N], w: f32[4], out y: f32[N,4]; N) { if (N == 1) { for j < 4 { y{j} = x{0}*w{j} } }\n"
        "  else { for i < N { for k < 4 { y{i*4 + k} = x{i}*w{k} } } } }", 12, 12, 4 * (3 + 4), 4 * 12, 16);
  dims[0].value = 10;
  text = "kernel k(x: f32[N], n: i64[1], out y: f32[N]; N) { for i < N { for j < n{0} { y{i} sum= x{i}*x{j} } } }";
  check("the data decide", text, NAN, NAN, 4 * 20, 4 * 10, 0);
  dims[0] = dims[1] = (Dim){NULL, 0};
}

static void test_json(void) {
  Ctx *c = ctx_new();
  const JsonValue *v = json_read(c, " {\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\\\"\\ud800\"], \"b\": {\"c\": {}}, \"d\": []} ");
  CU_ASSERT_FATAL(v != NULL);
  const JsonValue *a = json_get(v, "a");
  CU_ASSERT_EQUAL(a->n, 5);
  CU_ASSERT_EQUAL(a->items[1].number, -2500);
  CU_ASSERT_EQUAL(a->items[2].kind, JSON_BOOL);
  CU_ASSERT_STRING_EQUAL(a->items[4].text, "x\n\u00e9\"\ufffd");
  CU_ASSERT_EQUAL(json_get(json_get(v, "b"), "c")->kind, JSON_OBJECT);
  CU_ASSERT_EQUAL(json_get(v, "absent")->kind, JSON_NULL);
  static const char *const wrong[] = {"", "{", "[1,]", "{\"a\":}", "{a:1}", "[1 2]", "\"\\q\"", "\"open", "nul", "[] []", "{\"a\":1", "\"\\u12\"", "-"};
  for (int i = 0; i < COUNT(wrong); i++) CU_ASSERT_PTR_NULL(json_read(c, wrong[i]));
  char deep[128];
  memset(deep, '[', sizeof deep);
  deep[sizeof deep - 1] = 0;
  CU_ASSERT_PTR_NULL(json_read(c, deep));
  ctx_free(c);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("work", NULL, NULL);
  CU_add_test(s, "contraction", test_contraction);
  CU_add_test(s, "sharing", test_sharing);
  CU_add_test(s, "operations", test_operations);
  CU_add_test(s, "bytes", test_bytes);
  CU_add_test(s, "symbols", test_symbols);
  CU_add_test(s, "json", test_json);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed > 0;
}
