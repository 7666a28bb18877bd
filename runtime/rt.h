/* rt.h - the runtime from inside: what its files share. */
#ifndef DLC_RT_H
#define DLC_RT_H

#include <stdatomic.h>
#include <stdbool.h>
#include "model.h"
#include "sys.h"

enum { RT_LINE = 128, RT_ALIGN = 64, RT_MAX_THREADS = 1023, RT_ERROR_BYTES = 256, RT_SPIN_US = 50 };
#define RT_HUGE ((size_t)2 << 20)

/* ---- threads (pool.c) ---- */
typedef struct Pool Pool;
typedef struct {
  _Alignas(RT_LINE) _Atomic uint32_t done;   /* the last epoch whose piece this worker finished */
  uint32_t seen, run;                        /* the epoch when it was started; the last run that it took part in */
  int32_t index;                             /* 1.. */
  dlc_rt *rt;
  unsigned long thread;
} Worker;

struct Pool {
  /* A job: number << 10 | threads that take part. One word: a worker who has no part never reads the rest of the job. */
  _Alignas(RT_LINE) _Atomic uint32_t epoch;
  _Atomic uint32_t sleepers;                 /* workers in or near their futex */
  _Atomic uint32_t waiting;                  /* thread 0 sleeps until the last worker is done */
  _Alignas(RT_LINE) dlc_rt_kernel *kernel;   /* NULL: the end */
  void *const *bufs;
  const int64_t *syms;
  int64_t total;
  long pid;                                  /* the process that the workers live in; 0: not started */
  _Atomic uint32_t home;                     /* the CPU that the caller was on when this run began */
  uint32_t run;                              /* its number */
  int32_t cpus;                              /* that the workers may use */
  int32_t live;                              /* threads with the caller's; with the host's pool: pieces of the job */
  Worker *workers;                           /* [threads]; 0 is not used */
};

struct dlc_rt {
  int32_t threads;
  char *scratch;                             /* of thread 0 */
  size_t scratch_stride;
  const dlc_opts *opts;
  Pool *pool;                                /* NULL: no threads of ours */
  dlc_op_time *steps;                        /* the caller's profile, or NULL */
  int32_t nsteps, step;
  dlc_span *spans;                           /* the caller's trace, or NULL */
  int32_t nspans;
};

int32_t pool_affinity(void);                 /* CPUs that this process may use */
void pool_start(dlc_rt *rt);                 /* at the start of a run: makes what is missing */
void pool_stop(dlc_rt *rt);

/* ---- memory (memory.c) ---- */
typedef struct { char *at; size_t bytes; char *mapped; size_t mapped_bytes; } Block;

bool block_new(Block *b, const dlc_opts *opts, size_t bytes);
void block_free(Block *b, const dlc_opts *opts);
const unsigned char *weights_take(const dlc_opts *opts);     /* NULL: no memory */
void weights_give(const unsigned char *weights);

/* ---- a context (ctx.c) ---- */
struct dlc_ctx {
  dlc_rt rt;
  Pool pool;
  dlc_opts opts;
  _Atomic uint32_t busy;
  bool fixed;                                /* in the caller's memory: cannot grow */
  bool planned;                              /* `plan` is that of `bound` */
  Block self, memory;                        /* memory: arena, then scratch */
  bool zeroed;                               /* what the plan wants to be zero before the first run is */
  const unsigned char *weights;
  int64_t *bound, *syms, *plan;              /* symbols from the inputs; those for main to change; the plan */
  void **io;
  const DLTensor **in;
  DLTensor **out;
  char error[RT_ERROR_BYTES];
};

size_t rt_scratch_stride(const int64_t *plan);                           /* from thread to thread */
bool rt_memory_bytes(const int64_t *plan, int32_t threads, size_t *bytes);   /* false: overflow */
bool ctx_reserve(dlc_ctx *ctx, size_t bytes);                            /* ctx->memory has as many */
int64_t rt_output_dims(void);                                            /* of all outputs together */

/* ---- messages (text.c): into a buffer of fixed size, cut where it ends ---- */
typedef struct { char *at, *end; } Text;
Text text_new(char *buffer, size_t n);
void text_add(Text *t, const char *s);
void text_int(Text *t, int64_t v);
void text_dims(Text *t, const int64_t *dims, const char *const *names, int32_t rank);   /* "[2,N,?]"; names or NULL */
void text_dtype(Text *t, DLDataType d);

#endif
