/* fuse.c - pass_fuse: which stages share a kernel.
 *
 * 1. Substitution, in program order: a producer's expression replaces the load of it. Movement goes anywhere; element-wise work goes
 *    where it is not repeated; a reduction goes into one element-wise consumer that reads each element once (its epilogue).
 * 2. Rows: a reduction whose readers all lie in one group, one value for each of the root's outer points, is computed inside the root's
 *    loops (softmax, layer normalisation).
 * Legality comes from the expressions alone. Nothing is fused across the bodies of If and Scan.
 */
#include "passes.h"
#include "stages.h"

typedef struct { Stage *stage; Body *body; int item; int users; bool fixed; int writers; } Producer;

enum { BLOCK = 16 };               /* no target has wider vectors of f32 */

typedef struct {
  Module *m;
  Ctx *c;
  Map producers;                   /* Tensor* -> Producer* */
  Body *body;
} Fuser;

static Producer *producer(Fuser *f, const Tensor *t) { return map_get(&f->producers, KEY(t)); }

static Producer *producer_make(Fuser *f, const Tensor *t) {
  Producer *p = producer(f, t);
  if (!p) map_set(&f->producers, KEY(t), p = NEW(f->c, Producer));
  return p;
}

static void count_uses(Fuser *f, const Expr *body) {
  TensorList l = {.c = f->c};
  expr_tensors(&l, body);
  for (int i = 0; i < l.list.n; i++) producer_make(f, l.list.v[i])->users++;
}

static void survey(Fuser *f, Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    if (it->kind == ITEM_GROUP) {
      Stage *st = group_root(it->group);
      Producer *p = producer_make(f, st->out);
      p->stage = st;
      p->body = b;
      p->item = i;
      p->writers++;
      for (int d = 0; d < st->out->rank; d++) p->fixed |= st->axes[d]->kind == SYM_DIM;
      count_uses(f, st->body);
    }
    if (it->cond) producer_make(f, it->cond)->fixed = true;
    for (int k = 0; k < 2; k++)
      if (it->body[k]) survey(f, it->body[k]);
  }
}

/* ---- what an expression costs ---- */
typedef struct { int arith, heavy, selects, choices; const Tensor *of; int loads; Expr *load; } Cost;   /* choices: of loads */
static void count_cost(const Expr *e, void *user) {
  Cost *k = user;
  if (e->op == EX_LOAD) {
    if (e->u.tensor == k->of) k->loads++, k->load = (Expr *)e;
    return;
  }
  if (!dtype_is_float((DType)e->dtype) && e->op != EX_SELECT) return;          /* index arithmetic */
  if (e->op == EX_SELECT) k->selects++, k->choices += e->a[1]->op != EX_CONST && e->a[2]->op != EX_CONST;
  else if (e->op >= EX_EXP || e->op == EX_POW || e->op == EX_DIV || e->op == EX_SQRT) k->heavy++;
  else if (e->n) k->arith++;
}

static Cost cost_of(const Expr *e, const Tensor *loads_of) {
  Cost k = {.of = loads_of};
  expr_visit(e, count_cost, &k);
  return k;
}

static bool at_least(Ctx *c, Expr *a, Expr *b) { return a == b || expr_proves(c, ex_le(c, b, a)); }

static Expr *domain_size(Ctx *c, const Stage *st, const Expr *reduce) {
  Expr *n = tensor_elements(c, st->out);
  for (int i = 1; reduce && i < reduce->n; i++) n = ex_mul(c, n, reduce->a[i]->u.sym->extent);
  return n;
}

static void constant_rank(const Expr *e, void *user) {
  int *rank = user;
  if (e->op == EX_LOAD && e->u.tensor->data) *rank = MAX(*rank, e->n);
}

static int weights_rank(const Expr *reduce) {
  int rank = 0;
  expr_visit(reduce, constant_rank, &rank);
  return rank;
}

/* A contraction over several axes makes maps, which are stored by channel blocks: a consumer that reads them in another order would
 * scatter its stores. */
static bool is_convolution(const Stage *st) {
  return is_contraction(stage_reduce(st->body)) && st->out->rank >= 3 && weights_rank(stage_reduce(st->body)) >= 3;
}

static bool moves_along(const Expr *load, const Stage *into) {
  if (load->n != into->out->rank) return false;
  for (int i = 0; i < load->n; i++)
    if (load->a[i] != into->axes[i]->self && into->axes[i]->max != 0) return false;
  return true;
}

/* Vectors run along the consumer's last axis in aligned blocks, or along the channels of a map: does every index of the load move by ones
 * inside such a block, and begin it at a block's beginning where other axes have a part in it? */
