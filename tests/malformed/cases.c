/* cases.c - the table of malformed_cases and a builder for each row. */
#include "cases.h"

#include <sys/stat.h>
#include <unistd.h>

enum { F32 = 1, I64 = 7, STRING = 8 };

static Wire bytes(const char *s, size_t n) {
  Wire w = {0};
  wire_raw(&w, s, n);
  return w;
}

#define BYTES(name, text) static Wire name(void) { return bytes(text, sizeof text - 1); }

/* ---- other files ---- */
BYTES(empty, "")
BYTES(lfs, "version https://git-lfs.github.com/spec/v1\noid "
           "sha256:1a2b3c4d5e6f00112233445566778899aabbccddeeff00112233445566778899\nsize 102000000\n")
BYTES(html, "\n<!DOCTYPE html><html><body>Not found</body></html>")
BYTES(zip, "PK\3\4\x14\0\0\0\x08\0archive/data.pkl")
BYTES(gzip, "\x1f\x8b\x08\0\0\0\0\0\0\3")
BYTES(safetensors, "\x40\0\0\0\0\0\0\0{\"weight\":{\"dtype\":\"F32\"}}")
BYTES(pickle, "\x80\x04\x95\x1a\0\0\0")
BYTES(other_message, "\x08\x07\x12\x04" "test")

/* ---- wire format ---- */
BYTES(zero_field, "\x08\x08\0\0")
BYTES(group, "\x08\x08\x3b\x3c")
BYTES(long_varint, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
BYTES(cut_varint, "\x08\xff")
BYTES(wrong_type, "\x0d\0\0\0\0")
BYTES(huge_length, "\x08\x08\x3a\xff\xff\xff\xff\x7f")
BYTES(short_length, "\x08\x08\x3a\x83\x01\x12\x04" "main")
BYTES(inner_length, "\x08\x08\x3a\x04\x12\x07" "ab" "\x12\x05hello")
BYTES(zero_in_name, "\x08\x08\x12\x03" "a\0b")
BYTES(graph_twice, "\x08\x08\x3a\x03\x12\x01" "a" "\x3a\x03\x12\x01" "b")

/* model.graph.node.attribute.g.node.attribute.g ... */
static Wire nested(int levels) {
  static const int fields[] = {1, 5, 6};     /* of graph, node, attribute */
  size_t *size = calloc((size_t)levels + 1, sizeof *size);
  for (int i = levels - 1; i >= 0; i--) {
    Wire head = {0};
    wire_varint(&head, size[i + 1]);
    size[i] = 1 + head.n + size[i + 1];
    free(head.b);
  }
  Wire w = {0};
  wire_int(&w, 1, 8);
  wire_varint(&w, 7 << 3 | 2);
  wire_varint(&w, size[0]);
  for (int i = 0; i < levels; i++) {
    wire_varint(&w, (uint64_t)fields[i % 3] << 3 | 2);
    wire_varint(&w, size[i + 1]);
  }
  free(size);
  return w;
}

static Wire nested_5000(void) { return nested(5000); }
static Wire nested_100000(void) { return nested(100000); }

static Wire many_parts(int field) {
  Wire graph = {0};
  uint8_t empty_message[2] = {(uint8_t)(field << 3 | 2), 0};
  for (int i = 0; i < 2000000; i++) wire_raw(&graph, empty_message, 2);
  return onnx_model(graph, 17);
}

static Wire many_nodes(void) { return many_parts(1); }
static Wire many_tensors(void) { return many_parts(5); }

/* ---- graphs: input x f32[2,4], output y ---- */

static Wire graph_of(const char *in_dims) {
  Wire g = {0};
  wire_text(&g, 2, "g");
  wire_message(&g, 11, onnx_value("x", F32, in_dims));
  wire_message(&g, 12, onnx_value("y", F32, NULL));
  return g;
}

static void add_node(Wire *g, const char *op, const char *in, const char *out) {
  wire_message(g, 1, onnx_node(op, in, out));
}

static Wire no_graph_nodes(void) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", F32, "2x4"));
  wire_message(&g, 12, onnx_value("x", F32, "2x4"));
  return onnx_model(g, 17);
}

