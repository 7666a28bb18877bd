/* library.c - runs a compiled library through its table (runtime/dlc.h). */
#include "library.h"
#include "../elf.h"
#include "../../ir/diag.h"
#include <dlfcn.h>
#include <stdlib.h>

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

static void check(const Library *l, int status) {
  if (status != 0)
    diag_fail(l->c, E0504, NULL, NULL, "%s refuses to run (%d): %s", diag_quote(l->c, l->path), status,
              diag_quote(l->c, l->model->last_error(l->ctx)));
}

Call *library_call(Library *l, const Array *in, Array *out) {
  Ctx *c = l->c;
  const dlc_model *m = l->model;
  int nin = m->n_inputs, nout = m->n_outputs, ndims = 0;
  Call *call = NEW(c, Call);
  *call = (Call){NEW_ARRAY(c, DLTensor, nin), NEW_ARRAY(c, DLTensor, nout), NEW_ARRAY(c, const DLTensor *, nin),
                 NEW_ARRAY(c, DLTensor *, nout), NULL};
  for (int i = 0; i < nin; i++) {
    call->in[i] = as_tensor(&in[i]);
    call->pin[i] = &call->in[i];
  }
  for (int i = 0; i < nout; i++) {
    out[i].dtype = dtype_of(m->outputs[i].dtype);
    out[i].rank = m->outputs[i].rank;
    call->out[i] = as_tensor(&out[i]);
    call->pout[i] = &call->out[i];
    ndims += out[i].rank;
  }
  check(l, m->infer_shapes(l->ctx, call->in, nin, call->out, nout));
  call->shapes = NEW_ARRAY(c, int64_t, ndims);
  for (int i = 0, at = 0; i < nout; at += out[i++].rank) {
    array_allocate(c, &out[i]);
    call->out[i].data = out[i].data;
    memcpy(call->shapes + at, out[i].dims, sizeof *out[i].dims * (size_t)out[i].rank);
  }
  return call;
}

/* Each run wants room for the largest outputs again: the run before may have found smaller ones. */
void library_run(Library *l, Call *call) {
  const dlc_model *m = l->model;
  for (int i = 0, at = 0; i < m->n_outputs; at += m->outputs[i++].rank)
    memcpy(call->out[i].shape, call->shapes + at, sizeof *call->shapes * (size_t)m->outputs[i].rank);
  check(l, m->run(l->ctx, call->pin, m->n_inputs, call->pout, m->n_outputs));
}

static void run_once(Runner *r, const Array *in, Array *out) {
  Library *l = r->state;
  library_run(l, library_call(l, in, out));
}

Library *library_load(Ctx *c, const char *path) {
  ElfLibrary elf = elf_read(c, path);
  const char *prefix = elf_model_prefix(c, &elf, path);
  char *real = realpath(path, NULL), why[256] = "";
  const char *full = real ? ctx_printf(c, "%s", real) : path;
  free(real);
  Library *l = NEW(c, Library);
  *l = (Library){.c = c, .path = path, .handle = dlopen(full, RTLD_NOW | RTLD_LOCAL)};
  if (!l->handle) diag_fail(c, E0503, NULL, NULL, "cannot load %s: %s", diag_quote(c, path), diag_quote(c, dlerror()));
  ctx_defer(c, close_library, l);
  const dlc_model *m = l->model = dlsym(l->handle, ctx_printf(c, "%s_model", prefix));
  if (!m || m->abi_major != DLC_ABI_MAJOR || m->struct_size < offsetof(dlc_model, n_dims))
    diag_fail(c, E0503, NULL, "compile the model again", "%s follows another version of the interface",
              diag_quote(c, path));
  if (m->check_host(why, sizeof why) != 0)
    diag_fail(c, E0503, NULL, "compile the model with --cpu for this machine", "%s cannot run here: %s",
              diag_quote(c, path), why);
  return l;
}

void library_context(Library *l, const dlc_opts *opts) {
  int status = l->model->ctx_new(opts, &l->ctx);
  if (status != 0) diag_fail(l->c, E0601, NULL, NULL, "%s: no context (%d)", diag_quote(l->c, l->path), status);
}

Runner *library_runner(Library *l) {
  const dlc_model *m = l->model;
  Runner *r = NEW(l->c, Runner);
  *r = (Runner){.c = l->c, .path = l->path, .what = l->path, .symbolic = true, .run = run_once, .state = l};
  r->ninputs = m->n_inputs;
  r->noutputs = m->n_outputs;
  r->inputs = read_ports(l->c, m->inputs, m->n_inputs);
  r->outputs = read_ports(l->c, m->outputs, m->n_outputs);
  return r;
}

Runner *runner_library(Ctx *c, const char *path, int threads) {
  Library *l = library_load(c, path);
  library_context(l, &(dlc_opts){.struct_size = sizeof(dlc_opts), .threads = threads});
  return library_runner(l);
}
