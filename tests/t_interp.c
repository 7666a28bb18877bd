/* t_interp.c - the interpreter: its row operations against the scalar meaning, stages against element-wise evaluation, graphs. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>
#include <stdlib.h>

#include "../ir/interp.h"
#include "../passes/simplify.h"

static Ctx *c;
static void begin(void) { c = ctx_new(); }
static void end(void) { ctx_free(c); }

static uint64_t seed = 1;
static uint64_t draw(void) { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; }

static bool same_element(DType t, const char *a, const char *b) {
  if (!dtype_is_float(t)) return dtype_load_i(t, a) == dtype_load_i(t, b);
  double x = dtype_load_f(t, a), y = dtype_load_f(t, b);
  return x == y || (isnan(x) && isnan(y));
}

/* ---- row operations ---- */

static const double special[] = { 0, -0.0, 1, -1, 2, 0.5, 3, -7, 1e9, -1e9, 1e20, -1e20, 1e300, -1e300, INFINITY, -INFINITY, NAN };
static const int64_t special_i[] = { 0, 1, -1, 2, 3, -7, 100, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1LL << 40 };

static void fill(DType t, char *p, int n) {
  for (int i = 0; i < n; i++) {
    char *at = p + i * dtype_bytes(t);
    if (dtype_is_float(t)) dtype_store_f(t, at, i < 200 ? special[draw() % COUNT(special)] : (double)draw() / 1e8 - 10);
    else if (t == DT_BOOL) dtype_store_i(t, at, (int64_t)(draw() & 1));
    else dtype_store_i(t, at, i < 200 ? special_i[draw() % COUNT(special_i)] : (int64_t)(draw() % 200) - 100);
  }
}

static int disagreements(RowFn *fn, const Expr *e, DType from) {
  enum { N = 256 };
  static char a[8 * N], b[8 * N], d[8 * N], want[8];
  int bad = 0;
  fill(from, a, N);
  fill(from, b, N);
  fn(d, a, b, N);
  for (int i = 0; i < N; i++) {
    Scalar v[2] = { scalar_load(from, a + i * dtype_bytes(from)), scalar_load(from, b + i * dtype_bytes(from)) };
    scalar_store((DType)e->dtype, want, expr_apply(e, v));
    bad += !same_element((DType)e->dtype, want, d + i * dtype_bytes((DType)e->dtype));
  }
  if (bad) printf("\n  %s on %s: %d differ", expr_info[e->op].id, dtype_info[from].name, bad);
  return bad;
}

static void rows_mean_what_scalars_mean(void) {
  int count = 0;
  for (int t = 0; t < DT_COUNT; t++) {
    Expr *x = ex_load(c, tensor_new(c, "x", (DType)t, 0, NULL), NULL, 0), *y = ex_load(c, tensor_new(c, "y", (DType)t, 0, NULL), NULL, 0);
    for (int op = 0; op < EX_COUNT; op++) {
      RowFn *fn = row_op((ExprOp)op, (DType)t);
      if (!fn) continue;
      Expr *e = expr_info[op].arity == 1 ? ex_unary(c, (ExprOp)op, x) : ex_binary(c, (ExprOp)op, x, y);
      if (e->op != op) continue;   /* canonical form says it otherwise */
      CU_ASSERT_EQUAL(disagreements(fn, e, (DType)t), 0);
      count++;
    }
    for (int to = 0; to < DT_COUNT; to++)
      if (row_cast((DType)to, (DType)t)) {
        CU_ASSERT_EQUAL(disagreements(row_cast((DType)to, (DType)t), ex_cast(c, (DType)to, x), (DType)t), 0);
        count++;
      }
  }
  CU_ASSERT(count > 60);
}

/* ---- stages ---- */

enum { MAX_TENSORS = 4 };
typedef struct {
  TapeEnv env;
  ExprEnv scalar;
  int n;
  Tensor *tensor[MAX_TENSORS];
  Value value[MAX_TENSORS];
  Stage stage;
  int64_t at[MAX_RANK], dim;
  bool outside;
} Case;
#define CASE(member, pointer) ((Case *)(void *)((char *)(pointer) - offsetof(Case, member)))

static int64_t case_dim(TapeEnv *env, const Sym *s) { return CASE(env, env)->dim; }

