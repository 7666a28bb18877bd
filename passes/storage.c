/* storage.c - see storage.h.
 *
 * Constants of one layout share one piece of code: extents become symbols, equal ones the same symbol, and so do their sources' (a form).
 * Only few extents that are short stay as they are: cases are told apart by them.
 */
#include "storage.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "../ir/ctx.h"
#include "../ir/diag.h"
#include "../ir/interp.h"
#include "threads.h"

enum { SHORT = 16, INTERPRETED = 4096, PIECES = 4 };

typedef struct Form {
  Stage stage;
  int nsources, ndims;
  Tensor *source[STORAGE_SOURCES];
  Sym *dim[2 * MAX_RANK];
  HostKernel native;               /* without code while nothing needs it */
  const Host *host;                /* whose that is */
} Form;

/* What one compile has made so far. */
typedef struct { Map syms, axes, sources, forms; Sym *first, *count; Interp *interp; } Forms;

static Forms *forms_of(Ctx *c) {
  Forms *f = c->slots[SLOT_STORAGE];
  if (f) return f;
  f = c->slots[SLOT_STORAGE] = NEW(c, Forms);
  *f = (Forms){map_new(c), map_new(c), map_new(c), map_new(c), .interp = interp_new(c)};
  f->first = sym_new(c, SYM_DIM, "first", 0, DIM_MAX);
  f->count = sym_new(c, SYM_DIM, "count", 1, DIM_MAX);
  return f;
}

/* ---- forms ---- */
typedef struct { Ctx *c; Forms *all; Form *form; Storage *s; } Maker;

static Expr *add_dim(Maker *k, Sym *sym, int64_t value) {
  Form *f = k->form;
  k->s->dims[f->ndims] = value;
  f->dim[f->ndims++] = sym;
  return sym->self;
}

static Expr *extent_of(Maker *k, int64_t n) {
  if (n <= SHORT) return ex_int(k->c, n);
  int i = k->s->by_rows ? 2 : 0;
  for (; i < k->form->ndims; i++)
    if (k->s->dims[i] == n) return k->form->dim[i]->self;
  Sym *sym = map_get(&k->all->syms, (uint64_t)i + 1);
  if (!sym) map_set(&k->all->syms, (uint64_t)i + 1, sym = sym_new(k->c, SYM_DIM, ctx_printf(k->c, "n%d", i), 1, DIM_MAX));
  return add_dim(k, sym, n);
}

static Sym *axis_of(Maker *k, int i, Expr *extent) {
  uint64_t key = (uint64_t)extent->id << 8 | (uint64_t)i;
  Sym *axis = map_get(&k->all->axes, key);
  if (!axis) map_set(&k->all->axes, key, axis = sym_axis(k->c, SYM_AXIS, ctx_printf(k->c, "i%d", i), extent));
  return axis;
}

/* A tensor like t, of symbolic extents, that has no value of its own. */
static Tensor *source_of(Maker *k, const Tensor *t) {
  Form *f = k->form;
  for (int i = 0; i < f->nsources; i++)
    if (k->s->source[i] == t) return f->source[i];
  if (f->nsources == COUNT(f->source)) diag_bug(k->c, "constants made of many others");
  Expr *shape[MAX_RANK];
  uint64_t key = mix64((uint64_t)t->dtype << 16 | (uint64_t)t->rank << 8 | (uint64_t)f->nsources);
  for (int d = 0; d < t->rank; d++) {
    int64_t n = 0;
    if (!ex_is_int(t->shape[d], &n)) diag_bug(k->c, "constant '%s' of open size", t->name);
    shape[d] = extent_of(k, n);
    key = mix64(key ^ shape[d]->id);
  }
  const char *layout = layout_text(k->c, t->layout);
  key = mix64(key ^ KEY(ctx_intern(k->c, layout)));
  Tensor *like = map_get(&k->all->sources, key);
  if (!like) {
    like = tensor_new(k->c, ctx_printf(k->c, "from%d", f->nsources), t->dtype, t->rank, shape);
    like->layout = t->layout;
    map_set(&k->all->sources, key, like);
  }
  k->s->source[f->nsources] = t;
  return f->source[f->nsources++] = like;
}

static Expr *read_sources(Ctx *c, Expr *e, void *user) {
  return e->op == EX_LOAD && e->u.tensor->data ? ex_load(c, source_of(user, e->u.tensor), e->a, e->n) : e;
}

typedef struct { int dim; int64_t extent, div; bool fixed; } Part;     /* of the storage; fixed: by the layout */

