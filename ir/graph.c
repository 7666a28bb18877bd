/* graph.c - building and changing graphs and tensors.
 *
 * Invariants kept here and checked by graph_verify: nodes stand in topological order, every use of a tensor by a node
 * is one entry of its users list (whatever graph the node stands in), and a tensor's name finds it from wherever it
 * is used. Graph outputs are not users. Inner graphs nest only as deep as the reader allows, so recursion over
 * nesting is bounded; nothing recurses over chains of nodes.
 */
#include "graph.h"

#include "op.h"

/* ---- making ---- */

Graph *graph_new(Ctx *c, Graph *parent, const char *name) {
  Graph *g = NEW(c, Graph);
  g->ctx = c;
  g->parent = parent;
  g->name = ctx_intern(c, name ? name : "");
  g->names = map_new(c);
  g->suffixes = map_new(c);
  if (parent) vec_push(c, &parent->inner, g);
  return g;
}

Tensor *tensor_new(Ctx *c, const char *name, DType t, int rank, Expr *const *shape) {
  Tensor *x = NEW(c, Tensor);
  x->name = ctx_intern(c, name ? name : "");
  x->dtype = t;
  x->rank = rank;
  if (rank > MAX_RANK) diag_bug(c, "tensor '%s' has rank %d; the most is %d", x->name, rank, MAX_RANK);
  if (rank >= 0) x->shape = NEW_ARRAY(c, Expr *, rank ? rank : 1);
  if (rank > 0) memcpy(x->shape, shape, sizeof(*shape) * (size_t)rank);
  x->id = ctx_serial(c);
  return x;
}

Tensor *graph_find(Graph *g, const char *name) {
  uint64_t key = KEY(ctx_intern(g->ctx, name));
  for (; g; g = g->parent) {
    Tensor *t = map_get(&g->names, key);
    if (t) return t;
  }
  return NULL;
}

/* The first of base.N (N counts on from the last one given out) that names nothing here or outside. */
static const char *fresh_name(Graph *g, const char *base) {
  uint64_t key = KEY(ctx_intern(g->ctx, base));
  intptr_t n = (intptr_t)map_get(&g->suffixes, key);
  const char *name;
  do name = ctx_printf(g->ctx, "%s.%ld", base, (long)++n);
  while (graph_find(g, name));
  map_set(&g->suffixes, key, (void *)n);
  return ctx_intern(g->ctx, name);
}

static Tensor *register_tensor(Graph *g, const char *name) {
  Tensor *t = tensor_new(g->ctx, name, DT_NONE, -1, NULL);
  map_set(&g->names, KEY(t->name), t);
  return t;
}

Tensor *graph_tensor(Graph *g, const char *name) {
  return register_tensor(g, graph_find(g, name) ? fresh_name(g, name) : name);
}

void graph_rename(Graph *g, Tensor *t, const char *name) {
  name = ctx_intern(g->ctx, name);
  Tensor *other = map_get(&g->names, KEY(name));
  if (other == t) return;
  if (map_get(&g->names, KEY(t->name)) == t) map_set(&g->names, KEY(t->name), NULL);
  if (other) {
    other->name = fresh_name(g, name);
    map_set(&g->names, KEY(other->name), other);
  }
  t->name = name;
  map_set(&g->names, KEY(name), t);
}

Tensor *graph_const(Graph *g, const char *name, DType type, const int64_t *dims, int rank, const void *bytes) {
  Tensor *t = graph_tensor(g, name);
  t->dtype = type;
  t->rank = rank;
  t->shape = NEW_ARRAY(g->ctx, Expr *, rank ? rank : 1);
  for (int i = 0; i < rank; i++) t->shape[i] = ex_int(g->ctx, dims[i]);
  t->data = NEW(g->ctx, ConstData);
  t->data->bytes = bytes;
  t->scope = SCOPE_CONST;
  return t;
}

