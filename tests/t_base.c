/* t_base.c - the bottom: arena, strings, maps, text, element types, diagnostics. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>

#include "../ir/diag.h"
#include "../ir/dtype.h"
#include "../ir/op.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

/* ---- arena, vectors, strings, maps ---- */
static void test_arena(void) {
  for (int i = 0; i < 5000; i++) {
    size_t size = (size_t)(i * 37 % 3000);
    unsigned char *p = ctx_alloc(c, size);
    unsigned char any = 0;
    for (size_t j = 0; j < size; j++) any |= p[j];
    CU_ASSERT_FATAL(!any && (uintptr_t)p % 16 == 0);
    memset(p, 0xa5, size);         /* spills over into a neighbour would be seen as dirt */
  }
  char *large = ctx_alloc(c, 100 << 20);
  large[(100 << 20) - 1] = 1;
  char *small = ctx_alloc(c, 8);
  CU_ASSERT(small[0] == 0);
}

static int closed[3], nclosed;
static void close_one(void *p) { closed[nclosed++] = *(int *)p; }

static void test_closers(void) {
  static int objects[3] = {1, 2, 3};
  Ctx *own = ctx_new();
  for (int i = 0; i < 3; i++) ctx_defer(own, close_one, &objects[i]);
  ctx_free(own);
  CU_ASSERT(nclosed == 3 && closed[0] == 3 && closed[1] == 2 && closed[2] == 1);
}

static void test_out_of_memory(void) {
  Diags *d = ctx_diags(c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    ctx_alloc(c, SIZE_MAX - 64);
    CU_FAIL("so much memory was given");
  }
  CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0601 && diag_exit_status(c) == 6);
}

static void test_strings(void) {
  const char *a = ctx_intern(c, "alpha");
  char copy[] = "alphabet";
  CU_ASSERT(ctx_intern_n(c, copy, 5) == a && ctx_intern(c, "alphabet") != a);
  CU_ASSERT_STRING_EQUAL(ctx_printf(c, "%s-%d", "x", 42), "x-42");
  const char *seen[2000];
  for (int i = 0; i < 2000; i++) seen[i] = ctx_intern(c, ctx_printf(c, "s%d", i));
  int same = 0;
  for (int i = 0; i < 2000; i++) same += seen[i] == ctx_intern(c, ctx_printf(c, "s%d", i));
  CU_ASSERT(same == 2000);
  Str s = str_new(c);
  for (int i = 0; i < 1000; i++) str_add(&s, "%d,", i % 10);
  CU_ASSERT(s.n == 2000 && strlen(s.s) == 2000 && s.s[1998] == '9');
}

static void test_map(void) {
  Map m = map_new(c);
  static int value[3000];
  for (int i = 0; i < 3000; i++) map_set(&m, (uint64_t)(i * 7919 % 3001), &value[i]);
  CU_ASSERT(m.entries.n == 3000 && m.entries.v[5].key == 5 * 7919 % 3001);         /* in the order of insertion */
  int right = 0;
  for (int i = 0; i < 3000; i++) right += map_get(&m, (uint64_t)(i * 7919 % 3001)) == &value[i];
  CU_ASSERT(right == 3000 && !map_get(&m, 5000) && !map_get(&(Map){.ctx = c}, 0));
  map_set(&m, 0, &value[7]);
  CU_ASSERT(m.entries.n == 3000 && map_get(&m, 0) == &value[7]);
}

/* ---- element types ---- */
static double through(DType t, double v) {
  char place[8] = {0};
  dtype_store_f(t, place, v);
  return dtype_load_f(t, place);
}

static void test_dtypes(void) {
  CU_ASSERT(dtype_from_name("bf16") == DT_BF16 && dtype_from_onnx(11) == DT_F64 && dtype_from_onnx(99) == DT_NONE &&
            dtype_from_name("f8") == DT_NONE);
  static const struct { DType t; double in, out; } cases[] = {
    {DT_F16, 65519.99, 65504}, {DT_F16, 65520, INFINITY}, {DT_F16, 0x1p-25, 0}, {DT_F16, 0x1.8p-25, 0x1p-24},
    {DT_F16, 2049, 2048}, {DT_F16, 2051, 2052},
    {DT_F16, -0x1.ff8p-15, -0x1.ff8p-15}, {DT_F16, 0x1.fffp-15, 0x1p-14}, {DT_F16, 1 + 0x1p-11, 1},
    {DT_F16, 1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-10},
    {DT_BF16, 257, 256}, {DT_BF16, 259, 260}, {DT_BF16, 0x1.ffp127, INFINITY}, {DT_BF16, 0x1p-133, 0x1p-133},
    {DT_BF16, -INFINITY, -INFINITY},
    {DT_F32, 0.1, 0.1f}, {DT_I8, 300, 127}, {DT_I8, -1e30, -128}, {DT_U8, -3, 0}, {DT_U8, 1.9, 1}, {DT_I32, NAN, 0},
    {DT_I64, 1e300, 0x1p63},
    {DT_U64, 1e300, 0x1p64}, {DT_U32, 5e9, 4294967295.0}, {DT_BOOL, 0.25, 1},
  };
  for (int i = 0; i < COUNT(cases); i++) {
    double got = through(cases[i].t, cases[i].in);
    if (got != cases[i].out)
      printf("\n  %s of %.17g is %.17g, not %.17g", dtype_info[cases[i].t].name, cases[i].in, got, cases[i].out);
    CU_ASSERT(got == cases[i].out);
  }
  CU_ASSERT(isnan(through(DT_F16, NAN)) && isnan(through(DT_BF16, NAN)) && signbit(through(DT_F16, -0.0)));
  int wrong = 0;
  for (int h = 0; h < 65536; h++) {          /* every half comes back as it was */
    uint16_t in = (uint16_t)h, out = 0;
    for (int bf = 0; bf < 2; bf++) {
      DType t = bf ? DT_BF16 : DT_F16;
      double v = dtype_load_f(t, &in);
      dtype_store_f(t, &out, v);
      wrong += !isnan(v) && in != out;
    }
  }
  CU_ASSERT(wrong == 0);
  uint64_t big = UINT64_MAX;
  CU_ASSERT(dtype_load_f(DT_U64, &big) == 0x1p64 && dtype_load_i(DT_U64, &big) == -1);
}