static bool keeps_blocks(Ctx *c, const Expr *load, const Stage *into) {
  if (into->out->rank >= 3 && load->n && load->a[load->n - 1] == into->axes[1]->self) return true;
  Sym *last = into->axes[into->out->rank - 1], *block = sym_new(c, SYM_AXIS, "block", 0, INT64_MAX / BLOCK);
  Sym *lane = sym_axis(c, SYM_AXIS, "lane", ex_int(c, BLOCK));
  Expr *at = ex_add(c, ex_mul(c, block->self, ex_int(c, BLOCK)), lane->self), *coef, *rest;
  for (int i = 0; i < load->n; i++) {
    if (load->a[i] == last->self || !expr_uses(load->a[i], last)) continue;
    Expr *e = expr_subst1(c, load->a[i], last, at);
    if (expr_uses(e, lane) && (!expr_is_linear(c, e, lane, &coef, &rest) || expr_range(c, rest).multiple % BLOCK)) return false;
  }
  return true;
}

/* A reduction inlined into an element-wise consumer: the consumer's loops take its axes' place. */
static bool inlines_reduction(Fuser *f, const Producer *p, const Stage *into, const Cost *use) {
  if (into->out->rank && is_contraction(stage_reduce(p->stage->body)) && use->load && !keeps_blocks(f->c, use->load, into)) return false;
  if (is_convolution(p->stage) && !moves_along(use->load, into)) return false;
  if (stage_reduce(into->body) || p->users != 1 || use->loads != 1) return false;
  if (tensor_elements(f->c, p->stage->out) != tensor_elements(f->c, into->out)) return false;
  for (int i = 0; i < use->load->n; i++) {                   /* the load moves with the consumer's axes only */
    TensorList l = {.c = f->c};
    expr_tensors(&l, use->load->a[i]);
    if (l.list.n) return false;
  }
  return true;
}

static void find_nonlinear(const Expr *e, void *user) {
  static const ExprOp ops[] = {EX_DIV, EX_MOD, EX_TDIV, EX_TMOD, EX_SELECT, EX_MIN, EX_MAX, EX_LOAD};
  for (int i = 0; i < COUNT(ops); i++)
    if (e->op == ops[i]) *(bool *)user = true;
}

static void find_bent_load(const Expr *e, void *user) {
  for (int i = 0; e->op == EX_LOAD && i < e->n; i++) expr_visit(e->a[i], find_nonlinear, user);
}

/* Does the body read only along straight lines? Anything else is too slow to do again for every product. */
static bool is_straight(const Expr *body) {
  bool bent = false;
  expr_visit(body, find_bent_load, &bent);
  return !bent;
}

/* Some of the channels of a map, from the beginning of a block on: as good to read as the map itself. */
static bool is_channel_slice(Ctx *c, const Stage *st) {
  const Expr *e = st->body;
  int64_t from;
  if (e->op != EX_LOAD || e->n != st->out->rank) return false;
  for (int d = 0; d < e->n; d++)
    if (!ex_is_int(ex_sub(c, e->a[d], st->axes[d]->self), &from) || (d == 1 ? from % BLOCK : from)) return false;
  return true;
}

/* A concatenation: which part an element comes from is a matter of an axis. */
static bool picks_by_axis(const Stage *st) {
  const Expr *e = st->body;
  if (e->op != EX_SELECT || e->a[0]->op != EX_LT || ex_is_const(e->a[1]) || ex_is_const(e->a[2])) return false;
  for (int i = 0; i < st->out->rank; i++)
    if (e->a[0]->a[0] == st->axes[i]->self) return true;
  return false;
}

static Expr *put_body(Ctx *c, Expr *e, void *user) {
  const Stage *p = user;
  if (e->op != EX_LOAD || e->u.tensor != p->out) return e;
  Subst s = subst_new(c);
  for (int i = 0; i < e->n; i++) subst_set(&s, p->axes[i], e->a[i]);
  return subst_apply(&s, p->body);
}

/* Is it known at every place where p is read which of its sides is chosen there? */
static bool is_chosen(Fuser *f, const Producer *p, const Stage *into) {
  Expr *body = expr_map(f->c, into->body, put_body, p->stage);
  return !cost_of(body, NULL).choices && !cost_of(body, p->stage->out).loads;
}

static bool inlines_pointwise(Fuser *f, const Producer *p, const Stage *into, const Cost *use) {
  Ctx *c = f->c;
  Cost own = cost_of(p->stage->body, NULL);
  bool movement = !own.arith && !own.heavy && !own.selects;
  Expr *reduce = stage_reduce(into->body);
  if (own.choices) return !own.arith && !own.heavy && is_chosen(f, p, into);   /* else both sides would be read everywhere; views.c does better */
  if (!movement && picks_by_axis(into)) return false;        /* made in its place if it stays by itself */
  if (is_contraction(reduce) && !is_channel_slice(c, p->stage))
    return movement && p->users == 1 && use->loads == 1 && is_straight(p->stage->body);
  if (movement) return true;
  bool once = use->loads == 1 && at_least(c, tensor_elements(c, p->stage->out), domain_size(c, into, reduce));
  if (reduce) return once && p->users == 1 && own.selects <= 1;
  if (once) return p->users == 1 || (own.arith + own.selects <= 1 && !own.heavy);
  return !own.heavy && own.arith + own.selects <= 1 && use->loads <= 2;
}

