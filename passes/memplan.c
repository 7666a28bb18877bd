/* memplan.c - pass_memplan: where every tensor lives.
 *
 * Intervals of life over the program's calls; tensors of constant size are placed greedily by size, each at the lowest free offset
 * (Pisarchyk and Lee, arXiv 2001.03288); tensors of symbolic size share slots of equal size behind them. What a loop's body shares with the
 * outside lives through the whole loop.
 */
#include <stdlib.h>

#include "passes.h"

enum { ARENA_ALIGN = 64 };

typedef struct { Tensor *t; int first, last; int64_t size, offset; Expr *bytes; } Life;
typedef struct { int begin, end; } Span;
typedef struct { Module *m; Ctx *c; Map index; VEC(Life) lives; VEC(Span) loops; int now; } Plan;

static void touch(Plan *p, Tensor *t) {
  if (t->data || t->scope == SCOPE_INPUT || t->scope == SCOPE_OUTPUT || t->scope == SCOPE_CONST) return;
  uintptr_t i = (uintptr_t)map_get(&p->index, KEY(t));
  if (!i) {
    vec_push(p->c, &p->lives, ((Life){.t = t, .first = p->now, .last = p->now}));
    map_set(&p->index, KEY(t), (void *)(i = (uintptr_t)p->lives.n));
  }
  p->lives.v[i - 1].last = p->now;
}

static void walk(Plan *p, const Stmt *s) {
  int begin = p->now;
  if (s->op == ST_CALL) {
    for (int i = 0; i < s->kernel->nparams; i++) touch(p, s->args[i]);
    p->now++;
  }
  if (s->op == ST_IF && s->value->op == EX_FETCH) touch(p, s->value->u.tensor);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) walk(p, s->body[i]);
  if (s->op == ST_FOR) vec_push(p->c, &p->loops, ((Span){begin, p->now}));
}

static void widen_over_loops(Plan *p) {
  for (int k = 0; k < p->loops.n; k++)                       /* inner loops come first */
    for (int i = 0; i < p->lives.n; i++) {
      Life *l = &p->lives.v[i];
      Span loop = p->loops.v[k];
      bool inside = l->first < loop.end && l->last >= loop.begin, carried = l->first < loop.begin || l->last >= loop.end;
      if (inside && carried) l->last = MAX(l->last, loop.end - 1), l->first = MIN(l->first, loop.begin);
    }
}

static bool overlap(const Life *a, const Life *b) { return a->first <= b->last && b->first <= a->last; }

static int by_size(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  if (x->size != y->size) return x->size < y->size ? 1 : -1;
  return x->first != y->first ? (x->first < y->first ? -1 : 1) : (x < y ? -1 : x > y);
}

static int by_offset(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest offset at which l meets none of the placed lives that overlap it in time. */
static int64_t lowest_gap(Plan *p, Life **placed, int n, const Life *l) {
  Life **near = NEW_ARRAY(p->c, Life *, n + 1);
  int count = 0;
  int64_t at = 0;
  for (int i = 0; i < n; i++)
    if (overlap(placed[i], l)) near[count++] = placed[i];
  qsort(near, (size_t)count, sizeof *near, by_offset);
  for (int i = 0; i < count; i++) {
    if (near[i]->offset >= at + l->size) break;
    at = MAX(at, near[i]->offset + near[i]->size);
  }
  return at;
}

static int64_t place_constant_sizes(Plan *p) {
  Life **order = NEW_ARRAY(p->c, Life *, p->lives.n + 1);
  int n = 0;
  int64_t total = 0;
  for (int i = 0; i < p->lives.n; i++)
    if (p->lives.v[i].size >= 0) order[n++] = &p->lives.v[i];
  qsort(order, (size_t)n, sizeof *order, by_size);
  for (int i = 0; i < n; i++) {
    order[i]->offset = lowest_gap(p, order, i, order[i]);
    order[i]->t->offset = ex_int(p->c, order[i]->offset);
    total = MAX(total, order[i]->offset + order[i]->size);
  }
  return total;
}

static Expr *place_symbolic_sizes(Plan *p, int64_t start) {
  Expr *end = ex_int(p->c, start);
  for (int i = 0; i < p->lives.n; i++) {
    Life *l = &p->lives.v[i];
    if (l->size >= 0) continue;
    for (int j = 0; j < i && !l->t->offset; j++) {           /* the slot of one of equal size, if no tenant of it overlaps */
      Life *slot = &p->lives.v[j];
      bool is_free = slot->size < 0 && slot->bytes == l->bytes;
      for (int k = 0; k < i && is_free; k++)
        is_free = p->lives.v[k].t->offset != slot->t->offset || !overlap(&p->lives.v[k], l);
      if (is_free) l->t->offset = slot->t->offset;
    }
    if (l->t->offset) continue;
    l->t->offset = end;
    end = ex_add(p->c, end, l->bytes);
  }
  return end;
}

void pass_memplan(Module *m) {
  Plan p = {.m = m, .c = m->c, .index = map_new(m->c)};
  Ctx *c = m->c;
  walk(&p, m->program);
  widen_over_loops(&p);
  for (int i = 0; i < p.lives.n; i++) {
    Life *l = &p.lives.v[i];
    Expr *raw = ex_mul(c, layout_elements(c, l->t), ex_int(c, dtype_bytes(l->t->dtype)));
    l->bytes = ex_mul(c, ex_ceil_div(c, raw, ARENA_ALIGN), ex_int(c, ARENA_ALIGN));
    l->t->scope = SCOPE_ARENA;
    l->t->offset = NULL;
    if (!ex_is_int(l->bytes, &l->size)) l->size = -1;
    else if (l->size < 0 || l->size > (int64_t)1 << 46) diag_fail(c, E0308, NULL, NULL, "tensor '%s' %s is too large",
                                                                  diag_quote(c, l->t->name), tensor_type_text(c, l->t));
  }
  m->arena_bytes = place_symbolic_sizes(&p, place_constant_sizes(&p));
}
