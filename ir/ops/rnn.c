/* rnn.c - RNN, GRU and LSTM as matrix products and element-wise operators around a Scan.
 *
 * For every direction the input's product with its weights, and the biases, are computed for all steps at once:
 *     xw[t,b,:] = X[t,b,:] * W' + bias
 * and the Scan's body, from the state and one step of xw, makes the next state. A sequence of one step needs no Scan. Backward
 * directions scan xw from its end; their results are turned round. Steps past a sequence's length keep the state and give 0. */
#include "../op_impl.h"

typedef enum { RNN, GRU, LSTM } Cell;

static const struct { const char *name; int gates, activations; const char *dflt[3];
} cells[] = { [RNN] = { "RNN", 1, 1, { "Tanh" } },
              [GRU] = { "GRU", 3, 2, { "Sigmoid", "Tanh" } },
              [LSTM] = { "LSTM", 4, 3, { "Sigmoid", "Tanh", "Tanh" } } };

static Cell cell_of(const Node *n) {
  for (int i = 0; i < COUNT(cells); i++)
    if (!strcmp(cells[i].name, n->op->name)) return (Cell)i;
  diag_bug(n->graph->ctx, "%s is no recurrent cell", n->op->name);
}

/* inputs of all three; LSTM has two more */
enum { IN_X, IN_W, IN_R, IN_B, IN_LENS, IN_H, IN_C, IN_P };

/* ---- activations: the ONNX name, the node for it and what alpha and beta mean ---- */

typedef struct { const char *name; double alpha, beta; bool has_alpha, has_beta; } Activation;

static const Activation activations[] = {
  { "Sigmoid", 0, 0, false, false }, { "Tanh", 0, 0, false, false }, { "Relu", 0, 0, false, false },
  { "Softsign", 0, 0, false, false }, { "Softplus", 0, 0, false, false },
  { "LeakyRelu", 0.01, 0, true, false }, { "ThresholdedRelu", 1, 0, true, false }, { "Elu", 1, 0, true, false },
  { "HardSigmoid", 0.2, 0.5, true, true }, { "Affine", 1, 0, true, true }, { "ScaledTanh", 1, 1, true, true } };

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

static bool same_word(const char *a, const char *b) {
  while (*a && lower(*a) == lower(*b)) a++, b++;
  return !*a && !*b;
}

static const Activation *find_activation(const char *name) {
  for (int i = 0; i < COUNT(activations); i++)
    if (same_word(activations[i].name, name)) return &activations[i];
  return NULL;
}

static int directions(const Node *n) { return op_attr_is(n, "direction", "bidirectional") ? 2 : 1; }

/* Those of all directions in order; the values of alpha and beta are used up in that order too. */
static bool read_activations(OpCtx *oc, Activation *list) {
  const Node *n = oc->node;
  Cell cell = cell_of(n);
  const Attr *names = op_attr(n, "activations"), *alpha = op_attr(n, "activation_alpha"),
             *beta = op_attr(n, "activation_beta");
  int each = cells[cell].activations, total = each * directions(n), ia = 0, ib = 0;
  if (names->kind == ATTR_STRINGS && names->n != total && names->n != each)
    return op_error(oc, E0412, NULL, "%d activations; there must be %d", names->n, total);
  for (int i = 0; i < total; i++) {
    const char *name = names->kind == ATTR_STRINGS ? names->strings[i % names->n] : cells[cell].dflt[i % each];
    const Activation *a = find_activation(name);
    if (!a) return op_error(oc, E0412, NULL, "activation '%s' is not known", diag_quote(oc->c, name));
    list[i] = *a;
    if (a->has_alpha && alpha->kind == ATTR_FLOATS && ia < alpha->n) list[i].alpha = alpha->floats[ia++];
    if (a->has_beta && beta->kind == ATTR_FLOATS && ib < beta->n) list[i].beta = beta->floats[ib++];
  }
  return true;
}

static Tensor *times(Build *b, Tensor *x, double v) {
  return v == 1 ? x : build_2(b, "Mul", x, build_scalar(b, x->dtype, v));
}
static Tensor *plus(Build *b, Tensor *x, double v) {
  return v == 0 ? x : build_2(b, "Add", x, build_scalar(b, x->dtype, v));
}

