/* run.c - a call: the caller's tensors against what the model wants, symbols from their shapes, then the program. */
#include "rt.h"

typedef struct {
  dlc_ctx *ctx;
  Text text;
} Report;

static Report report(dlc_ctx *ctx, const char *what, const char *name) {
  Report r = {ctx, text_new(ctx->error, sizeof ctx->error)};
  text_add(&r.text, what);
  if (name) text_add(&r.text, " '"), text_add(&r.text, name), text_add(&r.text, "'");
  return r;
}

static int64_t elements(const int64_t *dims, int32_t rank, bool *overflow) {
  int64_t n = 1;
  *overflow = false;
  for (int32_t i = 0; i < rank; i++)
    if (!dims[i]) return 0;
  for (int32_t i = 0; i < rank; i++)
    if (__builtin_mul_overflow(n, dims[i], &n)) *overflow = true;
  return n;
}

static int64_t bytes_of(const DLTensor *t) {
  bool overflow;
  int64_t n = elements(t->shape, t->ndim, &overflow);
  return overflow || n > INT64_MAX / 128 ? -1 : (n * t->dtype.bits * t->dtype.lanes + 7) / 8;
}

static char *data_of(const DLTensor *t) { return t->data ? (char *)t->data + t->byte_offset : NULL; }

/* ---- errors about shapes ---- */
static int shape_error(dlc_ctx *ctx, const char *what, const dlc_io *io, const DLTensor *t, const int64_t *want) {
  Report r = report(ctx, what, io->name);
  text_add(&r.text, " has shape ");
  text_dims(&r.text, t->shape, NULL, t->ndim);
  text_add(&r.text, ", wanted is ");
  text_dims(&r.text, want, io->dim_names, io->rank);
  return DLC_E_SHAPE;
}

static int symbol_error(dlc_ctx *ctx, const dlc_io *io, const DLTensor *t, int32_t sym, bool bound) {
  const dlc_rt_desc *d = &dlc_rt_this;
  shape_error(ctx, "input", io, t, io->dims);
  size_t used = 0;
  while (ctx->error[used]) used++;
  Text text = text_new(ctx->error + used, sizeof ctx->error - used);
  text_add(&text, " with ");
  if (!bound) text_int(&text, d->sym_min[sym]), text_add(&text, " <= ");
  text_add(&text, d->sym_names[sym] ? d->sym_names[sym] : "?");
  text_add(&text, bound ? " = " : " <= ");
  text_int(&text, bound ? ctx->bound[sym] : d->sym_max[sym]);
  if (bound) text_add(&text, " as before");
  return DLC_E_SHAPE;
}

/* ---- one tensor ---- */
static int check_head(dlc_ctx *ctx, const char *what, const dlc_io *io, const DLTensor *t) {
  if (!t || t->ndim < 0 || (t->ndim && !t->shape)) {
    Report r = report(ctx, what, io->name);
    text_add(&r.text, t ? " has no shape" : " is NULL");
    return DLC_E_ARG;
  }
  if (t->device.device_type == 1 || t->device.device_type == 3) return DLC_OK; /* host memory, pinned or not */
  Report r = report(ctx, what, io->name);
  text_add(&r.text, " is on DLPack device ");
  text_int(&r.text, t->device.device_type);
  text_add(&r.text, ", host memory (1) is wanted");
  return DLC_E_DEVICE;
}

static int check_dtype(dlc_ctx *ctx, const char *what, const dlc_io *io, const DLTensor *t) {
  if (t->dtype.code == io->dtype.code && t->dtype.bits == io->dtype.bits && t->dtype.lanes == io->dtype.lanes)
    return DLC_OK;
  Report r = report(ctx, what, io->name);
  text_add(&r.text, " has element type ");
  text_dtype(&r.text, t->dtype);
  text_add(&r.text, ", wanted is ");
  text_dtype(&r.text, io->dtype);
  return DLC_E_DTYPE;
}

static bool is_row_major(const DLTensor *t) {
  if (!t->strides || !bytes_of(t)) return true;
  int64_t step = 1;
  for (int32_t i = t->ndim; i-- > 0; step *= t->shape[i])
    if (t->shape[i] != 1 && t->strides[i] != step) return false;
  return true;
}