static int parts_of(Ctx *c, const Tensor *t, const int64_t *shape, Part *part) {
  const Layout *l = t->layout;
  for (int d = 0; d < t->rank && !l; d++) part[d] = (Part){d, shape[d], 1, false};
  for (int j = 0; l && j < l->n; j++) {
    int d = l->part[j].dim;
    int64_t div = l->part[j].div, mod = l->part[j].mod, whole = shape[d] + l->ring_lo[d] + l->ring_hi[d];
    if (l->part[j].pad || j == MAX_RANK) diag_bug(c, "constant '%s' in the layout \"%s\"", t->name, layout_text(c, l));
    part[j] = (Part){d, mod ? mod : (whole + div - 1) / div, div, mod != 0};
  }
  return l ? l->n : t->rank;
}

/* Where an element of the storage is in the tensor; *in: the conditions, as far as any is needed, under which it is in it at all. */
static void logical_index(Maker *k, const Tensor *t, const int64_t *shape, const Part *part, int n, Expr *const *at, Expr **index, Expr **in) {
  Ctx *c = k->c;
  *in = ex_bool(c, true);
  for (int d = 0; d < t->rank; d++) {
    int64_t most = 0, lo = t->layout ? t->layout->ring_lo[d] : 0;
    Expr *sum = ex_int(c, 0);
    for (int j = 0; j < n; j++) {
      if (part[j].dim != d) continue;
      sum = ex_add(c, sum, ex_mul(c, at[j], ex_int(c, part[j].div)));
      most += (part[j].extent - 1) * part[j].div;
    }
    index[d] = ex_sub(c, sum, ex_int(c, lo));
    if (lo) *in = ex_and(c, *in, ex_le(c, ex_int(c, 0), index[d]));
    if (most - lo >= shape[d]) *in = ex_and(c, *in, ex_lt(c, index[d], extent_of(k, shape[d])));
  }
}

static Expr *value_at(Maker *k, const Tensor *t, Expr *const *index) {
  Ctx *c = k->c;
  const Stage *st = t->data->stage;
  if (t->data->splat) return dtype_is_float(t->dtype) ? ex_const(c, t->dtype, tensor_const_float(t, 0)) : ex_const_i(c, t->dtype, tensor_const_int(t, 0));
  if (!st) {
    Tensor plain = *t;
    plain.layout = NULL;
    return ex_load(c, source_of(k, ctx_copy(c, &plain, sizeof plain)), (Expr **)index, t->rank);
  }
  Subst s = subst_new(c);
  for (int d = 0; d < t->rank; d++) subst_set(&s, st->axes[d], index[d]);
  return expr_map(c, subst_apply(&s, st->body), read_sources, k);
}

/* The stage whose elements, in order, are the storage; of rows from `first` on, `count` of them, if they can be made apart. */
static void make_form(Module *m, const Tensor *t, const int64_t *shape, Storage *s) {
  Ctx *c = m->c;
  Form f = {.nsources = 0};
  Maker k = {.c = c, .all = forms_of(c), .form = &f, .s = s};
  Part part[MAX_RANK];
  Expr *extent[MAX_RANK], *at[MAX_RANK], *index[MAX_RANK], *in;
  int n = parts_of(c, t, shape, part);
  s->dims = NEW_ARRAY(c, int64_t, COUNT(f.dim));
  s->by_rows = !t->data->stage && n;
  if (s->by_rows) add_dim(&k, k.all->first, 0), add_dim(&k, k.all->count, part[0].extent);
  f.stage.axes = NEW_ARRAY(c, Sym *, n + 1);
  for (int j = 0; j < n; j++) {
    extent[j] = j == 0 && s->by_rows ? k.all->count->self : part[j].fixed ? ex_int(c, part[j].extent) : extent_of(&k, part[j].extent);
    f.stage.axes[j] = axis_of(&k, j, extent[j]);
    at[j] = f.stage.axes[j]->self;
  }
  if (s->by_rows) at[0] = ex_add(c, at[0], k.all->first->self);
  logical_index(&k, t, shape, part, n, at, index, &in);
  f.stage.body = ex_select(c, in, value_at(&k, t, index), ex_const(c, t->dtype, 0));
  uint64_t key = mix64((uint64_t)f.stage.body->id << 8 | (uint64_t)t->dtype);
  for (int j = 0; j < n; j++) key = mix64(key ^ extent[j]->id);
  for (int j = 0; j < f.ndims; j++) key = mix64(key ^ (uint64_t)f.dim[j]->id);
  s->form = map_get(&k.all->forms, key);
  if (s->form) return;
  f.stage.out = tensor_new(c, "stored", t->dtype, n, extent);
  map_set(&k.all->forms, key, s->form = ctx_copy(c, &f, sizeof f));
}

/* ---- running them ---- */
typedef struct { ExprEnv env; const Form *form; const int64_t *dims; } Sizes;

