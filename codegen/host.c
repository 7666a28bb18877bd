/* host.c - computes run natively on this machine while compiling: what is too large for the interpreter. The same stages, rules and emission
 * as for the model itself, for the host's CPU whatever the target is. */
#include <stdlib.h>

#include "codegen.h"
#include "program.h"
#include "../passes/passes.h"

static void *scratch_block(Module *m, int64_t bytes) {
  void *p = aligned_alloc(64, (size_t)round_up(bytes + 64, 64));
  if (!p) diag_fail(m->c, E0601, NULL, NULL, "no memory for %lld bytes", (long long)bytes);
  ctx_defer(m->c, free, p);
  return p;
}

/* Where a kernel finds a tensor: a stage's result, or a constant stored as the kernel wants it. */
static void *param(Module *m, const Tensor *t, Stage *const *stages, void *const *out, int n) {
  for (int i = 0; i < n; i++)
    if (stages[i]->out == t) return out[i];
  if (!t->data) diag_bug(m->c, "%s has no value while compiling", t->name);
  if (!t->layout && !t->data->splat) return (void *)t->data->bytes;
  int64_t elements = 0;
  ex_is_int(layout_elements(m->c, t), &elements);
  void *p = scratch_block(m, elements * dtype_bytes(t->dtype));
  weights_store(m, t, p);
  return p;
}

bool host_compute(Module *m, Stage *const *stages, int n, void *const *out) {
  Module h = {.c = m->c, .opt = m->opt, .target = target_find(m->c, "host"), .schedule = m->schedule, .notes = str_new(m->c), .graph = m->graph};
  for (int i = 0; i < n; i++) {
    Group g = {.source = "folded"};
    vec_push(m->c, &g.stages, stages[i]);
    Kernel *k = h.schedule(&h, &g, "dlc_fold");
    if (k->dims.n) return false;
    void **params = NEW_ARRAY(m->c, void *, k->nparams + 1);
    for (int j = 0; j < k->nparams; j++) params[j] = param(&h, k->params[j], stages, out, n);
    const Stmt *loop = program_parallel_loop(k);
    int64_t total = 1;
    if (loop && !ex_is_int(loop->extent, &total)) return false;
    Native *native = native_load(&h, k);
    native_run(native, params, NULL, 0, total, scratch_block(&h, k->scratch_bytes ? k->scratch_bytes->u.i : 0));
    native_free(native);
  }
  return true;
}
