/* model.h - where generated code and the runtime meet. One library holds one model: the compiler emits what stands
 * under "emitted", the runtime (every other file here, linked into the library as one object) has the rest. All of these
 * names are hidden in the library; only P_model and P_run are exported.
 */
#ifndef DLC_MODEL_H
#define DLC_MODEL_H

#include "dlc.h"

typedef struct dlc_rt dlc_rt;    /* the execution state of one call: threads, scratch */

/* What plan answers: bytes of the arena, bytes of scratch for each thread, from there on the dims of every output in order. */
enum { DLC_PLAN_ARENA, DLC_PLAN_ZEROED, DLC_PLAN_SCRATCH, DLC_PLAN_DIMS };

/* A kernel runs lo..hi of its parallel loop. bufs: its params; syms: values of the model's symbols; scratch: this
 * thread's own, as long as planned, 64-byte aligned. */
typedef void dlc_rt_kernel(void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, char *scratch);

typedef struct dlc_rt_desc {
  const char *name, *info_json;
  const char *cpu_features;              /* needed, LLVM's names: "avx512f,fma"; a leading '+' is allowed, "-x" skipped */
  int32_t n_inputs, n_outputs, n_syms;
  int32_t default_threads;               /* 0: one for each CPU of the affinity mask */
  const struct dlc_io *inputs, *outputs;
  /* the dims of all inputs (outputs) in a row: index of the symbol, -1 constant, -2 computed */
  const int32_t *in_sym, *out_sym;
  const int64_t *sym_min, *sym_max;      /* main sets the symbols that no input has; until then they count as sym_max */
  const char *const *sym_names;
  const unsigned char *weights;          /* dlc_weights, or NULL with weights_bytes 0 */
  uint64_t weights_bytes;
  /* Sizes for these symbols, which are within their bounds; nonzero: one overflows. */
  int32_t (*plan)(const int64_t *syms, int64_t *result);
  /* The program. arena: 64-byte aligned, not cleared. io: inputs then outputs, aligned to their elements.
   * 0 or a DLC_E code. */
  int32_t (*main)(dlc_rt *rt, char *arena, const unsigned char *weights, void *const *io, int64_t *syms);
  /* for profiles: what the functions passed to dlc_rt_parallel and dlc_rt_serial are called; may be 0, NULL, NULL */
  int64_t n_kernels;
  dlc_rt_kernel *const *kernels;
  const char *const *kernel_names;
} dlc_rt_desc;

/* ---- emitted ----
 *
 * dlc_rt_this, and dlc_weights (codegen/link.c places it).
 *
 * const struct dlc_model P_model = { sizeof(dlc_model) [dlc.h], DLC_ABI_MAJOR, DLC_ABI_MINOR, flags, name, info_json,
 *   n_inputs, n_outputs, inputs, outputs, dlc_rt_check_host, dlc_rt_workspace_size, dlc_rt_ctx_init, dlc_rt_ctx_new,
 *   dlc_rt_ctx_free, dlc_rt_infer_shapes, dlc_rt_run, NULL, NULL, dlc_rt_last_error, dlc_rt_profile, dlc_rt_trim,
 *   n_syms, 0, sym_names, sym_min, sym_max, dlc_rt_trace };
 *
 * int P_run(const T *input..., T *output..., [int64_t symbol...,] void *workspace)
 * { void *io[] = {...}; int64_t syms[] = {...}; return dlc_rt_run_static(io, syms, workspace); }
 *
 * Section ".note.dlc", an ELF note (4-byte aligned; 32-bit words, and bytes padded with zeros to a multiple of 4):
 *   namesz = 4, descsz = strlen(info_json) + 1, type = 1, "dlc\0", info_json with its zero byte.
 */
extern const dlc_rt_desc dlc_rt_this;
extern const unsigned char dlc_weights[];

/* ---- what main calls ---- */
/* Runs k over [0, total), split into one piece a thread: piece t of T is total*t/T .. total*(t+1)/T. Returns when all
 * have run. What k computes must not depend on where the pieces begin. */
void dlc_rt_parallel(dlc_rt *rt, dlc_rt_kernel *k, void *const *bufs, const int64_t *syms, int64_t total);
/* The same on the calling thread alone: for kernels without a parallel loop (total 1) and for less than 15 us of work. */
void dlc_rt_serial(dlc_rt *rt, dlc_rt_kernel *k, void *const *bufs, const int64_t *syms, int64_t total);

/* ---- behind P_run: one thread, no context. workspace (64-byte aligned): the arena rounded up to 64 bytes, then
 * scratch; NULL if that is nothing. syms: all n_syms ---- */
int32_t dlc_rt_run_static(void *const *io, int64_t *syms, void *workspace);

/* ---- behind P_model ---- */
int dlc_rt_check_host(char *why, size_t n);
int dlc_rt_workspace_size(const dlc_opts *opts, const int64_t *dims, size_t *bytes);
int dlc_rt_ctx_init(void *memory, size_t bytes, const dlc_opts *opts, dlc_ctx **ctx);
int dlc_rt_ctx_new(const dlc_opts *opts, dlc_ctx **ctx);
void dlc_rt_ctx_free(dlc_ctx *ctx);
int dlc_rt_infer_shapes(dlc_ctx *ctx, const DLTensor *in, int n_in, DLTensor *out, int n_out);
int dlc_rt_run(dlc_ctx *ctx, const DLTensor *const *in, int n_in, DLTensor *const *out, int n_out);
const char *dlc_rt_last_error(const dlc_ctx *ctx);
int dlc_rt_profile(dlc_ctx *ctx, dlc_op_time *buf, int n);
int dlc_rt_trace(dlc_ctx *ctx, dlc_span *buf, int n);
int dlc_rt_trim(dlc_ctx *ctx);

#endif
