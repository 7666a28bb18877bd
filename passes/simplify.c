/* simplify.c - pass_simplify: shapes inferred, constants folded, operators expanded, rules applied, equal nodes merged and unused ones
 * dropped, over and over until nothing changes.
 *
 * Sweeps in topological order look at nodes that are new or whose surroundings changed. A node that fails is reported once, and what
 * depends on it is skipped in silence, so that one run tells all that is wrong with a model. The model's outputs keep their names.
 */
#include "simplify.h"

#include "../ir/ctx.h"
#include "../ir/interp.h"
#include "concat.h"
#include "graph_rules.h"
#include "passes.h"
#include "storage.h"

enum { FOLD_TENSOR_BYTES = 64 << 20, FOLD_TOTAL_BYTES = 256 << 20, FOLD_GROWTH = 4, FOLD_SMALL = 1 << 20, CSE_CONST_BYTES = 4096 };
static const int64_t fold_steps = 200 * 1000 * 1000;        /* elements computed for one node: a second of interpreting ... */
static const int64_t native_steps = (int64_t)100 << 30;     /* ... or tens of seconds of native code */

typedef struct {
  Ctx *c;
  Module *m;                       /* for folding by native code; NULL: there is only a graph */
  Interp *in;
  Map clean;                       /* Node* -> itself: nothing about it changed since it was looked at */
  Map failed;                      /* Node* -> itself */
  int64_t budget;                  /* bytes that folding may still make */
  int folded;
} Simplify;

typedef struct {
  Simplify *s;
  Graph *g;
  Map equal;                       /* hash -> Node*: those seen in this sweep */
  Map consts;                      /* hash -> Tensor*: small constants in use */
  bool changed;
} Sweep;

static void simplify_graph(Simplify *s, Graph *g);

/* ---- what has to be looked at again ---- */

/* The node that owns an inner graph. */
static Node *owner_of(const Graph *g) {
  for (int i = 0; g->parent && i < g->parent->nodes.n; i++) {
    Node *n = g->parent->nodes.v[i];
    for (int k = 0; n->op->cls == OPC_REGION && k < n->op->nattr; k++)
      if (n->attrs[k].kind == ATTR_GRAPH && n->attrs[k].graph == g) return n;
  }
  return NULL;
}

/* What touches a node touches the nodes it stands in. */
static void touch(Simplify *s, Node *n) {
  for (; n && n->graph && !map_get(&s->failed, KEY(n)); n = owner_of(n->graph)) map_set(&s->clean, KEY(n), NULL);
}

static void touch_users(Simplify *s, const Tensor *t) {
  for (int i = 0; i < t->users.n; i++) touch(s, t->users.v[i]);
}

/* What reads t, and what reads its results: rules look through one node. */
static void touch_reach(Simplify *s, const Tensor *t) {
  touch_users(s, t);
  for (int i = 0; i < t->users.n; i++)
    for (int k = 0; k < t->users.v[i]->nout; k++)
      if (t->users.v[i]->out[k]) touch_users(s, t->users.v[i]->out[k]);
}

static bool in_use(const Node *n, const Tensor *out) { return out->users.n || graph_returns(n->graph, out); }

static bool is_dead(const Node *n) {
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && in_use(n, n->out[i])) return false;
  return true;
}

static void erase(Simplify *s, Node *n) {
  Tensor **captured;
  int ncaptured = node_captures(s->c, n, &captured);
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]) {
      touch(s, n->in[i]->def);
      touch_users(s, n->in[i]);
    }
  for (int i = 0; i < ncaptured; i++) touch(s, captured[i]->def);
  node_erase(n->graph, n);
}

/* All that reads `old` reads `by` from now on. */
static void replace(Simplify *s, Tensor *old, Tensor *by) {
  touch(s, by->def);
  touch_users(s, by);
  touch_reach(s, old);
  tensor_replace(old->def->graph, old, by);
}

/* ---- constants ---- */

static int64_t bytes_of(const Tensor *t) {
  int64_t dims[MAX_RANK], n = dtype_bytes(t->dtype);
  if (!tensor_dims(t, dims)) return -1;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(n, dims[i], &n)) return -1;
  return n;
}

static Tensor *new_const(Graph *g, const Tensor *like, const void *bytes, bool splat) {
  int64_t dims[MAX_RANK];
  tensor_dims(like, dims);
  Tensor *t = graph_const(g, like->name, like->dtype, dims, like->rank, bytes);
  t->data->splat = splat;
  return t;
}

