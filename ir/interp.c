/* interp.c - runs graphs: nodes in order, their stages as tapes, regions by running inner graphs. */
#include "interp.h"

#include <stdlib.h>

struct Buffer { int refs; Buffer *next, *prev; _Alignas(64) char bytes[]; };

/* A node's stages and their tapes; the tapes hold for the sizes they were made with. */
typedef struct Program {
  OpCtx oc;
  bool pure;
  Tape **tapes;
  int64_t (*dims)[MAX_RANK];
} Program;

/* What a graph's nodes leave behind: after node i the tensors last[i] are not needed any more. */
typedef VEC(Tensor *) TensorVec;
typedef struct Plan { TensorVec *last; } Plan;

typedef struct { int64_t v; bool set; } DimValue;

struct Interp {
  TapeEnv env;
  Ctx *c;
  Map values;                      /* Tensor* -> Value*, data NULL once dropped */
  Map dims;                        /* Sym* -> DimValue* */
  Map programs;                    /* Node* -> Program* */
  Map plans;                       /* Graph* -> Plan* */
  Buffer *buffers;                 /* all of them */
  void *pool;
  size_t pool_bytes;
};

/* ---- memory ---- */

static Buffer *buffer_new(Interp *in, size_t bytes) {
  Buffer *b = aligned_alloc(64, (sizeof(Buffer) + bytes + 63) / 64 * 64);
  if (!b) diag_fail(in->c, E0601, NULL, NULL, "no memory for an array of %zu bytes", bytes);
  *b = (Buffer){ .refs = 1, .next = in->buffers };
  if (in->buffers) in->buffers->prev = b;
  in->buffers = b;
  return b;
}

static void buffer_drop(Interp *in, Buffer *b) {
  if (!b || --b->refs) return;
  if (b->prev) b->prev->next = b->next;
  else in->buffers = b->next;
  if (b->next) b->next->prev = b->prev;
  free(b);
}

static void release(void *interp) {
  Interp *in = interp;
  while (in->buffers) {
    Buffer *b = in->buffers;
    in->buffers = b->next;
    free(b);
  }
  free(in->pool);
  in->pool = NULL;
  in->pool_bytes = 0;
}

int64_t value_elements(const Value *v) {
  int64_t n = 1;
  for (int i = 0; i < v->rank; i++) n *= v->dims[i];
  return n;
}

static size_t value_bytes(const Interp *in, const Value *v) {
  int64_t n = dtype_bytes(v->dtype);
  for (int i = 0; i < v->rank; i++)
    if (!mul_ok(n, v->dims[i], &n)) diag_fail(in->c, E0308, in->env.node, NULL, "the size of an array overflows");
  return (size_t)n;
}

static void allocate(Interp *in, Value *v) {
  v->buffer = buffer_new(in, value_bytes(in, v));
  v->data = v->buffer->bytes;
  v->splat = false;
}

/* ---- values ---- */

static Value *place_of(Interp *in, const Tensor *t) {
  Value *v = map_get(&in->values, KEY(t));
  if (!v) map_set(&in->values, KEY(t), v = NEW(in->c, Value));
  return v;
}

void interp_drop(Interp *in, const Tensor *t) {
  Value *v = map_get(&in->values, KEY(t));
  if (!v) return;
  buffer_drop(in, v->buffer);
  v->buffer = NULL;
  v->data = NULL;
}

/* t becomes v, sharing v's memory. */
static void bind(Interp *in, const Tensor *t, const Value *v) {
  Value *to = place_of(in, t), copy = *v;
  if (copy.buffer) copy.buffer->refs++;
  buffer_drop(in, to->buffer);
  *to = copy;
}

void interp_set(Interp *in, const Tensor *t, const Value *v) {
  Value own = *v;
  own.buffer = NULL;
  bind(in, t, &own);
}

const Value *interp_get(Interp *in, const Tensor *t) {
  Value *v = map_get(&in->values, KEY(t));
  if (v && v->data) return v;
  if (!t->data) return NULL;
  v = place_of(in, t);
  *v = (Value){ .dtype = t->dtype, .rank = t->rank, .splat = t->data->splat, .data = t->data->bytes };
  if (!tensor_dims(t, v->dims)) diag_bug(in->c, "the constant '%s' has no constant size", t->name);
  if (!v->data) v->data = "";      /* without elements */
  return v;
}