Sym *graph_dim(Graph *g, const char *name) {
  while (g->parent) g = g->parent;
  for (int i = 0; i < g->dims.n; i++)
    if (!strcmp(g->dims.v[i]->name, name)) return g->dims.v[i];
  Sym *s = sym_new(g->ctx, SYM_DIM, name, 1, DIM_MAX);
  s->name = ctx_intern(g->ctx, name);          /* the model's, even where a loop has the name already */
  vec_push(g->ctx, &g->dims, s);
  return s;
}

static Node *node_new(Graph *g, const Op *op, const char *name, Tensor *const *in, int nin, int nout) {
  Ctx *c = g->ctx;
  Node *n = NEW(c, Node);
  n->op = op;
  n->name = ctx_intern(c, name ? name : "");
  n->index = -1;
  n->graph = g;
  n->nin = nin;
  n->nout = nout;
  n->in = NEW_ARRAY(c, Tensor *, nin + 1);
  n->out = NEW_ARRAY(c, Tensor *, nout + 1);
  n->attrs = NEW_ARRAY(c, Attr, op->nattr + 1);
  for (int i = 0; i < nin; i++) {
    n->in[i] = in[i];
    if (in[i]) vec_push(c, &in[i]->users, n);
  }
  for (int i = 0; i < nout; i++) {
    n->out[i] = register_tensor(g, fresh_name(g, op->name));
    n->out[i]->def = n;
    n->out[i]->def_index = i;
  }
  for (int i = 0; i < op->nattr; i++) {
    n->attrs[i] = op->attr[i].dflt;
    n->attrs[i].name = op->attr[i].name;
  }
  return n;
}

Node *graph_node(Graph *g, const Op *op, const char *name, Tensor *const *in, int nin, int nout) {
  Node *n = node_new(g, op, name, in, nin, nout);
  vec_push(g->ctx, &g->nodes, n);
  return n;
}

static int node_position(const Graph *g, const Node *n) {
  for (int i = 0; i < g->nodes.n; i++)
    if (g->nodes.v[i] == n) return i;
  diag_bug(g->ctx, "node '%s' (%s) does not stand in graph '%s'", n->name, n->op->name, g->name);
}

Node *graph_node_before(Graph *g, Node *at, const Op *op, const char *name, Tensor *const *in, int nin, int nout) {
  int i = node_position(g, at);
  Node *n = graph_node(g, op, name, in, nin, nout);
  memmove(g->nodes.v + i + 1, g->nodes.v + i, sizeof(Node *) * (size_t)(g->nodes.n - 1 - i));
  g->nodes.v[i] = n;
  return n;
}

/* ---- inner graphs ---- */

bool graph_contains(const Graph *g, const Graph *inner) {
  while (inner && inner != g) inner = inner->parent;
  return inner != NULL;
}

bool graph_returns(const Graph *g, const Tensor *t) {
  for (int i = 0; i < g->outputs.n; i++)
    if (g->outputs.v[i] == t) return true;
  for (int i = 0; i < g->inner.n; i++)
    if (graph_returns(g->inner.v[i], t)) return true;
  return false;
}

/* The graph among g and its parents whose name finds t; NULL if none does. */
static const Graph *home_of(const Graph *g, const Tensor *t) {
  while (g && map_get(&g->names, KEY(t->name)) != t) g = g->parent;
  return g;
}

typedef struct { Ctx *c; const Graph *outside; Map seen; VEC(Tensor *) list; } Captures;

static void capture(Captures *k, const Graph *in, Tensor *t) {
  if (!t || map_get(&k->seen, KEY(t))) return;
  map_set(&k->seen, KEY(t), t);
  const Graph *home = home_of(in, t);
  if (!home || graph_contains(home, k->outside)) vec_push(k->c, &k->list, t);
}

static void capture_graph(Captures *k, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.v[i];
    for (int j = 0; j < n->nin; j++) capture(k, g, n->in[j]);
    for (int j = 0; j < n->op->nattr; j++)
      if (n->attrs[j].kind == ATTR_GRAPH) capture_graph(k, n->attrs[j].graph);
  }
  for (int i = 0; i < g->outputs.n; i++) capture(k, g, g->outputs.v[i]);
}

