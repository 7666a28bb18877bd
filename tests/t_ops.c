/* t_ops.c - the operator table: every row parses and its text means something for every type it takes; each class's shapes and
 * computes; elements known symbolically; what is wrong with a node is told with its code.
 */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>

#include "../ir/op.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

/* ---- helpers ---- */

static Graph *parse(const char *inputs, const char *body) { return graph_parse(c, ctx_printf(c, "graph g(%s) {\n%s\n}\n", inputs, body)); }

static bool infer(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++)
    if (!op_infer(c, g->nodes.v[i])) return false;
  return true;
}

/* The type of the graph's output after inference; the error's code if there was one. */
static const char *type_of(const char *inputs, const char *body) {
  Graph *g = parse(inputs, body);
  Diags *d = ctx_diags(c);
  d->list.n = 0;
  if (!infer(g)) return d->list.n ? diag_code_name(d->list.v[0].code) : "no reason";
  return tensor_type_text(c, g->outputs.v[0]);
}

static const char *message_of(const char *inputs, const char *body) {
  Diags *d = ctx_diags(c);
  d->list.n = 0;
  infer(parse(inputs, body));
  return d->list.n ? d->list.v[0].text : "";
}

/* The stages of the graph's last node, "out = body" each; names of axes as they are first used: the numbers behind them go. */
static const char *compute_of(const char *inputs, const char *body) {
  Graph *g = parse(inputs, body);
  if (!infer(g)) return ctx_diags(c)->list.n ? ctx_diags(c)->list.v[0].text : "not inferred";
  OpCtx oc = { .c = c };
  if (!op_compute(c, g->nodes.v[g->nodes.n - 1], &oc)) return "no compute";
  Str s = str_new(c);
  for (int i = 0; i < oc.stages.n; i++) {
    const char *t = expr_text(c, oc.stages.v[i]->body);
    str_add(&s, "%s%s = ", i ? "; " : "", oc.stages.v[i]->out->name);
    for (; *t; t++) {              /* i0.12 -> i0 */
      bool axis = s.n > 1 && t[0] == '.' && t[1] >= '0' && t[1] <= '9' && s.s[s.n - 1] >= '0' && s.s[s.n - 1] <= '9' && s.s[s.n - 2] > '9';
      axis |= t[0] == '.' && t[1] >= '0' && t[1] <= '9' && s.n && s.s[s.n - 1] >= 'a';
      if (axis) while (t[1] >= '0' && t[1] <= '9') t++;
      else str_add(&s, "%c", *t);
    }
  }
  return s.s;
}

static const char *known_of(const char *inputs, const char *body) {
  Graph *g = parse(inputs, body);
  if (!infer(g)) return ctx_diags(c)->list.n ? ctx_diags(c)->list.v[0].text : "not inferred";
  const Tensor *t = g->outputs.v[0];
  Str s = str_new(c);
  str_add(&s, "%s", t->known ? "" : "not known");
  for (int i = 0; i < t->nknown; i++) str_add(&s, "%s%s", i ? " " : "", expr_text(c, t->known[i]));
  return s.s;
}

static void same_text(const char *got, const char *want) {
  if (strcmp(got, want)) printf("\n  got  %s\n  want %s", got, want);
  CU_ASSERT_STRING_EQUAL(got, want);
}

/* ---- rows ---- */

static bool allows(const char *type, DType t) {
  char kind = dtype_info[t].kind;
  if (!strcmp(type, "any")) return true;
  if (!strcmp(type, "num")) return kind != 'b';
  if (!strcmp(type, "float")) return kind == 'f';
  if (!strcmp(type, "int")) return kind == 'i' || kind == 'u';
  return dtype_from_name(type) == t;
}