static int check_data(dlc_ctx *ctx, const char *what, const dlc_io *io, const DLTensor *t) {
  int64_t bytes = bytes_of(t);
  if (bytes < 0) {
    Report r = report(ctx, what, io->name);
    text_add(&r.text, " is larger than memory can be: "), text_dims(&r.text, t->shape, NULL, t->ndim);
    return DLC_E_SHAPE;
  }
  if (!t->data && bytes) {
    Report r = report(ctx, what, io->name);
    text_add(&r.text, " has no data");
    return DLC_E_ARG;
  }
  if (!is_row_major(t)) {
    Report r = report(ctx, what, io->name);
    text_add(&r.text, " has shape "), text_dims(&r.text, t->shape, NULL, t->ndim);
    text_add(&r.text, " and strides "), text_dims(&r.text, t->strides, NULL, t->ndim);
    text_add(&r.text, "; only row-major data without gaps is taken");
    return DLC_E_LAYOUT;
  }
  if (t->dtype.bits >= 8 && (uintptr_t)data_of(t) % (t->dtype.bits / 8u)) {
    Report r = report(ctx, what, io->name);
    text_add(&r.text, " is not aligned to its elements");
    return DLC_E_LAYOUT;
  }
  return DLC_OK;
}

/* ---- inputs ---- */
/* Shape of one input; sym: the symbols of its dims. ctx->bound[s] < 0: not known yet. */
static int bind_input(dlc_ctx *ctx, const dlc_io *io, const DLTensor *t, const int32_t *sym) {
  const dlc_rt_desc *d = &dlc_rt_this;
  if (t->ndim != io->rank) return shape_error(ctx, "input", io, t, io->dims);
  for (int32_t i = 0; i < io->rank; i++) {
    int64_t n = t->shape[i];
    int32_t s = sym[i];
    if (s < 0) {
      if (n != io->dims[i]) return shape_error(ctx, "input", io, t, io->dims);
      continue;
    }
    if (n < 0 || n < d->sym_min[s] || n > d->sym_max[s]) return symbol_error(ctx, io, t, s, false);
    if (ctx->bound[s] < 0) ctx->bound[s] = n;
    else if (ctx->bound[s] != n) return symbol_error(ctx, io, t, s, true);
  }
  return DLC_OK;
}

static int bind_inputs(dlc_ctx *ctx, bool with_data) {
  const dlc_rt_desc *d = &dlc_rt_this;
  const int32_t *sym = d->in_sym;
  int code = DLC_OK;
  for (int32_t i = 0; i < d->n_syms; i++) ctx->bound[i] = -1;
  for (int32_t i = 0; i < d->n_inputs && !code; sym += d->inputs[i++].rank) {
    const dlc_io *io = &d->inputs[i];
    const DLTensor *t = ctx->in[i];
    code = check_head(ctx, "input", io, t);
    if (!code) code = check_dtype(ctx, "input", io, t);
    if (!code) code = bind_input(ctx, io, t, sym);
    if (!code && with_data) code = check_data(ctx, "input", io, t);
    if (!code) ctx->io[i] = data_of(t);
  }
  return code;
}

/* Symbols as bound, or at their maximum if main will set them; then the plan, kept while the symbols stay the same. */
static int make_plan(dlc_ctx *ctx) {
  const dlc_rt_desc *d = &dlc_rt_this;
  size_t bytes = (size_t)d->n_syms * sizeof(int64_t);
  for (int32_t i = 0; i < d->n_syms; i++)
    if (ctx->bound[i] < 0) ctx->bound[i] = d->sym_max[i];
  if (ctx->planned && !memcmp(ctx->bound, ctx->syms, bytes)) return DLC_OK;
  memcpy(ctx->syms, ctx->bound, bytes);
  size_t whole;
  ctx->planned = !d->plan(ctx->syms, ctx->plan) && rt_memory_bytes(ctx->plan, ctx->rt.threads, &whole);
  for (int64_t i = 0; i < rt_output_dims(); i++)
    if (ctx->planned && ctx->plan[DLC_PLAN_DIMS + i] < 0) ctx->planned = false;
  if (ctx->planned) return DLC_OK;
  Report r = report(ctx, "no valid sizes follow from", NULL);
  for (int32_t i = 0; i < d->n_syms; i++) {
    text_add(&r.text, i ? ", " : " "), text_add(&r.text, d->sym_names[i] ? d->sym_names[i] : "?");
    text_add(&r.text, " = "), text_int(&r.text, ctx->bound[i]);
  }
  return DLC_E_SHAPE;
}

/* ---- outputs ---- */
static void write_shape(const dlc_io *io, DLTensor *t, const int64_t *dims) {
  t->ndim = io->rank;
  t->dtype = io->dtype;
  for (int32_t i = 0; i < io->rank; i++) t->shape[i] = dims[i];
}

