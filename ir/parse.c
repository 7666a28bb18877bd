/* parse.c - reads the text of graphs and kernels that print.c writes (its head shows both forms).
 *
 * Beyond what is printed a hand may leave out types that inference finds again, and put attributes in any order.
 * Whatever is wrong is told with line and column; what comes out passes graph_verify or kernel_verify. Dimensions are
 * named at the end of the head, behind the types that use them, so heads are read twice: names first.
 */
#include <math.h>
#include <stdlib.h>

#include "blob.h"
#include "op.h"
#include "text.h"

TextReader text_reader(Ctx *c, const char *text) {
  return (TextReader){ .c = c, .lx = lex_new(c, text), .scope = scope_new(c) };
}

void text_deeper(TextReader *r) {
  if (++r->depth > TEXT_DEPTH) lex_fail(&r->lx, "nested deeper than %d levels", TEXT_DEPTH);
}

/* ---- dimensions ---- */

/* From behind the opening parenthesis to the first ';' of the same level; false if there is none. */
static bool skip_to_dims(Lexer *lx) {
  int depth = 0;
  for (; lx->kind != TOK_END; lex_next(lx)) {
    if (lex_is(lx, "(") || lex_is(lx, "[") || lex_is(lx, "{")) depth++;
    if (lex_is(lx, ")") || lex_is(lx, "]") || lex_is(lx, "}")) depth--;
    if (depth < 0) return false;
    if (depth == 0 && lex_is(lx, ";")) return true;
  }
  return false;
}

static Sym *read_dim(TextReader *r) {
  const char *name = lex_name(&r->lx);
  int64_t min = 1, max = DIM_MAX, multiple = 1;
  if (map_get(&r->scope.syms, KEY(name))) lex_fail(&r->lx, "dimension '%s' is named twice", diag_quote(r->c, name));
  if (lex_accept(&r->lx, "=")) {
    min = lex_int(&r->lx);
    lex_expect(&r->lx, "..");
    max = lex_int(&r->lx);
    if (lex_accept(&r->lx, "%")) multiple = lex_int(&r->lx);
    if (min > max || multiple < 1) lex_fail(&r->lx, "dimension '%s' has no values", diag_quote(r->c, name));
  }
  Sym *s = sym_new(r->c, SYM_DIM, name, min, max);
  s->name = name;                              /* as the text has it, whatever else the compile knows by this name */
  s->multiple = multiple;
  map_set(&r->scope.syms, KEY(name), s);
  return s;
}

void text_read_dims(TextReader *r, SymList *lists, int n) {
  Lexer head = r->lx;
  if (skip_to_dims(&r->lx))
    for (int i = 0; i < n && lex_accept(&r->lx, ";"); i++)
      while (!lex_is(&r->lx, ")") && !lex_is(&r->lx, ";")) {
        vec_push(r->c, &lists[i], read_dim(r));
        if (!lex_accept(&r->lx, ",")) break;
      }
  r->lx = head;
}

void text_skip_dims(TextReader *r) {
  if (lex_is(&r->lx, ";"))
    while (!lex_is(&r->lx, ")")) lex_next(&r->lx);
  lex_expect(&r->lx, ")");
}

/* ---- types and constants ---- */

/* T[d, ...] with ? for what is not known, and the layout behind it. */
static void read_type(TextReader *r, Tensor *t) {
  Expr *shape[MAX_RANK];
  int rank = 0;
  t->dtype = lex_accept(&r->lx, "?") ? DT_NONE : lex_dtype(&r->lx);
  lex_expect(&r->lx, "[");
  if (lex_accept(&r->lx, "?")) rank = -1;
  else if (!lex_is(&r->lx, "]"))
    do {
      if (rank == MAX_RANK) lex_fail(&r->lx, "more than %d dimensions", MAX_RANK);
      shape[rank++] = parse_expr_as(&r->lx, &r->scope, DT_I64);
    } while (lex_accept(&r->lx, ","));
  lex_expect(&r->lx, "]");
  t->rank = rank;
  if (rank >= 0) t->shape = ctx_copy(r->c, shape, sizeof *shape * (size_t)rank);
  if (!lex_accept(&r->lx, "layout")) return;
  Lexer at = r->lx;
  t->layout = layout_parse(r->c, lex_name(&r->lx));
  for (int i = 0; i < t->layout->n; i++)
    if (t->layout->part[i].dim >= rank) lex_fail(&at, "a layout of more than %d dimensions", rank);
}

