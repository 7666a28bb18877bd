/* control.c - If, Loop, Scan: types of what their inner graphs take and give. Running them is the passes' and the interpreter's. */
#include "../op_impl.h"

static Graph *body_of(const Node *n, const char *attr) { return op_attr(n, attr)->graph; }

static bool infer_graph(Ctx *c, Graph *g) {
  bool ok = true;
  for (int i = 0; i < g->nodes.n; i++) ok &= op_infer(c, g->nodes.v[i]);
  for (int i = 0; i < g->outputs.n; i++) ok &= g->outputs.v[i]->rank >= 0;
  return ok;
}

static void set_type(Ctx *c, Tensor *t, DType type, int rank, Expr *const *shape) {
  t->dtype = type;
  t->rank = rank;
  t->shape = NEW_ARRAY(c, Expr *, rank + 1);
  if (rank) memcpy(t->shape, shape, sizeof *shape * (size_t)rank);
}

static bool counts_fit(OpCtx *oc, const Graph *g, int nin, int nout) {
  if (g->inputs.n != nin)
    return op_error(oc, E0403, NULL, "its graph '%s' has %d inputs, not %d", g->name, g->inputs.n, nin);
  if (g->outputs.n != nout)
    return op_error(oc, E0403, NULL, "its graph '%s' has %d outputs, not %d", g->name, g->outputs.n, nout);
  return true;
}

/* A dimension that data decides: the symbol that an earlier inference put there, or a new one. */
static Expr *open_dim(OpCtx *oc, const Tensor *t, int d, const Expr *not_this, const Expr *nor_this) {
  if (t && t->rank > d && t->shape[d]->op == EX_SYM && t->shape[d] != not_this && t->shape[d] != nor_this)
    return t->shape[d];
  const char *name = ctx_printf(oc->c, "%s.d%d", t ? t->name : oc->node->op->name, d);
  return sym_new(oc->c, SYM_DIM, name, 0, ((int64_t)1 << 40) - 1)->self;
}

/* ---- If ---- */

static bool unify_branches(OpCtx *oc, int i, const Tensor *a, const Tensor *b) {
  Expr *shape[MAX_RANK];
  if (a->dtype != b->dtype || a->rank != b->rank)
    return op_error(oc, a->dtype != b->dtype ? E0404 : E0413, "make the condition a constant",
                    "output %d is %s in one branch and %s in the other", i, tensor_type_text(oc->c, a),
                    tensor_type_text(oc->c, b));
  for (int d = 0; d < a->rank; d++)
    shape[d] = op_same_dim(oc->c, a->shape[d], b->shape[d])
                   ? a->shape[d]
                   : open_dim(oc, oc->node->out[i], d, a->shape[d], b->shape[d]);
  op_out(oc, i, a->dtype, a->rank, shape);
  return true;
}

/* Branches that give different ranks cannot both stand behind the node. Exporters write `If dim == 1 then Squeeze` so: where the condition
 * is one on dimensions, the model is compiled for the case that it holds, and every run checks that. */
static bool assume_then(OpCtx *oc, const Graph *then, const Graph *otherwise) {
  Node *n = oc->node;
  bool differ = false;
  for (int i = 0; i < n->nout; i++) differ |= then->outputs.v[i]->rank != otherwise->outputs.v[i]->rank;
  if (!differ || n->in[0]->nknown != 1 || !n->in[0]->known || ex_is_const(n->in[0]->known[0])) return false;
  static const uint8_t yes = 1;
  vec_push(oc->c, &n->graph->assumed, n->in[0]->known[0]);
  Tensor *cond = graph_const(n->graph, "assumed", DT_BOOL, NULL, 0, &yes);
  cond->known = NEW(oc->c, Expr *);
  cond->known[0] = ex_bool(oc->c, true);
  cond->nknown = 1;
  node_set_input(n, 0, cond);
  return true;
}

