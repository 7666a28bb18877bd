/* memplan.c - pass_memplan: where every tensor lives.
 *
 * Intervals of life over the program's calls; tensors of constant size are placed greedily by size, each at the lowest free offset
 * (Pisarchyk and Lee, arXiv 2001.03288); tensors of symbolic size share slots behind them, as large as their largest tenant. What a loop's
 * body shares with the outside lives through the whole loop. Tensors whose rings are kept stand in front of all, where only tensors that lie
 * alike follow each other. A result takes the place of an operand that dies in the same call if the kernel reads each element of
 * it only where it writes that element of the result.
 */
#include <stdlib.h>

#include "passes.h"

enum { ARENA_ALIGN = 64 };

typedef struct { Expr *bytes; int64_t usual; const char *form; } Slot;     /* form: how all tenants lie, whose rings are kept; NULL: no matter how */
/* usual: of a symbolic size, what usual dimensions make of it; slot: where it lives then, or a ring that is kept, counted from 1 */
typedef struct { Tensor *t; int first, last; int64_t size, usual, offset; Expr *bytes; Tensor *place_of; int slot; } Life;
typedef struct { int begin, end; } Span;
typedef struct { Module *m; Ctx *c; Map index; VEC(Life) lives; VEC(Span) loops; VEC(Slot) slots; int now; } Plan;

static void touch(Plan *p, Tensor *t) {
  if (t->data || t->scope == SCOPE_INPUT || t->scope == SCOPE_OUTPUT || t->scope == SCOPE_CONST) return;
  uintptr_t i = (uintptr_t)map_get(&p->index, KEY(t));
  if (!i) {
    vec_push(p->c, &p->lives, ((Life){.t = t, .first = p->now, .last = p->now}));
    map_set(&p->index, KEY(t), (void *)(i = (uintptr_t)p->lives.n));
  }
  p->lives.v[i - 1].last = p->now;
}

/* All calls share a thread's scratch, one after the other. */
static void want_scratch(Module *m, const Stmt *call) {
  Subst here = subst_new(m->c);
  for (int i = 0; i < call->kernel->dims.n; i++) subst_set(&here, call->kernel->dims.v[i], call->dims[i]->self);
  if (call->kernel->scratch_bytes) m->scratch_bytes = ex_max(m->c, m->scratch_bytes, subst_apply(&here, call->kernel->scratch_bytes));
}

static void walk(Plan *p, const Stmt *s) {
  int begin = p->now;
  if (s->op == ST_CALL) {
    for (int i = 0; i < s->kernel->nparams; i++) touch(p, s->args[i]);
    want_scratch(p->m, s);
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

/* ---- in place ---- */
static int count_calls(const Stmt *s) {
  int n = s->op == ST_CALL;
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) n += count_calls(s->body[i]);
  return n;
}

typedef struct { const Tensor *operand; const Expr *index; bool ok; } Reads;
static void check_read(const Expr *e, void *user) {
  Reads *r = user;
  if (e->op == EX_FETCH && e->u.tensor == r->operand && e->a[0] != r->index) r->ok = false;
}

bool memplan_reads_in_place(const Stmt *s, const Tensor *result, const Tensor *operand) {
  Reads r = {operand, s->op == ST_STORE && s->tensor == result && s->combiner < 0 ? s->index : NULL, true};
  if (s->value) expr_visit(s->value, check_read, &r);
  for (int i = 0; i < s->n && r.ok; i++)
    if (s->body[i]) r.ok = memplan_reads_in_place(s->body[i], result, operand);
  return r.ok;
}

static Life *life_of(Plan *p, const Tensor *t) {
  uintptr_t i = (uintptr_t)map_get(&p->index, KEY(t));
  return i ? &p->lives.v[i - 1] : NULL;
}

static void share_params(Ctx *c, Kernel *k, int a, int b) {
  if (!k->shares) k->shares = NEW_ARRAY(c, bool, k->nparams);
  k->shares[a] = k->shares[b] = true;
}

static bool is_kept(const Life *l) { return l->t->layout && l->t->layout->kept; }
static const char *form_of(Ctx *c, const Tensor *t) { return ctx_intern(c, ctx_printf(c, "%s %s", tensor_type_text(c, t), layout_text(c, t->layout))); }

/* The call at time p->now: its result's life is joined to that of an operand that ends here. */
static void join_call(Plan *p, const Stmt *s) {
  Kernel *k = s->kernel;
  for (int o = 0; o < k->nparams; o++) {
    Life *out = k->writes[o] ? life_of(p, s->args[o]) : NULL;
    if (!out || out->first != p->now || out->place_of || is_kept(out)) continue;
    for (int i = 0; i < k->nparams; i++) {
      Life *in = k->writes[i] ? NULL : life_of(p, s->args[i]);
      if (!in || is_kept(in) || in->last != p->now || in->bytes != out->bytes || in->t->dtype != out->t->dtype) continue;
      while (in->place_of) in = life_of(p, in->place_of);
      if (in->last > p->now || !memplan_reads_in_place(k->body, k->params[o], k->params[i])) continue;
      out->place_of = in->t;
      in->last = out->last;
      share_params(p->c, k, o, i);
      break;
    }
  }
}

static void join(Plan *p, const Stmt *s) {
  if (s->op == ST_FOR || s->op == ST_IF) {                   /* lives cross bodies: left alone */
    int calls = p->now;
    for (int i = 0; i < s->n; i++)
      if (s->body[i]) calls += count_calls(s->body[i]);
    p->now = calls;
    return;
  }
  if (s->op == ST_CALL) join_call(p, s), p->now++;
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) join(p, s->body[i]);
}

