/* t_pipeline.c - the pipeline: dumps that are valid input again, passes named on the command line, passes run on texts. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <stdlib.h>
#include <unistd.h>

#include "../codegen/codegen.h"
#include "../passes/module.h"

static Ctx *c;
static char folder[64];

static void begin(void) {
  c = ctx_new();
  strcpy(folder, "/tmp/dlc-pipeline-XXXXXX");
  if (!mkdtemp(folder)) CU_FAIL("no temporary folder");
}

static void end(void) {
  static const char *const files[] = { "00-import.ir", "01-simplify.ir", "02-stages.ir" };
  for (int i = 0; i < COUNT(files); i++) unlink(ctx_printf(c, "%s/%s", folder, files[i]));
  CU_ASSERT_EQUAL(rmdir(folder), 0);           /* nothing else was written */
  ctx_free(c);
}

static const char *const model =
  "graph g(%x: f32[N,2,4,4]; N) {\n"
  " %w: f32[2,2,1,1] = const {1,2,3,4}\n %s: f32[2] = const {1,2}\n %m: f32[2] = const {0,1}\n %v: f32[2] = const {1,1}\n"
  " %a = Conv(%x, %w)\n %b = BatchNormalization<epsilon=0.0>(%a, %s, %s, %m, %v)\n %y = Relu(%b)\n return %y\n}";

static void run(Options *o) {
  Module m = { .c = c, .opt = o, .graph = graph_parse(c, model) };
  int out = dup(1);
  CU_ASSERT_FATAL(freopen("/dev/null", "w", stdout) != NULL);
  pipeline_run(&m);
  fflush(stdout);
  dup2(out, 1);
  close(out);
}

