/* import.c - from the model as read to the Graph.
 *
 * Every node becomes a draft: its inputs and attributes resolved, upgraded to the newest form of its operator, checked
 * against the operator's row, then made. Calls of the model's own functions are replaced by their bodies. What fails is
 * reported and leaves tensors of unknown type behind, so that one run tells all; the graph leaves here only if nothing
 * failed. */
#include "import.h"

enum { DEEPEST = 64, MOST_PROBLEMS = 50, MOST_REFUSED = 20 };

/* ---- messages ---- */

/* Looks like a Node to diag_error. The operator's version is that of its row, or of the operator set if it has none. */
static const Node *stand_in(const Draft *d) {
  Node *n = NEW(d->im->c, Node);
  n->op = op_find(d->im->c, d->domain, d->op);
  n->name = d->name;
  n->index = d->index;
  if (n->op) return n;
  Op *op = NEW(d->im->c, Op);
  op->name = diag_quote(d->im->c, d->said);
  op->domain = diag_quote(d->im->c, d->domain);
  op->opset = d->version;
  n->op = op;
  return n;
}

void draft_error(const Draft *d, DiagCode code, const char *hint, const char *fmt, ...) {
  Ctx *c = d->im->c;
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  diag_error(c, code, stand_in(d), hint, "%s", text);
  if (ctx_diags(c)->list.n >= MOST_PROBLEMS) diag_check(c);
}

/* True the first time. */
static bool tell_once(Import *im, const char *what) {
  const char *key = ctx_intern(im->c, what);
  if (map_get(&im->told, KEY(key))) return false;
  map_set(&im->told, KEY(key), im);
  return true;
}

void draft_refuse(const Draft *d, const char *why) {
  Import *im = d->im;
  Ctx *c = im->c;
  const char *op =
      ctx_intern(c, ctx_printf(c, "%s%s%s", diag_quote(c, d->domain), *d->domain ? "." : "", diag_quote(c, d->said)));
  if (d->version > 0) op = ctx_intern(c, ctx_printf(c, "%s-%d", op, d->version));
  for (int i = 0; i < im->refused.n; i++)
    if (im->refused.v[i].op == op && !strcmp(im->refused.v[i].why, why)) {
      im->refused.v[i].nodes++;
      return;
    }
  const char *name = *d->name ? ctx_printf(c, " '%s'", diag_quote(c, d->name)) : "";
  vec_push(c, &im->refused, ((Refused){op, ctx_printf(c, "node %d%s", d->index, name), why, 1}));
}

static void report_refused(Import *im) {
  Ctx *c = im->c;
  if (!im->refused.n) return;
  Str s = str_new(c);
  int nodes = 0;
  for (int i = 0; i < im->refused.n; i++) nodes += im->refused.v[i].nodes;
  str_add(&s, "%d of %d nodes cannot be compiled:", nodes, im->nodes);
  for (int i = 0; i < im->refused.n; i++) {
    const Refused *r = &im->refused.v[i];
    if (i == MOST_REFUSED) {
      str_add(&s, "\n  and %d more operators", im->refused.n - i);
      break;
    }
    const char *others = r->nodes > 1 ? ctx_printf(c, " and %d more", r->nodes - 1) : "";
    str_add(&s, "\n  %s (%s)%s: %s", r->node, r->op, others, r->why);
  }
  diag_error(c, E0401, NULL, "'dlc ops' lists the operators that dlc has", "%s", s.s);
}

/* ---- names ---- */

static Tensor *scope_find(const NameScope *s, const char *name) {
  for (; s; s = s->parent) {
    Tensor *t = map_get(&s->names, KEY(name));
    if (t) return t;
  }
  return NULL;
}

static void scope_bind(Import *im, NameScope *s, const char *name, Tensor *t) {
  map_set(&s->names, KEY(ctx_intern(im->c, name)), t);
}

/* What is called name in a function's body. Short, since a body is written out many times. */
static const char *function_name(Ctx *c, const NameScope *s, const char *name) {
  return ctx_printf(c, "%.160s%.80s", s->prefix, name);
}

/* t is what the model calls name. At the top it has just that name; elsewhere only if nothing else has it. */
static void name_tensor(Import *im, NameScope *s, Tensor *t, const char *name) {
  scope_bind(im, s, name, t);
  const char *full = ctx_intern(im->c, *s->prefix ? function_name(im->c, s, name) : name);
  if (t->name != full && (s->top || !graph_find(s->g, full))) graph_rename(s->g, t, full);
  if (!*s->prefix) map_set(&im->named, KEY(t), t);
}

