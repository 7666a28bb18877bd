/* sched.c - the schedule's primitives: each checks that it is legal, or returns the reason why not, and rewrites the iterators. */
#include <stdlib.h>

#include "sched.h"

static Iter *iter_new(Ctx *c, const char *name, bool reduce, Expr *extent) {
  Iter *it = NEW(c, Iter);
  it->name = ctx_intern(c, name);
  it->reduce = reduce;
  it->kind = LOOP_SERIAL;
  it->extent = extent;
  return it;
}

static Iter *iter_find(const StageLoops *l, const char *name) {
  for (int i = 0; i < l->order.n; i++)
    if (!strcmp(l->order.v[i]->name, name)) return l->order.v[i];
  return NULL;
}

static const char *fresh_name(Ctx *c, const StageLoops *l, const char *name) {
  const char *n = name;
  for (int i = 1; iter_find(l, n); i++) n = ctx_printf(c, "%s%d", name, i);
  return n;
}

Expr *stage_extent(Ctx *c, const Tensor *t, int d) {
  int64_t mod = 1;
  for (int j = 0; t->layout && j < t->layout->n; j++)
    if (t->layout->part[j].dim == d && t->layout->part[j].mod) mod = MAX(mod, (int64_t)t->layout->part[j].mod);
  return mod == 1 ? t->shape[d] : ex_mul(c, ex_ceil_div(c, t->shape[d], mod), ex_int(c, mod));
}

static StageLoops *stage_loops(Ctx *c, Stage *st) {
  StageLoops *l = NEW(c, StageLoops);
  l->stage = st;
  l->reduce = stage_reduce(st->body);
  int nred = l->reduce ? l->reduce->n - 1 : 0, rank = st->out->rank;
  l->syms = NEW_ARRAY(c, Sym *, rank + nred + 1);
  for (int i = 0; i < rank + nred; i++) {
    Sym *s = l->syms[i] = i < rank ? st->axes[i] : l->reduce->a[1 + i - rank]->u.sym;
    Expr *extent = i >= rank || st->at ? s->extent : stage_extent(c, st->out, i);
    Iter *it = iter_new(c, fresh_name(c, l, s->name), i >= rank, extent);
    vec_push(c, &l->axes, it);
    if (s->kind == SYM_DIM) it->value = s->self;             /* fixed by a loop of the program */
    else vec_push(c, &l->order, it);
  }
  return l;
}

const char *stage_axis_name(Ctx *c, Stage *st, int i) { return stage_loops(c, st)->axes.v[i]->name; }

Sched *sched_new(Ctx *c, Group *g) {
  Sched *s = NEW(c, Sched);
  s->c = c;
  s->group = g;
  s->text = str_new(c);
  for (int i = 0; i < g->stages.n; i++) vec_push(c, &s->stages, stage_loops(c, g->stages.v[i]));
  s->current = sched_root(s);
  return s;
}

StageLoops *sched_root(const Sched *s) { return s->stages.v[s->stages.n - 1]; }

static int order_index(const StageLoops *l, const Iter *it) {
  for (int i = 0; i < l->order.n; i++)
    if (l->order.v[i] == it) return i;
  return -1;
}

static void order_insert(Ctx *c, StageLoops *l, int at, Iter *it) {
  vec_push(c, &l->order, it);
  memmove(&l->order.v[at + 1], &l->order.v[at], sizeof(Iter *) * (size_t)(l->order.n - 1 - at));
  l->order.v[at] = it;
}

static void order_remove(StageLoops *l, int at) {
  memmove(&l->order.v[at], &l->order.v[at + 1], sizeof(Iter *) * (size_t)(--l->order.n - at));
}

/* ---- the statement at hand, as words ---- */
typedef struct { Sched *s; const char *word[64]; int n; } Words;

static const char *refuse(Words *w, const char *why) {
  Str s = str_new(w->s->c);
  for (int i = 0; i < w->n; i++) str_add(&s, "%s ", w->word[i]);
  return ctx_printf(w->s->c, "%s: %s", s.s, why);
}

static int arrow(const Words *w) {
  for (int i = 0; i < w->n; i++)
    if (!strcmp(w->word[i], "->")) return i;
  return -1;
}