int node_captures(Ctx *c, const Node *n, Tensor ***list) {
  Captures k = { .c = c, .outside = n->graph };
  for (int i = 0; i < n->op->nattr; i++)
    if (n->attrs[i].kind == ATTR_GRAPH) {
      if (!k.seen.ctx) k.seen = map_new(c);
      capture_graph(&k, n->attrs[i].graph);
    }
  *list = k.list.v;
  return k.list.n;
}

/* ---- the mutators ---- */

static void drop_user(Tensor *t, const Node *n) {
  for (int i = 0; i < t->users.n; i++)
    if (t->users.v[i] == n) {
      memmove(t->users.v + i, t->users.v + i + 1, sizeof(Node *) * (size_t)(t->users.n - 1 - i));
      t->users.n--;
      return;
    }
}

void node_set_input(Node *n, int i, Tensor *t) {
  if (i < 0 || i >= n->nin) diag_bug(n->graph->ctx, "node '%s' (%s) has no input %d", n->name, n->op->name, i);
  if (n->in[i] == t) return;
  if (n->in[i]) drop_user(n->in[i], n);
  n->in[i] = t;
  if (t) vec_push(n->graph->ctx, &t->users, n);
}

static void replace_outputs(Graph *g, const Tensor *old, Tensor *by) {
  for (int i = 0; i < g->outputs.n; i++)
    if (g->outputs.v[i] == old) g->outputs.v[i] = by;
  for (int i = 0; i < g->inner.n; i++) replace_outputs(g->inner.v[i], old, by);
}

void tensor_replace(Graph *g, Tensor *old, Tensor *by) {
  if (old == by) return;
  for (int i = 0; i < old->users.n; i++) {
    Node *n = old->users.v[i];
    for (int j = 0; j < n->nin; j++)
      if (n->in[j] == old) {
        n->in[j] = by;
        vec_push(g->ctx, &by->users, n);
      }
  }
  old->users.n = 0;
  replace_outputs(g, old, by);
}

/* The inner graphs of a node that goes: their nodes use nothing any more. */
static void drop_inner(Graph *g, const Graph *inner) {
  for (int i = 0; i < inner->nodes.n; i++) {
    Node *n = inner->nodes.v[i];
    for (int j = 0; j < n->nin; j++)
      if (n->in[j]) drop_user(n->in[j], n);
    for (int j = 0; j < n->op->nattr; j++)
      if (n->attrs[j].kind == ATTR_GRAPH) drop_inner(n->graph, n->attrs[j].graph);
    n->graph = NULL;
  }
  for (int i = 0; i < g->inner.n; i++)
    if (g->inner.v[i] == inner) {
      memmove(g->inner.v + i, g->inner.v + i + 1, sizeof(Graph *) * (size_t)(g->inner.n - 1 - i));
      g->inner.n--;
      return;
    }
}

void node_erase(Graph *g, Node *n) {
  int at = node_position(g, n);
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    if (!t) continue;
    if (t->users.n || graph_returns(g, t))
      diag_bug(g->ctx, "node '%s' (%s) is erased, but '%s' is in use", n->name, n->op->name, t->name);
    t->def = NULL;
    if (map_get(&g->names, KEY(t->name)) == t) map_set(&g->names, KEY(t->name), NULL);
  }
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]) drop_user(n->in[i], n);
  for (int i = 0; i < n->op->nattr; i++)
    if (n->attrs[i].kind == ATTR_GRAPH) drop_inner(g, n->attrs[i].graph);
  memmove(g->nodes.v + at, g->nodes.v + at + 1, sizeof(Node *) * (size_t)(g->nodes.n - 1 - at));
  g->nodes.n--;
  n->graph = NULL;
}

/* ---- sorting: depth first over what each node needs, in the order it needs it, with a stack of our own ---- */

enum { NEW_NODE, OPEN_NODE, DONE_NODE };
typedef struct { Node *node; Tensor **captures; int ncaptures, next, state; } Visit;

static Tensor *visit_next(Visit *v) {
  int i = v->next++;
  if (i < v->node->nin) return v->node->in[i];
  return v->captures[i - v->node->nin];
}

