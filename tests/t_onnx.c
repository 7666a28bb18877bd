/* t_onnx.c - the ONNX reader: malformed files with what is said of them, stored tensors in all forms, names, functions,
 * sub-graphs, dimensions, upgrades. "t_onnx --write FOLDER" writes the malformed files and their expected exit statuses
 * (expected.tsv). */
#include <CUnit/Basic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../frontend/onnx/onnx.h"
#include "../passes/passes.h"
#include "malformed/cases.h"

enum { F32 = 1, U8 = 2, I8 = 3, I32 = 6, I64 = 7, BOOL = 9, F16 = 10, F64 = 11, U32 = 12, U64 = 13, BF16 = 16 };

static char folder[] = "/tmp/dlc-t_onnx-XXXXXX";
static char model_path[256];

/* ---- one import, from bytes ---- */

typedef struct { Ctx *c; Graph *g; OnnxInfo info; DiagCode code; int exit_status, errors; char says[4096]; } Result;

static void write_file(const char *path, const Wire *w) {
  FILE *f = fopen(path, "wb");
  if (!f) exit(9);
  if (w->n) fwrite(w->b, 1, w->n, f);
  fclose(f);
}

static Graph *import_and_simplify(Ctx *c, OnnxOptions *o, bool simplify) {
  Graph *g = onnx_import(c, model_path, o);
  Options options = {0};
  Module m = {.c = c, .opt = &options, .graph = g};
  if (simplify) pass_simplify(&m);
  return g;
}

/* Takes w. The context stays open until result_free. */
static Result import_with(Wire w, const OnnxOptions *options, bool simplify) {
  static Result r;
  OnnxOptions o = options ? *options : (OnnxOptions){0};
  r = (Result){.c = ctx_new(), .code = DIAG_COUNT};
  o.info = &r.info;
  o.hash = true;
  write_file(model_path, &w);
  free(w.b);
  Diags *d = ctx_diags(r.c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    r.g = import_and_simplify(r.c, &o, simplify);
  }
  d->armed = false;
  r.errors = d->list.n;
  r.exit_status = diag_exit_status(r.c);
  if (!d->list.n) return r;
  r.code = d->list.v[0].code;
  for (int i = 0; i < d->list.n; i++)
    snprintf(r.says + strlen(r.says), sizeof r.says - strlen(r.says), "%s%s", i ? "\n" : "", d->list.v[i].text);
  return r;
}

static Result import(Wire w) { return import_with(w, NULL, false); }

static void expect(bool ok, const char *name, const char *has, const char *wants) {
  if (!ok) fprintf(stderr, "\n%s\n  has:   %s\n  wants: %s\n", name, has, wants);
  CU_ASSERT(ok);
}

/* ---- malformed files ---- */

static void test_malformed(void) {
  static const int exit_of[] = {
#define DIAG(code, exit_status, title) exit_status,
#include "../ir/diag.def"
#undef DIAG
    0};
  for (const Case *k = malformed_cases; k->name; k++) {
    Result r = import_with(k->build(), NULL, true);
    const char *has = r.code == DIAG_COUNT ? "no error" : diag_code_name(r.code);
    const char *wants = k->code == DIAG_COUNT ? "no error" : diag_code_name(k->code);
    expect(r.code == k->code && r.exit_status == exit_of[k->code], k->name,
           r.code == k->code ? "another exit status"
           : r.errors        ? r.says
                             : has,
           wants);
    expect(strstr(r.says, k->says), k->name, r.says, k->says);
    expect(!r.g == (k->code != DIAG_COUNT) || k->code == E0411, k->name, "a graph beside errors", "none");
    ctx_free(r.c);
  }
}

/* Cut anywhere, the valid model gives one error and nothing worse. */
static void test_truncated(void) {
  Wire w = malformed_valid();
  for (size_t n = 0; n < w.n; n++) {
    Wire part = {0};
    wire_raw(&part, w.b, n);
    Result r = import(part);
    bool right = r.code == E0301 || (n == 0 && r.code == E0302) || r.code == E0304 ||
                 r.code == E0401; /* E0401: the functions are gone */
    expect(right && r.errors == 1 && !r.g, "cut", r.says, "E0301, E0304");
    ctx_free(r.c);
  }
  free(w.b);
}