void interp_clear(Interp *in) {
  for (int i = 0; i < in->values.entries.n; i++) {
    Value *v = in->values.entries.v[i].value;
    buffer_drop(in, v->buffer);
    v->buffer = NULL;
    v->data = NULL;
  }
  for (int i = 0; i < in->dims.entries.n; i++) ((DimValue *)in->dims.entries.v[i].value)->set = false;
}

/* ---- dimensions ---- */

void interp_set_dim(Interp *in, const Sym *s, int64_t v) {
  DimValue *d = map_get(&in->dims, KEY(s));
  if (!d) map_set(&in->dims, KEY(s), d = NEW(in->c, DimValue));
  *d = (DimValue){ v, true };
}

static int64_t env_dim(TapeEnv *env, const Sym *s) {
  Interp *in = (Interp *)env;
  const DimValue *d = map_get(&in->dims, KEY(s));
  if (!d || !d->set) diag_bug(in->c, "the dimension '%s' has no value", s->name);
  return d->v;
}

static const Value *env_array(TapeEnv *env, const Tensor *t) { return interp_get((Interp *)env, t); }

typedef struct { ExprEnv env; Interp *in; bool failed; } SizeEnv;

static Scalar size_sym(ExprEnv *env, const Sym *s) {
  SizeEnv *k = (SizeEnv *)env;
  const DimValue *d = map_get(&k->in->dims, KEY(s));
  if (!d || !d->set) k->failed = true;
  return (Scalar){ .i = k->failed ? 1 : d->v };
}

static Scalar size_load(ExprEnv *env, const Expr *e, const int64_t *index) {
  ((SizeEnv *)env)->failed = true;
  return (Scalar){ .i = 0 };
}

bool interp_size(Interp *in, const Expr *e, int64_t *v) {
  if (ex_is_int(e, v)) return true;
  SizeEnv k = { { size_sym, size_load }, in, false };
  *v = expr_eval(&k.env, e).i;
  return !k.failed;
}

/* The sizes of t's dimensions are those of v: symbols that stand alone get their values, all else must agree. -1 or the dimension
 * that does not. A result's own symbols (not the model's named dimensions) get new values each time. */
static int fit_dims(Interp *in, const Tensor *t, const Value *v, const Graph *results_of) {
  while (results_of && results_of->parent) results_of = results_of->parent;
  for (int i = 0; i < t->rank; i++) {
    const Expr *e = t->shape[i];
    if (e->op != EX_SYM) continue;
    const DimValue *d = map_get(&in->dims, KEY(e->u.sym));
    bool named = false;
    for (int k = 0; results_of && k < results_of->dims.n; k++) named |= results_of->dims.v[k] == e->u.sym;
    if (d && d->set && (named || !results_of)) continue;
    if (v->dims[i] < e->u.sym->min || v->dims[i] > e->u.sym->max) return i;
    interp_set_dim(in, e->u.sym, v->dims[i]);
  }
  for (int i = 0; i < t->rank; i++) {
    int64_t size;
    if (interp_size(in, t->shape[i], &size) && size != v->dims[i]) return i;
  }
  return -1;
}

static void bind_result(Interp *in, const Tensor *t, const Value *v, const Node *n) {
  if (v->dtype != t->dtype || v->rank != t->rank) diag_bug(in->c, "'%s' got a value of another type", t->name);
  int bad = fit_dims(in, t, v, n->graph);
  if (bad >= 0)
    diag_fail(in->c, E0505, n, NULL, "dimension %d of '%s' is %lld, which does not fit %s", bad, diag_quote(in->c, t->name),
              (long long)v->dims[bad], tensor_type_text(in->c, t));
  bind(in, t, v);
}

/* ---- nodes ---- */

static bool concrete(Interp *in, const Tensor *t, int64_t *dims) {
  if (t->rank < 0 || t->dtype == DT_NONE) return false;
  for (int i = 0; i < t->rank; i++)
    if (!interp_size(in, t->shape[i], &dims[i])) return false;
  return true;
}

static Program *program_of(Interp *in, Node *n) {
  Program *p = map_get(&in->programs, KEY(n));
  if (p) return p;
  p = NEW(in->c, Program);
  p->oc.c = in->c;
  p->oc.node = n;
  p->pure = op_compute(in->c, n, &p->oc);
  p->tapes = NEW_ARRAY(in->c, Tape *, p->oc.stages.n + 1);
  p->dims = ctx_alloc(in->c, sizeof(*p->dims) * (size_t)(p->oc.stages.n + 1));
  map_set(&in->programs, KEY(n), p);
  return p;
}

