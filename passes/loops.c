/* loops.c - makes the loops of a scheduled group: a kernel of the tensor IR.
 *
 * Loops are generated from outside in. A split iterator gives one loop per run of its factors, so tails are code of their own with
 * constant extents and there are no guards. Where the first reduction iterator opens, an accumulator for the data iterators inside
 * it is made: cleared, updated in the reduction's loops, and read by the stage's expression after them. Loads become fetches at
 * layout offsets; a padded load (select of bounds checks, load, zero) of a tensor whose ring covers it becomes a plain fetch.
 */
#include <stdlib.h>

#include "regions.h"
#include "sched.h"

/* A part of a stage's tensor held in registers or scratch, or (kept) computed in its place. */
typedef struct { Tensor *of, *buf; Expr **min, **extent; bool kept; } Local;

typedef struct {
  Ctx *c;
  Sched *s;
  VEC(Local) locals;
  Expr *scratch;                   /* bytes; NULL: none */
} Gen;

typedef enum { BODY, UPDATE, FINAL } Phase;

typedef struct {
  Gen *g;
  StageLoops *l;
  Local *local;                    /* where the stage writes; NULL: its own tensor */
  Tensor *acc;
  int64_t partials;                /* results per element that are combined at the end */
} Run;

static Stmt *gen_from(Run *r, int pos, Phase phase);

/* Runs of one length and no rest: the parts may be opened in any order, and be split further. */
static bool is_even(const Iter *p) {
  int64_t n;
  return p->nfactors == 1 && !p->chunk && p->extent && ex_is_int(p->extent, &n) && n % p->factor[0] == 0;
}

/* The extent of an iterator whose parent's runs are not open. */
static Expr *iter_extent(Ctx *c, const Iter *it) {
  const Iter *p = it->parent;
  if (it->extent || !p || !is_even(p)) return it->extent;
  return it == p->inner ? ex_int(c, p->factor[0]) : ex_ceil_div(c, p->extent, p->factor[0]);
}

/* ---- values of iterators; NULL where the loops are not open ---- */
static Expr *iter_value(Ctx *c, const Iter *it) {
  if (it->here) return it->here;
  if (it->fused) {
    Expr *f = iter_value(c, it->fused);
    if (f && ex_equals_int(it->extent, 1)) return ex_int(c, 0);
    return f ? ex_binary(c, it->fused_hi ? EX_DIV : EX_MOD, f, it->mate->extent) : NULL;
  }
  if (!it->outer) return it->value;
  Expr *o = iter_value(c, it->outer), *i = iter_value(c, it->inner), *run = it->run ? it->run : is_even(it) ? ex_int(c, it->factor[0]) : NULL;
  return o && i && run ? ex_add(c, ex_add(c, it->run ? it->base : ex_int(c, 0), ex_mul(c, o, run)), i) : NULL;
}

/* The largest extent that a leaf can have in any run. */
static int64_t iter_max(Gen *g, const Iter *it) {
  int64_t f;
  if (it->extent && expr_range(g->c, it->extent).max < INT64_MAX) return expr_range(g->c, it->extent).max;
  const Iter *p = it->parent;
  if (!p) return diag_bug(g->c, "iterator %s of unknown extent inside a reduction", it->name), 0;
  f = p->factor[0];
  if (it == p->inner) return f;
  return (iter_max(g, p) + f - 1) / f;
}

/* ---- expressions ---- */
typedef struct { Gen *g; Map memo; } Lowerer;
static Expr *lower(Lowerer *w, Expr *e);

static Local *find_local(Gen *g, const Tensor *t) {
  for (int i = 0; i < g->locals.n; i++)
    if (g->locals.v[i].of == t) return &g->locals.v[i];
  return NULL;
}

static Expr *fetch(Gen *g, Tensor *t, Expr *const *index) {
  Ctx *c = g->c;
  Local *local = find_local(g, t);
  if (!local || local->kept) return ex_fetch(c, t, layout_offset(c, t, index));
  Expr *at[MAX_RANK];
  for (int i = 0; i < t->rank; i++) at[i] = ex_sub(c, index[i], local->min[i]);
  return ex_fetch(c, local->buf, layout_offset(c, local->buf, at));
}

static Expr *lower_node(Lowerer *w, Expr *e) {
  Ctx *c = w->g->c;
  Expr *a[MAX_RANK + 1];
  if (is_padded_load(c, e) && !find_local(w->g, e->a[1]->u.tensor) && e->a[1]->u.tensor->layout &&
      layout_covers(c, e->a[1]->u.tensor, e->a[1]->a))
    return lower(w, e->a[1]);
  if (!e->n && e->op != EX_LOAD) return e;
  for (int i = 0; i < e->n; i++) a[i] = lower(w, e->a[i]);
  return e->op == EX_LOAD ? fetch(w->g, e->u.tensor, a) : ex_make(c, e, a);
}

