/* tape.c - compiles a stage's body to a tape (tape.h) and runs it.
 *
 * Blocks are the loops: block 0 runs once a stage, block 1 once a row, deeper ones once an iteration of a reduction. An expression
 * goes to the deepest block among those of what it depends on, so what does not change in a loop is outside it. Values are
 * memoised per expression and mask while their block is open.
 */
#include "tape.h"

enum { U, S, L };                  /* widths of a register */
enum { MIXED, ALL, NONE };         /* what a mask lets through */
enum { MAX_DEPTH = 40 };

typedef struct Block Block;
typedef struct Ins Ins;
typedef struct Load Load;

typedef struct Reg Reg;
struct Reg {
  char *p;                         /* the elements: its own place, or straight in a tensor or another register */
  size_t at;                       /* its own place in the pool ... */
  char *fixed;                     /* ... or, for constants, outside it */
  DType dtype;
  uint8_t width, state;
  int depth;
  Block *block;
  bool counted;                    /* state is computed */
  bool used;                       /* axes: something asks for the value */
  Reg *wide[3];
};

struct Ins {
  void (*run)(Tape *t, Ins *i);
  Reg *d, *a, *b, *c;
  RowFn *fn;
  const Expr *e;
  union { Load *load; Block *block; const Sym *sym; const Reg *state; bool negate; } u;
};

struct Block { VEC(Ins *) ins; };

struct Load {
  Tensor *tensor;
  int rank, bytes;
  Reg *index[MAX_RANK];            /* linear: at lane 0 of the run */
  Reg *coef[MAX_RANK];             /* linear: step per lane; NULL = 0 */
  bool early[MAX_RANK];            /* added to base in a block further out */
  bool checked[MAX_RANK];          /* depends on data: must be checked against the dimension */
  bool linear, based;
  size_t base_at;
  Reg *mask, *state;               /* in the load's width; the same as it was counted */
  /* while it runs: */
  const char *data;
  bool splat, aligned;
  int64_t total, dims[MAX_RANK], strides[MAX_RANK], inner;
  int64_t *base;
};

typedef struct { Reg *reg; Block *block; } Memo;

struct Tape {
  Ctx *c;
  const Stage *stage;
  int rank;
  int64_t dims[MAX_RANK];
  int first, lane;                 /* axes [first, lane] make up a row; -1: the stage has one element */
  int64_t chunk;                   /* of axis `first` in one row */
  Block *open[MAX_DEPTH];
  int nopen;
  Map values;                      /* (expression, mask) -> Memo */
  Map syms;                        /* Sym* -> Reg* */
  Map loads_in;                    /* Expr* -> itself if it loads */
  Map consts;                      /* Expr* -> Reg* */
  VEC(Reg *) regs;
  VEC(Load *) loads;
  Map mask_ids;                    /* Reg* -> number */
  int nmasks;
  Reg *axis[MAX_RANK], *result;
  size_t pool_bytes;
  /* while it runs: */
  TapeEnv *env;
  char *pool;
  int n[3], run_length;            /* elements of a register by width; lanes of a run */
  int64_t start;                   /* of axis `first` in this row */
  int64_t offset[TAPE_LANES];
  uint8_t any[TAPE_LANES];
};

static int64_t lane_start(const Tape *t) { return t->first == t->lane ? t->start : 0; }

/* ---- registers and instructions ---- */

static size_t pool_take(Tape *t, size_t bytes) {
  size_t at = t->pool_bytes;
  t->pool_bytes = at + (bytes + 63) / 64 * 64;
  return at;
}

static Reg *reg_new(Tape *t, DType dtype, int width, int depth) {
  Reg *r = NEW(t->c, Reg);
  r->dtype = dtype;
  r->width = (uint8_t)width;
  r->depth = depth;
  r->block = t->open[depth];
  r->at = pool_take(t, (size_t)dtype_bytes(dtype) * (width == U ? 1 : TAPE_LANES));
  vec_push(t->c, &t->regs, r);
  return r;
}

static Ins *emit(Tape *t, int depth, void (*run)(Tape *, Ins *), Reg *d, Reg *a, Reg *b) {
  Ins *i = NEW(t->c, Ins);
  i->run = run;
  i->d = d;
  i->a = a;
  i->b = b;
  vec_push(t->c, &t->open[depth]->ins, i);
  return i;
}

static void run_block(Tape *t, const Block *b) {
  for (int i = 0; i < b->ins.n; i++) b->ins.v[i]->run(t, b->ins.v[i]);
}

