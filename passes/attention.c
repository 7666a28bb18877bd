/* attention.c - pass_attention: a product whose factor comes, by way of rows, from another product is computed a block of rows at a time.
 *
 * Before: s[.., q, k] = f(sum(d) ..)   rows of s (max, exp, sum, a quotient)   o[.., q, ..] = sum(k) p[.., q, k] * v[.., k, ..]
 * After:  one group with the root o: the others are computed inside its loops for a block of q, so that what has a row a q and a column a
 *         k never leaves the cache. A factor of p that does not move with k comes after the sum: o = sum(k) (e * v) / z.
 * Only extents decide: nothing here knows where the products come from. What they need of a block whose extents are open is scratch of a size
 * that follows at run time.
 */
#include "passes.h"
#include "regions.h"

enum { MIN_ROWS = 4, MOST_ROWS = 56,                         /* of a block: enough for register tiles, few enough for the cache */
       PIECES = 4,                                           /* for threads to share */
       OPEN_ROWS = 64, OPEN = 512 };                         /* of open ones; what another extent that is not known counts as */

typedef struct { Item *item; Body *body; int users; bool fixed; int writers; } Made;   /* how a tensor comes about; users: stages */
typedef struct { Module *m; Ctx *c; Map made; } Survey;

static Made *made_of(Survey *s, const Tensor *t) {
  Made *p = map_get(&s->made, KEY(t));
  if (!p) map_set(&s->made, KEY(t), p = NEW(s->c, Made));
  return p;
}

static void survey_stage(Survey *s, Body *b, Item *it, const Stage *st) {
  TensorList l = {.c = s->c};
  Made *out = made_of(s, st->out);
  out->item = it;
  out->body = b;
  out->writers++;
  for (int d = 0; d < st->out->rank; d++) out->fixed |= st->axes[d]->kind == SYM_DIM;
  expr_tensors(&l, st->body);
  for (int i = 0; i < l.list.n; i++) made_of(s, l.list.v[i])->users++;
}

static void survey(Survey *s, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    for (int k = 0; it->kind == ITEM_GROUP && k < it->group->stages.n; k++) survey_stage(s, b, it, it->group->stages.v[k]);
    if (it->cond) made_of(s, it->cond)->fixed = true;
    for (int k = 0; k < 2; k++)
      if (it->body[k]) survey(s, it->body[k]);
  }
}

/* ---- the chain from the factor p back to the first product ---- */
typedef struct {
  Survey *s;
  Body *body;
  Stage *root;
  Expr *reduce, *p, *v;            /* the factor that is a load of p, and the other one */
  int k;                           /* the dimension of p that is summed over */
  VEC(Item *) items;               /* groups that join the root's, the last ones first */
} Chain;

static bool is_member(const Chain *w, const Tensor *t) {
  for (int i = 0; i < w->items.n; i++)
    for (int k = 0; k < w->items.v[i]->group->stages.n; k++)
      if (w->items.v[i]->group->stages.v[k]->out == t) return true;
  return false;
}

static int readers_within(const Chain *w, const Tensor *t) {
  int n = 0;
  for (int i = 0; i < w->items.n; i++)
    for (int k = 0; k < w->items.v[i]->group->stages.n; k++) {
      TensorList l = {.c = w->s->c};
      expr_tensors(&l, w->items.v[i]->group->stages.v[k]->body);
      for (int j = 0; j < l.list.n; j++) n += l.list.v[j] == t;
    }
  return n;
}

/* The group that makes t, if nobody outside the chain reads t and it may be computed later than it stands. */
static Item *joins(const Chain *w, const Tensor *t, int readers) {
  const Made *p = map_get(&w->s->made, KEY(t));
  if (!p || !p->item || p->body != w->body || p->fixed || p->writers != 1 || p->users != readers || t->scope == SCOPE_OUTPUT) return NULL;
  const Group *g = p->item->group;
  if (g->block || group_root(g)->out != t || module_is_state(w->s->m, t)) return NULL;
  return p->item;
}

static bool same_size(Ctx *c, const Tensor *a, const Tensor *b) {
  return a->dtype == b->dtype && tensor_elements(c, a) == tensor_elements(c, b);
}

static void tensors_read(const Chain *w, const Group *g, TensorList *out) {
  out->c = w->s->c;
  for (int i = 0; i < g->stages.n; i++) expr_tensors(out, g->stages.v[i]->body);
}

