/* verify.c - the invariants of both IRs. What fails here is a bug of dlc: the importer and the parsers report a user's
 * mistakes before. Nothing is trusted that can be recomputed.
 */
#include <stdlib.h>

#include "graph.h"
#include "op.h"
#include "stmt.h"

/* ---- graphs: one walk over the whole tree of graphs, in the order in which values come to be ---- */

typedef VEC(Node *) NodeList;
typedef struct {
  Ctx *c;
  Map made;                        /* Tensor* -> NodeList* of its uses as recomputed, once it is made */
  VEC(Tensor *) all;
} GraphCheck;

static const char *node_name(Ctx *c, const Node *n) { return ctx_printf(c, "'%s' (%s)", n->name, n->op->name); }

static void check_layout(Ctx *c, const Tensor *t) {
  const Layout *l = t->layout;
  for (int i = 0; l && i < l->n; i++)
    if (t->rank < 0 || l->part[i].dim < 0 || l->part[i].dim >= t->rank || l->part[i].div < 1 || l->part[i].mod < 0 || l->part[i].pad < 0)
      diag_bug(c, "tensor '%s' %s has the layout '%s'", t->name, tensor_type_text(c, t), layout_text(c, l));
}

static void check_tensor(Ctx *c, const Tensor *t) {
  int64_t dims[MAX_RANK];
  if (t->rank > MAX_RANK || (t->rank >= 0 && !t->shape))
    diag_bug(c, "tensor '%s' has rank %d without a shape", t->name, t->rank);
  for (int i = 0; i < t->rank; i++)
    if (!t->shape[i] || t->shape[i]->dtype != DT_I64)
      diag_bug(c, "tensor '%s': dimension %d is not an i64 expression", t->name, i);
  if (t->data && (t->dtype == DT_NONE || !tensor_dims(t, dims)))
    diag_bug(c, "constant '%s' has the type %s", t->name, tensor_type_text(c, t));
  if (t->data && t->def) diag_bug(c, "constant '%s' is made by node %s", t->name, node_name(c, t->def));
  if (t->nknown && !t->known) diag_bug(c, "tensor '%s' lacks its %d known elements", t->name, t->nknown);
  check_layout(c, t);
}

static NodeList *make(GraphCheck *k, Graph *g, Tensor *t) {
  if (map_get(&k->made, KEY(t))) diag_bug(k->c, "tensor '%s' is made twice", t->name);
  if (map_get(&g->names, KEY(t->name)) != t)
    diag_bug(k->c, "tensor '%s' is not found by its name in graph '%s'", t->name, g->name);
  check_tensor(k->c, t);
  NodeList *uses = ctx_alloc(k->c, sizeof *uses);
  map_set(&k->made, KEY(t), uses);
  vec_push(k->c, &k->all, t);
  return uses;
}

/* t is used in g: it was made before, or it is a constant that stands in g or around it. */
static NodeList *use(GraphCheck *k, Graph *g, Tensor *t, const char *by) {
  if (graph_find(g, t->name) != t)
    diag_bug(k->c, "%s uses '%s', which its name does not find from graph '%s'", by, t->name, g->name);
  NodeList *uses = map_get(&k->made, KEY(t));
  if (uses) return uses;
  if (!t->data) diag_bug(k->c, "%s uses '%s' before it is made", by, t->name);
  Graph *home = g;
  while (map_get(&home->names, KEY(t->name)) != t) home = home->parent;
  return make(k, home, t);
}

static void check_arity(Ctx *c, const Node *n) {
  const Op *op = n->op;
  bool more_in = op->nin && op->in[op->nin - 1].variadic, more_out = op->nout && op->out[op->nout - 1].variadic;
  if (n->nin < op->nin_min || (n->nin > op->nin && !more_in))
    diag_bug(c, "node %s has %d inputs", node_name(c, n), n->nin);
  if (n->nout > op->nout && !more_out) diag_bug(c, "node %s has %d outputs", node_name(c, n), n->nout);
  for (int i = 0; i < n->nin && i < op->nin; i++)
    if (!n->in[i] && !op->in[i].optional && !op->in[i].variadic)
      diag_bug(c, "node %s lacks input '%s'", node_name(c, n), op->in[i].name);
}

static void check_graph(GraphCheck *k, Graph *g);

