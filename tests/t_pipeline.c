/* t_pipeline.c - the pipeline: dumps that are valid input again, passes named on the command line, the text of each stage. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <stdlib.h>
#include <unistd.h>

#include "../ir/blob.h"
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
  CU_basic_run_tests();
  int failures = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures != 0;
}
