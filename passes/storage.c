/* storage.c - see storage.h. Where the layout turns the data round, blocks of it are turned, so that both sides are met in whole cache
 * lines; where a layout pads, rows are looked at one by one. */
#include "storage.h"

#include "../ir/diag.h"

enum { ROWS_BYTES = 512 << 10, TILE = 16 };

/* ---- the plan ---- */
static void add_dim(Storage *s, StorageDim d) {
  StorageDim *last = s->n ? &s->dim[s->n - 1] : NULL;
  if (d.extent == 1) return;
  if (last && last->dim < 0 && d.dim < 0 && last->step == d.extent * d.step) {
    last->extent *= d.extent;
    last->step = d.step;
  } else {
    s->dim[s->n++] = d;
  }
}

static bool pads(const Tensor *t, const int64_t *shape, int d) {
  const Layout *l = t->layout;
  int64_t most = 0;
  for (int j = 0; j < l->n; j++) {
    int64_t whole = shape[d] + l->ring_lo[d] + l->ring_hi[d], div = l->part[j].div;
    if (l->part[j].dim == d) most += ((l->part[j].mod ? l->part[j].mod : (whole + div - 1) / div) - 1) * div;
  }
  return l->ring_lo[d] || most >= shape[d];
}

static void add_parts(Ctx *c, Storage *s, const Tensor *t, const int64_t *shape, const int64_t *stride) {
  const Layout *l = t->layout;
  int bound[MAX_RANK];
  for (int j = 0; j < l->n; j++)
    if (l->part[j].pad) diag_bug(c, "constant '%s': padded steps", t->name);
  for (int d = 0; d < t->rank; d++) {
    bound[d] = pads(t, shape, d) ? s->nbounded++ : -1;
    if (bound[d] >= 0) s->bound[bound[d]].lo = l->ring_lo[d], s->bound[bound[d]].shape = shape[d];
    s->base -= l->ring_lo[d] * stride[d];
  }
  for (int j = 0; j < l->n; j++) {
    int d = l->part[j].dim;
    int64_t div = l->part[j].div, whole = shape[d] + l->ring_lo[d] + l->ring_hi[d];
    add_dim(s, (StorageDim){l->part[j].mod ? l->part[j].mod : (whole + div - 1) / div, div * stride[d], 0, div, bound[d]});
  }
}

/* Which dimensions a slice of rows runs over, and in which order. */
static void choose_order(Storage *s) {
  StorageDim *d = s->dim;
  int last = s->n - 1;
  s->tile = -1;
  for (int j = 0; d[last].step != 1 && j < last; j++)
    if (d[j].step > 0 && d[j].step < d[s->tile < 0 ? last : s->tile].step) s->tile = j;
  int64_t inner = s->size;
  s->outer = last;
  for (int j = last; j > 0 && inner * d[j].extent <= ROWS_BYTES; j--) inner *= d[j].extent, s->outer = j - 1;
  if (s->tile >= 0) s->outer = MIN(s->outer, s->tile);
  for (int j = s->outer; j < last; j++) {
    int at = s->norder;
    if (j == s->tile) continue;
    for (; s->tile >= 0 && at > 0 && d[s->order[at - 1]].step < d[j].step; at--) s->order[at] = s->order[at - 1];
    s->order[at] = j;
    s->norder++;
  }
}

Storage storage_of(Ctx *c, const Tensor *t) {
  int64_t elements, shape[MAX_RANK], stride[MAX_RANK];
  Storage s = {.size = dtype_bytes(t->dtype)};
  if (!ex_is_int(layout_elements(c, t), &elements) || !mul_ok(elements, s.size, &s.bytes) || !tensor_dims(t, shape))
    diag_fail(c, E0308, NULL, NULL, "constant '%s' is too large", diag_quote(c, t->name));
  if (!elements) return s;
  for (int64_t d = t->rank - 1, n = t->data->splat ? 0 : 1; d >= 0; n *= shape[d--]) stride[d] = n;
  if (t->layout) add_parts(c, &s, t, shape, stride);
  else add_dim(&s, (StorageDim){elements, t->data->splat ? 0 : 1, 0, 1, -1});
  if (!s.n) s.dim[s.n++] = (StorageDim){1, 1, 0, 1, -1};
  for (int64_t j = s.n - 1, place = 1; j >= 0; place *= s.dim[j--].extent) s.dim[j].place = place;
  choose_order(&s);
  s.row_bytes = s.dim[s.outer].place * s.size;
  s.rows = s.bytes / s.row_bytes;
  s.group = s.tile == s.outer ? s.dim[s.outer].extent : 1;
  return s;
}

