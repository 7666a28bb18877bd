/* ctx.c - contexts: what a call needs beside the model, made once. In one block: the context, its workers, its small
 * arrays. In another: arena and scratch. In the caller's memory they follow each other. */
#include "rt.h"

static size_t line(size_t n) { return (n + RT_LINE - 1) / RT_LINE * RT_LINE; }

size_t rt_scratch_stride(const int64_t *plan) { return line((size_t)plan[DLC_PLAN_SCRATCH]); }

static bool is_size(int64_t n) { return n >= 0 && (uint64_t)n <= PTRDIFF_MAX - RT_LINE; }

bool rt_memory_bytes(const int64_t *plan, int32_t threads, size_t *bytes) {
  size_t scratch, whole;
  if (!is_size(plan[DLC_PLAN_ARENA]) || plan[DLC_PLAN_ZEROED] < 0 || plan[DLC_PLAN_ZEROED] > plan[DLC_PLAN_ARENA] || !is_size(plan[DLC_PLAN_SCRATCH])) return false;
  if (__builtin_mul_overflow(rt_scratch_stride(plan), (size_t)threads, &scratch)) return false;
  if (__builtin_add_overflow(line((size_t)plan[DLC_PLAN_ARENA]), scratch, &whole) || whole > PTRDIFF_MAX) return false;
  *bytes = whole;
  return true;
}

int64_t rt_output_dims(void) {
  int64_t n = 0;
  for (int32_t i = 0; i < dlc_rt_this.n_outputs; i++) n += dlc_rt_this.outputs[i].rank;
  return n;
}

/* Fields that the caller's dlc.h does not know are zero. */
static int read_opts(const dlc_opts *from, dlc_opts *to) {
  *to = (dlc_opts){.struct_size = sizeof *to};
  if (!from) return DLC_OK;
  if (from->struct_size < offsetof(dlc_opts, flags) || from->struct_size > 4096) return DLC_E_ABI;
  memcpy(to, from, from->struct_size < sizeof *to ? from->struct_size : sizeof *to);
  if (to->threads < 0 || to->threads > RT_MAX_THREADS || to->n_cpus < 0) return DLC_E_ARG;
  return DLC_OK;
}

static int32_t threads_of(const dlc_opts *o) {
  int32_t n = o->threads ? o->threads : dlc_rt_this.default_threads;
  return n <= 0 ? pool_affinity() : n > RT_MAX_THREADS ? RT_MAX_THREADS : n;
}

static size_t words(void) { return (size_t)dlc_rt_this.n_syms * 2 + DLC_PLAN_DIMS + (size_t)rt_output_dims(); }
static size_t pointers(void) { return (size_t)(dlc_rt_this.n_inputs + dlc_rt_this.n_outputs) * 2; }

static size_t self_bytes(int32_t threads) {
  return line(sizeof(dlc_ctx)) + (size_t)threads * sizeof(Worker) +
         line(words() * sizeof(int64_t) + pointers() * sizeof(void *));
}

static dlc_ctx *ctx_place(char *at, const dlc_opts *opts, int32_t threads) {
  const dlc_rt_desc *d = &dlc_rt_this;
  memset(at, 0, self_bytes(threads));
  dlc_ctx *ctx = (dlc_ctx *)(void *)at;
  at += line(sizeof *ctx);
  ctx->opts = *opts;
  ctx->rt = (dlc_rt){.threads = threads, .opts = &ctx->opts};
  if (threads > 1) ctx->rt.pool = &ctx->pool, ctx->pool.workers = (Worker *)(void *)at;
  at += (size_t)threads * sizeof(Worker);
  ctx->bound = (int64_t *)(void *)at;
  ctx->syms = ctx->bound + d->n_syms;
  ctx->plan = ctx->syms + d->n_syms;
  at += words() * sizeof(int64_t);
  ctx->io = (void **)(void *)at;
  ctx->in = (const DLTensor **)(void *)(ctx->io + d->n_inputs + d->n_outputs);
  ctx->out = (DLTensor **)(void *)(ctx->in + d->n_inputs);
  return ctx;
}

/* Every symbol at its maximum (dims == NULL) or as given; how much memory the plan then wants. */
static int plan_bytes(const int64_t *dims, int64_t *syms, int64_t *plan, int32_t threads, size_t *bytes) {
  const dlc_rt_desc *d = &dlc_rt_this;
  for (int32_t i = 0; i < d->n_syms; i++) {
    syms[i] = dims ? dims[i] : d->sym_max[i];
    if (syms[i] < d->sym_min[i] || syms[i] > d->sym_max[i]) return DLC_E_SHAPE;
  }
  if (d->plan(syms, plan) || !rt_memory_bytes(plan, threads, bytes)) return DLC_E_SHAPE;
  return DLC_OK;
}

bool ctx_reserve(dlc_ctx *ctx, size_t bytes) {
  if (bytes <= ctx->memory.bytes) return true;
  if (ctx->fixed) return false;
  block_free(&ctx->memory, &ctx->opts);
  ctx->zeroed = false;
  return block_new(&ctx->memory, &ctx->opts, bytes);
}