static Expr *lower(Lowerer *w, Expr *e) {
  Expr *r = map_get(&w->memo, KEY(e));
  if (!r) map_set(&w->memo, KEY(e), r = lower_node(w, e));
  return r;
}

static Expr *lower_expr(Gen *g, Expr *e) {
  Lowerer w = {g, map_new(g->c)};
  return lower(&w, e);
}

/* An axis of the stage as an expression of the loops that are open; NULL if its own are not. */
static Expr *axis_value(Ctx *c, const StageLoops *l, int axis) {
  const Iter *it = l->axes.v[axis];
  Expr *v = iter_value(c, it);
  return v && it->origin ? ex_add(c, it->origin, v) : v;
}

static Expr *at_iters(Run *r, Expr *e) {
  Ctx *c = r->g->c;
  Subst s = subst_new(c);
  for (int i = 0; i < r->l->axes.n; i++) {
    Expr *v = axis_value(c, r->l, i);
    if (v) subst_set(&s, r->l->syms[i], v);
  }
  return subst_apply(&s, e);
}

static bool has_tail(Ctx *c, const Tensor *t, int d) { return stage_extent(c, t, d) != t->shape[d]; }

/* Where loops run over a channel tail that only the layout has, the tail holds zero: the condition that an element is real. */
static Expr *real_element(Run *r) {
  Ctx *c = r->g->c;
  const Tensor *t = r->l->stage->out;
  Expr *ok = NULL;
  for (int i = 0; t->layout && (!r->local || r->local->kept) && !r->l->stage->at && i < t->rank; i++) {
    if (!has_tail(c, t, i)) continue;
    Expr *in = ex_lt(c, axis_value(c, r->l, i), t->shape[i]);
    if (!expr_proves(c, in)) ok = ok ? ex_and(c, ok, in) : in;
  }
  return ok;
}

/* Loads at elements of the tail that may lie outside of what is stored: of indices that move with the tail's axes. */
typedef struct { Run *r; bool fits; } Fit;
static void fits_storage(const Expr *e, void *user) {
  Fit *f = user;
  Ctx *c = f->r->g->c;
  const Tensor *out = f->r->l->stage->out;
  for (int d = 0; e->op == EX_LOAD && d < e->n; d++)
    for (int i = 0; i < out->rank; i++) {
      if (!has_tail(c, out, i) || !expr_uses(e->a[d], f->r->l->syms[i])) continue;
      if (!expr_proves(c, ex_lt(c, at_iters(f->r, e->a[d]), stage_extent(c, e->u.tensor, d)))) f->fits = false;
    }
}

/* value, which stands at the stage's axes, at the loops that are open. */
static Expr *guarded_term(Run *r, Expr *value, Expr *otherwise) {
  Ctx *c = r->g->c;
  Expr *ok = real_element(r), *term = at_iters(r, value);
  Fit fit = {r, true};
  if (ok) expr_visit(value, fits_storage, &fit);
  return fit.fits ? term : ex_select(c, ok, term, otherwise);
}

/* ---- leaves ---- */
static Expr *acc_index(Run *r) {
  Ctx *c = r->g->c;
  Expr *e = ex_int(c, 0);
  for (int i = 0; i < r->l->order.n; i++) {
    Iter *it = r->l->order.v[i], *p = it->parent;
    if (!it->stride || !it->value) continue;
    Expr *step = it->value;                                  /* a later run goes on where the first one ended */
    if (p && it == p->outer) step = ex_add(c, step, ex_div(c, p->base, ex_int(c, p->factor[0])));
    e = ex_add(c, e, ex_mul(c, step, ex_int(c, it->stride)));
  }
  return e;
}

static Expr *replace_reduce(Ctx *c, Expr *e, void *user) {
  Expr **pair = user;
  return e == pair[0] ? pair[1] : e;
}

/* at[] lies in t: what of that is not proved. */
static Expr *inside(Ctx *c, const Tensor *t, Expr *const *at) {
  Expr *in = ex_bool(c, true);
  for (int d = 0; d < t->rank; d++) {
    Expr *here = ex_lt(c, at[d], t->shape[d]);
    if (!expr_proves(c, here)) in = ex_and(c, in, here);
  }
  return in;
}

