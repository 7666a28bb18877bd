/* op_util.c - what operators' functions are written with: attributes, shapes, loads, stages. */
#include "op_impl.h"

/* ---- errors ---- */

bool op_error(OpCtx *oc, DiagCode code, const char *hint, const char *fmt, ...) {
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  diag_error(oc->c, code, oc->node, hint, "%s", text);
  return false;
}

const char *op_shape_text(Ctx *c, Expr *const *dims, int rank) {
  Str s = str_new(c);
  str_add(&s, "[");
  for (int i = 0; i < rank; i++) str_add(&s, "%s%s", i ? "," : "", expr_text(c, dims[i]));
  str_add(&s, "]");
  return s.s;
}

const char *op_inputs_text(OpCtx *oc) {
  Str s = str_new(oc->c);
  const Node *n = oc->node;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i])
      str_add(&s, "%s%s %s", i ? ", " : "", diag_quote(oc->c, n->in[i]->name), tensor_type_text(oc->c, n->in[i]));
  return s.s ? s.s : "";
}

/* ---- attributes ---- */

const Attr *op_attr(const Node *n, const char *name) {
  for (int i = 0; i < n->op->nattr; i++)
    if (!strcmp(n->op->attr[i].name, name)) return &n->attrs[i];
  diag_bug(n->graph->ctx, "operator %s has no attribute '%s'", n->op->name, name);
}

int64_t op_attr_i(const Node *n, const char *name) { return op_attr(n, name)->i; }
double op_attr_f(const Node *n, const char *name) { return op_attr(n, name)->f; }
const char *op_attr_s(const Node *n, const char *name) { return op_attr(n, name)->s; }

bool op_attr_is(const Node *n, const char *name, const char *value) {
  const char *s = op_attr(n, name)->s;
  return s && !strcmp(s, value);
}

int op_attr_len(const Node *n, const char *name) {
  const Attr *a = op_attr(n, name);
  return a->kind == ATTR_NONE ? -1 : a->n;
}

int64_t op_attr_at(const Node *n, const char *name, int i, int64_t dflt) {
  const Attr *a = op_attr(n, name);
  return a->kind == ATTR_INTS && i < a->n ? a->ints[i] : dflt;
}

/* ---- operands ---- */

bool op_has_input(const Node *n, int i) { return i < n->nin && n->in[i]; }
Tensor *op_input(const Node *n, int i) { return i < n->nin ? n->in[i] : NULL; }
bool op_wants(const Node *n, int i) { return i < n->nout && n->out[i]; }

bool op_rank(OpCtx *oc, int input, int lo, int hi) {
  const Tensor *t = oc->node->in[input];
  if (t->rank >= lo && (hi < 0 || t->rank <= hi)) return true;
  const char *want = hi < 0     ? ctx_printf(oc->c, "at least %d", lo)
                     : lo == hi ? ctx_printf(oc->c, "%d", lo)
                                : ctx_printf(oc->c, "%d to %d", lo, hi);
  return op_error(oc, E0411, NULL, "%s %s has rank %d; it must be %s", diag_quote(oc->c, t->name),
                  tensor_type_text(oc->c, t), t->rank, want);
}

void op_out(OpCtx *oc, int i, DType t, int rank, Expr *const *shape) {
  if (!op_wants(oc->node, i)) return;
  Tensor *out = oc->node->out[i];
  bool same = out->dtype == t && out->rank == rank;
  for (int d = 0; d < rank && same; d++) same = out->shape[d] == shape[d];
  if (same) return;
  if (rank > MAX_RANK) diag_fail(oc->c, E0602, oc->node, NULL, "a result of rank %d; the most is %d", rank, MAX_RANK);
  out->dtype = t;
  out->rank = rank;
  out->shape = NEW_ARRAY(oc->c, Expr *, rank ? rank : 1);
  if (rank) memcpy(out->shape, shape, sizeof(*shape) * (size_t)rank);
}

bool op_like(OpCtx *oc, int out, int input) {
  const Tensor *t = oc->node->in[input];
  op_out(oc, out, t->dtype, t->rank, t->shape);
  return true;
}

/* ---- axes ---- */

bool op_axis(OpCtx *oc, int64_t axis, int rank, int *out) {
  int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    return op_error(oc, E0412, NULL, "axis %lld is outside [%d, %d)", (long long)axis, -rank, rank);
  *out = (int)a;
  return true;
}

