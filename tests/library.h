/* library.h - for tests: a graph through the pipeline to a library that runs here. */
#ifndef DLC_TESTS_LIBRARY_H
#define DLC_TESTS_LIBRARY_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../frontend/cli/runner.h"
#include "../frontend/output.h"
#include "../passes/passes.h"

/* What compiles g for a CPU (a row of targets.def); path is where the library goes. */
static inline Module *test_module(Ctx *c, Graph *g, const char *cpu, const char *path) {
  Options *o = NEW(c, Options);
  Module *m = NEW(c, Module);
  *o = (Options){ .model = "model.onnx", .output = path, .name = "model", .cpu = cpu, .jobs = 1, .emit = "so" };
  *m = (Module){ .c = c, .opt = o, .target = target_find(c, cpu), .schedule = sched_rules_choose, .host = &codegen_host,
                 .notes = str_new(c), .graph = g };
  return m;
}

/* pipeline_run with nothing but text between the passes: what each leaves is printed and read back, and prints the same again. */
static inline Module *test_run_by_texts(Module *m) {
  Options *o = (Options *)m->opt;
  for (int i = 0; (o->stop_after = pipeline_pass(i)); i++) {
    pipeline_run(m);
    const char *text = module_text(m);
    Module *again = ctx_copy(m->c, &(Module){ .c = m->c, .opt = o, .target = m->target, .schedule = m->schedule,
                                              .host = m->host, .notes = str_new(m->c) }, sizeof *m);
    module_parse(again, text, NULL, NULL);
    if (strcmp(module_text(again), text) != 0) {
      printf("---- behind %s\n%s---- read back\n%s", o->stop_after, text, module_text(again));
      diag_bug(m->c, "the text behind %s is another one when read back", o->stop_after);
    }
    m = again;
  }
  return m;
}

/* After pipeline_run: the constants as the library has them, for free(). */
static inline char *test_weights(Module *m) {
  char *p = malloc((size_t)m->weight_bytes + 64);
  uint64_t digest;
  FILE *file = tmpfile();
  bool ok = p && file && weights_write(m, fileno(file), 0, &digest) && pread(fileno(file), p, (size_t)m->weight_bytes, 0) >= 0;
  if (!ok) diag_bug(m->c, "the constants cannot be written");
  fclose(file);
  return p;
}

/* After pipeline_run: the library, written and loaded. A header stands beside it. */
static inline Runner *test_library(Module *m, int threads) {
  Ctx *c = m->c;
  CompileReport *report = NEW(c, CompileReport);
  ObjectList objects = { 0 };
  Outputs out = output_open(c, m->opt);
  emit_kernels(m, &objects);
  entry_emit(m, &(EntryInfo){ m->opt->name, output_info(m, "") }, &objects);
  output_write(m, &out, &objects, "");
  output_commit(m, &out, report);
  return runner_library(c, m->opt->output, threads);
}

#endif