/* Constants of few bytes that are equal become one. */
static void share_consts(Sweep *w, Node *n) {
  for (int i = 0; i < n->nin; i++) {
    Tensor *t = n->in[i];
    int64_t size = t && t->data ? t->data->splat ? dtype_bytes(t->dtype) : bytes_of(t) : -1;
    if (size < 0 || size > CSE_CONST_BYTES) continue;
    uint64_t h = mix64((uint64_t)t->dtype << 8 | (uint64_t)t->rank << 1 | t->data->splat);
    for (int d = 0; d < t->rank; d++) h = mix64(h ^ t->shape[d]->id);
    for (int64_t k = 0; k < size; k++) h = mix64(h + ((const unsigned char *)t->data->bytes)[k]);
    Tensor *same = map_get(&w->consts, h);
    if (!same) map_set(&w->consts, h, t);
    else if (same != t && same->dtype == t->dtype && same->rank == t->rank && same->data->splat == t->data->splat &&
             !memcmp(same->shape, t->shape, sizeof(Expr *) * (size_t)t->rank) && !memcmp(same->data->bytes, t->data->bytes, (size_t)size))
      node_set_input(n, i, same);
  }
}

/* A tensor all of whose elements are known constants becomes one. */
static bool known_to_const(Simplify *s, Node *n, Tensor *t) {
  if (!t->known || bytes_of(t) != (int64_t)t->nknown * dtype_bytes(t->dtype)) return false;
  for (int i = 0; i < t->nknown; i++)
    if (!t->known[i] || !ex_is_const(t->known[i])) return false;
  int each = dtype_bytes(t->dtype);
  char *bytes = ctx_alloc(s->c, (size_t)(t->nknown * each + 1));
  for (int i = 0; i < t->nknown; i++) dtype_store_i(t->dtype, bytes + i * each, t->known[i]->u.i);
  replace(s, t, new_const(n->graph, t, bytes, false));
  return true;
}

/* ---- folding ---- */

typedef struct { Map splats; Ctx *c; } SplatEnv;           /* Tensor* -> constant Expr* */

static Expr *splat_load(Ctx *c, Expr *e, void *user) {
  SplatEnv *k = user;
  if (e->op != EX_LOAD) return e;
  Expr *known = map_get(&k->splats, KEY(e->u.tensor));
  if (known) return known;
  const Tensor *t = e->u.tensor;
  if (!t->data || !tensor_is_scalar_const(t, NULL)) return e;
  return dtype_is_float(t->dtype) ? ex_const(c, t->dtype, tensor_const_float(t, 0)) : ex_const_i(c, t->dtype, tensor_const_int(t, 0));
}

/* All stages give one value everywhere: the outputs become splats. */
static bool fold_splats(Simplify *s, Node *n, const OpCtx *oc) {
  SplatEnv k = { map_new(s->c), s->c };
  for (int i = 0; i < oc->stages.n; i++) {
    Stage *st = oc->stages.v[i];
    Expr *body = expr_map(s->c, st->body, splat_load, &k);
    if (!ex_is_const(body)) return false;
    map_set(&k.splats, KEY(st->out), body);
  }
  for (int i = 0; i < n->nout; i++) {
    const Expr *e = n->out[i] ? map_get(&k.splats, KEY(n->out[i])) : NULL;
    if (!e) continue;
    char *bytes = ctx_alloc(s->c, 16);
    if (dtype_is_float(e->dtype)) dtype_store_f(e->dtype, bytes, e->u.f);
    else dtype_store_i(e->dtype, bytes, e->u.i);
    replace(s, n->out[i], new_const(n->graph, n->out[i], bytes, true));
  }
  return true;
}

typedef struct { int64_t steps; } Cost;

static void reduce_cost(const Expr *e, void *user) {
  Cost *k = user;
  for (int i = 1; e->op == EX_REDUCE && i < e->n; i++) {
    int64_t extent;
    const Sym *axis = e->a[i]->u.sym;
    if (!axis->extent || !ex_is_int(axis->extent, &extent) || !mul_ok(k->steps, MAX(extent, 1), &k->steps)) k->steps = INT64_MAX / 2;
  }
}