bool op_axes_mask(OpCtx *oc, const int64_t *axes, int n, int rank, bool *mask) {
  memset(mask, 0, sizeof *mask * MAX_RANK);
  for (int i = 0; i < n; i++) {
    int a = 0;
    OP_BAIL(op_axis(oc, axes[i], rank, &a));
    if (mask[a]) return op_error(oc, E0412, NULL, "axis %lld is given twice", (long long)axes[i]);
    mask[a] = true;
  }
  return true;
}

bool op_input_axes(OpCtx *oc, int input, int rank, bool *mask, int *n) {
  int64_t axes[MAX_RANK];
  *n = -1;
  memset(mask, 0, sizeof *mask * MAX_RANK);
  if (!op_has_input(oc->node, input)) return true;
  if (!op_known_ints(oc, input, axes, MAX_RANK, n))
    return op_error(oc, E0413, NULL, "the axes in input '%s' are not known before the model runs",
                    diag_quote(oc->c, oc->node->in[input]->name));
  return op_axes_mask(oc, axes, *n, rank, mask);
}

/* ---- known inputs ---- */

/* Sizes do not overflow, so narrowing one and widening it again gives the same. */
static Expr *as_index(Ctx *c, Expr *e) {
  if (e->op == EX_CAST && dtype_is_int((DType)e->dtype) && dtype_is_int((DType)e->a[0]->dtype))
    return as_index(c, e->a[0]);
  return ex_cast(c, DT_I64, e);
}

static int64_t count_of(const Tensor *t) {
  int64_t dims[MAX_RANK], n = 1;
  if (!tensor_dims(t, dims)) return -1;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(n, dims[i], &n)) return -1;
  return n;
}

static Expr *known_element(Ctx *c, const Tensor *t, int i) {
  if (t->known) return t->known[i];
  if (dtype_is_float(t->dtype)) return ex_const(c, t->dtype, tensor_const_float(t, i));
  return ex_const_i(c, t->dtype, tensor_const_int(t, i));
}

bool op_elements(OpCtx *oc, int input, int max, Expr ***v, int *n) {
  const Tensor *t = oc->node->in[input];
  int64_t count = count_of(t);
  if ((!t->data && !t->known) || count < 0 || count > max) return false;
  *n = (int)count;
  *v = NEW_ARRAY(oc->c, Expr *, count + 1);
  for (int i = 0; i < *n; i++) (*v)[i] = known_element(oc->c, t, i);
  return true;
}

bool op_known_ints(OpCtx *oc, int input, int64_t *v, int max, int *n) {
  Expr **e;
  if (!op_elements(oc, input, max, &e, n)) return false;
  for (int i = 0; i < *n; i++)
    if (!ex_is_int(as_index(oc->c, e[i]), &v[i])) return false;
  return true;
}

bool op_known_exprs(OpCtx *oc, int input, Expr ***v, int *n) {
  const Tensor *t = oc->node->in[input];
  if (!op_elements(oc, input, 1 << 16, v, n))
    return op_error(oc, E0413, "the shape depends on data; --shape or constant inputs may settle it",
                    "input '%s' (%s) must be known before the model runs", diag_quote(oc->c, t->name),
                    tensor_type_text(oc->c, t));
  for (int i = 0; i < *n; i++) (*v)[i] = as_index(oc->c, (*v)[i]);
  return true;
}

/* ---- dimensions ---- */

bool op_same_dim(Ctx *c, const Expr *a, const Expr *b) {
  if (a == b) return true;
  if (ex_is_const(a) && ex_is_const(b)) return false;
  return expr_proves(c, ex_eq(c, (Expr *)a, (Expr *)b));
}

Expr *op_product(Ctx *c, Expr *const *dims, int n) {
  Expr *p = ex_int(c, 1);
  for (int i = 0; i < n; i++) p = ex_mul(c, p, dims[i]);
  return p;
}

static bool is_one(Ctx *c, Expr *e) {
  return ex_equals_int(e, 1) || (!ex_is_const(e) && expr_proves(c, ex_eq(c, e, ex_int(c, 1))));
}

/* ---- assumptions: what must hold of the model's dimensions for the graph to make sense; every run checks it ---- */

typedef struct { const Graph *top; bool ok; } Decidable;