/* Statistics of rows that only the chain reads: they go between their readers and what they are taken from. */
static void add_statistics(Chain *w, const Group *g) {
  TensorList l = {0};
  tensors_read(w, g, &l);
  for (int i = 0; i < l.list.n; i++) {
    Item *it = is_member(w, l.list.v[i]) ? NULL : joins(w, l.list.v[i], readers_within(w, l.list.v[i]));
    const Expr *reduce = it ? stage_reduce(group_root(it->group)->body) : NULL;
    if (reduce && !is_contraction(reduce)) vec_push(w->s->c, &w->items, it);
  }
}

/* Back over tensors of p's size until a product makes one. */
static bool follow(Chain *w) {
  const Tensor *t = w->p->u.tensor;
  for (int readers = 1;; ) {
    Item *it = joins(w, t, readers);
    if (!it) return false;
    vec_push(w->s->c, &w->items, it);
    const Group *g = it->group;
    if (is_contraction(stage_reduce(group_root(g)->body))) return g->stages.n == 1 && w->items.n > 1;
    const Tensor *next = NULL;
    TensorList l = {0};
    add_statistics(w, g);
    tensors_read(w, g, &l);
    for (int j = 0; j < l.list.n; j++)
      if (!is_member(w, l.list.v[j]) && same_size(w->s->c, l.list.v[j], t) && joins(w, l.list.v[j], readers_within(w, l.list.v[j]))) next = l.list.v[j];
    if (!next) return false;
    t = next;
    readers = readers_within(w, t);
  }
}

/* ---- is it one? ---- */
static bool is_row_factor(const Chain *w, const Expr *e, int *k) {
  if (e->op != EX_LOAD || e->u.tensor->data) return false;
  int found = 0;
  for (int d = 0; d < e->n; d++) {
    if (!expr_uses(e->a[d], w->reduce->a[1]->u.sym)) continue;
    found++;
    *k = d;
  }
  return found == 1 && e->a[*k] == w->reduce->a[1] && e->u.tensor->shape[*k] == w->reduce->a[1]->u.sym->extent;
}

/* Weights are the same for all rows: a block of few would read them over and over. */
static bool reads_constant(const Expr *e) { return e->op == EX_LOAD && e->u.tensor->data; }

static bool match(Chain *w, const Group *g) {
  w->root = group_root(g);
  w->reduce = stage_reduce(w->root->body);
  if (g->stages.n > 1 || g->block || !is_contraction(w->reduce) || w->reduce->n != 2 || w->reduce->dtype != DT_F32 || w->root->at) return false;
  for (int i = 0; i < 2; i++) {
    w->p = w->reduce->a[0]->a[i];
    w->v = w->reduce->a[0]->a[1 - i];
    w->items.n = 0;
    if (!reads_constant(w->v) && is_row_factor(w, w->p, &w->k) && follow(w)) return true;
  }
  return false;
}

/* ---- blocks ---- */
typedef struct { const Sym *s; int64_t by; } Quotient;
static void find_quotient(const Expr *e, void *user) {
  Quotient *q = user;
  int64_t by;
  if (e->op == EX_DIV && e->a[0] == q->s->self && ex_is_int(e->a[1], &by)) q->by = by;
}

/* What both factors move with is stepped through one by one, what only p moves with in blocks (the last such axis; false: there is none). */
static bool choose_blocks(Chain *w, int64_t *block, int *rows) {
  *rows = -1;
  for (int i = 0; i < w->root->out->rank; i++) {
    const Sym *s = w->root->axes[i];
    block[i] = 0;
    if (s->kind == SYM_DIM || !expr_uses(w->p, s)) continue;
    Quotient q = {s, 1};
    if (!expr_uses(w->v, s)) *rows = i;
    else expr_visit(w->p, find_quotient, &q);
    block[i] = q.by;
  }
  return *rows >= 0;
}

/* out[.., c, q] = sum(k) p[.., q, k] * v[.., c, k] has no axis that vectors could run along: both factors lie along k. It becomes a turned copy
 * of t[.., q, c], which is computed as other products by transposed matrices are. Returns the copy, or NULL where nothing is to be turned. */