static Tensor *placeholder(Import *im, NameScope *s, const char *name) {
  Tensor *t = graph_tensor(s->g, name);
  scope_bind(im, s, name, t);
  return t;
}

/* ---- constants ---- */

Tensor *import_const(Import *im, Graph *g, const char *name, const OnnxTensor *t) {
  OnnxArray a = onnx_tensor_data(&im->files, t, *t->name ? t->name : name);
  int64_t elements = (int64_t)a.bytes / dtype_bytes(a.dtype);
  if (!add_ok(im->params, elements, &im->params))
    diag_fail(im->c, E0308, NULL, NULL, "the number of parameters overflows");
  return graph_const(g, name, a.dtype, a.dims, a.rank, a.data);
}

static Tensor *constant_list(Draft *d, DType t, const void *v, int n, int rank) {
  int64_t dims[1] = {n};
  d->im->params += n;
  return graph_const(d->scope->g, d->out, t, dims, rank, ctx_copy(d->im->c, v, (size_t)n * (size_t)dtype_bytes(t)));
}

/* The value of a Constant node; NULL after an error. */
static Tensor *constant_value(Draft *d) {
  if (d->attrs.n != 1) {
    draft_error(d, E0402, NULL, "a constant has one attribute, not %d", d->attrs.n);
    return NULL;
  }
  const OnnxAttr *a = &d->attrs.v[0];
  if (!strcmp(a->name, "value") && a->type == ONNX_TENSOR && a->t)
    return import_const(d->im, d->scope->g, d->out, a->t);
  if (!strcmp(a->name, "value_int") && a->type == ONNX_INT) return constant_list(d, DT_I64, &a->i, 1, 0);
  if (!strcmp(a->name, "value_ints") && a->type == ONNX_INTS) return constant_list(d, DT_I64, a->ints, a->n, 1);
  if (!strcmp(a->name, "value_float") && a->type == ONNX_FLOAT) return constant_list(d, DT_F32, &a->f, 1, 0);
  if (!strcmp(a->name, "value_floats") && a->type == ONNX_FLOATS) return constant_list(d, DT_F32, a->floats, a->n, 1);
  if (!strcmp(a->name, "sparse_value")) draft_error(d, E0405, NULL, "sparse tensors are not supported");
  else if (!strcmp(a->name, "value_string") || !strcmp(a->name, "value_strings"))
    draft_error(d, E0404, NULL, "strings are not supported");
  else draft_error(d, E0402, NULL, "attribute '%s' is unknown or of the wrong kind", diag_quote(d->im->c, a->name));
  return NULL;
}

/* ---- nodes ---- */

static void fail_outputs(Draft *d, const OnnxNode *n) {
  for (int i = 0; i < n->nout; i++)
    if (*n->out[i]) placeholder(d->im, d->scope, n->out[i]);
}

static bool find_version(Draft *d) {
  Ctx *c = d->im->c;
  const NameScope *s = d->scope;
  bool standard = !*d->domain, found = false;
  for (int i = 0; i < s->nopsets; i++)
    if (!strcmp(s->opsets[i].domain, d->domain)) {
      found = true;
      d->version = (int)MAX(MIN(s->opsets[i].version, INT32_MAX), 0);
    }
  if (!found && standard && d->im->m->ir_version < 3) d->version = 1;        /* the first files have no such list */
  else if (!found || d->version < 1) {
    if (standard && tell_once(d->im, "no version"))
      diag_error(c, E0304, NULL, NULL,
                 "the model does not say which version of the standard operators it means (opset_import)");
    return !standard;
  }
  if (standard && d->version > NEWEST_OPSET) {
    if (tell_once(d->im, "newer"))
      diag_error(c, E0401, NULL, ctx_printf(c, "export the model with opset %d or older", NEWEST_OPSET),
                 "the model uses version %d of the standard operators; the newest that dlc knows is %d", d->version,
                 NEWEST_OPSET);
    return false;
  }
  return true;
}

