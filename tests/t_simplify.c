/* t_simplify.c - the simplify pass: every graph rule by a graph on which it fires, folding, merging, expansion, errors. A simplified
 * graph must compute what the graph computed before.
 */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>
#include <stdlib.h>

#include "../ir/interp.h"
#include "../ir/op.h"
#include "../passes/graph_rules.h"
#include "../passes/simplify.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

/* ---- helpers ---- */

static Graph *parse(const char *inputs, const char *body) {
  return graph_parse(c, ctx_printf(c, "graph g(%s) {\n%s\n}\n", inputs, body));
}

static const char *ops_of(const Graph *g) {
  Str s = str_new(c);
  for (int i = 0; i < g->nodes.n; i++) str_add(&s, "%s%s", i ? " " : "", g->nodes.v[i]->op->name);
  return s.s;
}

/* Inference and expansion alone: what the interpreter needs. */
static void infer_all(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.v[i];
    CU_ASSERT_FATAL(op_infer(c, n));
    if (n->op->cls == OPC_EXPAND && op_expand(c, n)) i = -1;
  }
}

static int64_t size_of(const Expr *e) {
  int64_t v;
  return ex_is_int(e, &v) ? v : 3;   /* named dimensions are 3 */
}

static Value *run(Graph *g, Value *out) {
  Value *in = NEW_ARRAY(c, Value, g->inputs.n + 1);
  for (int i = 0; i < g->inputs.n; i++) {
    const Tensor *t = g->inputs.v[i];
    in[i] = (Value){ .dtype = t->dtype, .rank = t->rank };
    for (int d = 0; d < t->rank; d++) in[i].dims[d] = size_of(t->shape[d]);
    int64_t n = value_elements(&in[i]);
    char *data = ctx_alloc(c, (size_t)(8 * n + 8));
    for (int64_t k = 0; k < n; k++) {
      char *at = data + k * dtype_bytes(t->dtype);
      if (dtype_is_float(t->dtype)) dtype_store_f(t->dtype, at, (double)(k * 7 % 11) - 4.5);
      else dtype_store_i(t->dtype, at, t->dtype == DT_BOOL ? k % 3 == 0 : k * 5 % 7 - 2);
    }
    in[i].data = data;
  }
  interp_graph(interp_new(c), g, in, out);
  return out;
}

static bool equal_values(const Value *a, const Value *b) {
  if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->dims, b->dims, sizeof(int64_t) * (size_t)a->rank)) return false;
  int64_t n = value_elements(a);
  int each = dtype_bytes(a->dtype);
  for (int64_t i = 0; i < n; i++) {
    const char *x = (const char *)a->data + (a->splat ? 0 : i * each), *y = (const char *)b->data + (b->splat ? 0 : i * each);
    double u = dtype_is_float(a->dtype) ? dtype_load_f(a->dtype, x) : (double)dtype_load_i(a->dtype, x);
    double v = dtype_is_float(a->dtype) ? dtype_load_f(a->dtype, y) : (double)dtype_load_i(a->dtype, y);
    if (u != v && !(isnan(u) && isnan(v)) && !(fabs(u - v) <= 1e-4 * fabs(u) + 1e-5)) return false;
  }
  return true;
}

/* Simplifies the graph of the text and checks what is left, what it computes, and that simplifying again finds nothing. */
static Graph *check(const char *inputs, const char *body, const char *ops) {
  Graph *before = parse(inputs, body), *g = parse(inputs, body);
  infer_all(before);
  graph_simplify(c, g);
  graph_verify(g);
  CU_ASSERT_STRING_EQUAL(ops_of(g), ops);
  Value want[4], got[4];
  CU_ASSERT_EQUAL_FATAL(before->outputs.n, g->outputs.n);
  run(before, want);
  run(g, got);
  for (int i = 0; i < g->outputs.n; i++) {
    CU_ASSERT_STRING_EQUAL(g->outputs.v[i]->name, before->outputs.v[i]->name);
    CU_ASSERT(equal_values(&want[i], &got[i]));
    if (strcmp(ops_of(g), ops) || !equal_values(&want[i], &got[i])) printf("\n%s", graph_text(g));
  }
  const char *text = graph_text(g);
  graph_simplify(c, g);
  CU_ASSERT_STRING_EQUAL(graph_text(g), text);
  return g;
}

