/* upgrade.c - nodes of older operator sets in the newest form: the table is onnx_upgrade.def, its actions are here.
 *
 * An action changes the draft: attributes, inputs, the operator's name. What cannot be said in one node is built around
 * it. Where an action must know an input's rank or type, the shapes of the nodes so far are inferred on trial; what is
 * wrong with them is told later, by simplify. */
#include "import.h"

#include <ctype.h>
#include <stdlib.h>

/* ---- words of arguments: "name@1:kind", "name:i=1", "a=b", separated by blanks ---- */

static bool next_word(const char **s, char *word, size_t room) {
  *s += strspn(*s, " ");
  size_t n = strcspn(*s, " ");
  if (!n) return false;
  snprintf(word, room, "%.*s", (int)n, *s);
  *s += n;
  return true;
}

static bool has_word(const char *list, const char *word) {
  char w[64];
  while (next_word(&list, w, sizeof w))
    if (!strcmp(w, word)) return true;
  return false;
}

/* Ends word where the first of the characters stands and gives what is behind it; "" if it does not stand there. */
static char *split(char *word, char at) {
  char *p = strchr(word, at);
  if (!p) return word + strlen(word);
  *p = 0;
  return p + 1;
}

/* ---- what is known of tensors ---- */

static bool inputs_known(const Node *n) {
  for (int i = 0; i < n->nin; i++)
    if (n->in[i] && (n->in[i]->rank < 0 || n->in[i]->dtype == DT_NONE)) return false;
  return true;
}

/* Infers shapes of the nodes that were added since the last time, and of those around g. */
static void infer_trial(Import *im, Graph *g) {
  if (g->parent) infer_trial(im, g->parent);
  Diags *d = ctx_diags(im->c);
  int errors = d->list.n, at = (int)(intptr_t)map_get(&im->cursor, KEY(g));
  for (; at < g->nodes.n; at++) {
    Node *n = g->nodes.v[at];
    if (n->op->cls != OPC_REGION && inputs_known(n)) op_infer(im->c, n);
    d->list.n = errors;
  }
  d->node = NULL;
  map_set(&im->cursor, KEY(g), (void *)(intptr_t)at);
}

static int rank_of(Draft *d, const Tensor *t) {
  if (t->rank < 0) infer_trial(d->im, d->scope->g);
  return t->rank;
}

static DType type_of(Draft *d, const Tensor *t) {
  if (t->dtype == DT_NONE) infer_trial(d->im, d->scope->g);
  return t->dtype;
}

static Tensor *input(const Draft *d, int i) { return i < d->in.n ? d->in.v[i] : NULL; }

static void set_input(Draft *d, int i, Tensor *t) {
  while (d->in.n <= i) vec_push(d->im->c, &d->in, NULL);
  d->in.v[i] = t;
}

static bool unknown_rank(Draft *d, const Tensor *t) {
  if (!ctx_diags(d->im->c)->list.n && !d->im->refused.n)
    draft_error(d, E0413, NULL, "the rank of '%s' must be known to translate this older form of %s",
                diag_quote(d->im->c, t->name), d->said);
  return false;
}

/* ---- making what the newest form wants ---- */

static Tensor *make_const(Draft *d, const char *suffix, DType t, int rank, int64_t n, const void *bytes) {
  Ctx *c = d->im->c;
  return graph_const(d->scope->g, ctx_printf(c, "%.160s.%s", d->out, suffix), t, &n, rank,
                     ctx_copy(c, bytes, (size_t)n * (size_t)dtype_bytes(t)));
}

static Tensor *make_ints(Draft *d, const char *suffix, const int64_t *v, int n) {
  return make_const(d, suffix, DT_I64, 1, n, v);
}

static Tensor *make_node(Draft *d, const char *op, Tensor *a, Tensor *b) {
  Node *n = graph_node(d->scope->g, op_find(d->im->c, "", op), d->name, (Tensor *[]){a, b}, b ? 2 : 1, 1);
  n->index = d->index;
  return n->out[0];
}

static void set_int(Draft *d, const char *name, int64_t v) {
  draft_set(d, (OnnxAttr){.name = name, .ref = "", .type = ONNX_INT, .i = v});
}

static void set_string(Draft *d, const char *name, const char *v) {
  draft_set(d, (OnnxAttr){.name = name, .ref = "", .type = ONNX_STRING, .s = {(const uint8_t *)v, strlen(v)}});
}