static const Value *case_array(TapeEnv *env, const Tensor *t) {
  Case *k = CASE(env, env);
  for (int i = 0; i < k->n; i++)
    if (k->tensor[i] == t) return &k->value[i];
  return NULL;
}

static Scalar scalar_sym(ExprEnv *env, const Sym *s) {
  Case *k = CASE(scalar, env);
  for (int i = 0; i < k->stage.out->rank; i++)
    if (k->stage.axes[i] == s) return (Scalar){ .i = k->at[i] };
  return (Scalar){ .i = k->dim };
}

static Scalar scalar_at(ExprEnv *env, const Expr *e, const int64_t *index) {
  Case *k = CASE(scalar, env);
  const Value *v = case_array(&k->env, e->u.tensor);
  int64_t at = 0;
  for (int i = 0; i < v->rank; i++) {
    k->outside |= index[i] < 0 || index[i] >= v->dims[i];
    at = at * v->dims[i] + index[i];
  }
  if (k->outside || v->splat) at = 0;
  return scalar_load(v->dtype, (const char *)v->data + at * dtype_bytes(v->dtype));
}

/* tensors: "x f32 2,3; i i64 4", axes: "n=2 k=5" (a size of 0 is the symbol N with the value given); all elements small integers */
static Case *parse_case(const char *tensors, const char *axes, const char *body, int64_t dim) {
  Case *k = NEW(c, Case);
  Scope scope = scope_new(c);
  Sym *n = sym_new(c, SYM_DIM, "N", 1, 1 << 20);
  char name[8], type[8];
  int used;
  k->env = (TapeEnv){ .dim = case_dim, .array = case_array };
  k->scalar = (ExprEnv){ scalar_sym, scalar_at };
  k->dim = dim;
  map_set(&scope.syms, KEY(ctx_intern(c, "N")), n);
  for (const char *p = tensors; sscanf(p, " %7s %7s%n", name, type, &used) == 2; p += *p == ';') {
    Value *v = &k->value[k->n];
    Expr *shape[MAX_RANK];
    *v = (Value){ .dtype = dtype_from_name(type) };
    for (p += used; *p && *p != ';'; p++)
      if (*p >= '0' && *p <= '9') {
        int64_t size = strtol(p, (char **)&p, 10);
        shape[v->rank] = size ? ex_int(c, size) : n->self;
        v->dims[v->rank++] = size ? size : dim;
        p--;
      } else if (*p == 's') v->splat = true;
    k->tensor[k->n] = tensor_new(c, name, v->dtype, v->rank, shape);
    map_set(&scope.tensors, KEY(ctx_intern(c, name)), k->tensor[k->n++]);
    int64_t count = value_elements(v);
    char *data = ctx_alloc(c, (size_t)(count * dtype_bytes(v->dtype) + 16)), *unaligned = data + (draw() & 1);
    for (int64_t i = 0; i < count; i++) {
      char *at = unaligned + i * dtype_bytes(v->dtype);
      double value = (double)(draw() % (v->dtype == DT_I64 ? 4 : 9)) - (v->dtype == DT_I64 ? 0 : 4);
      if (dtype_is_float(v->dtype)) dtype_store_f(v->dtype, at, value);
      else dtype_store_i(v->dtype, at, v->dtype == DT_BOOL ? value > 0 : (int64_t)value);
    }
    v->data = unaligned;
  }
  Expr *out[MAX_RANK];
  int rank = 0;
  k->stage.axes = NEW_ARRAY(c, Sym *, MAX_RANK);
  for (const char *p = axes; *p; p += *p == ' ') {
    const char *equals = strchr(p, '=');
    int64_t size = strtol(equals + 1, NULL, 10);
    const char *axis = ctx_intern_n(c, p, (size_t)(equals - p));
    out[rank] = size ? ex_int(c, size) : n->self;
    k->stage.axes[rank] = sym_axis(c, SYM_AXIS, axis, out[rank]);
    map_set(&scope.syms, KEY(axis), k->stage.axes[rank++]);
    p = strchr(equals, ' ') ? strchr(equals, ' ') : equals + strlen(equals);
  }
  k->stage.body = expr_parse(c, &scope, body);
  k->stage.out = tensor_new(c, "out", (DType)k->stage.body->dtype, rank, out);
  return k;
}