/* Worth computing now: within the budget, not much larger than what it comes from, done in seconds. */
static bool worth_folding(Simplify *s, const Node *n, const OpCtx *oc, bool *native) {
  int64_t in = 0, out = 0, steps = 0;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]) in += n->in[i]->data->splat ? dtype_bytes(n->in[i]->dtype) : bytes_of(n->in[i]);
  for (int i = 0; i < oc->stages.n; i++) {
    int64_t size = bytes_of(oc->stages.v[i]->out);
    Cost k = { size };
    if (size < 0 || size > FOLD_TENSOR_BYTES) return false;
    expr_visit(oc->stages.v[i]->body, reduce_cost, &k);
    out += size;
    if (!add_ok(steps, k.steps, &steps)) return false;
  }
  if (out > FOLD_SMALL && out > FOLD_GROWTH * in) return false;
  *native = s->m && s->m->host && steps > fold_steps;
  return out <= s->budget && steps <= (*native ? native_steps : fold_steps);
}

/* The same by native code: false if a size is not known after all. */
static bool fold_natively(Simplify *s, Node *n, const OpCtx *oc) {
  void **out = NEW_ARRAY(s->c, void *, oc->stages.n + 1);
  for (int i = 0; i < oc->stages.n; i++) out[i] = ctx_alloc(s->c, (size_t)bytes_of(oc->stages.v[i]->out) + 64);
  if (!storage_compute(s->m, oc->stages.v, oc->stages.n, out)) return false;
  for (int i = 0; i < oc->stages.n; i++)
    for (int k = 0; k < n->nout; k++)
      if (n->out[k] == oc->stages.v[i]->out) replace(s, n->out[k], new_const(n->graph, n->out[k], out[i], false));
  return true;
}

static void put_down(Simplify *s, const Tensor *t) {
  if (!t) return;
  interp_drop(s->in, t);
  if (!t->data->splat) ctx_release(s->c, t->data->bytes, (size_t)bytes_of(t));
}

static bool fold_interpreted(Simplify *s, Node *n) {
  if (!interp_node(s->in, n)) return false;
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    if (!t) continue;
    int64_t size = bytes_of(t);
    const Value *v = interp_get(s->in, t);
    const void *bytes = v->buffer ? ctx_copy(s->c, v->data, (size_t)(v->splat ? dtype_bytes(t->dtype) : size)) : v->data;
    Tensor *folded = new_const(n->graph, t, bytes, v->splat);
    s->budget -= v->splat ? 0 : size;
    interp_drop(s->in, t);
    replace(s, t, folded);
  }
  return true;
}

/* A constant under another shape: the same bytes. */
static bool fold_view(Simplify *s, Node *n) {
  static const char *const views[] = { "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity" };
  bool view = false;
  for (int i = 0; i < COUNT(views); i++) view |= !strcmp(n->op->name, views[i]);
  if (!view || n->in[0]->data->stage) return false;
  replace(s, n->out[0], new_const(n->graph, n->out[0], n->in[0]->data->bytes, n->in[0]->data->splat));
  s->folded++;
  return true;
}

static bool fold(Simplify *s, Node *n) {
  OpCtx oc = { .c = s->c, .node = n };
  if (n->op->cls == OPC_REGION || n->op->cls == OPC_TIR || n->op->cls == OPC_HOST || n->op->cls == OPC_EXPAND) return false;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i] && !n->in[i]->data) return false;
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && bytes_of(n->out[i]) < 0) return false;
  if (fold_view(s, n)) return true;
  if (!op_compute(s->c, n, &oc)) return false;
  if (!fold_splats(s, n, &oc)) {
    bool native;
    if (!worth_folding(s, n, &oc, &native) || !(native ? fold_natively(s, n, &oc) : fold_interpreted(s, n))) return false;
    for (int i = 0; i < n->nin; i++) put_down(s, n->in[i]);
  }
  s->folded++;
  return true;
}

/* ---- If with a known condition ---- */

/* Copies the nodes of `inner` in front of n; its tensors become tensors of n's graph. */
static void inline_graph(Simplify *s, Node *n, Graph *inner) {
  Ctx *c = s->c;
  Graph *g = n->graph;
  for (int i = 0; i < inner->nodes.n; i++) {
    Node *from = inner->nodes.v[i];
    Node *to = graph_node_before(g, n, from->op, from->name, from->in, from->nin, from->nout);
    to->index = from->index;
    memcpy(to->attrs, from->attrs, sizeof(Attr) * (size_t)from->op->nattr);
    for (int k = 0; k < from->op->nattr; k++) {
      Graph *body = from->attrs[k].kind == ATTR_GRAPH ? from->attrs[k].graph : NULL;
      if (!body) continue;
      body->parent = g;
      vec_push(c, &g->inner, body);
      for (int j = 0; j < inner->inner.n; j++)
        if (inner->inner.v[j] == body) {
          memmove(inner->inner.v + j, inner->inner.v + j + 1, sizeof(Graph *) * (size_t)(inner->inner.n - 1 - j));
          inner->inner.n--;
        }
      from->attrs[k].kind = ATTR_NONE;   /* the body has gone with the copy */
    }
    for (int k = 0; k < from->nout; k++) {
      Tensor *out = from->out[k];
      if (!out) {
        to->out[k] = NULL;
        continue;
      }
      to->out[k]->dtype = out->dtype;
      to->out[k]->rank = out->rank;
      to->out[k]->shape = out->shape;
      to->out[k]->known = out->known;
      to->out[k]->nknown = out->nknown;
      tensor_replace(g, out, to->out[k]);
    }
  }
}