static Stmt *store_result(Run *r, Expr *value) {
  Ctx *c = r->g->c;
  Stage *st = r->l->stage;
  Expr *at[MAX_RANK];
  Tensor *to = r->local ? r->local->buf : st->out;
  for (int i = 0; i < st->out->rank; i++)                    /* local: from where its part begins */
    at[i] = st->at ? at_iters(r, st->at[i]) : r->local && !r->local->kept ? iter_value(c, r->l->axes.v[i]) : axis_value(c, r->l, i);
  Expr *real = real_element(r);
  if (real) value = ex_select(c, real, value, ex_const(c, st->out->dtype, 0));
  Stmt *store = st_store(c, to, layout_offset(c, to, at), lower_expr(r->g, value), -1);
  Expr *in = st->clipped ? inside(c, to, at) : ex_bool(c, true);
  return ex_is_const(in) ? store : st_if(c, in, store, NULL);
}

static Stmt *fresh_loop(Ctx *c, LoopKind kind, const char *name, int64_t n, Stmt *(*body)(Ctx *, Expr *, void *), void *user) {
  if (n == 1) return body(c, ex_int(c, 0), user);
  Sym *s = sym_axis(c, SYM_AXIS, name, ex_int(c, n));
  Stmt *loop = st_for(c, kind, s, s->extent, body(c, s->self, user));
  loop->lanes = kind == LOOP_VECTOR ? (int)n : 0;
  return loop;
}

typedef struct { Tensor *to, *from; Expr *base, *block, *value; int combiner; int64_t lanes; } Fill;
static Stmt *fill_lane(Ctx *c, Expr *lane, void *user) {
  Fill *f = user;
  Expr *at = ex_add(c, f->base, ex_add(c, ex_mul(c, f->block, ex_int(c, f->lanes)), lane));
  if (f->from) return st_store(c, f->to, ex_int(c, 0), ex_fetch(c, f->from, at), f->combiner);
  return st_store(c, f->to, at, f->value, -1);
}
static Stmt *fill_block(Ctx *c, Expr *block, void *user) {
  Fill *f = user;
  f->block = block;
  return fresh_loop(c, LOOP_VECTOR, "lane", f->lanes, fill_lane, f);
}

static int64_t vector_lanes(const StageLoops *l) {
  for (int i = 0; i < l->order.n; i++)
    if (l->order.v[i]->kind == LOOP_VECTOR && l->order.v[i]->stride == 1) return l->order.v[i]->lanes;
  return 1;
}

/* How many of an element's partial results are lanes of one vector. */
static int64_t partial_lanes(const StageLoops *l) {
  for (int i = 0; i < l->order.n; i++)
    if (l->order.v[i]->kind == LOOP_VECTOR && l->order.v[i]->reduce) return l->order.v[i]->lanes;
  return 1;
}

static Tensor *reg_tensor(Ctx *c, const char *name, DType t, int64_t n) {
  Expr *shape[] = {ex_int(c, n)};
  Tensor *r = tensor_new(c, name, t, 1, shape);
  r->scope = n <= 1024 ? SCOPE_REG : SCOPE_SCRATCH;
  return r;
}

static Tensor *alloc_in(Gen *g, Tensor *t) {
  enum { LINE = 64 };
  Ctx *c = g->c;
  if (t->scope != SCOPE_SCRATCH) return t;
  Expr *bytes = ex_mul(c, layout_elements(c, t), ex_int(c, dtype_bytes(t->dtype)));
  t->offset = g->scratch ? g->scratch : ex_int(c, 0);
  g->scratch = ex_add(c, t->offset, ex_mul(c, ex_ceil_div(c, ex_add(c, bytes, ex_int(c, LINE)), LINE), ex_int(c, LINE)));
  return t;
}

static Stmt *final_leaf(Run *r) {
  Ctx *c = r->g->c;
  Stage *st = r->l->stage;
  DType t = (DType)r->l->reduce->dtype;
  int how = (int)r->l->reduce->u.i;
  Expr *index = acc_index(r);
  if (r->partials == 1 || vector_lanes(r->l) != partial_lanes(r->l)) {
    Expr *pair[] = {r->l->reduce, ex_fetch(c, r->acc, index)};
    for (int64_t i = 1; i < r->partials; i++)                /* vectors of partial results */
      pair[1] = combiner_apply(c, (Combiner)how, pair[1], ex_fetch(c, r->acc, ex_add(c, index, ex_int(c, i * vector_lanes(r->l)))));
    return store_result(r, at_iters(r, expr_map(c, st->body, replace_reduce, pair)));
  }
  Tensor *sum = reg_tensor(c, "total", t, 1);
  Fill f = {sum, r->acc, index, NULL, NULL, how, vector_lanes(r->l)};
  Expr *pair[] = {r->l->reduce, ex_fetch(c, sum, ex_int(c, 0))};
  Stmt *parts[] = {st_store(c, sum, ex_int(c, 0), combiner_identity(c, (Combiner)how, t), -1),
                   fresh_loop(c, LOOP_UNROLL, "part", r->partials / f.lanes, fill_block, &f),
                   store_result(r, at_iters(r, expr_map(c, st->body, replace_reduce, pair)))};
  return st_alloc(c, sum, st_seq(c, parts, 3));
}