static void use_pool(Interp *in, size_t bytes) {
  if (bytes <= in->pool_bytes) return;
  free(in->pool);
  in->pool = aligned_alloc(64, bytes);
  in->pool_bytes = in->pool ? bytes : 0;
  if (!in->pool) diag_fail(in->c, E0601, NULL, NULL, "no memory for %zu bytes", bytes);
}

static bool run_stage(Interp *in, Program *p, int i) {
  const Stage *s = p->oc.stages.v[i];
  Value v = { .dtype = s->out->dtype, .rank = s->out->rank };
  if (!concrete(in, s->out, v.dims)) return false;
  size_t bytes = sizeof(int64_t) * (size_t)v.rank;
  if (!p->tapes[i] || memcmp(p->dims[i], v.dims, bytes)) {
    p->tapes[i] = tape_new(in->c, s, v.dims);
    memcpy(p->dims[i], v.dims, bytes);
  }
  allocate(in, &v);
  use_pool(in, tape_pool_bytes(p->tapes[i]));
  bind(in, s->out, &v);
  buffer_drop(in, v.buffer);
  tape_run(p->tapes[i], &in->env, in->pool, v.buffer->bytes);
  return true;
}

bool interp_stage(Interp *in, const Stage *st, void *to) {
  int64_t dims[MAX_RANK];
  if (!concrete(in, st->out, dims)) return false;
  Tape *t = tape_new(in->c, st, dims);
  use_pool(in, tape_pool_bytes(t));
  in->env.node = NULL;
  tape_run(t, &in->env, in->pool, to);
  return true;
}

/* A node that keeps the elements in their order shares its input's memory. */
static bool is_view(const Op *op) {
  static const char *const views[] = { "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity" };
  for (int i = 0; i < COUNT(views); i++)
    if (!*op->domain && !strcmp(op->name, views[i])) return true;
  return false;
}

static bool run_view(Interp *in, Node *n) {
  const Value *x = interp_get(in, n->in[0]);
  Value v = { .dtype = n->out[0]->dtype, .rank = n->out[0]->rank };
  if (!x || !concrete(in, n->out[0], v.dims) || value_elements(&v) != value_elements(x)) return false;
  v.data = x->data;
  v.buffer = x->buffer;
  v.splat = x->splat;
  bind(in, n->out[0], &v);
  return true;
}

bool interp_node(Interp *in, Node *n) {
  in->env.node = n;
  ctx_diags(in->c)->node = n;
  if (is_view(n->op) && n->out[0] && run_view(in, n)) return true;
  Program *p = program_of(in, n);
  if (!p->pure) return false;
  for (int i = 0; i < p->oc.stages.n; i++)
    if (!run_stage(in, p, i)) return false;
  for (int i = 0; i < p->oc.stages.n; i++)   /* the stages' own arrays */
    if (!p->oc.stages.v[i]->out->def) interp_drop(in, p->oc.stages.v[i]->out);
  return true;
}

/* ---- regions ---- */

static void run_graph(Interp *in, Graph *g);

static void enter(Interp *in, const Graph *g, int i, const Value *v, const Node *n) { bind_result(in, g->inputs.v[i], v, n); }

static const Value *need(Interp *in, const Tensor *t) {
  const Value *v = interp_get(in, t);
  if (!v) diag_bug(in->c, "'%s' is read before it is made", t->name);
  return v;
}

static Graph *attr_graph(const Node *n, const char *name) {
  const Attr *a = op_attr(n, name);
  return a->graph;
}

static void run_if(Interp *in, Node *n) {
  bool cond = *(const uint8_t *)need(in, n->in[0])->data != 0;
  Graph *g = attr_graph(n, cond ? "then_branch" : "else_branch");
  run_graph(in, g);
  for (int i = 0; i < n->nout; i++)
    if (n->out[i]) bind_result(in, n->out[i], need(in, g->outputs.v[i]), n);
}

/* Growing stacks of what the iterations of Loop and Scan give. */
typedef struct { Value item; char *bytes; size_t size, cap; int64_t n; } Collected;