static double read_real(TextReader *r, bool minus) {
  double v = r->lx.f;
  if (lex_accept(&r->lx, "inf")) v = INFINITY;
  else if (lex_accept(&r->lx, "nan")) v = NAN;
  else if (r->lx.kind != TOK_INT && r->lx.kind != TOK_FLOAT) lex_fail(&r->lx, "expected a number");
  else {
    if (r->lx.single) v = (float)v;
    lex_next(&r->lx);
  }
  return minus ? -v : v;
}

static void read_element(TextReader *r, DType t, void *to) {
  bool minus = lex_accept(&r->lx, "-");
  if (dtype_is_float(t)) {
    dtype_store_f(t, to, read_real(r, minus));
    return;
  }
  if (r->lx.kind != TOK_INT) lex_fail(&r->lx, "expected an integer");
  int64_t v = minus ? (int64_t)-(uint64_t)r->lx.i : r->lx.i;
  dtype_store_i(t, to, v);
  if (dtype_load_i(t, to) != v || (t == DT_I64 && v != 0 && (v < 0) != minus))
    lex_fail(&r->lx, "the number does not fit %s", dtype_info[t].name);
  lex_next(&r->lx);
}

static int64_t count_elements(TextReader *r, const Tensor *t) {
  int64_t dims[MAX_RANK], n = 1;
  if (t->dtype == DT_NONE || !tensor_dims(t, dims))
    lex_fail(&r->lx, "a constant needs a type with constant dimensions");
  for (int i = 0; i < t->rank; i++)
    if (dims[i] < 0 || !mul_ok(n, dims[i], &n)) lex_fail(&r->lx, "a constant of that shape is too large");
  return n;
}

const char *text_read_string(TextReader *r) {
  if (r->lx.kind != TOK_STRING) lex_fail(&r->lx, "expected a string");
  return lex_name(&r->lx);
}

static const void *read_blob(TextReader *r, int64_t n, size_t size) {
  Lexer at = r->lx;
  const char *text = text_read_string(r);
  char *end;
  uint64_t hash = strtoull(text, &end, 16), bytes;
  if (*end || end != text + 16) lex_fail(&at, "expected the 16 digits of a hash");
  const void *found = __builtin_mul_overflow((uint64_t)n, size, &bytes) ? NULL : blob_find(r->c, hash, bytes);
  if (!found) lex_fail(&at, "the data of this constant of %lld elements is not in the text, nor in a data file beside it", (long long)n);
  return found;
}

void text_read_data(TextReader *r, Tensor *t) {
  int64_t n = count_elements(r, t);
  size_t size = (size_t)dtype_bytes(t->dtype);
  t->data = NEW(r->c, ConstData);
  t->scope = SCOPE_CONST;
  if (lex_accept(&r->lx, "splat")) {
    char *one = ctx_alloc(r->c, size);
    lex_expect(&r->lx, "(");
    read_element(r, t->dtype, one);
    lex_expect(&r->lx, ")");
    *t->data = (ConstData){ .bytes = one, .splat = true };
    return;
  }
  if (lex_accept(&r->lx, "blob")) {
    t->data->bytes = read_blob(r, n, size);
    return;
  }
  char *bytes = NULL;
  Lexer at = r->lx;
  int64_t room = 0, got = 0;
  lex_expect(&r->lx, "{");
  for (; !lex_is(&r->lx, "}"); got++) {
    if (got) lex_expect(&r->lx, ",");
    if (got == n) break;
    if (got == room) {                         /* grows with the text and not with the shape */
      char *more = ctx_alloc(r->c, (size_t)(room = MIN(n, room * 2 + 64)) * size);
      if (got) memcpy(more, bytes, (size_t)got * size);
      bytes = more;
    }
    read_element(r, t->dtype, bytes + (size_t)got * size);
  }
  if (got != n || !lex_accept(&r->lx, "}"))
    lex_fail(&at, "the type has %lld elements, the list another number", (long long)n);
  t->data->bytes = bytes ? bytes : "";
}

