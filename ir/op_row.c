/* op_row.c - the text of operator rows: signatures and attributes (op.h has the grammar), and nodes checked against them.
 *
 * A signature is "inputs -> outputs"; without an arrow there is one output "y". The first operand's type variable is T unless it
 * names another or its type is fixed; operands without a type have that of the first variable. */
#include <ctype.h>
#include <stdlib.h>

#include "op_impl.h"

/* ---- words ---- */

static const char *skip_blanks(const char *s) {
  while (*s == ' ') s++;
  return s;
}

static const char *word(Ctx *c, const char **s) {
  const char *start = *s;
  while (**s && !strchr(" :?*=|", **s)) ++*s;
  return ctx_intern_n(c, start, (size_t)(*s - start));
}

static const char *upto_blank(Ctx *c, const char **s) {
  const char *start = *s;
  while (**s && **s != ' ') ++*s;
  return ctx_intern_n(c, start, (size_t)(*s - start));
}

/* mixed: anything, also among the operands of one variadic parameter */
static const char *const classes[] = { "any", "mixed", "num", "float", "int", "idx", "bool" };

static bool is_type(const char *s) {
  for (int i = 0; i < COUNT(classes); i++)
    if (!strcmp(classes[i], s)) return true;
  return dtype_from_name(s) != DT_NONE;
}

static bool is_fixed(const char *type) { return dtype_from_name(type) != DT_NONE; }

/* ---- signatures: name[?|*][:V][:type] ---- */

static OpParam parse_param(Ctx *c, const Op *op, const char **s) {
  OpParam p = { .name = word(c, s) };
  for (; **s == '?' || **s == '*'; ++*s) *(**s == '?' ? &p.optional : &p.variadic) = true;
  while (**s == ':') {
    ++*s;
    const char *w = word(c, s);
    if (!w[1] && isupper((unsigned char)*w)) p.var = *w;
    else if (is_type(w)) p.type = w;
    else diag_bug(c, "operator %s: '%s' is no type", op->name, w);
  }
  if (!*p.name || (**s && **s != ' ')) diag_bug(c, "operator %s: bad signature at '%s'", op->name, *s);
  return p;
}

/* What the text leaves out. */
static void complete_param(OpParam *p, const Op *op) {
  if (p->var || (p->type && (is_fixed(p->type) || !strcmp(p->type, "mixed")))) return;
  if (p == &op->in[0]) p->var = 'T';
  else if (!p->type)
    for (int i = 0; i < op->nin && !p->var; i++) p->var = op->in[i].var;
  if (!p->var && !p->type) p->type = "any";
}

/* A type variable's class stands where it appears first. */
static void complete_class(OpParam *p, const Op *op) {
  for (int i = 0; i < op->nin && !p->type; i++)
    if (p->var && op->in[i].var == p->var) p->type = op->in[i].type;
  if (!p->type) p->type = "any";
}

static void parse_signature(Ctx *c, Op *op, const char *s) {
  OpParam *list = op->in;
  int *n = &op->nin;
  for (s = skip_blanks(s); *s; s = skip_blanks(s)) {
    if (!strncmp(s, "->", 2)) {
      list = op->out;
      n = &op->nout;
      s += 2;
      continue;
    }
    if (*n == (list == op->in ? COUNT(op->in) : COUNT(op->out)))
      diag_bug(c, "operator %s has too many operands", op->name);
    list[(*n)++] = parse_param(c, op, &s);
  }
  if (!op->nout) op->out[op->nout++] = (OpParam){ .name = "y" };
  for (int i = 0; i < op->nin; i++) complete_param(&op->in[i], op);
  for (int i = 0; i < op->nout; i++) complete_param(&op->out[i], op);
  for (int i = 0; i < op->nin; i++) complete_class(&op->in[i], op);
  for (int i = 0; i < op->nout; i++) complete_class(&op->out[i], op);
  for (int i = 0; i < op->nin; i++)
    if (!op->in[i].optional && !op->in[i].variadic) op->nin_min = i + 1;
}

/* ---- attributes: name:kind[?][=default], strings with their choices: mode:s=DCR|CRD ---- */

static AttrKind attr_kind(Ctx *c, const Op *op, const char *w) {
  static const struct { const char *text; AttrKind kind;
  } kinds[] = { { "i", ATTR_INT },     { "f", ATTR_FLOAT },    { "s", ATTR_STRING }, { "is", ATTR_INTS },
                { "fs", ATTR_FLOATS }, { "ss", ATTR_STRINGS }, { "t", ATTR_TENSOR }, { "g", ATTR_GRAPH } };
  for (int i = 0; i < COUNT(kinds); i++)
    if (!strcmp(kinds[i].text, w)) return kinds[i].kind;
  diag_bug(c, "operator %s: '%s' is no kind of attribute", op->name, w);
}

static void parse_ints(Ctx *c, Attr *a, const char *s) {
  VEC(int64_t) v = { 0 };
  while (*s) {
    char *end;
    vec_push(c, &v, strtoll(s, &end, 10));
    s = *end ? end + 1 : end;
  }
  a->ints = v.v;
  a->n = v.n;
}