static void find_inputs(Draft *d, const OnnxNode *n) {
  Import *im = d->im;
  for (int i = 0; i < n->nin; i++) {
    const char *name = ctx_intern(im->c, n->in[i]);
    Tensor *t = *name ? scope_find(d->scope, name) : NULL;
    if (*name && !t) {
      draft_error(d, E0307, NULL, "input '%s' is made by no node and is no input or initializer",
                  diag_quote(im->c, name));
      t = placeholder(im, d->scope, name);
    }
    vec_push(im->c, &d->in, t == im->absent ? NULL : t);
  }
}

static bool check_counts(Draft *d, const Op *op) {
  while (d->in.n && !d->in.v[d->in.n - 1]) d->in.n--;
  int nin = d->in.n, errors = ctx_diags(d->im->c)->list.n;
  if (nin > op->nin && !(op->nin && op->in[op->nin - 1].variadic))
    draft_error(d, E0403, NULL, "has %d inputs; the most is %d", nin, op->nin);
  for (int i = 0; i < op->nin; i++)
    if (!op->in[i].optional && !op->in[i].variadic && (i >= nin || !d->in.v[i]))
      draft_error(d, E0403, NULL, "input %d '%s' is missing", i, op->in[i].name);
  if (d->nout > op->nout && !op->out[op->nout - 1].variadic)
    draft_error(d, E0403, NULL, "has %d outputs; the most is %d", d->nout, op->nout);
  return ctx_diags(d->im->c)->list.n == errors;
}

static void make_node(Draft *d, const Op *op, const OnnxNode *from) {
  Import *im = d->im;
  NameScope *s = d->scope;
  Node *n = graph_node(s->g, op, d->name, d->in.v, d->in.n, d->nout);
  n->index = d->index;
  import_set_attrs(d, n);
  for (int i = 0; i < d->nout; i++) {
    Tensor *t = n->out[i];
    if (i == 0 && d->finish) t = d->finish(d, t);
    else if (!*from->out[i]) n->out[i] = NULL;
    if (*from->out[i]) name_tensor(im, s, t, from->out[i]);
  }
}

static void import_plain(Draft *d, const OnnxNode *n) {
  find_inputs(d, n);
  const Op *op = NULL;
  if (find_version(d) && import_upgrade(d)) {
    op = op_find(d->im->c, d->domain, d->op);
    if (!op) draft_refuse(d, "dlc has no such operator");
  }
  if (op && op->nout && !op->out[op->nout - 1].variadic)
    while (d->nout && !*n->out[d->nout - 1]) d->nout--;
  if (!op || !check_counts(d, op) | !import_check_attrs(d, op)) fail_outputs(d, n);
  else if (d->nout) make_node(d, op, n);
}

static void import_constant(Draft *d, const OnnxNode *n) {
  Tensor *t = n->nout == 1 && *n->out[0] ? constant_value(d) : NULL;
  if (t) name_tensor(d->im, d->scope, t, n->out[0]);
  else if (n->nout != 1) draft_error(d, E0403, NULL, "has %d outputs, not 1", n->nout);
  if (!t) fail_outputs(d, n);
}

/* ---- functions ---- */

static const char *function_key(Ctx *c, const char *domain, const char *name, const char *overload) {
  return ctx_intern(c, ctx_printf(c, "%s\001%s\001%s", domain, name, overload));
}

static const OnnxFunction *find_function(const Draft *d, const OnnxNode *n) {
  if (!d->im->m->nfunctions) return NULL;
  return map_get(&d->im->functions, KEY(function_key(d->im->c, d->domain, n->op, n->overload)));
}

/* The nodes of a graph or of a function's body. Recursion goes over their nesting, which is bounded. */
static void import_nodes(Import *im, NameScope *s, const OnnxNode *nodes, int n);

static bool check_call(Draft *d, const OnnxNode *n, const OnnxFunction *f) {
  Import *im = d->im;
  for (int i = 0; i < im->calls.n; i++)
    if (im->calls.v[i] == f) {
      draft_error(d, E0307, NULL, "the function calls itself");
      return false;
    }
  if (n->nin > f->nin) draft_error(d, E0403, NULL, "has %d inputs; the function has %d", n->nin, f->nin);
  else if (n->nout > f->nout) draft_error(d, E0403, NULL, "has %d outputs; the function has %d", n->nout, f->nout);
  else return true;
  return false;
}

/* The value that the body calls inner is what the caller calls name. A value that has the caller's or another name
 * already is copied. */
