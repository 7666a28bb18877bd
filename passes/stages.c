/* stages.c - pass_stages: a graph's nodes become the stages of their computes, in program order.
 *
 * If becomes an item with two bodies that both end by writing the node's outputs. Scan becomes a loop: its states live in tensors that
 * the body's last stages overwrite, an element of a scan input is a load at the loop's counter, and a scan output is a stage whose scan
 * axis is the counter itself. A graph output that is an input, a constant or another output gets a copy.
 */
#include "stages.h"
#include "passes.h"

typedef struct { Module *m; Ctx *c; } Builder;
static Body *build_graph(Builder *b, Graph *g);

void body_each_group(Body *b, void (*f)(Group *g, void *user), void *user) {
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    if (it->kind == ITEM_GROUP) f(it->group, user);
    for (int k = 0; k < 2; k++)
      if (it->body[k]) body_each_group(it->body[k], f, user);
  }
}

static void list_tensor(const Expr *e, void *user) {
  TensorList *l = user;
  if (e->op != EX_LOAD && e->op != EX_FETCH) return;
  for (int i = 0; i < l->list.n; i++)
    if (l->list.v[i] == e->u.tensor) return;
  vec_push(l->c, &l->list, e->u.tensor);
}

void expr_tensors(TensorList *out, const Expr *e) { expr_visit(e, list_tensor, out); }

typedef struct { Ctx *c; Map readers; } Readers;
static void count_readers(Group *g, void *user) {
  Readers *r = user;
  TensorList l = {.c = r->c};
  for (int i = 0; i < g->stages.n; i++) expr_tensors(&l, g->stages.v[i]->body);
  for (int i = 0; i < l.list.n; i++) map_set(&r->readers, KEY(l.list.v[i]), (char *)map_get(&r->readers, KEY(l.list.v[i])) + 1);
}

Map body_readers(Ctx *c, Body *b) {
  Readers r = {c, map_new(c)};
  body_each_group(b, count_readers, &r);
  return r.readers;
}

Expr *view_load(Ctx *c, const Expr *load, const View *v) {
  Expr *index[MAX_RANK];
  for (int d = 0; d < load->n; d++) index[d] = d == v->axis ? ex_add(c, load->a[d], ex_int(c, v->offset)) : load->a[d];
  return ex_load(c, v->whole, index, load->n);
}

static void find_reduce(const Expr *e, void *user) {
  if (e->op == EX_REDUCE) *(Expr **)user = (Expr *)e;
}

Expr *stage_reduce(const Expr *body) {
  Expr *found = NULL;
  expr_visit(body, find_reduce, &found);
  return found;
}

bool checks_bounds_only(Ctx *c, Expr *cond, const Expr *load) {
  if (cond->op == EX_AND) return checks_bounds_only(c, cond->a[0], load) && checks_bounds_only(c, cond->a[1], load);
  for (int d = 0; d < load->n; d++)
    if (cond == ex_le(c, ex_int(c, 0), load->a[d]) || cond == ex_lt(c, load->a[d], load->u.tensor->shape[d])) return true;
  return false;
}

bool is_padded_load(Ctx *c, const Expr *e) {
  return e->op == EX_SELECT && e->a[1]->op == EX_LOAD && ex_is_const(e->a[2]) && dtype_is_float((DType)e->dtype) && e->a[2]->u.f == 0 &&
         checks_bounds_only(c, e->a[0], e->a[1]);
}

bool is_contraction(const Expr *reduce) { return reduce && reduce->u.i == RED_SUM && reduce->a[0]->op == EX_MUL; }

bool module_is_state(const Module *m, const Tensor *t) {
  for (int i = 0; i < m->states.n; i++)
    if (m->states.v[i] == t) return true;
  return false;
}

Expr *stage_shape(const Stage *st, int d) { return st->at ? st->axes[d]->extent : st->out->shape[d]; }
Expr *stage_index(const Stage *st, int d) { return st->at ? st->at[d] : st->axes[d]->self; }

