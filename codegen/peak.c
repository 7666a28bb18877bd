/* peak.c - two kernels in tensor IR, emitted for this machine as those of a model are: multiply-adds on registers, and sums over an array. */
#define _GNU_SOURCE
#include "peak.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../ir/diag.h"
#include "codegen.h"

enum { STEPS = 20000, STRETCHES = 4, STRETCH_MS = 6, MOST_THREADS = 1024 };

/* One kernel on all threads: thread t runs iteration t again and again. */
typedef struct {
  const Native *native;
  void *params[3];
  int64_t dims[1];
  double work;                     /* of an iteration */
  _Atomic int ready, go;
  double rate[MOST_THREADS];
} Race;
typedef struct { Race *race; int index; } Runner;

/* Of this thread: what others take of its CPU is not what the CPU can do. */
static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *run_stretch(void *user) {
  Runner *me = user;
  Race *r = me->race;
  int64_t calls = 0;
  native_run(r->native, r->params, r->dims, me->index, me->index + 1, NULL);
  atomic_fetch_add(&r->ready, 1);
  while (!atomic_load(&r->go)) sched_yield();
  double start = seconds(), now;
  do {
    native_run(r->native, r->params, r->dims, me->index, me->index + 1, NULL);
    calls++;
  } while ((now = seconds()) < start + STRETCH_MS * 1e-3);
  r->rate[me->index] = (double)calls * r->work / (now - start);
  return NULL;
}

/* All threads begin together. */
static double stretch(Ctx *c, Race *r, int threads) {
  pthread_t id[MOST_THREADS];
  Runner runner[MOST_THREADS];
  int n = 0;
  double sum = 0;
  atomic_store(&r->ready, 0);
  atomic_store(&r->go, 0);
  for (; n < threads; n++) {
    runner[n] = (Runner){r, n};
    if (pthread_create(&id[n], NULL, run_stretch, &runner[n])) break;
  }
  while (atomic_load(&r->ready) < n) sched_yield();
  atomic_store(&r->go, 1);
  for (int t = 0; t < n; t++) pthread_join(id[t], NULL);
  if (n < threads) diag_fail(c, E0601, NULL, NULL, "cannot start %d threads", threads);
  for (int t = 0; t < n; t++) sum += r->rate[t];
  return sum;
}

static double best_rate(Ctx *c, Race *r, int threads) {
  double best = 0;
  for (int i = 0; i < STRETCHES; i++) best = MAX(best, stretch(c, r, threads));
  return best;
}

static Native *load_text(Module *h, const char *text) {
  Kernel *k = kernel_parse(h->c, text);
  kernel_verify(h->c, k);
  return native_load(h, k);
}

/* As many accumulators as hide the latency of the multiply-adds, with registers left for the factors. */
static double measure_flops(Module *h, int threads) {
  int lanes = target_lanes(h->target, 32), n = h->target->vector_regs * 3 / 4;
  const char *text = ctx_printf(h->c,
    "kernel peak_flops(x: f32[%d], y: f32[%d], out o: f32[%d]) {\n"
    "  parallel p < %d { alloc reg acc: f32[%d] {\n"
    "    unroll i < %d { vector v:%d < %d { acc{i*%d + v} = 0.0f } }\n"
    "    for k < %d { unroll a < %d { vector b:%d < %d { acc{a*%d + b} sum= x{b}*y{b} } } }\n"
    "    unroll j < %d { vector w:%d < %d { o{p*%d + j*%d + w} = acc{j*%d + w} } }\n"
    "  } }\n}\n",
    lanes, lanes, threads * n * lanes, threads, n * lanes, n, lanes, lanes, lanes, STEPS, n, lanes, lanes, lanes, n, lanes, lanes, n * lanes, lanes, lanes);
  Race r = {.native = load_text(h, text), .work = 2.0 * STEPS * n * lanes};
  for (int i = 0; i < 3; i++) {
    r.params[i] = aligned_alloc(64, (size_t)round_up((int64_t)threads * n * lanes * 4, 64));
    if (!r.params[i]) diag_fail(h->c, E0601, NULL, NULL, "no memory");
    memset(r.params[i], 0, (size_t)threads * (size_t)(n * lanes) * 4);
  }
  double rate = best_rate(h->c, &r, threads);
  for (int i = 0; i < 3; i++) free(r.params[i]);
  return rate;
}