static bool has_dims(const DLTensor *t, const int64_t *dims, int32_t rank) {
  bool same = t->ndim == rank && (t->shape || !rank);
  for (int32_t i = 0; same && i < rank; i++) same = t->shape[i] == dims[i];
  return same;
}

static int no_room(dlc_ctx *ctx, const dlc_io *io) {
  report(ctx, "no room for the shape of output", io->name);
  return DLC_E_ARG;
}

/* One output against its dims. Without data it gets them, unless there is nothing to store anyway. */
static int check_output(dlc_ctx *ctx, const dlc_io *io, DLTensor *t, const int64_t *dims) {
  bool overflow;
  if (t && !t->data && !(has_dims(t, dims, io->rank) && !elements(dims, io->rank, &overflow))) {
    if (io->rank && !t->shape) return no_room(ctx, io);
    write_shape(io, t, dims);
    return DLC_E_SHAPE_READY;
  }
  int code = check_head(ctx, "output", io, t);
  if (!code) code = check_dtype(ctx, "output", io, t);
  if (!code && !has_dims(t, dims, io->rank)) code = shape_error(ctx, "output", io, t, dims);
  return code ? code : check_data(ctx, "output", io, t);
}

static int check_outputs(dlc_ctx *ctx) {
  const dlc_rt_desc *d = &dlc_rt_this;
  const int64_t *dims = ctx->plan + DLC_PLAN_DIMS;
  int result = DLC_OK;
  for (int32_t i = 0; i < d->n_outputs; dims += d->outputs[i++].rank) {
    int code = check_output(ctx, &d->outputs[i], ctx->out[i], dims);
    if (code < 0) return code;
    if (code) result = code;
    ctx->io[d->n_inputs + i] = data_of(ctx->out[i]);
  }
  return result;
}

static const char *io_name(int32_t i) {
  const dlc_rt_desc *d = &dlc_rt_this;
  return i < d->n_inputs ? d->inputs[i].name : d->outputs[i - d->n_inputs].name;
}

static int check_overlap(dlc_ctx *ctx) {
  const dlc_rt_desc *d = &dlc_rt_this;
  for (int32_t o = 0; o < d->n_outputs; o++) {
    uintptr_t at = (uintptr_t)data_of(ctx->out[o]), end = at + (uintptr_t)bytes_of(ctx->out[o]);
    for (int32_t i = 0; i < d->n_inputs + o; i++) {
      const DLTensor *other = i < d->n_inputs ? ctx->in[i] : ctx->out[i - d->n_inputs];
      uintptr_t from = (uintptr_t)data_of(other), to = from + (uintptr_t)bytes_of(other);
      if (at >= to || from >= end || at == end || from == to) continue;
      Report r = report(ctx, "output", d->outputs[o].name);
      text_add(&r.text, " overlaps '"), text_add(&r.text, io_name(i)), text_add(&r.text, "'");
      return DLC_E_ARG;
    }
  }
  return DLC_OK;
}

/* ---- calls ---- */
static int enter(dlc_ctx *ctx, int n_in, int n_out) {
  const dlc_rt_desc *d = &dlc_rt_this;
  if (!ctx) return DLC_E_ARG;
  if (atomic_exchange(&ctx->busy, 1)) return DLC_E_BUSY;
  ctx->error[0] = 0;
  if (n_in == d->n_inputs && n_out == d->n_outputs) return DLC_OK;
  Report r = report(ctx, "the model has ", NULL);
  text_int(&r.text, d->n_inputs), text_add(&r.text, " inputs and "), text_int(&r.text, d->n_outputs);
  text_add(&r.text, " outputs, the call gives "), text_int(&r.text, n_in);
  text_add(&r.text, " and "), text_int(&r.text, n_out);
  atomic_store(&ctx->busy, 0);
  return DLC_E_ARG;
}

/* The shapes of outputs that the data decided. */
static int settle(dlc_ctx *ctx) {
  const dlc_rt_desc *d = &dlc_rt_this;
  if (!memcmp(ctx->syms, ctx->bound, (size_t)d->n_syms * sizeof(int64_t))) return DLC_OK;
  ctx->planned = false;
  if (d->plan(ctx->syms, ctx->plan)) return DLC_E_INTERNAL;
  const int64_t *dims = ctx->plan + DLC_PLAN_DIMS;
  for (int32_t i = 0; i < d->n_outputs; dims += d->outputs[i++].rank) write_shape(&d->outputs[i], ctx->out[i], dims);
  return DLC_OK;
}