/* ---- graphs ---- */

static Graph *read_graph(TextReader *r, Graph *parent);

/* %name, to be made in g. */
static const char *read_new_name(TextReader *r, Graph *g) {
  lex_expect(&r->lx, "%");
  Lexer at = r->lx;
  const char *name = lex_name(&r->lx);
  if (map_get(&g->names, KEY(name))) lex_fail(&at, "%%%s is made twice", diag_quote(r->c, name));
  return name;
}

static Tensor *read_use(TextReader *r, Graph *g) {
  lex_expect(&r->lx, "%");
  Lexer at = r->lx;
  const char *name = lex_name(&r->lx);
  Tensor *t = graph_find(g, name);
  if (!t) lex_fail(&at, "%%%s is used before it is made", diag_quote(r->c, name));
  return t;
}

static int64_t *read_ints(TextReader *r, int *n) {
  VEC(int64_t) list = { 0 };
  lex_expect(&r->lx, "[");
  while (!lex_is(&r->lx, "]")) {
    if (list.n) lex_expect(&r->lx, ",");
    vec_push(r->c, &list, lex_int(&r->lx));
  }
  lex_next(&r->lx);
  *n = list.n;
  return list.v;
}

static double *read_floats(TextReader *r, int *n) {
  VEC(double) list = { 0 };
  lex_expect(&r->lx, "[");
  while (!lex_is(&r->lx, "]")) {
    if (list.n) lex_expect(&r->lx, ",");
    bool minus = lex_accept(&r->lx, "-");
    vec_push(r->c, &list, read_real(r, minus));
  }
  lex_next(&r->lx);
  *n = list.n;
  return list.v;
}

static const char **read_strings(TextReader *r, int *n) {
  VEC(const char *) list = { 0 };
  lex_expect(&r->lx, "[");
  while (!lex_is(&r->lx, "]")) {
    if (list.n) lex_expect(&r->lx, ",");
    vec_push(r->c, &list, text_read_string(r));
  }
  lex_next(&r->lx);
  *n = list.n;
  return list.v;
}

static void read_value(TextReader *r, Graph *g, Attr *a) {
  bool minus;
  switch (a->kind) {
  case ATTR_NONE: break;
  case ATTR_INT: a->i = lex_int(&r->lx); break;
  case ATTR_FLOAT:
    minus = lex_accept(&r->lx, "-");
    a->f = read_real(r, minus);
    break;
  case ATTR_STRING: a->s = text_read_string(r); break;
  case ATTR_INTS: a->ints = read_ints(r, &a->n); break;
  case ATTR_FLOATS: a->floats = read_floats(r, &a->n); break;
  case ATTR_STRINGS: a->strings = read_strings(r, &a->n); break;
  case ATTR_TENSOR:
    a->tensor = tensor_new(r->c, a->name, DT_NONE, -1, NULL);
    read_type(r, a->tensor);
    text_read_data(r, a->tensor);
    break;
  case ATTR_GRAPH: a->graph = read_graph(r, g); break;
  }
}

/* <name=value, ...> into attrs[], which hold the defaults. */
static void read_attrs(TextReader *r, Graph *g, const Op *op, Attr *attrs) {
  Lexer at = r->lx;
  if (lex_accept(&r->lx, "<")) {
    do {
      Lexer here = r->lx;
      const char *name = lex_name(&r->lx);
      int i = 0;
      while (i < op->nattr && strcmp(op->attr[i].name, name)) i++;
      if (i == op->nattr) lex_fail(&here, "%s has no attribute '%s'", op->name, diag_quote(r->c, name));
      lex_expect(&r->lx, "=");
      attrs[i] = (Attr){ .name = op->attr[i].name, .kind = op->attr[i].kind };
      read_value(r, g, &attrs[i]);
    } while (lex_accept(&r->lx, ","));
    lex_expect(&r->lx, ">");
  }
  for (int i = 0; i < op->nattr; i++)
    if (op->attr[i].required && attrs[i].kind == ATTR_NONE)
      lex_fail(&at, "%s needs the attribute '%s'", op->name, op->attr[i].name);
}