/* A node of the row on operands of type t (and of their own types where the row fixes them). */
static bool row_works(const Op *op, DType t) {
  Graph *g = graph_new(c, NULL, "g");
  Tensor *in[4];
  Expr *shape[] = { ex_int(c, 2), ex_int(c, 3) };
  int n = op->in[0].variadic ? 3 : op->cls == OPC_REDUCE ? 1 : op->nin;
  for (int i = 0; i < n; i++) {
    const char *type = op->in[op->in[0].variadic ? 0 : i].type;
    in[i] = graph_tensor(g, "x");
    in[i]->dtype = dtype_from_name(type) == DT_NONE ? t : dtype_from_name(type);
    in[i]->rank = 2;
    in[i]->shape = shape;
  }
  Node *node = graph_node(g, op, "", in, n, 1);
  for (int i = 0; i < op->nattr; i++)
    if (op->attr[i].required) node->attrs[i] = (Attr){ .name = op->attr[i].name, .kind = op->attr[i].kind, .s = "LEFT" };
  OpCtx oc = { .c = c };
  return op_infer(c, node) && op_compute(c, node, &oc) && oc.stages.n == 1 && oc.stages.v[0]->body->dtype == node->out[0]->dtype;
}

static void rows_of_text_work_for_all_their_types(void) {
  int tried = 0;
  for (int i = 0; op_at(c, i); i++) {
    const Op *op = op_at(c, i);
    CU_ASSERT_PTR_EQUAL(op_find(c, "", op->name), op);
    if (op->cls != OPC_ELEM && op->cls != OPC_REDUCE) continue;
    const char *type = op->in[0].type;
    for (int k = 0; k < op->nin; k++)
      if (op->in[k].var == 'T') type = op->in[k].type;
    for (int t = 0; t < DT_COUNT; t++) {
      if (!allows(type, (DType)t)) continue;
      bool works = row_works(op, (DType)t);
      if (!works) printf("\n  %s of %s", op->name, dtype_info[t].name), diag_print(c, stdout);
      CU_ASSERT(works);
      tried++;
    }
  }
  CU_ASSERT(tried > 300);
}

static void names_and_domains(void) {
  CU_ASSERT_PTR_NOT_NULL(op_find(c, "ai.onnx", "Conv"));
  CU_ASSERT_PTR_NULL(op_find(c, "com.example", "Conv"));
  CU_ASSERT_PTR_NULL(op_find(c, "", "conv"));
  const Op *clip = op_find(c, "", "Clip");
  CU_ASSERT_EQUAL(clip->nin, 3);
  CU_ASSERT_EQUAL(clip->nin_min, 1);
  CU_ASSERT(clip->in[2].optional && clip->in[2].var == 'T');
}

/* ---- text classes ---- */

static void element_wise(void) {
  same_text(type_of("%a: f32[N,1,4], %b: f32[3,1]; N", "%y = Add(%a, %b) return %y"), "f32[N,3,4]");
  same_text(compute_of("%a: f32[N,1,4], %b: f32[3,1]; N", "%y = Sub(%a, %b) return %y"), "y = a[i0, 0, i2] - b[i1, 0]");
  same_text(compute_of("%x: f32[4]", "%y = LeakyRelu<alpha=0.25>(%x) return %y"), "y = select(x[i0] < 0.0f, x[i0]*0.25f, x[i0])");
  same_text(compute_of("%x: f32[4], %hi: f32[]", "%y = Clip(%x, _, %hi) return %y"), "y = min(x[i0], hi[])");
  same_text(compute_of("%x: f16[4]", "%y = Add(%x, %x) return %y"), "y = f16(f32(x[i0]) + f32(x[i0]))");
  same_text(compute_of("%a: f32[2], %b: f32[2], %d: f32[1]", "%y = Mean(%a, %b, %d) return %y"), "y = (a[i0] + b[i0] + d[0])/3.0f");
  same_text(type_of("%a: i32[2], %b: i32[2]", "%y = Less(%a, %b) return %y"), "bool[2]");
  same_text(type_of("%c: bool[2], %b: i32[3,1]", "%y = Where(%c, %b, %b) return %y"), "i32[3,2]");
}

