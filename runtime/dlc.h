/* dlc.h - calling a compiled model. A model P is one library that exports a table, P_model, and one function, P_run,
 * and needs nothing but libc. Everything below is reached through the table:
 *
 *     extern const dlc_model resnet50_model;                // or dlsym(library, "resnet50_model")
 *     dlc_ctx *ctx;
 *     if (resnet50_model.ctx_new(NULL, &ctx)) ...           // NULL: default options
 *     const DLTensor *in[] = {&data};                       // in the order of resnet50_model.inputs
 *     DLTensor *out[] = {&scores};
 *     if (resnet50_model.run(ctx, in, 1, out, 1)) puts(resnet50_model.last_error(ctx));
 *     resnet50_model.ctx_free(ctx);
 *
 * Functions that return int give DLC_OK or another DLC_ code. Structs only ever grow at the end, by struct_size.
 */
#ifndef DLC_H
#define DLC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tensors: DLPack's layout. Who uses dlpack.h too includes it first. ---- */
#ifndef DLPACK_DLPACK_H_
typedef struct { int32_t device_type, device_id; } DLDevice;      /* 1, 0: host memory */
typedef struct { uint8_t code, bits; uint16_t lanes; } DLDataType;   /* 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool */
typedef struct {
  void *data;                    /* aligned to the element */
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;                /* ndim extents */
  int64_t *strides;              /* in elements; NULL: row-major without gaps; nothing else is taken (E_LAYOUT) */
  uint64_t byte_offset;          /* of the first element in data */
} DLTensor;
#endif

enum {
  DLC_OK = 0,
  DLC_E_SHAPE_READY = 1,         /* not a failure: an output had data == NULL; its shape is written, nothing was run */
  DLC_E_ARG = -1, DLC_E_SHAPE = -2, DLC_E_DTYPE = -3, DLC_E_DEVICE = -4, DLC_E_NOMEM = -5, DLC_E_CPU = -6,
  DLC_E_ABI = -7,
  DLC_E_BUSY = -8,               /* the context is in use by another call */
  DLC_E_IO = -9, DLC_E_WEIGHTS = -10, DLC_E_CUDA = -11, DLC_E_LAYOUT = -12, DLC_E_INTERNAL = -99
};

/* ---- what the model takes and gives ---- */
typedef struct dlc_io {
  const char *name;
  DLDataType dtype;
  int32_t rank;
  const int64_t *dims;           /* extents; -1: known when the model is called */
  const char *const *dim_names;  /* of those: its name, or NULL where it is computed; NULL for constants */
  const int64_t *min, *max;      /* bounds of every extent */
} dlc_io;

/* ---- a context: one call's threads and memory. Any number of them share the model and its weights. ---- */
typedef struct dlc_ctx dlc_ctx;

enum {                           /* dlc_opts.flags */
  DLC_NO_HUGE_PAGES = 1,         /* do not ask for 2 MiB pages */
  DLC_COPY_WEIGHTS = 2,          /* copy the weights into huge pages, once a process: what ctx_new does with 2 MiB of them or more, if the
                                    system has such pages and memory is not the host's own */
  DLC_FLUSH_DENORMALS = 4,       /* compute with denormal numbers as zero; the caller's setting is restored */
  DLC_SHARE_WEIGHTS = 8          /* leave the weights where the library is mapped: processes share them, and runs are a few % slower */
};

typedef struct dlc_opts {        /* all zero but struct_size: the defaults */
  uint32_t struct_size;          /* sizeof(dlc_opts) */
  uint32_t flags;
  int32_t threads;               /* 0: as compiled with --threads, otherwise one for each CPU this process may use */
  int32_t spin_us;               /* idle threads spin so long before they sleep; 0: 50, -1: they sleep at once */
  const int32_t *cpus;           /* thread i runs on cpus[i % n_cpus], but thread 0, the caller's; NULL: no pinning */
  int32_t n_cpus;
  int32_t reserved;
  /* the host's own threads instead of ours: calls task(arg, i) for each i in [0, n), returns when all have returned */
  void (*parallel_for)(void *user, int32_t n, void (*task)(void *arg, int32_t i), void *arg);
  void *parallel_user;
  /* the host's own allocator instead of mmap, called in ctx_new, ctx_free, trim and the first run with larger shapes */
  void *(*allocate)(void *user, size_t bytes, size_t align);
  void (*release)(void *user, void *memory, size_t bytes);
  void *memory_user;
} dlc_opts;