/* Any change of a byte is accepted or refused, with no crash and no leak (the sanitizers look). */
static void test_mutated(void) {
  uint64_t seed = 12345;
  Wire w = malformed_valid();
  int refused = 0;
  for (int i = 0; i < 3000; i++) {
    Wire m = {0};
    wire_raw(&m, w.b, w.n);
    for (int k = 0; k <= i % 3; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      m.b[(seed >> 33) % m.n] = (uint8_t)(seed >> 20);
    }
    Result r = import(m);
    refused += r.code != DIAG_COUNT;
    CU_ASSERT(r.code == DIAG_COUNT ? r.g != NULL : r.exit_status > 0 && r.exit_status < 8);
    ctx_free(r.c);
  }
  CU_ASSERT(refused > 1000);
  free(w.b);
}

static void test_random_bytes(void) {
  uint64_t seed = 99;
  for (int i = 0; i < 500; i++) {
    Wire w = {0};
    for (int k = 0; k < 64 + i; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      uint8_t b = (uint8_t)(seed >> 40);
      wire_raw(&w, &b, 1);
    }
    Result r = import(w);
    CU_ASSERT(r.exit_status == 3);
    ctx_free(r.c);
  }
}

/* All problems in one run. */
static void test_all_problems(void) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", F32, "2x4"));
  wire_message(&g, 12, onnx_value("y", F32, NULL));
  wire_message(&g, 1, onnx_node("Foo", "x", "a"));
  wire_message(&g, 1, onnx_node("Foo", "a", "b"));
  wire_message(&g, 1, onnx_node("Bar", "b", "c"));
  wire_message(&g, 1, onnx_node("Relu", "c gone", "d"));
  wire_message(&g, 1, onnx_node("Add", "d gone", "y"));
  Result r = import(onnx_model(g, 17));
  CU_ASSERT(r.errors == 3);
  CU_ASSERT(strstr(r.says, "input 'gone'") != NULL);
  CU_ASSERT(strstr(r.says, "has 2 inputs; the most is 1") != NULL);
  expect(strstr(r.says, "3 of 5 nodes cannot be compiled:\n  node 0 (Foo-17) and 1 more: dlc has no such operator\n  "
                        "node 2 (Bar-17): ") != NULL,
         "refused", r.says, "Foo twice, Bar once");
  ctx_free(r.c);
}

/* ---- tensors ---- */

static const Tensor *constant_of(Result *r, Wire tensor) {
  Wire g = {0};
  wire_message(&g, 5, tensor);
  wire_message(&g, 12, onnx_value("w", F32, NULL));
  *r = import(onnx_model(g, 17));
  if (r->errors) fprintf(stderr, "\n%s\n", r->says);
  CU_ASSERT_FATAL(r->g && r->g->outputs.n == 1 && r->g->outputs.v[0]->data);
  return r->g->outputs.v[0];
}

static void check_elements(Wire tensor, DType t, int n, const double *v) {
  Result r;
  const Tensor *w = constant_of(&r, tensor);
  CU_ASSERT(w->dtype == t && w->rank == 1 && ex_equals_int(w->shape[0], n));
  for (int i = 0; i < n; i++) CU_ASSERT(dtype_load_f(t, (const char *)w->data->bytes + i * dtype_bytes(t)) == v[i]);
  CU_ASSERT(r.info.params == n);
  ctx_free(r.c);
}

static Wire ints_in(int type, const char *dims, int field, bool packed, int n, const int64_t *v) {
  Wire t = onnx_tensor("w", type, dims), list = {0};
  for (int i = 0; i < n; i++) {
    if (packed) wire_varint(&list, (uint64_t)v[i]);
    else wire_int(&t, field, v[i]);
  }
  if (packed) wire_bytes(&t, field, list.b, list.n);
  free(list.b);
  return t;
}