static Stage *turn_rows(Chain *w, int rows) {
  Ctx *c = w->s->c;
  Stage *root = w->root;
  int rank = root->out->rank, first = 0;
  Expr *shape[MAX_RANK], *at[MAX_RANK];
  while (first < rank && (!expr_uses(w->v, root->axes[first]) || expr_uses(w->p, root->axes[first]))) first++;
  if (rows != rank - 1 || first >= rows || !expr_uses(w->v->a[w->v->n - 1], w->reduce->a[1]->u.sym)) return NULL;
  Stage *t = NEW(c, Stage), *copy = ctx_copy(c, root, sizeof *root);
  copy->axes = NEW_ARRAY(c, Sym *, rank);
  t->axes = NEW_ARRAY(c, Sym *, rank);
  for (int d = 0; d < rank; d++) {
    int from = d < first ? d : d == first ? rows : d - 1;
    copy->axes[from] = sym_axis(c, SYM_AXIS, root->axes[from]->name, root->out->shape[from]);
    t->axes[d] = root->axes[from];
    shape[d] = root->out->shape[from];
    at[d] = copy->axes[from]->self;
  }
  t->out = tensor_new(c, ctx_printf(c, "%s.rows", root->out->name), root->out->dtype, rank, shape);
  t->body = root->body;
  copy->body = ex_load(c, t->out, at, rank);
  w->root = t;
  return copy;
}

/* Bytes that the members need in a block; -1: too many. */
static int64_t block_bytes(Ctx *c, const Group *g) {
  Region axes[2 * MAX_RANK], (*part)[MAX_RANK] = ctx_alloc(c, sizeof *part * (size_t)g->stages.n);
  int64_t sum = 0, n;
  group_block_axes(c, g, axes);
  group_regions(c, g, axes, part);
  for (int i = 0; i + 1 < g->stages.n; i++) {
    const Tensor *t = g->stages.v[i]->out;
    int64_t bytes = dtype_bytes(t->dtype);
    for (int d = 0; d < t->rank; d++)
      if (!part[i][d].extent || !mul_ok(bytes, ex_is_int(part[i][d].extent, &n) ? n : MIN(expr_range(c, part[i][d].extent).max, OPEN), &bytes)) return -1;
    sum += bytes;
  }
  return sum;
}

/* The steps of the other axes that are stepped through. */
static int64_t steps_around(const Chain *w, const Group *g, int rows) {
  int64_t steps = 1, n;
  for (int i = 0; i < w->root->out->rank; i++)
    if (i != rows && g->block[i] && ex_is_int(w->root->out->shape[i], &n)) steps *= (n + g->block[i] - 1) / g->block[i];
  return steps;
}

/* As many rows as leave the members in half of the second-level cache and threads enough blocks to share, in blocks of equal size where their
 * number is known; false: not even a few fit. */
static bool size_blocks(Chain *w, Group *g, int rows) {
  Ctx *c = w->s->c;
  int64_t n, room = w->s->m->target->l2_bytes / 2;
  bool known = ex_is_int(w->root->out->shape[rows], &n);
  if (!known) n = OPEN_ROWS;
  if (n < MIN_ROWS) return false;
  int64_t steps = steps_around(w, g, rows), blocks = (PIECES + steps - 1) / steps, shared = MAX((n + blocks - 1) / blocks, 2 * MIN_ROWS);
  for (int64_t most = known ? MIN(MIN(MOST_ROWS, shared), n) : n; most >= MIN(MIN_ROWS, n); most -= 2) {
    g->block[rows] = known ? (n + (n + most - 1) / most - 1) / ((n + most - 1) / most) : most;
    int64_t bytes = block_bytes(c, g);
    if (bytes < 0) return false;
    if (bytes <= room) return true;
  }
  return false;
}

/* ---- a factor of p that is the same for all k ---- */
typedef struct { const Expr *from; Expr *to; } Swap;
static Expr *swap(Ctx *c, Expr *e, void *user) {
  const Swap *s = user;
  return e == s->from ? s->to : e;
}

/* sum(k) (e / z) * v -> (sum(k) e * v) / z, where p's own stage is no more than the quotient (or product) of a load and something of
 * the row. Returns whether p is needed no more. */