/* Constants that stand in the inner graph get a place in g. */
static void adopt_consts(Graph *g, Graph *inner) {
  for (int i = 0; i < inner->names.entries.n; i++) {
    Tensor *t = inner->names.entries.v[i].value;
    if (!t || !t->data) continue;
    Tensor *own = graph_tensor(g, t->name);
    own->dtype = t->dtype;
    own->rank = t->rank;
    own->shape = t->shape;
    own->data = t->data;
    own->known = t->known;
    own->nknown = t->nknown;
    own->scope = t->scope;
    tensor_replace(inner, t, own);
  }
}

static bool inline_if(Simplify *s, Node *n) {
  if (n->op->cls != OPC_REGION || *n->op->domain || strcmp(n->op->name, "If") || !n->in[0]->data) return false;
  Graph *inner = op_attr(n, tensor_const_int(n->in[0], 0) ? "then_branch" : "else_branch")->graph;
  adopt_consts(n->graph, inner);
  for (int i = 0; i < inner->assumed.n; i++) vec_push(s->c, &n->graph->assumed, inner->assumed.v[i]);
  inline_graph(s, n, inner);
  for (int i = 0; i < n->nout; i++)
    if (n->out[i]) replace(s, n->out[i], inner->outputs.v[i]);
  erase(s, n);
  return true;
}

/* ---- equal nodes ---- */

static bool attr_equal(const Attr *a, const Attr *b) {
  if (a->kind != b->kind) return false;
  switch (a->kind) {
  case ATTR_NONE: return true;
  case ATTR_INT: return a->i == b->i;
  case ATTR_FLOAT: return !memcmp(&a->f, &b->f, sizeof a->f);
  case ATTR_STRING: return !strcmp(a->s, b->s);
  case ATTR_INTS: return a->n == b->n && !memcmp(a->ints, b->ints, sizeof(*a->ints) * (size_t)a->n);
  case ATTR_FLOATS: return a->n == b->n && !memcmp(a->floats, b->floats, sizeof(*a->floats) * (size_t)a->n);
  case ATTR_TENSOR: return a->tensor == b->tensor;
  default: return false;
  }
}

static bool node_equal(const Node *a, const Node *b) {
  if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || a->graph != b->graph) return false;
  for (int i = 0; i < a->nin; i++)
    if (a->in[i] != b->in[i]) return false;
  for (int i = 0; i < a->op->nattr; i++)
    if (!attr_equal(&a->attrs[i], &b->attrs[i])) return false;
  for (int i = 0; i < b->nout; i++)
    if (b->out[i] && !a->out[i]) return false;
  return true;
}

static uint64_t node_hash(const Node *n) {
  uint64_t h = mix64(KEY(n->op));
  for (int i = 0; i < n->nin; i++) h = mix64(h ^ KEY(n->in[i])) + (uint64_t)i;
  for (int i = 0; i < n->op->nattr; i++) {
    const Attr *a = &n->attrs[i];
    h = mix64(h ^ (uint64_t)a->kind ^ (a->kind == ATTR_INT ? (uint64_t)a->i : 0));
    for (int k = 0; a->kind == ATTR_INTS && k < a->n; k++) h = mix64(h ^ (uint64_t)a->ints[k]);
  }
  return h;
}

/* Two draws of random numbers are not equal. */
static bool draws(const Node *n) { return !strncmp(n->op->name, "Random", 6) || !strcmp(n->op->name, "Bernoulli") || !strcmp(n->op->name, "Multinomial"); }

