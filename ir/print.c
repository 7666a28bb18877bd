/* print.c - both IRs as text that parse.c reads back.
 *
 * Graph:   graph NAME(%x: f32[N,3,224,224]; N, M=1..32) {
 *            %w: f32[64,3,7,7] = const blob "9ae16a3b2f90404f"
 *            %y: f32[N,64,112,112] layout "..." = Conv<strides=[2,2]>(%x, %w, _) @"name of the node"
 *            return %y
 *          }
 * Constants stand in order of use, as {1,2,3}, splat(0.5) or by hash (blob.h). Only attributes that differ from their
 * row's default are printed; one that is a graph is printed as such. Behind a second ';' stand dimensions that data
 * decides. `assume N < 8;` in front of the constants: the graph was simplified for that.
 *
 * Kernel:  kernel NAME(x: f32[N,64], out y: f32[N,64]; N) scratch 4096 {
 *            parallel i < N {
 *              alloc reg acc: f32[16] {
 *                if (i < 3) { acc{0} = 0.0f } else { acc{0} sum= x{i*64} }
 *              }
 *            }
 *          }
 * One statement a line, made from the kernel's canonical copy (stmt_canon.c). Marks in front of parameters: const (weights),
 * out (written), shared (of one memory with another one). In a program, call NAME(x, y; N) @"name of the node".
 */
#include <math.h>
#include <stdlib.h>

#include "blob.h"
#include "op.h"
#include "text.h"

/* ---- names and numbers ---- */

static void print_name(Str *s, const char *name) {
  str_add(s, "%%");
  lex_add_name(s, name);
}

static void print_special(Str *s, double v) { str_add(s, "%s", v != v ? "nan" : v < 0 ? "-inf" : "inf"); }

/* The shortest decimal that reads back as the f32 v. */
static void print_f32(Str *s, float v) {
  char text[32];
  int digits = 1;
  if (!isfinite(v)) {
    print_special(s, v);
    return;
  }
  do snprintf(text, sizeof text, "%.*g", digits, v);
  while (strtof(text, NULL) != v && digits++ < 9);
  str_add(s, "%s", text);
}

/* The same of a double; one that needs many digits as such and few as an f32 gets the f32's with the suffix f. */
static void print_f64(Str *s, double v) {
  char text[40];
  int digits = 1;
  if (!isfinite(v)) {
    print_special(s, v);
    return;
  }
  do snprintf(text, sizeof text, "%.*g", digits, v);
  while (strtod(text, NULL) != v && digits++ < 17);
  bool single = digits > 9 && v == (float)v;
  if (single) print_f32(s, (float)v);
  str_add(s, "%s", single ? "f" : text);
}

static void print_element(Str *s, const Tensor *t, int64_t i) {
  if (t->dtype == DT_F64) print_f64(s, tensor_const_float(t, i));
  else if (dtype_is_float(t->dtype)) print_f32(s, (float)tensor_const_float(t, i));
  else if (t->dtype == DT_U64) str_add(s, "%llu", (unsigned long long)tensor_const_int(t, i));
  else str_add(s, "%lld", (long long)tensor_const_int(t, i));
}

/* ---- constants ---- */

void text_data(Str *s, const Tensor *t) {
  int64_t dims[MAX_RANK], n = 1;
  tensor_dims(t, dims);
  for (int i = 0; i < t->rank; i++) n *= dims[i];
  if (t->data->stage) diag_bug(s->ctx, "'%s' has no value yet", t->name);
  if (t->data->splat && n) {
    str_add(s, "splat(");
    print_element(s, t, 0);
    str_add(s, ")");
  } else if (n <= CONST_INLINE) {
    str_add(s, "{");
    for (int64_t i = 0; i < n; i++) {
      if (i) str_add(s, ",");
      print_element(s, t, i);
    }
    str_add(s, "}");
  } else {
    str_add(s, "blob \"%016llx\"", (unsigned long long)blob_note(s->ctx, t->data->bytes, (size_t)(n * dtype_bytes(t->dtype))));
  }
}