static Tensor *activate(Build *b, const Activation *a, Tensor *x) {
  if (!strcmp(a->name, "Affine")) return plus(b, times(b, x, a->alpha), a->beta);
  if (!strcmp(a->name, "ScaledTanh")) return times(b, build_1(b, "Tanh", times(b, x, a->beta)), a->alpha);
  Node *n = build_node(b, a->name, &x, 1, 1);
  for (int i = 0; i < n->op->nattr; i++) n->attrs[i].f = !strcmp(n->attrs[i].name, "alpha") ? a->alpha : a->beta;
  return build_done(b, n);
}

/* ---- shapes ---- */

static bool rank_if_there(OpCtx *oc, int i, int rank) {
  return !op_has_input(oc->node, i) || op_rank(oc, i, rank, rank);
}

static bool sizes_fit(OpCtx *oc, int i, Expr *const *want) {
  const Tensor *t = op_input(oc->node, i);
  for (int d = 0; t && d < t->rank; d++)
    if (!op_meet(oc, t->shape[d], want[d]))
      return op_error(oc, E0411, NULL, "input '%s' is %s; it must be %s", oc->node->op->in[i].name,
                      tensor_type_text(oc->c, t), op_shape_text(oc->c, want, t->rank));
  return true;
}

/* From the weights or, if their sizes are open, from the attribute; NULL after an error. */
static Expr *hidden_size(OpCtx *oc) {
  const Node *n = oc->node;
  const Attr *given = op_attr(n, "hidden_size");
  Expr *h = n->in[IN_R]->shape[2];
  if (given->kind == ATTR_INT && !(h = op_meet(oc, h, ex_int(oc->c, given->i))))
    op_error(oc, E0412, NULL, "%s: hidden_size is %lld", op_inputs_text(oc), (long long)given->i);
  else if (!ex_is_const(h)) op_error(oc, E0413, NULL, "the hidden size is not known before the model runs");
  return h && ex_is_const(h) ? h : NULL;
}

bool shape_rnn(OpCtx *oc) {
  Ctx *c = oc->c;
  Node *n = oc->node;
  Cell cell = cell_of(n);
  Activation list[6];
  bool batch_first = op_attr_i(n, "layout");
  OP_BAIL(op_rank(oc, IN_X, 3, 3) && op_rank(oc, IN_W, 3, 3) && op_rank(oc, IN_R, 3, 3) && rank_if_there(oc, IN_B, 2));
  OP_BAIL(rank_if_there(oc, IN_LENS, 1) && rank_if_there(oc, IN_H, 3) && rank_if_there(oc, IN_C, 3) &&
          rank_if_there(oc, IN_P, 2));
  OP_BAIL(read_activations(oc, list));
  const Tensor *x = n->in[IN_X], *w = n->in[IN_W], *r = n->in[IN_R];
  Expr *dirs = ex_int(c, directions(n)), *hidden = hidden_size(oc), *rows;
  if (!hidden) return false;
  rows = ex_mul(c, hidden, ex_int(c, cells[cell].gates));
  if (!op_meet(oc, w->shape[0], dirs) || !op_meet(oc, r->shape[0], dirs) || !op_meet(oc, w->shape[1], rows) ||
      !op_meet(oc, r->shape[1], rows) || !op_meet(oc, w->shape[2], x->shape[2]))
    return op_error(oc, E0411, NULL, "%s do not fit together for %s direction(s)", op_inputs_text(oc),
                    expr_text(c, dirs));
  Expr *steps = x->shape[batch_first], *batch = x->shape[!batch_first];
  OP_BAIL(sizes_fit(oc, IN_B, (Expr *[]){ dirs, ex_mul(c, rows, ex_int(c, 2)) }) && sizes_fit(oc, IN_LENS, &batch));
  OP_BAIL(sizes_fit(oc, IN_P, (Expr *[]){ dirs, ex_mul(c, hidden, ex_int(c, 3)) }));
  Expr *all[2][4] = { { steps, dirs, batch, hidden }, { batch, steps, dirs, hidden } };
  Expr *last[2][3] = { { dirs, batch, hidden }, { batch, dirs, hidden } };
  op_out(oc, 0, x->dtype, 4, all[batch_first]);
  OP_BAIL(sizes_fit(oc, IN_H, last[batch_first]) && sizes_fit(oc, IN_C, last[batch_first]));
  op_out(oc, 1, x->dtype, 3, last[batch_first]);
  op_out(oc, 2, x->dtype, 3, last[batch_first]);
  return true;
}

/* ---- one direction ---- */