/* A branch whose shapes do not fit together for the model's inputs: the run that takes it stops. In its place stand results of the
 * types that the other branch gives. */
static bool rule_out(OpCtx *oc, Graph *g, const Graph *other, int told) {
  Ctx *c = oc->c;
  Diags *d = ctx_diags(c);
  int64_t dims[MAX_RANK];
  for (int i = told; i < d->list.n; i++)
    if (d->list.v[i].code != E0411 && d->list.v[i].code != E0412) return false;
  for (int i = 0; i < other->outputs.n; i++)
    if (!tensor_dims(other->outputs.v[i], dims)) return false;
  d->list.n = told;
  g->outputs.n = g->assumed.n = 0;
  while (g->nodes.n) node_erase(g, g->nodes.v[g->nodes.n - 1]);
  vec_push(c, &g->assumed, ex_bool(c, false));
  Build b = { .oc = oc, .c = c, .g = g };
  for (int i = 0; i < other->outputs.n; i++) {
    const Tensor *t = other->outputs.v[i];
    tensor_dims(t, dims);
    Tensor *zeros = build_1(&b, "ConstantOfShape", build_indices(&b, dims, t->rank));
    Node *cast = build_node(&b, "Cast", &zeros, 1, 1);
    build_int(cast, "to", dtype_info[t->dtype].onnx);
    vec_push(c, &g->outputs, build_done(&b, cast));
  }
  return !b.failed;
}

static bool infer_both(OpCtx *oc, Graph *then, Graph *otherwise) {
  int told = ctx_diags(oc->c)->list.n;
  bool a = infer_graph(oc->c, then), b = infer_graph(oc->c, otherwise);
  if (a && !b) b = rule_out(oc, otherwise, then, told);
  else if (b && !a) a = rule_out(oc, then, otherwise, told);
  return a && b;
}

bool shape_if(OpCtx *oc) {
  Node *n = oc->node;
  Graph *then = body_of(n, "then_branch"), *otherwise = body_of(n, "else_branch");
  int64_t cond = 0;
  int count;
  bool known = op_known_ints(oc, 0, &cond, 1, &count) && count == 1;
  OP_BAIL(counts_fit(oc, then, 0, n->nout) && counts_fit(oc, otherwise, 0, n->nout));
  if (known) OP_BAIL(infer_graph(oc->c, cond ? then : otherwise));
  else OP_BAIL(infer_both(oc, then, otherwise));
  if (!known && assume_then(oc, then, otherwise)) cond = known = true;
  for (int i = 0; i < n->nout; i++) {
    const Tensor *a = then->outputs.v[i], *b = otherwise->outputs.v[i];
    if (known) a = b = cond ? a : b;
    OP_BAIL(unify_branches(oc, i, a, b));
  }
  return true;
}

/* ---- Scan ---- */

static bool list_fits(OpCtx *oc, const char *attr, int n) {
  int len = op_attr_len(oc->node, attr);
  return len < 0 || len == n || op_error(oc, E0412, NULL, "%s has %d values for %d tensors", attr, len, n);
}

/* What the states are after an iteration must be what they were before. */
static bool states_fit(OpCtx *oc, const Graph *g, int from_in, int from_out, int n) {
  for (int i = 0; i < n; i++) {
    const Tensor *in = g->inputs.v[from_in + i], *out = g->outputs.v[from_out + i];
    bool same = in->dtype == out->dtype && in->rank == out->rank;
    for (int d = 0; d < in->rank && same; d++)
      same = !ex_is_const(in->shape[d]) || !ex_is_const(out->shape[d]) || in->shape[d] == out->shape[d];
    if (!same)
      return op_error(oc, E0411, NULL, "the state '%s' is %s before an iteration and %s after it",
                      diag_quote(oc->c, in->name), tensor_type_text(oc->c, in), tensor_type_text(oc->c, out));
  }
  return true;
}