static bool can_inline(Fuser *f, const Producer *p, const Stage *into) {
  if (!p || !p->stage || p->body != f->body || p->fixed || p->writers != 1) return false;
  const Tensor *t = p->stage->out;
  if (t->scope == SCOPE_OUTPUT) return false;
  if (module_is_state(f->m, into->out)) return false;        /* it would overwrite what others of this step still read */
  Cost use = cost_of(into->body, t);
  return stage_reduce(p->stage->body) ? inlines_reduction(f, p, into, &use) : inlines_pointwise(f, p, into, &use);
}

/* The latest producer first: earlier ones may then go into it no more, but its operands stay readable for longer. */
static bool inline_one(Fuser *f, Stage *st) {
  TensorList l = {.c = f->c};
  Producer *best = NULL;
  expr_tensors(&l, st->body);
  for (int i = 0; i < l.list.n; i++) {
    Producer *p = producer(f, l.list.v[i]);
    if (can_inline(f, p, st) && (!best || p->item > best->item)) best = p;
  }
  if (!best) return false;
  TensorList gone = {.c = f->c};
  expr_tensors(&gone, best->stage->body);
  st->body = expr_map(f->c, st->body, put_body, best->stage);
  best->users--;
  TensorList now = {.c = f->c};
  expr_tensors(&now, st->body);
  for (int i = 0; i < gone.list.n; i++) {                    /* one more reader, unless it was one already */
    bool before = false;
    for (int j = 0; j < l.list.n; j++) before |= l.list.v[j] == gone.list.v[i];
    Producer *p = producer_make(f, gone.list.v[i]);
    p->users += !before;
    if (best->users == 0) p->users--;
  }
  f->m->fused++;
  return true;
}

static bool is_dead(Fuser *f, const Stage *st) {
  const Producer *p = producer(f, st->out);
  return !p->users && !p->fixed && st->out->scope != SCOPE_OUTPUT && !module_is_state(f->m, st->out);
}

static void drop_dead(Fuser *f, Body *b) {
  int n = 0;
  for (int i = b->items.n - 1; i >= 0; i--) {
    Item *it = b->items.v[i];
    if (it->kind != ITEM_GROUP || !is_dead(f, group_root(it->group))) continue;
    b->items.v[i] = NULL;
  }
  for (int i = 0; i < b->items.n; i++)
    if (b->items.v[i]) b->items.v[n++] = b->items.v[i];
  b->items.n = n;
}

static void each_body(Fuser *f, Body *b, void (*visit)(Fuser *f, Body *b)) {
  for (int i = 0; i < b->items.n; i++)
    for (int k = 0; k < 2; k++)
      if (b->items.v[i]->body[k]) each_body(f, b->items.v[i]->body[k], visit);
  f->body = b;
  visit(f, b);
}

/* ---- sums over the parts of a concatenation ---- */
typedef struct { Fuser *f; const Expr *at; bool found; } Parts;
static void find_parts(const Expr *e, void *user) {
  Parts *w = user;
  const Producer *p = e->op == EX_LOAD ? producer(w->f, e->u.tensor) : NULL;
  if (!p || !p->stage || !picks_by_axis(p->stage)) return;
  for (int d = 0; d < e->n; d++) w->found |= e->a[d] == w->at && p->stage->body->a[0]->a[0] == p->stage->axes[d]->self;
}

/* sum(r<2, stacked[r, ..]) becomes stacked[0, ..] + stacked[1, ..]: what was stacked is then read where it is. */
static void sum_of_parts(Fuser *f, Stage *st) {
  enum { FEW = 4 };
  Ctx *c = f->c;
  Expr *reduce = stage_reduce(st->body), *sum = NULL;
  int64_t n;
  if (!reduce || reduce->u.i != RED_SUM || reduce->n != 2 || !ex_is_int(reduce->a[1]->u.sym->extent, &n) || n < 1 || n > FEW) return;
  Parts w = {f, reduce->a[1], false};
  expr_visit(reduce->a[0], find_parts, &w);
  if (!w.found) return;
  for (int64_t i = 0; i < n; i++) {
    Expr *part = expr_subst1(c, reduce->a[0], reduce->a[1]->u.sym, ex_int(c, i));
    sum = sum ? ex_add(c, sum, part) : part;
  }
  st->body = expr_replace(c, st->body, reduce, sum);
}

