/* inputs.c - the model's inputs and their dimensions: numbers, named symbols, and what the user fixes with --dim and
 * --shape. */
#include "import.h"

#include <stdlib.h>

/* ---- dimensions ---- */

static const DimBound *bound_of(const Import *im, const char *name) {
  for (int i = 0; i < im->o->ndims; i++)
    if (!strcmp(im->o->dims[i].name, name)) return &im->o->dims[i];
  return NULL;
}

/* The dimension that the model calls name: fixed or bounded by the options, else a symbol. */
static Expr *named_dim(Import *im, const char *name) {
  name = ctx_intern(im->c, name);
  Expr *e = map_get(&im->dims, KEY(name));
  if (e) return e;
  const DimBound *b = bound_of(im, name);
  if (b && b->min == b->max) {
    e = ex_int(im->c, b->min);
  } else {
    Sym *s = graph_dim(im->g, name);
    if (b) s->min = b->min, s->max = b->max;
    e = s->self;
  }
  map_set(&im->dims, KEY(name), e);
  return e;
}

/* A name for dimension i of an input that has none: x_d0. */
static const char *fresh_dim(Import *im, const char *input, int i) {
  const char *name = ctx_intern(im->c, ctx_printf(im->c, "%s_d%d", input, i));
  while (map_get(&im->dims, KEY(name))) name = ctx_intern(im->c, ctx_printf(im->c, "%s_", name));
  return name;
}

/* ---- --shape ---- */

static const ShapeOption *shape_of(const Import *im, const char *input) {
  for (int i = 0; i < im->o->nshapes; i++)
    if (!strcmp(im->o->shapes[i].input, input)) return &im->o->shapes[i];
  return NULL;
}

/* "1x3x?x224" or with commas: numbers and -1 for ?; the rank. */
static int parse_shape(Import *im, const ShapeOption *o, int64_t *dims) {
  int n = 0;
  for (const char *p = o->dims; *p; n++) {
    char *end;
    if (n == MAX_RANK)
      diag_fail(im->c, E0202, NULL, NULL, "--shape %s: the largest rank is %d", diag_quote(im->c, o->input), MAX_RANK);
    dims[n] = *p == '?' ? -1 : strtoll(p, &end, 10);
    if (*p == '?') end = (char *)p + 1;
    if (end == p || (*end && *end != 'x' && *end != ',') ||
        (*p != '?' && (*p < '0' || *p > '9' || dims[n] >= (int64_t)1 << 40)))
      diag_fail(im->c, E0202, NULL, "--shape x=1x3x224x224", "--shape %s: '%s' is no shape",
                diag_quote(im->c, o->input), diag_quote(im->c, o->dims));
    p = *end ? end + 1 : end;
  }
  return n;
}

/* Fixes the dimensions of v that have a name, wherever they occur. */
static void apply_shape(Import *im, const OnnxValue *v, const ShapeOption *o) {
  int64_t dims[MAX_RANK];
  Ctx *c = im->c;
  int n = parse_shape(im, o, dims);
  if (!v->has_shape) return;
  if (n != v->ndims)
    diag_fail(c, E0202, NULL, NULL, "--shape %s has %d dimensions, the model's input has %d", diag_quote(c, o->input),
              n, v->ndims);
  for (int i = 0; i < n; i++) {
    const OnnxDim *d = &v->dims[i];
    if (dims[i] < 0) continue;
    if (d->value >= 0 && d->value != dims[i])
      diag_fail(c, E0202, NULL, NULL, "--shape %s: dimension %d is %lld in the model, not %lld",
                diag_quote(c, o->input), i, (long long)d->value, (long long)dims[i]);
    if (d->value >= 0 || !*d->param) continue;
    const char *name = ctx_intern(c, d->param);
    const DimBound *b = bound_of(im, name);
    Expr *known = map_get(&im->dims, KEY(name)), *e = ex_int(c, dims[i]);
    if ((known && known != e) || (b && (dims[i] < b->min || dims[i] > b->max)))
      diag_fail(c, E0202, NULL, NULL, "--shape %s: dimension '%s' is given %lld and something else",
                diag_quote(c, o->input), diag_quote(c, name), (long long)dims[i]);
    map_set(&im->dims, KEY(name), e);
  }
}

/* ---- inputs ---- */

static bool is_initializer(const OnnxGraph *g, Map *names, Ctx *c, const char *name) {
  if (!names->ctx) {
    *names = map_new(c);
    for (int i = 0; i < g->ninits; i++) map_set(names, KEY(ctx_intern(c, g->inits[i].name)), c);
  }
  return map_get(names, KEY(ctx_intern(c, name)));
}