/* The number of steps, and the types of the body's scan inputs: slices of the node's. */
static bool scan_inputs(OpCtx *oc, Graph *g, int nstate, int nscan, Expr **trips) {
  for (int i = 0; i < nscan; i++) {
    const Tensor *x = oc->node->in[nstate + i];
    Expr *shape[MAX_RANK];
    int axis, rank = 0;
    OP_BAIL(op_rank(oc, nstate + i, 1, -1) &&
            op_axis(oc, op_attr_at(oc->node, "scan_input_axes", i, 0), x->rank, &axis));
    Expr *n = x->shape[axis];
    if (*trips && ex_is_const(*trips) && ex_is_const(n) && *trips != n)
      return op_error(oc, E0411, NULL, "%s: scans over %s and %s elements", op_inputs_text(oc),
                      expr_text(oc->c, *trips), expr_text(oc->c, n));
    if (!*trips || ex_is_const(n)) *trips = n;
    for (int d = 0; d < x->rank; d++)
      if (d != axis) shape[rank++] = x->shape[d];
    set_type(oc->c, g->inputs.v[nstate + i], x->dtype, rank, shape);
  }
  return true;
}

static bool stacked_output(OpCtx *oc, int i, const Tensor *item, int64_t axis, Expr *trips) {
  Expr *shape[MAX_RANK + 1];
  int at;
  if (item->rank == MAX_RANK)
    return op_error(oc, E0602, NULL, "a result of rank %d; the most is %d", MAX_RANK + 1, MAX_RANK);
  OP_BAIL(op_axis(oc, axis, item->rank + 1, &at));
  for (int d = 0; d <= item->rank; d++) shape[d] = d == at ? trips : item->shape[d - (d > at)];
  op_out(oc, i, item->dtype, item->rank + 1, shape);
  return true;
}

bool shape_scan(OpCtx *oc) {
  Node *n = oc->node;
  Graph *g = body_of(n, "body");
  int64_t nscan = op_attr_i(n, "num_scan_inputs");
  Expr *trips = NULL;
  if (nscan < 1 || nscan > n->nin)
    return op_error(oc, E0412, NULL, "num_scan_inputs is %lld of %d inputs", (long long)nscan, n->nin);
  int nstate = n->nin - (int)nscan, nout = n->nout - nstate;
  if (nout < 0) return op_error(oc, E0403, NULL, "%d outputs for %d states", n->nout, nstate);
  OP_BAIL(counts_fit(oc, g, n->nin, n->nout));
  OP_BAIL(list_fits(oc, "scan_input_axes", (int)nscan) && list_fits(oc, "scan_input_directions", (int)nscan));
  OP_BAIL(list_fits(oc, "scan_output_axes", nout) && list_fits(oc, "scan_output_directions", nout));
  for (int i = 0; i < n->nin; i++)
    if (!n->in[i]) return op_error(oc, E0403, NULL, "input %d is missing", i);
  for (int i = 0; i < nstate; i++) set_type(oc->c, g->inputs.v[i], n->in[i]->dtype, n->in[i]->rank, n->in[i]->shape);
  OP_BAIL(scan_inputs(oc, g, nstate, (int)nscan, &trips) && infer_graph(oc->c, g) && states_fit(oc, g, 0, 0, nstate));
  for (int i = 0; i < nstate; i++) op_out(oc, i, n->in[i]->dtype, n->in[i]->rank, n->in[i]->shape);
  for (int i = 0; i < nout; i++)
    OP_BAIL(stacked_output(oc, nstate + i, g->outputs.v[nstate + i], op_attr_at(n, "scan_output_axes", i, 0), trips));
  return true;
}

/* ---- Loop ---- */

static bool is_true(const Tensor *t) {
  if (t->data && t->dtype == DT_BOOL) return tensor_const_int(t, 0) != 0;
  return t->known && t->nknown == 1 && ex_is_const(t->known[0]) && t->known[0]->u.i;
}

