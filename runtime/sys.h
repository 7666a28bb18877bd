/* sys.h - the little of libc and Linux that the runtime uses, declared here: the runtime is compiled for machines whose
 * headers are not at hand. libc.def lists the same names for the linker. */
#ifndef DLC_SYS_H
#define DLC_SYS_H

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset);
int munmap(void *at, size_t bytes);
int madvise(void *at, size_t bytes, int advice);
long syscall(long number, ...);

struct sys_time { long s, ns; };
int clock_gettime(int clock, struct sys_time *t);

/* Weak: before glibc 2.34 they are in libpthread, which the application may lack; then a context has one thread. */
__attribute__((weak)) int pthread_create(unsigned long *thread, const void *attr, void *(*main)(void *), void *arg);
__attribute__((weak)) int pthread_join(unsigned long thread, void **result);

enum {
  SYS_PROT_READ_WRITE = 3, SYS_MAP_PRIVATE_ANON = 0x22, SYS_MADV_DONTNEED = 4, SYS_AT_FDCWD = -100, SYS_MADV_HUGEPAGE = 14,
  SYS_CLOCK_MONOTONIC = 1, SYS_SIG_SETMASK = 2, SYS_FUTEX_WAIT_PRIVATE = 128, SYS_FUTEX_WAKE_PRIVATE = 129,
#if defined(__x86_64__)
  SYS_read = 0, SYS_close = 3, SYS_openat = 257,
  SYS_rt_sigprocmask = 14, SYS_sched_yield = 24, SYS_getpid = 39, SYS_futex = 202, SYS_sched_setaffinity = 203,
  SYS_sched_getaffinity = 204, SYS_getcpu = 309
#elif defined(__aarch64__)
  SYS_read = 63, SYS_close = 57, SYS_openat = 56,
  SYS_rt_sigprocmask = 135, SYS_sched_yield = 124, SYS_getpid = 172, SYS_futex = 98, SYS_sched_setaffinity = 122,
  SYS_sched_getaffinity = 123, SYS_getcpu = 168
#elif defined(__arm__)
  SYS_read = 3, SYS_close = 6, SYS_openat = 322,
  SYS_rt_sigprocmask = 175, SYS_sched_yield = 158, SYS_getpid = 20, SYS_futex = 240, SYS_sched_setaffinity = 241,
  SYS_sched_getaffinity = 242, SYS_getcpu = 345
#else
#error "no system call numbers for this machine"
#endif
};

/* ---- the processor ---- */
static inline void cpu_pause(void) {
#if defined(__x86_64__)
  __asm__ volatile("pause");
#else
  __asm__ volatile("yield");
#endif
}

/* The floating-point mode: IEEE 754 with traps masked and rounding to nearest, denormals flushed if asked. */
typedef uint32_t FpMode;

static inline void fp_put(FpMode mode) {
#if defined(__x86_64__)
  __asm__ volatile("ldmxcsr %0" : : "m"(mode));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode));
#else
  __asm__ volatile("vmsr fpscr, %0" : : "r"(mode));
#endif
}

static inline FpMode fp_set(int flush_denormals) {       /* returns the mode before */
  FpMode before;
#if defined(__x86_64__)
  __asm__ volatile("stmxcsr %0" : "=m"(before));
  fp_put(flush_denormals ? 0x9fc0 : 0x1f80);
#else
#if defined(__aarch64__)
  uint64_t wide;
  __asm__ volatile("mrs %0, fpcr" : "=r"(wide));
  before = (FpMode)wide;
#else
  __asm__ volatile("vmrs %0, fpscr" : "=r"(before));
#endif
  fp_put(flush_denormals ? 1u << 24 : 0);
#endif
  return before;
}

#endif