/* ---- filling ---- */
/* Part of the storage: `outer` dimensions at one index, the next from lo to hi. from: the data, at index 0 of what is not fixed. */
typedef struct { const Storage *s; int64_t at[2 * MAX_RANK + 1], lo, hi; const char *from; char *to; } Block;

static int64_t first(const Block *b, int j) { return j == b->s->outer ? b->lo : 0; }
static int64_t end(const Block *b, int j) { return j == b->s->outer ? b->hi : b->s->dim[j].extent; }
static int64_t place(const Block *b, int j, int64_t at) { return (at - first(b, j)) * b->s->dim[j].place * b->s->size; }

/* nl elements, each from `step` bytes on, side by side; nt such lines, `tile` bytes apart there and `place` bytes here. */
#define TURN(T)                                                                                                                           \
  static void turn_##T(const char *from, int64_t step, int64_t nl, int64_t tile, int64_t nt, char *to, int64_t place_) {                 \
    for (int64_t t = 0; t < nt; t += TILE) {                                                                                             \
      int64_t lines = MIN(nt - t, TILE);                                                                                                 \
      for (int64_t l = 0; l < nl; l++)                                                                                                   \
        for (int64_t i = 0; i < lines; i++)                                                                                              \
          memcpy(to + (t + i) * place_ + l * (int64_t)sizeof(T), from + (t + i) * tile + l * step, sizeof(T));                           \
    }                                                                                                                                    \
  }
TURN(uint8_t)
TURN(uint16_t)
TURN(uint32_t)
TURN(uint64_t)

typedef void Turn(const char *from, int64_t step, int64_t nl, int64_t tile, int64_t nt, char *to, int64_t place);
static Turn *const turns[] = {[1] = turn_uint8_t, [2] = turn_uint16_t, [4] = turn_uint32_t, [8] = turn_uint64_t};

/* What lies within bounds everywhere. */
static void fill_whole(const Block *b) {
  const Storage *s = b->s;
  int last = s->n - 1, tile = s->tile;
  int64_t at[2 * MAX_RANK], step = s->dim[last].step * s->size, nl = end(b, last) - first(b, last);
  for (int i = 0; i < s->norder; i++) at[i] = first(b, s->order[i]);
  for (int i = 0; i >= 0;) {
    const char *from = b->from + first(b, last) * step;
    char *to = b->to;
    for (i = 0; i < s->norder; i++) {
      int j = s->order[i];
      from += at[i] * s->dim[j].step * s->size;
      to += place(b, j, at[i]);
    }
    if (tile >= 0) {
      int64_t apart = s->dim[tile].step * s->size;
      turns[s->size](from + first(b, tile) * apart, step, nl, apart, end(b, tile) - first(b, tile), to, s->dim[tile].place * s->size);
    } else if (step == s->size) {
      memcpy(to, from, (size_t)(nl * step));
    } else {
      turns[s->size](from, step, nl, 0, 1, to, 0);
    }
    for (i = s->norder - 1; i >= 0 && ++at[i] == end(b, s->order[i]); i--) at[i] = first(b, s->order[i]);
  }
}