void text_type(Str *s, const Tensor *t) {
  str_add(s, "%s", tensor_type_text(s->ctx, t));
  const char *layout = layout_text(s->ctx, t->layout);
  if (*layout) str_add(s, " layout \"%s\"", layout);
}


/* ---- dimensions: ", N=LO..HI%MULTIPLE", what is the default left out ---- */

static void print_dim(Str *s, const Sym *d) {
  bool range = d->min != 1 || d->max != DIM_MAX;
  lex_add_name(s, d->name);
  if (range || d->multiple > 1) str_add(s, "=%lld..%lld", (long long)d->min, (long long)d->max);
  if (d->multiple > 1) str_add(s, "%%%lld", (long long)d->multiple);
}

void text_dims(Str *s, Sym *const *dims, int n) {
  for (int i = 0; i < n; i++) {
    if (i) str_add(s, ", ");
    print_dim(s, dims[i]);
  }
}

/* ---- graphs ---- */

/* Expressions are printed as their canonical copies have them. */
typedef struct {
  Str s;
  Canon canon;
  int depth;                       /* of the lines of the graph at hand */
} GraphPrinter;

static void print_graph(GraphPrinter *p, Graph *g);

static void print_typed(GraphPrinter *p, Tensor *t) {
  print_name(&p->s, t->name);
  if (t->dtype == DT_NONE && t->rank < 0 && !t->layout) return;
  str_add(&p->s, ": ");
  text_type(&p->s, canon_tensor(&p->canon, t));
}

void text_indent(Str *s, int depth) { str_add(s, "%*s", 2 * depth, ""); }

static bool same_list(const Attr *a, const Attr *b) {
  for (int i = 0; i < a->n; i++) {
    if (a->kind == ATTR_INTS && a->ints[i] != b->ints[i]) return false;
    if (a->kind == ATTR_FLOATS && a->floats[i] != b->floats[i]) return false;
    if (a->kind == ATTR_STRINGS && strcmp(a->strings[i], b->strings[i])) return false;
  }
  return true;
}

static bool same_attr(const Attr *a, const Attr *b) {
  if (a->kind != b->kind) return false;
  switch (a->kind) {
  case ATTR_NONE: return true;
  case ATTR_INT: return a->i == b->i;
  case ATTR_FLOAT: return a->f == b->f;
  case ATTR_STRING: return !strcmp(a->s, b->s);
  case ATTR_INTS: case ATTR_FLOATS: case ATTR_STRINGS: return a->n == b->n && same_list(a, b);
  case ATTR_TENSOR: case ATTR_GRAPH: return false;
  }
  return false;
}

static void print_list(Str *s, const Attr *a) {
  str_add(s, "[");
  for (int i = 0; i < a->n; i++) {
    if (i) str_add(s, ",");
    if (a->kind == ATTR_INTS) str_add(s, "%lld", (long long)a->ints[i]);
    if (a->kind == ATTR_FLOATS) print_f64(s, a->floats[i]);
    if (a->kind == ATTR_STRINGS) lex_add_string(s, a->strings[i]);
  }
  str_add(s, "]");
}

static void print_attr(GraphPrinter *p, const Attr *a) {
  Str *s = &p->s;
  str_add(s, "%s=", a->name);
  switch (a->kind) {
  case ATTR_NONE: break;
  case ATTR_INT: str_add(s, "%lld", (long long)a->i); break;
  case ATTR_FLOAT: print_f64(s, a->f); break;
  case ATTR_STRING: lex_add_string(s, a->s); break;
  case ATTR_INTS: case ATTR_FLOATS: case ATTR_STRINGS: print_list(s, a); break;
  case ATTR_TENSOR:
    text_type(s, a->tensor);
    text_data(s, a->tensor);
    break;
  case ATTR_GRAPH: print_graph(p, a->graph); break;
  }
}