static Stmt *leaf(Run *r, Phase phase) {
  Ctx *c = r->g->c;
  if (phase == BODY) return store_result(r, at_iters(r, r->l->stage->body));
  if (phase == FINAL) return final_leaf(r);
  Expr *red = r->l->reduce;
  Expr *value = guarded_term(r, red->a[0], combiner_identity(c, (Combiner)red->u.i, (DType)red->dtype));
  return st_store(c, r->acc, acc_index(r), lower_expr(r->g, value), (int)red->u.i);
}

/* ---- what is made of the sums ---- */
static Stmt *hold_lane(Ctx *c, Expr *lane, void *user) {
  Fill *f = user;
  Expr *at = ex_add(c, ex_mul(c, f->block, ex_int(c, f->lanes)), lane);
  return st_store(c, f->to, at, ex_fetch(c, f->from, at), -1);
}
static Stmt *hold_block(Ctx *c, Expr *block, void *user) {
  Fill *f = user;
  f->block = block;
  return fresh_loop(c, LOOP_VECTOR, "lane", f->lanes, hold_lane, f);
}

static void count_steep(const Expr *e, void *user) { *(int *)user += dtype_is_float((DType)e->dtype) && (e->op >= EX_EXP || e->op == EX_POW); }

/* Functions of many operations would need the registers that hold the sums, which then leave them while they still are summed up: the sums
 * wait in memory, and the functions' loops are not unrolled. */
static Stmt *gen_final(Run *r, int pos, int64_t n) {
  enum { MANY = 8, FEW = 4 };
  Ctx *c = r->g->c;
  StageLoops *l = r->l;
  Expr *pair[] = {l->reduce, ex_const(c, (DType)l->reduce->dtype, 0)};
  int64_t lanes = vector_lanes(l);
  int steep = 0;
  expr_visit(expr_map(c, l->stage->body, replace_reduce, pair), count_steep, &steep);
  if (!steep || r->partials > 1 || r->acc->scope != SCOPE_REG || lanes == 1 || n < MANY * lanes) return gen_from(r, pos, FINAL);
  Tensor *held = reg_tensor(c, "held", r->acc->dtype, n), *acc = r->acc;
  held->scope = SCOPE_SCRATCH;
  Fill copy = {alloc_in(r->g, held), acc, NULL, NULL, NULL, -1, lanes};
  bool rolled[64] = {0};
  for (int i = pos; i < l->order.n; i++) {
    Iter *it = l->order.v[i];
    rolled[i] = !it->reduce && it->kind == LOOP_UNROLL && iter_max(r->g, it) > FEW;
    if (rolled[i]) it->kind = LOOP_SERIAL;
  }
  r->acc = held;
  Stmt *parts[] = {fresh_loop(c, LOOP_UNROLL, "hold", n / lanes, hold_block, &copy), gen_from(r, pos, FINAL)};
  r->acc = acc;
  for (int i = pos; i < l->order.n; i++)
    if (rolled[i]) l->order.v[i]->kind = LOOP_UNROLL;
  return st_alloc(c, held, st_seq(c, parts, 2));
}

/* ---- reductions ---- */
static Stmt *gen_reduction(Run *r, int pos) {
  Ctx *c = r->g->c;
  StageLoops *l = r->l;
  int64_t n = 1;
  r->partials = 1;
  for (int place = 0; place < 3; place++)                    /* vectors of results, then an element's partial ones, lie side by side */
    for (int i = l->order.n - 1; i >= 0; i--) {
      Iter *it = l->order.v[i];
      int of = it->reduce ? (it->partial ? 1 : -1) : it->kind == LOOP_VECTOR && i >= pos ? 0 : 2;
      if (of != place) continue;
      it->stride = i < pos ? 0 : n;
      if (i < pos) continue;
      int64_t extent = it->kind == LOOP_VECTOR ? it->lanes : iter_max(r->g, it);
      n *= extent;
      if (it->reduce) r->partials *= extent;
    }
  DType t = (DType)l->reduce->dtype;
  r->acc = alloc_in(r->g, reg_tensor(c, "acc", t, n));
  Fill clear = {r->acc, NULL, ex_int(c, 0), NULL, combiner_identity(c, (Combiner)l->reduce->u.i, t), -1, vector_lanes(l)};
  Stmt *parts[] = {fresh_loop(c, r->acc->scope == SCOPE_REG ? LOOP_UNROLL : LOOP_SERIAL, "clear", n / clear.lanes, fill_block, &clear),
                   gen_from(r, pos, UPDATE), gen_final(r, pos, n)};
  for (int i = 0; i < l->order.n; i++) l->order.v[i]->stride = 0;
  return st_alloc(c, r->acc, st_seq(c, parts, 3));
}

