/* blob.c - see blob.h. */
#include "blob.h"

#include "ctx.h"

enum { UNIT = 64 };

typedef struct { uint64_t hash; const char *bytes; size_t n; bool checked; } Blob;
typedef struct { Map by_hash, by_place; VEC(Blob *) list; } Blobs;
typedef struct { char magic[8]; uint64_t hash, n, zero[5]; } Head;

static Blobs *blobs_of(Ctx *c) {
  Blobs *b = c->slots[SLOT_BLOBS];
  if (b) return b;
  c->slots[SLOT_BLOBS] = b = NEW(c, Blobs);
  b->by_hash = map_new(c);
  b->by_place = map_new(c);
  return b;
}

static uint64_t hash_of(const char *bytes, size_t n) {
  uint64_t h = 0xcbf29ce484222325u ^ n, word;
  for (; n; bytes += MIN(n, sizeof word), n -= MIN(n, sizeof word)) {
    word = 0;
    memcpy(&word, bytes, MIN(n, sizeof word));
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
  }
  return h;
}

static void add(Ctx *c, Blobs *b, Blob blob) {
  if (map_get(&b->by_hash, blob.hash)) return;
  Blob *kept = ctx_copy(c, &blob, sizeof blob);
  map_set(&b->by_hash, blob.hash, kept);
  vec_push(c, &b->list, kept);
}

uint64_t blob_note(Ctx *c, const void *bytes, size_t n) {
  Blobs *b = blobs_of(c);
  const Blob *known = map_get(&b->by_place, KEY(bytes));
  if (known && known->n == n) return known->hash;
  Blob *blob = NEW(c, Blob);
  *blob = (Blob){.hash = hash_of(bytes, n), .bytes = bytes, .n = n, .checked = true};
  ctx_release(c, bytes, n);
  map_set(&b->by_place, KEY(bytes), blob);
  add(c, b, *blob);
  return blob->hash;
}

const void *blob_find(Ctx *c, uint64_t hash, size_t n) {
  Blob *b = map_get(&blobs_of(c)->by_hash, hash);
  if (!b || b->n != n) return NULL;
  if (!b->checked && hash_of(b->bytes, n) != hash) return NULL;
  if (!b->checked) ctx_release(c, b->bytes, n);
  b->checked = true;
  return b->bytes;
}

int blob_count(const Ctx *c) {
  const Blobs *b = c->slots[SLOT_BLOBS];
  return b ? b->list.n : 0;
}

bool blob_store(const Ctx *c, int from, FILE *to) {
  static const char zeros[UNIT];
  const Blobs *b = c->slots[SLOT_BLOBS];
  for (int i = from; i < blob_count(c); i++) {
    const Blob *x = b->list.v[i];
    Head h = {.magic = BLOB_MAGIC, .hash = x->hash, .n = x->n};
    size_t fill = (UNIT - x->n % UNIT) % UNIT;
    if (fwrite(&h, sizeof h, 1, to) != 1 || fwrite(x->bytes, 1, x->n, to) != x->n || fwrite(zeros, 1, fill, to) != fill) return false;
    ctx_release(c, x->bytes, x->n);
  }
  return true;
}

bool blob_load(Ctx *c, const void *file, size_t n) {
  Blobs *b = blobs_of(c);
  const char *p = file;
  while (n) {
    Head h;
    if (n < sizeof h) return false;
    memcpy(&h, p, sizeof h);
    p += sizeof h, n -= sizeof h;
    if (memcmp(h.magic, BLOB_MAGIC, sizeof h.magic) != 0 || h.n > n) return false;
    add(c, b, (Blob){.hash = h.hash, .bytes = p, .n = h.n});
    size_t step = MIN(n, (size_t)round_up((int64_t)h.n, UNIT));
    p += step, n -= step;
  }
  return true;
}