static int64_t reg_i64(const Reg *r, int i) { return ((const int64_t *)(const void *)r->p)[r->width == U ? 0 : i]; }

/* ---- instructions ---- */

static void run_row(Tape *t, Ins *i) { i->fn(i->d->p, i->a->p, i->b ? i->b->p : NULL, t->n[i->d->width]); }

static void run_apply(Tape *t, Ins *i) {
  Reg *from[3] = { i->a, i->b, i->c };
  Scalar v[3];
  for (int lane = 0; lane < t->n[i->d->width]; lane++) {
    for (int k = 0; k < i->e->n; k++) v[k] = scalar_load(from[k]->dtype, from[k]->p + lane * dtype_bytes(from[k]->dtype));
    scalar_store(i->d->dtype, i->d->p + lane * dtype_bytes(i->d->dtype), expr_apply(i->e, v));
  }
}

static void run_widen(Tape *t, Ins *i) {
  int bytes = dtype_bytes(i->d->dtype);
  if (i->a->width == U) row_fill(bytes, i->d->p, i->a->p, t->n[i->d->width]);
  else row_repeat(bytes, i->d->p, i->a->p, t->n[S], t->run_length);
}

static void run_alias(Tape *t, Ins *i) { i->d->p = i->a->p; }

static void run_dim(Tape *t, Ins *i) { *(int64_t *)(void *)i->d->p = t->env->dim(t->env, i->u.sym); }

static void run_select(Tape *t, Ins *i) {
  const uint8_t *cond = (const uint8_t *)i->c->p;
  int state = i->c->width == U ? (cond[0] ? ALL : NONE) : i->u.state ? i->u.state->state : MIXED;
  i->d->p = state == ALL ? i->a->p : state == NONE ? i->b->p : t->pool + i->d->at;
  if (state == MIXED) row_select(dtype_bytes(i->d->dtype), i->d->p, cond, i->a->p, i->b->p, t->n[i->d->width]);
}

static int mask_state(const uint8_t *m, int n) {
  int sum = 0;
  for (int i = 0; i < n; i++) sum += m[i];
  return sum == n ? ALL : sum == 0 ? NONE : MIXED;
}

static void run_count(Tape *t, Ins *i) { i->a->state = (uint8_t)mask_state((uint8_t *)i->a->p, t->n[i->a->width]); }

static void run_mask(Tape *t, Ins *i) {       /* d = a and (b xor negate) */
  int n = t->n[i->d->width];
  uint8_t *d = (uint8_t *)i->d->p, flip = i->u.negate;
  const uint8_t *b = (uint8_t *)i->b->p, *a = i->a ? (uint8_t *)i->a->p : NULL;
  for (int k = 0; k < n; k++) d[k] = (uint8_t)((b[k] ^ flip) & (a ? a[k] : 1));
  i->d->state = (uint8_t)mask_state(d, n);
}

static void run_loop(Tape *t, Ins *i) {
  int64_t extent = reg_i64(i->a, 0), *v = (int64_t *)(void *)i->d->p;
  for (*v = i->e->u.sym->min; *v < extent; ++*v) run_block(t, i->u.block);
}

static void run_accumulate(Tape *t, Ins *i) { i->fn(i->d->p, i->d->p, i->a->p, t->n[i->d->width]); }

/* combiners without a loop of their own; e is combine(result, value) */
static void run_combine(Tape *t, Ins *i) {
  int bytes = dtype_bytes(i->d->dtype);
  for (int lane = 0; lane < t->n[i->d->width]; lane++) {
    char *p = i->d->p + lane * bytes;
    Scalar v[2] = { scalar_load(i->d->dtype, p), scalar_load(i->d->dtype, i->a->p + lane * bytes) };
    scalar_store(i->d->dtype, p, expr_apply(i->e, v));
  }
}

/* ---- loads ---- */

static _Noreturn void fail_index(Tape *t, const Load *l, int dim, int64_t value) {
  if (dim < 0)
    diag_bug(t->c, "a load of '%s' %s leaves it at element %lld", l->tensor->name, tensor_type_text(t->c, l->tensor), (long long)value);
  diag_fail(t->c, E0505, t->env->node, NULL, "the data asks for index %lld of dimension %d of '%s', which has %lld", (long long)value, dim,
            diag_quote(t->c, l->tensor->name), (long long)l->dims[dim]);
}

static void check_total(Tape *t, const Load *l, int64_t a, int64_t b) {
  if (a < 0 || a >= l->total) fail_index(t, l, -1, a);
  if (b < 0 || b >= l->total) fail_index(t, l, -1, b);
}