static int64_t int_attr(const Draft *d, const char *name, int64_t otherwise) {
  const OnnxAttr *a = draft_attr(d, name);
  return a && a->type == ONNX_INT ? a->i : otherwise;
}

static bool is_string(const OnnxAttr *a, const char *text) {
  return a && a->type == ONNX_STRING && a->s.n == strlen(text) && !memcmp(a->s.bytes, text, a->s.n);
}

/* ---- actions on attributes ---- */

/* "a b": these attributes mean nothing any more. */
static bool up_drop(Draft *d, const char *arg) {
  char name[64];
  while (next_word(&arg, name, sizeof name)) draft_drop(d, name);
  return true;
}

/* "name:kind=value ...": where the attribute is absent it had this value. */
static bool up_set(Draft *d, const char *arg) {
  char word[128];
  while (next_word(&arg, word, sizeof word)) {
    char *kind = split(word, ':'), *value = split(kind, '=');
    if (draft_attr(d, word)) continue;
    const char *name = ctx_intern(d->im->c, word);
    if (*kind == 'i') set_int(d, name, strtoll(value, NULL, 10));
    else if (*kind == 'f')
      draft_set(d, (OnnxAttr){.name = name, .ref = "", .type = ONNX_FLOAT, .f = strtof(value, NULL)});
    else set_string(d, name, ctx_intern(d->im->c, value));
  }
  return true;
}

/* "name:i=value": any other value has no newest form. */
static bool up_require(Draft *d, const char *arg) {
  char word[128];
  next_word(&arg, word, sizeof word);
  char *kind = split(word, ':'), *value = split(kind, '=');
  int64_t v = strtoll(value, NULL, 10);
  if (int_attr(d, word, v) == v) return true;
  draft_refuse(d, ctx_printf(d->im->c, "its older form with %s other than %s is not supported", word, value));
  return false;
}

static bool up_refuse(Draft *d, const char *arg) {
  draft_refuse(d, arg);
  return false;
}

/* "old=new" */
static bool up_rename_attr(Draft *d, const char *arg) {
  char word[128];
  next_word(&arg, word, sizeof word);
  const char *to = ctx_intern(d->im->c, split(word, '='));
  const OnnxAttr *a = draft_attr(d, word);
  if (!a) return true;
  OnnxAttr renamed = *a;
  renamed.name = to;
  draft_drop(d, word);
  draft_set(d, renamed);
  return true;
}

static bool up_rename(Draft *d, const char *arg) {
  d->op = arg;
  return true;
}

/* "attribute: old=new ...": values that are spelled otherwise. */
static bool up_words(Draft *d, const char *arg) {
  char word[128], name[64];
  next_word(&arg, name, sizeof name);
  split(name, ':');
  while (next_word(&arg, word, sizeof word)) {
    const char *to = ctx_intern(d->im->c, split(word, '='));
    if (!is_string(draft_attr(d, name), word)) continue;
    set_string(d, ctx_intern(d->im->c, name), to);
    break;
  }
  return true;
}

/* A float that became an integer. */
static bool up_integer(Draft *d, const char *arg) {
  const OnnxAttr *a = draft_attr(d, arg);
  if (a && a->type == ONNX_FLOAT && a->f >= 0 && a->f < 1e6f) set_int(d, arg, (int64_t)a->f);
  return true;
}

/* An element type that stands as its name. */
static bool up_type_code(Draft *d, const char *arg) {
  const OnnxAttr *a = draft_attr(d, arg);
  if (!a || a->type != ONNX_STRING) return true;
  for (int code = 1; code <= 16; code++) {
    const char *name = onnx_type_name(d->im->c, code);
    bool same = strlen(name) == a->s.n;
    for (size_t i = 0; i < a->s.n && same; i++) same = tolower(a->s.bytes[i]) == name[i];
    if (!same) continue;
    set_int(d, arg, code);
    return true;
  }
  draft_error(d, E0402, NULL, "attribute '%s' names no element type", arg);
  return false;
}

/* ---- attributes that became inputs ---- */