static void check_case(const char *tensors, const char *axes, const char *body, int64_t dim) {
  Case *k = parse_case(tensors, axes, body, dim);
  Value out = { .dtype = k->stage.out->dtype, .rank = k->stage.out->rank };
  for (int i = 0; i < out.rank; i++)
    if (!ex_is_int(k->stage.out->shape[i], &out.dims[i])) out.dims[i] = dim;
  int64_t n = value_elements(&out);
  char *got = ctx_alloc(c, (size_t)(8 * n + 8)), want[8];
  Tape *t = tape_new(c, &k->stage, out.dims);
  void *pool = aligned_alloc(64, tape_pool_bytes(t) + 64);
  tape_run(t, &k->env, pool, got);
  free(pool);
  int bad = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t rest = i;
    for (int d = out.rank - 1; d >= 0; rest /= out.dims[d--]) k->at[d] = rest % out.dims[d];
    scalar_store(out.dtype, want, expr_eval(&k->scalar, k->stage.body));
    bad += !same_element(out.dtype, want, got + i * dtype_bytes(out.dtype));
  }
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT_FALSE(k->outside);
  if (bad) printf("\n  %d of %lld differ: %s", bad, (long long)n, body);
}

static void stages_mean_what_expressions_mean(void) {
  static const struct { const char *tensors, *axes, *body; } cases[] = {
    { "x f32 3,5", "i=3 j=5", "x[i,j] * f32(2) + f32(i)" },
    { "x f32 3,700", "i=3 j=700", "max(x[i,j], f32(0))" },
    { "x f32 700,3", "i=3 j=700", "x[j,i] - x[699 - j,2 - i]" },
    { "x f32 1,1", "i=1 j=1", "x[i,j]" },
    { "x f32", "i=4", "x[] + f32(i)" },
    { "x f32 7", "", "sum(k<7, x[k])" },
    { "x f32 4,6; y f32 6,5", "i=4 j=5", "sum(k<6, x[i,k] * y[k,j])" },
    { "x f32 4,6; y f32 5,6", "i=4 j=5", "sum(k<6, x[i,k] * y[j,k])" },
    { "x f64 300,6; y f64 6,300", "i=300 j=300", "sum(k<6, x[i,k] * y[k,j])" },
    { "x f32 2,3,8,9; w f32 4,3,3,3; b f32 4", "n=2 k=4 h=8 w=9",
      "sum(c<3, r<3, s<3, select(0 <= h + r - 1 & h + r - 1 < 8 & 0 <= w + s - 1 & w + s - 1 < 9, x[n,c,h + r - 1,w + s - 1], f32(0)) * w[k,c,r,s]) + b[k]" },
    { "x f32 2,6,7,7; w f32 6,2,3,3 s", "n=2 k=6 h=3 w=3", "sum(c<2, r<3, s<3, x[n,k / 2 * 2 + c,2 * h + r,2 * w + s] * w[k,c,r,s])" },
    { "x f32 0,20", "i=0 j=20", "x[N - 1 - i,j] * x[i,19]" },
    { "x f32 0,0", "i=0 j=0", "select(i < j, x[i,j], x[j,i])" },
    { "x f32 5,8; i i64 6", "a=6 b=8", "x[i[a],b]" },
    { "x f32 5,8; i i64 8", "a=5 b=8", "x[a,i[b]]" },
    { "x f32 4,8; i i64 3,7", "a=3 b=7", "select(i[a,b] < 2, x[i[a,b] + 2,b], x[i[a,b],7 - b])" },
    { "x f32 30; y f32 30", "i=60", "select(i < 30, x[i], y[i - 30])" },
    { "x f32 6,4", "i=2 j=3 k=4", "x[(i * 12 + j * 4 + k) / 4,(i * 12 + j * 4 + k) % 4]" },
    { "x f32 5,6", "i=5 j=6", "x[i,j] / sum(k<6, x[i,k] * x[i,k])" },
    { "x f32 5,6", "i=5 j=6", "exp(x[i,j] - max(k<6, x[i,k])) / sum(k<6, exp(x[i,k] - max(k<6, x[i,k])))" },
    { "x f32 5,6", "i=5", "sum(k<6, x[i,k] * sum(m<6, x[i,m]))" },
    { "x f32 5,6", "i=5 j=6", "sum(k=1..4, x[i,k])" },
    { "x f32 5,6", "j=6", "prod(i<5, x[i,j]) + min(i<5, x[i,j])" },
    { "x bool 5,6", "j=6", "any(i<5, x[i,j]) & !all(i<5, x[i,j])" },
    { "x i32 5,6", "i=5 j=6", "x[i,j] / i32(3) + x[i,j] % i32(-2) + tdiv(x[i,j], i32(2)) + (x[i,j] << i32(2))" },
    { "x f16 5,6; y bf16 5,6", "i=5 j=6", "f32(x[i,j]) + f32(y[i,j] * y[i,j])" },
    { "x u8 5,6", "i=5 j=6", "sum(k<6, i32(x[i,k]))" },
    { "x f32 2,100,1,1", "n=2 c=100 h=1 w=1", "x[n,c,h,w] * f32(c)" },
    { "x f32 100,2", "i=100 j=2", "x[i,1 - j]" },
    { "x f32 100,2", "i=100 j=4", "select(j % 2 == 0, x[i,j / 2], f32(0))" },
  };
  for (int i = 0; i < COUNT(cases); i++)
    for (int64_t dim = 5; dim <= 305; dim += 150) {
      if (dim > 5 && !strstr(cases[i].axes, "=0")) break;
      check_case(cases[i].tensors, cases[i].axes, cases[i].body, dim);
    }
}