static Wire no_outputs(void) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", F32, "2x4"));
  return onnx_model(g, 17);
}

static Wire one_node(const char *op, const char *in, int opset) {
  Wire g = graph_of("2x4");
  add_node(&g, op, in, "y");
  return onnx_model(g, opset);
}

static Wire unknown_operator(void) { return one_node("Frobnicate", "x", 17); }
static Wire no_opset(void) { return one_node("Relu", "x", 0); }
static Wire new_opset(void) { return one_node("Relu", "x", 29); }
static Wire undefined_input(void) { return one_node("Add", "x nowhere", 17); }
static Wire missing_input(void) { return one_node("Add", "x", 17); }
static Wire many_inputs(void) { return one_node("Relu", "x x", 17); }
static Wire escape_name(void) { return one_node("\x1b[31mRed", "x", 17); }
static Wire self_loop(void) { return one_node("Relu", "y", 17); }

static Wire custom_domain(void) {
  Wire g = graph_of("2x4"), n = onnx_node("Foo", "x", "y");
  wire_text(&n, 7, "com.acme");
  wire_text(&n, 3, "foo");
  wire_message(&g, 1, n);
  return onnx_model(g, 17);
}

static Wire cyclic(void) {
  Wire g = graph_of("2x4");
  add_node(&g, "Add", "x b", "a");
  add_node(&g, "Relu", "a", "b");
  add_node(&g, "Relu", "b", "y");
  return onnx_model(g, 17);
}

static Wire duplicate_value(void) {
  Wire g = graph_of("2x4");
  add_node(&g, "Relu", "x", "y");
  add_node(&g, "Abs", "x", "y");
  return onnx_model(g, 17);
}

static Wire remakes_input(void) {
  Wire g = graph_of("2x4");
  add_node(&g, "Relu", "x", "x");
  return onnx_model(g, 17);
}

static Wire duplicate_input(void) {
  Wire g = graph_of("2x4");
  wire_message(&g, 11, onnx_value("x", F32, "2x4"));
  add_node(&g, "Relu", "x", "y");
  return onnx_model(g, 17);
}

static Wire undefined_output(void) {
  Wire g = graph_of("2x4");
  add_node(&g, "Relu", "x", "z");
  return onnx_model(g, 17);
}

static Wire with_attr(int which) {
  Wire g = graph_of("2x4"), n = onnx_node(which == 2 ? "Concat" : "Flatten", "x", "y");
  if (which == 0) attr_int(&n, "axle", 1);
  if (which == 1) attr_text(&n, "axis", "1");
  wire_message(&g, 1, n);
  return onnx_model(g, 17);
}

static Wire unknown_attribute(void) { return with_attr(0); }
static Wire wrong_attribute(void) { return with_attr(1); }
static Wire missing_attribute(void) { return with_attr(2); }

static Wire attribute_twice(void) {
  Wire g = graph_of("2x4"), n = onnx_node("Flatten", "x", "y");
  attr_int(&n, "axis", 1);
  attr_int(&n, "axis", 1);
  wire_message(&g, 1, n);
  return onnx_model(g, 17);
}

static Wire sequence_input(void) {
  Wire g = {0}, v = {0}, t = {0}, seq = {0};
  wire_message(&t, 4, seq);
  wire_text(&v, 1, "x");
  wire_message(&v, 2, t);
  wire_message(&g, 11, v);
  wire_message(&g, 12, onnx_value("x", F32, NULL));
  return onnx_model(g, 17);
}

static Wire input_of(int type, const char *dims) {
  Wire g = {0};
  wire_message(&g, 11, onnx_value("x", type, dims));
  wire_message(&g, 12, onnx_value("x", type, dims));
  return onnx_model(g, 17);
}