typedef struct dlc_op_time {     /* one step of a run, for profiles */
  const char *name;
  uint64_t calls, ns;
} dlc_op_time;

typedef struct dlc_span {        /* one thread's part of a step, for traces; the clock is CLOCK_MONOTONIC */
  const char *name;              /* NULL: it had none */
  uint64_t start_ns, end_ns;
} dlc_span;

typedef struct dlc_weights_io dlc_weights_io;   /* for libraries without weights inside; there are none in this version */

enum { DLC_ABI_MAJOR = 1, DLC_ABI_MINOR = 0 };
enum { DLC_MODEL_STATIC = 1 };   /* dlc_model.flags: no extent is symbolic */

typedef struct dlc_model {
  uint32_t struct_size, abi_major, abi_minor, flags;
  const char *name, *info_json;
  int32_t n_inputs, n_outputs;
  const dlc_io *inputs, *outputs;

  /* Any thread. Can this machine run the model? If not: DLC_E_CPU, and `why` (n bytes or NULL) names what is missing. */
  int (*check_host)(char *why, size_t n);

  /* Any thread. Bytes that ctx_init needs for these values of the symbolic dims, in order of dim_names below; NULL: for
   * their maxima. */
  int (*workspace_size)(const dlc_opts *opts, const int64_t *dims, size_t *bytes);

  /* Any thread. A context inside the caller's memory, 64-byte aligned; ctx_free stops its threads, the memory stays. */
  int (*ctx_init)(void *memory, size_t bytes, const dlc_opts *opts, dlc_ctx **ctx);

  /* Any thread. A context with its own memory. Nothing is allocated afterwards, except when symbolic dims grow. */
  int (*ctx_new)(const dlc_opts *opts, dlc_ctx **ctx);

  /* Any thread, but no other call on this context may be under way. */
  void (*ctx_free)(dlc_ctx *ctx);

  /* One thread at a time per context (others get DLC_E_BUSY). Writes ndim, dtype and shape of each output; out[i].shape
   * has room for outputs[i].rank extents. Data are not looked at. */
  int (*infer_shapes)(dlc_ctx *ctx, const DLTensor *in, int n_in, DLTensor *out, int n_out);

  /* One thread at a time per context (others get DLC_E_BUSY). Reads inputs, writes outputs; these overlap nothing. */
  int (*run)(dlc_ctx *ctx, const DLTensor *const *in, int n_in, DLTensor *const *out, int n_out);

  /* NULL in libraries for CPUs. */
  int (*enqueue)(dlc_ctx *ctx, void *stream, const DLTensor *const *in, int n_in, DLTensor *const *out, int n_out);

  /* NULL where the weights are inside the library. */
  int (*weights)(const dlc_weights_io *io);

  /* The thread that made the failing call, before its next call: what went wrong, in words; "" if nothing did. */
  const char *(*last_error)(const dlc_ctx *ctx);

  /* One thread at a time per context. From now on each run adds the time of its steps to buf[0..n), which the caller
   * cleared and keeps; (NULL, 0) ends that. Returns the number of steps the last run had. */
  int (*profile)(dlc_ctx *ctx, dlc_op_time *buf, int n);

  /* One thread at a time per context. Gives memory back that the next run will ask for again. */
  int (*trim)(dlc_ctx *ctx);

  /* the symbolic dims: n_dims names, and the values each may have */
  int32_t n_dims, reserved;
  const char *const *dim_names;
  const int64_t *dim_min, *dim_max;

  /* One thread at a time per context. From now on each run writes the part that thread t has in step s to
   * buf[s * threads + t], where that is below n; the caller clears buf and keeps it. (NULL, 0) ends that. Returns threads. */
  int (*trace)(dlc_ctx *ctx, dlc_span *buf, int n);
} dlc_model;

#ifdef __cplusplus
}
#endif
#endif