static void data_out_of_range_is_an_error(void) {
  Case *k = parse_case("x f32 3,8; i i64 6", "a=6 b=8", "x[i[a] + 1,b]", 0);
  Diags *d = ctx_diags(c);
  void *volatile pool = NULL;
  float out[48];
  memcpy((char *)k->value[1].data, &(int64_t){ 2 }, 8);
  if (!setjmp(d->unwind)) {
    d->armed = true;
    Tape *t = tape_new(c, &k->stage, (int64_t[]){ 6, 8 });
    pool = aligned_alloc(64, tape_pool_bytes(t) + 64);
    tape_run(t, &k->env, pool, out);
    CU_FAIL("an index of 3 in a dimension of 3 was accepted");
  }
  CU_ASSERT_EQUAL(d->list.n, 1);
  CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0505);
  CU_ASSERT(d->list.n == 1 && strstr(d->list.v[0].text, "index 3 of dimension 0 of 'x', which has 3"));
  free(pool);
}

/* ---- graphs ---- */

static Graph *parse_graph(const char *text) {
  Graph *g = graph_parse(c, text);
  graph_simplify(c, g);
  return g;
}

static void expect_floats(const Value *v, const float *want, int n) {
  CU_ASSERT_EQUAL_FATAL(value_elements(v), n);
  for (int i = 0; i < n; i++) CU_ASSERT_DOUBLE_EQUAL(((const float *)v->data)[v->splat ? 0 : i], want[i], 1e-6);
}

/* The same graph again and again, with other sizes, and outputs that are inputs or shared. */
static void graphs_run_for_all_sizes(void) {
  Graph *g = parse_graph("graph g(%x: f32[N,2]; N) {\n %a = Relu(%x)\n %s = ReduceSum<keepdims=0>(%a)\n return %a, %s, %x\n}");
  Interp *in = interp_new(c);
  for (int n = 1; n < 400; n += 131) {
    float x[800], sum = 0;
    for (int i = 0; i < 2 * n; i++) x[i] = (float)(i % 7 - 3), sum += x[i] > 0 ? x[i] : 0;
    Value v = { .dtype = DT_F32, .rank = 2, .dims = { n, 2 }, .data = x }, out[3];
    interp_graph(in, g, &v, out);
    CU_ASSERT_EQUAL(out[0].dims[0], n);
    expect_floats(&out[1], &sum, 1);
    expect_floats(&out[2], x, 2 * n);
  }
}

