/* t_tile.c - register tiles: what the model of a core chooses fits the registers, is in order of cost and is what was measured to be best; sums
 * that did not stay in registers are found. */
#include <CUnit/Basic.h>

#include "../codegen/codegen.h"
#include "../codegen/tile.h"
#include "../ir/ctx.h"

static Tile tile(const char *cpu_name, int64_t rows, int64_t k, int64_t columns, bool constant) {
  Ctx *c = ctx_new();
  const Target *t = target_find(c, cpu_name);
  int lanes = target_lanes(t, 32);
  TileProblem p = {.target = t, .lanes = lanes, .rows = {rows, 1}, .stride = {4 * k, 0}, .others = 1, .k = k, .constant = constant,
                   .vectors = (columns + lanes - 1) / lanes, .panel_cost = {0, 1, 1, 1, 1, 1, 1}};
  Tile best[3];
  int n = tile_choose(&p, best, 3);
  CU_ASSERT(n > 0);
  for (int i = 0; i < n; i++) {
    CU_ASSERT(best[i].r1 * best[i].r2 * best[i].v + best[i].v + 1 < t->vector_regs);
    CU_ASSERT(!i || best[i].cost >= best[i - 1].cost * 0.999);
  }
  ctx_free(c);
  return best[0];
}

static void test_tiles(void) {
  static const char *const cpus[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
  for (int i = 0; i < COUNT(cpus); i++) {
    const char *cpu = cpus[i];
    for (int64_t rows = -1; rows < 200; rows += rows < 30 ? 1 : 31) tile(cpu, rows ? rows : 1, 64 + 7 * rows, 16 + rows, rows & 1);
    CU_ASSERT(tile(cpu, 1, 512, 512, true).r1 == 1);
    CU_ASSERT(tile(cpu, 1, 4096, 4096, true).v > 2);           /* sums enough to hide the latency of additions */
  }
  CU_ASSERT(tile("x86-64-v4", 128, 1024, 1024, false).r1 <= 10);             /* rows a multiple of 4 KiB apart share a set of the cache */
  Tile few = tile("x86-64-v4", 16, 512, 512, true), narrow = tile("x86-64-v4", 196, 256, 16, true);
  CU_ASSERT(few.r1 == 8 && few.v == 2 && few.ahead);
  CU_ASSERT(narrow.v == 1 && narrow.r1 > 12);
}

/* In a loop, n sums of products of vectors: what registers do not hold goes to the stack. */
static double share_of_sums(int n) {
  Ctx *c = ctx_new();
  Options options = {0};
  Module m = {.c = c, .opt = &options, .target = target_find(c, "x86-64-v4")};
  ObjectList out = {0};
  Str s = str_new(c), loop = str_new(c), end = str_new(c);
  str_add(&s, "define void @f(ptr %%p, i64 %%n) \"target-cpu\"=\"x86-64-v4\" \"prefer-vector-width\"=\"512\" {\nentry:\n  br label %%loop\nloop:\n"
              "  %%i = phi i64 [ 0, %%entry ], [ %%j, %%loop ]\n");
  for (int i = 0; i < n; i++) {
    str_add(&s, "  %%s%d = phi <16 x float> [ zeroinitializer, %%entry ], [ %%t%d, %%loop ]\n", i, i);
    str_add(&loop, "  %%a%d = getelementptr [64 x <16 x float>], ptr %%p, i64 %%i, i64 %d\n  %%v%d = load <16 x float>, ptr %%a%d\n"
                   "  %%t%d = call <16 x float> @llvm.fma.v16f32(<16 x float> %%v%d, <16 x float> %%v0, <16 x float> %%s%d)\n", i, i, i, i, i, i, i);
    str_add(&end, "  store <16 x float> %%t%d, ptr %%a%d\n", i, i);
  }
  str_add(&s, "%s  %%j = add i64 %%i, 1\n  %%more = icmp ult i64 %%j, %%n\n  br i1 %%more, label %%loop, label %%end\nend:\n%s  ret void\n}\n"
              "declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)\n", loop.s, end.s);
  emit_ir_text(&m, "sums", s.s, &out);
  double share = stack_share(c, m.target, out.v[0].bytes, out.v[0].size);
  ctx_free(c);
  return share;
}

static void test_stack(void) {
  CU_ASSERT(share_of_sums(24) == 0);
  double share = share_of_sums(40);
  CU_ASSERT(share > 0.1 && share < 0.7);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("tile", NULL, NULL);
  CU_add_test(s, "tiles", test_tiles);
  CU_add_test(s, "sums on the stack", test_stack);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed > 0;
}