static Tensor *input_of_attr(Draft *d, const OnnxAttr *a, const char *kind) {
  uint8_t element[8];
  if (!strcmp(kind, "like")) {
    if (a->type != ONNX_FLOAT) return NULL;
    DType t = input(d, 0) ? type_of(d, input(d, 0)) : DT_F32;
    if (t == DT_NONE) t = DT_F32;
    dtype_store_f(t, element, (double)a->f);
    return make_const(d, a->name, t, 0, 1, element);
  }
  if (a->type == ONNX_INT) return make_const(d, a->name, DT_I64, strcmp(kind, "scalar") ? 1 : 0, 1, &a->i);
  return a->type == ONNX_INTS ? make_ints(d, a->name, a->ints, a->n) : NULL;
}

/* "name@position[:kind] ...". The kind of input: a list of i64 (the default); axes: the same, absent where it is empty;
 * scalar: one i64; like: one element of the first input's type. */
static bool up_input(Draft *d, const char *arg) {
  char word[64];
  while (next_word(&arg, word, sizeof word)) {
    char *at = split(word, '@'), *kind = split(at, ':');
    const OnnxAttr *a = draft_attr(d, word);
    if (!a) continue;
    Tensor *t = NULL;
    if (strcmp(kind, "axes") || a->n) {
      t = input_of_attr(d, a, kind);
      if (!t) {
        draft_error(d, E0402, NULL, "attribute '%s' is of the wrong kind", word);
        return false;
      }
    }
    if (t) set_input(d, atoi(at), t);
    draft_drop(d, word);
  }
  return true;
}

/* Equal parts were implied by the number of outputs. */
static bool up_num_outputs(Draft *d, const char *arg) {
  if (!input(d, 1)) set_int(d, "num_outputs", d->nout);
  return true;
}

/* ---- broadcasting as it was before opset 7 ---- */

/* The input stands for axes from `axis` on: ones are put behind its shape so that NumPy's rule finds the same. */
static bool align(Draft *d, int i, int64_t axis, int rank) {
  Tensor *b = input(d, i);
  int64_t axes[MAX_RANK], ones = rank - axis - rank_of(d, b);
  if (b->rank < 0) return unknown_rank(d, b);
  if (axis < 0 || ones < 0) {
    draft_error(d, E0411, NULL, "%s does not fit at axis %lld of rank %d", tensor_type_text(d->im->c, b),
                (long long)axis, rank);
    return false;
  }
  for (int k = 0; k < ones; k++) axes[k] = b->rank + k;
  if (ones) set_input(d, i, make_node(d, "Unsqueeze", b, make_ints(d, "axes", axes, (int)ones)));
  return true;
}

static bool up_broadcast(Draft *d, const char *arg) {
  const OnnxAttr *a = draft_attr(d, "axis");
  int64_t axis = a ? a->i : 0;
  bool aligned = a && int_attr(d, "broadcast", 0);
  up_drop(d, "broadcast axis");
  if (!aligned || !input(d, 0) || !input(d, 1)) return true;
  int rank = rank_of(d, input(d, 0));
  if (rank < 0) return unknown_rank(d, input(d, 0));
  return align(d, 1, axis < 0 ? axis + rank : axis, rank);
}

/* One slope for each channel. */
static bool up_slope(Draft *d, const char *arg) {
  Tensor *x = input(d, 0), *slope = input(d, 1);
  if (!x || !slope || rank_of(d, slope) != 1 || ex_equals_int(slope->shape[0], 1)) return true;
  if (rank_of(d, x) < 0) return unknown_rank(d, x);
  return x->rank < 2 || align(d, 1, 1, x->rank);
}

/* ---- Softmax over all axes from one on ---- */

static Tensor *unflatten(Draft *d, Tensor *out) { return make_node(d, "Reshape", out, d->tensor); }

/* The one axis from `axis` on that is longer than 1, or the last; -1 if there are several or the rank is unknown. */
static int only_axis(const Tensor *x, int64_t axis) {
  if (x->rank < 0 || axis < 0 || axis >= x->rank) return -1;
  int found = -1;
  for (int i = (int)axis; i < x->rank; i++) {
    if (ex_equals_int(x->shape[i], 1)) continue;
    if (found >= 0) return -1;
    found = i;
  }
  return found < 0 ? x->rank - 1 : found;
}

static bool up_flatten(Draft *d, const char *arg) {
  Tensor *x = input(d, 0);
  int64_t axis = int_attr(d, "axis", 1);
  if (!x) return true;
  int rank = rank_of(d, x);
  if (rank >= 0 && axis < 0) axis += rank;
  int only = only_axis(x, axis);
  set_int(d, "axis", only >= 0 ? only : -1);
  if (only >= 0 || (rank < 0 && axis == -1)) return true;
  d->tensor = make_node(d, "Shape", x, NULL);
  Tensor *flat = make_node(d, "Flatten", x, NULL);
  Attr *a = flat->def->attrs;
  for (int i = 0; i < flat->def->op->nattr; i++)
    if (!strcmp(a[i].name, "axis")) a[i].kind = ATTR_INT, a[i].i = axis;
  set_input(d, 0, flat);
  d->finish = unflatten;
  return true;
}