static void substitute(Fuser *f, Body *b) {
  for (int i = 0; i < b->items.n; i++)
    if (b->items.v[i]->kind == ITEM_GROUP)
      do sum_of_parts(f, group_root(b->items.v[i]->group));
      while (inline_one(f, group_root(b->items.v[i]->group)));
  drop_dead(f, b);
}

/* ---- rows ---- */
typedef struct { Ctx *c; const Tensor *t; const Stage *root; int outer; bool ok; } RowUse;

/* Every load of t by the root or a member may depend on the first `outer` axes of the root only (members stand at those already). */
static void check_row_use(const Expr *e, void *user) {
  RowUse *u = user;
  if (e->op != EX_LOAD || e->u.tensor != u->t) return;
  for (int d = 0; d < e->n; d++)
    for (int i = u->outer; i < u->root->out->rank; i++)
      if (expr_uses(e->a[d], u->root->axes[i])) u->ok = false;
}

static bool in_group(const Group *g, const Tensor *t) {
  for (int i = 0; i < g->stages.n; i++)
    if (g->stages.v[i]->out == t) return true;
  return false;
}

static int readers_in(Fuser *f, const Group *g, const Tensor *t) {
  int n = 0;
  for (int i = 0; i < g->stages.n; i++) n += cost_of(g->stages.v[i]->body, t).loads > 0;
  return n;
}

static bool joins_row(Fuser *f, const Group *g, const Producer *p, int outer) {
  const Stage *root = group_root(g);
  if (!p || !p->stage || p->body != f->body || p->fixed || p->writers != 1 || p->stage->out->scope == SCOPE_OUTPUT) return false;
  if (!stage_reduce(p->stage->body) || is_contraction(stage_reduce(p->stage->body))) return false;
  if (in_group(g, p->stage->out) || readers_in(f, g, p->stage->out) != p->users) return false;
  Expr *points = ex_int(f->c, 1);
  for (int i = 0; i < outer; i++) points = ex_mul(f->c, points, root->out->shape[i]);
  if (points != tensor_elements(f->c, p->stage->out)) return false;
  RowUse u = {f->c, p->stage->out, root, outer, true};
  expr_visit(root->body, check_row_use, &u);
  return u.ok;
}

static void row_group(Fuser *f, Body *b, Item *it) {
  Group *g = it->group;
  const Stage *root = group_root(g);
  if (stage_reduce(root->body) || root->out->rank < 1) return;
  for (int outer = root->out->rank - 1; outer >= 1 && g->stages.n == 1; outer--)
    for (bool again = true; again;) {
      TensorList l = {.c = f->c};
      again = false;
      for (int i = 0; i < g->stages.n; i++) expr_tensors(&l, g->stages.v[i]->body);
      for (int i = l.list.n - 1; i >= 0 && !again; i--) {
        Producer *p = producer(f, l.list.v[i]);
        if (!joins_row(f, g, p, outer)) continue;
        vec_push(f->c, &g->stages, p->stage);
        memmove(&g->stages.v[1], &g->stages.v[0], sizeof(Stage *) * (size_t)(g->stages.n - 1));
        g->stages.v[0] = p->stage;
        for (int j = 0; j < b->items.n; j++)
          if (b->items.v[j] && b->items.v[j]->kind == ITEM_GROUP && b->items.v[j] != it && group_root(b->items.v[j]->group) == p->stage)
            b->items.v[j] = NULL;
        again = true;
      }
    }
}

/* Members were pushed readers first, so each stands before its readers; siblings keep an order in which operands come first. */
static void order_members(Fuser *f, Group *g) {
  for (int done = 0; done < g->stages.n; done++)
    for (int i = done; i < g->stages.n; i++) {
      bool ready = true;
      for (int j = done; j < g->stages.n; j++)
        ready &= j == i || !cost_of(g->stages.v[i]->body, g->stages.v[j]->out).loads;
      if (!ready) continue;
      Stage *st = g->stages.v[i];
      memmove(&g->stages.v[done + 1], &g->stages.v[done], sizeof(Stage *) * (size_t)(i - done));
      g->stages.v[done] = st;
      break;
    }
}

static void rows(Fuser *f, Body *b) {
  for (int i = b->items.n - 1; i >= 0; i--) {
    Item *it = b->items.v[i];
    if (!it || it->kind != ITEM_GROUP) continue;
    row_group(f, b, it);
    order_members(f, it->group);
  }
  int n = 0;
  for (int i = 0; i < b->items.n; i++)
    if (b->items.v[i]) b->items.v[n++] = b->items.v[i];
  b->items.n = n;
}

void pass_fuse(Module *m) {
  Fuser f = {.m = m, .c = m->c, .producers = map_new(m->c)};
  survey(&f, m->body);
  each_body(&f, m->body, substitute);
  f.producers = map_new(m->c);
  survey(&f, m->body);
  each_body(&f, m->body, rows);
}