static void test_typed_data(void) {
  static const struct { int type, field; DType t; int64_t in[3]; double out[3];
  } rows[] = {
      {I32, 5, DT_I32, {1, -2, INT32_MAX}, {1, -2, INT32_MAX}},
      {I8, 5, DT_I8, {1, -2, 127}, {1, -2, 127}},
      {U8, 5, DT_U8, {1, 200, 255}, {1, 200, 255}},
      {BOOL, 5, DT_BOOL, {1, 0, 7}, {1, 0, 1}},
      {F16, 5, DT_F16, {0x3c00, 0xc000, 0x3800}, {1, -2, 0.5}},
      {BF16, 5, DT_BF16, {0x3f80, 0xc000, 0x3f00}, {1, -2, 0.5}},
      {I64, 7, DT_I64, {1, -2, 1ll << 40}, {1, -2, 1ll << 40}},
      {U64, 11, DT_U64, {1, 2, 1ll << 40}, {1, 2, 1ll << 40}},
      {U32, 11, DT_U32, {1, 2, UINT32_MAX}, {1, 2, UINT32_MAX}},
  };
  for (int i = 0; i < COUNT(rows); i++)
    for (int packed = 0; packed < 2; packed++)
      check_elements(ints_in(rows[i].type, "3", rows[i].field, packed, 3, rows[i].in), rows[i].t, 3, rows[i].out);
}

/* Floats: packed, one by one, raw; short enough to go through protobuf-c and long enough to stay in the file. */
static void test_float_data(void) {
  enum { N = 40 };
  float f[N];
  double d[N];
  for (int i = 0; i < N; i++) d[i] = f[i] = (float)i / 4 - 3;
  for (int n = 3; n <= N; n += N - 3)
    for (int pad = 1; pad < 9; pad++) {      /* moves the data through all alignments */
      char dims[16];
      snprintf(dims, sizeof dims, "%d", n);
      for (int form = 0; form < 4; form++) {
        Wire t = onnx_tensor("w", form == 3 ? F64 : F32, dims);
        wire_bytes(&t, 12, "documentation" /* not read */, (size_t)pad);
        if (form == 0) wire_bytes(&t, 9, f, sizeof(float) * (size_t)n);
        if (form == 1) wire_bytes(&t, 4, f, sizeof(float) * (size_t)n);
        if (form == 3) wire_bytes(&t, 10, d, sizeof(double) * (size_t)n);
        for (int i = 0; form == 2 && i < n; i++) wire_float(&t, 4, f[i]);
        check_elements(t, form == 3 ? DT_F64 : DT_F32, n, d);
      }
    }
}

static void test_empty_tensor(void) {
  Result r;
  const Tensor *w = constant_of(&r, onnx_tensor("w", F32, "3x0"));
  CU_ASSERT(w->rank == 2 && ex_equals_int(w->shape[1], 0) && w->data->bytes);
  ctx_free(r.c);
}

static void test_tensor_file(void) {
  Ctx *c = ctx_new();
  Wire w = onnx_tensor("x", I64, "2x2");
  int64_t v[4] = {1, -1, 5, 7};
  wire_bytes(&w, 9, v, sizeof v);
  write_file(model_path, &w);
  OnnxArray a = onnx_read_tensor(c, model_path);
  CU_ASSERT(!strcmp(a.name, "x") && a.dtype == DT_I64 && a.rank == 2 && a.dims[1] == 2 && a.bytes == 32 &&
            !memcmp(a.data, v, 32));
  w.n -= 4;
  write_file(model_path, &w);
  free(w.b);
  Diags *d = ctx_diags(c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    onnx_read_tensor(c, model_path);
  }
  CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0504 && strstr(d->list.v[0].text, "m.onnx: truncated") != NULL);
  ctx_free(c);
}

/* ---- graphs as text: "Add(x,[1 2])" for each node; constants by value ---- */

static void add_operand(Str *s, const Tensor *t) {
  if (!t) str_add(s, "-");
  else if (!t->data) str_add(s, "%s", t->name);
  else if (t->rank == 0) str_add(s, "%g", tensor_const_float(t, 0));
  else {
    int64_t n = 1, dims[MAX_RANK];
    tensor_dims(t, dims);
    for (int i = 0; i < t->rank; i++) n *= dims[i];
    str_add(s, "[");
    for (int64_t i = 0; i < n; i++) str_add(s, "%s%g", i ? " " : "", tensor_const_float(t, i));
    str_add(s, "]");
  }
}