static void print_attrs(GraphPrinter *p, const Node *n) {
  bool any = false;
  for (int i = 0; i < n->op->nattr; i++) {
    if (same_attr(&n->attrs[i], &n->op->attr[i].dflt)) continue;
    str_add(&p->s, any ? ", " : "<");
    print_attr(p, &n->attrs[i]);
    any = true;
  }
  if (any) str_add(&p->s, ">");
}

static void print_node(GraphPrinter *p, const Node *n) {
  Str *s = &p->s;
  text_indent(s, p->depth);
  for (int i = 0; i < n->nout; i++) {
    if (i) str_add(s, ", ");
    if (n->out[i]) print_typed(p, n->out[i]);
    else str_add(s, "_");
  }
  str_add(s, n->nout ? " = " : "= ");
  if (*n->op->domain) str_add(s, "%s.", n->op->domain);
  str_add(s, "%s", n->op->name);
  print_attrs(p, n);
  str_add(s, "(");
  for (int i = 0; i < n->nin; i++) {
    if (i) str_add(s, ", ");
    if (n->in[i]) print_name(s, n->in[i]->name);
    else str_add(s, "_");
  }
  str_add(s, ")");
  if (*n->name) {
    str_add(s, " @");
    lex_add_string(s, n->name);
  }
  str_add(s, "\n");
}

/* Constants that stand in home and are used in a graph, which is home or inside it, in order of use. */
typedef struct { const Graph *home; Map seen; VEC(Tensor *) list; } ConstList;

static void note_const(ConstList *l, Graph *g, Tensor *t) {
  if (!t || !t->data || map_get(&l->seen, KEY(t))) return;
  while (g && map_get(&g->names, KEY(t->name)) != t) g = g->parent;
  if (g != l->home) return;
  map_set(&l->seen, KEY(t), t);
  vec_push(g->ctx, &l->list, t);
}

static void note_consts(ConstList *l, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.v[i];
    for (int j = 0; j < n->nin; j++) note_const(l, g, n->in[j]);
    for (int j = 0; j < n->op->nattr; j++)
      if (n->attrs[j].kind == ATTR_GRAPH) note_consts(l, n->attrs[j].graph);
  }
  for (int i = 0; i < g->outputs.n; i++) note_const(l, g, g->outputs.v[i]);
}

static void print_consts(GraphPrinter *p, Graph *g) {
  ConstList l = { .home = g, .seen = map_new(g->ctx) };
  note_consts(&l, g);
  for (int i = 0; i < l.list.n; i++) {
    text_indent(&p->s, p->depth);
    print_typed(p, l.list.v[i]);
    str_add(&p->s, " = const ");
    text_data(&p->s, l.list.v[i]);
    str_add(&p->s, "\n");
  }
}

/* The symbols that shapes name but the model does not: dimensions that data decides. */
typedef struct { Ctx *c; Map seen; VEC(Sym *) list; } DimList;

static void note_dim(const Expr *e, void *user) {
  DimList *d = user;
  if (e->op != EX_SYM || map_get(&d->seen, KEY(e->u.sym))) return;
  map_set(&d->seen, KEY(e->u.sym), e->u.sym);
  vec_push(d->c, &d->list, e->u.sym);
}

static void note_shape(DimList *d, const Tensor *t) {
  for (int i = 0; t && i < t->rank; i++) expr_visit(t->shape[i], note_dim, d);
}

static void note_dims(DimList *d, const Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) note_shape(d, g->inputs.v[i]);
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.v[i];
    for (int j = 0; j < n->nout; j++) note_shape(d, n->out[j]);
    for (int j = 0; j < n->op->nattr; j++)
      if (n->attrs[j].kind == ATTR_GRAPH) note_dims(d, n->attrs[j].graph);
  }
}