static void collect(Interp *in, Collected *k, const Value *v, const Node *n) {
  size_t size = value_bytes(in, v), each = (size_t)dtype_bytes(v->dtype);
  if (k->n && (v->rank != k->item.rank || memcmp(v->dims, k->item.dims, sizeof(int64_t) * (size_t)v->rank)))
    diag_fail(in->c, E0505, n, NULL, "an iteration's result has another shape than the one before");
  if (!k->n) {
    k->item = *v;
    k->item.buffer = NULL;
  }
  if (k->size + size > k->cap || !k->bytes) {
    size_t cap = MAX(2 * k->cap, k->size + size + 64);
    Buffer *b = buffer_new(in, cap);
    if (k->size) memcpy(b->bytes, k->bytes, k->size);
    buffer_drop(in, k->item.buffer);
    k->item.buffer = b;
    k->bytes = b->bytes;
    k->cap = cap;
  }
  for (size_t at = 0; v->splat && at < size; at += each) memcpy(k->bytes + k->size + at, v->data, each);
  if (!v->splat && size) memcpy(k->bytes + k->size, v->data, size);
  k->size += size;
  k->n++;
}

/* Moves axis 0 of v to `axis`, and turns its order round if asked. */
static void move_first_axis(Interp *in, Value *v, int axis, bool reverse) {
  int64_t n = v->dims[0], outer = 1, inner = 1;
  size_t each = (size_t)dtype_bytes(v->dtype);
  for (int i = 1; i < v->rank; i++) *(i <= axis ? &outer : &inner) *= v->dims[i];
  Value to = *v;
  memmove(to.dims, v->dims + 1, sizeof(int64_t) * (size_t)axis);
  to.dims[axis] = n;
  allocate(in, &to);
  size_t run = each * (size_t)inner;
  for (int64_t i = 0; i < n; i++)
    for (int64_t o = 0; o < outer; o++)
      memcpy(to.buffer->bytes + (size_t)(o * n + (reverse ? n - 1 - i : i)) * run, (const char *)v->data + (size_t)(i * outer + o) * run, run);
  buffer_drop(in, v->buffer);
  *v = to;
}

/* The collected results as t, stacked along `axis`. */
static void bind_collected(Interp *in, const Tensor *t, Collected *k, const Tensor *item, int axis, bool reverse, const Node *n) {
  Value v = { .dtype = item->dtype, .rank = item->rank + 1 };
  if (!k->n) {                     /* no iteration: sizes that are not known are zero */
    for (int i = 0; i < item->rank; i++)
      if (!interp_size(in, item->shape[i], &v.dims[i + 1])) v.dims[i + 1] = 0;
    allocate(in, &v);
  } else {
    memcpy(v.dims + 1, k->item.dims, sizeof(int64_t) * (size_t)k->item.rank);
    v.dims[0] = k->n;
    v.buffer = k->item.buffer;
    v.data = k->bytes;
  }
  if (axis < 0) axis += v.rank;
  if (axis || reverse) move_first_axis(in, &v, axis, reverse);
  if (t) bind_result(in, t, &v, n);
  buffer_drop(in, v.buffer);
}

/* Takes copies of the values of the graph's outputs [0, n): they become inputs of the next iteration. */
static void hold_outputs(Interp *in, const Graph *g, int from, int n, Value *held) {
  for (int i = 0; i < n; i++) {
    held[i] = *need(in, g->outputs.v[from + i]);
    if (held[i].buffer) held[i].buffer->refs++;
  }
}

static void run_loop(Interp *in, Node *n) {
  Ctx *c = in->c;
  Graph *g = attr_graph(n, "body");
  int carried = n->nin - 2, scans = n->nout - carried;
  int64_t trips = op_has_input(n, 0) ? dtype_load_i(DT_I64, need(in, n->in[0])->data) : INT64_MAX;
  uint8_t cond = op_has_input(n, 1) ? *(const uint8_t *)need(in, n->in[1])->data : 1;
  Value *state = NEW_ARRAY(c, Value, carried + 1);
  Collected *k = NEW_ARRAY(c, Collected, scans + 1);
  for (int i = 0; i < carried; i++) {
    state[i] = *need(in, n->in[2 + i]);
    if (state[i].buffer) state[i].buffer->refs++;
  }
  for (int64_t i = 0; i < trips && cond; i++) {
    Value iteration = { .dtype = DT_I64, .data = &i }, go = { .dtype = DT_BOOL, .data = &cond };
    iteration.rank = g->inputs.v[0]->rank;     /* (1) or () */
    go.rank = g->inputs.v[1]->rank;
    iteration.dims[0] = go.dims[0] = 1;
    enter(in, g, 0, &iteration, n);
    enter(in, g, 1, &go, n);
    for (int s = 0; s < carried; s++) {
      enter(in, g, 2 + s, &state[s], n);
      buffer_drop(in, state[s].buffer);
    }
    run_graph(in, g);
    hold_outputs(in, g, 1, carried, state);
    for (int s = 0; s < scans; s++) collect(in, &k[s], need(in, g->outputs.v[1 + carried + s]), n);
    cond = *(const uint8_t *)need(in, g->outputs.v[0])->data;
  }
  for (int s = 0; s < carried; s++) {
    if (n->out[s]) bind_result(in, n->out[s], &state[s], n);
    buffer_drop(in, state[s].buffer);
  }
  for (int s = 0; s < scans; s++) bind_collected(in, n->out[carried + s], &k[s], g->outputs.v[1 + carried + s], 0, false, n);
}