/* ---- Upsample, and Resize of opset 10 ---- */

/* Upsample's scales: attributes of one name or, at first, two numbers for height and width. */
static Tensor *scales_of(Draft *d) {
  const OnnxAttr *s = draft_attr(d, "scales"), *h = draft_attr(d, "height_scale"), *w = draft_attr(d, "width_scale");
  if (s && s->type == ONNX_FLOATS) return make_const(d, "scales", DT_F32, 1, s->n, s->floats);
  if (h && w) return make_const(d, "scales", DT_F32, 1, 4, (float[]){1, 1, h->f, w->f});
  return NULL;
}

/* The nearest element was taken downwards where the scale enlarges, upwards where it shrinks. NULL: one does this, one that. */
static const char *rounding(const Tensor *scales) {
  int64_t dims[MAX_RANK];
  bool shrinks = false, enlarges = false;
  bool known = scales->data && scales->rank == 1 && tensor_dims(scales, dims);
  for (int64_t i = 0; known && i < dims[0]; i++) {
    shrinks |= tensor_const_float(scales, i) < 1;
    enlarges |= tensor_const_float(scales, i) > 1;
  }
  return !shrinks ? "floor" : enlarges ? NULL : "ceil";
}

/* Coordinates were not centred. */
static bool up_resize(Draft *d, const char *arg) {
  Tensor *scales = input(d, 1) ? input(d, 1) : scales_of(d);
  up_drop(d, "scales height_scale width_scale");
  if (!scales) {
    draft_error(d, E0402, NULL, "the scales are missing");
    return false;
  }
  set_input(d, 1, NULL);
  set_input(d, 2, scales);
  up_words(d, "mode: bilinear=linear trilinear=linear");
  set_string(d, "coordinate_transformation_mode", "asymmetric");
  const char *nearest = rounding(scales);
  if (nearest) set_string(d, "nearest_mode", nearest);
  else if (!is_string(draft_attr(d, "mode"), "linear"))
    return up_refuse(d, "its form of opset 10 that enlarges one axis and shrinks another is not supported");
  return true;
}

/* ---- GroupNormalization with one scale for a group, now for a channel ---- */

static bool up_group_scale(Draft *d, const char *arg) {
  Tensor *x = input(d, 0);
  int64_t channels, groups = int_attr(d, "num_groups", 0);
  if (!x || !input(d, 1) || !input(d, 2)) return true;
  if (rank_of(d, x) < 2) return unknown_rank(d, x);
  if (!ex_is_int(x->shape[1], &channels) || groups < 1 || channels % groups) {
    draft_error(d, E0411, NULL, "%s cannot be divided into %lld groups of channels", tensor_type_text(d->im->c, x),
                (long long)groups);
    return false;
  }
  for (int i = 1; i <= 2; i++) {
    Tensor *t = make_node(d, "Unsqueeze", input(d, i), make_ints(d, "axes", (int64_t[]){1}, 1));
    t = make_node(d, "Expand", t, make_ints(d, "shape", (int64_t[]){groups, channels / groups}, 2));
    set_input(d, i, make_node(d, "Reshape", t, make_ints(d, "shape", (int64_t[]){channels}, 1)));
  }
  return true;
}

/* ---- the table ---- */

static const struct {
  const char *ops;
  int from, below;
  bool (*action)(Draft *d, const char *arg);
  const char *arg;
} upgrades[] = {
#define UPGRADE(ops, from, below, action, arg) {ops, from, below, up_##action, arg},
#include "onnx_upgrade.def"
#undef UPGRADE
};

bool import_upgrade(Draft *d) {
  if (*d->domain) return true;
  for (int i = 0; i < COUNT(upgrades); i++) {
    bool meant = d->version >= upgrades[i].from && d->version < upgrades[i].below &&
                 (*upgrades[i].ops == '*' || has_word(upgrades[i].ops, d->said));
    if (meant && !upgrades[i].action(d, upgrades[i].arg)) return false;
  }
  return true;
}
