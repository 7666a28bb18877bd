/* pool.c - fork and join: workers spin a little, then sleep; work is split once, by thread number, so that a thread
 * sees the same rows from kernel to kernel and no result depends on timing. */
#include "rt.h"

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, SYS_FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, SYS_FUTEX_WAKE_PRIVATE, RT_MAX_THREADS, NULL, NULL, 0);
}

static uint64_t now_ns(void) {
  struct sys_time t;
  clock_gettime(SYS_CLOCK_MONOTONIC, &t);
  return (uint64_t)t.s * 1000000000u + (uint64_t)t.ns;
}

/* Waits until *word is not `old`; false if it still is when the time to spin is over. Who waits longer than a few
 * microseconds lets others run in between: when CPUs are short, the one waited for may be behind us on ours. */
static bool spin(_Atomic uint32_t *word, uint32_t old, int32_t us) {
  for (uint64_t end = 0, now = 0; now <= end; now = now_ns()) {
    for (int i = 0; i < 32; i++) {
      if (atomic_load_explicit(word, memory_order_acquire) != old) return true;
      if (us < 0) return false;
      cpu_pause();
    }
    if (end) syscall(SYS_sched_yield);
    else end = now_ns() + (uint64_t)(us ? us : RT_SPIN_US) * 1000;
  }
  return false;
}

static int64_t piece(int64_t total, int32_t t, int32_t threads) {
  return total / threads * t + total % threads * t / threads;
}

/* ---- profile and trace ---- */
static const char *kernel_name(dlc_rt_kernel *k) {
  for (int64_t i = 0; i < dlc_rt_this.n_kernels; i++)
    if (dlc_rt_this.kernels[i] == k) return dlc_rt_this.kernel_names[i];
  return "";
}

static void step_done(dlc_rt *rt, dlc_rt_kernel *k, uint64_t start) {
  int32_t i = rt->step++;
  if (!rt->steps || i >= rt->nsteps) return;
  rt->steps[i].ns += now_ns() - start;
  rt->steps[i].calls++;
  rt->steps[i].name = kernel_name(k);
}

/* Runs lo..hi of the step at hand as thread t. */
static void run_kernel(dlc_rt *rt, dlc_rt_kernel *k, void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, int32_t t) {
  dlc_span span = {.start_ns = rt->spans ? now_ns() : 0};
  int64_t at = (int64_t)rt->step * rt->threads + t;
  k(bufs, syms, lo, hi, rt->scratch + rt->scratch_stride * (size_t)t);
  if (!rt->spans || at >= rt->nspans) return;
  span.end_ns = now_ns();
  span.name = kernel_name(k);
  rt->spans[at] = span;
}

static void run_piece(dlc_rt *rt, const Pool *p, int32_t t, int32_t threads) {
  run_kernel(rt, p->kernel, p->bufs, p->syms, piece(p->total, t, threads), piece(p->total, t + 1, threads), t);
}

enum { CPUS = 8192, WORD = 8 * sizeof(long) };
typedef struct { unsigned long bits[CPUS / WORD]; } CpuMask;

static bool mask_has(const CpuMask *m, int32_t cpu) { return m->bits[(size_t)cpu / WORD] >> (size_t)cpu % WORD & 1; }

static void run_on(int32_t cpu) {
  CpuMask one = {{0}};
  one.bits[(size_t)cpu / WORD] = 1ul << (size_t)cpu % WORD;
  syscall(SYS_sched_setaffinity, 0, sizeof one, &one);
}

/* Puts a worker on a CPU of its own. Afterwards it may go where it likes. */
static void spread(int32_t home, int32_t index) {
  CpuMask all = {{0}};
  int32_t found = 0;
  if (home >= CPUS || syscall(SYS_sched_getaffinity, 0, sizeof all, &all) <= 0) return;
  for (int32_t i = 1; i < CPUS; i++) {
    int32_t cpu = (home + i) % CPUS;
    if (!mask_has(&all, cpu) || ++found != index) continue;
    run_on(cpu);
    syscall(SYS_sched_setaffinity, 0, sizeof all, &all);
    return;
  }
}

static void place(const dlc_opts *opts, int32_t home, int32_t index) {
  if (!opts->cpus || opts->n_cpus <= 0) {
    spread(home, index);
    return;
  }
  int32_t cpu = opts->cpus[index % opts->n_cpus];
  if (cpu >= 0 && cpu < CPUS) run_on(cpu);
}

/* Once a run: the kernel wakes a worker on the caller's CPU at times and leaves it there, since both give way while they
 * wait for each other. */
static void leave_caller(Worker *w, Pool *p) {
  uint32_t cpu;
  if (w->run == p->run || w->index >= p->cpus) return;
  w->run = p->run;
  if (!w->rt->opts->cpus && !syscall(SYS_getcpu, &cpu, NULL, NULL) && cpu == atomic_load(&p->home)) spread((int32_t)cpu, w->index);
}