static int start(const dlc_opts *opts, dlc_ctx **ctx, dlc_opts *own) {
  if (!ctx) return DLC_E_ARG;
  *ctx = NULL;
  int code = dlc_rt_check_host(NULL, 0);
  return code ? code : read_opts(opts, own);
}

int dlc_rt_ctx_new(const dlc_opts *opts, dlc_ctx **result) {
  dlc_opts own;
  Block self;
  int code = start(opts, result, &own);
  if (code) return code;
  int32_t threads = threads_of(&own);
  if (!block_new(&self, &own, self_bytes(threads))) return DLC_E_NOMEM;
  dlc_ctx *ctx = ctx_place(self.at, &own, threads);
  ctx->self = self;
  ctx->weights = weights_take(&own);
  size_t bytes = 0;
  if (ctx->weights && !dlc_rt_this.n_syms) code = plan_bytes(NULL, ctx->syms, ctx->plan, threads, &bytes);
  if (!code && (!ctx->weights || !ctx_reserve(ctx, bytes))) code = DLC_E_NOMEM;
  if (!code) {
    *result = ctx;
    return DLC_OK;
  }
  if (ctx->weights) weights_give(ctx->weights);
  block_free(&self, &own);
  return code;
}

int dlc_rt_ctx_init(void *memory, size_t bytes, const dlc_opts *opts, dlc_ctx **result) {
  dlc_opts own;
  int code = start(opts, result, &own);
  if (code) return code;
  int32_t threads = threads_of(&own);
  if (!memory || (uintptr_t)memory % RT_ALIGN) return DLC_E_ARG;
  char *at = (char *)line((uintptr_t)memory);
  size_t before = (size_t)(at - (char *)memory) + self_bytes(threads);
  if (bytes < before) return DLC_E_NOMEM;
  dlc_ctx *ctx = ctx_place(at, &own, threads);
  ctx->fixed = true;
  own.flags |= own.flags & DLC_COPY_WEIGHTS ? 0 : DLC_SHARE_WEIGHTS;         /* the caller's memory is all there is */
  ctx->memory = (Block){at + self_bytes(threads), bytes - before, NULL, 0};
  ctx->weights = weights_take(&own);
  if (!ctx->weights) return DLC_E_NOMEM;
  *result = ctx;
  return DLC_OK;
}

void dlc_rt_ctx_free(dlc_ctx *ctx) {
  if (!ctx) return;
  dlc_opts opts = ctx->opts;
  Block self = ctx->self;
  pool_stop(&ctx->rt);
  weights_give(ctx->weights);
  if (!ctx->fixed) {
    block_free(&ctx->memory, &opts);
    block_free(&self, &opts);
  }
}

int dlc_rt_workspace_size(const dlc_opts *opts, const int64_t *dims, size_t *bytes) {
  enum { INLINE = 256 };
  int64_t small[INLINE];
  dlc_opts own;
  Block space = {0};
  size_t memory = 0;
  int code = read_opts(opts, &own);
  if (!bytes) return DLC_E_ARG;
  if (code) return code;
  int64_t *w = small;
  if (words() > INLINE) {
    if (!block_new(&space, &own, words() * sizeof(int64_t))) return DLC_E_NOMEM;
    w = (int64_t *)(void *)space.at;
  }
  int32_t threads = threads_of(&own);
  code = plan_bytes(dims, w, w + dlc_rt_this.n_syms, threads, &memory);
  block_free(&space, &own);
  if (!code && __builtin_add_overflow(memory, RT_LINE + self_bytes(threads), bytes)) code = DLC_E_SHAPE;
  return code;
}

int dlc_rt_trim(dlc_ctx *ctx) {
  if (!ctx) return DLC_E_ARG;
  if (atomic_exchange(&ctx->busy, 1)) return DLC_E_BUSY;
  if (!ctx->fixed) block_free(&ctx->memory, &ctx->opts), ctx->zeroed = false;
  atomic_store(&ctx->busy, 0);
  return DLC_OK;
}

int dlc_rt_profile(dlc_ctx *ctx, dlc_op_time *buf, int n) {
  if (!ctx || n < 0 || (n && !buf)) return DLC_E_ARG;
  if (atomic_exchange(&ctx->busy, 1)) return DLC_E_BUSY;
  ctx->rt.steps = n ? buf : NULL;
  ctx->rt.nsteps = n;
  int steps = ctx->rt.step;
  atomic_store(&ctx->busy, 0);
  return steps;
}

int dlc_rt_trace(dlc_ctx *ctx, dlc_span *buf, int n) {
  if (!ctx || n < 0 || (n && !buf)) return DLC_E_ARG;
  if (atomic_exchange(&ctx->busy, 1)) return DLC_E_BUSY;
  ctx->rt.spans = n ? buf : NULL;
  ctx->rt.nspans = n;
  atomic_store(&ctx->busy, 0);
  return ctx->rt.threads;
}

const char *dlc_rt_last_error(const dlc_ctx *ctx) { return ctx ? ctx->error : ""; }