Expr *stage_elements(Ctx *c, const Stage *st) {
  Expr *n = ex_int(c, 1);
  for (int d = 0; d < st->out->rank; d++) n = ex_mul(c, n, stage_shape(st, d));
  return n;
}

int stage_parted_axis(const Module *m, Expr *const *extent, int rank) {
  enum { CHANNELS = 1 };
  int64_t n;
  for (int d = 0; m->opt->threads != 1 && d < rank; d++)
    if (d != CHANNELS && !ex_equals_int(extent[d], 1)) return ex_is_int(extent[d], &n) && n >= 2 && n % 2 == 0 ? d : -1;
  return -1;
}

void body_insert(Ctx *c, Body *b, int at, Stage *st, const char *source) {
  Item *it = NEW(c, Item);
  it->kind = ITEM_GROUP;
  it->group = NEW(c, Group);
  it->group->source = source;
  vec_push(c, &it->group->stages, st);
  vec_push(c, &b->items, it);
  memmove(&b->items.v[at + 1], &b->items.v[at], sizeof(Item *) * (size_t)(b->items.n - 1 - at));
  b->items.v[at] = it;
}

static Item *add_item(Builder *b, Body *body, ItemKind kind) {
  Item *it = NEW(b->c, Item);
  it->kind = kind;
  vec_push(b->c, &body->items, it);
  return it;
}

static void add_stage(Builder *b, Body *body, Stage *st, const char *source) {
  Item *it = add_item(b, body, ITEM_GROUP);
  it->group = NEW(b->c, Group);
  it->group->source = source;
  vec_push(b->c, &it->group->stages, st);
}

static Stage *stage_new(Ctx *c, Tensor *out) {
  Stage *st = NEW(c, Stage);
  st->out = out;
  st->axes = NEW_ARRAY(c, Sym *, out->rank + 1);
  for (int i = 0; i < out->rank; i++) st->axes[i] = sym_axis(c, SYM_AXIS, ctx_printf(c, "i%d", i), out->shape[i]);
  return st;
}

static Expr *load_at_axes(Ctx *c, Tensor *t, Sym *const *axes) {
  Expr *at[MAX_RANK];
  for (int i = 0; i < t->rank; i++) at[i] = axes[i]->self;
  return ex_load(c, t, at, t->rank);
}

static void add_copy(Builder *b, Body *body, Tensor *to, Tensor *from, const char *source) {
  Stage *st = stage_new(b->c, to);
  st->body = load_at_axes(b->c, from, st->axes);
  add_stage(b, body, st, source);
}

static Graph *branch(const Node *n, const char *name) { return op_attr(n, name)->graph; }

static void build_if(Builder *b, Body *body, Node *n) {
  Item *it = add_item(b, body, ITEM_IF);
  it->cond = n->in[0];
  static const char *const names[] = {"then_branch", "else_branch"};
  for (int k = 0; k < 2; k++) {
    Graph *g = branch(n, names[k]);
    it->body[k] = build_graph(b, g);
    for (int i = 0; i < n->nout; i++)
      if (n->out[i]) add_copy(b, it->body[k], n->out[i], g->outputs.v[i], n->name);
  }
}

static int64_t list_value(const Node *n, const char *attr, int i) {
  const Attr *a = op_attr(n, attr);
  return a->kind == ATTR_INTS && i < a->n ? a->ints[i] : 0;
}

/* The stage that makes an element of the step's slice of a scan input. */
static Stage *slice_stage(Builder *b, Tensor *slice, Tensor *whole, int64_t axis, Expr *step) {
  Stage *st = stage_new(b->c, slice);
  Expr *at[MAX_RANK];
  for (int d = 0, i = 0; d < whole->rank; d++) at[d] = d == axis ? step : st->axes[i++]->self;
  st->body = ex_load(b->c, whole, at, whole->rank);
  return st;
}