static const char *text_of(const Result *r) {
  Str s = str_new(r->c);
  if (!r->g) return r->says;
  for (int i = 0; i < r->g->nodes.n; i++) {
    const Node *n = r->g->nodes.v[i];
    str_add(&s, "%s%s(", i ? " " : "", n->op->name);
    for (int k = 0; k < n->nin; k++) {
      if (k) str_add(&s, ",");
      add_operand(&s, n->in[k]);
    }
    str_add(&s, ")");
  }
  return s.s ? s.s : "";
}

static void check_text(Wire model, const char *name, const char *wants) {
  Result r = import(model);
  const char *has = text_of(&r);
  expect(!strcmp(has, wants), name, has, wants);
  ctx_free(r.c);
}

static Wire graph_xy(const char *dims) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", F32, dims));
  wire_message(&g, 12, onnx_value("y", F32, NULL));
  return g;
}

static void add_node(Wire *g, const char *op, const char *in, const char *out) {
  wire_message(g, 1, onnx_node(op, in, out));
}

static void add_floats(Wire *g, const char *name, const char *dims, int n, const float *v) {
  Wire t = onnx_tensor(name, F32, dims);
  wire_bytes(&t, 9, v, sizeof(float) * (size_t)n);
  wire_message(g, 5, t);
}

static void test_order(void) {
  Wire g = graph_xy("2x4");
  add_node(&g, "Neg", "b", "y");
  add_node(&g, "Add", "a x", "b");
  add_node(&g, "Relu", "x", "a");
  check_text(onnx_model(g, 17), "unsorted", "Relu(x) Add(a,x) Neg(b)");
}

static void test_chain(void) {
  enum { N = 20000 };
  Wire g = graph_xy("2x4");
  char in[16] = "x", out[16];
  for (int i = 0; i < N; i++) {
    snprintf(out, sizeof out, "n%d", i);
    add_node(&g, "Relu", in, i == N - 1 ? "y" : out);
    strcpy(in, out);
  }
  Result r = import(onnx_model(g, 17));
  CU_ASSERT(r.g && r.g->nodes.n == N && r.info.nodes == N);
  ctx_free(r.c);
}

static void test_initializer_input(void) {
  Wire g = graph_xy("2x4");
  wire_message(&g, 11, onnx_value("w", F32, "4"));
  add_floats(&g, "w", "4", 4, (float[]){1, 2, 3, 4});
  add_node(&g, "Add", "x w", "y");
  Result r = import(onnx_model(g, 17));
  CU_ASSERT_FATAL(r.g != NULL);
  CU_ASSERT(r.g->inputs.n == 1 && !strcmp(text_of(&r), "Add(x,[1 2 3 4])"));
  CU_ASSERT(!strcmp(r.info.producer, "test") && r.info.ir_version == 8 && r.info.params == 4 && r.info.nopsets == 1);
  CU_ASSERT(strlen(r.info.sha256) == 64);
  ctx_free(r.c);
}

static void test_constants(void) {
  Wire g = graph_xy("2x4"), n = onnx_node("Constant", "", "a");
  attr_float(&n, "value_float", 1.5f);
  wire_message(&g, 1, n);
  n = onnx_node("Constant", "", "b");
  attr_ints(&n, "value_ints", 2, 4, -1);
  wire_message(&g, 1, n);
  add_node(&g, "Add", "x a", "s");
  add_node(&g, "Reshape", "s b", "y");
  check_text(onnx_model(g, 17), "constants", "Add(x,1.5) Reshape(s,[4 -1])");
}

/* ---- dimensions ---- */

static const char *shape_text(Result *r, int input) {
  return r->g ? tensor_type_text(r->c, r->g->inputs.v[input]) : r->says;
}

static Wire two_inputs(void) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", F32, "Nx?x3"));
  wire_message(&g, 11, onnx_value("z", I64, "NxMx-1"));
  wire_message(&g, 12, onnx_value("x", F32, NULL));
  return onnx_model(g, 17);
}

