/* reader.c - from the scanned image through protobuf-c to plain structs; the one file that knows protobuf-c. */
#include <onnx.pb-c.h>

#include "onnx_model.h"
#include "scan.h"

#include <limits.h>

/* ---- what the scan must know, from the descriptors that protoc-c generated ---- */

static const WireMessage *wire_message(Ctx *c, Map *made, const ProtobufCMessageDescriptor *d);

/* Data that can be large and lies in the file as it does in memory. */
static bool is_bulk(const ProtobufCMessageDescriptor *d, const char *field) {
  return d == &onnx__tensor_proto__descriptor &&
         (!strcmp(field, "raw_data") || !strcmp(field, "float_data") || !strcmp(field, "double_data"));
}

static WireField wire_field(Ctx *c, Map *made, const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f) {
  WireField w = {
      .name = f->name, .number = f->id, .repeated = f->label == PROTOBUF_C_LABEL_REPEATED, .bulk = is_bulk(d, f->name)};
  w.type = WIRE_LENGTH;
  switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
      w.kind = WIRE_MESSAGE;
      w.message = wire_message(c, made, f->descriptor);
      break;
    case PROTOBUF_C_TYPE_STRING: w.kind = WIRE_TEXT; break;
    case PROTOBUF_C_TYPE_BYTES: w.kind = WIRE_BYTES; break;
    case PROTOBUF_C_TYPE_FLOAT: w.kind = WIRE_NUMBER, w.type = WIRE_FIXED32; break;
    case PROTOBUF_C_TYPE_DOUBLE: w.kind = WIRE_NUMBER, w.type = WIRE_FIXED64; break;
    default: w.kind = WIRE_NUMBER, w.type = WIRE_VARINT;
  }
  return w;
}

/* Recursion goes over the kinds of messages, each once. */
static const WireMessage *wire_message(Ctx *c, Map *made, const ProtobufCMessageDescriptor *d) {
  WireMessage *m = map_get(made, KEY(d));
  if (m) return m;
  m = NEW(c, WireMessage);
  map_set(made, KEY(d), m);
  m->name = d->short_name;
  m->cost = d->sizeof_message + 160;         /* and about so much for the structs and lists below */
  m->fields = NEW_ARRAY(c, WireField, d->n_fields);
  for (unsigned i = 0; i < d->n_fields; i++)
    if (d->fields[i].id != WIRE_PIECE || d != &onnx__tensor_proto__descriptor)
      m->fields[m->nfields++] = wire_field(c, made, d, &d->fields[i]);
  return m;
}

typedef struct { ProtobufCMessage *message; } Unpacked;

static void unpacked_close(void *p) {
  Unpacked *u = p;
  if (u->message) protobuf_c_message_free_unpacked(u->message, NULL);
  u->message = NULL;
}

static Unpacked *unpack(const Source *s, const ProtobufCMessageDescriptor *d) {
  Map made = map_new(s->c);
  WireImage *image = wire_scan(s, wire_message(s->c, &made, d));
  Unpacked *u = NEW(s->c, Unpacked);
  u->message = protobuf_c_message_unpack(d, NULL, image->size, image->bytes);
  ctx_defer(s->c, unpacked_close, u);
  wire_image_free(image);
  if (!u->message) source_fail(s, E0301, NULL, "protobuf-c refuses the file");
  return u;
}

/* ---- conversion ---- */

typedef struct { Ctx *c; const Source *s; } Reader;

static const char *text(const char *s) { return s ? s : ""; }
static OnnxBytes bytes_of(ProtobufCBinaryData b) { return (OnnxBytes){b.data ? b.data : (const uint8_t *)"", b.len}; }
static int count(const Reader *r, size_t n) {
  if (n > INT_MAX / 2) source_fail(r->s, E0303, NULL, "too many parts: a list of %zu", n);
  return (int)n;
}

/* One array field: the piece in the file that the scan cut out, or what protobuf-c unpacked. */
static OnnxBytes elements(const Reader *r, const Onnx__TensorProto *p, int field, const void *unpacked, size_t n) {
  OnnxBytes found = {unpacked, n};
  for (size_t i = 0; i < p->n_piece; i++) {
    uint64_t place[2];
    if (p->piece[i].data[0] != field) continue;
    if (found.n)
      source_fail(r->s, E0305, NULL, "tensor '%s': its data stands in several pieces", diag_quote(r->c, text(p->name)));
    memcpy(place, p->piece[i].data + 1, sizeof place);
    found = (OnnxBytes){r->s->bytes + place[0], (size_t)place[1]};
  }
  return found;
}