static void run_base(Tape *t, Ins *i) {       /* the early part of the offsets */
  Load *l = i->u.load;
  int n = t->n[l->linear ? S : i->d->width];
  for (int k = 0; k < n; k++) l->base[k] = 0;
  for (int d = 0; d < l->rank; d++)
    if (l->early[d])
      for (int k = 0; k < n; k++) l->base[k] += reg_i64(l->index[d], k) * l->strides[d];
}

static void run_inner(Tape *t, Ins *i) {      /* elements from lane to lane */
  Load *l = i->u.load;
  l->inner = 0;
  for (int d = 0; d < l->rank; d++)
    if (l->coef[d]) l->inner += reg_i64(l->coef[d], 0) * l->strides[d];
}

static void offsets(Tape *t, const Load *l, int n) {
  for (int k = 0; k < n; k++) t->offset[k] = l->based ? l->base[k] : 0;
  for (int d = 0; d < l->rank; d++) {
    const Reg *x = l->index[d];
    if (l->early[d]) continue;
    if (x->width == U) {
      int64_t v = reg_i64(x, 0) * l->strides[d];
      for (int k = 0; k < n; k++) t->offset[k] += v;
    } else {
      const int64_t *v = (const int64_t *)(const void *)x->p;
      for (int k = 0; k < n; k++) t->offset[k] += v[k] * l->strides[d];
    }
  }
}

/* Lanes [from, to) of run s stay inside the dimensions that data decides. */
static void check_run(Tape *t, const Load *l, int s, int from, int to) {
  for (int d = 0; d < l->rank; d++) {
    if (!l->checked[d]) continue;
    int64_t step = l->coef[d] ? reg_i64(l->coef[d], 0) : 0, at = reg_i64(l->index[d], s) + step * lane_start(t);
    for (int k = 0; k < 2; k++) {
      int64_t v = at + step * (k ? to - 1 : from);
      if (v < 0 || v >= l->dims[d]) fail_index(t, l, d, v);
    }
  }
}

/* Loads whose place moves evenly along a run. */
static void run_load_linear(Tape *t, Ins *i) {
  Load *l = i->u.load;
  int ns = t->n[S], len = t->run_length, state = l->mask ? l->state->state : ALL;
  i->d->p = t->pool + i->d->at;
  if (state == NONE) return;
  offsets(t, l, ns);
  int64_t shift = l->inner * lane_start(t);
  bool even = state == ALL;
  for (int s = 0; s < ns; s++) {
    t->offset[s] += shift;
    if (t->offset[s] != t->offset[0] + s * l->inner * len) even = false;
  }
  if (even && !l->splat) {
    for (int s = 0; s < ns; s++) check_run(t, l, s, 0, len);
    check_total(t, l, t->offset[0], t->offset[0] + l->inner * (ns * len - 1));
    const char *from = l->data + t->offset[0] * l->bytes;
    if (l->inner == 1 && l->aligned) i->d->p = (char *)from;
    else row_take_stride(l->bytes, i->d->p, from, l->inner, NULL, ns * len);
    return;
  }
  for (int s = 0; s < ns; s++) {
    const uint8_t *m = state == ALL ? NULL : (const uint8_t *)l->mask->p + s * len;
    int from = 0, to = len;
    while (m && from < to && !m[from]) from++;
    while (m && to > from && !m[to - 1]) to--;
    if (from == to) continue;
    check_run(t, l, s, from, to);
    int64_t at = t->offset[s] + l->inner * from;
    check_total(t, l, at, at + l->inner * (to - 1 - from));
    if (l->splat) row_fill(l->bytes, i->d->p + (s * len + from) * l->bytes, l->data, to - from);
    else {
      bool holes = m && memchr(m + from, 0, (size_t)(to - from));
      row_take_stride(l->bytes, i->d->p + (s * len + from) * l->bytes, l->data + at * l->bytes, l->inner, holes ? m + from : NULL, to - from);
    }
  }
}

/* The mask for the lanes of a load of width w: a run counts if any of its lanes does. NULL = everywhere. */
static const uint8_t *load_mask(Tape *t, const Load *l, int w) {
  const Reg *m = l->mask;
  if (!m || l->state->state == ALL) return NULL;
  if (m->width == w) return (const uint8_t *)m->p;
  if (w == U) return (t->any[0] = l->state->state != NONE, t->any);
  for (int s = 0; s < t->n[S]; s++) t->any[s] = memchr(m->p + s * t->run_length, 1, (size_t)t->run_length) != NULL;
  return t->any;
}