static Expr *scan_step(Ctx *c, Item *loop, bool reverse) {
  Expr *t = loop->counter->self;
  return reverse ? ex_sub(c, ex_sub(c, loop->trips, ex_int(c, 1)), t) : t;
}

static void build_scan_output(Builder *b, Body *body, Item *loop, Tensor *whole, Tensor *step_out, int64_t axis, bool reverse,
                              const char *source) {
  Ctx *c = b->c;
  Stage *st = stage_new(c, whole);
  Expr *at[MAX_RANK];
  if (reverse) diag_fail(c, E0405, NULL, NULL, "Scan '%s': a reversed scan output is not supported", diag_quote(c, source));
  st->axes[axis] = loop->counter;
  for (int d = 0, i = 0; d < whole->rank; d++)
    if (d != axis) at[i++] = st->axes[d]->self;
  st->body = ex_load(c, step_out, at, step_out->rank);
  add_stage(b, body, st, source);
}

static int64_t positive_axis(int64_t axis, int rank) { return axis < 0 ? axis + rank : axis; }

static void build_scan(Builder *b, Body *body, Node *n) {
  Ctx *c = b->c;
  Graph *g = branch(n, "body");
  int nscan = (int)op_attr_i(n, "num_scan_inputs"), nstate = n->nin - nscan, nout = n->nout - nstate;
  Tensor **state = NEW_ARRAY(c, Tensor *, nstate + 1);
  for (int i = 0; i < nstate; i++) {
    Tensor *in = g->inputs.v[i];
    state[i] = in;                                           /* the body's state input is where the state lives */
    add_copy(b, body, state[i], n->in[i], n->name);
  }
  Item *loop = add_item(b, body, ITEM_LOOP);
  int64_t axis0 = positive_axis(list_value(n, "scan_input_axes", 0), n->in[nstate]->rank);
  loop->trips = n->in[nstate]->shape[axis0];
  loop->counter = sym_new(c, SYM_DIM, "step", 0, INT64_MAX);
  loop->counter->extent = loop->trips;
  Body *inner = loop->body[0] = NEW(c, Body);
  for (int i = 0; i < nscan; i++) {
    Tensor *whole = n->in[nstate + i], *slice = g->inputs.v[nstate + i];
    int64_t axis = positive_axis(list_value(n, "scan_input_axes", i), whole->rank);
    add_stage(b, inner, slice_stage(b, slice, whole, axis, scan_step(c, loop, list_value(n, "scan_input_directions", i))), n->name);
  }
  Body *rest = build_graph(b, g);
  for (int i = 0; i < rest->items.n; i++) vec_push(c, &inner->items, rest->items.v[i]);
  for (int i = 0; i < nout; i++) {
    Tensor *whole = n->out[nstate + i];
    if (!whole) continue;
    int64_t axis = positive_axis(list_value(n, "scan_output_axes", i), whole->rank);
    build_scan_output(b, inner, loop, whole, g->outputs.v[nstate + i], axis, list_value(n, "scan_output_directions", i), n->name);
  }
  for (int i = 0; i < nstate; i++) {                         /* all new states exist before the first old one is overwritten */
    Tensor *next = g->outputs.v[i], *held = next;
    for (int j = 0; j < nstate; j++)
      if (next == state[j] && j != i) {
        held = tensor_new(c, ctx_printf(c, "%s.held", next->name), next->dtype, next->rank, next->shape);
        add_copy(b, inner, held, next, n->name);
        g->outputs.v[i] = held;
      }
  }
  for (int i = 0; i < nstate; i++)
    if (g->outputs.v[i] != state[i]) add_copy(b, inner, state[i], g->outputs.v[i], n->name);
  for (int i = 0; i < nstate; i++)
    if (n->out[i]) add_copy(b, body, n->out[i], state[i], n->name);
  for (int i = 0; i < nstate; i++) vec_push(c, &b->m->states, state[i]);
}