static void check_attrs(GraphCheck *k, const Node *n) {
  for (int i = 0; i < n->op->nattr; i++) {
    const OpAttr *row = &n->op->attr[i];
    const Attr *a = &n->attrs[i];
    if (!a->name || strcmp(a->name, row->name) || (a->kind != row->kind && (a->kind != ATTR_NONE || row->required)))
      diag_bug(k->c, "node %s: attribute '%s' does not fit its row", node_name(k->c, n), row->name);
    if (a->kind == ATTR_TENSOR) check_tensor(k->c, a->tensor);
    if (a->kind != ATTR_GRAPH) continue;
    if (a->graph->parent != n->graph)
      diag_bug(k->c, "node %s: the graph '%s' hangs elsewhere", node_name(k->c, n), row->name);
    check_graph(k, a->graph);
  }
}

static void check_node(GraphCheck *k, Graph *g, Node *n) {
  if (n->graph != g) diag_bug(k->c, "node %s stands in graph '%s' but belongs to another", node_name(k->c, n), g->name);
  check_arity(k->c, n);
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]) {
      NodeList *uses = use(k, g, n->in[i], node_name(k->c, n));
      vec_push(k->c, uses, n);
    }
  check_attrs(k, n);
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    if (!t) continue;
    if (t->def != n || t->def_index != i)
      diag_bug(k->c, "tensor '%s' does not know that node %s makes it", t->name, node_name(k->c, n));
    make(k, g, t);
  }
}

static void check_graph(GraphCheck *k, Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) {
    const Tensor *t = g->inputs.v[i];
    if (t->def || t->data) diag_bug(k->c, "input '%s' of graph '%s' is made inside it", t->name, g->name);
    make(k, g, g->inputs.v[i]);
  }
  for (int i = 0; i < g->nodes.n; i++) check_node(k, g, g->nodes.v[i]);
  for (int i = 0; i < g->outputs.n; i++) use(k, g, g->outputs.v[i], "the graph's output list");
}

static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)*(Node *const *)a, y = (uintptr_t)*(Node *const *)b;
  return (x > y) - (x < y);
}

static void check_users(Ctx *c, const Tensor *t, const NodeList *uses) {
  size_t bytes = sizeof(Node *) * (size_t)uses->n;
  bool same = t->users.n == uses->n;
  if (same && bytes) {
    Node **a = ctx_copy(c, uses->v, bytes), **b = ctx_copy(c, t->users.v, bytes);
    qsort(a, (size_t)uses->n, sizeof *a, by_address);
    qsort(b, (size_t)uses->n, sizeof *b, by_address);
    same = !memcmp(a, b, bytes);
  }
  if (!same) diag_bug(c, "tensor '%s': its list names %d users, the nodes say %d", t->name, t->users.n, uses->n);
}

void graph_verify(Graph *g) {
  while (g->parent) g = g->parent;
  GraphCheck k = { .c = g->ctx, .made = map_new(g->ctx) };
  check_graph(&k, g);
  for (int i = 0; i < k.all.n; i++) check_users(g->ctx, k.all.v[i], map_get(&k.made, KEY(k.all.v[i])));
}

/* ---- kernels ---- */

typedef struct {
  Ctx *c;
  const Kernel *kernel;
  Map syms, tensors;               /* those in scope -> themselves */
} KernelCheck;

#define BAD(k, ...) diag_bug((k)->c, "kernel '%s': %s", (k)->kernel->name, ctx_printf((k)->c, __VA_ARGS__))

static void check_leaf(const Expr *e, void *user) {
  KernelCheck *k = user;
  if (e->op == EX_LOAD || e->op == EX_REDUCE) BAD(k, "a %s is left: %s", expr_info[e->op].text, expr_text(k->c, e));
  if (e->op == EX_SYM && !map_get(&k->syms, KEY(e->u.sym))) BAD(k, "the symbol '%s' is not bound", e->u.sym->name);
  if (e->op != EX_FETCH) return;
  if (!map_get(&k->tensors, KEY(e->u.tensor))) BAD(k, "'%s' is read out of its scope", e->u.tensor->name);
  if (e->a[0]->dtype != DT_I64 || e->dtype != e->u.tensor->dtype)
    BAD(k, "'%s' is read with wrong types", e->u.tensor->name);
}

static void check_expr(KernelCheck *k, const Expr *e, DType type, const char *what) {
  if (!e) BAD(k, "%s is missing", what);
  if (e->dtype != type)
    BAD(k, "%s is %s and not %s: %s", what, dtype_info[e->dtype].name, dtype_info[type].name, expr_text(k->c, e));
  expr_visit(e, check_leaf, k);
}