/* Element i of axis `axis` of v, as an array of its own. */
static Value slice_of(Interp *in, const Value *v, int axis, int64_t i) {
  Value s = *v;
  s.rank--;
  memmove(s.dims + axis, v->dims + axis + 1, sizeof(int64_t) * (size_t)(v->rank - 1 - axis));
  if (v->splat) {
    if (s.buffer) s.buffer->refs++;
    return s;
  }
  int64_t outer = 1, inner = dtype_bytes(v->dtype), n = v->dims[axis];
  for (int d = 0; d < axis; d++) outer *= v->dims[d];
  for (int d = axis + 1; d < v->rank; d++) inner *= v->dims[d];
  allocate(in, &s);
  for (int64_t o = 0; o < outer; o++) memcpy(s.buffer->bytes + o * inner, (const char *)v->data + (o * n + i) * inner, (size_t)inner);
  return s;
}

static int64_t list_item(const Node *n, const char *attr, int i) {
  const Attr *a = op_attr(n, attr);
  return a->kind == ATTR_INTS && i < a->n ? a->ints[i] : 0;
}

static void run_scan(Interp *in, Node *n) {
  Ctx *c = in->c;
  Graph *g = attr_graph(n, "body");
  int scanned = (int)op_attr_i(n, "num_scan_inputs"), carried = n->nin - scanned, scans = n->nout - carried;
  Value *state = NEW_ARRAY(c, Value, carried + 1);
  Collected *k = NEW_ARRAY(c, Collected, scans + 1);
  int64_t trips = -1;
  for (int i = 0; i < carried; i++) {
    state[i] = *need(in, n->in[i]);
    if (state[i].buffer) state[i].buffer->refs++;
  }
  for (int i = 0; i < scanned; i++) {
    const Value *v = need(in, n->in[carried + i]);
    int64_t axis = list_item(n, "scan_input_axes", i);
    int64_t size = v->dims[axis < 0 ? axis + v->rank : axis];
    if (trips >= 0 && size != trips) diag_fail(c, E0505, n, NULL, "scan inputs of %lld and %lld elements", (long long)trips, (long long)size);
    trips = size;
  }
  for (int64_t t = 0; t < trips; t++) {
    for (int s = 0; s < carried; s++) {
      enter(in, g, s, &state[s], n);
      buffer_drop(in, state[s].buffer);
    }
    for (int s = 0; s < scanned; s++) {
      const Value *v = need(in, n->in[carried + s]);
      int64_t axis = list_item(n, "scan_input_axes", s);
      Value slice = slice_of(in, v, (int)(axis < 0 ? axis + v->rank : axis), list_item(n, "scan_input_directions", s) ? trips - 1 - t : t);
      enter(in, g, carried + s, &slice, n);
      buffer_drop(in, slice.buffer);
    }
    run_graph(in, g);
    hold_outputs(in, g, 0, carried, state);
    for (int s = 0; s < scans; s++) collect(in, &k[s], need(in, g->outputs.v[carried + s]), n);
  }
  for (int s = 0; s < carried; s++) {
    if (n->out[s]) bind_result(in, n->out[s], &state[s], n);
    buffer_drop(in, state[s].buffer);
  }
  for (int s = 0; s < scans; s++)
    bind_collected(in, n->out[carried + s], &k[s], g->outputs.v[carried + s], (int)list_item(n, "scan_output_axes", s),
                   list_item(n, "scan_output_directions", s), n);
}

