/* weights.c - pass_weights: where every constant lies, in execution order, each once; weights_write puts them there.
 *
 * Before: SCOPE_NONE tensors with row-major data, some with a layout that a schedule asked for. After: SCOPE_CONST with an offset; the
 * bytes go straight into the output file once it is linked, some rows at a time on all threads, and the model's pages go as they are read:
 * a model is never in memory as a whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "passes.h"
#include "storage.h"
#include "threads.h"

enum { WEIGHT_ALIGN = 64, SLICE = 1 << 20 };

typedef struct { Module *m; Map seen; } Packer;

static const char *identity(Ctx *c, const Tensor *t) {
  const void *what = t->data->stage ? (const void *)t->data->stage : t->data->bytes;
  return ctx_intern(c, ctx_printf(c, "%p %d %s %s", what, t->data->splat, tensor_type_text(c, t), layout_text(c, t->layout)));
}

static void place(Packer *p, Tensor *t) {
  Module *m = p->m;
  if (!t->data || t->offset) return;
  t->scope = SCOPE_CONST;
  const char *id = identity(m->c, t);
  Tensor *same = map_get(&p->seen, KEY(id));
  if (same) { t->offset = same->offset; return; }
  map_set(&p->seen, KEY(id), t);
  int64_t end;
  t->offset = ex_int(m->c, m->weight_bytes);
  if (!storage_bytes(m->c, t, &end) || !add_ok(m->weight_bytes, end + WEIGHT_ALIGN, &end)) diag_fail(m->c, E0308, NULL, NULL, "the constants are too large");
  m->weight_bytes = end / WEIGHT_ALIGN * WEIGHT_ALIGN;
  vec_push(m->c, &m->consts, t);
}

static void place_calls(Packer *p, const Stmt *s) {
  if (s->op == ST_CALL)
    for (int i = 0; i < s->kernel->nparams; i++) place(p, s->args[i]);
  if (s->op == ST_IF && s->value->op == EX_FETCH) place(p, s->value->u.tensor);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) place_calls(p, s->body[i]);
}

void pass_weights(Module *m) {
  Packer p = {m, map_new(m->c)};
  place_calls(&p, m->program);
}

/* ---- writing ---- */
typedef struct { Storage storage; int64_t at, left; } Item;
typedef struct { Item *item; int64_t row, end; } Slice;
typedef struct {
  Module *m;
  VEC(Slice) slices;
  int64_t next, largest;
  int fd, error;
  uint64_t digest;
} Writer;

/* The same whatever the order of the slices: a sum over them. */
static uint64_t digest_of(const unsigned char *p, int64_t n, int64_t at) {
  uint64_t lane[4] = {(uint64_t)at, 1, 2, 3}, word;
  for (; n >= 32; p += 32, n -= 32)
    for (int i = 0; i < 4; i++) {
      memcpy(&word, p + 8 * i, 8);
      lane[i] = (lane[i] ^ word) * 0x9e3779b97f4a7c15u;
      lane[i] ^= lane[i] >> 29;
    }
  for (int64_t i = 0; i < n; i++) lane[0] = (lane[0] ^ p[i]) * 0x100000001b3u;
  uint64_t h = 0;
  for (int i = 0; i < 4; i++) h = (h ^ lane[i] ^ lane[i] >> 32) * 0xbf58476d1ce4e5b9u;
  return h ^ h >> 31;
}

static int write_all(int fd, const char *p, int64_t n, int64_t at) {
  for (ssize_t done; n; p += done, at += done, n -= done) {
    done = pwrite(fd, p, (size_t)n, at);
    if (done < 0 && errno == EINTR) done = 0;
    else if (done <= 0) return done ? errno : EIO;
  }
  return 0;
}

/* The pages of the model that nobody reads again soon. */
static void let_go(const Writer *w, const Slice *s) {
  const Storage *st = &s->item->storage;
  if (!__atomic_sub_fetch(&s->item->left, 1, __ATOMIC_ACQ_REL)) ctx_release(w->m->c, st->from, (size_t)st->from_bytes);
  else ctx_release(w->m->c, st->from + s->row * st->from_row, (size_t)((s->end - s->row) * st->from_row));
}

static void write_slices(void *user) {
  Writer *w = user;
  char *buffer = malloc((size_t)w->largest + 64);
  uint64_t digest = 0;
  int error = buffer ? 0 : ENOMEM;
  for (int64_t i; !error && (i = threads_take(&w->next)) < w->slices.n;) {
    const Slice *s = &w->slices.v[i];
    const Storage *st = &s->item->storage;
    int64_t at = s->item->at + s->row * st->row_bytes, n = (s->end - s->row) * st->row_bytes;
    const char *from = st->value ? st->value + s->row * st->row_bytes : buffer;
    if (!st->value && !storage_fill(w->m, st, s->row, s->end - s->row, buffer)) error = ENOMEM;
    digest += digest_of((const unsigned char *)from, n, at);
    if (!error) error = write_all(w->fd, from, n, at);
    let_go(w, s);
  }
  free(buffer);
  if (error) __atomic_store_n(&w->error, error, __ATOMIC_RELAXED);
  __atomic_fetch_add(&w->digest, digest, __ATOMIC_RELAXED);
}

static void run_slices(Writer *w) {
  w->next = 0;
  threads_run(threads_wanted(w->m, w->slices.n), write_slices, w);
  w->slices.n = 0;
  w->largest = 0;
}

static void add_slices(Writer *w, Item *it) {
  const Storage *s = &it->storage;
  int64_t step = MAX(SLICE / MAX(s->row_bytes, 1), 1);
  for (int64_t row = 0, end; row < s->rows; row = end, it->left++) {
    end = MIN(row + step, s->rows);
    vec_push(w->m->c, &w->slices, ((Slice){it, row, end}));
  }
  if (!s->value) w->largest = MAX(w->largest, MIN(step, s->rows) * s->row_bytes);
}

/* What cannot be made row by row is made as a whole, used, and gone again. */
static void write_made(Writer *w, Item *it) {
  StorageLoan whole = storage_borrow(w->m, &it->storage);
  it->storage.value = whole.at;
  add_slices(w, it);
  run_slices(w);
  storage_give_back(&whole);
}

static bool is_whole(const Item *it) { return !it->storage.value && !it->storage.by_rows; }

bool weights_write(Module *m, int fd, int64_t at, uint64_t *digest) {
  Writer w = {.m = m, .fd = fd};
  Item *items = NEW_ARRAY(m->c, Item, m->consts.n + 1);
  for (int i = 0; i < m->consts.n; i++) {
    items[i].storage = storage_of(m, m->consts.v[i]);
    if (!ex_is_int(m->consts.v[i]->offset, &items[i].at)) diag_bug(m->c, "constant without an offset");
    items[i].at += at;
    if (!is_whole(&items[i])) add_slices(&w, &items[i]);
  }
  run_slices(&w);
  for (int i = 0; i < m->consts.n && !w.error; i++)
    if (is_whole(&items[i])) write_made(&w, &items[i]);
  *digest = w.digest;
  errno = w.error;
  return !w.error;
}