static const Op *read_op(TextReader *r) {
  Lexer at = r->lx;
  const char *name = lex_name(&r->lx), *dot = strrchr(name, '.');
  const char *domain = dot ? ctx_intern_n(r->c, name, (size_t)(dot - name)) : "";
  const Op *op = op_find(r->c, domain, dot ? dot + 1 : name);
  if (!op) lex_fail(&at, "there is no operator '%s'", diag_quote(r->c, name));
  return op;
}

typedef VEC(Tensor *) TensorVec;

static void read_operands(TextReader *r, Graph *g, const Op *op, TensorVec *in) {
  Lexer at = r->lx;
  lex_expect(&r->lx, "(");
  while (!lex_is(&r->lx, ")")) {
    if (in->n) lex_expect(&r->lx, ",");
    vec_push(r->c, in, lex_accept(&r->lx, "_") ? NULL : read_use(r, g));
  }
  lex_next(&r->lx);
  bool more = op->nin && op->in[op->nin - 1].variadic;
  bool wrong = in->n < op->nin_min || (in->n > op->nin && !more);
  for (int i = 0; i < in->n && i < op->nin; i++) wrong |= !in->v[i] && !op->in[i].optional && !op->in[i].variadic;
  if (wrong) lex_fail(&at, "%s does not take these inputs", op->name);
}

/* What stands left of '=': names and types, NULL where an output is not wanted. */
typedef struct { const char *name; Tensor type; } Out;
typedef VEC(Out *) OutVec;

static void read_outs(TextReader *r, Graph *g, OutVec *outs) {
  while (!lex_is(&r->lx, "=")) {
    if (outs->n) lex_expect(&r->lx, ",");
    Out *o = NULL;
    if (!lex_accept(&r->lx, "_")) {
      o = NEW(r->c, Out);
      o->name = read_new_name(r, g);
      for (int i = 0; i < outs->n; i++)
        if (outs->v[i] && outs->v[i]->name == o->name)
          lex_fail(&r->lx, "%%%s is made twice", diag_quote(r->c, o->name));
      o->type.dtype = DT_NONE;
      o->type.rank = -1;
      if (lex_accept(&r->lx, ":")) read_type(r, &o->type);
    }
    vec_push(r->c, outs, o);
  }
}

static void set_type(Tensor *t, const Tensor *type) {
  t->dtype = type->dtype;
  t->rank = type->rank;
  t->shape = type->shape;
  t->layout = type->layout;
}

static void read_const(TextReader *r, Graph *g, const OutVec *outs) {
  if (outs->n != 1 || !outs->v[0]) lex_fail(&r->lx, "a constant has one name");
  Tensor *t = graph_tensor(g, outs->v[0]->name);
  if (t->name != outs->v[0]->name) graph_rename(g, t, outs->v[0]->name);
  set_type(t, &outs->v[0]->type);
  text_read_data(r, t);
}

static void read_node(TextReader *r, Graph *g) {
  OutVec outs = { 0 };
  TensorVec in = { 0 };
  read_outs(r, g, &outs);
  lex_expect(&r->lx, "=");
  if (lex_accept(&r->lx, "const")) {
    read_const(r, g, &outs);
    return;
  }
  Lexer at = r->lx;
  const Op *op = read_op(r);
  if (outs.n > op->nout && !(op->nout && op->out[op->nout - 1].variadic))
    lex_fail(&at, "%s has no %d outputs", op->name, outs.n);
  Attr *attrs = NEW_ARRAY(r->c, Attr, op->nattr + 1);
  for (int i = 0; i < op->nattr; i++) {
    attrs[i] = op->attr[i].dflt;
    attrs[i].name = op->attr[i].name;
  }
  read_attrs(r, g, op, attrs);
  read_operands(r, g, op, &in);
  const char *name = lex_accept(&r->lx, "@") ? text_read_string(r) : "";
  Node *n = graph_node(g, op, name, in.v, in.n, outs.n);
  n->attrs = attrs;
  for (int i = 0; i < outs.n; i++) {
    if (outs.v[i]) {
      graph_rename(g, n->out[i], outs.v[i]->name);
      set_type(n->out[i], &outs.v[i]->type);
    } else {
      map_set(&g->names, KEY(n->out[i]->name), NULL);
      n->out[i] = NULL;
    }
  }
}