/* ---- stages computed inside a loop of the root ---- */
static Stmt *gen_stage(Gen *g, StageLoops *l);

/* The interval of an axis that the loops not yet open will run over. */
static Region iter_region(Ctx *c, const Iter *it) {
  Expr *v = iter_value(c, it);
  if (v) return (Region){v, ex_int(c, 1)};
  Expr *o = it->outer && it->run ? iter_value(c, it->outer) : NULL;
  if (!o) return (Region){ex_int(c, 0), it->extent};
  Region inner = iter_region(c, it->inner);
  return (Region){ex_add(c, ex_add(c, it->base, ex_mul(c, o, it->run)), inner.min), inner.extent};
}

/* Rows begin with a line of the cache, and not all on the same few lines; those of open length might: they are a line further apart. */
static Layout *lined_rows(Ctx *c, const Tensor *t) {
  enum { LINE = 64, FEW_SETS = 512 };
  int64_t n, size = dtype_bytes(t->dtype), gap = LINE;
  if (t->rank < 2) return NULL;
  if (ex_is_int(t->shape[t->rank - 1], &n)) {
    int64_t row = round_up(n * size, LINE);
    gap = row % FEW_SETS ? row - n * size : row + LINE - n * size;
    if (n * size < LINE || !gap) return NULL;
  }
  Layout *l = NEW(c, Layout);
  for (int d = 0; d < t->rank; d++) l->part[l->n++] = (LayoutPart){.dim = (int8_t)d, .div = 1};
  l->part[t->rank - 2].pad = (int32_t)(gap / size);
  return l;
}

/* Where a stage inside the root's loops writes: the part of its tensor that its readers need while the loops open now stand. */
static Local make_local(Gen *g, const StageLoops *l, const Region *part) {
  Ctx *c = g->c;
  Tensor *t = l->stage->out;
  Expr **min = NEW_ARRAY(c, Expr *, t->rank + 1), **extent = NEW_ARRAY(c, Expr *, t->rank + 1), *room[MAX_RANK];
  for (int d = 0; d < t->rank; d++) {
    bool changes = part[d].extent->flags & EXPR_AXIS;        /* the last block is shorter */
    min[d] = part[d].min;
    extent[d] = part[d].extent;
    room[d] = changes ? ex_int(c, expr_range(c, extent[d]).max) : extent[d];
  }
  if (l->stage->kept) return (Local){t, t, min, extent, true};
  Tensor *buf = tensor_new(c, ctx_printf(c, "part%d", g->locals.n), t->dtype, t->rank, room);     /* equal kernels have equal names */
  buf->layout = t->layout ? t->layout : lined_rows(c, buf);
  buf->scope = l->reg || ex_equals_int(tensor_elements(c, buf), 1) ? SCOPE_REG : SCOPE_SCRATCH;
  return (Local){t, alloc_in(g, buf), min, extent, false};
}

static Region (*stage_parts(Gen *g))[MAX_RANK] {
  Ctx *c = g->c;
  const StageLoops *root = sched_root(g->s);
  Region axes[2 * MAX_RANK], (*part)[MAX_RANK] = ctx_alloc(c, sizeof *part * (size_t)g->s->stages.n);
  for (int i = 0; i < root->axes.n; i++) axes[i] = iter_region(c, root->axes.v[i]);
  group_regions(c, g->s->group, axes, part);
  return part;
}

static Stmt *with_inner_stages(Run *r, const Iter *it, int pos, Phase phase) {
  Gen *g = r->g;
  Ctx *c = g->c;
  VEC(Stmt *) seq = {0};
  int first = g->locals.n, last = g->s->stages.n - 1;
  Region (*part)[MAX_RANK] = last ? stage_parts(g) : NULL;
  for (int i = 0; i < last; i++)
    if (g->s->stages.v[i]->at == it) vec_push(c, &g->locals, make_local(g, g->s->stages.v[i], part[i]));
  for (int i = 0; i < last; i++)
    if (g->s->stages.v[i]->at == it) vec_push(c, &seq, gen_stage(g, g->s->stages.v[i]));
  vec_push(c, &seq, gen_from(r, pos + 1, phase));
  Stmt *s = st_seq(c, seq.v, seq.n);
  for (int i = g->locals.n - 1; i >= first; i--)
    if (!g->locals.v[i].kept) s = st_alloc(c, g->locals.v[i].buf, s);
  g->locals.n = first;
  return s;
}

