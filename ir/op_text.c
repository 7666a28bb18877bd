/* op_text.c - the classes whose computes are text: ELEM (with NumPy broadcasting) and REDUCE.
 *
 * Names in the text are the operands and attributes of the row; has_NAME tells whether an optional operand is there,
 * NAME_VALUE whether a string attribute has that value, is_float whether the type T is; zero, one and bits (its width)
 * are of that type. An ELEM row with a variadic operand folds left: its text combines a and b, and the second text
 * makes the result from r and the number n of operands. 16-bit floats are computed in f32 and rounded once. */
#include "op_impl.h"

#include "lex.h"

/* ---- names ---- */

static DType compute_type(DType t) { return dtype_is_float(t) && dtype_info[t].bits < 32 ? dtype_info[t].acc : t; }

static void name(OpCtx *oc, Scope *s, const char *text, Expr *e) { map_set(&s->lets, KEY(ctx_intern(oc->c, text)), e); }

static void name_choices(OpCtx *oc, Scope *s, const OpAttr *row, const Attr *a) {
  for (const char *p = row->choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
    int n = (int)strcspn(p, "|");
    bool is = a->kind == ATTR_STRING && (int)strlen(a->s) == n && !strncmp(a->s, p, (size_t)n);
    name(oc, s, ctx_printf(oc->c, "%s_%.*s", row->name, n, p), ex_bool(oc->c, is));
  }
}

/* What the type variable T of the row is computed in. */
static DType main_type(const Node *n) {
  DType t = row_type(n, &(OpParam){ .var = 'T', .type = "any" });
  return compute_type(t == DT_NONE ? n->in[0]->dtype : t);
}

static Scope scope_of(OpCtx *oc) {
  const Node *n = oc->node;
  Scope s = scope_new(oc->c);
  DType t = main_type(n);
  for (int i = 0; i < n->op->nattr; i++) {
    const Attr *a = &n->attrs[i];
    if (a->kind == ATTR_INT) name(oc, &s, a->name, ex_int(oc->c, a->i));
    if (a->kind == ATTR_FLOAT) name(oc, &s, a->name, ex_const(oc->c, dtype_is_float(t) ? t : DT_F32, a->f));
    name_choices(oc, &s, &n->op->attr[i], a);
  }
  name(oc, &s, "is_float", ex_bool(oc->c, dtype_is_float(t)));
  name(oc, &s, "zero", ex_const_i(oc->c, t, 0));
  name(oc, &s, "one", ex_const_i(oc->c, t, 1));
  name(oc, &s, "bits", ex_const_i(oc->c, t, dtype_info[t].bits));
  return s;
}

static Expr *parse_as(OpCtx *oc, Scope *s, const char *text, DType t) {
  Lexer lx = lex_new(oc->c, text);
  Expr *e = parse_expr_as(&lx, s, t);
  if (lx.kind != TOK_END) lex_fail(&lx, "more text than one expression");
  return e;
}

/* ---- ELEM ---- */

bool elem_shape(OpCtx *oc) {
  Node *n = oc->node;
  Expr *shape[MAX_RANK];
  int rank = 0;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]) OP_BAIL(op_broadcast(oc, shape, rank, n->in[i]->shape, n->in[i]->rank, shape, &rank));
  op_out(oc, 0, row_type(n, &n->op->out[0]), rank, shape);
  return true;
}

static Expr *operand(OpCtx *oc, const Stage *st, int i) {
  Expr *at[MAX_RANK];
  op_axes_exprs(st, at);
  Expr *x = op_in_bcast(oc, i, at, st->out->rank);
  return ex_cast(oc->c, compute_type((DType)x->dtype), x);
}

static Expr *folded(OpCtx *oc, const Stage *st, Scope *s) {
  const Op *op = oc->node->op;
  Expr *r = operand(oc, st, 0);
  DType t = (DType)r->dtype;
  for (int i = 1; i < oc->node->nin; i++) {
    name(oc, s, "a", r);
    name(oc, s, "b", operand(oc, st, i));
    r = parse_as(oc, s, op->text, t);
  }
  if (!op->text2) return r;
  name(oc, s, "r", r);
  name(oc, s, "n", ex_const_i(oc->c, t, oc->node->nin));
  return parse_as(oc, s, op->text2, t);
}

void elem_compute(OpCtx *oc) {
  const Node *n = oc->node;
  const Op *op = n->op;
  Stage *st = op_stage(oc, n->out[0]);
  Scope s = scope_of(oc);
  if (op->in[0].variadic) {
    op_done(oc, st, folded(oc, st, &s));
    return;
  }
  for (int i = 0; i < op->nin; i++) {
    bool has = op_has_input(n, i);
    if (op->in[i].optional) name(oc, &s, ctx_printf(oc->c, "has_%s", op->in[i].name), ex_bool(oc->c, has));
    name(oc, &s, op->in[i].name, has ? operand(oc, st, i) : ex_const_i(oc->c, main_type(n), 0));
  }
  op_done(oc, st, parse_as(oc, &s, op->text, compute_type(n->out[0]->dtype)));
}

/* ---- REDUCE ---- */

/* Which axes go: those of input 1; if it is absent or empty all of them, or none with noop_with_empty_axes. */
bool reduce_axes(OpCtx *oc, bool *mask) {
  int rank = oc->node->in[0]->rank, n;
  OP_BAIL(op_input_axes(oc, 1, rank, mask, &n));
  for (int d = 0; d < rank && n <= 0; d++) mask[d] = !op_attr_i(oc->node, "noop_with_empty_axes");
  return true;
}

bool reduce_shape(OpCtx *oc) {
  const Tensor *x = oc->node->in[0];
  bool mask[MAX_RANK];
  Expr *shape[MAX_RANK];
  int rank = 0;
  OP_BAIL(reduce_axes(oc, mask));
  for (int d = 0; d < x->rank; d++)
    if (!mask[d]) shape[rank++] = x->shape[d];
    else if (op_attr_i(oc->node, "keepdims")) shape[rank++] = ex_int(oc->c, 1);
  op_out(oc, 0, x->dtype, rank, shape);
  return true;
}

void reduce_compute(OpCtx *oc) {
  Ctx *c = oc->c;
  const Op *op = oc->node->op;
  Tensor *x = oc->node->in[0];
  bool mask[MAX_RANK], keep = op_attr_i(oc->node, "keepdims");
  Expr *at[MAX_RANK], *count = ex_int(c, 1);
  Sym *axes[MAX_RANK];
  int naxes = 0, o = 0;
  Stage *st = op_stage(oc, oc->node->out[0]);
  reduce_axes(oc, mask);
  for (int d = 0; d < x->rank; d++) {
    if (!mask[d]) {
      at[d] = st->axes[o++]->self;
      continue;
    }
    axes[naxes] = op_reduce_axis(oc, ctx_printf(c, "r%d", d), x->shape[d]);
    at[d] = axes[naxes++]->self;
    count = ex_mul(c, count, x->shape[d]);
    o += keep;
  }
  Scope s = scope_of(oc);
  Expr *v = op_in(oc, 0, at);
  if (op->combiner == RED_SUM || op->combiner == RED_PROD) v = op_acc(oc, v);
  DType t = (DType)v->dtype;
  name(oc, &s, "x", v);
  Expr *r = ex_reduce(c, op->combiner, parse_as(oc, &s, op->text, t), axes, naxes);
  if (op->text2) {
    name(oc, &s, "r", r);
    name(oc, &s, "n", ex_cast(c, t, count));
    r = parse_as(oc, &s, op->text2, t);
  }
  op_done(oc, st, r);
}