static double measure_reads(Module *h, const Native *native, int threads, int block, int64_t bytes, float *memory) {
  float *sums = aligned_alloc(64, (size_t)round_up((int64_t)threads * block * 4, 64));
  if (!sums) diag_fail(h->c, E0601, NULL, NULL, "no memory");
  Race r = {.native = native, .params = {memory, sums}};
  r.dims[0] = MAX(bytes / threads / block / 4, 1);
  r.work = (double)r.dims[0] * block * 4;
  double rate = best_rate(h->c, &r, threads);
  free(sums);
  return rate;
}

/* How many caches of that level so many threads can have. */
static int caches_of(Ctx *c, int level, int threads) {
  int sharers;
  target_host_cache(c, level, &sharers);
  return MIN(threads, MAX((int)sysconf(_SC_NPROCESSORS_ONLN) / sharers, 1));
}

static void measure_levels(Module *h, int threads, Peak *p) {
  int lanes = target_lanes(h->target, 32), n = h->target->vector_regs / 2, block = n * lanes;
  int64_t l2 = h->target->l2_bytes * caches_of(h->c, 2, threads);
  int64_t l3 = MAX(h->target->l3_bytes * caches_of(h->c, 3, threads), l2);
  int64_t large = MIN(MAX(4 * l3, (int64_t)64 << 20), (int64_t)1 << 30);
  const char *text = ctx_printf(h->c,
    "kernel peak_reads(x: f32[%d,K,%d], out o: f32[%d,%d]; K=1..1000000000) {\n"
    "  parallel p < %d { alloc reg acc: f32[%d] {\n"
    "    unroll i < %d { vector v:%d < %d { acc{i*%d + v} = 0.0f } }\n"
    "    for k < K { unroll a < %d { vector b:%d < %d { acc{a*%d + b} sum= x{p*K*%d + k*%d + a*%d + b} } } }\n"
    "    unroll j < %d { vector w:%d < %d { o{p*%d + j*%d + w} = acc{j*%d + w} } }\n"
    "  } }\n}\n",
    threads, block, threads, block, threads, block, n, lanes, lanes, lanes, n, lanes, lanes, lanes, block, block, lanes, n, lanes, lanes, block, lanes, lanes);
  Native *native = load_text(h, text);
  void *memory = mmap(NULL, (size_t)large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) diag_fail(h->c, E0601, NULL, NULL, "no memory for %lld bytes", (long long)large);
  madvise(memory, (size_t)large, MADV_HUGEPAGE);
  memset(memory, 0, (size_t)large);
  p->level[0] = (PeakLevel){"L2", l2, measure_reads(h, native, threads, block, l2 / 2, memory)};
  p->level[1] = (PeakLevel){"L3", l3, measure_reads(h, native, threads, block, MIN(3 * l2, l3 / 2), memory)};
  p->level[2] = (PeakLevel){"memory", INT64_MAX, measure_reads(h, native, threads, block, large, memory)};
  for (int i = PEAK_LEVELS - 2; i >= 0; i--) p->level[i].rate = MAX(p->level[i].rate, p->level[i + 1].rate);   /* nearer is not slower */
  munmap(memory, (size_t)large);
  native_free(native);
}

Peak peak_measure(Ctx *c, int threads) {
  Options options = {.jobs = 1};
  Module h = {.c = c, .opt = &options, .target = target_find(c, "host"), .notes = str_new(c)};
  Peak p = {.threads = MIN(MAX(threads, 1), MOST_THREADS)};
  p.flops = measure_flops(&h, p.threads);
  measure_levels(&h, p.threads, &p);
  return p;
}
