/* ctx.c - the compile context: a chunked arena, deferred closers, interned strings, growable arrays and maps.
 *
 * Everything a compile allocates lies in the arena and goes with ctx_free. Memory comes from calloc, so that large
 * fresh chunks are zero pages that cost nothing until they are touched. */
#include "ctx.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FIRST_CHUNK = 64 << 10, LARGEST_CHUNK = 4 << 20, ALIGN = 16 };
#define CHUNK_HEAD ((sizeof(Chunk) + ALIGN - 1) / ALIGN * ALIGN)

/* The list of diagnostics has room for this one before memory runs out. */
static _Noreturn void out_of_memory(Ctx *c, size_t bytes) {
  static char text[64];
  snprintf(text, sizeof text, "out of memory (asked for %zu bytes)", bytes);
  Diags *d = &c->diags;
  if (d->list.n == d->list.cap) d->list.n--;
  d->list.v[d->list.n++] = (Diag){E0601, text, NULL};
  if (d->armed) longjmp(d->unwind, 1);
  diag_print(c, stderr);
  exit(diag_exit_status(c));
}

static Chunk *chunk_new(Ctx *c, size_t bytes) {
  size_t want = c->chunk ? MIN(c->chunk->size * 2, (size_t)LARGEST_CHUNK) : (size_t)FIRST_CHUNK;
  if (bytes > SIZE_MAX / 2) out_of_memory(c, bytes);
  bool large = bytes + CHUNK_HEAD > want;
  if (large) want = bytes + CHUNK_HEAD;
  Chunk *k = calloc(1, want);
  if (!k) out_of_memory(c, bytes);
  k->size = want;
  k->used = CHUNK_HEAD;
  if (large && c->chunk) {         /* a chunk of its own goes behind the current one, which stays open */
    k->next = c->chunk->next;
    c->chunk->next = k;
  } else {
    k->next = c->chunk;
    c->chunk = k;
  }
  return k;
}

void *ctx_alloc(Ctx *c, size_t bytes) {
  if (bytes > SIZE_MAX / 2) out_of_memory(c, bytes);
  size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  Chunk *k = c->chunk;
  if (!k || k->size - k->used < size) k = chunk_new(c, size);
  void *p = (char *)k + k->used;
  k->used += size;
  return p;
}

Ctx *ctx_new(void) {
  Ctx *c = calloc(1, sizeof *c);
  Diag *room = c ? calloc(16, sizeof *room) : NULL;
  if (!room) {
    fputs("dlc: error[E0601]: out of memory\n", stderr);
    exit(6);
  }
  c->diags.list.v = room;
  c->diags.list.cap = 16;
  ctx_defer(c, free, room);
  c->sym_names = map_new(c);
  c->sym_last = map_new(c);
  return c;
}

void ctx_free(Ctx *c) {
  if (!c) return;
  for (int i = c->closers.n - 1; i >= 0; i--) c->closers.v[i].close(c->closers.v[i].object);
  for (int i = 0; i < c->maps.n; i++) munmap(c->maps.v[i].p, c->maps.v[i].n);
  for (Chunk *k = c->chunk, *next; k; k = next) {
    next = k->next;
    free(k);
  }
  free(c);
}

void ctx_defer(Ctx *c, void (*close)(void *), void *object) { vec_push(c, &c->closers, ((Closer){close, object})); }

const void *ctx_map(Ctx *c, int fd, size_t n) {
  void *p = n ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0) : "";
  if (p == MAP_FAILED) return NULL;
  if (n) vec_push(c, &c->maps, ((FileMap){p, n}));
  return p;
}

void ctx_release(const Ctx *c, const void *from, size_t n) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < c->maps.n; i++) {
    const FileMap *m = &c->maps.v[i];
    if ((const char *)from < m->p || (const char *)from >= m->p + m->n) continue;
    uintptr_t a = ((uintptr_t)from + page - 1) / page * page, end = (uintptr_t)from + MIN(n, (size_t)(m->p + m->n - (const char *)from));
    end = end / page * page;
    if (a < end) madvise((void *)a, end - a, MADV_DONTNEED);
  }
}