static void build_node(Builder *b, Body *body, Node *n) {
  Ctx *c = b->c;
  OpCtx oc = {.c = c, .node = n};
  const char *name = n->op->name;
  ctx_diags(c)->node = n;
  if (n->op->cls == OPC_REGION && !strcmp(name, "If")) return build_if(b, body, n);
  if (n->op->cls == OPC_REGION && !strcmp(name, "Scan")) return build_scan(b, body, n);
  if (!op_compute(c, n, &oc)) diag_fail(c, E0401, n, NULL, "%s cannot be compiled yet for this use", name);
  const char *source = n->name[0] ? n->name : name;
  for (int i = 0; i < oc.stages.n; i++) add_stage(b, body, oc.stages.v[i], source);
}

static Body *build_graph(Builder *b, Graph *g) {
  Body *body = NEW(b->c, Body);
  for (int i = 0; i < g->assumed.n; i++) add_item(b, body, ITEM_CHECK)->check = g->assumed.v[i];
  for (int i = 0; i < g->nodes.n; i++) build_node(b, body, g->nodes.v[i]);
  return body;
}

/* Every output of the model is written by a stage of its own tensor. */
static void build_outputs(Builder *b, Body *body, Graph *g) {
  Ctx *c = b->c;
  for (int i = 0; i < g->inputs.n; i++) g->inputs.v[i]->scope = SCOPE_INPUT;
  for (int i = 0; i < g->outputs.n; i++) {
    Tensor *t = g->outputs.v[i];
    if (!t->def || t->scope == SCOPE_OUTPUT || t->data) {
      Tensor *copy = tensor_new(c, t->name, t->dtype, t->rank, t->shape);
      add_copy(b, body, copy, t, t->name);
      g->outputs.v[i] = t = copy;
    }
    t->scope = SCOPE_OUTPUT;
  }
}

/* ---- multiplications as the operators define them ---- */
typedef struct { const Expr *reduce; int64_t each, inside; } Products;     /* of an element; of those, of each step of its reduction */

static void count_product(const Expr *e, void *user) {
  Products *p = user;
  bool inside = false;
  if ((e->op != EX_MUL && e->op != EX_FMA) || !dtype_is_float((DType)e->dtype)) return;
  for (int i = 1; p->reduce && i < p->reduce->n; i++) inside |= expr_uses(e, p->reduce->a[i]->u.sym);
  *(inside ? &p->inside : &p->each) += 1;
}

static Expr *stage_products(Ctx *c, const Stage *st) {
  Products p = {.reduce = stage_reduce(st->body)};
  expr_visit(st->body, count_product, &p);
  Expr *n = ex_int(c, p.inside);
  for (int i = 1; p.reduce && i < p.reduce->n; i++) n = ex_mul(c, n, p.reduce->a[i]->u.sym->extent);
  return ex_mul(c, stage_elements(c, st), ex_add(c, n, ex_int(c, p.each)));
}

/* NULL where only a run can tell. */
static Expr *body_products(Ctx *c, const Body *b) {
  Expr *sum = ex_int(c, 0);
  for (int i = 0; i < b->items.n && sum; i++) {
    const Item *it = b->items.v[i];
    Expr *n = it->kind == ITEM_GROUP ? stage_products(c, group_root(it->group)) : it->kind == ITEM_LOOP ? body_products(c, it->body[0]) : NULL;
    if (n && it->kind == ITEM_LOOP) n = ex_mul(c, it->trips, n);
    if (it->kind != ITEM_CHECK) sum = n ? ex_add(c, sum, n) : NULL;
  }
  return sum;
}

void pass_stages(Module *m) {
  Builder b = {m, m->c};
  m->body = build_graph(&b, m->graph);
  build_outputs(&b, m->body, m->graph);
  m->products = body_products(m->c, m->body);
  ctx_diags(m->c)->node = NULL;
}