static bool overlap(const Life *a, const Life *b) { return a->first <= b->last && b->first <= a->last; }

static int falling(int64_t a, int64_t b, const Life *x, const Life *y) {
  if (a != b) return a < b ? 1 : -1;
  return x->first != y->first ? (x->first < y->first ? -1 : 1) : (x < y ? -1 : x > y);
}

static int by_size(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  return falling(x->size, y->size, x, y);
}

static int by_usual(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  return falling(x->usual, y->usual, x, y);
}

static int by_offset(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest offset at which l meets none of the placed lives that overlap it in time. */
static int64_t lowest_gap(Plan *p, Life **placed, int n, const Life *l, int64_t start) {
  Life **near = NEW_ARRAY(p->c, Life *, n + 1);
  int count = 0;
  int64_t at = start;
  for (int i = 0; i < n; i++)
    if (overlap(placed[i], l)) near[count++] = placed[i];
  qsort(near, (size_t)count, sizeof *near, by_offset);
  for (int i = 0; i < count; i++) {
    if (near[i]->offset >= at + l->size) break;
    at = MAX(at, near[i]->offset + near[i]->size);
  }
  return at;
}

static int64_t place_constant_sizes(Plan *p, int64_t start) {
  Life **order = NEW_ARRAY(p->c, Life *, p->lives.n + 1);
  int n = 0;
  int64_t total = start;
  for (int i = 0; i < p->lives.n; i++)
    if (p->lives.v[i].size >= 0 && !p->lives.v[i].place_of && !is_kept(&p->lives.v[i])) order[n++] = &p->lives.v[i];
  qsort(order, (size_t)n, sizeof *order, by_size);
  for (int i = 0; i < n; i++) {
    order[i]->offset = lowest_gap(p, order, i, order[i], start);
    order[i]->t->offset = ex_int(p->c, order[i]->offset);
    total = MAX(total, order[i]->offset + order[i]->size);
  }
  return total;
}

static bool is_free(Plan *p, int slot, const Life *l) {
  for (int i = 0; i < p->lives.n; i++)
    if (p->lives.v[i].slot == slot && overlap(&p->lives.v[i], l)) return false;
  return true;
}

/* The smallest slot for the form that is free: those there are have larger tenants. A new one if none is. */
static void choose_slot(Plan *p, Life *l, const char *form) {
  for (int i = 0; i < p->slots.n; i++) {
    bool fits = p->slots.v[i].form == form && is_free(p, i + 1, l);
    if (fits && (!l->slot || p->slots.v[i].usual < p->slots.v[l->slot - 1].usual)) l->slot = i + 1;
  }
  if (!l->slot) {
    vec_push(p->c, &p->slots, ((Slot){l->bytes, l->usual, form}));
    l->slot = p->slots.n;
  }
  Slot *s = &p->slots.v[l->slot - 1];
  if (!expr_proves(p->c, ex_le(p->c, l->bytes, s->bytes))) s->bytes = ex_max(p->c, s->bytes, l->bytes);
}

/* The slots from `slot` on follow each other behind `end`; returns where the last one ends. */
static Expr *place_slots(Plan *p, int slot, Expr *end) {
  for (; slot < p->slots.n; slot++) {
    for (int i = 0; i < p->lives.n; i++)
      if (p->lives.v[i].slot == slot + 1) p->lives.v[i].t->offset = end;
    end = ex_add(p->c, end, p->slots.v[slot].bytes);
  }
  return end;
}

static Expr *place_kept(Plan *p) {
  for (int i = 0; i < p->lives.n; i++)
    if (is_kept(&p->lives.v[i])) choose_slot(p, &p->lives.v[i], form_of(p->c, p->lives.v[i].t));
  return place_slots(p, 0, ex_int(p->c, 0));
}

static Expr *place_symbolic_sizes(Plan *p, int64_t start) {
  Life **order = NEW_ARRAY(p->c, Life *, p->lives.n + 1);
  int n = 0, first = p->slots.n;
  for (int i = 0; i < p->lives.n; i++)
    if (p->lives.v[i].size < 0 && !p->lives.v[i].place_of) order[n++] = &p->lives.v[i];
  qsort(order, (size_t)n, sizeof *order, by_usual);
  for (int i = 0; i < n; i++) choose_slot(p, order[i], NULL);
  return place_slots(p, first, ex_int(p->c, start));
}

static int64_t usual_size(Ctx *c, Expr *bytes, const Graph *g) {
  enum { USUAL = 64 };
  Subst usual = subst_new(c);
  int64_t n;
  for (int i = 0; i < g->dims.n; i++) {
    Sym *s = g->dims.v[i];
    subst_set(&usual, s, ex_int(c, MIN(MAX(USUAL, s->min), s->max) / s->multiple * s->multiple));
  }
  return ex_is_int(subst_apply(&usual, bytes), &n) ? n : 0;
}

static void measure(Plan *p) {
  Ctx *c = p->c;
  for (int i = 0; i < p->lives.n; i++) {
    Life *l = &p->lives.v[i];
    Expr *raw = ex_mul(c, layout_elements(c, l->t), ex_int(c, dtype_bytes(l->t->dtype)));
    l->bytes = ex_mul(c, ex_ceil_div(c, raw, ARENA_ALIGN), ex_int(c, ARENA_ALIGN));
    l->t->scope = SCOPE_ARENA;
    l->t->offset = NULL;
    if (!ex_is_int(l->bytes, &l->size)) l->size = -1, l->usual = usual_size(c, l->bytes, p->m->graph);
    else if (l->size < 0 || l->size > (int64_t)1 << 46) diag_fail(c, E0308, NULL, NULL, "tensor '%s' %s is too large",
                                                                  diag_quote(c, l->t->name), tensor_type_text(c, l->t));
  }
}

void pass_memplan(Module *m) {
  Plan p = {.m = m, .c = m->c, .index = map_new(m->c)};
  m->scratch_bytes = ex_int(m->c, 0);
  walk(&p, m->program);
  widen_over_loops(&p);
  measure(&p);
  p.now = 0;
  join(&p, m->program);
  m->zeroed_bytes = place_kept(&p);                          /* of constant sizes */
  m->arena_bytes = place_symbolic_sizes(&p, place_constant_sizes(&p, m->zeroed_bytes->u.i));
  for (int i = 0; i < p.lives.n; i++) {
    Life *place = &p.lives.v[i];
    while (place->place_of) place = life_of(&p, place->place_of);
    p.lives.v[i].t->offset = place->t->offset;
  }
}