/* Merges n with an equal node in front of it; the first one is kept. */
static bool merge_equal(Sweep *w, Node *n) {
  if (n->op->cls == OPC_REGION || draws(n)) return false;
  uint64_t h = node_hash(n);
  Node *first = map_get(&w->equal, h);
  if (!first || first->graph != w->g || !node_equal(first, n)) {
    map_set(&w->equal, h, n);
    return false;
  }
  if (first == n) return false;
  for (int i = 0; i < n->nout; i++)
    if (n->out[i]) replace(w->s, n->out[i], first->out[i]);
  return true;
}

/* ---- one node ---- */

typedef enum { READY, LATER, NEVER } Inputs;

/* Whether the types of what n reads are known: now, after the node that makes it is looked at, or never, since that node failed. */
static Inputs inputs_state(Simplify *s, const Node *n) {
  Inputs state = READY;
  Tensor **captured;
  int ncaptured = node_captures(s->c, n, &captured);
  for (int i = 0; i < n->nin + ncaptured; i++) {
    const Tensor *t = i < n->nin ? n->in[i] : captured[i - n->nin];
    if (t && t->def && map_get(&s->failed, KEY(t->def))) return NEVER;
    if (t && (t->rank < 0 || t->dtype == DT_NONE)) state = t->def ? LATER : NEVER;
  }
  return state;
}

static bool fail(Simplify *s, Node *n) {
  map_set(&s->failed, KEY(n), n);
  map_set(&s->clean, KEY(n), n);
  return true;
}

typedef struct { int rank; Expr **shape, **known; int nknown; DType dtype; } Seen;

static Seen seen(const Tensor *t) { return (Seen){ t->rank, t->shape, t->known, t->nknown, t->dtype }; }

static bool same_exprs(Expr *const *a, Expr *const *b, int n) {
  for (int i = 0; i < n; i++)
    if (a[i] != b[i]) return false;
  return true;
}

static bool same_seen(const Seen *a, const Tensor *t) {
  return a->dtype == t->dtype && a->rank == t->rank && (a->rank < 0 || same_exprs(a->shape, t->shape, t->rank)) && !a->known == !t->known &&
         (!t->known || (a->nknown == t->nknown && same_exprs(a->known, t->known, t->nknown)));
}

/* Infers n's outputs; what reads them is looked at again if they changed. */
static bool infer(Simplify *s, Node *n) {
  Seen *before = NEW_ARRAY(s->c, Seen, n->nout + 1);
  for (int i = 0; i < n->nout; i++)
    if (n->out[i]) before[i] = seen(n->out[i]);
  if (!op_infer(s->c, n)) return false;
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    if (t && (t->rank < 0 || t->dtype == DT_NONE)) diag_bug(s->c, "inference left '%s' without a type", t->name);
    if (t && !same_seen(&before[i], t)) touch_users(s, t);
  }
  return true;
}

static void simplify_inner(Simplify *s, Node *n) {
  for (int i = 0; i < n->op->nattr; i++)
    if (n->attrs[i].kind == ATTR_GRAPH) simplify_graph(s, n->attrs[i].graph);
}

static bool inner_failed(Simplify *s, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++)
    if (map_get(&s->failed, KEY(g->nodes.v[i]))) return true;
  for (int i = 0; i < g->inner.n; i++)
    if (inner_failed(s, g->inner.v[i])) return true;
  return false;
}

static bool any_inner_failed(Simplify *s, const Node *n) {
  for (int i = 0; i < n->op->nattr; i++)
    if (n->attrs[i].kind == ATTR_GRAPH && inner_failed(s, n->attrs[i].graph)) return true;
  return false;
}

static bool apply_rules(Simplify *s, Node *n) {
  Tensor *by = graph_rules_apply(s->c, n, NULL);
  if (!by) return false;
  replace(s, n->out[0], by);
  return true;
}

/* n, or all the readers of a concatenation among n's inputs, read its parts. */
static bool read_parts(Simplify *s, Node *n) {
  bool others;
  Node *concat = concat_of_parts(s->c, n, &others);
  for (Node *reader = n; concat && reader; reader = others && concat->out[0]->users.n ? concat->out[0]->users.v[0] : NULL) {
    for (int i = 0; i < reader->nout; i++)
      if (reader->out[i]) replace(s, reader->out[i], concat_reader(s->c, concat, reader, i));
    erase(s, reader);
  }
  return concat;
}