static bool pull_factor(Chain *w, const Stage *p) {
  Ctx *c = w->s->c;
  Expr *q = p->body;
  if ((q->op != EX_DIV && q->op != EX_MUL) || q->a[0]->op != EX_LOAD || expr_uses(q->a[1], p->axes[w->k]) || stage_reduce(q)) return false;
  Subst at = subst_new(c);
  for (int d = 0; d < w->p->n; d++) subst_set(&at, p->axes[d], w->p->a[d]);
  Swap load = {w->p, subst_apply(&at, q->a[0])};
  Expr *sum = expr_map(c, w->reduce, swap, &load);
  Swap whole = {w->reduce, ex_binary(c, (ExprOp)q->op, sum, subst_apply(&at, q->a[1]))};
  w->root->body = expr_map(c, w->root->body, swap, &whole);
  return true;
}

/* ---- weights that vanish ---- */
static bool is_maximum(const Group *g, const Expr *e) {
  for (int i = 0; e->op == EX_LOAD && i < g->stages.n; i++) {
    const Expr *reduce = stage_reduce(g->stages.v[i]->body);
    if (g->stages.v[i]->out == e->u.tensor) return reduce && reduce->u.i == RED_MAX;
  }
  return false;
}

/* exp(s - max s) of less than 2^-100 counts as 0 beside the 1 of the maximum: scores that a mask of -100 takes away would else be denormal numbers,
 * on which some CPUs spend a hundred cycles each. */
static void drop_vanishing(Ctx *c, Group *g) {
  const double least = -69.25;
  for (int i = 0; i < g->stages.n; i++) {
    Expr *e = g->stages.v[i]->body;
    if (e->op != EX_EXP || e->dtype != DT_F32 || e->a[0]->op != EX_SUB || !is_maximum(g, e->a[0]->a[1])) continue;
    Expr *limit = ex_const(c, DT_F32, least), *weight = ex_unary(c, EX_EXP, ex_max(c, e->a[0], limit));
    g->stages.v[i]->body = ex_select(c, ex_lt(c, e->a[0], limit), ex_const(c, DT_F32, 0), weight);
  }
}

/* ---- the pass ---- */
static Group *merged(Chain *w) {
  Group *g = NEW(w->s->c, Group);
  for (int i = w->items.n - 1; i >= 0; i--)
    for (int k = 0; k < w->items.v[i]->group->stages.n; k++) vec_push(w->s->c, &g->stages, w->items.v[i]->group->stages.v[k]);
  vec_push(w->s->c, &g->stages, w->root);
  g->block = NEW_ARRAY(w->s->c, int64_t, w->root->out->rank + 1);
  return g;
}

static bool rewrite(Chain *w, int item) {
  Ctx *c = w->s->c;
  Item *it = w->body->items.v[item];
  int rows;
  int64_t block[MAX_RANK];
  if (!choose_blocks(w, block, &rows)) return false;
  Stage *copy = turn_rows(w, rows);
  Group *g = merged(w);
  int n = g->stages.n;
  g->source = it->group->source;
  if (!choose_blocks(w, g->block, &rows) || !size_blocks(w, g, rows)) return false;
  if (copy) body_insert(c, w->body, item + 1, copy, g->source);
  if (pull_factor(w, g->stages.v[n - 2])) {
    g->stages.v[n - 2] = g->stages.v[n - 1];
    g->stages.n--;
  }
  if (!w->s->m->opt->fp32_strict) drop_vanishing(c, g);
  it->group = g;
  if (w->s->m->opt->explain)
    str_add(&w->s->m->notes, "  %s: %d stages in blocks of %lld rows\n", w->root->out->name, g->stages.n, (long long)g->block[rows]);
  return true;
}

static void drop(Body *b, const Chain *w) {
  int n = 0;
  for (int i = 0; i < b->items.n; i++) {
    bool gone = false;
    for (int k = 0; k < w->items.n; k++) gone |= b->items.v[i] == w->items.v[k];
    if (!gone) b->items.v[n++] = b->items.v[i];
  }
  b->items.n = n;
}

static void each_body(Survey *s, Body *b) {
  for (int i = b->items.n - 1; i >= 0; i = MIN(i, b->items.n) - 1) {
    Item *it = b->items.v[i];
    for (int k = 0; k < 2; k++)
      if (it->body[k]) each_body(s, it->body[k]);
    Chain w = {.s = s, .body = b};
    if (it->kind == ITEM_GROUP && match(&w, it->group) && rewrite(&w, i)) drop(b, &w);
  }
}

void pass_attention(Module *m) {
  Survey s = {m, m->c, map_new(m->c)};
  survey(&s, m->body);
  each_body(&s, m->body);
}