/* The dimensions of the model, behind another ';' those of the data. */
static void print_dims(GraphPrinter *p, const Graph *g) {
  DimList d = { .c = g->ctx, .seen = map_new(g->ctx) };
  for (int i = 0; i < g->dims.n; i++) note_dim(g->dims.v[i]->self, &d);
  note_dims(&d, g);
  for (int i = 0; i < d.list.n; i++) d.list.v[i] = canon_sym(&p->canon, d.list.v[i]);
  if (d.list.n) str_add(&p->s, ";%s", g->dims.n ? " " : "");
  text_dims(&p->s, d.list.v, g->dims.n);
  if (d.list.n > g->dims.n) str_add(&p->s, "; ");
  text_dims(&p->s, d.list.v + g->dims.n, d.list.n - g->dims.n);
}

static void print_assumed(GraphPrinter *p, const Graph *g) {
  for (int i = 0; i < g->assumed.n; i++) {
    text_indent(&p->s, p->depth);
    str_add(&p->s, "assume ");
    print_expr(&p->s, canon_expr(&p->canon, g->assumed.v[i]));
    str_add(&p->s, ";\n");
  }
}

static void print_graph(GraphPrinter *p, Graph *g) {
  Str *s = &p->s;
  int depth = p->depth;
  str_add(s, "graph ");
  lex_add_name(s, g->name);
  str_add(s, "(");
  for (int i = 0; i < g->inputs.n; i++) {
    if (i) str_add(s, ", ");
    print_typed(p, g->inputs.v[i]);
  }
  if (!g->parent) print_dims(p, g);
  str_add(s, ") {\n");
  p->depth += g->parent ? 2 : 1;
  print_assumed(p, g);
  print_consts(p, g);
  for (int i = 0; i < g->nodes.n; i++) print_node(p, g->nodes.v[i]);
  text_indent(s, p->depth);
  str_add(s, "return");
  for (int i = 0; i < g->outputs.n; i++) {
    str_add(s, i ? ", " : " ");
    print_name(s, g->outputs.v[i]->name);
  }
  str_add(s, "\n");
  text_indent(s, p->depth - 1);
  str_add(s, "}");
  p->depth = depth;
}

const char *graph_text(Graph *g) {
  GraphPrinter p = { .s = str_new(g->ctx), .canon = canon_twice(g->ctx, NULL) };
  print_graph(&p, g);
  str_add(&p.s, "\n");
  return p.s.s;
}

/* ---- kernels and programs ---- */

/* Words that begin statements: a tensor of such a name is quoted where it begins one. */
static bool stmt_keyword(const char *name) {
  static const char *const words[] = { "if", "alloc", "call", "barrier", "prefetch" };
  for (int i = 0; i < COUNT(words); i++)
    if (!strcmp(name, words[i])) return true;
  for (int i = 0; i <= LOOP_THREAD; i++)
    if (!strcmp(name, loop_kind_name[i])) return true;
  return false;
}

static void print_body(Str *s, const Stmt *body, int depth) {
  str_add(s, " {\n");
  text_stmt(s, body, depth + 1);
  text_indent(s, depth);
  str_add(s, "}");
}

static void print_for(Str *s, const Stmt *st, int depth) {
  str_add(s, "%s ", loop_kind_name[st->kind]);
  lex_add_name(s, st->sym->name);
  if (st->kind == LOOP_VECTOR) str_add(s, ":%d", st->lanes);
  str_add(s, " < ");
  print_expr(s, st->extent);
  print_body(s, st->body[0], depth);
}

static void print_param(Str *s, const Tensor *t) {
  lex_add_name(s, t->name);
  str_add(s, ": ");
  text_type(s, t);
}

static void print_place(Str *s, const Stmt *st) {
  if (stmt_keyword(st->tensor->name)) lex_add_string(s, st->tensor->name);
  else lex_add_name(s, st->tensor->name);
  str_add(s, "{");
  print_expr(s, st->index);
  str_add(s, "}");
}