/* Loads from anywhere. */
static void run_load(Tape *t, Ins *i) {
  Load *l = i->u.load;
  int n = t->n[i->d->width];
  if (l->mask && l->state->state == NONE) return;
  const uint8_t *m = load_mask(t, l, i->d->width);
  offsets(t, l, n);
  for (int k = 0; k < n; k++) {
    if (m && !m[k]) continue;
    for (int d = 0; d < l->rank; d++) {
      int64_t v;
      if (l->checked[d] && ((v = reg_i64(l->index[d], k)) < 0 || v >= l->dims[d])) fail_index(t, l, d, v);
    }
    if ((uint64_t)t->offset[k] >= (uint64_t)l->total) fail_index(t, l, -1, t->offset[k]);
    if (l->splat) t->offset[k] = 0;
  }
  if (i->d->width == U && l->aligned) i->d->p = (char *)l->data + t->offset[0] * l->bytes;
  else row_take(l->bytes, i->d->p, l->data, t->offset, m, n);
}

/* ---- compiling ---- */

static Reg *compile(Tape *t, Expr *e, Reg *mask);

static Reg *widen(Tape *t, Reg *r, int width) {
  if (r->width == width) return r;
  if (!r->wide[width]) {
    r->wide[width] = reg_new(t, r->dtype, width, r->depth);
    emit(t, r->depth, run_widen, r->wide[width], r, NULL);
  }
  return r->wide[width];
}

static bool loads(Tape *t, const Expr *e) {
  void *known = map_get(&t->loads_in, KEY(e));
  if (known) return known == e;
  bool is = e->op == EX_LOAD || e->op == EX_FETCH;
  for (int i = 0; i < e->n && !is; i++) is = loads(t, e->a[i]);
  map_set(&t->loads_in, KEY(e), is ? (void *)e : (void *)t);
  return is;
}

static uint64_t value_key(Tape *t, uint32_t id, const Reg *mask) {
  uint64_t m = 0;
  if (mask && !(m = (uint64_t)(uintptr_t)map_get(&t->mask_ids, KEY(mask)))) {
    m = (uint64_t)++t->nmasks;
    map_set(&t->mask_ids, KEY(mask), (void *)(uintptr_t)m);
  }
  return m << 32 | id;
}

static Reg *value_get(Tape *t, uint64_t key) {
  Memo *v = map_get(&t->values, key);
  return v && v->reg->depth < t->nopen && t->open[v->reg->depth] == v->block ? v->reg : NULL;
}

static void value_set(Tape *t, uint64_t key, Reg *r) {
  Memo *v = NEW(t->c, Memo);
  v->reg = r;
  v->block = r->block;
  map_set(&t->values, key, v);
}

static Reg *compile_const(Tape *t, const Expr *e) {
  Reg *r = map_get(&t->consts, KEY(e));
  if (r) return r;
  Scalar v;
  if (dtype_is_float(e->dtype)) v.f = e->u.f;
  else v.i = e->u.i;
  r = NEW(t->c, Reg);
  r->dtype = e->dtype;
  r->block = t->open[0];
  r->fixed = ctx_alloc(t->c, 16);
  scalar_store(e->dtype, r->fixed, v);
  vec_push(t->c, &t->regs, r);
  map_set(&t->consts, KEY(e), r);
  return r;
}

static Reg *compile_sym(Tape *t, const Sym *s) {
  Reg *r = map_get(&t->syms, KEY(s));
  if (r) return r->used = true, r;
  if (s->kind != SYM_DIM) diag_bug(t->c, "the symbol '%s' is not bound in the stage of '%s'", s->name, t->stage->out->name);
  r = reg_new(t, DT_I64, U, 0);
  emit(t, 0, run_dim, r, NULL, NULL)->u.sym = s;
  map_set(&t->syms, KEY(s), r);
  return r;
}

/* ---- masks ---- */

static Reg *count(Tape *t, Reg *r) {
  if (!r->counted) emit(t, r->depth, run_count, NULL, r, NULL);
  r->counted = true;
  return r;
}

static Reg *mask_and(Tape *t, Reg *mask, Reg *cond, bool negate) {
  if (!mask && !negate) return count(t, cond);
  int width = MAX(mask ? mask->width : U, cond->width), depth = MAX(mask ? mask->depth : 0, cond->depth);
  Reg *r = reg_new(t, DT_BOOL, width, depth);
  r->counted = true;
  emit(t, depth, run_mask, r, mask ? widen(t, mask, width) : NULL, widen(t, cond, width))->u.negate = negate;
  return r;
}