static void check_symbol(const Expr *e, void *user) {
  Decidable *k = user;
  bool dim = false;
  if (e->op == EX_LOAD || e->op == EX_REDUCE) k->ok = false;
  if (e->op != EX_SYM) return;
  for (int i = 0; i < k->top->dims.n; i++) dim |= k->top->dims.v[i] == e->u.sym;
  k->ok &= dim;
}

void op_assume(OpCtx *oc, Expr *cond) {
  Graph *g = oc->node->graph;
  if (ex_is_const(cond) || expr_proves(oc->c, cond)) return;
  Decidable k = { g, true };
  while (k.top->parent) k.top = k.top->parent;
  expr_visit(cond, check_symbol, &k);
  for (int i = 0; i < g->assumed.n; i++) k.ok &= g->assumed.v[i] != cond;
  if (k.ok) vec_push(oc->c, &g->assumed, cond);
}

static bool simpler(const Expr *a, const Expr *b) {
  if (ex_is_const(a) != ex_is_const(b)) return ex_is_const(a);
  if ((a->op == EX_SYM) != (b->op == EX_SYM)) return a->op == EX_SYM;
  return a->size <= b->size;
}

Expr *op_meet(OpCtx *oc, Expr *a, Expr *b) {
  if (!op_same_dim(oc->c, a, b)) {
    Expr *same = ex_eq(oc->c, a, b);
    if (ex_is_const(same)) return NULL;
    op_assume(oc, same);
  }
  return simpler(a, b) ? a : b;
}

bool op_not_empty(OpCtx *oc, Expr *dim, Expr *reads) {
  Expr *some = ex_or(oc->c, ex_le(oc->c, ex_int(oc->c, 1), dim), ex_eq(oc->c, reads, ex_int(oc->c, 0)));
  if (ex_is_const(some) && !some->u.i)
    return op_error(oc, E0411, NULL, "%s: elements of an empty dimension are asked for", op_inputs_text(oc));
  op_assume(oc, some);
  return true;
}

/* One dimension of a broadcast; NULL if the two cannot meet. Sizes that are not provably 1 are taken as equal. */
static Expr *broadcast_dim(OpCtx *oc, Expr *a, Expr *b) {
  if (a == b || is_one(oc->c, b)) return a;
  return is_one(oc->c, a) ? b : op_meet(oc, a, b);
}

bool op_broadcast(OpCtx *oc, Expr *const *a, int ra, Expr *const *b, int rb, Expr **out, int *rank) {
  Expr *r[MAX_RANK];
  int n = MAX(ra, rb);
  for (int i = 1; i <= n; i++) {   /* from the last dimension on */
    Expr *x = i <= ra ? a[ra - i] : NULL, *y = i <= rb ? b[rb - i] : NULL;
    r[n - i] = !x ? y : !y ? x : broadcast_dim(oc, x, y);
    if (!r[n - i])
      return op_error(oc, E0411, NULL, "%s: shapes %s and %s do not broadcast: dimensions %s and %s differ",
                      op_inputs_text(oc), op_shape_text(oc->c, a, ra), op_shape_text(oc->c, b, rb), expr_text(oc->c, x),
                      expr_text(oc->c, y));
  }
  if (n) memmove(out, r, sizeof *r * (size_t)n);
  *rank = n;
  return true;
}

/* ---- stages ---- */

Tensor *op_temp(OpCtx *oc, const char *name, DType t, int rank, Expr *const *shape) {
  const Node *n = oc->node;
  const char *base = "";
  for (int i = n->nout - 1; i >= 0; i--)
    if (n->out[i]) base = n->out[i]->name;
  return tensor_new(oc->c, ctx_printf(oc->c, "%s.%s", base, name), t, rank, shape);
}

Stage *op_stage(OpCtx *oc, Tensor *out) {
  Stage *st = NEW(oc->c, Stage);
  st->out = out;
  st->axes = NEW_ARRAY(oc->c, Sym *, out->rank + 1);
  for (int i = 0; i < out->rank; i++) {
    char name[16];
    snprintf(name, sizeof name, "i%d", i);
    st->axes[i] = sym_axis(oc->c, SYM_AXIS, name, out->shape[i]);
  }
  vec_push(oc->c, &oc->stages, st);
  return st;
}

void op_done(OpCtx *oc, Stage *st, Expr *body) { st->body = ex_cast(oc->c, st->out->dtype, body); }