/* Looks at n once; true if the graph changed. */
static bool visit(Sweep *w, Node *n) {
  Simplify *s = w->s;
  ctx_diags(s->c)->node = n;
  if (is_dead(n)) return erase(s, n), true;
  Inputs ready = inputs_state(s, n);
  if (ready == LATER) return true;
  if (ready == NEVER) return fail(s, n);
  if (n->op->cls == OPC_EXPAND) return (infer(s, n) && op_expand(s->c, n)) || fail(s, n);
  map_set(&s->clean, KEY(n), n);
  share_consts(w, n);
  if (inline_if(s, n)) return true;
  if (!infer(s, n)) return fail(s, n);
  if (n->op->cls == OPC_REGION) {
    if (inline_if(s, n)) return true;            /* inference may have found the condition */
    simplify_inner(s, n);
    if (any_inner_failed(s, n)) return fail(s, n);
    if (!infer(s, n)) return fail(s, n);
  }
  bool changed = false;
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && in_use(n, n->out[i])) changed |= known_to_const(s, n, n->out[i]);
  changed = changed || fold(s, n) || apply_rules(s, n) || read_parts(s, n) || merge_equal(w, n);
  if (changed && n->graph && is_dead(n)) erase(s, n);
  return changed;
}

/* ---- the whole ---- */

/* Unused nodes go first, so that nothing in them is complained about. */
static void drop_dead(Simplify *s, Graph *g) {
  for (int i = g->nodes.n - 1; i >= 0; i--)
    if (is_dead(g->nodes.v[i])) erase(s, g->nodes.v[i]);
}

static bool sweep(Simplify *s, Graph *g) {
  Sweep w = { .s = s, .g = g, .equal = map_new(s->c), .consts = map_new(s->c) };
  int n = g->nodes.n;
  Node **list = ctx_copy(s->c, g->nodes.v, sizeof(Node *) * (size_t)n);
  bool again = false;
  for (int i = 0; i < n; i++) {
    if (list[i]->graph != g) continue;           /* erased meanwhile */
    if (!map_get(&s->clean, KEY(list[i]))) again |= visit(&w, list[i]);
    else if (list[i]->op->cls != OPC_REGION && !draws(list[i])) map_set(&w.equal, node_hash(list[i]), list[i]);
  }
  for (int i = 0; i < g->nodes.n && !again; i++) again = !map_get(&s->clean, KEY(g->nodes.v[i]));
  return again;
}

static void simplify_graph(Simplify *s, Graph *g) {
  drop_dead(s, g);
  while (sweep(s, g)) continue;
}

static bool is_input(const Graph *g, const Tensor *t) {
  for (int i = 0; i < g->inputs.n; i++)
    if (g->inputs.v[i] == t) return true;
  return false;
}

/* The outputs get the names back that the model gives them; a tensor that stands for two of them, or for an input, gets a copy. */
static void restore_names(Ctx *c, Graph *g, const char *const *names) {
  Map taken = map_new(c);
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < g->outputs.n; i++) {
      Tensor *t = g->outputs.v[i];
      bool kept = t->name == names[i];
      if (kept == (pass == 1)) continue;
      if (!kept && (map_get(&taken, KEY(t)) || is_input(g, t))) {
        Node *copy = graph_node(g, op_find(c, "", "Identity"), "", &t, 1, 1);
        op_infer(c, copy);
        g->outputs.v[i] = t = copy->out[0];
      }
      if (!kept) graph_rename(g, t, names[i]);
      map_set(&taken, KEY(t), t);
    }
}

/* Bytes of the constants that the graph's nodes read. */
static int64_t stored_bytes(Ctx *c, const Graph *g) {
  Map seen = map_new(c);
  int64_t sum = 0;
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.v[i]->nin; k++) {
      Tensor *t = g->nodes.v[i]->in[k];
      if (!t || !t->data || t->data->splat || map_get(&seen, KEY(t))) continue;
      map_set(&seen, KEY(t), t);
      sum += bytes_of(t);
    }
  return sum;
}

static int simplify(Ctx *c, Module *m, Graph *g) {
  const char **names = NEW_ARRAY(c, const char *, g->outputs.n + 1);
  for (int i = 0; i < g->outputs.n; i++) names[i] = g->outputs.v[i]->name;
  Simplify s = { .c = c, .m = m, .in = interp_new(c), .clean = map_new(c), .failed = map_new(c) };
  s.budget = FOLD_TOTAL_BYTES + stored_bytes(c, g);        /* as much again as what there is */
  simplify_graph(&s, g);
  ctx_diags(c)->node = NULL;
  interp_free(s.in);
  diag_check(c);
  restore_names(c, g, names);
  return s.folded;
}

int graph_simplify(Ctx *c, Graph *g) { return simplify(c, NULL, g); }

void pass_simplify(Module *m) { m->folded += simplify(m->c, m, m->graph); }
