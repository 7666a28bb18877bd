/* t_graph.c - the graph: text there and back, mutators, sorting, layouts, and what the verifier refuses. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>

#include "../ir/graph.h"
#include "../ir/op.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

/* Runs the statement and is true if it fails with the code and a message that contains the text. */
#define FAILS(code_, part, statement) \
  (failed(c, code_, part, setjmp(ctx_diags(c)->unwind) || (ctx_diags(c)->armed = true, statement, 0)))

static bool failed(Ctx *ctx, DiagCode code, const char *part, bool unwound) {
  Diags *d = ctx_diags(ctx);
  bool ok = unwound && d->list.n == 1 && d->list.v[0].code == code && strstr(d->list.v[0].text, part);
  if (!ok)
    printf("\n  expected %s with '%s'; got %s '%s'\n", diag_code_name(code), part,
           d->list.n ? diag_code_name(d->list.v[0].code) : "nothing", d->list.n ? d->list.v[0].text : "");
  d->list.n = 0;
  d->armed = false;
  return ok;
}

static void expect_same(const char *got, const char *want) {
  CU_ASSERT_STRING_EQUAL(got, want);
  if (strcmp(got, want)) printf("\n--- got\n%s--- want\n%s", got, want);
}

/* ---- text ---- */

static const char *const round_trips[] = {
  "graph net(%x: f32[N,3,224,224], %len: i64[]; N, M=1..32, K=16..1024%16) {\n"
  "  %w: f32[64,3,7,7] = const splat(0.5)\n"
  "  %b: f32[4] = const {1,-0,1e-07,nan}\n"
  "  %y: f32[N,64,112,112] layout \"d0,d1/16,d2,d3,d1%16 ring d2=1:1 d3=1:1\" = Conv<strides=[2,2]>(%x, %w, _) @\"features.0\"\n"
  "  %\"a b:0\" = Relu(%y)\n"
  "  %Add.1: f32[N,64,112,112] = Add(%\"a b:0\", %y) @\"quoted \\\"name\\\"\"\n"
  "  return %Add.1, %x, %b\n"
  "}\n",
  "graph cond(%p: bool[], %x: f32[N,(M + 1)/2]; N; M=0..100) {\n"
  "  %one: f32[] = const {1}\n"
  "  %y: f32[N,(M + 1)/2] = If<else_branch=graph no() {\n"
  "      return %x\n"
  "    }, then_branch=graph yes() {\n"
  "      %two: f32[] = const {2}\n"
  "      %s: f32[N,(M + 1)/2] = Add(%x, %one)\n"
  "      %t: f32[N,(M + 1)/2] = Mul(%s, %two)\n"
  "      return %t\n"
  "    }>(%p)\n"
  "  return %y\n"
  "}\n",
  "graph c(%s: i64[1];; d=0..9) {\n"
  "  %v: i64[d] = ConstantOfShape<value=i64[1]{-4}>(%s)\n"
  "  return %v\n"
  "}\n",
};

static void test_text(void) {
  for (int i = 0; i < COUNT(round_trips); i++) {
    Graph *g = graph_parse(c, round_trips[i]);
    graph_verify(g);
    expect_same(graph_text(g), round_trips[i]);
  }
}

static bool text_fails(const char *text, const char *message) { return FAILS(E0309, message, graph_parse(c, text)); }

static void test_text_errors(void) {
  static const struct { const char *text, *message; } bad[] = {
    { "graph g(%x: f32[4]) {\n  %y: f32[4] = Relu(%z)\n  return %y\n}", "%z" },
    { "graph g(%x: f32[4]) {\n  %y: f32[4] = Relux(%x)\n  return %y\n}", "Relux" },
    { "graph g(%x: f32[4]) {\n  %x: f32[4] = Relu(%x)\n  return %x\n}", "%x" },
    { "graph g(%x: f32[4]) {\n  %y: f32[4] = Relu<beta=1>(%x)\n  return %y\n}", "beta" },
    { "graph g(%x: f32[4]) {\n  %w: f32[1000] = const blob \"0123456789abcdef\"\n  return %w\n}", "not in the text" },
    { "graph g(%x: f32[4]) {\n  %w: f32[3] = const {1,2}\n  return %w\n}", "3 elements" },
    { "graph g(%x: q7[4]) {\n  return %x\n}", "q7" },
    { "graph g(%x: f32[4]) {\n  return %x\n", "the end" },
  };
  for (int i = 0; i < COUNT(bad); i++) CU_ASSERT(text_fails(bad[i].text, bad[i].message));
}

