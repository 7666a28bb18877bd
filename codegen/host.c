/* host.c - computes run natively on this machine while compiling. The same rules and emission as for the model itself, for the host's CPU
 * whatever the target is. */
#include "codegen.h"
#include "program.h"

static HostKernel load(Module *m, const Stage *st) {
  Module h = {.c = m->c, .opt = m->opt, .target = target_find(m->c, "host"), .schedule = m->schedule, .notes = str_new(m->c), .graph = m->graph};
  Group *g = NEW(m->c, Group);
  g->source = "folded";
  vec_push(m->c, &g->stages, ctx_copy(m->c, st, sizeof *st));   /* rules may change what they schedule */
  Kernel *k = h.schedule(&h, g, "dlc_fold");
  const Stmt *loop = program_parallel_loop(k);
  return (HostKernel){k, loop ? loop->extent : NULL, native_load(&h, k)};
}

static void run(const HostKernel *k, void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch) {
  native_run(k->code, params, dims, lo, hi, scratch);
}

static void unload(HostKernel *k) { native_free(k->code); }

const Host codegen_host = {load, run, unload};