/* A mask is known by the select and the side it comes from. */
static Reg *side_mask(Tape *t, const Expr *select, Reg *mask, Reg *cond, bool negate) {
  uint64_t key = value_key(t, select->id, mask) | (uint64_t)(negate ? 3 : 2) << 62;
  Reg *r = value_get(t, key);
  if (!r) value_set(t, key, r = mask_and(t, mask, cond, negate));
  return r;
}

static Reg *compile_select(Tape *t, Expr *e, Reg *mask) {
  Reg *cond = compile(t, e->a[0], mask), *side[2];
  for (int k = 0; k < 2; k++)
    side[k] = compile(t, e->a[1 + k], loads(t, e->a[1 + k]) ? side_mask(t, e, mask, cond, k == 1) : NULL);
  int width = MAX(cond->width, MAX(side[0]->width, side[1]->width));
  int depth = MAX(cond->depth, MAX(side[0]->depth, side[1]->depth));
  Reg *d = reg_new(t, e->dtype, width, depth);
  Ins *i = emit(t, depth, run_select, d, NULL, NULL);
  t->open[depth]->ins.n--;         /* the operands are widened in front of it */
  i->a = widen(t, side[0], width);
  i->b = widen(t, side[1], width);
  i->c = cond->width == U ? cond : widen(t, cond, width);
  i->u.state = cond->counted ? cond : NULL;
  vec_push(t->c, &t->open[depth]->ins, i);
  return d;
}

/* ---- loads ---- */

/* index = coef * lane + rest in every dimension, coef the same throughout the stage. */
static bool linear_index(Tape *t, const Expr *e, Expr **coef, Expr **rest) {
  const Sym *lane = t->lane >= 0 ? t->stage->axes[t->lane] : NULL;
  bool any = false;
  for (int d = 0; d < e->n; d++) {
    coef[d] = ex_int(t->c, 0);
    rest[d] = e->a[d];
    if (!lane || !expr_uses(e->a[d], lane)) continue;
    if (!expr_is_linear(t->c, e->a[d], lane, &coef[d], &rest[d]) || loads(t, coef[d])) return false;
    if (compile(t, coef[d], NULL)->depth > 0) return false;
    any = true;
  }
  return any;
}

static void place_base(Tape *t, Load *l, Reg *d) {
  int early = -1;
  for (int k = 0; k < l->rank; k++)
    if (l->index[k]->depth < d->depth) early = MAX(early, l->index[k]->depth);
  if (early < 0 || d->depth < 2) return;
  for (int k = 0; k < l->rank; k++) l->early[k] = l->index[k]->depth < d->depth;
  l->based = true;
  l->base_at = pool_take(t, TAPE_LANES * sizeof(int64_t));
  emit(t, early, run_base, d, NULL, NULL)->u.load = l;
}

static Reg *compile_load(Tape *t, Expr *e, Reg *mask) {
  Load *l = NEW(t->c, Load);
  Expr *coef[MAX_RANK], *rest[MAX_RANK];
  l->tensor = e->u.tensor;
  l->rank = e->n;
  l->bytes = dtype_bytes(e->dtype);
  l->linear = linear_index(t, e, coef, rest);
  int width = l->linear ? L : U, depth = MAX(mask ? mask->depth : 0, l->linear);
  for (int d = 0; d < l->rank; d++) {
    l->index[d] = compile(t, l->linear ? rest[d] : e->a[d], mask);
    l->coef[d] = l->linear && !ex_equals_int(coef[d], 0) ? compile(t, coef[d], NULL) : NULL;
    l->checked[d] = loads(t, e->a[d]);
    if (!l->linear) width = MAX(width, l->index[d]->width);
    if (l->linear && l->index[d]->width == L) diag_bug(t->c, "an index of '%s' is not linear after all", l->tensor->name);
    depth = MAX(depth, l->index[d]->depth);
  }
  for (int d = 0; d < l->rank; d++)
    if (!l->linear && l->index[d]->width != U) l->index[d] = widen(t, l->index[d], width);
  if (mask) l->mask = mask->width < width ? widen(t, mask, width) : mask;
  l->state = mask;
  Reg *r = reg_new(t, e->dtype, width, depth);
  if (l->linear) emit(t, 0, run_inner, NULL, NULL, NULL)->u.load = l;
  place_base(t, l, r);
  emit(t, depth, l->linear ? run_load_linear : run_load, r, NULL, NULL)->u.load = l;
  vec_push(t->c, &t->loads, l);
  return r;
}