typedef struct {
  OpCtx *oc;
  Build outer;                     /* where the node stands */
  Cell cell;
  int dir;
  int64_t hidden;
  bool batch_first, reverse;
  const Activation *act;           /* of this direction */
  Tensor *x;                       /* [steps, batch, input] */
  Tensor *r, *r_out; /* recurrent weights [hidden, gates*hidden]; GRU: those of z and r, then those of h */
  Tensor *r_bias;                  /* GRU with linear_before_reset: [hidden] */
  Tensor *peep[3];                 /* LSTM: [hidden] for i, o, f; NULL without */
  Tensor *lens;                    /* [batch, 1], or NULL */
} Rnn;

typedef struct { Tensor *h, *c, *y; } State;

/* This direction's part of an input whose direction axis is `axis`, the axis gone. */
static Tensor *of_direction(Rnn *k, int input, int axis) {
  Build *b = &k->outer;
  Tensor *t = k->oc->node->in[input];
  if (!ex_equals_int(t->shape[axis], 1)) t = build_slice(b, t, axis, k->dir, k->dir + 1);
  return build_squeeze(b, t, axis);
}

static Tensor *transposed(Build *b, Tensor *x) { return build_transpose(b, x, (int64_t[]){ 1, 0 }, 2); }
static Tensor *gate(Build *b, const Rnn *k, Tensor *x, int axis, int from, int to) {
  return build_slice(b, x, axis, from * k->hidden, to * k->hidden);
}

/* The biases of inputs and state in one vector [gates*hidden]; what GRU applies before its reset gate stays apart. */
static Tensor *biases(Rnn *k) {
  Build *b = &k->outer;
  int gates = cells[k->cell].gates;
  Tensor *all = of_direction(k, IN_B, 0), *w = gate(b, k, all, 0, 0, gates), *r = gate(b, k, all, 0, gates, 2 * gates);
  if (!k->r_out || !op_attr_i(k->oc->node, "linear_before_reset")) return build_2(b, "Add", w, r);
  k->r_bias = gate(b, k, r, 0, 2, 3);
  Tensor *both = build_2(b, "Add", gate(b, k, w, 0, 0, 2), gate(b, k, r, 0, 0, 2));
  return build_concat(b, (Tensor *[]){ both, gate(b, k, w, 0, 2, 3) }, 2, 0);
}

static Tensor *projected_input(Rnn *k) {
  Build *b = &k->outer;
  Tensor *xw = build_2(b, "MatMul", k->x, transposed(b, of_direction(k, IN_W, 0)));
  k->r = transposed(b, of_direction(k, IN_R, 0));
  if (k->cell == GRU) {
    k->r_out = gate(b, k, k->r, 1, 2, 3);
    k->r = gate(b, k, k->r, 1, 0, 2);
  }
  if (op_has_input(k->oc->node, IN_B)) xw = build_2(b, "Add", xw, biases(k));
  for (int i = 0; i < 3 && k->cell == LSTM && op_has_input(k->oc->node, IN_P); i++)
    k->peep[i] = gate(b, k, of_direction(k, IN_P, 0), 0, i, i + 1);
  return xw;
}

/* The state before the first step: as given, or zeros [batch, hidden]. */
static Tensor *initial(Rnn *k, int input) {
  Build *b = &k->outer;
  if (op_has_input(k->oc->node, input)) return of_direction(k, input, k->batch_first ? 1 : 0);
  Node *shape = build_node(b, "Shape", &k->x, 1, 1);
  build_int(shape, "start", 1);
  build_int(shape, "end", 2);
  Tensor *dims = build_concat(b, (Tensor *[]){ build_done(b, shape), build_indices(b, &k->hidden, 1) }, 2, 0);
  return build_2(b, "Expand", build_scalar(b, k->x->dtype, 0), dims);
}

/* ---- one step, in the body of the Scan or in place ---- */

static Tensor *clipped(Build *b, const Rnn *k, Tensor *x) {
  const Attr *clip = op_attr(k->oc->node, "clip");
  if (clip->kind != ATTR_FLOAT || clip->f <= 0) return x;
  return build_3(b, "Clip", x, build_scalar(b, x->dtype, -clip->f), build_scalar(b, x->dtype, clip->f));
}

static Tensor *peeped(Build *b, Tensor *x, Tensor *peep, Tensor *c) {
  return peep ? build_2(b, "Add", x, build_2(b, "Mul", peep, c)) : x;
}