static bool check_input(Import *im, const OnnxValue *v) {
  Ctx *c = im->c;
  const char *name = diag_quote(c, v->name);
  int errors = ctx_diags(c)->list.n;
  if (v->kind) diag_error(c, E0405, NULL, NULL, "input '%s' is %s; only tensors are supported", name, v->kind);
  else if (!v->elem) diag_error(c, E0304, NULL, NULL, "input '%s' has no element type", name);
  else if (dtype_from_onnx(v->elem) == DT_NONE)
    diag_error(c, E0404, NULL, NULL, "input '%s': element type %s is not supported", name, onnx_type_name(c, v->elem));
  else if (v->ndims > MAX_RANK)
    diag_error(c, E0303, NULL, NULL, "input '%s' has rank %d; the most is %d", name, v->ndims, MAX_RANK);
  else if (!v->has_shape && !shape_of(im, v->name))
    diag_error(c, E0413, NULL, ctx_printf(c, "give its shape: --shape %s=...", name),
               "input '%s' has no shape in the model", name);
  for (int i = 0; i < v->ndims; i++)
    if (v->dims[i].value < -1)
      diag_error(c, E0304, NULL, NULL, "input '%s' has the dimension %lld", name, (long long)v->dims[i].value);
  return ctx_diags(c)->list.n == errors;
}

static Expr *input_dim(Import *im, const OnnxValue *v, int i, int64_t fixed) {
  const OnnxDim *d = v->has_shape ? &v->dims[i] : &(OnnxDim){-1, ""};
  if (d->value >= 0) return ex_int(im->c, d->value);         /* -1 is what some old writers put for "unknown" */
  if (*d->param) return named_dim(im, d->param);
  return fixed >= 0 ? ex_int(im->c, fixed) : named_dim(im, fresh_dim(im, v->name, i));
}

static void check_size(Import *im, const Tensor *t) {
  int64_t dims[MAX_RANK], bytes = dtype_bytes(t->dtype);
  if (!tensor_dims(t, dims)) return;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(bytes, MAX(dims[i], 1), &bytes) || bytes > (int64_t)1 << 46) {
      diag_error(im->c, E0308, NULL, NULL, "input '%s' %s: the size overflows", diag_quote(im->c, t->name),
                 tensor_type_text(im->c, t));
      return;
    }
}

static void add_input(Import *im, NameScope *top, const OnnxValue *v) {
  Ctx *c = im->c;
  int64_t fixed[MAX_RANK];
  Tensor *t = graph_tensor(im->g, v->name);
  const ShapeOption *o = shape_of(im, v->name);
  map_set(&top->names, KEY(t->name), t);
  map_set(&im->named, KEY(t), t);
  vec_push(c, &im->g->inputs, t);
  t->scope = SCOPE_INPUT;
  if (!check_input(im, v)) return;
  memset(fixed, -1, sizeof fixed);
  int rank = o ? parse_shape(im, o, fixed) : v->ndims;
  t->dtype = dtype_from_onnx(v->elem);
  t->rank = rank;
  t->shape = NEW_ARRAY(c, Expr *, rank + 1);
  for (int i = 0; i < rank; i++) t->shape[i] = input_dim(im, v, i, fixed[i]);
  check_size(im, t);
}

/* ---- options that fit nothing ---- */

static void check_options(Import *im) {
  Ctx *c = im->c;
  for (int i = 0; i < im->o->ndims; i++) {
    const char *name = im->o->dims[i].name;
    if (map_get(&im->dims, KEY(ctx_intern(c, name)))) continue;
    Str s = str_new(c);
    for (int k = 0; k < im->dims.entries.n; k++)
      str_add(&s, "%s %s", k ? "," : "", diag_quote(c, (const char *)(uintptr_t)im->dims.entries.v[k].key));
    diag_error(c, E0202, NULL, im->dims.entries.n ? ctx_printf(c, "it has%s", s.s) : NULL,
               "--dim %s: the model has no such dimension", diag_quote(c, name));
  }
  for (int i = 0; i < im->o->nshapes; i++) {
    const char *name = im->o->shapes[i].input;
    Str s = str_new(c);
    bool found = false;
    for (int k = 0; k < im->g->inputs.n; k++) {
      str_add(&s, "%s %s", k ? "," : "", diag_quote(c, im->g->inputs.v[k]->name));
      found |= !strcmp(im->g->inputs.v[k]->name, name);
    }
    if (!found)
      diag_error(c, E0202, NULL, ctx_printf(c, "it has%s", s.s), "--shape %s: the model has no such input",
                 diag_quote(c, name));
  }
}

/* An input that is also an initializer is a constant: its value is the model's. */
void import_inputs(Import *im, NameScope *top) {
  const OnnxGraph *g = im->m->graph;
  Map names = {0};
  for (int i = 0; i < g->nin; i++) {
    const ShapeOption *o = shape_of(im, g->in[i].name);
    if (o && !is_initializer(g, &names, im->c, g->in[i].name)) apply_shape(im, &g->in[i], o);
  }
  for (int i = 0; i < g->nin; i++) {
    const char *name = ctx_intern(im->c, g->in[i].name);
    if (is_initializer(g, &names, im->c, name)) continue;
    if (map_get(&top->names, KEY(name)))
      diag_error(im->c, E0307, NULL, NULL, "input '%s' stands twice", diag_quote(im->c, name));
    else add_input(im, top, &g->in[i]);
  }
  check_options(im);
}
