/* memory.c - blocks of memory for contexts, and the copy of the weights in huge pages that the contexts of a process
 * share. */
#include "rt.h"

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static bool map_pages(Block *b, size_t bytes, bool huge) {
  size_t align = bytes >= RT_HUGE ? RT_HUGE : 4096;
  if (bytes > PTRDIFF_MAX - 2 * RT_HUGE) return false;
  size_t total = up(bytes, 4096) + (align > 4096 ? align : 0);
  char *p = mmap(NULL, total, SYS_PROT_READ_WRITE, SYS_MAP_PRIVATE_ANON, -1, 0);
  if (p == (char *)-1) return false;
  *b = (Block){(char *)up((uintptr_t)p, align), bytes, p, total};
  if (align > 4096 && huge) madvise(b->at, up(bytes, 4096), SYS_MADV_HUGEPAGE);
  return true;
}

bool block_new(Block *b, const dlc_opts *opts, size_t bytes) {
  *b = (Block){0};
  if (!bytes) return true;
  if (!opts->allocate) return map_pages(b, bytes, !(opts->flags & DLC_NO_HUGE_PAGES));
  char *p = opts->allocate(opts->memory_user, bytes, bytes >= RT_HUGE ? RT_HUGE : RT_LINE);
  if (!p || (uintptr_t)p % RT_LINE) {
    if (p && opts->release) opts->release(opts->memory_user, p, bytes);
    return false;
  }
  *b = (Block){p, bytes, NULL, 0};
  return true;
}

void block_free(Block *b, const dlc_opts *opts) {
  if (b->mapped) munmap(b->mapped, b->mapped_bytes);
  else if (b->at && opts->release) opts->release(opts->memory_user, b->at, b->bytes);
  *b = (Block){0};
}

/* The one mutable thing that contexts share; a lock that sleeps, since a copy takes milliseconds. */
static struct {
  _Atomic uint32_t lock;
  uint32_t users;
  Block copy;
} shared;

static void shared_lock(void) {
  uint32_t was = 0; /* 0 free, 1 taken, 2 taken and awaited */
  if (atomic_compare_exchange_strong(&shared.lock, &was, 1)) return;
  while (atomic_exchange(&shared.lock, 2)) syscall(SYS_futex, &shared.lock, SYS_FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

static void shared_unlock(void) {
  if (atomic_exchange(&shared.lock, 0) == 2) syscall(SYS_futex, &shared.lock, SYS_FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Does the system give huge pages to who asks for them? */
static bool has_huge_pages(void) {
  char text[64];
  long fd = syscall(SYS_openat, SYS_AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/enabled", 0), n = 0;
  if (fd < 0) return false;
  n = syscall(SYS_read, fd, text, sizeof text);
  syscall(SYS_close, fd);
  for (long i = 0; i + 7 <= n; i++)
    if (!memcmp(text + i, "[never]", 7)) return false;
  return n > 0;
}

static bool wants_copy(const dlc_opts *opts) {
  if (opts->flags & DLC_COPY_WEIGHTS) return dlc_rt_this.weights_bytes > 0;
  return !(opts->flags & (DLC_SHARE_WEIGHTS | DLC_NO_HUGE_PAGES)) && !opts->allocate && dlc_rt_this.weights_bytes >= RT_HUGE && has_huge_pages();
}

/* A part at a time, each of which the file's mapping gives back: its pages are read again if touched. */
static void copy_weights(char *to, const unsigned char *from, size_t bytes) {
  const size_t part = 4 * RT_HUGE;
  for (size_t at = 0, n; at < bytes; at += n) {
    n = bytes - at < part ? bytes - at : part;
    memcpy(to + at, from + at, n);
    uintptr_t first = up((uintptr_t)from + at, 4096), last = ((uintptr_t)from + at + n) / 4096 * 4096;
    if (first < last) madvise((void *)first, last - first, SYS_MADV_DONTNEED);
  }
}

const unsigned char *weights_take(const dlc_opts *opts) {
  const dlc_rt_desc *d = &dlc_rt_this;
  static const unsigned char none[RT_ALIGN];
  const unsigned char *mapped = d->weights ? d->weights : none;
  if (!wants_copy(opts)) return mapped;
  shared_lock();
  if (!shared.users && map_pages(&shared.copy, d->weights_bytes, true)) copy_weights(shared.copy.at, d->weights, d->weights_bytes);
  if (shared.copy.at) shared.users++;
  const unsigned char *copy = (const unsigned char *)shared.copy.at;
  shared_unlock();
  return copy || opts->flags & DLC_COPY_WEIGHTS ? copy : mapped;
}

void weights_give(const unsigned char *weights) {
  shared_lock();
  if (shared.users && weights == (const unsigned char *)shared.copy.at && !--shared.users) block_free(&shared.copy, &(dlc_opts){0});
  shared_unlock();
}