/* ---- mutators ---- */

static const char *const branches =
  "graph g(%p: bool[], %x: f32[4]) {\n"
  "  %a: f32[4] = Relu(%x)\n"
  "  %b: f32[4] = Relu(%x)\n"
  "  %y: f32[4] = If<else_branch=graph no() {\n"
  "      return %a\n"
  "    }, then_branch=graph yes() {\n"
  "      %t: f32[4] = Add(%a, %a)\n"
  "      return %t\n"
  "    }>(%p)\n"
  "  return %y, %a\n"
  "}\n";

static void test_replace(void) {
  Graph *g = graph_parse(c, branches);
  Tensor *a = graph_find(g, "a"), *b = graph_find(g, "b"), **caught;
  CU_ASSERT_EQUAL(a->users.n, 2);
  CU_ASSERT_EQUAL(node_captures(c, g->nodes.v[2], &caught), 1);
  CU_ASSERT_PTR_EQUAL(caught[0], a);
  CU_ASSERT(graph_returns(g, a) && !graph_returns(g, b));
  tensor_replace(g, a, b);
  graph_verify(g);
  CU_ASSERT_EQUAL(a->users.n, 0);
  CU_ASSERT_EQUAL(b->users.n, 2);
  CU_ASSERT_PTR_EQUAL(g->outputs.v[1], b);
  node_erase(g, a->def);
  node_set_input(b->users.v[0], 0, graph_find(g, "x"));
  graph_verify(g);
  expect_same(graph_text(g),
    "graph g(%p: bool[], %x: f32[4]) {\n"
    "  %b: f32[4] = Relu(%x)\n"
    "  %y: f32[4] = If<else_branch=graph no() {\n"
    "      return %b\n"
    "    }, then_branch=graph yes() {\n"
    "      %t: f32[4] = Add(%x, %b)\n"
    "      return %t\n"
    "    }>(%p)\n"
    "  return %y, %b\n"
    "}\n");
  tensor_replace(g, graph_find(g, "y"), b);
  node_erase(g, g->nodes.v[1]);                          /* its inner graphs use nothing any more */
  CU_ASSERT_EQUAL(b->users.n, 0);
  graph_verify(g);
}

static void test_names(void) {
  Graph *g = graph_new(c, NULL, "names");
  Tensor *x = graph_tensor(g, "x"), *x1 = graph_tensor(g, "x"), *x2 = graph_tensor(g, "x");
  CU_ASSERT_STRING_EQUAL(x1->name, "x.1");
  CU_ASSERT_STRING_EQUAL(x2->name, "x.2");
  graph_rename(g, x2, "x");
  CU_ASSERT_STRING_EQUAL(x->name, "x.3");
  CU_ASSERT_PTR_EQUAL(graph_find(g, "x"), x2);
  CU_ASSERT_PTR_EQUAL(graph_find(g, "x.2"), NULL);
  Graph *inner = graph_new(c, g, "inner");
  CU_ASSERT_STRING_EQUAL(graph_tensor(inner, "x.1")->name, "x.1.1");
}

static void swap_nodes(Graph *g, int i, int j) {
  Node *n = g->nodes.v[i];
  g->nodes.v[i] = g->nodes.v[j];
  g->nodes.v[j] = n;
}