static void *worker_main(void *arg) {
  Worker *w = arg;
  dlc_rt *rt = w->rt;
  Pool *p = rt->pool;
  fp_set((rt->opts->flags & DLC_FLUSH_DENORMALS) != 0);
  place(rt->opts, (int32_t)atomic_load(&p->home), w->index);
  for (uint32_t seen = w->seen;;) {
    while (!spin(&p->epoch, seen, rt->opts->spin_us)) {
      atomic_fetch_add(&p->sleepers, 1);
      futex_wait(&p->epoch, seen);
      atomic_fetch_sub(&p->sleepers, 1);
    }
    seen = atomic_load_explicit(&p->epoch, memory_order_acquire);
    int32_t threads = (int32_t)(seen & RT_MAX_THREADS);
    if (w->index >= threads) continue;
    if (!p->kernel) return NULL;
    leave_caller(w, p);
    run_piece(rt, p, w->index, threads);
    atomic_store(&w->done, seen);
    if (atomic_load(&p->waiting)) futex_wake(&w->done);
  }
}

/* Tells the first `threads` threads that a job is there. */
static uint32_t announce(Pool *p, int32_t threads) {
  uint32_t epoch = ((atomic_load_explicit(&p->epoch, memory_order_relaxed) | RT_MAX_THREADS) + 1) | (uint32_t)threads;
  atomic_store(&p->epoch, epoch);
  if (atomic_load(&p->sleepers)) futex_wake(&p->epoch);
  return epoch;
}

static void wait_done(Pool *p, Worker *w, uint32_t epoch, int32_t us) {
  for (;;) {
    uint32_t done = atomic_load_explicit(&w->done, memory_order_acquire);
    if (done == epoch) return;
    if (spin(&w->done, done, us)) continue;
    atomic_store(&p->waiting, 1);
    if (atomic_load(&w->done) == done) futex_wait(&w->done, done);
    atomic_store(&p->waiting, 0);
  }
}

/* With the host's threads: piece i is task i. */
static void host_task(void *arg, int32_t i) {
  dlc_rt *rt = arg;
  FpMode before = fp_set((rt->opts->flags & DLC_FLUSH_DENORMALS) != 0);
  run_piece(rt, rt->pool, i, rt->pool->live);
  fp_put(before);
}

static void split(dlc_rt *rt, int32_t threads) {
  Pool *p = rt->pool;
  if (rt->opts->parallel_for) {
    p->live = threads;
    rt->opts->parallel_for(rt->opts->parallel_user, threads, host_task, rt);
    return;
  }
  uint32_t epoch = announce(p, threads);
  run_piece(rt, p, 0, threads);
  for (int32_t t = 1; t < threads; t++) wait_done(p, &p->workers[t], epoch, rt->opts->spin_us);
}

/* ---- what main calls ---- */
void dlc_rt_serial(dlc_rt *rt, dlc_rt_kernel *k, void *const *bufs, const int64_t *syms, int64_t total) {
  uint64_t start = rt->steps ? now_ns() : 0;
  run_kernel(rt, k, bufs, syms, 0, total, 0);
  step_done(rt, k, start);
}

void dlc_rt_parallel(dlc_rt *rt, dlc_rt_kernel *k, void *const *bufs, const int64_t *syms, int64_t total) {
  Pool *p = rt->pool;
  int32_t threads = !p ? 1 : rt->opts->parallel_for ? rt->threads : p->live;
  if (threads > total) threads = (int32_t)total;
  if (threads <= 1) {
    dlc_rt_serial(rt, k, bufs, syms, total);
    return;
  }
  uint64_t start = rt->steps ? now_ns() : 0;
  p->kernel = k, p->bufs = bufs, p->syms = syms, p->total = total;
  split(rt, threads);
  step_done(rt, k, start);
}

/* ---- life ---- */
int32_t pool_affinity(void) {
  CpuMask mask = {{0}};
  int32_t n = 0;
  syscall(SYS_sched_getaffinity, 0, sizeof mask, &mask);
  for (int32_t i = 0; i < CPUS; i++) n += mask_has(&mask, i);
  return n < 1 ? 1 : n > RT_MAX_THREADS ? RT_MAX_THREADS : n;
}

void pool_start(dlc_rt *rt) {
  Pool *p = rt->pool;
  if (!p || rt->opts->parallel_for) return;
  long pid = syscall(SYS_getpid);
  uint32_t cpu = 0;
  syscall(SYS_getcpu, &cpu, NULL, NULL);
  atomic_store(&p->home, cpu);
  p->run++;
  if (p->pid == pid) return;
  atomic_store(&p->sleepers, 0); /* after a fork the workers are the parent's */
  p->pid = pid;
  p->cpus = pool_affinity();
  p->live = 1;
  if (!pthread_create || !pthread_join) return;
  uint64_t all = ~(uint64_t)0, before; /* the application's signals are for the application's threads */
  syscall(SYS_rt_sigprocmask, SYS_SIG_SETMASK, &all, &before, sizeof all);
  for (; p->live < rt->threads; p->live++) {
    Worker *w = &p->workers[p->live];
    w->rt = rt, w->index = p->live, w->seen = atomic_load(&p->epoch);
    if (pthread_create(&w->thread, NULL, worker_main, w)) break;
  }
  syscall(SYS_rt_sigprocmask, SYS_SIG_SETMASK, &before, NULL, sizeof all);
}

void pool_stop(dlc_rt *rt) {
  Pool *p = rt->pool;
  if (!p || rt->opts->parallel_for || p->pid != syscall(SYS_getpid)) return;
  p->kernel = NULL;
  announce(p, p->live);
  for (int32_t t = 1; t < p->live; t++) pthread_join(p->workers[t].thread, NULL);
  p->pid = 0;
}