static State step_lstm(Build *b, Rnn *k, Tensor *xw, State s) {
  const Activation *f = &k->act[0], *g = &k->act[1], *h = &k->act[2];
  Tensor *z = build_2(b, "Add", xw, build_2(b, "MatMul", s.h, k->r));       /* gates i, o, f, c */
  Tensor *i = activate(b, f, clipped(b, k, peeped(b, gate(b, k, z, 1, 0, 1), k->peep[0], s.c)));
  Tensor *forget = op_attr_i(k->oc->node, "input_forget")
                       ? build_2(b, "Sub", build_scalar(b, i->dtype, 1), i)
                       : activate(b, f, clipped(b, k, peeped(b, gate(b, k, z, 1, 2, 3), k->peep[2], s.c)));
  Tensor *update = activate(b, g, clipped(b, k, gate(b, k, z, 1, 3, 4)));
  Tensor *c = build_2(b, "Add", build_2(b, "Mul", forget, s.c), build_2(b, "Mul", i, update));
  Tensor *o = activate(b, f, clipped(b, k, peeped(b, gate(b, k, z, 1, 1, 2), k->peep[1], c)));
  return (State){ .h = build_2(b, "Mul", o, activate(b, h, c)), .c = c };
}

static State step_gru(Build *b, Rnn *k, Tensor *xw, State s) {
  const Activation *f = &k->act[0], *g = &k->act[1];
  Tensor *zr = build_2(b, "Add", gate(b, k, xw, 1, 0, 2), build_2(b, "MatMul", s.h, k->r));
  zr = activate(b, f, clipped(b, k, zr));
  Tensor *z = gate(b, k, zr, 1, 0, 1), *r = gate(b, k, zr, 1, 1, 2), *rh;
  if (op_attr_i(k->oc->node, "linear_before_reset")) {
    rh = build_2(b, "MatMul", s.h, k->r_out);
    if (k->r_bias) rh = build_2(b, "Add", rh, k->r_bias);
    rh = build_2(b, "Mul", r, rh);
  } else {
    rh = build_2(b, "MatMul", build_2(b, "Mul", r, s.h), k->r_out);
  }
  Tensor *new = activate(b, g, clipped(b, k, build_2(b, "Add", gate(b, k, xw, 1, 2, 3), rh)));
  Tensor *kept = build_2(b, "Mul", z, s.h),
         *fresh = build_2(b, "Mul", build_2(b, "Sub", build_scalar(b, z->dtype, 1), z), new);
  return (State){ .h = build_2(b, "Add", fresh, kept) };
}

static State step_rnn(Build *b, Rnn *k, Tensor *xw, State s) {
  Tensor *z = build_2(b, "Add", xw, build_2(b, "MatMul", s.h, k->r));
  return (State){ .h = activate(b, &k->act[0], clipped(b, k, z)) };
}

/* t: the step's number (a scalar), NULL without sequence lengths. */
static State step(Build *b, Rnn *k, Tensor *xw, State s, Tensor *t) {
  State next = k->cell == LSTM  ? step_lstm(b, k, xw, s)
               : k->cell == GRU ? step_gru(b, k, xw, s)
                                : step_rnn(b, k, xw, s);
  next.y = next.h;
  if (!t) return next;
  Tensor *live = build_2(b, "Less", t, k->lens);
  next.y = build_3(b, "Where", live, next.h, build_scalar(b, next.h->dtype, 0));
  next.h = build_3(b, "Where", live, next.h, s.h);
  if (next.c) next.c = build_3(b, "Where", live, next.c, s.c);
  return next;
}

/* ---- all steps ---- */

static Tensor *step_numbers(Rnn *k) {
  Build *b = &k->outer;
  Node *shape = build_node(b, "Shape", &k->x, 1, 1);
  build_int(shape, "start", 0);
  build_int(shape, "end", 1);
  Tensor *n = build_squeeze(b, build_done(b, shape), 0);
  return build_3(b, "Range", build_scalar(b, DT_I64, 0), n, build_scalar(b, DT_I64, 1));
}

static Tensor *body_input(Build *in, const char *name, const Tensor *like, int drop_first) {
  Tensor *t = graph_tensor(in->g, name);
  t->dtype = like->dtype;
  t->rank = like->rank - drop_first;
  t->shape = ctx_copy(in->c, like->shape + drop_first, sizeof *like->shape * (size_t)t->rank);
  vec_push(in->c, &in->g->inputs, t);
  return t;
}