static void return_value(Draft *d, const NameScope *body, const char *inner, const char *name) {
  Import *im = d->im;
  Tensor *t = scope_find(body, ctx_intern(im->c, inner));
  if (!t || t == im->absent) {
    draft_error(d, E0307, NULL, "the function's output '%s' is made by none of its nodes", diag_quote(im->c, inner));
    placeholder(im, d->scope, name);
    return;
  }
  if (map_get(&im->named, KEY(t))) {
    Node *copy = graph_node(d->scope->g, op_find(im->c, "", "Identity"), d->name, &t, 1, 1);
    copy->index = d->index;
    t = copy->out[0];
  }
  name_tensor(im, d->scope, t, name);
}

static void import_call(Draft *d, const OnnxNode *n, const OnnxFunction *f) {
  Import *im = d->im;
  Ctx *c = im->c;
  find_inputs(d, n);
  if (!check_call(d, n, f)) {
    fail_outputs(d, n);
    return;
  }
  NameScope *body = NEW(c, NameScope);
  *body =
      (NameScope){.g = d->scope->g, .names = map_new(c), .opsets = f->opsets, .nopsets = f->nopsets, .index = d->index};
  body->prefix = ctx_printf(c, "%s/", function_name(c, d->scope, *n->name ? n->name : d->out));
  for (int i = 0; i < f->nin; i++) scope_bind(im, body, f->in[i], i < d->in.n && d->in.v[i] ? d->in.v[i] : im->absent);
  for (int i = 0; i < f->ndefaults; i++)
    if (!draft_attr(d, f->defaults[i].name)) vec_push(c, &d->attrs, f->defaults[i]);
  body->bound = d->attrs.v;
  body->nbound = d->attrs.n;
  vec_push(c, &im->calls, f);
  import_nodes(im, body, f->nodes, f->nnodes);
  im->calls.n--;
  for (int i = 0; i < n->nout; i++)
    if (*n->out[i]) return_value(d, body, f->out[i], n->out[i]);
}

/* ---- graphs ---- */

static void import_node(Import *im, NameScope *s, const OnnxNode *n, int index) {
  Draft d = {.im = im,
             .scope = s,
             .domain = strcmp(n->domain, "ai.onnx") ? n->domain : "",
             .op = n->op,
             .said = n->op,
             .nout = n->nout};
  d.index = s->index >= 0 ? s->index : index;
  d.name = n->name;
  if (*s->prefix)
    d.name =
        *n->name ? function_name(im->c, s, n->name) : ctx_printf(im->c, "%.*s", (int)strlen(s->prefix) - 1, s->prefix);
  d.out = n->nout && *n->out[0] ? n->out[0] : n->op;
  if (++im->nodes > im->most_nodes)
    diag_fail(im->c, E0303, NULL, NULL, "more than %d nodes, functions inlined", im->most_nodes);
  import_attrs(&d, n);
  const OnnxFunction *f = find_function(&d, n);
  if (f) import_call(&d, n, f);
  else if (!*d.domain && !strcmp(n->op, "Constant")) import_constant(&d, n);
  else import_plain(&d, n);
}

static void import_nodes(Import *im, NameScope *s, const OnnxNode *nodes, int n) {
  if (im->depth++ == DEEPEST)
    diag_fail(im->c, E0303, NULL, NULL, "sub-graphs and functions stand more than %d deep inside each other", DEEPEST);
  const int *order = import_order(im, &s->names, nodes, n);
  for (int i = 0; i < n; i++) import_node(im, s, &nodes[order[i]], order[i]);
  im->depth--;
}

static void import_initializers(Import *im, NameScope *s, const OnnxGraph *g) {
  if (g->nsparse)
    diag_error(im->c, E0405, NULL, NULL, "%d sparse initializers: sparse tensors are not supported", g->nsparse);
  for (int i = 0; i < g->ninits; i++) {
    const char *name = ctx_intern(im->c, g->inits[i].name);
    if (map_get(&s->names, KEY(name)))
      diag_error(im->c, E0307, NULL, NULL, "initializer '%s' stands twice", diag_quote(im->c, name));
    else name_tensor(im, s, import_const(im, s->g, name, &g->inits[i]), name);
  }
}

