/* lower.c - pass_lower: a kernel per group, kernels that are equal but for what they are called with shared, and the program of calls.
 *
 * A tensor with a ring is followed by a call that clears it, since the arena's bytes are shared over time; but for rings that are much of their
 * tensor, which are kept.
 */
#include <stdlib.h>

#include "passes.h"
#include "sched.h"

typedef struct {
  Module *m;
  Ctx *c;
  Map kernels;
  int made;
  Ctx *texts;                      /* where texts of kernels are made, anew after some: the copies behind them are larger than the kernels */
  int ntexts;
} Builder;
typedef VEC(Stmt *) StmtList;

/* ---- equal kernels: equal canonical text under numbers for names ---- */
static const char *nameless_text(Builder *b, const Kernel *k) {
  enum { FEW = 32 };
  Ctx *c = b->c;
  Kernel copy = *k;
  const char **names = NEW_ARRAY(c, const char *, k->nparams + 1);
  if (b->ntexts++ % FEW == 0) ctx_free(b->texts), b->texts = ctx_new();
  copy.name = "k";
  copy.why = copy.source = NULL;
  for (int i = 0; i < k->nparams; i++) names[i] = k->params[i]->name, k->params[i]->name = ctx_printf(c, "p%d", i);
  const char *text = ctx_intern(c, kernel_text(b->texts, &copy));
  for (int i = 0; i < k->nparams; i++) k->params[i]->name = names[i];
  return text;
}

/* ---- calls ---- */
static Stmt *call(Builder *b, Kernel *k) {
  const char *key = nameless_text(b, k);
  Kernel *same = map_get(&b->kernels, KEY(key));
  Tensor **args = k->params;
  if (!same) {
    map_set(&b->kernels, KEY(key), same = k);
    vec_push(b->c, &b->m->kernels, k);
  }
  Stmt *s = st_call(b->c, same, args, k->nparams);
  s->dims = k->dims.v;
  s->source = k->source;
  return s;
}

static const char *kernel_name(Builder *b, const Group *g) {
  Str s = str_new(b->c);
  str_add(&s, "k%d_", b->made++);
  for (const char *p = g->source ? g->source : ""; *p && s.n < 48; p++) {
    bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
    str_add(&s, "%c", plain ? *p : '_');
  }
  return ctx_intern(b->c, s.s);
}

/* One side of a ring: element at[] of t over loops of these extents; elements along dimension `last` lie side by side. */
typedef struct { Tensor *t; int last; Expr *from[MAX_RANK], *extent[MAX_RANK], *at[MAX_RANK]; Sym *loop[MAX_RANK]; } Side;

static Stmt *other_loops(Ctx *c, const Side *s, Stmt *body) {
  for (int d = s->t->rank - 1; d >= 0; d--)
    if (d != s->last && !ex_equals_int(s->extent[d], 1)) body = st_for(c, LOOP_SERIAL, s->loop[d], s->extent[d], body);
  return body;
}

/* Whole vectors, then the rest. Blocks of channels are apart: their loop stands outside. */
static Stmt *clear_elements(Builder *b, Side *s) {
  Ctx *c = b->c;
  Tensor *t = s->t;
  int lanes = target_lanes(b->m->target, dtype_info[t->dtype].bits);
  bool apart = t->layout->n > t->rank;
  Expr *width = ex_int(c, lanes), *whole = ex_div(c, s->extent[s->last], width), *rest = ex_mod(c, s->extent[s->last], width);
  Stmt *part[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) {
    if (ex_equals_int(i ? rest : whole, 0)) continue;
    Sym *lane = sym_axis(c, SYM_AXIS, "lane", width), *block = sym_axis(c, SYM_AXIS, "block", whole);
    bool one = i || ex_equals_int(whole, 1);
    Expr *start = i ? ex_mul(c, whole, width) : one ? ex_int(c, 0) : ex_mul(c, block->self, width);
    s->at[s->last] = ex_add(c, s->from[s->last], ex_add(c, start, lane->self));
    part[i] = st_for(c, LOOP_VECTOR, lane, i ? rest : width, st_store(c, t, layout_offset(c, t, s->at), ex_const(c, t->dtype, 0), -1));
    part[i]->lanes = lanes;
    if (apart) part[i] = other_loops(c, s, part[i]);
    if (!one) part[i] = st_for(c, LOOP_SERIAL, block, whole, part[i]);
  }
  Stmt *all = st_seq(c, part, 2);
  return apart ? all : other_loops(c, s, all);
}

