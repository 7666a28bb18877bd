/* attrs.c - attributes: what a function's caller passed, what the operator's row allows, what goes into the node. */
#include "import.h"

/* ---- attributes of drafts ---- */

static const OnnxAttr *find(const OnnxAttr *list, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i].name, name)) return &list[i];
  return NULL;
}

const OnnxAttr *draft_attr(const Draft *d, const char *name) { return find(d->attrs.v, d->attrs.n, name); }

void draft_drop(Draft *d, const char *name) {
  int kept = 0;
  for (int i = 0; i < d->attrs.n; i++)
    if (strcmp(d->attrs.v[i].name, name)) d->attrs.v[kept++] = d->attrs.v[i];
  d->attrs.n = kept;
}

void draft_set(Draft *d, OnnxAttr a) {
  draft_drop(d, a.name);
  vec_push(d->im->c, &d->attrs, a);
}

/* An attribute of a function's body may stand for one of the call's; where the call has none, the node has none. */
void import_attrs(Draft *d, const OnnxNode *n) {
  Ctx *c = d->im->c;
  for (int i = 0; i < n->nattr; i++) {
    OnnxAttr a = n->attrs[i];
    if (*a.ref) {
      const OnnxAttr *bound = find(d->scope->bound, d->scope->nbound, a.ref);
      if (!bound) continue;
      a = *bound;
      a.name = n->attrs[i].name;
    }
    if (!a.scope) a.scope = d->scope;
    if (draft_attr(d, a.name)) draft_error(d, E0402, NULL, "attribute '%s' stands twice", diag_quote(c, a.name));
    else vec_push(c, &d->attrs, a);
  }
}

/* ---- against the row ---- */

static AttrKind kind_of(const OnnxAttr *a) {
  static const AttrKind kinds[] = {ATTR_NONE,  ATTR_FLOAT,  ATTR_INT,  ATTR_STRING, ATTR_TENSOR,
                                   ATTR_GRAPH, ATTR_FLOATS, ATTR_INTS, ATTR_STRINGS};
  AttrKind k = a->type > 0 && a->type < COUNT(kinds) ? kinds[a->type] : ATTR_NONE;
  if ((k == ATTR_TENSOR && !a->t) || (k == ATTR_GRAPH && !a->g)) return ATTR_NONE;
  return k;
}

static const char *kind_text(AttrKind k) {
  static const char *const names[] = {
      "of no kind that dlc reads", "an integer",        "a float",  "a string", "a list of integers",
      "a list of floats",          "a list of strings", "a tensor", "a graph"};
  return names[k];
}

static const OpAttr *row_attr(const Op *op, const char *name) {
  for (int i = 0; i < op->nattr; i++)
    if (!strcmp(op->attr[i].name, name)) return &op->attr[i];
  return NULL;
}

static const char *row_attrs_text(Ctx *c, const Op *op) {
  if (!op->nattr) return ctx_printf(c, "%s has no attributes", op->name);
  Str s = str_new(c);
  str_add(&s, "%s has", op->name);
  for (int i = 0; i < op->nattr; i++) str_add(&s, "%s %s", i ? "," : "", op->attr[i].name);
  return s.s;
}

static bool has_zero_byte(const OnnxAttr *a) {
  if (a->type == ONNX_STRING) return memchr(a->s.bytes, 0, a->s.n);
  for (int i = 0; a->type == ONNX_STRINGS && i < a->n; i++)
    if (memchr(a->strings[i].bytes, 0, a->strings[i].n)) return true;
  return false;
}

static bool check_attr(Draft *d, const Op *op, const OnnxAttr *a) {
  Ctx *c = d->im->c;
  const OpAttr *row = row_attr(op, a->name);
  if (!row) {
    draft_error(d, E0402, row_attrs_text(c, op), "unknown attribute '%s'", diag_quote(c, a->name));
    return false;
  }
  if (kind_of(a) != row->kind) {
    draft_error(d, E0402, NULL, "attribute '%s' is %s; it must be %s", row->name, kind_text(kind_of(a)),
                kind_text(row->kind));
    return false;
  }
  if (has_zero_byte(a)) {
    draft_error(d, E0402, NULL, "attribute '%s' holds a zero byte", row->name);
    return false;
  }
  return true;
}

bool import_check_attrs(Draft *d, const Op *op) {
  bool ok = true;
  for (int i = 0; i < d->attrs.n; i++) ok &= check_attr(d, op, &d->attrs.v[i]);
  for (int i = 0; i < op->nattr; i++)
    if (op->attr[i].required && !draft_attr(d, op->attr[i].name)) {
      draft_error(d, E0402, NULL, "attribute '%s' is missing", op->attr[i].name);
      ok = false;
    }
  return ok;
}

/* ---- into the node ---- */

static const char *string_of(Ctx *c, OnnxBytes b) { return ctx_intern_n(c, b.n ? (const char *)b.bytes : "", b.n); }

static void set_attr(Draft *d, Attr *to, const OnnxAttr *a) {
  Ctx *c = d->im->c;
  to->kind = kind_of(a);
  to->i = a->i;
  to->f = (double)a->f;
  if (to->kind == ATTR_STRING) to->s = string_of(c, a->s);
  if (to->kind == ATTR_TENSOR)
    to->tensor = import_const(d->im, d->scope->g, ctx_printf(c, "%.160s.%s", d->out, a->name), a->t);
  if (to->kind == ATTR_GRAPH) to->graph = import_subgraph(d->im, d->scope->g, (NameScope *)a->scope, a->g);
  if (to->kind != ATTR_INTS && to->kind != ATTR_FLOATS && to->kind != ATTR_STRINGS) return;
  to->n = a->n;
  if (to->kind == ATTR_INTS) to->ints = ctx_copy(c, a->ints, sizeof(int64_t) * (size_t)a->n);
  if (to->kind == ATTR_FLOATS) to->floats = NEW_ARRAY(c, double, a->n);
  if (to->kind == ATTR_STRINGS) to->strings = NEW_ARRAY(c, const char *, a->n);
  for (int i = 0; i < a->n; i++) {
    if (to->kind == ATTR_FLOATS) to->floats[i] = (double)a->floats[i];
    if (to->kind == ATTR_STRINGS) to->strings[i] = string_of(c, a->strings[i]);
  }
}

void import_set_attrs(Draft *d, Node *n) {
  for (int i = 0; i < n->op->nattr; i++) {
    const OnnxAttr *a = draft_attr(d, n->op->attr[i].name);
    if (a) set_attr(d, &n->attrs[i], a);
  }
}