static void parse_default(Ctx *c, const Op *op, OpAttr *a, const char *s) {
  Attr *d = &a->dflt;
  d->kind = a->kind;
  switch (a->kind) {
  case ATTR_INT: d->i = strtoll(s, NULL, 10); break;
  case ATTR_FLOAT: d->f = strtof(s, NULL); break;
  case ATTR_INTS: parse_ints(c, d, s); break;
  case ATTR_STRING:
    d->s = ctx_intern_n(c, s, strcspn(s, "|"));
    a->choices = strchr(s, '|') ? s : NULL;
    break;
  default: diag_bug(c, "operator %s: attribute %s can have no default", op->name, a->name);
  }
}

static OpAttr parse_attr(Ctx *c, const Op *op, const char **s) {
  OpAttr a = { .name = word(c, s), .required = true };
  if (**s != ':') diag_bug(c, "operator %s: attribute %s has no kind", op->name, a.name);
  ++*s;
  a.kind = attr_kind(c, op, word(c, s));
  a.dflt.name = a.name;
  if (**s == '?') {
    a.required = false;
    ++*s;
  } else if (**s == '|') {         /* required, with choices */
    ++*s;
    a.choices = upto_blank(c, s);
  } else if (**s == '=') {
    a.required = false;
    ++*s;
    parse_default(c, op, &a, upto_blank(c, s));
  }
  return a;
}

void row_parse(Ctx *c, Op *op, const char *signature, const char *attrs) {
  parse_signature(c, op, signature);
  for (const char *s = skip_blanks(attrs); *s; s = skip_blanks(s)) {
    if (op->nattr == COUNT(op->attr)) diag_bug(c, "operator %s has too many attributes", op->name);
    op->attr[op->nattr++] = parse_attr(c, op, &s);
  }
}

/* ---- nodes against rows ---- */

static bool type_allows(const char *type, DType t) {
  char kind = dtype_info[t].kind;
  if (!strcmp(type, "any") || !strcmp(type, "mixed")) return true;
  if (!strcmp(type, "num")) return kind != 'b';
  if (!strcmp(type, "float")) return kind == 'f';
  if (!strcmp(type, "int")) return kind == 'i' || kind == 'u';
  if (!strcmp(type, "idx")) return t == DT_I32 || t == DT_I64;
  return dtype_from_name(type) == t;
}

static const OpParam *param_of(const OpParam *list, int n, int i) {
  return i < n ? &list[i] : n && list[n - 1].variadic ? &list[n - 1] : NULL;
}

static bool check_types(OpCtx *oc) {
  const Node *n = oc->node;
  const Tensor *first[128] = { 0 };                          /* by variable */
  for (int i = 0; i < n->nin; i++) {
    const OpParam *p = param_of(n->op->in, n->op->nin, i);
    if (!p) return op_error(oc, E0403, NULL, "%d inputs; there are at most %d", n->nin, n->op->nin);
    const Tensor *t = n->in[i];
    if (!t && (i < n->op->nin_min && !p->optional))
      return op_error(oc, E0403, NULL, "input '%s' is missing", p->name);
    if (!t) continue;
    if (!type_allows(p->type, t->dtype))
      return op_error(oc, E0404, NULL, "input '%s' is %s %s; it must be %s", p->name, diag_quote(oc->c, t->name),
                      tensor_type_text(oc->c, t), p->type);
    const Tensor **same = p->var ? &first[(int)p->var] : NULL;
    if (same && *same && (*same)->dtype != t->dtype)
      return op_error(oc, E0404, NULL, "%s %s and %s %s must have the same type", diag_quote(oc->c, (*same)->name),
                      tensor_type_text(oc->c, *same), diag_quote(oc->c, t->name), tensor_type_text(oc->c, t));
    if (same && !*same) *same = t;
  }
  if (n->nin < n->op->nin_min)
    return op_error(oc, E0403, NULL, "%d inputs; there must be at least %d", n->nin, n->op->nin_min);
  return true;
}

bool row_choice(const char *choices, const char *value) {
  size_t n = strlen(value);
  for (const char *s = choices; s; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL)
    if (strcspn(s, "|") == n && !strncmp(s, value, n)) return true;
  return false;
}

static bool check_attrs(OpCtx *oc) {
  const Node *n = oc->node;
  for (int i = 0; i < n->op->nattr; i++) {
    const OpAttr *row = &n->op->attr[i];
    const Attr *a = &n->attrs[i];
    if (a->kind == ATTR_NONE && row->required) return op_error(oc, E0402, NULL, "attribute '%s' is missing", row->name);
    if (row->choices && a->kind == ATTR_STRING && !row_choice(row->choices, a->s))
      return op_error(oc, E0412, ctx_printf(oc->c, "it can be %s", row->choices), "attribute %s is '%s'", row->name,
                      diag_quote(oc->c, a->s));
  }
  return true;
}

bool row_check(OpCtx *oc) { return check_types(oc) && check_attrs(oc); }

DType row_type(const Node *n, const OpParam *p) {
  if (p->type && is_fixed(p->type)) return dtype_from_name(p->type);
  for (int k = 0; k < n->nin && p->var; k++) {
    const OpParam *in = param_of(n->op->in, n->op->nin, k);
    if (n->in[k] && in->var == p->var) return n->in[k]->dtype;
  }
  return DT_NONE;
}