static int execute(dlc_ctx *ctx) {
  const dlc_rt_desc *d = &dlc_rt_this;
  size_t bytes = 0;
  if (!rt_memory_bytes(ctx->plan, ctx->rt.threads, &bytes) || !ctx_reserve(ctx, bytes)) {
    Report r = report(ctx, "no memory for the workspace", NULL);
    text_add(&r.text, ", bytes: "), text_int(&r.text, (int64_t)bytes);
    return DLC_E_NOMEM;
  }
  ctx->rt.scratch_stride = rt_scratch_stride(ctx->plan);
  ctx->rt.scratch = ctx->memory.at + (bytes - ctx->rt.scratch_stride * (size_t)ctx->rt.threads);
  ctx->rt.step = 0;
  if (!ctx->zeroed && ctx->plan[DLC_PLAN_ZEROED]) memset(ctx->memory.at, 0, (size_t)ctx->plan[DLC_PLAN_ZEROED]);
  ctx->zeroed = true;
  pool_start(&ctx->rt);
  FpMode before = fp_set((ctx->opts.flags & DLC_FLUSH_DENORMALS) != 0);
  int code = d->main(&ctx->rt, ctx->memory.at, ctx->weights, ctx->io, ctx->syms);
  fp_put(before);
  if (!code) return settle(ctx);
  bool shape = code == DLC_E_SHAPE;
  Report r = report(ctx, shape ? "the inputs have shapes that the model was not compiled for" : "the model's program failed with code ", NULL);
  if (!shape) text_int(&r.text, code);
  return code;
}

int dlc_rt_run(dlc_ctx *ctx, const DLTensor *const *in, int n_in, DLTensor *const *out, int n_out) {
  int code = enter(ctx, n_in, n_out);
  if (code) return code;
  for (int i = 0; i < n_in; i++) ctx->in[i] = in[i];
  for (int i = 0; i < n_out; i++) ctx->out[i] = out[i];
  code = bind_inputs(ctx, true);
  if (!code) code = make_plan(ctx);
  if (!code) code = check_outputs(ctx);
  if (!code) code = check_overlap(ctx);
  if (!code) code = execute(ctx);
  atomic_store(&ctx->busy, 0);
  return code;
}

int dlc_rt_infer_shapes(dlc_ctx *ctx, const DLTensor *in, int n_in, DLTensor *out, int n_out) {
  int code = enter(ctx, n_in, n_out);
  if (code) return code;
  for (int i = 0; i < n_in; i++) ctx->in[i] = &in[i];
  code = bind_inputs(ctx, false);
  if (!code) code = make_plan(ctx);
  const int64_t *dims = ctx->plan + DLC_PLAN_DIMS;
  for (int i = 0; i < n_out && !code; dims += dlc_rt_this.outputs[i++].rank) {
    const dlc_io *io = &dlc_rt_this.outputs[i];
    if (out[i].shape || !io->rank) write_shape(io, &out[i], dims);
    else code = no_room(ctx, io);
  }
  atomic_store(&ctx->busy, 0);
  return code;
}

/* Behind P_run. */
int32_t dlc_rt_run_static(void *const *io, int64_t *syms, void *workspace) {
  const dlc_rt_desc *d = &dlc_rt_this;
  int64_t plan[DLC_PLAN_DIMS + rt_output_dims()];
  int code = dlc_rt_check_host(NULL, 0);
  if (code) return code;
  if ((uintptr_t)workspace % RT_ALIGN) return DLC_E_ARG;
  for (int32_t i = 0; i < d->n_syms; i++)
    if (syms[i] < d->sym_min[i] || syms[i] > d->sym_max[i]) return DLC_E_SHAPE;
  size_t bytes;
  if (d->plan(syms, plan) || !rt_memory_bytes(plan, 1, &bytes)) return DLC_E_SHAPE;
  if (!workspace && bytes) return DLC_E_ARG;
  if (bytes) memset(workspace, 0, (size_t)plan[DLC_PLAN_ZEROED]);
  size_t scratch_at = ((size_t)plan[DLC_PLAN_ARENA] + RT_ALIGN - 1) / RT_ALIGN * RT_ALIGN;
  dlc_opts opts = {.struct_size = sizeof opts, .flags = DLC_SHARE_WEIGHTS};
  char *scratch = workspace ? (char *)workspace + scratch_at : NULL;
  dlc_rt rt = {.threads = 1, .scratch = scratch, .scratch_stride = rt_scratch_stride(plan), .opts = &opts};
  FpMode before = fp_set(0);
  code = d->main(&rt, workspace, weights_take(&opts), io, syms);
  fp_put(before);
  return code;
}