static bool run_region(Interp *in, Node *n) {
  static const struct { const char *name; void (*run)(Interp *, Node *); } regions[] = { { "If", run_if }, { "Loop", run_loop }, { "Scan", run_scan } };
  for (int i = 0; i < COUNT(regions); i++)
    if (n->op->cls == OPC_REGION && !*n->op->domain && !strcmp(n->op->name, regions[i].name)) {
      regions[i].run(in, n);
      return true;
    }
  return false;
}

/* ---- graphs ---- */

static bool returns(const Graph *g, const Tensor *t) {
  for (int i = 0; i < g->outputs.n; i++)
    if (g->outputs.v[i] == t) return true;
  return false;
}

/* Tensors made in g, each put down at the last node that reads it. */
static Plan *plan_of(Interp *in, Graph *g) {
  Plan *p = map_get(&in->plans, KEY(g));
  if (p) return p;
  Map seen = map_new(in->c);
  p = NEW(in->c, Plan);
  p->last = ctx_alloc(in->c, sizeof(*p->last) * (size_t)(g->nodes.n + 1));
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    const Node *n = g->nodes.v[i];
    Tensor **captured;
    int ncaptured = node_captures(in->c, n, &captured);
    for (int k = 0; k < n->nout + n->nin + ncaptured; k++) {
      Tensor *t = k < n->nout ? n->out[k] : k < n->nout + n->nin ? n->in[k - n->nout] : captured[k - n->nout - n->nin];
      if (!t || map_get(&seen, KEY(t))) continue;
      map_set(&seen, KEY(t), t);
      if (t->def && t->def->graph == g && !returns(g, t)) vec_push(in->c, &p->last[i], t);   /* inner graphs keep theirs */
    }
  }
  map_set(&in->plans, KEY(g), p);
  return p;
}

/* What g was simplified under must be so; conditions on sizes that nodes will decide are theirs to meet. */
static void check_assumed(Interp *in, const Graph *g) {
  for (int i = 0; i < g->assumed.n; i++) {
    int64_t holds;
    if (interp_size(in, g->assumed.v[i], &holds) && !holds)
      diag_fail(in->c, E0504, NULL, NULL, "the model was simplified for inputs with %s, which these do not meet", expr_text(in->c, g->assumed.v[i]));
  }
}

static void run_graph(Interp *in, Graph *g) {
  Plan *p = plan_of(in, g);
  check_assumed(in, g);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.v[i];
    if (!run_region(in, n) && !interp_node(in, n)) {
      if (n->op->cls == OPC_EXPAND) diag_bug(in->c, "an unexpanded %s node is interpreted", n->op->name);
      diag_fail(in->c, E0401, n, NULL, "this operator cannot run in the interpreter");
    }
    for (int k = 0; k < p->last[i].n; k++) interp_drop(in, p->last[i].v[k]);
  }
}

static void check_input(Interp *in, const Tensor *t, const Value *v) {
  Str s = str_new(in->c);
  for (int i = 0; i < v->rank; i++) str_add(&s, "%s%lld", i ? "," : "", (long long)v->dims[i]);
  bool same = v->dtype == t->dtype && v->rank == t->rank;
  if (!same || fit_dims(in, t, v, NULL) >= 0)
    diag_fail(in->c, E0504, NULL, NULL, "input '%s' is %s[%s]; the model wants %s", diag_quote(in->c, t->name), dtype_info[v->dtype].name,
              s.s, tensor_type_text(in->c, t));
}

void interp_graph(Interp *in, Graph *g, const Value *inputs, Value *outputs) {
  interp_clear(in);
  for (int i = 0; i < g->inputs.n; i++) {
    check_input(in, g->inputs.v[i], &inputs[i]);
    interp_set(in, g->inputs.v[i], &inputs[i]);
  }
  run_graph(in, g);
  for (int i = 0; i < g->outputs.n; i++) outputs[i] = *need(in, g->outputs.v[i]);
}

Interp *interp_new(Ctx *c) {
  Interp *in = NEW(c, Interp);
  in->env = (TapeEnv){ .dim = env_dim, .array = env_array };
  in->c = c;
  in->values = map_new(c);
  in->dims = map_new(c);
  in->programs = map_new(c);
  in->plans = map_new(c);
  ctx_defer(c, release, in);
  return in;
}

void interp_free(Interp *in) { release(in); }