/* ---- one graph a rule ---- */

#define X22 "%x: f32[2,3]"
#define X4 "%x: f32[1,2,5,5]"
#define CONV "%w: f32[2,2,1,1] = const {1,2,3,4}\n %b: f32[2] = const {5,-6}\n %a = Conv(%x, %w, %b)\n"
#define CONV_PLAIN "%w: f32[2,2,1,1] = const {1,2,3,4}\n %a = Conv(%x, %w)\n"
#define TRANSPOSED "%w: f32[2,3,2,2] = const {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24}\n %a = ConvTranspose(%x, %w)\n"
#define NORM "%s: f32[2] = const {1,2}\n %o: f32[2] = const {3,-1}\n %m: f32[2] = const {0.5,0.25}\n %v: f32[2] = const {4,9}\n"
#define NORM3 "%s: f32[3] = const {1,2,3}\n %o: f32[3] = const {3,-1,1}\n %m: f32[3] = const {0.5,0.25,1}\n %v: f32[3] = const {4,9,1}\n"
#define NORM4 "%s: f32[4] = const {1,2,3,4}\n %o: f32[4] = const {3,-1,1,2}\n %c: f32[1,4,1,1] = const {2,-1,3,0.5}\n"
#define GROUPS "%q: i64[3] = const {0,2,-1}\n %s: f32[2] = const {1,2}\n %o: f32[2] = const {3,-1}\n %a = Reshape(%x, %q)\n" \
  " %b = InstanceNormalization(%a, %s, %o)\n"
#define WINDOW "%w: f32[1,2,2,1] = const {1,2,3,4}\n %s: i64[1] = const {1}\n %e: i64[1] = const {-1}\n %d: i64[1] = const {2}\n "
#define PADS "%p: i64[8] = const {0,0,1,2,0,0,1,0}\n"