static char *read_dump(const char *name) {
  static char text[10000];
  FILE *f = fopen(ctx_printf(c, "%s/%s", folder, name), "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  text[n] = 0;
  return text;
}

static void dumps_are_input_again(void) {
  Options o = { .dump_ir = folder, .stop_after = "simplify" };
  run(&o);
  static const char *const names[] = { "00-import.ir", "01-simplify.ir" };
  for (int i = 0; i < COUNT(names); i++) {
    const char *text = read_dump(names[i]);
    CU_ASSERT_STRING_EQUAL(graph_text(graph_parse(c, text)), text);
  }
  static const char *const simplified =
    "graph g(%x: f32[N,2,4,4]; N) {\n"
    "  %Mul.1.1: f32[2,2,1,1] = const {1,2,6,8}\n"
    "  %Sub.1.1: f32[2] = const {1,0}\n"
    "  %Conv.2: f32[N,2,4,4] = Conv(%x, %Mul.1.1, %Sub.1.1)\n"
    "  %y: f32[N,2,4,4] = Relu(%Conv.2)\n"
    "  return %y\n"
    "}\n";
  CU_ASSERT_STRING_EQUAL(read_dump("01-simplify.ir"), simplified);
  if (strcmp(read_dump("01-simplify.ir"), simplified)) printf("\n%s", read_dump("01-simplify.ir"));
}

static void only_the_passes_asked_for_are_dumped(void) {
  Options o = { .dump_ir = folder, .dump_passes = "stages", .stop_after = "stages" };
  run(&o);
  CU_ASSERT(strstr(read_dump("02-stages.ir"), "sum(") != NULL);
  CU_ASSERT_EQUAL(unlink(ctx_printf(c, "%s/01-simplify.ir", folder)), -1);
}

/* The text behind the pass, of a text behind an earlier one. */
static const char *behind(const char *pass, const char *cpu, const char *text) {
  Options *o = ctx_copy(c, &(Options){ .stop_after = pass }, sizeof *o);
  Module *m = ctx_copy(c, &(Module){ .c = c, .opt = o, .target = target_find(c, cpu), .notes = str_new(c) }, sizeof *m);
  module_parse(m, text, NULL, NULL);
  pipeline_run(m);
  return module_text(m);
}

/* Weights that are inputs, and groups narrower than a vector: blocks have more channels than the weights. */
static void a_copy_of_weights_ends_with_them(void) {
  const char *text = behind("pack", "x86-64-v4",
    "module g(x: f32[N,4,3,3,1], w: f32[8,1,L,K,K], out y: f32[N,8,6 - L,(1 - K)/3 + 2,-K/3 + 2]; N, L, K) after layout {\n"
    "  const b: f32[8] = {1,2,3,4,5,6,7,8}\n"
    "  group \"conv\" {\n"
    "    map: f32[N,8,6 - L,(1 - K)/3 + 2,-K/3 + 2] layout \"d0,d1/16,d2,d3,d4,d1%16\"[i0, i1, i2, i3, i4] = sum(r0<L, r1<K, r2<K, "
    "select(i2 + r0 < 4 & i4*3 + r2 < 1 & 1 <= i2 + r0 & 1 <= i3*3 + r1, "
    "x[i0, i1/2, i2 + r0 - 1, i3*3 + r1 - 1, i4*3 + r2], 0.0f)*w[i1, 0, r0, r1, r2]) + b[i1]\n"
    "  }\n"
    "  group \"copy\" {\n"
    "    y[i0, i1, i2, i3, i4] = map[i0, i1, i2, i3, i4]\n"
    "  }\n"
    "}\n");
  static const char *const want = " = select(i1 < 4, w[i1*2 + i1.1, 0, r0, r1, r2], 0.0f)\n";
  CU_ASSERT(strstr(text, want) != NULL);
  if (!strstr(text, want)) printf("\n%s", text);
}

/* Maps stacked, weighted and summed over the stack (selective kernels): nobody stacks them. */
static void a_sum_over_a_stack_reads_its_parts(void) {
  const char *text = behind("fuse", "x86-64-v3",
    "module g(a: f32[N,4], b: f32[N,4], w: f32[2], out y: f32[N,4]; N) after stages {\n"
    "  group \"stack\" {\n"
    "    both: f32[N,2,4][i0, i1, i2] = select(i1 < 1, a[i0, i2], b[i0, i2])\n"
    "  }\n"
    "  group \"weigh\" {\n"
    "    weighed: f32[N,2,4][i0, i1, i2] = both[i0, i1, i2]*w[i1]\n"
    "  }\n"
    "  group \"sum\" {\n"
    "    y[i0, i1] = sum(r<2, weighed[i0, r, i1])\n"
    "  }\n"
    "}\n");
  CU_ASSERT(strstr(text, "select") == NULL && strstr(text, "sum(") == NULL && strstr(text, "w[0]") != NULL && strstr(text, "w[1]") != NULL);
  if (strstr(text, "select")) printf("\n%s", text);
}

static void texts_that_no_pass_leaves(void) {
  static const struct { const char *text, *message; } bad[] = {
    { "module g(out y: f32[4]) after fusion {\n}\n", "1:31: there is no pass 'fusion'" },
    { "module g(out y: f32[4]) after fuse {\n  group \"\" {\n    y[i] = z[i]\n  }\n}\n", "unknown tensor 'z'" },
    { "module g(x: f32[4], out y: f32[4]) after fuse {\n  group \"\" {\n    x[i] = y[i]\n  }\n}\n", "a stage writes 'x'" },
    { "module g(x: f32[4], out y: f32[4]) after fuse {\n  group \"\" {\n    y[i, j] = x[i]\n  }\n}\n", "expected ']'" },
    { "module g(x: f32[4], out y: f32[4]) after lower {\n  group \"\" {\n    y[i] = x[i]\n  }\n}\n", "another form" },
    { "module g(x: f32[4], out y: f32[4]) after lower {\n  program {\n    call k(x, y)\n  }\n}\n", "no such kernel" },
    { "data \"x.data\"\nmodule g(out y: f32[4]) after fuse {\n}\n", "data files" },
  };
  Diags *d = ctx_diags(c);
  for (int i = 0; i < COUNT(bad); i++) {
    d->list.n = 0;
    if (!setjmp(d->unwind)) {
      d->armed = true;
      behind("layout", "x86-64-v3", bad[i].text);
    }
    bool as_said = d->list.n == 1 && d->list.v[0].code == E0309 && strstr(d->list.v[0].text, bad[i].message);
    CU_ASSERT(as_said);
    if (!as_said) printf("\n%s: %s\n", bad[i].message, d->list.n ? d->list.v[0].text : "accepted");
  }
}

static void an_unknown_pass_is_an_error(void) {
  Options o = { .stop_after = "simplifi" };
  Module m = { .c = c, .opt = &o, .graph = graph_parse(c, model) };
  Diags *d = ctx_diags(c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    pipeline_run(&m);
    CU_FAIL("accepted");
  }
  CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0202);
  CU_ASSERT(d->list.n == 1 && strstr(d->list.v[0].hint, "simplify, stages"));
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite_with_setup_and_teardown("pipeline", NULL, NULL, begin, end);
  CU_add_test(s, "dumps are input again", dumps_are_input_again);
  CU_add_test(s, "only the passes asked for are dumped", only_the_passes_asked_for_are_dumped);
  CU_add_test(s, "an unknown pass is an error", an_unknown_pass_is_an_error);
  CU_add_test(s, "a copy of weights ends with them", a_copy_of_weights_ends_with_them);
  CU_add_test(s, "a sum over a stack reads its parts", a_sum_over_a_stack_reads_its_parts);
  CU_add_test(s, "texts that no pass leaves", texts_that_no_pass_leaves);
  CU_basic_run_tests();
  int failures = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures != 0;
}