static Wire string_input(void) { return input_of(STRING, "2"); }
static Wire untyped_input(void) { return input_of(0, "2"); }
static Wire unshaped_input(void) { return input_of(F32, NULL); }
static Wire huge_input(void) { return input_of(F32, "2147483648x2147483648x4"); }
static Wire negative_input(void) { return input_of(F32, "2x-5"); }
static Wire high_rank_input(void) { return input_of(F32, "1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1"); }

static Wire matmul_mismatch(void) {
  Wire g = graph_of("2x4"), n = onnx_node("MatMul", "x w", "y"), t = onnx_tensor("w", F32, "5x4");
  float zero[20] = {0};
  wire_bytes(&t, 9, zero, sizeof zero);
  wire_message(&g, 5, t);
  wire_text(&n, 3, "proj");
  wire_message(&g, 1, n);
  return onnx_model(g, 17);
}

/* ---- tensors ---- */

static Wire with_tensor(Wire t) {
  Wire g = graph_of("2x4");
  wire_message(&g, 5, t);
  add_node(&g, "Add", "x w", "y");
  return onnx_model(g, 17);
}

static Wire raw_of(int type, const char *dims, size_t n) {
  static const uint8_t zero[256];
  Wire t = onnx_tensor("w", type, dims);
  wire_bytes(&t, 9, zero, n);
  return with_tensor(t);
}

static Wire short_data(void) { return raw_of(F32, "2x4", 28); }
static Wire long_data(void) { return raw_of(F32, "2x4", 128); }
static Wire no_data(void) { return with_tensor(onnx_tensor("w", F32, "2x4")); }
static Wire overflowing(void) { return raw_of(F32, "2147483648x2147483648x4", 64); }
static Wire large_bytes(void) { return raw_of(F32, "4611686018427387904", 64); }
static Wire negative_dim(void) { return raw_of(F32, "2x-4", 32); }
static Wire no_type(void) { return raw_of(0, "2x4", 32); }
static Wire float8(void) { return raw_of(17, "2x4", 8); }
static Wire type_999(void) { return raw_of(999, "2x4", 8); }
static Wire high_rank(void) { return raw_of(F32, "1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1", 4); }

static Wire odd_packed(void) {
  Wire t = onnx_tensor("w", F32, "2");
  wire_bytes(&t, 4, "1234567", 7);
  return with_tensor(t);
}

static Wire cut_packed(void) {
  Wire t = onnx_tensor("w", I64, "2");
  wire_bytes(&t, 7, "\1\xff", 2);
  return with_tensor(t);
}

static Wire duplicate_tensor(void) {
  Wire g = graph_of("2x4");
  float four[4] = {0};
  for (int i = 0; i < 2; i++) {
    Wire t = onnx_tensor("w", F32, "4");
    wire_bytes(&t, 9, four, sizeof four);
    wire_message(&g, 5, t);
  }
  add_node(&g, "Add", "x w", "y");
  return onnx_model(g, 17);
}

static Wire sparse(void) {
  Wire g = graph_of("2x4");
  wire_text(&g, 15, "");
  add_node(&g, "Relu", "x", "y");
  return onnx_model(g, 17);
}

/* ---- external data ---- */

static void entry(Wire *t, const char *key, const char *value) {
  Wire e = {0};
  wire_text(&e, 1, key);
  wire_text(&e, 2, value);
  wire_message(t, 13, e);
}

static Wire external(const char *location, const char *offset, const char *length) {
  Wire t = onnx_tensor("w", F32, "4");
  if (location) entry(&t, "location", location);
  if (offset) entry(&t, "offset", offset);
  if (length) entry(&t, "length", length);
  wire_int(&t, 14, 1);
  return with_tensor(t);
}