static void import_outputs(Import *im, NameScope *s, const OnnxGraph *g) {
  for (int i = 0; i < g->nout; i++) {
    const char *name = ctx_intern(im->c, g->out[i].name);
    Tensor *t = scope_find(s, name);
    if (!t || t == im->absent)
      diag_error(im->c, E0307, NULL, NULL, "output '%s' is made by no node", diag_quote(im->c, name));
    else vec_push(im->c, &s->g->outputs, t);
  }
}

Graph *import_subgraph(Import *im, Graph *parent, NameScope *around, const OnnxGraph *from) {
  NameScope *s = NEW(im->c, NameScope);
  *s = *around;
  s->parent = around;
  s->g = graph_new(im->c, parent, from->name);
  s->names = map_new(im->c);
  s->top = false;
  for (int i = 0; i < from->nin; i++) {
    Tensor *t = graph_tensor(s->g, from->in[i].name);
    t->dtype = dtype_from_onnx(from->in[i].elem);
    vec_push(im->c, &s->g->inputs, t);
    name_tensor(im, s, t, from->in[i].name);
  }
  import_initializers(im, s, from);
  import_nodes(im, s, from->nodes, from->nnodes);
  import_outputs(im, s, from);
  return s->g;
}

/* Functions that call functions can stand for any number of nodes: more than 16 for each one in the file is refused. */
static void collect_functions(Import *im) {
  Ctx *c = im->c;
  im->most_nodes = INT32_MAX;
  if (im->m->nfunctions) im->most_nodes = 100000 + 16 * MIN(im->m->graph->nnodes, 1 << 20);
  for (int i = 0; i < im->m->nfunctions; i++) {
    const OnnxFunction *f = &im->m->functions[i];
    const char *key = function_key(c, f->domain, f->name, f->overload);
    if (map_get(&im->functions, KEY(key)))
      diag_error(c, E0307, NULL, NULL, "function '%s' stands twice", diag_quote(c, f->name));
    map_set(&im->functions, KEY(key), (void *)f);
    im->most_nodes = MIN(im->most_nodes + 16 * MIN(f->nnodes, 1 << 20), 1 << 28);
  }
}

static void fill_info(Import *im, const Source *s) {
  OnnxInfo *info = im->o->info;
  if (!info) return;
  const OnnxModel *m = im->m;
  *info = (OnnxInfo){.ir_version = m->ir_version, .producer = m->producer, .producer_version = m->producer_version,
                     .opsets = m->opsets, .nopsets = m->nopsets, .nodes = m->graph->nnodes, .params = im->params,
                     .bytes = (int64_t)s->size};
  for (int i = 0; i < im->files.external.n; i++) info->bytes += (int64_t)im->files.external.v[i]->size;
  if (im->o->hash) source_sha256(s, info->sha256);
}

Graph *onnx_import(Ctx *c, const char *path, const OnnxOptions *o) { return onnx_import_source(source_open(c, path, false), o); }

Graph *onnx_import_source(const Source *s, const OnnxOptions *o) {
  static const OnnxOptions nothing;
  Ctx *c = s->c;
  source_check_magic(s);
  OnnxModel *m = onnx_read_model(s);
  static const char *const other = "the file may hold another kind of protobuf message";
  if (!m->graph) diag_fail(c, E0304, NULL, other, "the model has no graph");
  if (m->ir_version < 1) diag_fail(c, E0304, NULL, other, "the model has no format version (ir_version)");
  if (!m->graph->nout) diag_fail(c, E0304, NULL, NULL, "the model has no outputs");
  Import *im = NEW(c, Import);
  *im = (Import){.c = c,
                 .o = o ? o : &nothing,
                 .m = m,
                 .functions = map_new(c),
                 .dims = map_new(c),
                 .named = map_new(c),
                 .told = map_new(c),
                 .cursor = map_new(c),
                 .absent = NEW(c, Tensor),
                 .files.model = s};
  im->g = graph_new(c, NULL, m->graph->name);
  NameScope *top = NEW(c, NameScope);
  *top = (NameScope){.g = im->g,
                     .names = map_new(c),
                     .opsets = m->opsets,
                     .nopsets = m->nopsets,
                     .prefix = "",
                     .index = -1,
                     .top = true};
  collect_functions(im);
  import_inputs(im, top);
  import_initializers(im, top, m->graph);
  import_nodes(im, top, m->graph->nodes, m->graph->nnodes);
  import_outputs(im, top, m->graph);
  report_refused(im);
  diag_check(c);
  fill_info(im, s);
  onnx_model_release(m);
  return im->g;
}