static void check_shape(KernelCheck *k, const Tensor *t) {
  if (t->dtype == DT_NONE || t->rank < 0) BAD(k, "the type of '%s' is not known", t->name);
  check_tensor(k->c, t);
  for (int i = 0; i < t->rank; i++) check_expr(k, t->shape[i], DT_I64, "a dimension");
}

static void check_stmt(KernelCheck *k, const Stmt *s);

static void check_for(KernelCheck *k, const Stmt *s) {
  int64_t extent;
  bool fixed = ex_is_int(s->extent, &extent);
  check_expr(k, s->extent, DT_I64, "a loop's extent");
  if (map_get(&k->syms, KEY(s->sym))) BAD(k, "the loop over '%s' stands inside another one", s->sym->name);
  if (s->kind == LOOP_UNROLL && !fixed) BAD(k, "the unrolled loop '%s' has no constant extent", s->sym->name);
  if (s->kind == LOOP_VECTOR && (s->lanes < 1 || (fixed && extent > s->lanes)))
    BAD(k, "the vector loop '%s' of %d lanes runs to %s", s->sym->name, s->lanes, expr_text(k->c, s->extent));
  map_set(&k->syms, KEY(s->sym), s->sym);
  check_stmt(k, s->body[0]);
  map_set(&k->syms, KEY(s->sym), NULL);
}

static void check_store(KernelCheck *k, const Stmt *s) {
  const Tensor *t = s->tensor;
  if (!map_get(&k->tensors, KEY(t))) BAD(k, "'%s' is written out of its scope", t->name);
  for (int i = 0; i < k->kernel->nparams; i++)
    if (k->kernel->params[i] == t && !k->kernel->writes[i]) BAD(k, "the input '%s' is written", t->name);
  check_expr(k, s->index, DT_I64, "a store's index");
  check_expr(k, s->value, t->dtype, "a store's value");
  if (s->combiner < -1 || s->combiner >= RED_COUNT)
    BAD(k, "the store to '%s' has no such combiner: %d", t->name, s->combiner);
}

static void check_prefetch(KernelCheck *k, const Stmt *s) {
  if (!map_get(&k->tensors, KEY(s->tensor))) BAD(k, "'%s' is prefetched out of its scope", s->tensor->name);
  check_expr(k, s->index, DT_I64, "a prefetch's index");
}

static void check_alloc(KernelCheck *k, const Stmt *s) {
  Tensor *t = s->tensor;
  if (map_get(&k->tensors, KEY(t))) BAD(k, "'%s' is allocated inside its own scope", t->name);
  if (t->scope != SCOPE_REG && t->scope != SCOPE_SCRATCH)
    BAD(k, "'%s' is allocated neither as reg nor as scratch", t->name);
  check_shape(k, t);
  if (t->scope == SCOPE_REG && !ex_is_int(layout_elements(k->c, t), NULL))
    BAD(k, "the size of the registers '%s' is not constant", t->name);
  map_set(&k->tensors, KEY(t), t);
  check_stmt(k, s->body[0]);
  map_set(&k->tensors, KEY(t), NULL);
}

static void check_stmt(KernelCheck *k, const Stmt *s) {
  if (!s) BAD(k, "a statement is missing");
  switch (s->op) {
  case ST_FOR: check_for(k, s); break;
  case ST_STORE: check_store(k, s); break;
  case ST_PREFETCH: check_prefetch(k, s); break;
  case ST_ALLOC: check_alloc(k, s); break;
  case ST_IF:
    check_expr(k, s->value, DT_BOOL, "a condition");
    check_stmt(k, s->body[0]);
    if (s->body[1]) check_stmt(k, s->body[1]);
    break;
  case ST_SEQ:
    for (int i = 0; i < s->n; i++) check_stmt(k, s->body[i]);
    break;
  case ST_CALL: BAD(k, "it calls kernel '%s'", s->kernel->name);
  case ST_BARRIER: break;
  }
}

void kernel_verify(Ctx *c, const Kernel *kernel) {
  KernelCheck k = { .c = c, .kernel = kernel, .syms = map_new(c), .tensors = map_new(c) };
  for (int i = 0; i < kernel->dims.n; i++) map_set(&k.syms, KEY(kernel->dims.v[i]), kernel->dims.v[i]);
  for (int i = 0; i < kernel->nparams; i++) {
    Tensor *t = kernel->params[i];
    if (map_get(&k.tensors, KEY(t))) BAD(&k, "the parameter '%s' stands twice", t->name);
    check_shape(&k, t);
    map_set(&k.tensors, KEY(t), t);
  }
  check_stmt(&k, kernel->body);
}