static void fail_cycle(Graph *g, Visit **stack, int n, const Visit *again) {
  int from = 0;
  while (stack[from] != again) from++;
  Str s = str_new(g->ctx);
  for (int i = n - 1; i >= from; i--) {        /* the order in which values would flow */
    if (n - 1 - i == 8) {
      str_add(&s, " -> ... (%d nodes)", n - from);
      break;
    }
    const Node *node = stack[i]->node;
    str_add(&s, "%s'%s' (%s)", i == n - 1 ? "" : " -> ", diag_quote(g->ctx, node->name), node->op->name);
  }
  diag_fail(g->ctx, E0307, again->node, NULL, "nodes need each other's results: %s", s.s);
}

void graph_sort(Graph *g) {
  Ctx *c = g->ctx;
  int n = g->nodes.n, sorted = 0, depth = 0;
  Visit *visits = NEW_ARRAY(c, Visit, n + 1), **stack = NEW_ARRAY(c, Visit *, n + 1);
  Node **order = NEW_ARRAY(c, Node *, n + 1);
  Map of = map_new(c);
  for (int i = 0; i < n; i++) {
    visits[i].node = g->nodes.v[i];
    visits[i].ncaptures = node_captures(c, g->nodes.v[i], &visits[i].captures);
    map_set(&of, KEY(g->nodes.v[i]), &visits[i]);
  }
  for (int i = 0; i < n; i++) {
    if (visits[i].state == NEW_NODE) stack[depth++] = &visits[i];
    while (depth) {
      Visit *v = stack[depth - 1];
      v->state = OPEN_NODE;
      if (v->next < v->node->nin + v->ncaptures) {
        Tensor *t = visit_next(v);
        Visit *need = t && t->def ? map_get(&of, KEY(t->def)) : NULL;
        if (need && need->state == OPEN_NODE) fail_cycle(g, stack, depth, need);
        if (need && need->state == NEW_NODE) stack[depth++] = need;
      } else {
        v->state = DONE_NODE;
        order[sorted++] = v->node;
        depth--;
      }
    }
  }
  if (n) memcpy(g->nodes.v, order, sizeof(Node *) * (size_t)n);
  for (int i = 0; i < g->inner.n; i++) graph_sort(g->inner.v[i]);
}

/* ---- tensors ---- */

bool tensor_dims(const Tensor *t, int64_t *dims) {
  if (t->rank < 0) return false;
  for (int i = 0; i < t->rank; i++)
    if (!ex_is_int(t->shape[i], &dims[i])) return false;
  return true;
}

static bool element_count(const Tensor *t, int64_t *n) {
  int64_t dims[MAX_RANK];
  *n = 1;
  if (!tensor_dims(t, dims)) return false;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(*n, dims[i], n)) return false;
  return true;
}

bool tensor_is_scalar_const(const Tensor *t, double *v) {
  int64_t n;
  if (!t->data || !element_count(t, &n) || n < 1 || (n > 1 && !t->data->splat)) return false;
  if (v) *v = tensor_const_float(t, 0);
  return true;
}

Expr *tensor_elements(Ctx *c, const Tensor *t) {
  Expr *e = ex_int(c, 1);
  for (int i = 0; i < t->rank; i++) e = ex_mul(c, e, t->shape[i]);
  return e;
}

static const char *element_at(const Tensor *t, int64_t i) {
  return (const char *)t->data->bytes + (t->data->splat ? 0 : i * dtype_bytes(t->dtype));
}

int64_t tensor_const_int(const Tensor *t, int64_t i) { return dtype_load_i(t->dtype, element_at(t, i)); }

double tensor_const_float(const Tensor *t, int64_t i) { return dtype_load_f(t->dtype, element_at(t, i)); }

const char *tensor_type_text(Ctx *c, const Tensor *t) {
  Str s = str_new(c);
  str_add(&s, "%s[", t->dtype == DT_NONE ? "?" : dtype_info[t->dtype].name);
  if (t->rank < 0) str_add(&s, "?");
  for (int i = 0; i < t->rank; i++) str_add(&s, "%s%s", i ? "," : "", expr_text(c, t->shape[i]));
  str_add(&s, "]");
  return s.s;
}