static void reductions(void) {
  same_text(type_of("%x: f32[N,3,4]; N", "%a: i64[1] = const {-1} %y = ReduceSum(%x, %a) return %y"), "f32[N,3,1]");
  same_text(compute_of("%x: f32[N,3,4]; N", "%a: i64[2] = const {0,2} %y = ReduceMean<keepdims=0>(%x, %a) return %y"),
            "y = sum(r0<N, r2<4, x[r0, i0, r2])/f32(N*4)");
  same_text(compute_of("%x: i8[4]", "%y = ReduceSum<keepdims=0>(%x) return %y"), "y = i8(sum(r0<4, i32(x[r0])))");
  same_text(compute_of("%x: f32[4]", "%y = ReduceSumSquare<noop_with_empty_axes=1>(%x) return %y"), "y = x[i0]*x[i0]");
}

/* ---- movement ---- */

static void movement(void) {
  same_text(compute_of("%x: f32[2,3,4]", "%y = Transpose<perm=[1,2,0]>(%x) return %y"), "y = x[i2, i0, i1]");
  same_text(compute_of("%x: f32[N,S,768]; N, S", "%s: i64[4] = const {0,0,12,64} %y = Reshape(%x, %s) return %y"), "y = x[i0, i1, i2*64 + i3]");
  same_text(type_of("%x: f32[N,S,12,64]; N, S", "%s: i64[3] = const {0,-1,768} %y = Reshape(%x, %s) return %y"), "f32[N,S,768]");
  same_text(compute_of("%x: f32[N,S,12,64]; N, S", "%s: i64[3] = const {0,-1,768} %y = Reshape(%x, %s) return %y"), "y = x[i0, i1, i2/64, i2%64]");
  same_text(compute_of("%x: f32[N,5]; N", "%a: i64[1] = const {2} %y = Unsqueeze(%x, %a) return %y"), "y = x[i0, i1]");
  same_text(compute_of("%x: f32[10]", "%b: i64[1] = const {-1} %e: i64[1] = const {-100} %a: i64[1] = const {0} %s: i64[1] = const {-3} "
                       "%y = Slice(%x, %b, %e, %a, %s) return %y"), "y = x[9 - i0*3]");
  same_text(type_of("%x: f32[N]; N=4..8", "%b: i64[1] = const {1} %e: i64[1] = const {9223372036854775807} %y = Slice(%x, %b, %e) return %y"), "f32[N - 1]");
  same_text(compute_of("%a: f32[2], %b: f32[3]", "%y = Concat<axis=0>(%a, %b) return %y"), "y = select(i0 < 2, a[i0], b[i0 - 2])");
  same_text(compute_of("%x: f32[4]", "%p: i64[2] = const {1,2} %y = Pad(%x, %p) return %y"), "y = select(1 <= i0 & i0 < 5, x[i0 - 1], 0.0f)");
  same_text(compute_of("%x: f32[4]", "%p: i64[2] = const {2,0} %y = Pad<mode=\"reflect\">(%x, %p) return %y"), "y = x[max(i0 - 2, 2 - i0)]");
  same_text(type_of("%x: f32[7]", "%a, %b, %d = Split<num_outputs=3>(%x) return %d"), "f32[1]");
  same_text(compute_of("%x: f32[5,4], %i: i32[3]", "%y = Gather<axis=1>(%x, %i) return %y"),
            "y = x[i0, max(min(select(i64(i[i1]) < 0, i64(i[i1]) + 4, i64(i[i1])), 3), 0)]");
}

/* ---- windows and products ---- */