static Wire ext_right(void) { return external("ext/./weights.bin", "16", "16"); }
static Wire ext_whole(void) { return external("ext/weights.bin", NULL, NULL); }
static Wire ext_nowhere(void) { return external(NULL, NULL, NULL); }
static Wire ext_absolute(void) { return external("/etc/passwd", NULL, NULL); }
static Wire ext_parent(void) { return external("ext/../../etc/passwd", NULL, NULL); }
static Wire ext_dotdot(void) { return external("..", NULL, NULL); }
static Wire ext_link(void) { return external("link.bin", NULL, NULL); }
static Wire ext_link_folder(void) { return external("linked/weights.bin", NULL, NULL); }
static Wire ext_pipe(void) { return external("pipe", NULL, NULL); }
static Wire ext_folder(void) { return external("ext", NULL, NULL); }
static Wire ext_slash(void) { return external("ext/", NULL, NULL); }
static Wire ext_missing(void) { return external("none.bin", NULL, NULL); }
static Wire ext_beyond(void) { return external("ext/weights.bin", "24", NULL); }
static Wire ext_wraps(void) { return external("ext/weights.bin", "18446744073709551608", NULL); }
static Wire ext_negative(void) { return external("ext/weights.bin", "-8", NULL); }
static Wire ext_overflow(void) { return external("ext/weights.bin", "99999999999999999999", NULL); }
static Wire ext_length(void) { return external("ext/weights.bin", "0", "12"); }

static Wire ext_twice(void) {
  Wire t = onnx_tensor("w", F32, "4");
  entry(&t, "location", "ext/weights.bin");
  entry(&t, "location", "/etc/passwd");
  wire_int(&t, 14, 1);
  return with_tensor(t);
}