static void read_inputs(TextReader *r, Graph *g) {
  while (!lex_is(&r->lx, ";") && !lex_is(&r->lx, ")")) {
    if (g->inputs.n) lex_expect(&r->lx, ",");
    const char *name = read_new_name(r, g);
    Tensor *t = graph_tensor(g, name);
    if (t->name != name) graph_rename(g, t, name);           /* hides the outer one */
    if (lex_accept(&r->lx, ":")) read_type(r, t);
    vec_push(r->c, &g->inputs, t);
  }
}

static Graph *read_graph(TextReader *r, Graph *parent) {
  SymList dims[2] = { 0 };
  text_deeper(r);
  lex_expect(&r->lx, "graph");
  Graph *g = graph_new(r->c, parent, lex_is(&r->lx, "(") ? "" : lex_name(&r->lx));
  lex_expect(&r->lx, "(");
  if (!parent) text_read_dims(r, dims, 2);
  for (int i = 0; i < dims[0].n; i++) vec_push(r->c, &g->dims, dims[0].v[i]);
  read_inputs(r, g);
  text_skip_dims(r);
  lex_expect(&r->lx, "{");
  while (lex_accept(&r->lx, "assume")) {
    vec_push(r->c, &g->assumed, parse_expr_as(&r->lx, &r->scope, DT_BOOL));
    lex_expect(&r->lx, ";");
  }
  while (!lex_is(&r->lx, "return")) {
    if (!lex_is(&r->lx, "%") && !lex_is(&r->lx, "_") && !lex_is(&r->lx, "=")) lex_expect(&r->lx, "return");
    read_node(r, g);
  }
  lex_next(&r->lx);
  while (!lex_is(&r->lx, "}")) {
    if (g->outputs.n) lex_expect(&r->lx, ",");
    vec_push(r->c, &g->outputs, read_use(r, g));
  }
  lex_next(&r->lx);
  r->depth--;
  return g;
}

Graph *text_read_graph(TextReader *r) { return read_graph(r, NULL); }

Graph *graph_parse(Ctx *c, const char *text) {
  TextReader r = text_reader(c, text);
  Graph *g = read_graph(&r, NULL);
  if (r.lx.kind != TOK_END) lex_fail(&r.lx, "more text than one graph");
  return g;
}

/* ---- kernels ---- */

static Stmt *read_for(TextReader *r, LoopKind kind) {
  lex_next(&r->lx);
  Lexer at = r->lx;
  const char *name = lex_name(&r->lx);
  int64_t lanes = 0;
  if (kind == LOOP_VECTOR) {
    lex_expect(&r->lx, ":");
    lanes = lex_int(&r->lx);
    if (lanes < 1 || lanes > 1 << 16) lex_fail(&at, "a vector of %lld lanes", (long long)lanes);
  }
  lex_expect(&r->lx, "<");
  Expr *extent = parse_expr_as(&r->lx, &r->scope, DT_I64);
  int64_t fixed;
  if (kind == LOOP_UNROLL && !ex_is_int(extent, NULL)) lex_fail(&at, "an unrolled loop needs a constant extent");
  if (kind == LOOP_VECTOR && ex_is_int(extent, &fixed) && fixed > lanes)
    lex_fail(&at, "%lld steps in %lld lanes", (long long)fixed, (long long)lanes);
  Sym *s = r->kernels ? sym_new(r->c, SYM_DIM, name, 0, INT64_MAX) : sym_axis(r->c, SYM_AXIS, name, extent);
  Sym *outer = map_get(&r->scope.syms, KEY(name));
  s->extent = extent;
  s->name = name;
  map_set(&r->scope.syms, KEY(name), s);
  Stmt *st = st_for(r->c, kind, s, extent, text_read_block(r));
  st->lanes = (int)lanes;
  map_set(&r->scope.syms, KEY(name), outer);
  return st;
}

Tensor *text_read_tensor(TextReader *r) {
  Tensor *t = tensor_new(r->c, lex_name(&r->lx), DT_NONE, -1, NULL);
  text_read_type(r, t);
  return t;
}

void text_read_type(TextReader *r, Tensor *t) {
  lex_expect(&r->lx, ":");
  Lexer at = r->lx;
  read_type(r, t);
  if (t->dtype == DT_NONE || t->rank < 0) lex_fail(&at, "'%s' needs a whole type", diag_quote(r->c, t->name));
}