static Scalar size_of(ExprEnv *env, const Sym *s) {
  const Sizes *k = (const Sizes *)env;
  int i = 0;
  while (k->form->dim[i] != s) i++;
  return (Scalar){.i = k->dims[i]};
}

static int64_t eval_size(const Form *f, const int64_t *dims, const Expr *e, int64_t none) {
  Sizes k = {{size_of, NULL}, f, dims};
  return e ? expr_eval(&k.env, e).i : none;
}

static void *own_pages(Module *m, int64_t n) {
  void *p = mmap(NULL, (size_t)MAX(n, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) diag_fail(m->c, E0601, NULL, NULL, "no memory for %lld bytes of constants", (long long)n);
  return p;
}

StorageLoan storage_borrow(Module *m, const Storage *s) {
  if (s->value) return (StorageLoan){.at = s->value};
  StorageLoan l = {.own = own_pages(m, s->bytes), .bytes = s->bytes};
  l.at = l.own;
  storage_make(m, s, l.own);
  return l;
}

void storage_give_back(const StorageLoan *l) {
  if (l->own) munmap(l->own, (size_t)l->bytes);
}

static StorageLoan borrow(Module *m, const Tensor *t) {
  Storage s = storage_of(m, t);
  return storage_borrow(m, &s);
}

/* A call of native code, in pieces of its parallel loop. */
typedef struct {
  Module *m;
  const HostKernel *k;
  void **params;
  int64_t sizes[2 * MAX_RANK], extent, scratch, step, next;
  bool failed;
} Call;

static void call_pieces(void *user) {
  Call *call = user;
  void *scratch = aligned_alloc(64, (size_t)round_up(call->scratch + 64, 64));
  if (!scratch) __atomic_store_n(&call->failed, true, __ATOMIC_RELAXED);
  for (int64_t i; scratch && (i = threads_take(&call->next) * call->step) < call->extent;)
    call->m->host->run(call->k, call->params, call->sizes, i, MIN(i + call->step, call->extent), scratch);
  free(scratch);
}

static Call call_of(Module *m, const Form *f, const int64_t *dims, const void *const *from, void *to, void **params) {
  const Kernel *k = f->native.kernel;
  Call call = {.m = m, .k = &f->native, .params = params};
  for (int i = 0; i < k->nparams; i++) {
    call.params[i] = to;
    for (int j = 0; j < f->nsources; j++)
      if (k->params[i] == f->source[j]) call.params[i] = (void *)from[j];
  }
  for (int i = 0; i < k->dims.n; i++) call.sizes[i] = eval_size(f, dims, k->dims.v[i]->self, 0);
  call.extent = eval_size(f, dims, f->native.extent, 1);
  call.scratch = eval_size(f, dims, k->scratch_bytes, 0);
  return call;
}

bool storage_fill(Module *m, const Storage *s, int64_t row, int64_t count, void *to) {
  int64_t dims[2 * MAX_RANK];
  const void *from[] = {s->from};
  void *params[STORAGE_SOURCES + 1];
  memcpy(dims, s->dims, sizeof dims);
  dims[0] = row;
  dims[1] = count;
  Call call = call_of(m, s->form, dims, from, to, params);
  call.step = MAX(call.extent, 1);
  call_pieces(&call);
  return !call.failed;
}

static void run_call(Call *call) {
  int threads = threads_wanted(call->m, call->extent);
  call->step = MAX((call->extent + threads * PIECES - 1) / (threads * PIECES), 1);
  threads_run(threads, call_pieces, call);
  if (call->failed) diag_fail(call->m->c, E0601, NULL, NULL, "no memory for %lld bytes", (long long)call->scratch);
}

static void run_native(Module *m, const Storage *s, const StorageLoan *from, void *to) {
  const void *at[STORAGE_SOURCES] = {NULL};
  void *params[STORAGE_SOURCES + 1];
  for (int i = 0; i < s->form->nsources; i++) at[i] = from[i].at;
  Call call = call_of(m, s->form, s->dims, at, to, params);
  run_call(&call);
}

static void run_interpreted(Module *m, const Storage *s, const StorageLoan *from, void *to) {
  Interp *in = forms_of(m->c)->interp;
  const Form *f = s->form;
  for (int i = 0; i < f->ndims; i++) interp_set_dim(in, f->dim[i], s->dims[i]);
  for (int i = 0; i < f->nsources; i++) {
    Value v = {.dtype = f->source[i]->dtype, .rank = f->source[i]->rank, .data = from[i].at};
    tensor_dims(s->source[i], v.dims);
    interp_set(in, f->source[i], &v);
  }
  if (!interp_stage(in, &f->stage, to)) diag_bug(m->c, "a constant of open size");
  interp_clear(in);
}

void storage_make(Module *m, const Storage *s, void *to) {
  StorageLoan from[STORAGE_SOURCES] = {{0}};
  int n = s->form->nsources;
  for (int i = 0; i < n; i++) {
    Tensor source = *s->source[i];
    if (s->interpreted) source.layout = NULL;                /* the interpreter knows row-major arrays alone */
    from[i] = borrow(m, &source);
  }
  (s->interpreted ? run_interpreted : run_native)(m, s, from, to);
  for (int i = 0; i < n; i++) storage_give_back(&from[i]);
}

/* ---- what a constant needs ---- */
static bool lies_so(const Tensor *t) { return !t->data->stage && !t->data->splat && layout_is_plain(t); }

/* The outermost dimension alone may tell which of the constant's own bytes are read. */
static int64_t bytes_a_row(const Tensor *t, const int64_t *shape) {
  const Layout *l = t->layout;
  int64_t n = dtype_bytes(t->dtype) * l->part[0].div;
  for (int d = 1; d < t->rank; d++) n *= shape[d];
  return l->part[0].dim || l->part[0].mod || l->ring_lo[0] ? 0 : n;
}

bool storage_bytes(Ctx *c, const Tensor *t, int64_t *n) {
  return ex_is_int(layout_elements(c, t), n) && mul_ok(*n, dtype_bytes(t->dtype), n);
}

static void unload_form(void *form) {
  Form *f = form;
  f->host->free(&f->native);
}

static void load_form(Module *m, Form *f) {
  f->native = m->host->load(m, &f->stage);
  f->host = m->host;
  ctx_defer(m->c, unload_form, f);
}

Storage storage_of(Module *m, const Tensor *t) {
  int64_t elements, n, shape[MAX_RANK];
  Storage s = {.from = t->data->bytes, .row_bytes = dtype_bytes(t->dtype)};
  if (!storage_bytes(m->c, t, &s.bytes) || !tensor_dims(t, shape))
    diag_fail(m->c, E0308, NULL, NULL, "constant '%s' is too large", diag_quote(m->c, t->name));
  s.rows = elements = s.bytes / s.row_bytes;
  if (ex_is_int(tensor_elements(m->c, t), &n) && s.from) s.from_bytes = t->data->splat ? s.row_bytes : n * s.row_bytes;
  if (!elements || lies_so(t)) {
    s.value = s.from ? s.from : "";
    s.from_row = s.row_bytes;
    return s;
  }
  make_form(m, t, shape, &s);
  s.interpreted = elements <= INTERPRETED || !m->host;
  if (s.interpreted) {
    void *value = ctx_alloc(m->c, (size_t)s.bytes);
    storage_make(m, &s, value);
    s.value = value;
    return s;
  }
  if (!s.form->native.kernel) load_form(m, s.form);
  if (s.by_rows) {
    s.rows = s.dims[1];
    s.row_bytes = s.bytes / s.rows;
    s.from_row = t->layout && !t->data->splat ? bytes_a_row(t, shape) : 0;
  }
  return s;
}

void storage_value(Module *m, Tensor *t) {
  if (!t->data->stage) return;
  Tensor plain = *t;
  plain.layout = NULL;
  Storage s = storage_of(m, &plain);
  if (!s.value) {
    void *value = ctx_alloc(m->c, (size_t)s.bytes);
    storage_make(m, &s, value);
    s.value = value;
  }
  t->data->bytes = s.value;
  t->data->stage = NULL;
}

/* ---- folding ---- */
static StorageLoan param_of(Module *m, const Tensor *t, Stage *const *stages, void *const *out, int n) {
  for (int i = 0; i < n; i++)
    if (stages[i]->out == t) return (StorageLoan){.at = out[i]};
  if (!t->data) diag_bug(m->c, "%s has no value while compiling", t->name);
  return borrow(m, t);
}

static void compute_stage(Module *m, const Form *f, Stage *const *stages, void *const *out, int n) {
  const Kernel *k = f->native.kernel;
  StorageLoan *loan = NEW_ARRAY(m->c, StorageLoan, k->nparams + 1);
  Call call = call_of(m, f, NULL, NULL, NULL, NEW_ARRAY(m->c, void *, k->nparams + 1));
  for (int i = 0; i < k->nparams; i++) {
    loan[i] = param_of(m, k->params[i], stages, out, n);
    call.params[i] = (void *)loan[i].at;
  }
  run_call(&call);
  for (int i = 0; i < k->nparams; i++) storage_give_back(&loan[i]);
}

bool storage_compute(Module *m, Stage *const *stages, int n, void *const *out) {
  bool known = true;
  for (int i = 0; i < n && known; i++) {
    Form f = {.native = m->host->load(m, stages[i])};
    known = !f.native.kernel->dims.n;
    if (known) compute_stage(m, &f, stages, out, n);
    m->host->free(&f.native);
  }
  return known;
}