/* In dimension `dim`: dimensions before it run over the inside, later ones over their rings too. half: the number of it, in dimension `parted`. */
static Stmt *clear_side(Builder *b, Tensor *t, int dim, bool high, int parted, Expr *half) {
  Ctx *c = b->c;
  const Layout *l = t->layout;
  Side s = {.t = t, .last = l->part[l->n - 1].dim};
  for (int d = 0; d < t->rank; d++) {
    int64_t lo = d == dim ? (high ? 0 : l->ring_lo[d]) : d > dim ? l->ring_lo[d] : 0;
    Expr *n = d == dim ? ex_int(c, high ? l->ring_hi[d] : l->ring_lo[d]) : stage_extent(c, t, d);
    s.extent[d] = d > dim ? ex_add(c, n, ex_int(c, l->ring_lo[d] + l->ring_hi[d])) : n;
    s.from[d] = d == dim && high ? t->shape[d] : ex_int(c, -lo);
    if (d == parted && d < dim) s.extent[d] = ex_div(c, n, ex_int(c, 2)), s.from[d] = ex_mul(c, half, s.extent[d]);
    s.loop[d] = sym_axis(c, SYM_AXIS, ctx_printf(c, "z%d", d), s.extent[d]);
    s.at[d] = ex_equals_int(s.extent[d], 1) ? s.from[d] : ex_add(c, s.from[d], s.loop[d]->self);
  }
  Stmt *body = clear_elements(b, &s);
  return parted >= dim ? st_if(c, ex_eq(c, half, ex_int(c, high)), body, NULL) : body;
}

static bool has_ring(const Tensor *t) {
  bool any = false;
  for (int d = 0; d < t->rank; d++) any |= t->layout->ring_lo[d] || t->layout->ring_hi[d];
  return any;
}

/* Is it worth memory of its own that its ring stays zero? One thread clears it in no time and has what it reuses in its cache; of several, each
 * waits for the lines that another one cleared. The ring is an eighth of the tensor or more, and that small. */
static bool is_kept(const Module *m, const Tensor *t) {
  int64_t all, inside;
  if (m->opt->threads == 1 || t->scope != SCOPE_NONE) return false;
  if (!ex_is_int(layout_elements(m->c, t), &all) || !ex_is_int(tensor_elements(m->c, t), &inside)) return false;
  return all - inside >= inside / 8 && all * dtype_bytes(t->dtype) <= m->target->l2_bytes / 2;
}

/* Of a tensor written in parts, the first writer in a body clears it: the others leave it alone. */
static void clear_ring(Builder *b, StmtList *out, const Stage *st, Map *cleared) {
  Tensor *t = st->out;
  Ctx *c = b->c;
  VEC(Stmt *) seq = {0};
  if (!t->layout || (st->at && map_get(cleared, KEY(t)))) return;
  map_set(cleared, KEY(t), t);
  if (!has_ring(t) || (t->layout->kept = is_kept(b->m, t))) return;
  int parted = stage_parted_axis(b->m, t->shape, t->rank);     /* as stages part the map */
  Sym *half = sym_axis(c, SYM_AXIS, "half", ex_int(c, 2));
  for (int d = 0; d < t->rank; d++) {
    if (t->layout->ring_lo[d]) vec_push(c, &seq, clear_side(b, t, d, false, parted, half->self));
    if (t->layout->ring_hi[d]) vec_push(c, &seq, clear_side(b, t, d, true, parted, half->self));
  }
  Stmt *all = st_seq(c, seq.v, seq.n);
  Kernel *k = kernel_of(c, ctx_printf(c, "k%d_ring", b->made++), parted < 0 ? all : st_for(c, LOOP_PARALLEL, half, half->extent, all));
  k->source = "zero ring";
  vec_push(c, out, call(b, k));
}

static Stmt *lower_body(Builder *b, Body *body) {
  Ctx *c = b->c;
  Map cleared = map_new(c);
  StmtList seq = {0};
  for (int i = 0; i < body->items.n; i++) {
    Item *it = body->items.v[i];
    if (it->kind == ITEM_GROUP) {
      vec_push(c, &seq, call(b, b->m->schedule(b->m, it->group, kernel_name(b, it->group))));
      for (int k = 0; k < it->group->stages.n; k++) {
        const Stage *st = it->group->stages.v[k];
        if (st->kept || st == group_root(it->group)) clear_ring(b, &seq, st, &cleared);
      }
    } else if (it->kind == ITEM_IF) {
      Expr *cond = ex_fetch(c, it->cond, ex_int(c, 0));
      vec_push(c, &seq, st_if(c, cond, lower_body(b, it->body[0]), lower_body(b, it->body[1])));
    } else if (it->kind == ITEM_CHECK) {
      vec_push(c, &seq, st_if(c, ex_unary(c, EX_NOT, it->check), st_call(c, b->m->stop, NULL, 0), NULL));
    } else {
      vec_push(c, &seq, st_for(c, LOOP_SERIAL, it->counter, it->trips, lower_body(b, it->body[0])));
    }
  }
  return st_seq(c, seq.v, seq.n);
}

static void free_texts(void *builder) {
  Builder *b = builder;
  ctx_free(b->texts);
  b->texts = NULL;
}

void pass_lower(Module *m) {
  Builder *b = NEW(m->c, Builder);
  *b = (Builder){.m = m, .c = m->c, .kernels = map_new(m->c)};
  ctx_defer(m->c, free_texts, b);
  m->stop = NEW(m->c, Kernel);
  m->stop->name = "stop";
  m->program = lower_body(b, m->body);
  free_texts(b);
}
