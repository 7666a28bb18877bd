/* op_build.c - nodes made by operators that expand into others. */
#include "op_impl.h"

Build build_before(OpCtx *oc) { return (Build){ .oc = oc, .c = oc->c, .g = oc->node->graph, .at = oc->node }; }

Node *build_node(Build *b, const char *op, Tensor *const *in, int nin, int nout) {
  const Op *row = op_find(b->c, "", op);
  if (!row) diag_bug(b->c, "no operator %s to expand into", op);
  const char *name = b->oc->node->name;
  Node *n =
      b->at ? graph_node_before(b->g, b->at, row, name, in, nin, nout) : graph_node(b->g, row, name, in, nin, nout);
  n->index = b->oc->node->index;
  return n;
}

static Attr *attr_of(Node *n, const char *name, AttrKind kind) {
  Attr *a = (Attr *)op_attr(n, name);
  a->kind = kind;
  return a;
}

void build_int(Node *n, const char *attr, int64_t v) { attr_of(n, attr, ATTR_INT)->i = v; }

void build_ints(Build *b, Node *n, const char *attr, const int64_t *v, int count) {
  Attr *a = attr_of(n, attr, ATTR_INTS);
  a->ints = ctx_copy(b->c, v, sizeof *v * (size_t)count);
  a->n = count;
}

Tensor *build_done(Build *b, Node *n) {
  if (!b->failed && !op_infer(b->c, n)) b->failed = true;
  return n->out[0];
}

Tensor *build_1(Build *b, const char *op, Tensor *x) { return build_done(b, build_node(b, op, &x, 1, 1)); }
Tensor *build_2(Build *b, const char *op, Tensor *x, Tensor *y) {
  return build_done(b, build_node(b, op, (Tensor *[]){ x, y }, 2, 1));
}

Tensor *build_3(Build *b, const char *op, Tensor *x, Tensor *y, Tensor *z) {
  return build_done(b, build_node(b, op, (Tensor *[]){ x, y, z }, 3, 1));
}

Tensor *build_indices(Build *b, const int64_t *v, int n) {
  int64_t count = n;
  return graph_const(b->g, "indices", DT_I64, &count, 1, ctx_copy(b->c, v, sizeof *v * (size_t)n));
}

Tensor *build_scalar(Build *b, DType t, double v) {
  void *bytes = ctx_alloc(b->c, 16);
  if (dtype_is_float(t)) dtype_store_f(t, bytes, v);
  else dtype_store_i(t, bytes, (int64_t)v);
  return graph_const(b->g, "scalar", t, NULL, 0, bytes);
}

static Tensor *sliced(Build *b, Tensor *x, int axis, int64_t from, int64_t to, int64_t step) {
  int64_t at = axis;
  Tensor *in[] = { x, build_indices(b, &from, 1), build_indices(b, &to, 1), build_indices(b, &at, 1),
                   build_indices(b, &step, 1) };
  return build_done(b, build_node(b, "Slice", in, 5, 1));
}

Tensor *build_slice(Build *b, Tensor *x, int axis, int64_t from, int64_t to) { return sliced(b, x, axis, from, to, 1); }
Tensor *build_reverse(Build *b, Tensor *x, int axis) { return sliced(b, x, axis, -1, INT64_MIN, -1); }
Tensor *build_squeeze(Build *b, Tensor *x, int axis) {
  return build_2(b, "Squeeze", x, build_indices(b, (int64_t[]){ axis }, 1));
}
Tensor *build_unsqueeze(Build *b, Tensor *x, int axis) {
  return build_2(b, "Unsqueeze", x, build_indices(b, (int64_t[]){ axis }, 1));
}

Tensor *build_transpose(Build *b, Tensor *x, const int64_t *perm, int n) {
  Node *t = build_node(b, "Transpose", &x, 1, 1);
  build_ints(b, t, "perm", perm, n);
  return build_done(b, t);
}

Tensor *build_concat(Build *b, Tensor *const *x, int n, int axis) {
  if (n == 1) return x[0];
  Node *t = build_node(b, "Concat", x, n, 1);
  build_int(t, "axis", axis);
  return build_done(b, t);
}

void build_replace(Build *b, int output, Tensor *by) {
  Tensor *old = b->oc->node->out[output];
  tensor_replace(b->g, old, by);
  graph_rename(b->g, by, old->name);
}