static void convolutions(void) {
  same_text(compute_of("%x: f32[N,3,8,8], %w: f32[4,3,1,1], %b: f32[4]; N", "%y = Conv(%x, %w, %b) return %y"),
            "y = sum(c<3, x[i0, c, i2, i3]*w[i1, c, 0, 0]) + b[i1]");
  same_text(type_of("%x: f32[N,3,H,W], %w: f32[4,3,3,3]; N, H=8..64, W=8..64", "%y = Conv<strides=[2,2],pads=[1,1,1,1]>(%x, %w) return %y"),
            "f32[N,4,(H + 1)/2,(W + 1)/2]");
  same_text(compute_of("%x: f32[1,6,8], %w: f32[6,1,3]", "%y = Conv<group=6>(%x, %w) return %y"), "y = sum(r0<3, x[i0, i1, i2 + r0]*w[i1, 0, r0])");
  same_text(compute_of("%x: f32[1,6,8], %w: f32[4,3,3]", "%y = Conv<group=2,dilations=[2],strides=[2]>(%x, %w) return %y"),
            "y = sum(c<3, r0<3, x[i0, c + i1/2*3, i2*2 + r0*2]*w[i1, c, r0])");
  same_text(compute_of("%x: f32[1,1,8], %w: f32[1,1,3]", "%y = Conv<pads=[1,0]>(%x, %w) return %y"),
            "y = sum(r0<3, select(1 <= i2 + r0, x[i0, 0, i2 + r0 - 1], 0.0f)*w[i1, 0, r0])");
  same_text(type_of("%x: f32[1,1,5], %w: f32[1,1,2]", "%y = Conv<auto_pad=\"SAME_LOWER\",strides=[2]>(%x, %w) return %y"), "f32[1,1,3]");
  same_text(type_of("%x: f32[1,2,5,5], %w: f32[2,3,3,3]", "%y = ConvTranspose<strides=[2,2],output_padding=[1,1]>(%x, %w) return %y"), "f32[1,3,12,12]");
  same_text(type_of("%x: f32[1,1,7]", "%y = MaxPool<kernel_shape=[2],strides=[2],ceil_mode=1>(%x) return %y"), "f32[1,1,4]");
  same_text(compute_of("%x: f32[1,1,8]", "%y = AveragePool<kernel_shape=[2],strides=[2]>(%x) return %y"), "y = sum(r0<2, x[i0, i1, i2*2 + r0])*0.5f");
  same_text(compute_of("%x: f32[N,2,H,W]; N, H, W", "%y = GlobalAveragePool(%x) return %y"), "y = sum(r0<H, r1<W, x[i0, i1, r0, r1])/f32(H*W)");
}

static void products(void) {
  same_text(compute_of("%a: f32[N,1,2,3], %b: f32[5,3,4]; N", "%y = MatMul(%a, %b) return %y"), "y = sum(k<3, a[i0, 0, i2, k]*b[i1, k, i3])");
  same_text(compute_of("%a: f32[3], %b: f32[2,3,4]", "%y = MatMul(%a, %b) return %y"), "y = sum(k<3, a[k]*b[i0, k, i1])");
  same_text(type_of("%a: f32[2,3], %b: f32[3]", "%y = MatMul(%a, %b) return %y"), "f32[2]");
  same_text(compute_of("%a: f32[3,2], %b: f32[4,3], %d: f32[4]", "%y = Gemm<transA=1,transB=1,beta=0.5>(%a, %b, %d) return %y"),
            "y = sum(k<3, a[k, i0]*b[i1, k]) + d[i1]*0.5f");
  same_text(compute_of("%a: f16[2,2], %b: f16[2,2]", "%y = MatMul(%a, %b) return %y"), "y = f16(sum(k<2, f32(a[i0, k])*f32(b[k, i1])))");
  same_text(compute_of("%a: f32[B,2,3], %b: f32[B,4,3]; B", "%y = Einsum<equation=\"...ij,...kj->...ik\">(%a, %b) return %y"),
            "y = sum(j<3, a[i0, i1, j]*b[i0, i2, j])");
}