/* ---- loops ---- */
/* Is the outer part one loop for all runs, as threads share it? */
static bool is_one_loop(const Iter *p) { return p->outer->fused || (p->outer->kind == LOOP_PARALLEL && !p->chunk && p->outer->extent); }

/* The body of the loop just bound. Split iterators whose outer part is one loop begin here; where the last of their runs is a
 * shorter one, the body is there twice and each iteration takes the one that fits. */
static Stmt *open_body(Run *r, int pos, Phase phase, int from) {
  Ctx *c = r->g->c;
  int64_t n, f;
  for (int i = from; i < r->l->splits.n; i++) {
    Iter *p = r->l->splits.v[i];
    Expr *o = p->run || !is_one_loop(p) ? NULL : iter_value(c, p->outer);
    if (!o) continue;
    f = p->factor[0];
    p->base = ex_int(c, 0);
    p->run = ex_int(c, f);
    bool known = ex_is_int(p->extent, &n), uneven = !p->chunk && known && n % f && n > f;
    p->inner->extent = uneven || (known && n % f == 0) ? p->run : ex_min(c, p->run, ex_sub(c, p->extent, ex_mul(c, o, p->run)));
    if (uneven) p->outer->here = ex_min(c, o, ex_int(c, n / f - 1));       /* what the branch knows */
    Stmt *body = open_body(r, pos, phase, i + 1);
    if (uneven) {
      p->inner->extent = ex_int(c, n % f);
      p->outer->here = ex_int(c, n / f);
      body = st_if(c, ex_lt(c, o, ex_int(c, n / f)), body, open_body(r, pos, phase, i + 1));
    }
    p->run = p->outer->here = NULL;
    return body;
  }
  bool root = r->l == sched_root(r->g->s) && phase != FINAL;
  return root ? with_inner_stages(r, r->l->order.v[pos], pos, phase) : gen_from(r, pos + 1, phase);
}

/* ---- constants asked for before they are read ---- */
static void find_constant(const Expr *e, void *user) {
  if (e->op == EX_LOAD && e->u.tensor->data && !e->u.tensor->data->splat) *(const Expr **)user = e;
}

typedef VEC(Iter *) Iters;

/* Iterators of the axis that are not open yet stand at their beginning; `set` lists them. */
static void begin_axis(Ctx *c, Iter *it, Iters *set) {
  if (iter_value(c, it)) return;
  if (it->outer && it->run) {
    begin_axis(c, it->outer, set);
    begin_axis(c, it->inner, set);
    return;
  }
  it->here = ex_int(c, 0);
  vec_push(c, set, it);
}

/* Where the constant operand's part for the panel at hand begins. */
static Expr *panel_offset(Run *r, const Expr *load) {
  Ctx *c = r->g->c;
  Expr *at[MAX_RANK], *old[2 * MAX_RANK];
  int rank = r->l->stage->out->rank, n = r->l->axes.n;
  Iters set = {0};
  for (int i = 0; i < n; i++) {
    old[i] = r->l->axes.v[i]->here;
    if (i >= rank) r->l->axes.v[i]->here = ex_int(c, 0);
    else begin_axis(c, r->l->axes.v[i], &set);
  }
  for (int d = 0; d < load->n; d++) at[d] = at_iters(r, load->a[d]);
  for (int i = 0; i < set.n; i++) set.v[i]->here = NULL;
  for (int i = 0; i < n; i++) r->l->axes.v[i]->here = old[i];
  return layout_offset(c, load->u.tensor, at);
}

/* How often the loops of `ahead` have come round, in the order in which they stand there. */
static Expr *steps_done(Run *r) {
  Ctx *c = r->g->c;
  Expr *done = ex_int(c, 0);
  for (int i = 0; i < r->l->ahead.n; i++) {
    const Iter *it = r->l->ahead.at[i], *p = it->parent;
    Expr *v = iter_value(c, it);
    if (p && p->base) v = ex_add(c, v, ex_div(c, p->base, ex_int(c, p->factor[0])));
    done = i ? ex_add(c, ex_mul(c, done, ex_int(c, iter_max(r->g, it))), v) : v;
  }
  return done;
}

static Stmt *look_ahead(Run *r, Stmt *body) {
  enum { LINE = 64 };
  Ctx *c = r->g->c;
  const Expr *load = NULL;
  VEC(Stmt *) seq = {0};
  expr_visit(r->l->reduce->a[0], find_constant, &load);
  if (!load) return body;
  int64_t size = dtype_bytes(load->u.tensor->dtype), lines = r->l->ahead.lines, steps = r->l->ahead.steps;
  Expr *at = ex_add(c, panel_offset(r, load), ex_int(c, r->l->ahead.bytes / size));
  Expr *first = ex_div(c, ex_mul(c, steps_done(r), ex_int(c, lines)), ex_int(c, steps));
  for (int i = 0; i < (lines + steps - 1) / steps; i++) {
    Expr *line = ex_add(c, first, ex_int(c, i));
    vec_push(c, &seq, st_prefetch(c, load->u.tensor, ex_add(c, at, ex_mul(c, line, ex_int(c, LINE / size)))));
  }
  vec_push(c, &seq, body);
  return st_seq(c, seq.v, seq.n);
}