static void regions_run(void) {
  float x[] = { 1, 2, 3, 4, 5, 6 }, zero[] = { 0, 0 };
  uint8_t yes = 1, no = 0;
  Value out[2], v[2] = { { .dtype = DT_F32, .rank = 2, .dims = { 3, 2 }, .data = x }, { .dtype = DT_BOOL, .data = &yes } };
  Graph *g = parse_graph("graph g(%x: f32[3,2], %c: bool[]) {\n"
    " %y = If<then_branch=graph t() {\n %a = Neg(%x)\n return %a\n}, else_branch=graph e() {\n %a = Exp(%x)\n %b = Log(%a)\n return %b\n}>(%c)\n return %y\n}");
  interp_graph(interp_new(c), g, v, out);
  expect_floats(&out[0], (float[]){ -1, -2, -3, -4, -5, -6 }, 6);
  v[1].data = &no;
  interp_graph(interp_new(c), g, v, out);
  expect_floats(&out[0], x, 6);
  g = parse_graph("graph g(%x: f32[3,2], %h: f32[2]) {\n"
    " %y, %z = Scan<num_scan_inputs=1, scan_input_directions=[1], body=graph b(%s: f32[2], %e: f32[2]) {\n"
    " %a = Add(%s, %e)\n %m = ReduceMax<keepdims=0>(%a)\n return %a, %m\n}>(%h, %x)\n return %y, %z\n}");
  v[1] = (Value){ .dtype = DT_F32, .rank = 1, .dims = { 2 }, .data = zero };
  interp_graph(interp_new(c), g, v, out);
  expect_floats(&out[0], (float[]){ 9, 12 }, 2);
  expect_floats(&out[1], (float[]){ 6, 10, 12 }, 3);
  g = parse_graph("graph g(%n: i64[], %h: f32[2]) {\n %go: bool[] = const {1}\n"
    " %y, %z = Loop<body=graph b(%i: i64[], %c: bool[], %s: f32[2]) {\n %a = Add(%s, %s)\n %b = Identity(%c)\n return %b, %a, %s\n}>(%n, %go, %h)\n"
    " return %y, %z\n}");
  v[0] = (Value){ .dtype = DT_I64, .data = &(int64_t){ 3 } };
  v[1].data = (float[]){ 1, -1 };
  interp_graph(interp_new(c), g, v, out);
  expect_floats(&out[0], (float[]){ 8, -8 }, 2);
  expect_floats(&out[1], (float[]){ 1, -1, 2, -2, 4, -4 }, 6);
}

static void inputs_that_do_not_fit_are_errors(void) {
  static const struct { DType dtype; int rank; int64_t dims[2]; const char *text; } bad[] = {
    { DT_F64, 2, { 3, 3 }, "input 'x' is f64[3,3]; the model wants f32[N,N]" },
    { DT_F32, 1, { 3 }, "input 'x' is f32[3]; the model wants f32[N,N]" },
    { DT_F32, 2, { 3, 4 }, "input 'x' is f32[3,4]; the model wants f32[N,N]" },
  };
  Graph *g = parse_graph("graph g(%x: f32[N,N]; N) {\n %y = Relu(%x)\n return %y\n}");
  Diags *d = ctx_diags(c);
  static double data[16];
  for (volatile int i = 0; i < COUNT(bad); i++) {
    Value v = { .dtype = bad[i].dtype, .rank = bad[i].rank, .dims = { bad[i].dims[0], bad[i].dims[1] }, .data = data }, out;
    if (!setjmp(d->unwind)) {
      d->armed = true;
      interp_graph(interp_new(c), g, &v, &out);
      CU_FAIL("accepted");
    }
    CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0504);
    CU_ASSERT_STRING_EQUAL(d->list.v[0].text, bad[i].text);
    d->list.n = 0;
  }
  d->armed = false;
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite_with_setup_and_teardown("interp", NULL, NULL, begin, end);
  CU_add_test(s, "rows mean what scalars mean", rows_mean_what_scalars_mean);
  CU_add_test(s, "stages mean what expressions mean", stages_mean_what_expressions_mean);
  CU_add_test(s, "data out of range is an error", data_out_of_range_is_an_error);
  CU_add_test(s, "graphs run for all sizes", graphs_run_for_all_sizes);
  CU_add_test(s, "regions run", regions_run);
  CU_add_test(s, "inputs that do not fit are errors", inputs_that_do_not_fit_are_errors);
  CU_basic_run_tests();
  int failures = (int)CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures != 0;
}