static const char *do_in(Words *w) {
  for (int i = 0; i < w->s->stages.n; i++)
    if (w->n == 2 && !strcmp(w->s->stages.v[i]->stage->out->name, w->word[1]))
      return w->s->current = w->s->stages.v[i], NULL;
  return refuse(w, "no such stage");
}

/* Before: for i < n.  After: for i.o: for i.i, with i = base + i.o*f + i.i. */
static const char *split(Words *w, bool chunk) {
  Ctx *c = w->s->c;
  StageLoops *l = w->s->current;
  int a = arrow(w);
  Iter *it = w->n > 1 ? iter_find(l, w->word[1]) : NULL;
  if (!it || a < 3 || a > 2 + COUNT(it->factor) || w->n != a + 3) return refuse(w, "wants: i factors -> outer inner");
  for (int i = 2; i < a; i++) {
    it->factor[i - 2] = strtoll(w->word[i], NULL, 10);
    if (it->factor[i - 2] < 1) return refuse(w, "a factor below 1");
  }
  it->nfactors = a - 2;
  it->chunk = chunk;
  int at = order_index(l, it);
  bool known = it->extent && it->nfactors == 1 && (chunk || ex_is_int(it->extent, NULL));
  it->outer = iter_new(c, w->word[a + 1], it->reduce, known ? ex_ceil_div(c, it->extent, it->factor[0]) : NULL);
  int64_t n;
  bool even = it->extent && it->nfactors == 1 && ex_is_int(it->extent, &n) && n % it->factor[0] == 0;
  it->inner = iter_new(c, w->word[a + 2], it->reduce, even ? ex_int(c, it->factor[0]) : NULL);
  it->outer->parent = it->inner->parent = it;
  l->order.v[at] = it->outer;
  order_insert(c, l, at + 1, it->inner);
  vec_push(c, &l->splits, it);
  return NULL;
}
static const char *do_split(Words *w) { return split(w, false); }
static const char *do_chunk(Words *w) { return split(w, true); }

/* Before: for i < n: for j < m.  After: for ij < n*m, with i = ij / m and j = ij % m. */
static const char *do_fuse(Words *w) {
  Ctx *c = w->s->c;
  StageLoops *l = w->s->current;
  Iter *a = w->n == 5 ? iter_find(l, w->word[1]) : NULL, *b = a ? iter_find(l, w->word[2]) : NULL;
  if (!b) return refuse(w, "wants: i j -> ij");
  int at = order_index(l, a);
  if (order_index(l, b) != at + 1) return refuse(w, "the loops are not adjacent");
  if (a->reduce != b->reduce) return refuse(w, "one is a reduction");
  if (!a->extent || !b->extent) return refuse(w, "an extent differs from run to run");
  Iter *f = iter_new(c, w->word[4], a->reduce, ex_mul(c, a->extent, b->extent));
  a->fused = b->fused = f;
  a->fused_hi = true;
  a->mate = b->mate = b;
  l->order.v[at] = f;
  order_remove(l, at + 1);
  return NULL;
}

static const char *do_order(Words *w) {
  StageLoops *l = w->s->current;
  if (w->n - 1 != l->order.n) return refuse(w, "not all loops are named");
  Iter *next[64];
  for (int i = 1; i < w->n; i++) {
    next[i - 1] = iter_find(l, w->word[i]);
    if (!next[i - 1]) return refuse(w, "no such loop");
    for (int j = 0; j < i - 1; j++)
      if (next[j] == next[i - 1]) return refuse(w, "a loop named twice");
  }
  memcpy(l->order.v, next, sizeof(Iter *) * (size_t)l->order.n);
  return NULL;
}

static const char *set_kind(Words *w, LoopKind kind, int lanes) {
  Iter *it = w->n > 1 ? iter_find(w->s->current, w->word[1]) : NULL;
  if (!it) return refuse(w, "no such loop");
  if (kind == LOOP_PARALLEL && it->reduce) return refuse(w, "a reduction is not parallel");
  it->kind = kind;
  it->lanes = lanes;
  it->partial |= it->reduce && kind == LOOP_VECTOR;
  return NULL;
}
static const char *do_partial(Words *w) {
  Iter *it = w->n == 2 ? iter_find(w->s->current, w->word[1]) : NULL;
  if (!it || !it->reduce) return refuse(w, "no such reduction loop");
  it->partial = true;
  return NULL;
}
static const char *do_parallel(Words *w) { return set_kind(w, LOOP_PARALLEL, 0); }
static const char *do_unroll(Words *w) { return set_kind(w, LOOP_UNROLL, 0); }
static const char *do_vector(Words *w) {
  int lanes = w->n == 3 ? atoi(w->word[2]) : 0;
  if (lanes < 1 || lanes > 64 || (lanes & (lanes - 1))) return refuse(w, "wants a power of two of lanes");
  return set_kind(w, LOOP_VECTOR, lanes);
}