/* ---- reductions ---- */

typedef struct { Tape *t; int depth; } DepthOf;

static void depth_of(const Expr *e, void *user) {
  DepthOf *k = user;
  const Reg *r = e->op == EX_SYM ? map_get(&k->t->syms, KEY(e->u.sym)) : NULL;
  if (r) k->depth = MAX(k->depth, r->depth);
}

typedef struct { const Sym *s; bool found; } CondUse;

static void cond_use(const Expr *e, void *user) {
  CondUse *k = user;
  if (e->op == EX_SELECT && !k->found) k->found = expr_uses(e->a[0], k->s);
}

/* The axes from outside in: those that conditions depend on first, so that masks are made in the outer loops; as they stand if the
 * extent of one depends on another. */
static int order_axes(Expr *e, Sym **axes) {
  int n = 0;
  bool tied = false;
  for (int i = 1; i < e->n; i++)
    for (int k = 1; k < e->n; k++) tied |= e->a[i]->u.sym->extent && expr_uses(e->a[i]->u.sym->extent, e->a[k]->u.sym);
  for (int i = 1; tied && i < e->n; i++) axes[n++] = e->a[i]->u.sym;
  if (tied) return n;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 1; i < e->n; i++) {
      CondUse k = { e->a[i]->u.sym, false };
      expr_visit(e->a[0], cond_use, &k);
      if (k.found == (pass == 0)) axes[n++] = e->a[i]->u.sym;
    }
  return n;
}

static Reg *compile_operand(Tape *t, Expr *e, Reg *mask) { return compile(t, e, loads(t, e) ? mask : NULL); }

static void emit_accumulate(Tape *t, Expr *e, Reg *acc, Reg **v, int inner) {
  Combiner how = (Combiner)e->u.i;
  if (v[1]) {
    bool first = v[0]->width == U && acc->width != U;    /* the uniform one goes second */
    Reg *a = widen(t, v[first], acc->width), *b = v[!first];
    RowFn *fn = row_mac(e->dtype, b->width == U);
    emit(t, inner, run_row, acc, a, b->width == U ? b : widen(t, b, acc->width))->fn = fn;
    return;
  }
  Expr *x = ex_load(t->c, tensor_new(t->c, "x", e->dtype, 0, NULL), NULL, 0);
  Expr *combine = combiner_apply(t->c, how, x, ex_load(t->c, tensor_new(t->c, "y", e->dtype, 0, NULL), NULL, 0));
  RowFn *fn = row_op((ExprOp)combine->op, e->dtype);
  Ins *i = emit(t, inner, fn ? run_accumulate : run_combine, acc, v[0], NULL);
  i->fn = fn;
  i->e = combine;
}

static Reg *compile_reduce(Tape *t, Expr *e, Reg *mask) {
  DepthOf k = { t, mask ? mask->depth : 0 };
  expr_visit(e, depth_of, &k);
  int nopen = t->nopen, n = e->n - 1;
  Sym *axes[MAX_DEPTH];
  Reg *hidden[MAX_DEPTH], *extent[MAX_DEPTH], *counter[MAX_DEPTH];
  Block *open[MAX_DEPTH];
  if (k.depth + 1 + n >= MAX_DEPTH) diag_bug(t->c, "reductions nest too deeply in the stage of '%s'", t->stage->out->name);
  memcpy(open, t->open, sizeof open);
  order_axes(e, axes);
  Map values = t->values;
  t->nopen = k.depth + 1;
  for (int i = 0; i < n; i++) {
    hidden[i] = map_get(&t->syms, KEY(axes[i]));
    if (hidden[i]) t->values = map_new(t->c);  /* what was computed with the outer meaning does not hold inside */
    Expr *x = axes[i]->extent ? axes[i]->extent : ex_int(t->c, axes[i]->max + 1);
    extent[i] = compile(t, x, NULL);
    if (extent[i]->width != U) diag_bug(t->c, "the extent of '%s' is not the same throughout a row", axes[i]->name);
    t->open[t->nopen++] = NEW(t->c, Block);
    counter[i] = reg_new(t, DT_I64, U, t->nopen - 1);
    map_set(&t->syms, KEY(axes[i]), counter[i]);
  }
  Expr *body = e->a[0];
  Reg *v[2] = { NULL, NULL };
  if (e->u.i == RED_SUM && body->op == EX_MUL && row_mac(e->dtype, false)) {
    v[0] = compile_operand(t, body->a[0], mask);
    v[1] = compile_operand(t, body->a[1], mask);
  } else v[0] = compile_operand(t, body, mask);
  int width = MAX(v[0]->width, v[1] ? v[1]->width : U);
  if (!v[1]) v[0] = widen(t, v[0], width);
  Reg *acc = reg_new(t, e->dtype, width, k.depth);
  emit(t, k.depth, run_widen, acc, compile_const(t, combiner_identity(t->c, (Combiner)e->u.i, e->dtype)), NULL);
  emit_accumulate(t, e, acc, v, t->nopen - 1);
  for (int i = n - 1; i >= 0; i--) {
    Block *b = t->open[--t->nopen];
    Ins *loop = emit(t, t->nopen - 1, run_loop, counter[i], extent[i], NULL);
    loop->u.block = b;
    loop->e = axes[i]->self;
    map_set(&t->syms, KEY(axes[i]), hidden[i]);
  }
  t->values = values;
  memcpy(t->open, open, sizeof open);
  t->nopen = nopen;
  return acc;
}

