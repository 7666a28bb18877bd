/* tensor.c - the elements of a stored tensor, wherever and however the writer put them: raw bytes, a typed list, a file
 * beside the model. Bytes in a mapped file stay there, however they are aligned; the rest is copied. */
#include "onnx_model.h"

#include <stdlib.h>

const char *onnx_type_name(Ctx *c, int code) {
  static const char *const names[] = {
      "undefined",      "float",      "uint8",          "int8",       "uint16",     "int16",
      "int32",          "int64",      "string",         "bool",       "float16",    "double",
      "uint32",         "uint64",     "complex64",      "complex128", "bfloat16",   "float8e4m3fn",
      "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4",      "int4",       "float4e2m1",
      "float8e8m0",     "uint2",      "int2",           "float6e2m3", "float6e3m2",
  };
  return code >= 0 && code < COUNT(names) ? names[code] : ctx_printf(c, "number %d", code);
}

typedef struct {
  OnnxFiles *files;
  const Source *s;
  Ctx *c;
  const OnnxTensor *t;
  const char *name;
  OnnxArray *a;
  int64_t count;
} Load;

/* "tensor 'w' f32[2,3]" */
static const char *label(const Load *l) {
  Str s = str_new(l->c);
  str_add(&s, *l->name ? "tensor '%s'" : "the tensor", diag_quote(l->c, l->name));
  if (l->a->dtype == DT_NONE) return s.s;
  str_add(&s, " %s[", dtype_info[l->a->dtype].name);
  for (int i = 0; i < l->t->ndims && i < MAX_RANK; i++) str_add(&s, "%s%lld", i ? "," : "", (long long)l->t->dims[i]);
  str_add(&s, "]");
  return s.s;
}

static void load_type(Load *l) {
  OnnxArray *a = l->a;
  a->dtype = dtype_from_onnx(l->t->type);
  if (l->t->type == 0) source_fail(l->s, E0304, NULL, "%s has no element type", label(l));
  if (a->dtype == DT_NONE)
    source_fail(l->s, E0404, NULL, "%s: element type %s is not supported", label(l), onnx_type_name(l->c, l->t->type));
  if (l->t->segment) source_fail(l->s, E0405, NULL, "%s is stored in segments, which dlc does not read", label(l));
  if (l->t->ndims > MAX_RANK)
    source_fail(l->s, E0303, NULL, "%s has rank %d; the most is %d", label(l), l->t->ndims, MAX_RANK);
}

static void load_shape(Load *l) {
  OnnxArray *a = l->a;
  int64_t bytes;
  bool empty = false, fits = true;
  a->rank = l->t->ndims;
  l->count = 1;
  for (int i = 0; i < a->rank; i++) {
    a->dims[i] = l->t->dims[i];
    if (a->dims[i] < 0) source_fail(l->s, E0304, NULL, "%s has a negative dimension", label(l));
    empty |= a->dims[i] == 0;
    fits = fits && mul_ok(l->count, a->dims[i], &l->count);
  }
  if (empty) l->count = 0;
  else if (!fits) source_fail(l->s, E0308, NULL, "%s: the number of elements overflows", label(l));
  if (!mul_ok(l->count, dtype_bytes(a->dtype), &bytes) || bytes > (int64_t)1 << 46)
    source_fail(l->s, E0308, NULL, "%s: the size in bytes overflows", label(l));
  a->bytes = (size_t)bytes;
}

static bool inside(const Source *s, const uint8_t *p) { return p >= s->bytes && p < s->bytes + s->size; }

/* The array's data is what lies at p, in s or in what the reader unpacked. */
static void take(Load *l, const Source *s, const uint8_t *p) {
  OnnxArray *a = l->a;
  bool stays = inside(s, p);
  if (a->dtype == DT_BOOL)
    for (size_t i = 0; i < a->bytes; i++) stays &= p[i] <= 1;
  if (stays) {
    a->data = p;
    return;
  }
  uint8_t *to = ctx_copy(l->c, p, a->bytes);
  if (a->dtype == DT_BOOL)
    for (size_t i = 0; i < a->bytes; i++) to[i] = to[i] != 0;
  a->data = to;
}

static void check_amount(const Load *l, const char *field, size_t has, size_t wants, const char *unit) {
  if (has != wants)
    source_fail(l->s, E0305, NULL, "%s: %s has %zu %s, %zu are needed", label(l), field, has, unit, wants);
}

/* int32_data also holds all that is narrower, two-byte floats as their bits. */
static void from_ints32(Load *l) {
  check_amount(l, "int32_data", l->t->nints32, (size_t)l->count, "elements");
  uint8_t *to = ctx_alloc(l->c, l->a->bytes);
  for (int64_t i = 0; i < l->count; i++) {
    int32_t v = l->t->ints32[i];
    if (l->a->dtype == DT_BOOL) to[i] = v != 0;
    else memcpy(to + i * dtype_bytes(l->a->dtype), &v, (size_t)dtype_bytes(l->a->dtype));
  }
  l->a->data = to;
}

static void from_uints64(Load *l) {
  check_amount(l, "uint64_data", l->t->nuints64, (size_t)l->count, "elements");
  uint8_t *to = ctx_alloc(l->c, l->a->bytes);
  for (int64_t i = 0; i < l->count; i++)
    memcpy(to + i * dtype_bytes(l->a->dtype), &l->t->uints64[i], (size_t)dtype_bytes(l->a->dtype));
  l->a->data = to;
}

static void from_typed(Load *l) {
  const OnnxTensor *t = l->t;
  switch (l->a->dtype) {
    case DT_F32:
      check_amount(l, "float_data", t->floats.n, l->a->bytes, "bytes");
      if (l->count) take(l, l->s, t->floats.bytes);
      break;
    case DT_F64:
      check_amount(l, "double_data", t->doubles.n, l->a->bytes, "bytes");
      if (l->count) take(l, l->s, t->doubles.bytes);
      break;
    case DT_I64:
      check_amount(l, "int64_data", t->nints64, (size_t)l->count, "elements");
      if (l->count) l->a->data = ctx_copy(l->c, t->ints64, l->a->bytes);
      break;
    case DT_U32:
    case DT_U64: from_uints64(l); break;
    default: from_ints32(l);
  }
}

OnnxArray onnx_tensor_data(OnnxFiles *f, const OnnxTensor *t, const char *name) {
  OnnxArray a = {.name = name, .dtype = DT_NONE, .data = ""};
  Load l = {.files = f, .s = f->model, .c = f->model->c, .t = t, .name = name, .a = &a};
  load_type(&l);
  load_shape(&l);
  if (t->external) {
    const Source *from;
    const uint8_t *p = onnx_external_data(f, t, label(&l), a.bytes, &from);
    if (l.count) take(&l, from, p);
  } else if (t->raw.bytes) {
    check_amount(&l, "raw_data", t->raw.n, a.bytes, "bytes");
    if (l.count) take(&l, l.s, t->raw.bytes);
  } else {
    from_typed(&l);
  }
  return a;
}

OnnxArray onnx_read_tensor(Ctx *c, const char *path) {
  const Source *s = source_open(c, path, true);
  source_check_magic(s);
  const OnnxTensor *t = onnx_read_tensor_message(s);
  OnnxFiles files = {.model = s};
  OnnxArray a = onnx_tensor_data(&files, t, t->name);
  if ((uintptr_t)a.data % (uintptr_t)dtype_bytes(a.dtype)) a.data = ctx_copy(c, a.data, a.bytes);
  return a;
}