static void staged(void) {
  same_text(compute_of("%x: f32[N,4]; N", "%y = Softmax(%x) return %y"),
            "y.max = max(r1<4, x[i0, r1]); y.exp = exp(x[i0, i1] - y.max[i0, 0]); y.sum = sum(r1<4, y.exp[i0, r1]); y = y.exp[i0, i1]/y.sum[i0, 0]");
  same_text(compute_of("%x: f32[2,4], %s: f32[4]", "%y = RMSNormalization<epsilon=0.5>(%x, %s) return %y"),
            "y.inv_std = 1.0f/sqrt(sum(r1<4, x[i0, r1]*x[i0, r1])*0.25f + 0.5f); y = x[i0, i1]*y.inv_std[i0, 0]*s[i1]");
}

/* ---- known elements ---- */

static void shapes_are_followed_symbolically(void) {
  same_text(known_of("%x: f32[N,3,S]; N, S", "%y = Shape(%x) return %y"), "N 3 S");
  same_text(known_of("%x: f32[N,3]; N", "%s = Shape(%x) %i: i64[1] = const {0} %g = Gather(%s, %i) %m: i64[1] = const {-1} "
                     "%y = Concat<axis=0>(%g, %m) return %y"), "N -1");
  same_text(type_of("%x: f32[N,S,8]; N, S", "%s = Shape<end=2>(%x) %m: i64[2] = const {2,4} %t = Concat<axis=0>(%s, %m) %y = Reshape(%x, %t) return %y"),
            "f32[N,S,2,4]");
  same_text(known_of("%x: f32[N,3]; N", "%s = Shape(%x) %i: i32[2] = const {7,9} %t = Cast<to=6>(%s) %y = Mul(%t, %i) return %y"), "i32(N)*7 i32(27)");
  same_text(known_of("%x: f32[N,3,5]; N", "%s = Shape(%x) %y = ReduceProd<keepdims=0>(%s) return %y"), "N*15");
  same_text(known_of("%x: f32[N]; N", "%s = Shape(%x) %m: i64[1] = const {-1} %y = Equal(%s, %m) return %y"), "false");
  same_text(type_of("%x: f32[N,4]; N", "%s = Shape(%x) %z = ConstantOfShape(%s) %y = Add(%z, %x) return %y"), "f32[N,4]");
  same_text(type_of("%x: f32[N]; N", "%n = Size(%x) %a: i64[] = const {0} %d: i64[] = const {2} %y = Range(%a, %n, %d) return %y"), "i64[(N + 1)/2]");
  same_text(known_of("%x: i64[3]", "%y = Neg(%x) return %y"), "not known");
  same_text(type_of("%x: f32[1,2,H]; H", "%s: f32[3] = const {1,1,2} %y = Resize(%x, _, %s) return %y"), "f32[1,2,H*2]");
}

/* ---- regions and expansions ---- */

static void regions(void) {
  const char *body = "%y = If<then_branch=graph t() { %a = Abs(%x) return %a }, else_branch=graph e() { %b = Neg(%x) return %b }>(%p) return %y";
  same_text(type_of("%p: bool[], %x: f32[N,2]; N", body), "f32[N,2]");
  same_text(type_of("%s: f32[2], %x: f32[T,2]; T",
                    "%e, %y = Scan<body=graph b(%h: f32[2], %v: f32[2]) { %n = Add(%h, %v) return %n, %n }, num_scan_inputs=1>(%s, %x) return %y"), "f32[T,2]");
  same_text(type_of("%n: i64[], %x: f32[2]",
                    "%e, %y = Loop<body=graph b(%i: i64[], %go: bool[], %h: f32[2]) { %m = Add(%h, %x) return %go, %m, %m }>(%n, _, %x) return %e"), "f32[2]");
}