/* ---- the rest ---- */

static Reg *compile_apply(Tape *t, Expr *e, Reg *mask) {
  Reg *v[3] = { NULL, NULL, NULL };
  int width = U, depth = 0;
  if (e->n > 3) diag_bug(t->c, "the interpreter has no '%s'", expr_info[e->op].text);
  for (int i = 0; i < e->n; i++) {
    v[i] = compile_operand(t, e->a[i], mask);
    width = MAX(width, v[i]->width);
    depth = MAX(depth, v[i]->depth);
  }
  for (int i = 0; i < e->n; i++) v[i] = widen(t, v[i], width);
  RowFn *fn = e->op == EX_CAST ? row_cast(e->dtype, e->a[0]->dtype) : row_op((ExprOp)e->op, e->a[0]->dtype);
  Reg *d = reg_new(t, e->dtype, width, depth);
  Ins *i = emit(t, depth, e->op == EX_BITCAST ? run_alias : fn && e->n < 3 ? run_row : run_apply, d, v[0], v[1]);
  i->c = v[2];
  i->fn = fn;
  i->e = e;
  return d;
}

static Reg *compile(Tape *t, Expr *e, Reg *mask) {
  if (e->op == EX_CONST) return compile_const(t, e);
  if (e->op == EX_SYM) return compile_sym(t, e->u.sym);
  if (!loads(t, e)) mask = NULL;
  uint64_t key = value_key(t, e->id, mask);
  Reg *r = value_get(t, key);
  if (r) return r;
  switch (e->op) {
  case EX_LOAD: r = compile_load(t, e, mask); break;
  case EX_REDUCE: r = compile_reduce(t, e, mask); break;
  case EX_SELECT: r = compile_select(t, e, mask); break;
  default: r = compile_apply(t, e, mask); break;
  }
  value_set(t, key, r);
  return r;
}

/* Which axes a row covers: from the innermost outwards while all fits; rows that would be short take a part of one axis more. */
static void choose_row(Tape *t) {
  t->lane = t->first = -1;
  t->chunk = 1;
  int64_t n = 1;
  for (int d = t->rank - 1; d >= 0; d--) {
    int64_t extent = t->dims[d];
    if (extent <= 1) continue;       /* without elements there are no rows at all */
    if (t->lane < 0) t->lane = d;
    else if (n * extent > TAPE_LANES && n >= TAPE_LANES / 4) break;
    t->first = d;
    t->chunk = MIN(extent, TAPE_LANES / n);
    if (t->chunk < extent) {
      int64_t parts = (extent + t->chunk - 1) / t->chunk;
      t->chunk = (extent + parts - 1) / parts;
      break;
    }
    n *= extent;
  }
}

static void bind_axes(Tape *t) {
  Expr *zero = ex_int(t->c, 0);
  for (int d = 0; d < t->rank; d++) {
    bool in_row = t->lane >= 0 && d >= t->first && d <= t->lane;
    if (t->dims[d] == 1) t->axis[d] = compile_const(t, zero);
    else t->axis[d] = reg_new(t, DT_I64, d == t->lane ? L : in_row ? S : U, 1);
    map_set(&t->syms, KEY(t->stage->axes[d]), t->axis[d]);
  }
}