void *ctx_copy(Ctx *c, const void *from, size_t bytes) {
  void *p = ctx_alloc(c, bytes);
  if (bytes) memcpy(p, from, bytes);
  return p;
}

char *ctx_vprintf(Ctx *c, const char *fmt, va_list args) {
  va_list again;
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, fmt, args);
  char *s = ctx_alloc(c, (size_t)MAX(n, 0) + 1);
  vsnprintf(s, (size_t)MAX(n, 0) + 1, fmt, again);
  va_end(again);
  return s;
}

char *ctx_printf(Ctx *c, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *s = ctx_vprintf(c, fmt, args);
  va_end(args);
  return s;
}

void *vec_grow(Ctx *c, void *old, size_t size, int n, int *cap) {
  if (*cap > INT32_MAX / 2) out_of_memory(c, SIZE_MAX);
  *cap = *cap ? *cap * 2 : 8;
  void *v = ctx_alloc(c, size * (size_t)*cap);
  if (n) memcpy(v, old, size * (size_t)n);
  return v;
}

/* ---- interned strings: each is stored behind its length, the table holds the strings ---- */
static uint64_t hash_bytes(const char *s, size_t n) {
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
  return mix64(h);
}

static size_t interned_length(const char *s) {
  size_t n;
  memcpy(&n, s - ALIGN, sizeof n);
  return n;
}

static void strings_grow(Ctx *c) {
  uint32_t old_cap = c->cap_strings, cap = old_cap ? old_cap * 2 : 256;
  const char **old = c->strings, **t = NEW_ARRAY(c, const char *, cap);
  for (uint32_t i = 0; i < old_cap; i++) {
    if (!old[i]) continue;
    uint32_t at = (uint32_t)hash_bytes(old[i], interned_length(old[i])) & (cap - 1);
    while (t[at]) at = (at + 1) & (cap - 1);
    t[at] = old[i];
  }
  c->strings = t;
  c->cap_strings = cap;
}

const char *ctx_intern_n(Ctx *c, const char *s, size_t n) {
  if (2 * (c->nstrings + 1) > c->cap_strings) strings_grow(c);
  uint32_t at = (uint32_t)hash_bytes(s, n) & (c->cap_strings - 1);
  for (; c->strings[at]; at = (at + 1) & (c->cap_strings - 1))
    if (interned_length(c->strings[at]) == n && !memcmp(c->strings[at], s, n)) return c->strings[at];
  char *p = (char *)ctx_alloc(c, n + 1 + ALIGN) + ALIGN;
  memcpy(p - ALIGN, &n, sizeof n);
  memcpy(p, s, n);
  c->nstrings++;
  return c->strings[at] = p;
}

const char *ctx_intern(Ctx *c, const char *s) { return ctx_intern_n(c, s, strlen(s)); }

int ctx_serial(Ctx *c) { return ++c->nserials; }

/* ---- maps: entries in the order of insertion, found through a table of their numbers plus one ---- */
Map map_new(Ctx *c) { return (Map){.ctx = c}; }

static int32_t *map_slot(const Map *m, uint64_t key) {
  uint32_t mask = (uint32_t)m->nslots - 1, at = (uint32_t)mix64(key) & mask;
  while (m->slots[at] && m->entries.v[m->slots[at] - 1].key != key) at = (at + 1) & mask;
  return &m->slots[at];
}

void *map_get(const Map *m, uint64_t key) {
  if (!m->nslots) return NULL;
  int32_t at = *map_slot(m, key);
  return at ? m->entries.v[at - 1].value : NULL;
}

void map_set(Map *m, uint64_t key, void *value) {
  if (2 * (m->entries.n + 1) > m->nslots) {
    m->nslots = m->nslots ? m->nslots * 2 : 16;
    m->slots = NEW_ARRAY(m->ctx, int32_t, m->nslots);
    for (int i = 0; i < m->entries.n; i++) *map_slot(m, m->entries.v[i].key) = i + 1;
  }
  int32_t *at = map_slot(m, key);
  if (*at) {
    m->entries.v[*at - 1].value = value;
  } else {
    vec_push(m->ctx, &m->entries, ((MapEntry){key, value}));
    *at = m->entries.n;
  }
}