static void print_store(Str *s, const Stmt *st) {
  print_place(s, st);
  str_add(s, " %s= ", st->combiner < 0 ? "" : combiner_name[st->combiner]);
  print_expr(s, st->value);
}

static void print_if(Str *s, const Stmt *st, int depth) {
  str_add(s, "if (");
  print_expr(s, st->value);
  str_add(s, ")");
  print_body(s, st->body[0], depth);
  if (!st->body[1]) return;
  str_add(s, " else");
  print_body(s, st->body[1], depth);
}

static void print_call(Str *s, const Stmt *st) {
  const Kernel *k = st->kernel;
  str_add(s, "call ");
  lex_add_name(s, k->name);
  str_add(s, "(");
  for (int i = 0; i < k->nparams; i++) {
    if (i) str_add(s, ", ");
    lex_add_name(s, st->args[i]->name);
  }
  for (int i = 0; i < k->dims.n; i++) {
    str_add(s, i ? ", " : "; ");
    lex_add_name(s, st->dims[i]->name);
  }
  str_add(s, ")");
  if (st->source && *st->source) {
    str_add(s, " @");
    lex_add_string(s, st->source);
  }
}

void text_stmt(Str *s, const Stmt *st, int depth) {
  if (st->op == ST_SEQ) {
    for (int i = 0; i < st->n; i++) text_stmt(s, st->body[i], depth);
    return;
  }
  text_indent(s, depth);
  switch (st->op) {
  case ST_FOR: print_for(s, st, depth); break;
  case ST_STORE: print_store(s, st); break;
  case ST_IF: print_if(s, st, depth); break;
  case ST_ALLOC:
    str_add(s, "alloc %s ", st->tensor->scope == SCOPE_REG ? "reg" : "scratch");
    print_param(s, st->tensor);
    if (st->tensor->scope == SCOPE_SCRATCH && st->tensor->offset) str_add(s, " at %s", expr_text(s->ctx, st->tensor->offset));
    print_body(s, st->body[0], depth);
    break;
  case ST_CALL: print_call(s, st); break;
  case ST_BARRIER: str_add(s, "barrier"); break;
  case ST_PREFETCH:
    str_add(s, "prefetch ");
    print_place(s, st);
    break;
  case ST_SEQ: break;
  }
  str_add(s, "\n");
}

const char *stmt_text(Ctx *c, const Stmt *st) {
  Str s = str_new(c);
  text_stmt(&s, stmt_canonical(c, st), 0);
  return s.s;
}

static void print_head(Str *s, const Kernel *k) {
  str_add(s, "kernel ");
  lex_add_name(s, k->name);
  str_add(s, "(");
  for (int i = 0; i < k->nparams; i++) {
    const Tensor *t = k->params[i];
    bool shared = k->shares && k->shares[i];
    str_add(s, "%s%s%s%s", i ? ", " : "", t->scope == SCOPE_CONST ? "const " : "", k->writes[i] ? "out " : "", shared ? "shared " : "");
    print_param(s, t);
  }
  if (k->dims.n) str_add(s, "; ");
  text_dims(s, k->dims.v, k->dims.n);
  str_add(s, ")");
  if (k->scratch_bytes && !ex_equals_int(k->scratch_bytes, 0)) str_add(s, " scratch %s", expr_text(s->ctx, k->scratch_bytes));
  if (k->why && *k->why) {
    str_add(s, " why ");
    lex_add_string(s, k->why);
  }
  if (k->source && *k->source) {
    str_add(s, " @");
    lex_add_string(s, k->source);
  }
}

void text_kernel(Str *s, const Kernel *k, int depth) {
  text_indent(s, depth);
  print_head(s, k);
  print_body(s, k->body, depth);
  str_add(s, "\n");
}

const char *kernel_text(Ctx *c, const Kernel *k) {
  Str s = str_new(c);
  text_kernel(&s, kernel_canonical(c, k), 0);
  return s.s;
}
