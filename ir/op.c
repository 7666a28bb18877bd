/* op.c - the operator table: rows from ops/ *.def, parsed when a compile first asks for one; what each class means for inference,
 * compute and expansion. */
#include "op_impl.h"

#include "ctx.h"

/* ---- rows ---- */

#define EXPAND(name, opset, sig, attrs, shape, expand) bool shape(OpCtx *oc); bool expand(OpCtx *oc);
#define MOVE(name, opset, sig, attrs, shape, index) bool shape(OpCtx *oc); Expr *index(OpCtx *oc, Sym *const *axes);
#define OP(name, opset, sig, attrs, shape, compute) bool shape(OpCtx *oc); void compute(OpCtx *oc);
#define REGION(name, opset, sig, attrs, shape) bool shape(OpCtx *oc);
#include "ops/compute.def"
#undef EXPAND
#undef MOVE
#undef OP
#undef REGION

typedef struct { Op op; const char *signature, *attrs; } Row;

#define REDUCE_ATTRS "keepdims:i=1 noop_with_empty_axes:i=0"
#define ROW(id, version, class, sig, attrs, ...) { { .name = #id, .domain = "", .opset = version, .cls = class, __VA_ARGS__ }, sig, attrs },
#define ELEM(id, opset, sig, attrs, body) ROW(id, opset, OPC_ELEM, sig, attrs, .text = body)
#define FOLD(id, opset, sig, body, result) ROW(id, opset, OPC_ELEM, sig, "", .text = body, .text2 = result)
#define REDUCE(id, opset, type, body, how, result) \
  ROW(id, opset, OPC_REDUCE, "data:" type " axes?:i64", REDUCE_ATTRS, .text = body, .combiner = how, .text2 = result)
#define EXPAND(id, opset, sig, attrs, shape_of, expansion) ROW(id, opset, OPC_EXPAND, sig, attrs, .shape = shape_of, .expand = expansion)
#define MOVE(id, opset, sig, attrs, shape_of, index_of) ROW(id, opset, OPC_MOVE, sig, attrs, .shape = shape_of, .index = index_of)
#define OP(id, opset, sig, attrs, shape_of, compute_of) ROW(id, opset, OPC_OP, sig, attrs, .shape = shape_of, .compute = compute_of)
#define REGION(id, opset, sig, attrs, shape_of) ROW(id, opset, OPC_REGION, sig, attrs, .shape = shape_of)

static const Row rows[] = {
#include "ops/elementwise.def"
#include "ops/reduce.def"
#include "ops/compute.def"
};

/* ---- the table of a compile ---- */

typedef struct { Op ops[COUNT(rows)]; Map by_name; } Table;

static Table *table(Ctx *c) {
  Table *t = c->slots[SLOT_OPS];
  if (t) return t;
  c->slots[SLOT_OPS] = t = NEW(c, Table);
  t->by_name = map_new(c);
  for (int i = 0; i < COUNT(rows); i++) {
    t->ops[i] = rows[i].op;
    row_parse(c, &t->ops[i], rows[i].signature, rows[i].attrs);
    map_set(&t->by_name, KEY(ctx_intern(c, t->ops[i].name)), &t->ops[i]);
  }
  return t;
}

const Op *op_find(Ctx *c, const char *domain, const char *name) {
  if (domain && *domain && strcmp(domain, "ai.onnx")) return NULL;
  return map_get(&table(c)->by_name, KEY(ctx_intern(c, name)));
}

const Op *op_at(Ctx *c, int i) { return i < COUNT(rows) ? &table(c)->ops[i] : NULL; }

/* ---- inference ---- */

/* Inputs whose producers failed say nothing here: the failure was told there. */
static bool inputs_known(OpCtx *oc) {
  const Node *n = oc->node;
  for (int i = 0; i < n->nin; i++) {
    const Tensor *t = n->in[i];
    if (!t || (t->dtype != DT_NONE && t->rank >= 0)) continue;
    if (t->def) return false;
    return op_error(oc, E0413, "give its shape with --shape", "the rank of input '%s' is not known",
                    diag_quote(oc->c, t->name));
  }
  return true;
}

static bool shape_of_class(OpCtx *oc) {
  const Op *op = oc->node->op;
  switch (op->cls) {
  case OPC_ELEM: return elem_shape(oc);
  case OPC_REDUCE: return reduce_shape(oc);
  default: return op->shape(oc);
  }
}

/* Dimensions below 0 are an error where they are known, and assumed away where the model's dimensions decide. */
static bool sizes_sane(OpCtx *oc) {
  const Node *n = oc->node;
  for (int i = 0; i < n->nout; i++) {
    const Tensor *t = n->out[i];
    if (!t) continue;
    if (t->rank < 0) diag_bug(oc->c, "%s gives output %d no shape", n->op->name, i);
    for (int d = 0; d < t->rank; d++) {
      if (expr_range(oc->c, t->shape[d]).max < 0)
        return op_error(oc, E0411, NULL, "%s: dimension %d of the result would be %s", op_inputs_text(oc), d,
                        expr_text(oc->c, t->shape[d]));
      op_assume(oc, ex_le(oc->c, ex_int(oc->c, 0), t->shape[d]));
    }
  }
  return true;
}

bool op_infer(Ctx *c, Node *n) {
  OpCtx oc = { .c = c, .node = n };
  ctx_diags(c)->node = n;
  if (!inputs_known(&oc) || !row_check(&oc) || !shape_of_class(&oc) || !sizes_sane(&oc)) return false;
  known_infer(&oc);
  return true;
}

/* ---- computes ---- */

static void move_compute(OpCtx *oc) {
  Stage *st = op_stage(oc, oc->node->out[0]);
  op_done(oc, st, oc->node->op->index(oc, st->axes));
}

bool op_compute(Ctx *c, Node *n, OpCtx *oc) {
  oc->c = c;
  oc->node = n;
  switch (n->op->cls) {
  case OPC_ELEM: elem_compute(oc); return true;
  case OPC_REDUCE: reduce_compute(oc); return true;
  case OPC_MOVE: move_compute(oc); return true;
  case OPC_OP: n->op->compute(oc); return true;
  default: return false;
  }
}

bool op_expand(Ctx *c, Node *n) {
  OpCtx oc = { .c = c, .node = n };
  ctx_diags(c)->node = n;
  if (n->op->cls != OPC_EXPAND) diag_bug(c, "%s is no operator to expand", n->op->name);
  if (!n->op->expand(&oc)) return false;
  node_erase(n->graph, n);
  return true;
}
