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

static bool wants_copy(const dlc_opts *opts) { return opts->flags & DLC_COPY_WEIGHTS && dlc_rt_this.weights_bytes; }

const unsigned char *weights_take(const dlc_opts *opts) {
  const dlc_rt_desc *d = &dlc_rt_this;
  static const unsigned char none[RT_ALIGN];
  if (!wants_copy(opts)) return d->weights ? d->weights : none;
  shared_lock();
  if (!shared.users && map_pages(&shared.copy, d->weights_bytes, true)) {
    memcpy(shared.copy.at, d->weights, d->weights_bytes);
    uintptr_t first = up((uintptr_t)d->weights, 4096), last = ((uintptr_t)d->weights + d->weights_bytes) / 4096 * 4096;
    if (first < last)
      madvise((void *)first, last - first, SYS_MADV_DONTNEED); /* pages of the file: read again if touched */
  }
  if (shared.copy.at) shared.users++;
  const unsigned char *weights = (const unsigned char *)shared.copy.at;
  shared_unlock();
  return weights;
}

void weights_give(const dlc_opts *opts) {
  if (!wants_copy(opts)) return;
  shared_lock();
  if (!--shared.users) block_free(&shared.copy, opts);
  shared_unlock();
}