static void check_dims(const OnnxOptions *o, const char *x, const char *z) {
  Result r = import_with(two_inputs(), o, false);
  const char *has = shape_text(&r, 0);
  expect(!strcmp(has, x), "dims of x", has, x);
  has = shape_text(&r, 1);
  expect(!strcmp(has, z), "dims of z", has, z);
  ctx_free(r.c);
}

static void check_dims_fail(const OnnxOptions *o, const char *says) {
  Result r = import_with(two_inputs(), o, false);
  expect(r.code == E0202 && strstr(r.says, says), "dims", r.says, says);
  ctx_free(r.c);
}

static void test_dims(void) {
  check_dims(NULL, "f32[N,x_d1,3]", "i64[N,M,z_d2]");
  check_dims(&(OnnxOptions){.dims = (DimBound[]){{"N", 5, 5}, {"x_d1", 7, 7}}, .ndims = 2}, "f32[5,7,3]",
             "i64[5,M,z_d2]");
  check_dims(&(OnnxOptions){.shapes = (ShapeOption[]){{"z", "2x?x9"}}, .nshapes = 1}, "f32[2,x_d1,3]", "i64[2,M,9]");
  check_dims(&(OnnxOptions){.shapes = (ShapeOption[]){{"z", "2x4x9"}, {"x", "2,6,3"}}, .nshapes = 2}, "f32[2,6,3]",
             "i64[2,4,9]");
  check_dims_fail(&(OnnxOptions){.dims = (DimBound[]){{"Q", 5, 5}}, .ndims = 1},
                  "--dim Q: the model has no such dimension");
  check_dims_fail(&(OnnxOptions){.shapes = (ShapeOption[]){{"q", "2"}}, .nshapes = 1},
                  "--shape q: the model has no such input");
  check_dims_fail(&(OnnxOptions){.shapes = (ShapeOption[]){{"x", "2x3"}}, .nshapes = 1},
                  "has 2 dimensions, the model's input has 3");
  check_dims_fail(&(OnnxOptions){.shapes = (ShapeOption[]){{"x", "2x3x4"}}, .nshapes = 1},
                  "dimension 2 is 3 in the model, not 4");
  check_dims_fail(&(OnnxOptions){.shapes = (ShapeOption[]){{"x", "2xa"}}, .nshapes = 1}, "is no shape");
  check_dims_fail(&(OnnxOptions){.shapes = (ShapeOption[]){{"x", "2x?x3"}, {"z", "3x?x?"}}, .nshapes = 2},
                  "dimension 'N' is given 3");
  Result r = import_with(two_inputs(), &(OnnxOptions){.dims = (DimBound[]){{"N", 2, 32}}, .ndims = 1}, false);
  CU_ASSERT_FATAL(r.g && r.g->dims.n == 4);
  CU_ASSERT(r.g->dims.v[0]->min == 2 && r.g->dims.v[0]->max == 32);
  ctx_free(r.c);
}

/* ---- sub-graphs and functions ---- */

static void test_subgraph(void) {
  Wire g = graph_xy("2x4"), then_branch = {0}, else_branch = {0}, n;
  wire_message(&then_branch, 12, onnx_value("t", F32, NULL));
  add_node(&then_branch, "Add", "x late", "t");
  wire_message(&else_branch, 12, onnx_value("t", F32, NULL));
  add_node(&else_branch, "Neg", "x", "t");
  n = onnx_node("If", "c", "y");
  attr_message(&n, "then_branch", 6, 5, then_branch);
  attr_message(&n, "else_branch", 6, 5, else_branch);
  wire_message(&g, 1, n);
  add_node(&g, "Relu", "x", "late");         /* needed by the branch, so it must come first */
  wire_message(&g, 11, onnx_value("c", BOOL, ""));
  Result r = import(onnx_model(g, 17));
  CU_ASSERT_FATAL(r.g && r.g->nodes.n == 2 && r.g->inner.n == 2);
  CU_ASSERT(!strcmp(text_of(&r), "Relu(x) If(c)"));
  const Node *branches = r.g->nodes.v[1];
  const Graph *inner = NULL;
  for (int i = 0; i < branches->op->nattr; i++)
    if (!strcmp(branches->attrs[i].name, "then_branch")) inner = branches->attrs[i].graph;
  CU_ASSERT_FATAL(inner != NULL);
  CU_ASSERT(inner->parent == r.g && inner->nodes.n == 1 && inner->nodes.v[0]->in[1] == r.g->nodes.v[0]->out[0]);
  CU_ASSERT(inner->outputs.v[0]->def == inner->nodes.v[0]);
  Tensor **captured;
  CU_ASSERT(node_captures(r.c, r.g->nodes.v[1], &captured) == 2);
  ctx_free(r.c);
}