/* How many elements from *l on of the line at[] lie within bounds. */
static int64_t inside(const Storage *s, const int64_t *at, int64_t *l, int64_t to) {
  int64_t index[MAX_RANK] = {0};
  const StorageDim *last = &s->dim[s->n - 1];
  for (int j = 0; j < s->n - 1; j++)
    if (s->dim[j].dim >= 0) index[s->dim[j].dim] += at[j] * s->dim[j].div;
  for (int d = 0; d < s->nbounded; d++) {
    int64_t lo = s->bound[d].lo - index[d], hi = lo + s->bound[d].shape;   /* what remains for the last dimension to add */
    if (d != last->dim) {
      if (lo > 0 || hi <= 0) return 0;
      continue;
    }
    *l = MAX(*l, (lo + last->div - 1) / last->div);
    to = MIN(to, (hi + last->div - 1) / last->div);
  }
  return MAX(to - *l, 0);
}

static void fill_padded(Block *b) {
  const Storage *s = b->s;
  int last = s->n - 1;
  int64_t step = s->dim[last].step * s->size;
  for (int j = s->outer; j < last; j++) b->at[j] = first(b, j);
  memset(b->to, 0, (size_t)((b->hi - b->lo) * s->row_bytes));
  for (int j = 0; j >= 0;) {
    int64_t l = first(b, last), n = inside(s, b->at, &l, end(b, last));
    const char *from = b->from + l * step;
    char *to = b->to + place(b, last, l);
    for (j = s->outer; j < last; j++) from += b->at[j] * s->dim[j].step * s->size, to += place(b, j, b->at[j]);
    if (n) turns[s->size](from, step, n, 0, 1, to, 0);
    for (j = last - 1; j >= s->outer && ++b->at[j] == end(b, j); j--) b->at[j] = first(b, j);
    if (j < s->outer) return;
  }
}

/* Whether no index leaves the tensor: all grow with at[], so the two corners say it. */
static bool is_whole(const Block *b) {
  const Storage *s = b->s;
  int64_t lo[MAX_RANK] = {0}, hi[MAX_RANK] = {0};
  for (int j = 0; j < s->n; j++) {
    if (s->dim[j].dim < 0) continue;
    lo[s->dim[j].dim] += s->dim[j].div * (j < s->outer ? b->at[j] : first(b, j));
    hi[s->dim[j].dim] += s->dim[j].div * (j < s->outer ? b->at[j] : end(b, j) - 1);
  }
  for (int d = 0; d < s->nbounded; d++)
    if (lo[d] < s->bound[d].lo || hi[d] >= s->bound[d].lo + s->bound[d].shape) return false;
  return true;
}

void storage_fill(const Storage *s, const void *data, int64_t row, int64_t count, void *to) {
  int64_t extent = s->dim[s->outer].extent;
  for (int64_t n; count; row += n, count -= n, to = (char *)to + n * s->row_bytes) {
    Block b = {.s = s, .lo = row % extent, .to = to};
    int64_t rest = row / extent, at = s->base;
    n = MIN(count, extent - b.lo);
    b.hi = b.lo + n;
    for (int j = s->outer - 1; j >= 0; rest /= s->dim[j--].extent) {
      b.at[j] = rest % s->dim[j].extent;
      at += b.at[j] * s->dim[j].step;
    }
    b.from = (const char *)data + at * s->size;
    if (is_whole(&b)) fill_whole(&b);
    else fill_padded(&b);
  }
}

bool storage_done(const Storage *s, int64_t row, int64_t end_row, int64_t *from, int64_t *to) {
  if (end_row % s->group && end_row < s->rows) return false;
  row -= row % s->group;
  int64_t ends[] = {row, end_row - 1}, reach = 1;
  for (int j = s->outer + 1; j < s->n; j++) reach += (s->dim[j].extent - 1) * s->dim[j].step;
  for (int i = 0; i < 2; i++) {
    int64_t rest = ends[i], at = s->base;
    for (int j = s->outer; j >= 0; rest /= s->dim[j--].extent) at += rest % s->dim[j].extent * s->dim[j].step;
    ends[i] = MAX(at, 0);
  }
  *from = ends[0] * s->size;
  *to = (ends[1] + reach) * s->size;
  return *from < *to && *to - *from <= 2 * (end_row - row) * s->row_bytes;
}