static void test_sort(void) {
  Graph *g = graph_parse(c, branches);
  swap_nodes(g, 0, 2);                                   /* If, b, a: If needs a through its branches */
  CU_ASSERT(FAILS(E0900, "before it is made", graph_verify(g)));
  graph_sort(g);
  graph_verify(g);
  CU_ASSERT_STRING_EQUAL(g->nodes.v[0]->out[0]->name, "a");
  CU_ASSERT_STRING_EQUAL(g->nodes.v[1]->out[0]->name, "y");
  CU_ASSERT_STRING_EQUAL(g->nodes.v[2]->out[0]->name, "b");
  Node *a = g->nodes.v[0];
  a->name = "first";
  node_set_input(a, 0, graph_find(g, "y"));
  CU_ASSERT(FAILS(E0307, "'first' (Relu)", graph_sort(g)));
}

static void test_deep_chain(void) {
  Graph *g = graph_new(c, NULL, "chain");
  const Op *relu = op_find(c, "", "Relu");
  Tensor *t = graph_tensor(g, "x");
  vec_push(c, &g->inputs, t);
  for (int i = 0; i < 200000; i++) t = graph_node(g, relu, "", &t, 1, 1)->out[0];
  vec_push(c, &g->outputs, t);
  for (int i = 0, j = g->nodes.n - 1; i < j; i++, j--) swap_nodes(g, i, j);
  graph_sort(g);
  graph_verify(g);
  CU_ASSERT_PTR_EQUAL(g->nodes.v[g->nodes.n - 1]->out[0], t);
}

/* ---- the verifier ---- */

static void test_verifier(void) {
  Graph *g = graph_parse(c, branches);
  Tensor *a = graph_find(g, "a"), *x = graph_find(g, "x");
  a->users.n--;
  CU_ASSERT(FAILS(E0900, "users", graph_verify(g)));
  a->users.n++;
  g->nodes.v[0]->in[0] = NULL;
  CU_ASSERT(FAILS(E0900, "lacks input", graph_verify(g)));
  g->nodes.v[0]->in[0] = x;
  a->name = ctx_intern(c, "other");
  CU_ASSERT(FAILS(E0900, "'other'", graph_verify(g)));
  a->name = ctx_intern(c, "a");
  a->def_index = 1;
  CU_ASSERT(FAILS(E0900, "does not know", graph_verify(g)));
  a->def_index = 0;
  g->outputs.v[0] = tensor_new(c, "stranger", DT_F32, 0, NULL);
  CU_ASSERT(FAILS(E0900, "stranger", graph_verify(g)));
  g->outputs.v[0] = a;
  a->layout = layout_parse(c, "d0,d1/4");
  CU_ASSERT(FAILS(E0900, "layout", graph_verify(g)));
  a->layout = NULL;
  graph_verify(g);
}

/* ---- layouts ---- */

/* NCHW16c with a ring of lo rows before and hi after, against the formula written out. */
static void test_blocked_layout(void) {
  enum { N = 2, C = 40, H = 5, W = 3, LO = 1, HI = 2 };
  Sym *s[4] = { sym_axis(c, SYM_AXIS, "n", ex_int(c, N)), sym_axis(c, SYM_AXIS, "c", ex_int(c, C)),
                sym_axis(c, SYM_AXIS, "h", ex_int(c, H)), sym_axis(c, SYM_AXIS, "w", ex_int(c, W)) };
  Expr *shape[4] = { s[0]->extent, s[1]->extent, s[2]->extent, s[3]->extent }, *index[4];
  Tensor *t = tensor_new(c, "t", DT_F32, 4, shape);
  t->layout = layout_parse(c, "d0,d1/16,d2,d3,d1%16 ring d2=1:2 d3=1:1");
  for (int i = 0; i < 4; i++) index[i] = s[i]->self;
  Expr *offset = layout_offset(c, t, index);
  CU_ASSERT(ex_equals_int(layout_elements(c, t), N * 3 * (H + LO + HI) * (W + 2) * 16));
  int wrong = 0;
  for (int n = 0; n < N; n++)
    for (int k = 0; k < C; k++)
      for (int h = 0; h < H; h++)
        for (int w = 0; w < W; w++) {
          int at[4] = { n, k, h, w };
          Subst u = subst_new(c);
          for (int i = 0; i < 4; i++) subst_set(&u, s[i], ex_int(c, at[i]));
          int64_t got = -1, want = (((n * 3 + k / 16) * (H + LO + HI) + h + LO) * (W + 2) + w + 1) * 16 + k % 16;
          wrong += !ex_is_int(subst_apply(&u, offset), &got) || got != want;
        }
  CU_ASSERT_EQUAL(wrong, 0);
}