static Stmt *read_alloc(TextReader *r) {
  Lexer at = r->lx;
  bool reg = lex_accept(&r->lx, "reg");
  if (!reg) lex_expect(&r->lx, "scratch");
  Tensor *t = text_read_tensor(r), *outer = map_get(&r->scope.tensors, KEY(t->name));
  t->scope = reg ? SCOPE_REG : SCOPE_SCRATCH;
  if (!reg && lex_accept(&r->lx, "at")) t->offset = parse_expr_as(&r->lx, &r->scope, DT_I64);
  if (reg && !ex_is_int(layout_elements(r->c, t), NULL)) lex_fail(&at, "registers need a constant size");
  map_set(&r->scope.tensors, KEY(t->name), t);
  Stmt *st = st_alloc(r->c, t, text_read_block(r));
  map_set(&r->scope.tensors, KEY(t->name), outer);
  return st;
}

static Stmt *read_if(TextReader *r) {
  lex_expect(&r->lx, "(");
  Expr *cond = parse_expr_as(&r->lx, &r->scope, DT_BOOL);
  lex_expect(&r->lx, ")");
  Stmt *then = text_read_block(r);
  return st_if(r->c, cond, then, lex_accept(&r->lx, "else") ? text_read_block(r) : NULL);
}

static int read_combiner(TextReader *r) {
  if (lex_is(&r->lx, "=")) return -1;
  for (int i = 0; i < RED_COUNT; i++)
    if (lex_accept(&r->lx, combiner_name[i])) return i;
  lex_fail(&r->lx, "expected '=' or a combiner");
}

static Tensor *read_place(TextReader *r, bool write, Expr **index) {
  const Kernel *k = r->kernel;
  Lexer at = r->lx;
  const char *name = lex_name(&r->lx);
  Tensor *t = map_get(&r->scope.tensors, KEY(name));
  if (!t) lex_fail(&at, "unknown tensor '%s'", diag_quote(r->c, name));
  for (int i = 0; write && i < k->nparams; i++)
    if (k->params[i] == t && !k->writes[i]) lex_fail(&at, "'%s' is no output", diag_quote(r->c, name));
  lex_expect(&r->lx, "{");
  *index = parse_expr_as(&r->lx, &r->scope, DT_I64);
  lex_expect(&r->lx, "}");
  return t;
}

static Stmt *read_store(TextReader *r) {
  Expr *index;
  Tensor *t = read_place(r, true, &index);
  int combiner = read_combiner(r);
  lex_expect(&r->lx, "=");
  return st_store(r->c, t, index, parse_expr_as(&r->lx, &r->scope, t->dtype), combiner);
}

static Tensor *read_arg(TextReader *r, const Tensor *param) {
  Lexer at = r->lx;
  Tensor *t = map_get(&r->scope.tensors, KEY(lex_name(&r->lx)));
  if (!t || t->dtype != param->dtype || t->rank != param->rank) lex_fail(&at, "'%s' wants a tensor like %s", param->name, tensor_type_text(r->c, param));
  return t;
}

static Sym *read_arg_dim(TextReader *r) {
  Lexer at = r->lx;
  Sym *s = map_get(&r->scope.syms, KEY(lex_name(&r->lx)));
  if (!s) lex_fail(&at, "there is no such dimension");
  return s;
}

static Stmt *read_call(TextReader *r) {
  Lexer at = r->lx;
  Kernel *k = map_get(r->kernels, KEY(lex_name(&r->lx)));
  if (!k) lex_fail(&at, "there is no such kernel");
  Tensor **args = NEW_ARRAY(r->c, Tensor *, k->nparams + 1);
  Sym **dims = NEW_ARRAY(r->c, Sym *, k->dims.n + 1);
  lex_expect(&r->lx, "(");
  for (int i = 0; i < k->nparams; i++) {
    if (i) lex_expect(&r->lx, ",");
    args[i] = read_arg(r, k->params[i]);
  }
  for (int i = 0; i < k->dims.n; i++) {
    lex_expect(&r->lx, i ? "," : ";");
    dims[i] = read_arg_dim(r);
  }
  lex_expect(&r->lx, ")");
  Stmt *st = st_call(r->c, k, args, k->nparams);
  st->dims = dims;
  st->source = lex_accept(&r->lx, "@") ? text_read_string(r) : NULL;
  return st;
}