static const OnnxEntry *read_entries(const Reader *r, Onnx__StringStringEntryProto **p, int n) {
  OnnxEntry *e = NEW_ARRAY(r->c, OnnxEntry, n);
  for (int i = 0; i < n; i++) e[i] = (OnnxEntry){text(p[i]->key), text(p[i]->value)};
  return e;
}

static void read_tensor(const Reader *r, const Onnx__TensorProto *p, OnnxTensor *t) {
  t->name = text(p->name);
  t->type = p->data_type;
  t->dims = p->dims;
  t->ndims = count(r, p->n_dims);
  t->raw =
      elements(r, p, 9, p->has_raw_data ? bytes_of(p->raw_data).bytes : NULL, p->has_raw_data ? p->raw_data.len : 0);
  t->floats = elements(r, p, 4, p->float_data, p->n_float_data * sizeof(float));
  t->doubles = elements(r, p, 10, p->double_data, p->n_double_data * sizeof(double));
  t->ints32 = p->int32_data, t->nints32 = p->n_int32_data;
  t->ints64 = p->int64_data, t->nints64 = p->n_int64_data;
  t->uints64 = p->uint64_data, t->nuints64 = p->n_uint64_data;
  t->nstrings = count(r, p->n_string_data);
  t->external = p->data_location == 1;
  t->segment = p->has_segment;
  t->nentries = count(r, p->n_external_data);
  t->entries = read_entries(r, p->external_data, t->nentries);
}

static const OnnxGraph *read_graph(const Reader *r, const Onnx__GraphProto *p);

/* The type code of an attribute from a writer that gave none. */
static int guess_type(const Onnx__AttributeProto *p) {
  return p->has_f ? ONNX_FLOAT : p->has_i ? ONNX_INT : p->has_s ? ONNX_STRING : p->t ? ONNX_TENSOR : p->g ? ONNX_GRAPH
       : p->n_floats ? ONNX_FLOATS : p->n_strings ? ONNX_STRINGS : ONNX_INTS;
}

static void read_attr(const Reader *r, const Onnx__AttributeProto *p, OnnxAttr *a) {
  a->name = text(p->name);
  a->ref = text(p->ref_attr_name);
  a->type = p->type ? p->type : guess_type(p);
  a->f = p->f;
  a->i = p->i;
  a->s = bytes_of(p->s);
  if (a->type == ONNX_TENSOR && p->t) {
    OnnxTensor *t = NEW(r->c, OnnxTensor);
    read_tensor(r, p->t, t);
    a->t = t;
  }
  if (a->type == ONNX_GRAPH && p->g) a->g = read_graph(r, p->g);
  if (a->type == ONNX_FLOATS) a->floats = p->floats, a->n = count(r, p->n_floats);
  if (a->type == ONNX_INTS) a->ints = p->ints, a->n = count(r, p->n_ints);
  if (a->type == ONNX_STRINGS) {
    OnnxBytes *s = NEW_ARRAY(r->c, OnnxBytes, p->n_strings);
    a->n = count(r, p->n_strings);
    for (int i = 0; i < a->n; i++) s[i] = bytes_of(p->strings[i]);
    a->strings = s;
  }
}

static const OnnxAttr *read_attrs(const Reader *r, Onnx__AttributeProto **p, size_t n) {
  OnnxAttr *a = NEW_ARRAY(r->c, OnnxAttr, count(r, n));
  for (size_t i = 0; i < n; i++) read_attr(r, p[i], &a[i]);
  return a;
}

static const OnnxNode *read_nodes(const Reader *r, Onnx__NodeProto **p, size_t n) {
  OnnxNode *nodes = NEW_ARRAY(r->c, OnnxNode, count(r, n));
  for (size_t i = 0; i < n; i++) {
    OnnxNode *to = &nodes[i];
    to->name = text(p[i]->name);
    to->op = text(p[i]->op_type);
    to->domain = text(p[i]->domain);
    to->overload = text(p[i]->overload);
    to->in = (const char *const *)p[i]->input, to->nin = count(r, p[i]->n_input);
    to->out = (const char *const *)p[i]->output, to->nout = count(r, p[i]->n_output);
    to->attrs = read_attrs(r, p[i]->attribute, p[i]->n_attribute);
    to->nattr = count(r, p[i]->n_attribute);
  }
  return nodes;
}