void malformed_files(const char *folder) {
  char path[4096], other[4096];
  snprintf(path, sizeof path, "%s/ext", folder);
  mkdir(path, 0755);
  snprintf(path, sizeof path, "%s/ext/weights.bin", folder);
  FILE *f = fopen(path, "wb");
  float v[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  if (f) fwrite(v, sizeof v, 1, f), fclose(f);
  snprintf(other, sizeof other, "%s/link.bin", folder);
  if (symlink("ext/weights.bin", other)) {}
  snprintf(other, sizeof other, "%s/linked", folder);
  if (symlink("ext", other)) {}
  snprintf(other, sizeof other, "%s/pipe", folder);
  mkfifo(other, 0644);
}

/* ---- functions ---- */

static Wire call_node(const char *name, const char *in, const char *out) {
  Wire n = onnx_node(name, in, out);
  wire_text(&n, 7, "local");
  return n;
}

static Wire function_of(const char *name, Wire a, Wire b) {
  Wire f = {0}, o = {0};
  wire_text(&f, 1, name);
  wire_text(&f, 4, "a");
  wire_text(&f, 5, "c");
  wire_message(&f, 7, a);
  if (b.n) wire_message(&f, 7, b);
  wire_int(&o, 2, 17);
  wire_message(&f, 9, o);
  wire_text(&f, 10, "local");
  return f;
}

static Wire calling(const char *name) {
  Wire g = graph_of("2x4");
  wire_message(&g, 1, call_node(name, "x", "y"));
  return onnx_model(g, 17);
}

static Wire function_recursion(void) {
  Wire w = calling("even");
  wire_message(&w, 25, function_of("even", call_node("odd", "a", "c"), (Wire){0}));
  wire_message(&w, 25, function_of("odd", call_node("even", "a", "c"), (Wire){0}));
  return w;
}

/* 2^30 nodes when written out. */
static Wire function_bomb(void) {
  Wire w = calling("f30");
  char name[16], inner[16];
  wire_message(&w, 25, function_of("f0", onnx_node("Relu", "a", "c"), (Wire){0}));
  for (int i = 1; i <= 30; i++) {
    snprintf(name, sizeof name, "f%d", i);
    snprintf(inner, sizeof inner, "f%d", i - 1);
    wire_message(&w, 25, function_of(name, call_node(inner, "a", "b"), call_node(inner, "b", "c")));
  }
  return w;
}

static Wire function_no_output(void) {
  Wire w = calling("f");
  wire_message(&w, 25, function_of("f", onnx_node("Relu", "a", "b"), (Wire){0}));
  return w;
}

Wire malformed_valid(void) {
  Wire w = calling("f"), g = graph_of("Nx4"), t = onnx_tensor("w", F32, "4");
  float v[4] = {1, 2, 3, 4};
  free(w.b);
  wire_bytes(&t, 9, v, sizeof v);
  wire_message(&g, 5, t);
  t = onnx_tensor("shape", I64, "2");
  wire_bytes(&t, 7, "\4\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 11);
  wire_message(&g, 5, t);
  add_node(&g, "Add", "x w", "s");
  Wire n = onnx_node("Softmax", "s", "p");
  attr_int(&n, "axis", 1);
  wire_message(&g, 1, n);
  add_node(&g, "Reshape", "p shape", "r");
  wire_message(&g, 1, call_node("f", "r", "y"));
  w = onnx_model(g, 11);
  wire_message(&w, 25, function_of("f", onnx_node("Relu", "a", "b"), onnx_node("Neg", "b", "c")));
  return w;
}

/* ---- the table ---- */

const Case malformed_cases[] = {
    {"empty", empty, E0302, "the file is empty"},
    {"lfs", lfs, E0302, "Git LFS pointer, not a model (sha256:1a2b3c4d..., 102.0 MB)"},
    {"html", html, E0302, "web page"},
    {"zip", zip, E0302, "zip archive"},
    {"gzip", gzip, E0302, "gzip"},
    {"safetensors", safetensors, E0302, "safetensors"},
    {"pickle", pickle, E0302, "pickle"},
    {"other_message", other_message, E0304, "no graph"},
    {"zero_field", zero_field, E0301, "corrupt at byte 2"},
    {"group", group, E0301, "corrupt at byte 2"},
    {"long_varint", long_varint, E0301, "ir_version (1) is longer than 10 bytes"},
    {"cut_varint", cut_varint, E0301, "truncated at byte 1: field ir_version (1)"},
    {"wrong_type", wrong_type, E0301, "has wire type 5, not 0"},
    {"huge_length", huge_length, E0301, "field graph (7) wants 34359738367 bytes, 0 are left"},
    {"short_length", short_length, E0301, "truncated at byte 11: field graph (7) wants 131 bytes, 6 are left"},
    {"inner_length", inner_length, E0301,
     "corrupt at byte 6: field name (2) wants 7 bytes, 2 are left in its GraphProto"},
    {"zero_in_name", zero_in_name, E0304, "zero byte"},
    {"graph_twice", graph_twice, E0304, "graph (7) of ModelProto stands a second time, at byte 7"},
    {"nested_5000", nested_5000, E0303, "nested too deeply"},
    {"nested_100000", nested_100000, E0303, "nested too deeply"},
    {"many_nodes", many_nodes, E0303, "too many parts"},
    {"many_tensors", many_tensors, E0303, "too many parts"},
    {"no_nodes", no_graph_nodes, DIAG_COUNT, ""},
    {"no_outputs", no_outputs, E0304, "no outputs"},
    {"unknown_operator", unknown_operator, E0401, "1 of 1 nodes cannot be compiled:\n  node 0 (Frobnicate-17): "},
    {"custom_domain", custom_domain, E0401, "node 0 'foo' (com.acme.Foo)"},
    {"no_opset", no_opset, E0304, "opset_import"},
    {"new_opset", new_opset, E0401, "the newest that dlc knows is 28"},
    {"undefined_input", undefined_input, E0307, "node 0 (Add-"},
    {"missing_input", missing_input, E0403, "input 1"},
    {"many_inputs", many_inputs, E0403, "has 2 inputs; the most is 1"},
    {"escape_name", escape_name, E0401, "(\\x1b[31mRed-17)"},
    {"self_loop", self_loop, E0307, "nodes need each other's results: node 0 (Relu)"},
    {"cyclic", cyclic, E0307, "nodes need each other's results: node 1 (Relu) -> node 0 (Add)"},
    {"duplicate_value", duplicate_value, E0307, "value 'y' is made twice, by node 0 (Relu) and by node 1 (Abs)"},
    {"remakes_input", remakes_input, E0307, "value 'x' is made by node 0"},
    {"duplicate_input", duplicate_input, E0307, "input 'x' stands twice"},
    {"undefined_output", undefined_output, E0307, "output 'y' is made by no node"},
    {"unknown_attribute", unknown_attribute, E0402, "unknown attribute 'axle'"},
    {"wrong_attribute", wrong_attribute, E0402, "attribute 'axis' is a string; it must be an integer"},
    {"missing_attribute", missing_attribute, E0402, "attribute 'axis' is missing"},
    {"attribute_twice", attribute_twice, E0402, "attribute 'axis' stands twice"},
    {"sequence_input", sequence_input, E0405, "input 'x' is a sequence"},
    {"string_input", string_input, E0404, "element type string"},
    {"untyped_input", untyped_input, E0304, "no element type"},
    {"unshaped_input", unshaped_input, E0413, "no shape"},
    {"huge_input", huge_input, E0308, "overflows"},
    {"negative_input", negative_input, E0304, "dimension -5"},
    {"high_rank_input", high_rank_input, E0303, "rank 17"},
    {"matmul_mismatch", matmul_mismatch, E0411, "'proj' (MatMul-"},
    {"short_data", short_data, E0305, "tensor 'w' f32[2,4]: raw_data has 28 bytes, 32 are needed"},
    {"long_data", long_data, E0305, "raw_data has 128 bytes, 32 are needed"},
    {"no_data", no_data, E0305, "float_data has 0 bytes, 32 are needed"},
    {"overflowing", overflowing, E0308, "overflows"},
    {"large_bytes", large_bytes, E0308, "overflows"},
    {"negative_dim", negative_dim, E0304, "negative dimension"},
    {"no_type", no_type, E0304, "no element type"},
    {"float8", float8, E0404, "float8e4m3fn"},
    {"type_999", type_999, E0404, "number 999"},
    {"high_rank", high_rank, E0303, "rank 17"},
    {"odd_packed", odd_packed, E0301, "field float_data (4) has 7 bytes, no multiple of 4"},
    {"cut_packed", cut_packed, E0301, "field int64_data (7)"},
    {"duplicate_tensor", duplicate_tensor, E0307, "initializer 'w' stands twice"},
    {"sparse", sparse, E0405, "sparse"},
    {"ext_right", ext_right, DIAG_COUNT, ""},
    {"ext_whole", ext_whole, DIAG_COUNT, ""},
    {"ext_nowhere", ext_nowhere, E0306, "names no file"},
    {"ext_absolute", ext_absolute, E0306, "absolute path"},
    {"ext_parent", ext_parent, E0306, "leads out of the model's folder"},
    {"ext_dotdot", ext_dotdot, E0306, "leads out of the model's folder"},
    {"ext_link", ext_link, E0306, "symbolic link"},
    {"ext_link_folder", ext_link_folder, E0306, "symbolic link"},
    {"ext_pipe", ext_pipe, E0306, "no regular file"},
    {"ext_folder", ext_folder, E0306, "no regular file"},
    {"ext_slash", ext_slash, E0306, "names a folder"},
    {"ext_missing", ext_missing, E0306, "No such file"},
    {"ext_beyond", ext_beyond, E0306, "16 bytes from byte 24 are wanted, the file has 32"},
    {"ext_wraps", ext_wraps, E0306, "the file has 32"},
    {"ext_negative", ext_negative, E0306, "offset '-8', no size"},
    {"ext_overflow", ext_overflow, E0306, "no size"},
    {"ext_length", ext_length, E0305, "12 bytes, 16 are needed"},
    {"ext_twice", ext_twice, E0306, "gives 'location' twice"},
    {"function_recursion", function_recursion, E0307, "calls itself"},
    {"function_bomb", function_bomb, E0303, "functions inlined"},
    {"function_no_output", function_no_output, E0307, "the function's output 'c'"},
    {"valid", malformed_valid, DIAG_COUNT, ""},
    {NULL, NULL, DIAG_COUNT, NULL},
};