static Wire local_node(const char *op, const char *in, const char *out) {
  Wire n = onnx_node(op, in, out);
  wire_text(&n, 7, "local");
  return n;
}

static Wire function(const char *name, const char *in, const char *out) {
  Wire f = {0}, o = {0};
  wire_text(&f, 1, name);
  wire_names(&f, 4, in);
  wire_names(&f, 5, out);
  wire_int(&o, 2, 17);
  wire_message(&f, 9, o);
  wire_text(&f, 10, "local");
  return f;
}

/* outer(a) = inner(a){alpha = its own alpha, 0.5 by default}, inner(a, b?) = Clip(LeakyRelu(a){alpha}, b) */
static Wire functions(bool given) {
  Wire g = graph_xy("2x4"), outer = function("outer", "a", "c"), inner = function("inner", "a b", "c"), n, a = {0};
  n = local_node("outer", "x", "y");
  if (given) attr_float(&n, "alpha", 0.25f);
  wire_message(&g, 1, n);
  n = local_node("inner", "a -", "c");
  attr_ref(&n, "slope", "alpha", 1);
  wire_message(&outer, 7, n);
  wire_text(&a, 1, "alpha");
  wire_float(&a, 2, 0.5f);
  wire_int(&a, 20, 1);
  wire_message(&outer, 11, a);
  n = onnx_node("Clip", "l b", "c");
  wire_message(&inner, 7, n);
  n = onnx_node("LeakyRelu", "a", "l");
  attr_ref(&n, "alpha", "slope", 1);
  wire_message(&inner, 7, n);
  Wire w = onnx_model(g, 17);
  wire_message(&w, 25, outer);
  wire_message(&w, 25, inner);
  return w;
}

static void test_functions(void) {
  for (int given = 0; given < 2; given++) {
    Result r = import(functions(given));
    if (r.errors) fprintf(stderr, "\n%s\n", r.says);
    CU_ASSERT_FATAL(r.g && r.g->nodes.n == 2);
    const Node *leaky = r.g->nodes.v[0], *clip = r.g->nodes.v[1];
    CU_ASSERT(!strcmp(leaky->op->name, "LeakyRelu") && leaky->attrs[0].f == (given ? 0.25 : 0.5) && leaky->index == 0);
    CU_ASSERT(!strcmp(clip->op->name, "Clip") && clip->nin == 1 && clip->out[0] == r.g->outputs.v[0] &&
              !strcmp(clip->out[0]->name, "y"));
    ctx_free(r.c);
  }
}

/* A function that gives back its input: the caller's two names need two values. */
static void test_function_passes_through(void) {
  Wire g = graph_xy("2x4"), f = function("same", "a", "a");
  wire_message(&g, 1, local_node("same", "x", "y"));
  Wire w = onnx_model(g, 17);
  wire_message(&w, 25, f);
  check_text(w, "passes through", "Identity(x)");
}

/* ---- upgrades ---- */

static Wire upgraded(int opset, const char *dims, Wire node) {
  Wire g = graph_xy(dims);
  add_floats(&g, "c3", "3", 3, (float[]){1, 2, 3});
  add_floats(&g, "s4", "4", 4, (float[]){1, 1, 2, 2});
  add_floats(&g, "half", "4", 4, (float[]){1, 1, 0.5f, 0.6f});
  wire_message(&g, 1, node);
  return onnx_model(g, opset);
}