static void test_split_axis(void) {
  Sym *n = sym_new(c, SYM_DIM, "Nx", 1, 1 << 20);
  Sym *co = sym_axis(c, SYM_AXIS, "co", ex_int(c, 4)), *ci = sym_axis(c, SYM_AXIS, "ci", ex_int(c, 16)),
      *i = sym_axis(c, SYM_AXIS, "i", n->self);
  Tensor *t = tensor_new(c, "t", DT_F32, 2, (Expr *[]){ n->self, ex_int(c, 64) });
  t->layout = layout_parse(c, "d0,d1/16,d1%16");
  Expr *split = ex_add(c, ex_mul(c, co->self, ex_int(c, 16)), ci->self);
  Expr *want = ex_add(c, ex_add(c, ex_mul(c, i->self, ex_int(c, 64)), ex_mul(c, co->self, ex_int(c, 16))), ci->self);
  CU_ASSERT_PTR_EQUAL(layout_offset(c, t, (Expr *[]){ i->self, split }), want);
  t->layout = layout_parse(c, "d0,d1 ring d0=1:0");
  CU_ASSERT_PTR_EQUAL(layout_elements(c, t), ex_mul(c, ex_add(c, n->self, ex_int(c, 1)), ex_int(c, 64)));
  Expr *before = ex_sub(c, i->self, ex_int(c, 1)), *after = ex_add(c, i->self, ex_int(c, 1));
  CU_ASSERT(layout_covers(c, t, (Expr *[]){ before, split }));
  CU_ASSERT(!layout_covers(c, t, (Expr *[]){ after, split }));
}

static bool layout_fails(const char *text) { return FAILS(E0309, "layout", layout_parse(c, text)); }

static void test_layout_text(void) {
  static const char *const texts[] = { "d0,d1/16,d2,d3,d1%16 ring d2=1:1 d3=1:1", "d1,d0", "d0/4%2,d0%4,d0/8",
                                      "d0 ring d0=0:3", "d0 ring d0=0:3 kept" };
  for (int i = 0; i < COUNT(texts); i++) expect_same(layout_text(c, layout_parse(c, texts[i])), texts[i]);
  static const char *const bad[] = { "d0,", "x", "d0/0", "d99", "d0 ring d0=1", "d0 ring kept d0=1:1", "d0%", "d0/99999999999" };
  for (int i = 0; i < COUNT(bad); i++) CU_ASSERT(layout_fails(bad[i]));
  Tensor *t = tensor_new(c, "t", DT_F32, 2, (Expr *[]){ ex_int(c, 2), ex_int(c, 3) });
  CU_ASSERT(layout_is_plain(t));
  t->layout = layout_parse(c, "d0,d1");
  CU_ASSERT(layout_is_plain(t));
  t->layout = layout_parse(c, "d1,d0");
  CU_ASSERT(!layout_is_plain(t));
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite suite = CU_add_suite_with_setup_and_teardown("graph ir", NULL, NULL, begin, end);
  CU_add_test(suite, "text there and back", test_text);
  CU_add_test(suite, "text with mistakes", test_text_errors);
  CU_add_test(suite, "replace, erase, set input", test_replace);
  CU_add_test(suite, "names", test_names);
  CU_add_test(suite, "sorting and cycles", test_sort);
  CU_add_test(suite, "a chain of 200000 nodes", test_deep_chain);
  CU_add_test(suite, "verifier", test_verifier);
  CU_add_test(suite, "blocked layout with ring", test_blocked_layout);
  CU_add_test(suite, "split axes leave no division", test_split_axis);
  CU_add_test(suite, "text of layouts", test_layout_text);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0;
}
