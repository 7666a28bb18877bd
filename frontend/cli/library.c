/* library.c - runs a compiled library through its table (runtime/dlc.h). */
#include "../elf.h"
#include "runner.h"
#include "../../runtime/dlc.h"
#include <dlfcn.h>
#include <stdlib.h>

typedef struct {
  void *handle;
  const dlc_model *model;
  dlc_ctx *ctx;
} Library;

static void close_library(void *object) {
  Library *l = object;
  if (l->ctx) l->model->ctx_free(l->ctx);
  dlclose(l->handle);
}

static DType dtype_of(DLDataType t) {
  for (int i = 0; i < DT_COUNT; i++)
    if (dtype_info[i].dlpack == t.code && dtype_info[i].bits == t.bits) return (DType)i;
  return DT_NONE;
}

static Port *read_ports(Ctx *c, const dlc_io *io, int n) {
  Port *ports = NEW_ARRAY(c, Port, n);
  for (int i = 0; i < n; i++) {
    ports[i] = (Port){.name = io[i].name, .dtype = dtype_of(io[i].dtype), .rank = io[i].rank};
    for (int d = 0; d < io[i].rank && d < MAX_RANK; d++) {
      ports[i].dims[d] = io[i].dims[d];
      ports[i].dim_names[d] = io[i].dim_names ? io[i].dim_names[d] : NULL;
    }
  }
  return ports;
}

static DLTensor as_tensor(const Array *a) {
  const DTypeInfo *t = &dtype_info[a->dtype];
  return (DLTensor){.data = a->data,
                    .device = {1, 0},
                    .ndim = a->rank,
                    .shape = (int64_t *)a->dims,
                    .dtype = {(uint8_t)t->dlpack, (uint8_t)t->bits, 1}};
}

static void library_run(Runner *r, const Array *in, Array *out) {
  Library *l = r->state;
  const dlc_model *m = l->model;
  DLTensor *tin = NEW_ARRAY(r->c, DLTensor, r->ninputs), *tout = NEW_ARRAY(r->c, DLTensor, r->noutputs);
  const DLTensor **pin = NEW_ARRAY(r->c, const DLTensor *, r->ninputs);
  DLTensor **pout = NEW_ARRAY(r->c, DLTensor *, r->noutputs);
  for (int i = 0; i < r->ninputs; i++) {
    tin[i] = as_tensor(&in[i]);
    pin[i] = &tin[i];
  }
  for (int i = 0; i < r->noutputs; i++) {
    out[i].dtype = r->outputs[i].dtype;
    out[i].rank = r->outputs[i].rank;
    tout[i] = as_tensor(&out[i]);
    pout[i] = &tout[i];
  }
  int status = m->infer_shapes(l->ctx, tin, r->ninputs, tout, r->noutputs);
  for (int i = 0; i < r->noutputs && status == 0; i++) {
    array_allocate(r->c, &out[i]);
    tout[i].data = out[i].data;
  }
  if (status == 0) status = m->run(l->ctx, pin, r->ninputs, pout, r->noutputs);
  if (status != 0)
    diag_fail(r->c, E0504, NULL, NULL, "%s refuses to run (%d): %s", diag_quote(r->c, r->path), status,
              diag_quote(r->c, m->last_error(l->ctx)));
}

Runner *runner_library(Ctx *c, const char *path, int threads) {
  ElfLibrary elf = elf_read(c, path);
  const char *prefix = elf_model_prefix(c, &elf, path);
  char *real = realpath(path, NULL), why[256] = "";
  const char *full = real ? ctx_printf(c, "%s", real) : path;
  free(real);
  Library *l = NEW(c, Library);
  l->handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
  if (!l->handle) diag_fail(c, E0503, NULL, NULL, "cannot load %s: %s", diag_quote(c, path), diag_quote(c, dlerror()));
  ctx_defer(c, close_library, l);
  const dlc_model *m = dlsym(l->handle, ctx_printf(c, "%s_model", prefix));
  if (!m || m->abi_major != DLC_ABI_MAJOR || m->struct_size < offsetof(dlc_model, n_dims))
    diag_fail(c, E0503, NULL, "compile the model again", "%s follows another version of the interface",
              diag_quote(c, path));
  l->model = m;
  if (m->check_host(why, sizeof why) != 0)
    diag_fail(c, E0503, NULL, "compile the model with --cpu for this machine", "%s cannot run here: %s",
              diag_quote(c, path), why);
  dlc_opts opts = {.struct_size = sizeof opts, .threads = threads};
  int status = m->ctx_new(&opts, &l->ctx);
  if (status != 0) diag_fail(c, E0601, NULL, NULL, "%s: no context (%d)", diag_quote(c, path), status);
  Runner *r = NEW(c, Runner);
  *r = (Runner){.c = c,
                .path = path,
                .what = path,
                .ninputs = m->n_inputs,
                .noutputs = m->n_outputs,
                .symbolic = true,
                .run = library_run,
                .state = l};
  r->inputs = read_ports(c, m->inputs, m->n_inputs);
  r->outputs = read_ports(c, m->outputs, m->n_outputs);
  return r;
}