/* The condition that the body gives back is true, or the one that it was given. */
static bool goes_on(const Graph *g) {
  const Tensor *t = g->outputs.v[0];
  while (t->def && !strcmp(t->def->op->name, "Identity") && t->def->graph == g) t = t->def->in[0];
  return is_true(t) || t == g->inputs.v[1];
}

/* States whose dimensions change get open ones; true if any did. */
static bool open_states(OpCtx *oc, Graph *g, int n) {
  bool changed = false;
  for (int i = 0; i < n; i++) {
    Tensor *in = g->inputs.v[2 + i], *out = g->outputs.v[1 + i];
    for (int d = 0; d < in->rank && in->rank == out->rank; d++) {
      if (in->shape[d] == out->shape[d] ||
          (in->shape[d]->op == EX_SYM && in->shape[d] != oc->node->in[2 + i]->shape[d]))
        continue;
      in->shape[d] = open_dim(oc, NULL, d, NULL, NULL);
      changed = true;
    }
  }
  return changed;
}

/* The body's states start as the node's inputs are; dimensions that an earlier inference found to change stay open. */
static void start_states(OpCtx *oc, Graph *g, int n) {
  for (int i = 0; i < n; i++) {
    Tensor *in = g->inputs.v[2 + i], *from = oc->node->in[2 + i], *out = g->outputs.v[1 + i];
    Expr *shape[MAX_RANK];
    for (int d = 0; d < from->rank; d++) {
      bool open = in->rank == from->rank && in->dtype != DT_NONE && in->shape[d]->op == EX_SYM &&
                  in->shape[d] != from->shape[d] && out->rank == in->rank;
      shape[d] = open ? in->shape[d] : from->shape[d];
    }
    set_type(oc->c, in, from->dtype, from->rank, shape);
  }
}

static bool loop_trips(OpCtx *oc, const Graph *g, Expr **trips) {
  const Node *n = oc->node;
  Expr **v;
  int count;
  bool open_ended = (op_has_input(n, 1) && !is_true(n->in[1])) || !goes_on(g);
  if (open_ended || !op_has_input(n, 0) || !op_elements(oc, 0, 1, &v, &count) || count != 1) return false;
  *trips = ex_max(oc->c, ex_cast(oc->c, DT_I64, v[0]), ex_int(oc->c, 0));
  return true;
}

bool shape_loop(OpCtx *oc) {
  Ctx *c = oc->c;
  Node *n = oc->node;
  Graph *g = body_of(n, "body");
  int carried = MAX(n->nin - 2, 0), scans = n->nout - carried;
  Expr *one = ex_int(c, 1), *trips;
  if (scans < 0) return op_error(oc, E0403, NULL, "%d outputs for %d states", n->nout, carried);
  OP_BAIL(counts_fit(oc, g, 2 + carried, 1 + carried + scans));
  for (int i = 0; i < carried; i++)
    if (!n->in[2 + i]) return op_error(oc, E0403, NULL, "input %d is missing", 2 + i);
  set_type(c, g->inputs.v[0], DT_I64, g->inputs.v[0]->rank == 1, &one);
  set_type(c, g->inputs.v[1], DT_BOOL, g->inputs.v[1]->rank == 1, &one);
  start_states(oc, g, carried);
  do OP_BAIL(infer_graph(c, g)); while (open_states(oc, g, carried));
  OP_BAIL(states_fit(oc, g, 2, 1, carried));
  for (int i = 0; i < carried; i++)
    op_out(oc, i, g->inputs.v[2 + i]->dtype, g->inputs.v[2 + i]->rank, g->inputs.v[2 + i]->shape);
  bool counted = loop_trips(oc, g, &trips);
  for (int i = 0; i < scans; i++) {
    const Tensor *item = g->outputs.v[1 + carried + i];
    OP_BAIL(
        stacked_output(oc, carried + i, item, 0, counted ? trips : open_dim(oc, n->out[carried + i], 0, NULL, NULL)));
  }
  return true;
}