static void test_integers(void) {
  CU_ASSERT(floor_div(-7, 2) == -4 && floor_mod(-7, 2) == 1 && floor_div(7, -2) == -4 && floor_mod(7, -2) == -1 &&
            round_up(17, 16) == 32);
  int64_t v;
  CU_ASSERT(!mul_ok(INT64_MAX, 2, &v) && !add_ok(INT64_MAX, 1, &v) && mul_ok(1 << 20, 1 << 20, &v));
}

/* ---- diagnostics ---- */
static const char *printed(void) {
  static char text[2000];
  memset(text, 0, sizeof text);
  FILE *f = fmemopen(text, sizeof text - 1, "w");
  diag_print(c, f);
  fclose(f);
  return text;
}

static void test_messages(void) {
  Op op = {.name = "MatMul", .domain = "", .opset = 13}, custom = {.name = "Foo", .domain = "com.acme", .opset = 1};
  Node n = {.op = &op, .name = "proj\x1b", .index = 17}, m = {.op = &custom, .name = "", .index = -1};
  Diags *d = ctx_diags(c);
  d->file = "m.onnx";
  diag_check(c);                   /* nothing recorded: goes on */
  diag_error(c, E0411, &n, "look at the shapes", "inner dimensions %d and %d differ", 4, 5);
  diag_error(c, E0401, &m, NULL, "not supported");
  CU_ASSERT_STRING_EQUAL(printed(),
    "dlc: m.onnx: error[E0411]: node 17 'proj\\x1b' (MatMul-13): inner dimensions 4 and 5 differ\n"
    "  hint: look at the shapes\n"
    "dlc: m.onnx: error[E0401]: node (com.acme.Foo-1): not supported\n");
  CU_ASSERT(diag_exit_status(c) == 3);
  CU_ASSERT_STRING_EQUAL(diag_code_name(E0900), "E0900");
  bool unwound = setjmp(d->unwind);
  if (!unwound) {
    d->armed = true;
    diag_check(c);
  }
  CU_ASSERT(unwound && d->list.n == 2);
}

static void test_bug(void) {
  Diags *d = ctx_diags(c);
  Node n = {.name = "c7", .index = 31};
  d->pass = "layout";
  d->node = &n;
  if (!setjmp(d->unwind)) {
    d->armed = true;
    diag_bug(c, "cycle at %d", 3);
  }
  CU_ASSERT_STRING_EQUAL(printed(),
    "dlc: internal error[E0900] in pass layout at node 31 'c7' (please report): cycle at 3\n");
  CU_ASSERT(diag_exit_status(c) == 8);
}

static void test_quote(void) {
  CU_ASSERT_STRING_EQUAL(diag_quote(c, "a\nb\xff\xc3\xa9\xc2\x85"), "a\\x0ab\\xff\xc3\xa9\\xc2\\x85");
  char deep[1000];
  memset(deep, 'a', 999);
  deep[999] = 0;
  CU_ASSERT(strlen(diag_quote(c, deep)) < 210);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite suite = CU_add_suite_with_setup_and_teardown("base", NULL, NULL, begin, end);
  CU_add_test(suite, "arena", test_arena);
  CU_add_test(suite, "closers, last first", test_closers);
  CU_add_test(suite, "out of memory", test_out_of_memory);
  CU_add_test(suite, "strings", test_strings);
  CU_add_test(suite, "map", test_map);
  CU_add_test(suite, "element types", test_dtypes);
  CU_add_test(suite, "integers", test_integers);
  CU_add_test(suite, "messages", test_messages);
  CU_add_test(suite, "internal errors", test_bug);
  CU_add_test(suite, "quoting", test_quote);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0;
}