void op_axes_exprs(const Stage *st, Expr **index) {
  for (int i = 0; i < st->out->rank; i++) index[i] = st->axes[i]->self;
}

Sym *op_reduce_axis(OpCtx *oc, const char *name, Expr *extent) { return sym_axis(oc->c, SYM_REDUCE, name, extent); }

/* ---- loads ---- */

Expr *op_in(OpCtx *oc, int input, Expr *const *index) {
  Tensor *t = oc->node->in[input];
  return ex_load(oc->c, t, index, t->rank);
}

bool op_one(OpCtx *oc, int input) {
  if (!op_has_input(oc->node, input)) return true;
  if (op_meet(oc, tensor_elements(oc->c, oc->node->in[input]), ex_int(oc->c, 1))) return true;
  return op_error(oc, E0411, NULL, "%s: input '%s' must have one element", op_inputs_text(oc),
                  oc->node->op->in[input].name);
}

Expr *op_scalar(OpCtx *oc, int input) {
  Expr *at[MAX_RANK];
  for (int i = 0; i < MAX_RANK; i++) at[i] = ex_int(oc->c, 0);
  return op_in(oc, input, at);
}

Expr *op_in_bcast(OpCtx *oc, int input, Expr *const *axes, int rank) {
  Tensor *t = oc->node->in[input];
  Expr *at[MAX_RANK];
  for (int i = 0; i < t->rank; i++) at[i] = is_one(oc->c, t->shape[i]) ? ex_int(oc->c, 0) : axes[rank - t->rank + i];
  return ex_load(oc->c, t, at, t->rank);
}

static Expr *unless_proved(Ctx *c, Expr *all, Expr *cond) {
  if (ex_is_const(cond) ? cond->u.i : expr_proves(c, cond)) return all;
  return all ? ex_and(c, all, cond) : cond;
}

Expr *op_in_pad(OpCtx *oc, int input, Expr *const *index, Expr *fill) {
  Ctx *c = oc->c;
  const Tensor *t = oc->node->in[input];
  Expr *inside = NULL;
  for (int i = 0; i < t->rank; i++) {
    inside = unless_proved(c, inside, ex_le(c, ex_int(c, 0), index[i]));
    inside = unless_proved(c, inside, ex_lt(c, index[i], t->shape[i]));
  }
  Expr *load = op_in(oc, input, index);
  return inside ? ex_select(c, inside, load, ex_cast(c, (DType)load->dtype, fill)) : load;
}

Expr *op_clamp(Ctx *c, Expr *x, Expr *lo, Expr *hi) { return ex_max(c, ex_min(c, x, hi), lo); }

Expr *op_index_of_data(OpCtx *oc, Expr *index, Expr *extent) {
  Ctx *c = oc->c;
  Expr *i = ex_cast(c, DT_I64, index), *zero = ex_int(c, 0);
  Expr *from_end = ex_select(c, ex_lt(c, i, zero), ex_add(c, i, extent), i);
  return op_clamp(c, from_end, zero, ex_sub(c, extent, ex_int(c, 1)));
}

/* ---- types ---- */

DType op_acc_type(const OpCtx *oc, int input) { return dtype_info[oc->node->in[input]->dtype].acc; }
Expr *op_acc(OpCtx *oc, Expr *x) { return ex_cast(oc->c, dtype_info[x->dtype].acc, x); }

/* ---- row-major numbers ---- */

Expr *op_flat(Ctx *c, Expr *const *index, Expr *const *dims, int rank) {
  Expr *flat = ex_int(c, 0);
  for (int i = 0; i < rank; i++)
    if (!ex_equals_int(dims[i], 1)) flat = ex_add(c, ex_mul(c, flat, dims[i]), index[i]);
  return flat;
}

void op_unflat(Ctx *c, Expr *flat, Expr *const *dims, int rank, Expr **index) {
  int first = 0;                   /* that is not 1 */
  while (first < rank && ex_equals_int(dims[first], 1)) index[first++] = ex_int(c, 0);
  for (int i = rank - 1; i > first; i--) {
    index[i] = ex_equals_int(dims[i], 1) ? ex_int(c, 0) : ex_mod(c, flat, dims[i]);
    flat = ex_div(c, flat, dims[i]);
  }
  if (first < rank) index[first] = flat;
}