static Stmt *read_prefetch(TextReader *r) {
  Expr *index;
  Tensor *t = read_place(r, false, &index);
  return st_prefetch(r->c, t, index);
}

/* Programs call kernels, kernels store. */
static Stmt *read_stmt(TextReader *r) {
  if (lex_accept(&r->lx, "if")) return read_if(r);
  if (r->kernels && lex_is(&r->lx, "for")) return read_for(r, LOOP_SERIAL);
  if (r->kernels) {
    lex_expect(&r->lx, "call");
    return read_call(r);
  }
  for (int kind = 0; kind <= LOOP_THREAD; kind++)
    if (lex_is(&r->lx, loop_kind_name[kind])) return read_for(r, (LoopKind)kind);
  if (lex_accept(&r->lx, "alloc")) return read_alloc(r);
  if (lex_accept(&r->lx, "barrier")) return st_barrier(r->c);
  if (lex_accept(&r->lx, "prefetch")) return read_prefetch(r);
  return read_store(r);
}

Stmt *text_read_block(TextReader *r) {
  VEC(Stmt *) list = { 0 };
  text_deeper(r);
  lex_expect(&r->lx, "{");
  while (!lex_accept(&r->lx, "}")) vec_push(r->c, &list, read_stmt(r));
  r->depth--;
  return st_seq(r->c, list.v, list.n);
}

bool text_mark(TextReader *r, const char *word) {
  Lexer ahead = r->lx;
  if (!lex_accept(&ahead, word) || lex_is(&ahead, ":")) return false;
  r->lx = ahead;
  return true;
}

static void read_params(TextReader *r, Kernel *k) {
  VEC(Tensor *) params = { 0 };
  VEC(bool) writes = { 0 }, shares = { 0 };
  bool shared = false;
  while (!lex_is(&r->lx, ";") && !lex_is(&r->lx, ")")) {
    if (params.n) lex_expect(&r->lx, ",");
    bool weights = text_mark(r, "const");
    vec_push(r->c, &writes, text_mark(r, "out"));
    vec_push(r->c, &shares, text_mark(r, "shared"));
    shared |= shares.v[params.n];
    Lexer at = r->lx;
    Tensor *t = text_read_tensor(r);
    if (map_get(&r->scope.tensors, KEY(t->name)))
      lex_fail(&at, "two parameters are called '%s'", diag_quote(r->c, t->name));
    if (weights) t->scope = SCOPE_CONST;
    map_set(&r->scope.tensors, KEY(t->name), t);
    vec_push(r->c, &params, t);
  }
  k->params = params.v;
  k->writes = writes.v;
  k->shares = shared ? shares.v : NULL;
  k->nparams = params.n;
}

Kernel *text_read_kernel(TextReader *outer) {
  TextReader *r = &(TextReader){ .c = outer->c, .lx = outer->lx, .scope = scope_new(outer->c) };
  Kernel *k = NEW(r->c, Kernel);
  SymList dims = { 0 };
  r->kernel = k;
  lex_expect(&r->lx, "kernel");
  k->name = lex_name(&r->lx);
  lex_expect(&r->lx, "(");
  text_read_dims(r, &dims, 1);
  for (int i = 0; i < dims.n; i++) vec_push(r->c, &k->dims, dims.v[i]);
  read_params(r, k);
  text_skip_dims(r);
  if (lex_accept(&r->lx, "scratch")) k->scratch_bytes = parse_expr_as(&r->lx, &r->scope, DT_I64);
  if (lex_accept(&r->lx, "why")) k->why = text_read_string(r);
  if (lex_accept(&r->lx, "@")) k->source = text_read_string(r);
  k->body = text_read_block(r);
  outer->lx = r->lx;
  return k;
}

Kernel *kernel_parse(Ctx *c, const char *text) {
  TextReader r = text_reader(c, text);
  Kernel *k = text_read_kernel(&r);
  if (r.lx.kind != TOK_END) lex_fail(&r.lx, "more text than one kernel");
  return k;
}