Tape *tape_new(Ctx *c, const Stage *stage, const int64_t *dims) {
  Tape *t = NEW(c, Tape);
  t->c = c;
  t->stage = stage;
  t->rank = stage->out->rank;
  for (int d = 0; d < t->rank; d++) t->dims[d] = dims[d];
  t->values = map_new(c);
  t->syms = map_new(c);
  t->loads_in = map_new(c);
  t->consts = map_new(c);
  t->mask_ids = map_new(c);
  t->open[0] = NEW(c, Block);
  t->open[1] = NEW(c, Block);
  t->nopen = 2;
  choose_row(t);
  bind_axes(t);
  Reg *r = compile(t, stage->body, NULL);
  t->result = r->width == L ? r : widen(t, r, L);
  return t;
}

size_t tape_pool_bytes(const Tape *t) { return t->pool_bytes; }

/* ---- running ---- */

static void prepare_load(Tape *t, Load *l) {
  const Value *a = t->env->array(t->env, l->tensor);
  if (!a || a->rank != l->rank || a->dtype != l->tensor->dtype) diag_bug(t->c, "the tensor '%s' has no such value", l->tensor->name);
  l->data = a->data;
  l->splat = a->splat;
  l->aligned = (uintptr_t)a->data % (size_t)l->bytes == 0;
  l->base = (int64_t *)(void *)(t->pool + l->base_at);
  l->total = 1;
  for (int d = l->rank - 1; d >= 0; d--) {
    l->dims[d] = a->dims[d];
    l->strides[d] = l->total;
    l->total *= a->dims[d];
  }
}

/* Sets the registers of the axes that a row covers, where something asks for them. */
static void set_row(Tape *t, int64_t start) {
  int64_t take = t->lane < 0 ? 1 : MIN(t->chunk, t->dims[t->first] - start);
  t->start = start;
  t->run_length = t->lane < 0 ? 1 : (int)(t->first == t->lane ? take : t->dims[t->lane]);
  t->n[U] = t->n[S] = 1;
  if (t->first != t->lane) t->n[S] = (int)take;
  for (int d = t->first + 1; d < t->lane; d++) t->n[S] *= (int)t->dims[d];
  t->n[L] = t->n[S] * t->run_length;
  if (t->lane < 0) return;
  int64_t *lane = (int64_t *)(void *)t->axis[t->lane]->p, from = lane_start(t);
  for (int k = 0, s = 0; t->axis[t->lane]->used && s < t->n[S]; s++)
    for (int j = 0; j < t->run_length; j++) lane[k++] = from + j;
  int64_t each = 1;
  for (int d = t->lane - 1; d >= t->first; d--) {
    int64_t *v = (int64_t *)(void *)t->axis[d]->p;
    if (t->dims[d] == 1) continue;
    for (int s = 0; s < t->n[S]; s++) v[s] = s / each % t->dims[d] + (d == t->first ? start : 0);
    each *= t->dims[d];
  }
}

/* The next point of the axes outside the rows; false after the last. */
static bool next_outer(Tape *t, int64_t *at, int n) {
  for (int d = n - 1; d >= 0; d--) {
    if (t->dims[d] == 1) continue;
    at[d] = at[d] + 1 < t->dims[d] ? at[d] + 1 : 0;
    *(int64_t *)(void *)t->axis[d]->p = at[d];
    if (at[d]) return true;
  }
  return false;
}

void tape_run(Tape *t, TapeEnv *env, void *pool, void *out) {
  int64_t at[MAX_RANK] = { 0 };
  int outer = t->lane < 0 ? 0 : t->first;
  size_t bytes = (size_t)dtype_bytes(t->stage->out->dtype);
  for (int d = 0; d < t->rank; d++)
    if (t->dims[d] == 0) return;
  t->env = env;
  t->pool = pool;
  t->n[U] = t->run_length = 1;
  t->n[S] = t->n[L] = TAPE_LANES;  /* block 0 serves rows of any length */
  for (int i = 0; i < t->regs.n; i++) t->regs.v[i]->p = t->regs.v[i]->fixed ? t->regs.v[i]->fixed : t->pool + t->regs.v[i]->at;
  for (int i = 0; i < t->loads.n; i++) prepare_load(t, t->loads.v[i]);
  for (int d = 0; d < outer; d++)
    if (t->dims[d] != 1) *(int64_t *)(void *)t->axis[d]->p = 0;
  run_block(t, t->open[0]);
  char *to = out;
  do
    for (int64_t start = 0; start < (t->lane < 0 ? 1 : t->dims[t->first]); start += t->chunk) {
      set_row(t, start);
      run_block(t, t->open[1]);
      memcpy(to, t->result->p, bytes * (size_t)t->n[L]);
      to += bytes * (size_t)t->n[L];
    }
  while (next_outer(t, at, outer));
}