static void test_upgrade_inputs(void) {
  Wire n = onnx_node("Squeeze", "x", "y");
  attr_ints(&n, "axes", 2, 0, 2);
  check_text(upgraded(11, "1x3x1", n), "Squeeze", "Squeeze(x,[0 2])");
  n = onnx_node("ReduceMean", "x", "y");
  attr_ints(&n, "axes", 1, -1);
  check_text(upgraded(17, "2x3", n), "ReduceMean", "ReduceMean(x,[-1])");
  check_text(upgraded(17, "2x3", onnx_node("ReduceMean", "x", "y")), "ReduceMean of all", "ReduceMean(x)");
  n = onnx_node("Slice", "x", "y");
  attr_ints(&n, "starts", 1, 1);
  attr_ints(&n, "ends", 1, 9);
  check_text(upgraded(9, "2x3", n), "Slice", "Slice(x,[1],[9])");
  n = onnx_node("Pad", "x", "y");
  attr_ints(&n, "pads", 4, 0, 1, 0, 2);
  attr_float(&n, "value", 2.5f);
  check_text(upgraded(10, "2x3", n), "Pad", "Pad(x,[0 1 0 2],2.5)");
  n = onnx_node("Clip", "x", "y");
  attr_float(&n, "max", 6);
  check_text(upgraded(6, "2x3", n), "Clip", "Clip(x,-,6)");
  n = onnx_node("Reshape", "x", "y");
  attr_ints(&n, "shape", 2, 3, -1);
  check_text(upgraded(1, "2x3", n), "Reshape", "Reshape(x,[3 -1])");
}

static void test_upgrade_split(void) {
  Wire n = onnx_node("Split", "x", "y b");
  attr_ints(&n, "split", 2, 1, 2);
  attr_int(&n, "axis", 1);
  check_text(upgraded(11, "2x3", n), "Split", "Split(x,[1 2])");
  Result r = import(upgraded(13, "2x3", onnx_node("Split", "x", "y b")));
  CU_ASSERT_FATAL(r.g && r.g->nodes.n == 1);
  const Node *split = r.g->nodes.v[0];
  for (int i = 0; i < split->op->nattr; i++)
    if (!strcmp(split->attrs[i].name, "num_outputs")) CU_ASSERT(split->attrs[i].i == 2);
  ctx_free(r.c);
}

static void test_upgrade_softmax(void) {
  Wire n = onnx_node("Softmax", "x", "y");
  check_text(upgraded(11, "2x3", n), "Softmax, last axis", "Softmax(x)");
  check_text(upgraded(11, "2x3x1x1", onnx_node("Softmax", "x", "y")), "Softmax, one long axis", "Softmax(x)");
  check_text(upgraded(11, "2x3x4", onnx_node("Softmax", "x", "y")), "Softmax, several axes",
             "Shape(x) Flatten(x) Softmax(Flatten.1) Reshape(Softmax.1,Shape.1)");
  n = onnx_node("Softmax", "x", "y");
  attr_int(&n, "axis", 1);
  check_text(upgraded(13, "2x3x4", n), "Softmax, new", "Softmax(x)");
}

static void test_upgrade_broadcast(void) {
  Wire n = onnx_node("Add", "x c3", "y");
  attr_int(&n, "broadcast", 1);
  attr_int(&n, "axis", 1);
  check_text(upgraded(6, "2x3x4x5", n), "Add along axis 1", "Unsqueeze([1 2 3],[1 2]) Add(x,Unsqueeze.1)");
  check_text(upgraded(6, "2x3x4x5", onnx_node("PRelu", "x c3", "y")), "PRelu",
             "Unsqueeze([1 2 3],[1 2]) PRelu(x,Unsqueeze.1)");
  check_text(upgraded(7, "2x3x4x3", onnx_node("Add", "x c3", "y")), "Add", "Add(x,[1 2 3])");
  n = onnx_node("Add", "x c3", "y");
  attr_int(&n, "axis", 1);
  Result r = import(upgraded(7, "2x3x4x5", n));
  CU_ASSERT(r.code == E0402);
  ctx_free(r.c);
}

static const char *string_attr(const Node *n, const char *name) {
  for (int i = 0; i < n->op->nattr; i++)
    if (!strcmp(n->attrs[i].name, name)) return n->attrs[i].s;
  return "";
}