static State scan(Rnn *k, Tensor *xw, State s) {
  Build *b = &k->outer, in = *b;
  Ctx *c = b->c;
  in.g = graph_new(c, b->g, ctx_printf(c, "%s.step", k->oc->node->op->name));
  in.at = NULL;
  Tensor *numbers = k->lens ? step_numbers(k) : NULL;
  Tensor *from[4];
  int n = 0, nstate = 1 + (s.c != NULL), nscan = 1 + (numbers != NULL);
  from[n++] = s.h;
  if (s.c) from[n++] = s.c;
  from[n++] = xw;
  if (numbers) from[n++] = numbers;
  State inner = { .h = body_input(&in, "h", s.h, 0) };
  if (s.c) inner.c = body_input(&in, "c", s.c, 0);
  Tensor *x = body_input(&in, "xw", xw, 1), *t = numbers ? body_input(&in, "t", numbers, 1) : NULL;
  State next = step(&in, k, x, inner, t);
  vec_push(c, &in.g->outputs, next.h);
  if (s.c) vec_push(c, &in.g->outputs, next.c);
  vec_push(c, &in.g->outputs, next.y);
  b->failed |= in.failed;
  Node *node = build_node(b, "Scan", from, n, nstate + 1);
  Attr *body = (Attr *)op_attr(node, "body");
  body->kind = ATTR_GRAPH;
  body->graph = in.g;
  build_int(node, "num_scan_inputs", nscan);
  if (k->reverse) build_ints(b, node, "scan_input_directions", (int64_t[]){ 1, 1 }, nscan);
  build_done(b, node);
  Tensor *y = node->out[nstate];
  if (k->reverse) y = build_reverse(b, y, 0);
  return (State){ .h = node->out[0], .c = s.c ? node->out[1] : NULL, .y = y };
}

/* One step: no Scan. */
static State single(Rnn *k, Tensor *xw, State s) {
  Build *b = &k->outer;
  State next = step(b, k, build_squeeze(b, xw, 0), s, k->lens ? build_scalar(b, DT_I64, 0) : NULL);
  next.y = build_unsqueeze(b, next.y, 0);
  return next;
}

static State run_direction(Rnn *k) {
  Tensor *xw = projected_input(k);
  State s = { .h = initial(k, IN_H) };
  if (k->cell == LSTM) s.c = initial(k, IN_C);
  return ex_equals_int(k->x->shape[0], 1) ? single(k, xw, s) : scan(k, xw, s);
}

/* Output i from the directions' parts, which get a direction axis. */
static void output(Rnn *k, int i, Tensor **part, int n) {
  Build *b = &k->outer;
  if (!op_wants(k->oc->node, i)) return;
  int axis = i == 0 ? 1 : 0;       /* [steps, dirs, batch, hidden], [dirs, batch, hidden] */
  Tensor *each[2];
  for (int d = 0; d < n; d++) each[d] = build_unsqueeze(b, part[d], axis);
  Tensor *t = build_concat(b, each, n, axis);
  if (k->batch_first)
    t = i == 0 ? build_transpose(b, t, (int64_t[]){ 2, 0, 1, 3 }, 4) : build_transpose(b, t, (int64_t[]){ 1, 0, 2 }, 3);
  build_replace(b, i, t);
}

bool expand_rnn(OpCtx *oc) {
  const Node *n = oc->node;
  Activation list[6];
  OP_BAIL(read_activations(oc, list));
  Rnn k = {
    .oc = oc, .outer = build_before(oc), .cell = cell_of(n), .batch_first = op_attr_i(n, "layout"), .x = n->in[IN_X]
  };
  Build *b = &k.outer;
  k.hidden = hidden_size(oc)->u.i;
  if (k.batch_first) k.x = build_transpose(b, k.x, (int64_t[]){ 1, 0, 2 }, 3);
  if (op_has_input(n, IN_LENS)) {
    Node *wide = build_node(b, "Cast", &n->in[IN_LENS], 1, 1);
    build_int(wide, "to", dtype_info[DT_I64].onnx);
    k.lens = build_unsqueeze(b, build_done(b, wide), 1);
  }
  int dirs = directions(n);
  Tensor *h[2], *c[2], *y[2];
  for (k.dir = 0; k.dir < dirs; k.dir++) {
    k.reverse = k.dir == 1 || op_attr_is(n, "direction", "reverse");
    k.act = list + k.dir * cells[k.cell].activations;
    State s = run_direction(&k);
    h[k.dir] = s.h, c[k.dir] = s.c, y[k.dir] = s.y;
  }
  if (b->failed) return false;
  output(&k, 0, y, dirs);
  output(&k, 1, h, dirs);
  if (k.cell == LSTM) output(&k, 2, c, dirs);
  return !b->failed;
}