/* ---- computed operands asked for before they are read ---- */
typedef struct { Run *r; VEC(Stmt *) seq; } Soon;

static void ask_for(const Expr *e, void *user) {
  Soon *w = user;
  StageLoops *l = w->r->l;
  Ctx *c = w->r->g->c;
  Expr *at[MAX_RANK];
  if (e->op != EX_LOAD || e->u.tensor->data || find_local(w->r->g, e->u.tensor)) return;
  for (int d = 0; d < e->n; d++) at[d] = at_iters(w->r, e->a[d]);
  Expr *index = layout_offset(c, e->u.tensor, at);
  Stmt *s = st_prefetch(c, e->u.tensor, index);
  for (int i = l->soon.n - 1; i >= 0; i--) {
    const Expr *v = l->soon.over[i]->here;
    if (v->op == EX_SYM && expr_uses(index, v->u.sym)) s = st_for(c, LOOP_UNROLL, v->u.sym, v->u.sym->extent, s);
  }
  vec_push(c, &w->seq, s);
}

/* In front of the body of the loop at pos: its later step, `over` at all of theirs. */
static Stmt *look_sooner(Run *r, int pos, Stmt *body) {
  Ctx *c = r->g->c;
  StageLoops *l = r->l;
  Soon w = {.r = r};
  Iters begun = {0};
  l->order.v[pos]->here = ex_add(c, l->order.v[pos]->value, ex_int(c, l->soon.steps));
  for (int i = 0; i < l->soon.n; i++) {
    Expr *extent = iter_extent(c, l->soon.over[i]);
    int64_t n;
    bool many = extent && ex_is_int(extent, &n) && n > 1 && l->soon.over[i]->kind != LOOP_VECTOR;
    l->soon.over[i]->here = many ? sym_axis(c, SYM_AXIS, l->soon.over[i]->name, extent)->self : ex_int(c, 0);
  }
  for (int i = 0; i < l->axes.n; i++) begin_axis(c, l->axes.v[i], &begun);
  expr_visit(l->reduce ? l->reduce->a[0] : l->stage->body, ask_for, &w);
  for (int i = 0; i < begun.n; i++) begun.v[i]->here = NULL;
  for (int i = 0; i < l->soon.n; i++) l->soon.over[i]->here = NULL;
  l->order.v[pos]->here = NULL;
  vec_push(c, &w.seq, body);
  return st_seq(c, w.seq.v, w.seq.n);
}

static Stmt *bind(Run *r, int pos, Phase phase, Expr *count) {
  Ctx *c = r->g->c;
  Iter *it = r->l->order.v[pos], *p = it->parent;
  bool one = ex_equals_int(count, 1), loop = !one || it->kind == LOOP_VECTOR;
  /* a symbol of one value would fold away, and with it the lanes */
  Sym *s = loop ? sym_axis(c, it->reduce ? SYM_REDUCE : SYM_AXIS, it->name, one ? ex_int(c, 2) : count) : NULL;
  it->value = loop && (it->kind == LOOP_VECTOR || expr_range(c, count).max > 1) ? s->self : ex_int(c, 0);
  if (p && p->chunk && it == p->outer)
    p->inner->extent = ex_min(c, p->run, ex_sub(c, p->extent, ex_mul(c, it->value, p->run)));
  Stmt *body = open_body(r, pos, phase, 0);
  if (phase == UPDATE && r->l->ahead.n && r->l->ahead.at[r->l->ahead.n - 1] == it) body = look_ahead(r, body);
  if ((phase == UPDATE || !r->l->reduce) && r->l->soon.loop == it && loop) body = look_sooner(r, pos, body);
  it->value = NULL;
  if (!loop) return body;
  bool open = it->kind == LOOP_UNROLL && !ex_is_int(count, NULL);            /* a rest that may be empty */
  Stmt *f = st_for(c, open ? LOOP_SERIAL : it->kind, s, count, body);
  f->lanes = it->lanes;
  return f;
}