static const struct { const char *rule, *inputs, *body, *ops; } cases[] = {
  { "identity", X22, "%a = Identity(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "dropout", X22, "%a = Dropout(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "cast-same", X22, "%a = Cast<to=1>(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "concat-one", X22, "%a = Concat<axis=0>(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "sum-one", X22, "%a = Sum(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "max-one", X22, "%a = Max(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "min-one", X22, "%a = Min(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "mean-one", X22, "%a = Mean(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "add-zero", X22, "%c: f32[1] = const {-0.0}\n %a = Add(%c, %x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "add-zero", X22, "%c: f32[1] = const {0.0}\n %a = Add(%x, %c)\n %y = Relu(%a)\n return %y", "Add Relu" },   /* -0 + 0 is 0 */
  { "add-zero", "%x: i64[2,3]", "%c: i64[2,3] = const splat(0)\n %a = Add(%x, %c)\n %y = Neg(%a)\n return %y", "Neg" },
  { "add-zero", "%x: f32[3]", "%c: f32[2,3] = const splat(-0.0)\n %y = Add(%x, %c)\n return %y", "Add" },       /* it broadcasts */
  { "sub-zero", X22, "%c: f32[] = const {0.0}\n %a = Sub(%x, %c)\n %y = Relu(%a)\n return %y", "Relu" },
  { "mul-one", X22, "%c: f32[3] = const {1,1,1}\n %a = Mul(%c, %x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "div-one", X22, "%c: f32[] = const {1}\n %a = Div(%x, %c)\n %y = Relu(%a)\n return %y", "Relu" },
  { "div-one", X22, "%c: f32[] = const {1}\n %a = Div(%c, %x)\n %y = Relu(%a)\n return %y", "Div Relu" },
  { "pow-one", X22, "%c: f32[] = const {1}\n %a = Pow(%x, %c)\n %y = Relu(%a)\n return %y", "Relu" },
  { "and-true", "%x: bool[4]", "%c: bool[] = const {1}\n %a = And(%x, %c)\n %y = Not(%a)\n return %y", "Not" },
  { "or-false", "%x: bool[4]", "%c: bool[] = const {0}\n %a = Or(%x, %c)\n %y = Not(%a)\n return %y", "Not" },
  { "not-not", "%x: bool[4], %z: bool[4]", "%a = Not(%x)\n %b = Not(%a)\n %y = And(%b, %z)\n return %y", "And" },
  { "neg-neg", X22, "%a = Neg(%x)\n %b = Neg(%a)\n %y = Relu(%b)\n return %y", "Relu" },
  { "swish", X22, "%a = Sigmoid(%x)\n %y = Mul(%a, %x)\n return %y", "Swish" },
  { "swish", X22, "%a = Sigmoid(%x)\n %y = Mul(%a, %x)\n return %y, %a", "Sigmoid Mul" },
  { "relu-relu", X22, "%a = Relu(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "where-known", "%x: f32[2,3], %z: f32[3]", "%c: bool[2,1] = const {1,1}\n %a = Where(%c, %x, %z)\n %y = Relu(%a)\n return %y", "Relu" },
  { "expand-same", "%x: f32[N,3]; N", "%s: i64[2] = const {1,3}\n %a = Expand(%x, %s)\n %y = Relu(%a)\n return %y", "Relu" },
  { "tile-same", X22, "%s: i64[2] = const {1,1}\n %a = Tile(%x, %s)\n %y = Relu(%a)\n return %y", "Relu" },
  { "slice-all", X22, "%s: i64[1] = const {0}\n %e: i64[1] = const {999}\n %a = Slice(%x, %s, %e)\n %y = Relu(%a)\n return %y", "Relu" },
  { "pad-nothing", X22, "%p: i64[4] = const {0,0,0,0}\n %a = Pad(%x, %p)\n %y = Relu(%a)\n return %y", "Relu" },
  { "reshape", X22,
    "%s: i64[2] = const {3,2}\n %t: i64[1] = const {6}\n %a = Reshape(%x, %s)\n %b = Reshape(%a, %t)\n %y = Relu(%b)\n return %y", "Reshape Relu" },
  { "reshape", "%x: f32[N,6]; N",
    "%s: i64[3] = const {0,2,3}\n %t: i64[2] = const {0,-1}\n %a = Reshape(%x, %s)\n %b = Reshape(%a, %t)\n %y = Relu(%b)\n return %y", "Relu" },
  { "flatten", X22, "%a = Flatten(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "squeeze", X22, "%s: i64[1] = const {1}\n %a = Unsqueeze(%x, %s)\n %b = Squeeze(%a, %s)\n %y = Relu(%b)\n return %y", "Relu" },
  { "unsqueeze", X22,
    "%s: i64[1] = const {0}\n %t: i64[1] = const {3}\n %a = Unsqueeze(%x, %s)\n %b = Unsqueeze(%a, %t)\n %y = Relu(%b)\n return %y", "Reshape Relu" },
  { "split-before-transpose", "%x: f32[2,6,4]",
    "%s: i64[4] = const {2,4,3,2}\n %a = Transpose<perm=[0,2,1]>(%x)\n %b = Reshape(%a, %s)\n %y = Relu(%b)\n return %y", "Reshape Transpose Relu" },
  { "split-before-transpose", "%x: f32[N,6,4]; N",
    "%s: i64[5] = const {2,2,-1,3,2}\n %a = Transpose<perm=[2,0,1]>(%x)\n %b = Reshape(%a, %s)\n %y = Relu(%b)\n return %y", "Reshape Transpose Relu" },
  { "split-before-transpose", "%x: f32[2,6,4]",
    "%s: i64[3] = const {4,6,2}\n %a = Transpose<perm=[0,2,1]>(%x)\n %b = Reshape(%a, %s)\n %y = Relu(%b)\n return %y", "Transpose Reshape Relu" },
  { "transpose-identity", X22, "%a = Transpose<perm=[0,1]>(%x)\n %y = Relu(%a)\n return %y", "Relu" },
  { "transpose-pair", "%x: f32[2,3,4]", "%a = Transpose(%x)\n %b = Transpose<perm=[1,2,0]>(%a)\n %y = Relu(%b)\n return %y", "Transpose Relu" },
  { "transpose-pair", "%x: f32[2,3,4]", "%a = Transpose<perm=[1,2,0]>(%x)\n %b = Transpose<perm=[2,0,1]>(%a)\n %y = Relu(%b)\n return %y", "Relu" },
  { "norm-into-conv", X4, CONV NORM "%y = BatchNormalization(%a, %s, %o, %m, %v)\n return %y", "Conv" },
  { "norm-into-conv", X4, CONV_PLAIN NORM "%y = BatchNormalization<epsilon=0.5>(%a, %s, %o, %m, %v)\n return %y", "Conv" },
  { "norm-into-convtranspose", X4, TRANSPOSED NORM3 "%y = BatchNormalization(%a, %s, %o, %m, %v)\n return %y", "ConvTranspose" },
  { "norm-into-gemm", "%x: f32[2,2]",
    "%w: f32[3,2] = const {1,2,3,4,5,6}\n %b: f32[3] = const {1,2,3}\n %a = Gemm<transB=1, alpha=0.5>(%x, %w, %b)\n" NORM3
    "%y = BatchNormalization(%a, %s, %o, %m, %v)\n return %y", "Gemm" },
  { "norm-alone", X4, NORM "%y = BatchNormalization(%x, %s, %o, %m, %v)\n return %y", "Mul Add" },
  { "group-norm", "%x: f32[2,4,3,2]", GROUPS "%r: i64[4] = const {2,4,3,2}\n %y = Reshape(%b, %r)\n return %y", "GroupNormalization" },
  { "group-norm", "%x: f32[2,4,3,2]", GROUPS "%r: i64[3] = const {2,8,3}\n %y = Reshape(%b, %r)\n return %y",
    "Reshape InstanceNormalization Reshape" },
  { "mul-into-groupnorm", "%x: f32[2,4,3,2]", NORM4 "%a = GroupNormalization<num_groups=2>(%x, %s, %o)\n %y = Mul(%a, %c)\n return %y", "GroupNormalization" },
  { "add-into-groupnorm", "%x: f32[2,4,3,2]", NORM4 "%a = GroupNormalization<num_groups=2>(%x, %s, %o)\n %y = Add(%c, %a)\n return %y", "GroupNormalization" },
  { "mul-into-instancenorm", "%x: f32[2,4,3,2]", NORM4 "%a = InstanceNormalization(%x, %s, %o)\n %y = Mul(%a, %c)\n return %y", "InstanceNormalization" },
  { "add-into-instancenorm", "%x: f32[2,4,3,2]", NORM4 "%a = InstanceNormalization(%x, %s, %o)\n %y = Add(%a, %c)\n return %y", "InstanceNormalization" },
  { "mul-into-conv", X4, CONV "%c: f32[2,1,1] = const {2,3}\n %y = Mul(%c, %a)\n return %y", "Conv" },
  { "mul-into-conv", X4, CONV_PLAIN "%c: f32[] = const {2}\n %y = Mul(%a, %c)\n return %y", "Conv" },
  { "mul-into-conv", X4, CONV_PLAIN "%c: f32[5] = const {2,3,4,5,6}\n %y = Mul(%a, %c)\n return %y", "Conv Mul" },
  { "div-into-conv", X4, CONV "%c: f32[1,2,1,1] = const {2,4}\n %y = Div(%a, %c)\n return %y", "Conv" },
  { "mul-into-convtranspose", X4, TRANSPOSED "%c: f32[3,1,1] = const {2,3,4}\n %y = Mul(%a, %c)\n return %y", "ConvTranspose" },
  { "add-into-conv", X4, CONV "%c: f32[1,2,1,1] = const {2,3}\n %y = Add(%a, %c)\n return %y", "Conv" },
  { "add-into-conv", X4, CONV_PLAIN "%c: f32[1] = const {2}\n %y = Add(%a, %c)\n return %y", "Conv" },
  { "sub-into-conv", X4, CONV "%c: f32[1,2,1,1] = const {2,3}\n %y = Sub(%a, %c)\n return %y", "Conv" },
  { "add-into-convtranspose", X4, TRANSPOSED "%c: f32[3,1,1] = const {2,3,4}\n %y = Add(%a, %c)\n return %y", "ConvTranspose" },
  { "mul-into-matmul", X22,
    "%w: f32[3,2] = const {1,2,3,4,5,6}\n %c: f32[2] = const {2,3}\n %a = MatMul(%x, %w)\n %y = Mul(%a, %c)\n return %y", "MatMul" },
  { "div-into-matmul", X22,
    "%w: f32[3,2] = const {1,2,3,4,5,6}\n %c: f32[] = const {2}\n %a = MatMul(%x, %w)\n %y = Div(%a, %c)\n return %y", "MatMul" },
  { "depth-order", "%x: f32[1,2,2,3]",
    "%i: i64[4] = const {32,2,1,1}\n %f: f32[] = const {0}\n %g: f32[] = const {64}\n %h: f32[] = const {1}\n %k = Range(%f, %g, %h)\n %w = Reshape(%k, %i)\n"
    " %l: f32[] = const {32}\n %b = Range(%f, %l, %h)\n %a = Conv(%x, %w, %b)\n %y = DepthToSpace<blocksize=2, mode=\"CRD\">(%a)\n return %y", "Conv DepthToSpace" },
  { "average-before-conv", X4, CONV "%y = AveragePool<kernel_shape=[2,2],strides=[2,2],pads=[1,0,0,1],ceil_mode=1>(%a)\n return %y", "AveragePool Conv" },
  { "average-before-conv", X4,                               /* the bias would be averaged with zeros */
    CONV "%y = AveragePool<kernel_shape=[2,2],strides=[2,2],pads=[1,1,0,0],count_include_pad=1>(%a)\n return %y", "Conv AveragePool" },
  { "average-before-conv", X4, CONV "%y = AveragePool<kernel_shape=[2,2]>(%a)\n return %y", "Conv AveragePool" },     /* not few */
  { "global-average-before-conv", X4, CONV "%y = GlobalAveragePool(%a)\n return %y", "GlobalAveragePool Conv" },
  { "slice-into-conv", X4, WINDOW "%a = Conv<pads=[2,0,2,0]>(%x, %w)\n %y = Slice(%a, %s, %e, %d)\n return %y", "Conv" },
  { "slice-into-conv", X4, WINDOW "%a = Conv<pads=[4,0,4,0],strides=[2,1]>(%x, %w)\n %y = Slice(%a, %s, %e, %d)\n return %y", "Conv" },
  { "slice-into-conv", X4, WINDOW "%a = Conv(%x, %w)\n %y = Slice(%a, %s, %e, %d)\n return %y", "Conv Slice" },          /* no padding there */
  { "slice-into-conv", X4, WINDOW "%t: i64[1] = const {2}\n %a = Conv<pads=[2,0,2,0]>(%x, %w)\n %y = Slice(%a, %s, %e, %d, %t)\n return %y", "Conv Slice" },
  { "pad-into-conv", X4, PADS "%q = Pad(%x, %p)\n %w: f32[2,2,1,1] = const {1,2,3,4}\n %y = Conv<pads=[1,0,0,0]>(%q, %w)\n return %y", "Conv" },
  { "pad-into-conv", X4,
    PADS "%f: f32[] = const {1}\n %q = Pad(%x, %p, %f)\n %w: f32[2,2,1,1] = const {1,2,3,4}\n %y = Conv(%q, %w)\n return %y", "Pad Conv" },
  { "pad-into-averagepool", X4, PADS "%q = Pad(%x, %p)\n %y = AveragePool<kernel_shape=[3,3]>(%q)\n return %y", "AveragePool" },
  { "pad-into-maxpool", X4, PADS "%f: f32[] = const {-inf}\n %q = Pad(%x, %p, %f)\n %y = MaxPool<kernel_shape=[3,3]>(%q)\n return %y", "MaxPool" },
};

static void every_rule_has_a_graph(void) {
  for (int i = 0; i < graph_rule_count; i++) {
    bool found = false;
    for (int k = 0; k < COUNT(cases); k++) found |= !strcmp(graph_rules[i].name, cases[k].rule);
    CU_ASSERT(found);
    if (!found) printf("\n  rule %s", graph_rules[i].name);
  }
}

static void rules_fire_and_keep_the_meaning(void) {
  for (int i = 0; i < COUNT(cases); i++) check(cases[i].inputs, cases[i].body, cases[i].ops);
}

/* ---- the rest of the pass ---- */

static void constants_are_folded(void) {
  check(X22, "%c: f32[3] = const {1,2,3}\n %d: f32[2,1] = const {4,5}\n %a = Mul(%c, %d)\n %b = Exp(%a)\n %y = Add(%x, %b)\n return %y", "Add");
  check(X22, "%c: f32[3] = const {1,2,3}\n %y = Exp(%c)\n %z = Neg(%x)\n return %y, %z", "Neg");
}

static void splats_stay_splats(void) {
  Graph *g = check(X22, "%s: i64[2] = const {4000,3}\n %c = ConstantOfShape<value=f32[1]{2.5}>(%s)\n"
        "%d = Transpose(%c)\n %e = Sqrt(%d)\n %y = MatMul(%x, %e)\n return %y", "MatMul");
  const Tensor *w = g->nodes.v[0]->in[1];
  CU_ASSERT_FATAL(w->data != NULL);
  CU_ASSERT(w->data->splat);
  CU_ASSERT_DOUBLE_EQUAL(tensor_const_float(w, 0), sqrt(2.5), 1e-6);
}

static void constants_under_other_shapes_share_their_bytes(void) {
  Graph *g = check(X22, "%c: f32[6] = const {1,2,3,4,5,6}\n %s: i64[2] = const {2,3}\n %d = Reshape(%c, %s)\n %a = Add(%x, %d)\n %y = Concat<axis=0>(%a, %d)\n"
        " %z = Relu(%c)\n return %y, %c", "Add Concat");
  const Tensor *w = g->nodes.v[0]->in[1];
  CU_ASSERT_FATAL(w->data != NULL);
  CU_ASSERT_PTR_EQUAL(w->data->bytes, g->outputs.v[1]->data->bytes);
}

static void shape_arithmetic_disappears(void) {
  check("%x: f32[N,4,6]; N",
        "%i: i64[] = const {0}\n %u: i64[1] = const {0}\n %m: i64[1] = const {-1}\n %s = Shape(%x)\n %n = Gather(%s, %i)\n %n1 = Unsqueeze(%n, %u)\n"
        "%t = Concat<axis=0>(%n1, %m)\n %a = Reshape(%x, %t)\n %y = Relu(%a)\n return %y", "Shape Gather Unsqueeze Concat Reshape Relu");
  check("%x: f32[2,4,6]",
        "%i: i64[] = const {0}\n %u: i64[1] = const {0}\n %m: i64[1] = const {-1}\n %s = Shape(%x)\n %n = Gather(%s, %i)\n %n1 = Unsqueeze(%n, %u)\n"
        "%t = Concat<axis=0>(%n1, %m)\n %a = Reshape(%x, %t)\n %y = Relu(%a)\n return %y", "Reshape Relu");
}

static void readers_of_a_concatenation_read_its_parts(void) {
  static const char *const in = "%x: f32[1,3,4,4], %z: f32[1,5,4,4], %v: f32[1,8,4,4]";
#define JOINED "%a = Exp(%x)\n %b = Neg(%z)\n %t = Concat<axis=1>(%a, %b)\n "
#define CUT(sizes, from) "%s: i64[2] = const {" sizes "}\n %p, %q = Split<axis=1>(%" from ", %s)\n "
#define EIGHT "f32[8] = const {1,-2,3,-4,5,-6,7,-8}\n %e: i64[4] = const {8,1,1,1}\n "
  check(in, JOINED "%u = Relu(%t)\n " CUT("3,5", "u") "%f = Sin(%p)\n %g = Cos(%q)\n return %f, %g", "Exp Neg Relu Relu Sin Cos");
  check(in, JOINED "%u = Relu(%t)\n " CUT("4,4", "u") "%f = Sin(%p)\n %g = Cos(%q)\n return %f, %g", "Exp Neg Relu Relu Concat Split Sin Cos");
  check(in, JOINED CUT("3,5", "t") "%f = Sin(%p)\n %g = Cos(%q)\n return %f, %g, %t", "Exp Neg Concat Sin Cos");
  check(in, JOINED "%u = Relu(%t)\n return %u, %a", "Exp Neg Concat Relu");                                     /* a part that others read */
  check(in, JOINED "%u = Relu(%t)\n return %u, %t", "Exp Neg Concat Relu");
  check(in, JOINED "%u = Softmax<axis=1>(%t)\n %y = Relu(%t)\n return %u, %y", "Exp Neg Concat Softmax Relu");   /* a reader of all channels */
  check(in, JOINED "%u = Add(%v, %t)\n return %u", "Exp Neg Slice Add Slice Add Concat");
  check(in, JOINED "%k: " EIGHT "%w = Reshape(%k, %e)\n %u = Conv<group=8,kernel_shape=[1,1]>(%t, %w, %k)\n " CUT("3,5", "u")
        "%f = Sin(%p)\n %g = Cos(%q)\n return %f, %g", "Exp Neg Conv Conv Sin Cos");
  check(in, JOINED "%k: " EIGHT "%m: i64[4] = const {2,4,1,1}\n %w = Reshape(%k, %m)\n %u = Conv<group=2,kernel_shape=[1,1]>(%t, %w)\n return %u",
        "Exp Neg Concat Conv");                                                                                  /* a group of both parts */
  check(in, JOINED "%r: i64[2] = const {2,3}\n %m = ReduceMean(%t, %r)\n %g = Sigmoid(%m)\n %u = Mul(%g, %t)\n " CUT("3,5", "u")
        "%f = Sin(%p)\n %h = Cos(%q)\n return %f, %h", "Exp Neg ReduceMean ReduceMean Sigmoid Sigmoid Mul Mul Sin Cos");
  Graph *g = parse("%x: f32[1,3,4,4], %z: f32[1,5,4,4], %v: f32[1,C,4,4]; C", JOINED "%u = Add(%v, %t)\n return %u");     /* C is 8 if the model runs */
  graph_simplify(c, g);
  CU_ASSERT_STRING_EQUAL(ops_of(g), "Exp Neg Concat Add");
}

static void equal_nodes_are_merged(void) {
  check(X22, "%a = Exp(%x)\n %b = Exp(%x)\n %y = Add(%a, %b)\n return %y", "Exp Add");
  check(X22, "%a = Softmax<axis=1>(%x)\n %b = Softmax<axis=0>(%x)\n %y = Add(%a, %b)\n return %y", "Softmax Softmax Add");
  check(X22, "%a = Exp(%x)\n %b = Exp(%x)\n return %a, %b", "Exp Identity");
}

static void unused_nodes_go_without_complaint(void) {
  Graph *g = parse(X22, "%c: f32[5] = const {1,2,3,4,5}\n %a = Add(%x, %c)\n %b = Exp(%a)\n %y = Relu(%x)\n return %y");
  graph_simplify(c, g);
  CU_ASSERT_STRING_EQUAL(ops_of(g), "Relu");
}

static void outputs_keep_their_names(void) {
  check(X22, "%y = Identity(%x)\n return %y", "Identity");
  check(X22, "%a = Relu(%x)\n %y = Identity(%a)\n %z = Identity(%a)\n return %y, %z", "Relu Identity");
  check(X22, "%c: f32[2] = const {1,2}\n %y = Identity(%c)\n %z = Neg(%x)\n return %y, %z", "Neg");
}

static void a_branch_that_is_known_is_inlined(void) {
  static const char *const branches = "%y = If<then_branch=graph t() {\n %k: f32[3] = const {1,2,3}\n %a = Add(%x, %k)\n return %a\n}, "
                                      "else_branch=graph e() {\n %a = Neg(%x)\n return %a\n}>(%c)\n return %y";
  check(X22, ctx_printf(c, "%%c: bool[] = const {1}\n %s", branches), "Add");
  check(X22, ctx_printf(c, "%%c: bool[] = const {0}\n %s", branches), "Neg");
  check("%x: f32[2,3], %c: bool[]", branches, "If");
}

static void all_problems_are_told_once(void) {
  Graph *g = parse("%x: f32[2,4], %z: f32[5,4]", "%a = MatMul(%x, %z) @\"first\"\n %b = Relu(%a)\n"
        "%d = Add(%x, %z) @\"second\"\n %y = Add(%b, %d)\n return %y");
  Diags *d = ctx_diags(c);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    graph_simplify(c, g);
    CU_FAIL("a wrong graph was accepted");
  }
  CU_ASSERT_EQUAL(d->list.n, 2);
  CU_ASSERT(d->list.n == 2 && d->list.v[0].code == E0411 && strstr(d->list.v[0].text, "'first'"));
  CU_ASSERT(d->list.n == 2 && d->list.v[1].code == E0411 && strstr(d->list.v[1].text, "'second'"));
  d->armed = false;
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite_with_setup_and_teardown("simplify", NULL, NULL, begin, end);
  CU_add_test(s, "every rule has a graph", every_rule_has_a_graph);
  CU_add_test(s, "rules fire and keep the meaning", rules_fire_and_keep_the_meaning);
  CU_add_test(s, "constants are folded", constants_are_folded);
  CU_add_test(s, "splats stay splats", splats_stay_splats);
  CU_add_test(s, "constants under other shapes share their bytes", constants_under_other_shapes_share_their_bytes);
  CU_add_test(s, "shape arithmetic disappears", shape_arithmetic_disappears);
  CU_add_test(s, "readers of a concatenation read its parts", readers_of_a_concatenation_read_its_parts);
  CU_add_test(s, "equal nodes are merged", equal_nodes_are_merged);
  CU_add_test(s, "unused nodes go without complaint", unused_nodes_go_without_complaint);
  CU_add_test(s, "outputs keep their names", outputs_keep_their_names);
  CU_add_test(s, "a branch that is known is inlined", a_branch_that_is_known_is_inlined);
  CU_add_test(s, "all problems are told once", all_problems_are_told_once);
  CU_basic_run_tests();
  int failures = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures != 0;
}