static void test_upgrade_others(void) {
  Result r;
  Wire n = onnx_node("Upsample", "x", "y");
  attr_floats(&n, "scales", 4, 1.0, 1.0, 2.0, 3.0);
  check_text(upgraded(7, "1x3x4x5", n), "Upsample 7", "Resize(x,-,[1 1 2 3])");
  check_text(upgraded(9, "1x3x4x5", onnx_node("Upsample", "x s4", "y")), "Upsample 9", "Resize(x,-,[1 1 2 2])");
  check_text(upgraded(10, "1x3x4x5", onnx_node("Resize", "x s4", "y")), "Resize 10", "Resize(x,-,[1 1 2 2])");
  r = import(upgraded(10, "1x3x4x5", onnx_node("Resize", "x half", "y")));
  CU_ASSERT_FATAL(r.g && r.g->nodes.n == 1);
  CU_ASSERT(!strcmp(string_attr(r.g->nodes.v[0], "nearest_mode"), "ceil"));
  CU_ASSERT(!strcmp(string_attr(r.g->nodes.v[0], "coordinate_transformation_mode"), "asymmetric"));
  ctx_free(r.c);
  n = onnx_node("Dropout", "x", "y");
  attr_float(&n, "ratio", 0.3f);
  attr_int(&n, "is_test", 1);
  check_text(upgraded(6, "2x3", n), "Dropout", "Dropout(x)");
  n = onnx_node("Cast", "x", "y");
  attr_text(&n, "to", "INT64");
  r = import(upgraded(5, "2x3", n));
  CU_ASSERT_FATAL(r.g && r.g->nodes.n == 1);
  for (int i = 0; i < r.g->nodes.v[0]->op->nattr; i++)
    if (!strcmp(r.g->nodes.v[0]->attrs[i].name, "to")) CU_ASSERT(r.g->nodes.v[0]->attrs[i].i == I64);
  ctx_free(r.c);
}

/* ---- main ---- */

static int write_cases(const char *to) {
  char path[4096];
  mkdir(to, 0755);
  malformed_files(to);
  snprintf(path, sizeof path, "%s/expected.tsv", to);
  FILE *f = fopen(path, "w");
  if (!f) return 1;
  for (const Case *k = malformed_cases; k->name; k++) {
    Wire w = k->build();
    snprintf(path, sizeof path, "%s/%s.onnx", to, k->name);
    write_file(path, &w);
    free(w.b);
    fprintf(f, "%s.onnx\t%s\n", k->name, k->code == DIAG_COUNT ? "ok" : diag_code_name(k->code));
  }
  return fclose(f);
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "--write")) return write_cases(argv[2]);
  if (!mkdtemp(folder)) return 1;
  snprintf(model_path, sizeof model_path, "%s/m.onnx", folder);
  malformed_files(folder);
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("onnx", NULL, NULL);
  CU_add_test(s, "malformed", test_malformed);
  CU_add_test(s, "truncated", test_truncated);
  CU_add_test(s, "mutated", test_mutated);
  CU_add_test(s, "random bytes", test_random_bytes);
  CU_add_test(s, "all problems", test_all_problems);
  CU_add_test(s, "typed data", test_typed_data);
  CU_add_test(s, "float data", test_float_data);
  CU_add_test(s, "empty tensor", test_empty_tensor);
  CU_add_test(s, "tensor file", test_tensor_file);
  CU_add_test(s, "order", test_order);
  CU_add_test(s, "chain", test_chain);
  CU_add_test(s, "initializer as input", test_initializer_input);
  CU_add_test(s, "constants", test_constants);
  CU_add_test(s, "dims", test_dims);
  CU_add_test(s, "sub-graph", test_subgraph);
  CU_add_test(s, "functions", test_functions);
  CU_add_test(s, "function passes through", test_function_passes_through);
  CU_add_test(s, "upgrade: inputs", test_upgrade_inputs);
  CU_add_test(s, "upgrade: Split", test_upgrade_split);
  CU_add_test(s, "upgrade: Softmax", test_upgrade_softmax);
  CU_add_test(s, "upgrade: broadcast", test_upgrade_broadcast);
  CU_add_test(s, "upgrade: others", test_upgrade_others);
  CU_basic_run_tests();
  int failed = (int)CU_get_number_of_tests_failed();
  CU_cleanup_registry();
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (system(command)) {}
  return failed ? 1 : 0;
}