static Stmt *gen_runs(Run *r, int pos, Phase phase) {
  Ctx *c = r->g->c;
  Iter *p = r->l->order.v[pos]->parent;
  VEC(Stmt *) seq = {0};
  Expr *rest = iter_extent(c, p);
  p->base = ex_int(c, 0);
  for (int i = 0; i <= p->nfactors && !ex_equals_int(rest, 0); i++) {
    bool last = i == p->nfactors;
    int64_t one;
    Expr *run = last ? rest : ex_int(c, p->factor[i]);
    Expr *count = !last ? ex_div(c, rest, run) : ex_is_int(rest, &one) ? ex_int(c, 1) : ex_min(c, rest, ex_int(c, 1));
    Expr *done = ex_mul(c, count, run), *left = last ? ex_int(c, 0) : ex_mod(c, rest, run);
    if (ex_equals_int(count, 0)) continue;
    p->run = p->inner->extent = run;
    vec_push(c, &seq, bind(r, pos, phase, count));
    p->base = ex_add(c, p->base, done);
    rest = left;
  }
  p->base = p->run = p->inner->extent = NULL;
  return st_seq(c, seq.v, seq.n);
}

static Stmt *gen_from(Run *r, int pos, Phase phase) {
  Ctx *c = r->g->c;
  StageLoops *l = r->l;
  if (pos == l->order.n) return leaf(r, phase);
  Iter *it = l->order.v[pos], *p = it->parent;
  if (phase == BODY && it->reduce) return gen_reduction(r, pos);
  if (phase == FINAL && it->reduce) return gen_from(r, pos + 1, phase);
  if (!p || it != p->outer || is_one_loop(p)) return bind(r, pos, phase, iter_extent(c, it));
  if (!p->chunk) return gen_runs(r, pos, phase);
  p->base = ex_int(c, 0);
  p->run = ex_int(c, p->factor[0]);
  Stmt *s = bind(r, pos, phase, ex_ceil_div(c, p->extent, p->factor[0]));
  p->base = p->run = p->inner->extent = NULL;
  return s;
}

static Stmt *gen_stage(Gen *g, StageLoops *l) {
  Run r = {.g = g, .l = l, .local = find_local(g, l->stage->out), .partials = 1};
  const Tensor *out = l->stage->out;
  for (int i = 0; r.local && i < out->rank; i++) {
    l->axes.v[i]->extent = r.local->extent[i];
    l->axes.v[i]->origin = r.local->min[i];
  }
  return gen_from(&r, 0, BODY);
}

/* ---- the kernel around the loops ---- */
typedef struct { Ctx *c; Kernel *k; VEC(Tensor *) params; VEC(bool) writes; } Signature;

static void add_param(Signature *s, Tensor *t, bool write) {
  if (t->scope == SCOPE_REG || t->scope == SCOPE_SCRATCH) return;
  for (int i = 0; i < s->params.n; i++)
    if (s->params.v[i] == t) { s->writes.v[i] |= write; return; }
  vec_push(s->c, &s->params, t);
  vec_push(s->c, &s->writes, write);
}

static void add_expr(const Expr *e, void *user) {
  Signature *s = user;
  if (e->op == EX_FETCH) add_param(s, e->u.tensor, false);
  if (e->op != EX_SYM || e->u.sym->kind != SYM_DIM) return;
  for (int i = 0; i < s->k->dims.n; i++)
    if (s->k->dims.v[i] == e->u.sym) return;
  vec_push(s->c, &s->k->dims, e->u.sym);
}

static void add_stmt(Signature *s, const Stmt *st) {
  if (st->op == ST_STORE || st->op == ST_PREFETCH) add_param(s, st->tensor, st->op == ST_STORE);
  if (st->extent) expr_visit(st->extent, add_expr, s);
  if (st->index) expr_visit(st->index, add_expr, s);
  if (st->value) expr_visit(st->value, add_expr, s);
  if (st->op == ST_ALLOC && st->tensor->offset) expr_visit(st->tensor->offset, add_expr, s);
  for (int i = 0; i < st->n; i++)
    if (st->body[i]) add_stmt(s, st->body[i]);
}

Kernel *kernel_of(Ctx *c, const char *name, Stmt *body) {
  Kernel *k = NEW(c, Kernel);
  k->name = ctx_intern(c, name);
  k->body = body;
  Signature sig = {.c = c, .k = k};
  add_stmt(&sig, body);
  for (int i = 0; i < sig.params.n; i++)
    for (int d = 0; d < sig.params.v[i]->rank; d++) expr_visit(sig.params.v[i]->shape[d], add_expr, &sig);
  k->params = sig.params.v;
  k->nparams = sig.params.n;
  k->writes = sig.writes.v;
  return k;
}

Kernel *sched_kernel(Sched *s, const char *name) {
  Gen g = {.c = s->c, .s = s};
  Kernel *k = kernel_of(s->c, name, gen_stage(&g, sched_root(s)));
  k->scratch_bytes = g.scratch;
  k->source = s->group->source;
  return k;
}