static const char *do_ahead(Words *w) {
  StageLoops *l = w->s->current;
  if (w->n < 5 || w->n - 4 > COUNT(l->ahead.at)) return refuse(w, "wants: bytes lines steps loops");
  l->ahead.bytes = strtoll(w->word[1], NULL, 10);
  l->ahead.lines = strtoll(w->word[2], NULL, 10);
  l->ahead.steps = strtoll(w->word[3], NULL, 10);
  l->ahead.n = 0;
  if (l->ahead.bytes < 0 || l->ahead.lines < 1 || l->ahead.steps < 1 || l->ahead.lines / l->ahead.steps > 64) return refuse(w, "no such numbers");
  for (int i = 4; i < w->n; i++) {
    Iter *it = iter_find(l, w->word[i]);
    if (!it) return refuse(w, "no such loop");
    l->ahead.at[l->ahead.n++] = it;
  }
  return NULL;
}

static const char *do_soon(Words *w) {
  StageLoops *l = w->s->current;
  if (w->n < 3 || w->n - 3 > COUNT(l->soon.over)) return refuse(w, "wants: steps loop loops");
  l->soon.steps = strtoll(w->word[1], NULL, 10);
  l->soon.loop = iter_find(l, w->word[2]);
  l->soon.n = 0;
  if (l->soon.steps < 1 || !l->soon.loop || l->soon.loop->reduce != (l->reduce != NULL)) return refuse(w, "no such loop");
  for (int i = 3; i < w->n; i++) {
    Iter *it = iter_find(l, w->word[i]);
    if (!it || order_index(l, it) < order_index(l, l->soon.loop)) return refuse(w, "no such loop inside");
    l->soon.over[l->soon.n++] = it;
  }
  return NULL;
}

static const char *do_at(Words *w) {
  StageLoops *root = sched_root(w->s), *l = w->s->current;
  Iter *it = w->n == 2 ? iter_find(root, w->word[1]) : NULL;
  if (!it) return refuse(w, "the root has no such loop");
  if (l == root) return refuse(w, "this is the root");
  l->at = it;
  return NULL;
}

static const char *do_reg(Words *w) {
  w->s->current->reg = true;
  return w->s->current == sched_root(w->s) ? refuse(w, "this is the root") : NULL;
}

static const struct { const char *name; const char *(*apply)(Words *w); } primitives[] = {
  {"in", do_in},       {"split", do_split},       {"chunk", do_chunk},   {"fuse", do_fuse}, {"order", do_order},
  {"parallel", do_parallel}, {"vector", do_vector}, {"unroll", do_unroll}, {"at", do_at},
  {"partial", do_partial}, {"ahead", do_ahead}, {"soon", do_soon}, {"reg", do_reg},
};

static const char *apply_statement(Sched *s, char *text) {
  Words w = {.s = s};
  char *save;
  for (char *word = strtok_r(text, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
    if (w.n == COUNT(w.word)) return refuse(&w, "too long");
    w.word[w.n++] = word;
  }
  if (!w.n) return NULL;
  for (int i = 0; i < COUNT(primitives); i++)
    if (!strcmp(w.word[0], primitives[i].name)) return primitives[i].apply(&w);
  return refuse(&w, "no such primitive");
}

const char *sched_apply(Sched *s, const char *text) {
  char *copy = ctx_printf(s->c, "%s", text), *save;
  str_add(&s->text, "%s", text);
  for (char *p = strtok_r(copy, ";", &save); p; p = strtok_r(NULL, ";", &save)) {
    const char *why = apply_statement(s, p);
    if (why) return why;
  }
  return NULL;
}