/* Sizes that are not known to be equal are taken so; every run checks it. A branch that cannot be is one that no run takes. */
static void assumptions(void) {
  Graph *g = parse("%x: f32[N,4], %z: f32[M,4]; N, M", "%y = Add(%x, %z) %s: i64[2] = const {8,-1} %t = Reshape(%y, %s) return %t");
  CU_ASSERT_FATAL(infer(g) && infer(g) && g->assumed.n >= 1);
  same_text(expr_text(c, g->assumed.v[0]), "N == M");
  int n = g->assumed.n;
  CU_ASSERT(infer(g) && g->assumed.n == n);
  g = parse("%p: bool[], %x: f32[1,3], %w: f32[3,2]", "%y = If<then_branch=graph t() { %a = MatMul(%x, %w) return %a }, "
            "else_branch=graph e() { %v: f32[4,2] = const splat(1) %b = MatMul(%x, %v) return %b }>(%p) return %y");
  CU_ASSERT_FATAL(infer(g));
  CU_ASSERT_EQUAL(ctx_diags(c)->list.n, 0);
  graph_verify(g);
  const Graph *never = op_attr(g->nodes.v[0], "else_branch")->graph;
  CU_ASSERT_FATAL(never->assumed.n == 1);
  same_text(expr_text(c, never->assumed.v[0]), "false");
  same_text(tensor_type_text(c, g->outputs.v[0]), "f32[1,2]");
}

static void recurrent_cells_expand(void) {
  Graph *g = parse("%x: f32[T,N,3]; T, N", "%w: f32[1,16,3] = const splat(0.5) %r: f32[1,16,4] = const splat(0.5) %y = LSTM(%x, %w, %r) return %y");
  CU_ASSERT_FATAL(infer(g));
  same_text(tensor_type_text(c, g->outputs.v[0]), "f32[T,1,N,4]");
  CU_ASSERT_FATAL(op_expand(c, g->nodes.v[0]));
  graph_verify(g);
  int scans = 0;
  for (int i = 0; i < g->nodes.n; i++) {
    scans += !strcmp(g->nodes.v[i]->op->name, "Scan");
    CU_ASSERT(strcmp(g->nodes.v[i]->op->name, "LSTM") != 0);
  }
  CU_ASSERT_EQUAL(scans, 1);
  same_text(tensor_type_text(c, g->outputs.v[0]), "f32[T,1,N,4]");
  same_text(g->outputs.v[0]->name, "y");
}

/* ---- errors ---- */

