/* weights.c - pass_weights: constants stored as their kernels read them, in execution order, each once.
 *
 * Before: SCOPE_NONE tensors with row-major data, some with a layout that a schedule asked for. After: SCOPE_CONST with an offset in
 * m->weights. Packing is the layout's own index map, run over whole tensors.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "passes.h"

enum { WEIGHT_ALIGN = 64 };

typedef struct { Module *m; Map seen; } Packer;

static int64_t storage_bytes(Module *m, const Tensor *t) {
  int64_t n, bytes;
  if (!ex_is_int(layout_elements(m->c, t), &n) || !mul_ok(n, dtype_bytes(t->dtype), &bytes))
    diag_fail(m->c, E0308, NULL, NULL, "constant '%s' is too large", diag_quote(m->c, t->name));
  return bytes;
}

static const char *identity(Ctx *c, const Tensor *t) {
  return ctx_intern(c, ctx_printf(c, "%p %d %s %s", (void *)t->data->bytes, t->data->splat, tensor_type_text(c, t), layout_text(c, t->layout)));
}

static void place(Packer *p, Tensor *t) {
  Module *m = p->m;
  if (!t->data || t->offset) return;
  t->scope = SCOPE_CONST;
  Tensor *same = map_get(&p->seen, KEY(identity(m->c, t)));
  if (same) { t->offset = same->offset; return; }
  map_set(&p->seen, KEY(identity(m->c, t)), t);
  int64_t end;
  t->offset = ex_int(m->c, m->weight_bytes);
  if (!add_ok(m->weight_bytes, storage_bytes(m, t) + WEIGHT_ALIGN, &end)) diag_fail(m->c, E0308, NULL, NULL, "the constants are too large");
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

/* ---- packing: an odometer over the storage, one step a physical dimension, runs of the last one ---- */
typedef struct {
  int n;
  int64_t extent[2 * MAX_RANK], div[2 * MAX_RANK], mod[2 * MAX_RANK];
  int dim[2 * MAX_RANK];
  int64_t shape[MAX_RANK], stride[MAX_RANK];
  int rank;
  const Layout *l;
} Odometer;

static Odometer physical(const Tensor *t) {
  Odometer p = {.n = t->layout->n, .rank = t->rank, .l = t->layout};
  tensor_dims(t, p.shape);
  for (int64_t d = t->rank - 1, s = 1; d >= 0; s *= p.shape[d--]) p.stride[d] = s;
  for (int j = 0; j < p.n; j++) {
    const LayoutPart *part = &t->layout->part[j];
    int64_t whole = p.shape[part->dim] + t->layout->ring_lo[part->dim] + t->layout->ring_hi[part->dim];
    p.dim[j] = part->dim;
    p.div[j] = part->div;
    p.extent[j] = part->mod ? part->mod : (whole + part->div - 1) / part->div;
  }
  return p;
}

/* The row-major offset of the element that physical index at[] holds; -1 in the ring or a tail. */
static int64_t source_of(const Odometer *p, const int64_t *at) {
  int64_t index[MAX_RANK] = {0}, offset = 0;
  for (int j = 0; j < p->n; j++) index[p->dim[j]] += at[j] * p->div[j];
  for (int d = 0; d < p->rank; d++) {
    int64_t i = index[d] - p->l->ring_lo[d];
    if (i < 0 || i >= p->shape[d]) return -1;
    offset += i * p->stride[d];
  }
  return offset;
}

static void pack(const Tensor *t, unsigned char *to, int64_t elements) {
  Odometer p = physical(t);
  int64_t at[2 * MAX_RANK] = {0}, size = dtype_bytes(t->dtype), run = p.extent[p.n - 1], step = p.div[p.n - 1] * p.stride[p.dim[p.n - 1]];
  const unsigned char *from = t->data->bytes;
  for (int64_t e = 0; e < elements; e += run) {
    int64_t first, last;
    at[p.n - 1] = run - 1;
    last = source_of(&p, at);
    at[p.n - 1] = 0;
    first = source_of(&p, at);
    for (int64_t i = 0; i < run; i++) {
      int64_t source = first + i * step;
      if (first < 0 || last < 0) at[p.n - 1] = i, source = source_of(&p, at);
      if (source >= 0 && size == 4) ((uint32_t *)to)[e + i] = ((const uint32_t *)from)[t->data->splat ? 0 : source];
      else if (source >= 0) memcpy(to + (e + i) * size, from + (t->data->splat ? 0 : source * size), (size_t)size);
    }
    at[p.n - 1] = 0;
    for (int j = p.n - 2; j >= 0 && ++at[j] == p.extent[j]; j--) at[j] = 0;
  }
}

void weights_store(Module *m, const Tensor *t, unsigned char *to) {
  int64_t bytes = storage_bytes(m, t), size = dtype_bytes(t->dtype);
  if (t->layout) return pack(t, to, bytes / size);
  if (!t->data->splat) { memcpy(to, t->data->bytes, (size_t)bytes); return; }
  for (int64_t i = 0; i < bytes; i += size) memcpy(to + i, t->data->bytes, (size_t)size);
}

static void unmap(void *m) {
  Module *module = m;
  if (module->weights) munmap(module->weights, (size_t)module->weight_bytes + WEIGHT_ALIGN);
}

void pass_weights(Module *m) {
  Packer p = {m, map_new(m->c)};
  place_calls(&p, m->program);
  void *blob = mmap(NULL, (size_t)m->weight_bytes + WEIGHT_ALIGN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (blob == MAP_FAILED) diag_fail(m->c, E0601, NULL, NULL, "no memory for %lld bytes of constants", (long long)m->weight_bytes);
  m->weights = blob;
  ctx_defer(m->c, unmap, m);
  for (int i = 0; i < m->consts.n; i++) {
    int64_t offset;
    if (!ex_is_int(m->consts.v[i]->offset, &offset)) diag_bug(m->c, "constant without an offset");
    weights_store(m, m->consts.v[i], m->weights + offset);
  }
}