static void read_type(const Reader *r, const Onnx__TypeProto *p, OnnxValue *v) {
  v->kind = p->has_sequence_type ? "a sequence" : p->has_map_type ? "a map" : p->has_opaque_type ? "an opaque value"
          : p->has_sparse_tensor_type ? "a sparse tensor" : p->has_optional_type ? "an optional" : NULL;
  if (!p->tensor_type) return;
  v->elem = p->tensor_type->elem_type;
  const Onnx__TensorShapeProto *shape = p->tensor_type->shape;
  if (!shape) return;
  v->has_shape = true;
  v->ndims = count(r, shape->n_dim);
  OnnxDim *d = NEW_ARRAY(r->c, OnnxDim, v->ndims);
  for (int i = 0; i < v->ndims; i++)
    d[i] = (OnnxDim){shape->dim[i]->has_dim_value ? shape->dim[i]->dim_value : -1, text(shape->dim[i]->dim_param)};
  v->dims = d;
}

static const OnnxValue *read_values(const Reader *r, Onnx__ValueInfoProto **p, size_t n) {
  OnnxValue *v = NEW_ARRAY(r->c, OnnxValue, count(r, n));
  for (size_t i = 0; i < n; i++) {
    v[i].name = text(p[i]->name);
    if (p[i]->type) read_type(r, p[i]->type, &v[i]);
  }
  return v;
}

static const OnnxGraph *read_graph(const Reader *r, const Onnx__GraphProto *p) {
  OnnxGraph *g = NEW(r->c, OnnxGraph);
  g->name = text(p->name);
  g->nodes = read_nodes(r, p->node, p->n_node), g->nnodes = count(r, p->n_node);
  g->in = read_values(r, p->input, p->n_input), g->nin = count(r, p->n_input);
  g->out = read_values(r, p->output, p->n_output), g->nout = count(r, p->n_output);
  g->nsparse = count(r, p->n_sparse_initializer);
  OnnxTensor *t = NEW_ARRAY(r->c, OnnxTensor, count(r, p->n_initializer));
  g->ninits = (int)p->n_initializer;
  for (int i = 0; i < g->ninits; i++) read_tensor(r, p->initializer[i], &t[i]);
  g->inits = t;
  return g;
}

static const OnnxOpset *read_opsets(const Reader *r, Onnx__OperatorSetIdProto **p, size_t n) {
  OnnxOpset *o = NEW_ARRAY(r->c, OnnxOpset, count(r, n));
  for (size_t i = 0; i < n; i++) {
    const char *domain = text(p[i]->domain);
    o[i] = (OnnxOpset){ctx_intern(r->c, strcmp(domain, "ai.onnx") ? domain : ""), p[i]->version};
  }
  return o;
}

static void read_function(const Reader *r, const Onnx__FunctionProto *p, OnnxFunction *f) {
  f->domain = strcmp(text(p->domain), "ai.onnx") ? text(p->domain) : "";
  f->name = text(p->name);
  f->overload = text(p->overload);
  f->in = (const char *const *)p->input, f->nin = count(r, p->n_input);
  f->out = (const char *const *)p->output, f->nout = count(r, p->n_output);
  f->defaults = read_attrs(r, p->attribute_proto, p->n_attribute_proto), f->ndefaults = count(r, p->n_attribute_proto);
  f->nodes = read_nodes(r, p->node, p->n_node), f->nnodes = count(r, p->n_node);
  f->opsets = read_opsets(r, p->opset_import, p->n_opset_import), f->nopsets = count(r, p->n_opset_import);
}

OnnxModel *onnx_read_model(const Source *s) {
  Reader r = {s->c, s};
  Unpacked *u = unpack(s, &onnx__model_proto__descriptor);
  const Onnx__ModelProto *p = (const Onnx__ModelProto *)u->message;
  OnnxModel *m = NEW(s->c, OnnxModel);
  m->unpacked = u;
  m->ir_version = p->ir_version;
  m->producer = ctx_intern(s->c, text(p->producer_name));
  m->producer_version = ctx_intern(s->c, text(p->producer_version));
  m->opsets = read_opsets(&r, p->opset_import, p->n_opset_import), m->nopsets = count(&r, p->n_opset_import);
  if (p->graph) m->graph = read_graph(&r, p->graph);
  OnnxFunction *f = NEW_ARRAY(s->c, OnnxFunction, count(&r, p->n_functions));
  m->nfunctions = (int)p->n_functions;
  for (int i = 0; i < m->nfunctions; i++) read_function(&r, p->functions[i], &f[i]);
  m->functions = f;
  return m;
}

OnnxTensor *onnx_read_tensor_message(const Source *s) {
  Reader r = {s->c, s};
  Unpacked *u = unpack(s, &onnx__tensor_proto__descriptor);
  OnnxTensor *t = NEW(s->c, OnnxTensor);
  read_tensor(&r, (const Onnx__TensorProto *)u->message, t);
  return t;
}

void onnx_model_release(OnnxModel *m) { unpacked_close(m->unpacked); }