static void errors_have_codes(void) {
  same_text(message_of("%a: f32[2,4], %b: f32[5,4]", "%y = MatMul(%a, %b) return %y"),
            "node (MatMul-13): a f32[2,4] * b f32[5,4]: inner dimensions 4 and 5 differ");
  static const struct { const char *code, *inputs, *body; } cases[] = {
    { "E0411", "%a: f32[2,4], %b: f32[5,4]", "%y = Add(%a, %b) return %y" },
    { "E0411", "%x: f32[2,3]", "%s: i64[1] = const {5} %y = Reshape(%x, %s) return %y" },
    { "E0412", "%x: f32[2,3]", "%s: i64[2] = const {-1,-1} %y = Reshape(%x, %s) return %y" },
    { "E0411", "%x: f32[2]", "%s: i64[2] = const {1,0} %y = Reshape(%x, %s) return %y" },
    { "E0413", "%x: f32[2,3], %s: i64[2]", "%y = Reshape(%x, %s) return %y" },
    { "E0413", "%x: f32[2,3], %s: i64[1]", "%y = ReduceSum(%x, %s) return %y" },
    { "E0412", "%x: f32[2,3]", "%s: i64[1] = const {2} %y = ReduceSum(%x, %s) return %y" },
    { "E0412", "%x: f32[2,3]", "%y = Transpose<perm=[0,0]>(%x) return %y" },
    { "E0412", "%x: f32[2,3]", "%y = Transpose<perm=[0]>(%x) return %y" },
    { "E0404", "%x: i32[2]", "%y = Exp(%x) return %y" },
    { "E0404", "%a: i32[2], %b: f32[2]", "%y = Add(%a, %b) return %y" },
    { "E0411", "%x: f32[1,3,8,8], %w: f32[4,2,3,3]", "%y = Conv(%x, %w) return %y" },
    { "E0411", "%x: f32[1,3,2,2], %w: f32[4,3,3,3]", "%y = Conv(%x, %w) return %y" },
    { "E0412", "%x: f32[1,3,8,8], %w: f32[4,3,3,3]", "%y = Conv<pads=[1]>(%x, %w) return %y" },
    { "E0412", "%x: f32[1,3,8,8], %w: f32[4,3,3,3]", "%y = Conv<strides=[0,1]>(%x, %w) return %y" },
    { "E0412", "%x: f32[1,3,8,8], %w: f32[4,3,3,3]", "%y = Conv<auto_pad=\"SAME\">(%x, %w) return %y" },
    { "E0412", "%x: f32[1,3,8,8]", "%y = MaxPool<kernel_shape=[2]>(%x) return %y" },
    { "E0411", "%x: f32[4]", "%w: f32[2,2] = const splat(1) %y = Gemm(%x, %w) return %y" },
    { "E0412", "%x: f32[4]", "%y = Softmax<axis=1>(%x) return %y" },
    { "E0412", "%x: f32[4]", "%y = Concat<axis=-2>(%x, %x) return %y" },
    { "E0411", "%x: f32[4], %z: f32[4,1]", "%y = Concat<axis=0>(%x, %z) return %y" },
    { "E0411", "%x: f32[4]", "%s: i64[2] = const {1,2} %a, %y = Split(%x, %s) return %y" },
    { "E0404", "%x: f32[4]", "%y = Cast<to=99>(%x) return %y" },
    { "E0403", "%x: f32[4,2]", "%s: f32[2] = const {1,1} %y, %m = BatchNormalization(%x, %s, %s, %s, %s) return %y, %m" },
    { "E0412", "%x: f32[1,1,8,8]", "%s: f32[4] = const {1,1,0.5,1e-30} %y = Resize<antialias=1, mode=\"linear\">(%x, _, %s) return %y" },
    { "E0404", "%x: bool[1,1,8,8]", "%s: f32[4] = const {1,1,2,2} %y = Resize<mode=\"linear\">(%x, _, %s) return %y" },
    { "E0412", "%x: f32[4,2], %z: f32[2]", "%y = Einsum<equation=\"ij,jk->ik\">(%x, %z) return %y" },
    { "E0413", "%x: f32[4], %s: i64[1], %e: i64[1]", "%y = Slice(%x, %s, %e) return %y" } };
  for (int i = 0; i < COUNT(cases); i++) {
    const char *code = type_of(cases[i].inputs, cases[i].body);
    if (strcmp(code, cases[i].code)) printf("\n  %s: %s instead of %s", cases[i].body, code, cases[i].code);
    CU_ASSERT_STRING_EQUAL(code, cases[i].code);
  }
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite_with_setup_and_teardown("operators", NULL, NULL, begin, end);
  CU_ADD_TEST(s, rows_of_text_work_for_all_their_types);
  CU_ADD_TEST(s, names_and_domains);
  CU_ADD_TEST(s, element_wise);
  CU_ADD_TEST(s, reductions);
  CU_ADD_TEST(s, movement);
  CU_ADD_TEST(s, convolutions);
  CU_ADD_TEST(s, products);
  CU_ADD_TEST(s, staged);
  CU_ADD_TEST(s, shapes_are_followed_symbolically);
  CU_ADD_TEST(s, regions);
  CU_ADD_TEST(s, assumptions);
  CU_ADD_TEST(s, recurrent_cells_expand);
  CU_ADD_TEST(s, errors_have_codes);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  int failed = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
