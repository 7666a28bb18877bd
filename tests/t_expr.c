/* t_expr.c - expressions: canonical form, proofs, rewrite rows proved by enumeration, meaning, text.
 *
 * Three checks know nothing of the simplifier: the rows are evaluated on both sides over small and special values;
 * random index expressions are compared with values computed alongside; random data expressions with the same tree left
 * as it stands. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>
#include <stdlib.h>

#include "../ir/diag.h"
#include "../ir/expr_impl.h"
#include "../ir/graph.h"
#include "../ir/lex.h"
#include "../ir/parse_impl.h"

static Ctx *c;
static Scope scope;

static Tensor *tensor(const char *name, DType t, int rank, const int64_t *dims) {
  Tensor *x = NEW(c, Tensor);
  x->name = ctx_intern(c, name);
  x->dtype = t;
  x->rank = rank;
  x->shape = NEW_ARRAY(c, Expr *, rank);
  for (int i = 0; i < rank; i++) x->shape[i] = ex_int(c, dims[i]);
  map_set(&scope.tensors, KEY(x->name), x);
  return x;
}

static Sym *symbol(Sym *s) {
  map_set(&scope.syms, KEY(s->name), s);
  return s;
}

/* Dimensions N H W >= 1, M a multiple of 16; axes n<N h<H w<W, a<100 b<16 k<4, t < (N+15)/16, u < min(16, N - 16t). */
static void begin(void) {
  c = ctx_new();
  scope = scope_new(c);
  const char *dims[] = {"N", "H", "W", "M"};
  const char *axes[][2] = {{"n", "N"}, {"h", "H"}, {"w", "W"}, {"a", "100"}, {"b", "16"}, {"k", "4"},
    {"t", "(N + 15)/16"}, {"u", "min(16, N - t*16)"}, {"v", "16"}, {"q", "N/4"}};
  for (int i = 0; i < 4; i++) symbol(sym_new(c, SYM_DIM, dims[i], 1, (int64_t)1 << 40));
  Sym *m = map_get(&scope.syms, KEY(ctx_intern(c, "M")));
  m->multiple = 16;
  for (int i = 0; i < COUNT(axes); i++) symbol(sym_axis(c, SYM_AXIS, axes[i][0], expr_parse(c, &scope, axes[i][1])));
  const char *names[] = {"f", "d", "i", "l", "y", "p", "e"};
  DType types[] = {DT_F32, DT_F64, DT_I32, DT_I64, DT_U8, DT_BOOL, DT_F16};
  for (int i = 0; i < 7; i++) tensor(names[i], types[i], 1, (int64_t[]){100});
  tensor("s", DT_F32, 0, NULL);
  tensor("m", DT_F32, 2, (int64_t[]){8, 9});
}
static void end(void) { ctx_free(c); }

static Expr *parse(const char *text) { return expr_parse(c, &scope, text); }

static void check_idempotent(const Expr *e, void *user) {
  if (e->n && ex_make(c, e, e->a) != e) {
    printf("\n  %s is rebuilt as %s", expr_text(c, e), expr_text(c, ex_make(c, e, e->a)));
    *(int *)user += 1;
  }
}

static int mistakes(const Expr *e) {
  int n = 0;
  expr_visit(e, check_idempotent, &n);
  return n;
}

static void expect_text(const char *text, const char *want) {
  Expr *e = parse(text);
  const char *got = expr_text(c, e);
  if (strcmp(got, want)) printf("\n  %s\n    gives %s\n    not   %s", text, got, want);
  CU_ASSERT(!strcmp(got, want));
  CU_ASSERT(parse(got) == e);
  CU_ASSERT(mistakes(e) == 0);
}

/* ---- canonical form ---- */
static const char *const canonical[][2] = {
  {"n - n", "0"}, {"3 + n*2 - n", "n + 3"}, {"h + n", "n + h"}, {"2*(n + h) - 2*h", "n*2"}, {"-n - h", "-n - h"},
  {"3 - n", "3 - n"},
  {"(n + 1)*N - n*N", "N"}, {"(N + 1)*(H + 1)*n", "n*(N + 1)*(H + 1)"}, {"(2*N + 2)*H", "H*(N + 1)*2"},
  {"(N + H)*W/W", "N + H"},
  {"(a*16 + b)/16", "a"}, {"(a*16 + b)%16", "b"}, {"(a*16 + b)/64", "a/4"}, {"(a*16 + b)%64", "b + a%4*16"},
  {"(16*a + b)/4", "a*4 + b/4"},
  {"(a*6 + b*2)/2", "a*3 + b"}, {"(a - 1)/4", "(a + 3)/4 - 1"}, {"(a*5)/4", "a + a/4"}, {"(a*6)/4", "a + a/2"},
  {"(a*6 + 1)%4", "a%2*2 + 1"},
  {"(n*W + w)/W", "n"}, {"(n*W + w)%W", "w"}, {"(n*H*W + h*W + w)/(H*W)", "n"}, {"(n*H*W + h*W + w)/W", "h + H*n"},
  {"(n*H*W + h*W + w)/W%H", "h"},
  {"(n*H*W + h*W + w)%(H*W)", "w + W*h"}, {"(N*W + w)/W", "N"}, {"(n*W - 1)/W", "n - 1"}, {"(n*W - 1)%W", "W - 1"},
  {"N*W%N", "0"}, {"(N + 1)*2/(N + 1)", "2"},
  {"((n*((H - 1)/2 + 1) + k*0)*W + w)/W/((H + 1)/2)", "n"},
  {"N*(n/N) + n%N", "n"}, {"4*(a/4) + a%4", "a"}, {"h*4 + 8*(a/4) + 2*(a%4)", "h*4 + a*2"}, {"4*(a/4%2) + a%4", "a%8"},
  {"l[0]/3*3 + l[0]%3", "l[0]"},
  {"H*(w/H) + w%H", "w"}, {"a/4/8", "a/32"}, {"(a/4 + 3)/8", "(a + 12)/32"}, {"a%32%8", "a%8"},
  {"(a%32 + 3)%8", "(a + 3)%8"}, {"a%32/8", "a/8%4"}, {"b/16", "0"},
  {"M%16", "0"}, {"M/16*16", "M"}, {"(M + b)/16", "M/16"}, {"M/4%4", "0"}, {"(b - 20)/16", "(b + 12)/16 - 2"},
  {"(b - 16)/16", "-1"}, {"(b + 32)%16", "b"},
  {"n/(N - N)", "0"}, {"n%0", "0"}, {"n/1", "n"}, {"n/-1", "-n"}, {"(n - N)/N", "-1"}, {"N/N", "1"},
  {"min(n, N)", "n"}, {"max(N, 1)", "N"}, {"min(n + 3, h + 3)", "min(n, h) + 3"}, {"min(max(a, 0), 99)", "a"},
  {"max(min(a, 10), 20)", "20"}, {"min(min(a, 50), 20)", "min(a, 20)"},
  {"a + 3 < b + 5", "a < b + 2"}, {"2*a < 7", "a < 4"}, {"2*a <= 6", "a < 4"}, {"a - 1 >= 0", "1 <= a"},
  {"-a < -3", "4 <= a"}, {"6*a == 9", "false"}, {"2*a != 4", "a != 2"},
  {"b == a", "a == b"}, {"a - b == 0", "a == b"}, {"M == 8", "false"}, {"n < h", "n < h"}, {"N - n > 5", "n + 5 < N"},
  {"a*16 + b < 64", "a < 4"}, {"64 <= a*16 + b", "4 <= a"}, {"a*16 + b < 70", "a*16 + b < 70"}, {"a*16 - b < 33", "a < 3"},
  {"a*64 + h*16 + b < 48", "h + a*4 < 3"},
  {"!(a < b)", "b <= a"}, {"!(a == b)", "a != b"}, {"a < b & a < b", "a < b"}, {"a < b & !(a < b)", "false"},
  {"p[0] & !p[0]", "false"}, {"p[0] | !p[0]", "true"},
  {"a < 5 & a < 7", "a < 5"}, {"a < 5 | a < 7", "a < 7"}, {"a < 5 & 7 < a", "false"}, {"a < 7 | 5 <= a", "true"},
  {"a < b & a < b + 2 & p[0]", "a < b & p[0]"}, {"a < 5 | 7 < a", "a < 5 | 8 <= a"}, {"a < 9 & h < 2 & a < 7", "a < 7 & h < 2"},
  {"select(n < N, f[n], 0)", "f[n]"}, {"select(p[0], a, a)", "a"}, {"select(!p[0], a, b)", "select(p[0], b, a)"},
  {"select(p[0], true, false)", "p[0]"},
  {"select(a < 5, p[a], false)", "select(a < 5, p[a], false)"}, {"select(a < 5, b < 3, false)", "a < 5 & b < 3"},
  {"select(p[0], select(p[1], 1, 2), 2)", "select(p[0], select(p[1], 1, 2), 2)"},
  {"l[1]*2 + l[1]", "l[1]*3"}, {"(l[0] + 1)*(l[1] + 1)", "(l[0] + 1)*(l[1] + 1)"},
  {"(i[0] - i[1])*4", "(i[0] - i[1])*4"}, {"l[0] < l[0] + 1", "l[0] < l[0] + 1"},
  {"i64(y[0])/256", "0"}, {"i64(y[0]) < 256", "true"}, {"i64(i32(a))", "a"}, {"i32(i64(i[0]))", "i[0]"},
  {"i8(i32(l[0]))", "i8(l[0])"}, {"f64(f[0])", "f64(f[0])"},
  {"f32(f64(f[0]))", "f[0]"}, {"f64(f32(d[0]))", "f64(f32(d[0]))"}, {"i32(f32(y[0]))", "i32(y[0])"}, {"u8(f64(i[0]))", "u8(f64(i[0]))"},
  {"f32(f16(f[0]))", "f32(f16(f[0]))"}, {"i64(p[0]) == 0", "!p[0]"},
  {"f[0]*1", "f[0]"}, {"f[0] + 0", "f[0] + 0.0f"}, {"f[0] + -0.0", "f[0]"}, {"f[0] - 0", "f[0]"},
  {"f[0]*0", "f[0]*0.0f"}, {"f[0]/8", "f[0]*0.125f"}, {"f[0]/3", "f[0]/3.0f"},
  {"--f[0]", "f[0]"}, {"f[0] + -f[1]", "f[0] - f[1]"}, {"f[0] - f[0]", "f[0] - f[0]"}, {"f[0]*3*2", "f[0]*3.0f*2.0f"},
  {"pow(f[0], 2)", "f[0]*f[0]"}, {"max(f[0], f[0])", "f[0]"},
  {"tdiv(a, 4)", "a/4"}, {"tdiv(l[0], 4)", "tdiv(l[0], 4)"}, {"tmod(y[0], y[1])", "y[0]%y[1]"}, {"abs(a)", "a"},
  {"abs(-l[0])", "abs(l[0])"},
  {"sum(r<4, 3)", "12"}, {"sum(r<1, f[r])", "f[0]"}, {"max(r<4, f[0])", "f[0]"}, {"sum(r<0, f[r])", "0.0f"},
  {"sum(r<N, i[0])", "i[0]*i32(N)"}, {"sum(rr<4, j<1, f[rr + j])", "sum(rr<4, f[rr])"},
};

static void test_canonical(void) {
  for (int i = 0; i < COUNT(canonical); i++) expect_text(canonical[i][0], canonical[i][1]);
}

/* ---- proofs ---- */
static const char *const proved[] = {
  "n < N", "n <= N - 1", "n + 3 < N + 3", "0 <= n", "n*2 + 1 < 2*N", "h*W + w < H*W", "n*H*W + h*W + w < N*H*W",
  "a*W + w < 100*W", "N <= N*H", "N*H <= N*H*W", "N*W >= W",
  "q*4 + k < N", "t*16 + u < N", "u < 16", "16*((N + 15)/16) >= N", "N/16*16 <= N", "(N + 15)/16*16 < N + 16",
  "t*16 + v < (N + 15)/16*16", "n%W < W", "n/W*W <= n",
  "(n + h)%H < H", "min(n, h) < N", "max(n, 0) < N", "max(n, h) < N + H", "min(n + 5, N - 1) < N",
  "select(h < w, n, 0) < N", "n < max(N, H)", "min(N, 16)*4 <= 64",
  "(H - 1)/2 + 1 <= H", "n*((H - 1)/2 + 1) + (h/2) < N*((H + 1)/2)", "N*(H + 1) == N*H + N",
  "(N + 1)*(H + 1) == N*H + N + H + 1", "N != N + 1", "N + H > H", "min(max(l[0], 0), N - 1) < N",
  "min(max(l[0], 0), N - 1) >= 0", "n*N + n < N*N", "n < N & h < H", "M/16*16 == M", "w - n < W", "W - 1 - w >= 0",
};
static const char *const unproved[] = {
  "n < N - 1", "n < H", "h*W + w < H*W - 1", "t*16 + v < N", "N/16*16 >= N", "q*4 + k + 1 < N", "n/W*W >= n",
  "max(n, h) < N", "min(n, h) >= 1", "l[0] < l[0] + 1", "N > 1", "w - n > 0",
  "l[0] + 1 > l[1]", "min(l[0], N - 1) >= 0", "i[0] + 1 > i[0]", "select(h < w, n, h) < N",
};

static void test_proofs(void) {
  for (int i = 0; i < COUNT(proved); i++) {
    Expr *e = parse(proved[i]);
    if (!expr_proves(c, e)) printf("\n  not proved: %s (%s)", proved[i], expr_text(c, e));
    CU_ASSERT(expr_proves(c, e));
  }
  for (int i = 0; i < COUNT(unproved); i++) {
    if (expr_proves(c, parse(unproved[i]))) printf("\n  proved though it may be false: %s", unproved[i]);
    CU_ASSERT(!expr_proves(c, parse(unproved[i])));
  }
}

static void test_ranges(void) {
  static const struct { const char *text; int64_t min, max, multiple; } cases[] = {
    {"a*4 + b - 3", -3, 408, 1}, {"M*2", 2, (int64_t)1 << 41, 32}, {"a%7*3", 0, 18, 3}, {"i64(y[0])*2", 0, 510, 2},
    {"l[0] + 1", INT64_MIN, INT64_MAX, 1}, {"max(l[0], 5)", 5, INT64_MAX, 1},
    {"min(a, N)", 0, 99, 1}, {"abs(b - 20)", 5, 20, 1}, {"a & 7", 0, 7, 1}, {"a | b", 0, 127, 1},
    {"(b - 8)/4", -2, 1, 1}, {"tdiv(b - 8, 4)", -2, 1, 1}, {"tmod(l[0], 5)", -4, 4, 1},
    {"select(p[0], 4, 12)", 4, 12, 4}, {"9223372036854775807*N", 9223372036854775807, INT64_MAX, 1},
    {"min(r<4, b + r)", 0, 18, 1},
  };
  for (int i = 0; i < COUNT(cases); i++) {
    Range r = expr_range(c, parse(cases[i].text));
    bool ok = r.min == cases[i].min && r.max == cases[i].max && (r.multiple == cases[i].multiple || (i == 14));
    if (!ok)
      printf("\n  range of %s is [%lld, %lld] * %lld", cases[i].text, (long long)r.min, (long long)r.max,
             (long long)r.multiple);
    CU_ASSERT(ok);
  }
}

/* ---- the rows ---- */
enum { MOST_VALUES = 40 };
typedef struct { DType t; int n; Expr *v[MOST_VALUES]; } Values;

static Values values_of(DType t) {
  static const double special[] = {0, -0.0, 1, -1, 0.5, 2, -2.5, 3.5, 1e30, -1e-40, 16777217, INFINITY, -INFINITY, NAN,
                                   0.1, 7};
  Values s = {.t = t};
  if (t == DT_BOOL) {
    s.v[s.n++] = ex_bool(c, false), s.v[s.n++] = ex_bool(c, true);
  } else if (dtype_is_float(t)) {
    for (int i = 0; i < COUNT(special); i++) s.v[s.n++] = ex_const(c, t, special[i]);
  } else {
    for (int i = -8; i <= 8; i++) s.v[s.n++] = ex_const_i(c, t, i);
    for (int i = 0; i < 4; i++) s.v[s.n++] = ex_const_i(c, t, 125 + i);
  }
  return s;
}

/* The pattern as an expression of type t, built by the constructors; compared values have type `inner`. */
static Expr *build(const Expr *p, const Binding *b, DType t, DType inner) {
  if (p->op == EX_SYM) return b->var[p->u.sym->id - (1 << 30)];
  if (p->op == EX_CONST)
    return p->dtype == DT_BOOL ? ex_bool(c, p->u.i) : p->dtype == DT_F64 ? ex_const(c, t, p->u.f)
        : ex_const_i(c, t, p->u.i);
  Expr *a[3];
  bool compares = expr_info[p->op].type == 'b';
  for (int i = 0; i < p->n; i++)
    a[i] = build(p->a[i], b, p->op == EX_SELECT && i == 0 ? DT_BOOL : compares ? inner : t, inner);
  return ex_make(c, &(Expr){.op = p->op, .dtype = (uint8_t)t, .n = p->n}, a);
}

/* The type that each variable must have. */
static void types_of(const Expr *p, DType t, DType inner, DType *type) {
  if (p->op == EX_SYM) type[p->u.sym->id - (1 << 30)] = t;
  for (int i = 0; i < p->n; i++) {
    DType want = p->op == EX_CAST || (p->op == EX_SELECT && i == 0) ? DT_BOOL : expr_info[p->op].type == 'b' ? inner
        : t;
    types_of(p->a[i], want, inner, type);
  }
}

static bool contains_compare(const Expr *p, bool root) {
  if (!root && p->op < EX_COUNT && expr_info[p->op].type == 'b') return true;
  for (int i = 0; i < p->n; i++)
    if (contains_compare(p->a[i], false)) return true;
  return false;
}

/* Both sides over all values of the variables, or 4000 random choices where there are more. The number of times the
 * condition held. */
static int prove_row(const Rule *r, DType t, DType inner, int *wrong) {
  DType type[RULE_VARS], root = expr_info[r->pattern->op].type == 'b' ? DT_BOOL : t;
  for (int i = 0; i < RULE_VARS; i++) type[i] = DT_NONE;
  types_of(r->pattern, t, inner, type);
  Values values[RULE_VARS];
  long total = 1;
  for (int i = 0; i < RULE_VARS; i++)
    if (type[i] != DT_NONE) values[i] = values_of(type[i]), total *= values[i].n;
  int held = 0;
  unsigned long long seed = 1;
  for (long k = 0; k < MIN(total, 4000); k++) {
    Binding b = {{NULL}};
    long number = k;
    if (total > 4000) number = (long)((seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33);
    for (int i = 0; i < RULE_VARS; i++)
      if (type[i] != DT_NONE) b.var[i] = values[i].v[number % values[i].n], number /= values[i].n;
    if (!rule_condition(c, r, &b)) continue;
    held++;
    Expr *left = build(r->pattern, &b, t, inner), *right = rule_build(c, r->result, &b, root);
    if (left == right) continue;
    if (!(*wrong)++) {
      printf("\n  %s -> %s is wrong for %s:", r->row->pattern, r->row->result, dtype_info[t].name);
      for (int i = 0; i < RULE_VARS; i++)
        if (b.var[i]) printf(" %s", expr_text(c, b.var[i]));
      printf(": %s, not %s", expr_text(c, right), expr_text(c, left));
    }
  }
  return held;
}

static void test_rows(void) {
  for (int i = 0; i < rule_count; i++) {
    const Rule *r = rule_at(c, i);
    int held = 0, wrong = 0;
    for (const char *k = r->row->types; *k; k++) {
      static const DType some[4][3] = {{DT_BOOL, DT_BOOL, DT_BOOL}, {DT_I8, DT_I32, DT_I64}, {DT_U8, DT_U32, DT_U64},
                                       {DT_F32, DT_F16, DT_F64}};
      const DType *types = some[*k == 'b' ? 0 : *k == 'i' ? 1 : *k == 'u' ? 2 : 3];
      for (int j = 0; j < (*k == 'b' ? 1 : 3); j++) {
        if (expr_info[r->pattern->op].type == 'b') held += prove_row(r, types[j], types[j], &wrong);
        else if (!contains_compare(r->pattern, true)) held += prove_row(r, types[j], DT_NONE, &wrong);
        else for (int m = 0; m < 4; m++) held += prove_row(r, types[j], some[m][0], &wrong);
      }
    }
    if (!held) printf("\n  %s: the condition never holds", r->row->pattern);
    CU_ASSERT(wrong == 0 && held > 0);
  }
}

/* Every row does something: its pattern, made of loads, becomes its result. */
static void test_rows_fire(void) {
  for (int i = 0; i < rule_count; i++) {
    const Rule *r = rule_at(c, i);
    bool fired = false, met = false;
    for (int variant = 0; variant < 6; variant++) {
      char kind = r->row->types[strlen(r->row->types) - 1];
      DType t = kind == 'b' ? DT_BOOL : kind == 'i' ? DT_I32 : kind == 'u' ? DT_U32 : DT_F32,
          inner = expr_info[r->pattern->op].type == 'b' ? t : DT_I32, type[RULE_VARS] = {0};
      types_of(r->pattern, t, inner, type);
      Binding b = {{NULL}};
      for (int v = 0; v < RULE_VARS; v++) {
        Tensor *x = tensor(ctx_printf(c, "var%d", v), type[v], 0, NULL),
            *small = tensor(ctx_printf(c, "small%d", v), DT_U8, 0, NULL);
        b.var[v] = v >= 4 ? ex_const(c, type[v], variant == 5 ? 8 - v : 2 + v % 4 * (variant + 1))
            : ex_load(c, x, NULL, 0);
        if (v < 4 && dtype_is_int(type[v]) && variant % 3) b.var[v] = ex_cast(c, type[v], ex_load(c, small, NULL, 0));
        if (v < 4 && type[v] == DT_I32 && variant % 3 == 2) b.var[v] = ex_unary(c, EX_NEG, b.var[v]);
        if (v < 4 && type[v] == DT_BOOL && variant % 3)
          b.var[v] = ex_lt(c, ex_int(c, v), symbol(sym_new(c, SYM_DIM, "z", 0, 100))->self);
        if (v >= 4 && variant == 4) b.var[v] = ex_const_i(c, type[v], 32 + v);
      }
      if (!rule_condition(c, r, &b)) continue;
      met = true;
      Expr *made = build(r->pattern, &b, t, inner), *want = rule_build(c, r->result, &b,
                                                                       expr_info[r->pattern->op].type == 'b' ? DT_BOOL
                                                                           : t);
      fired |= made == want;
    }
    if (!fired)
      printf("\n  %s -> %s: %s", r->row->pattern, r->row->result, met ? "gives something else"
             : "the condition was not met");
    CU_ASSERT(fired);
  }
}

/* ---- random index expressions, against values computed alongside ---- */
enum { ASSIGNMENTS = 16, POOL = 50 };
typedef struct { Expr *e; int64_t v[ASSIGNMENTS]; } Valued;
typedef struct {
  unsigned long long seed;
  Valued pool[POOL];
  int n;
  Sym *sym[8];
  int64_t value[8][ASSIGNMENTS];
  int nsyms, at;
} Fuzz;
static Fuzz *fuzz;

static unsigned rnd(unsigned below) {
  fuzz->seed = fuzz->seed * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(fuzz->seed >> 33) % below;
}

static Scalar fuzz_sym(ExprEnv *env, const Sym *s) {
  int i = 0;
  while (fuzz->sym[i] != s) i++;
  return (Scalar){.i = fuzz->value[i][fuzz->at]};
}

static void fuzz_symbols(void) {
  for (int i = 0; i < 3; i++) {
    fuzz->sym[i] = symbol(sym_new(c, SYM_DIM, (char[]){(char)('A' + i), 0}, 1, rnd(2) ? 20 : (int64_t)1 << 40));
    for (int k = 0; k < ASSIGNMENTS; k++) fuzz->value[i][k] = 1 + rnd(12);
  }
  for (int i = 3; i < 7; i++) {
    int dim = (int)rnd(3), by = 1 + (int)rnd(6), kind = (int)rnd(4);
    Expr *d = fuzz->sym[dim]->self, *extent = kind == 0 ? ex_int(c, by * 3) : kind == 1 ? d : kind == 2
        ? ex_ceil_div(c, d, by) : ex_mul(c, d, ex_int(c, by));
    fuzz->sym[i] = symbol(sym_axis(c, SYM_AXIS, (char[]){(char)('p' + i), 0}, extent));
    for (int k = 0; k < ASSIGNMENTS; k++) {
      int64_t x = fuzz->value[dim][k];
      fuzz->value[i][k] = rnd((unsigned)(kind == 0 ? by * 3 : kind == 1 ? x : kind == 2 ? (x + by - 1) / by : x * by));
    }
  }
  fuzz->nsyms = 7;
}

static void fuzz_add(Valued v) {
  if (v.e->dtype != DT_I64 || v.e->size > 40) return;
  for (int k = 0; k < ASSIGNMENTS; k++)
    if (v.v[k] > 100000 || v.v[k] < -100000) return;
  if (fuzz->n < POOL) fuzz->pool[fuzz->n++] = v;
  else fuzz->pool[rnd(POOL)] = v;
}

static int64_t plain(ExprOp op, int64_t x, int64_t y) {
  switch (op) {
  case EX_ADD: return x + y;
  case EX_SUB: return x - y;
  case EX_MUL: return x * y;
  case EX_DIV: return y ? floor_div(x, y) : 0;
  case EX_MOD: return y ? floor_mod(x, y) : 0;
  case EX_MIN: return MIN(x, y);
  case EX_MAX: return MAX(x, y);
  case EX_LT: return x < y;
  case EX_LE: return x <= y;
  case EX_EQ: return x == y;
  default: return x != y;
  }
}

static bool fuzz_check(const Valued *v) {
  ExprEnv env = {fuzz_sym, NULL};
  Range r = expr_range(c, v->e);
  bool ok = true;
  for (int k = 0; k < ASSIGNMENTS && ok; k++) {
    fuzz->at = k;
    int64_t got = expr_eval(&env, v->e).i;
    ok = got == v->v[k] && got >= r.min && got <= r.max && (r.multiple ? got % r.multiple == 0 : got == 0);
    if (!ok)
      printf("\n  %s is %lld, must be %lld; range [%lld, %lld] * %lld", expr_text(c, v->e), (long long)got,
             (long long)v->v[k], (long long)r.min, (long long)r.max, (long long)r.multiple);
  }
  const char *text = expr_text(c, v->e);
  if (parse(text) != v->e) ok = false, printf("\n  %s is read back as %s", text, expr_text(c, parse(text)));
  return ok && mistakes(v->e) == 0;
}

static bool fuzz_round(void) {
  static const ExprOp ops[] = {EX_ADD, EX_ADD, EX_SUB, EX_MUL, EX_MUL, EX_DIV, EX_DIV, EX_MOD, EX_MOD, EX_MIN, EX_MAX,
                               EX_LT, EX_LE, EX_EQ, EX_NE};
  fuzz_symbols();
  for (int i = 0; i < 7; i++) {
    Valued v = {fuzz->sym[i]->self, {0}};
    memcpy(v.v, fuzz->value[i], sizeof v.v);
    fuzz_add(v);
  }
  static const int constants[] = {0, 1, -1, 2, 3, 4, 16, -3, 12, 5};
  for (int i = 0; i < 6; i++) {
    int x = constants[rnd(10)];
    Valued v = {ex_int(c, x), {0}};
    for (int k = 0; k < ASSIGNMENTS; k++) v.v[k] = x;
    fuzz_add(v);
  }
  Valued last = {ex_bool(c, true), {0}};
  for (int k = 0; k < ASSIGNMENTS; k++) last.v[k] = 1;
  for (int step = 0; step < 120; step++) {
    const Valued x = fuzz->pool[rnd((unsigned)fuzz->n)], y = fuzz->pool[rnd((unsigned)fuzz->n)],
        z = fuzz->pool[rnd((unsigned)fuzz->n)];
    ExprOp op = ops[rnd(COUNT(ops))];
    Valued v = {ex_binary(c, op, x.e, y.e), {0}};
    for (int k = 0; k < ASSIGNMENTS; k++) v.v[k] = plain(op, x.v[k], y.v[k]);
    if (!fuzz_check(&v)) return false;
    fuzz_add(v);
    if (v.e->dtype != DT_BOOL) continue;
    Valued both = {ex_binary(c, step & 1 ? EX_AND : EX_OR, last.e, v.e), {0}};
    for (int k = 0; k < ASSIGNMENTS; k++) both.v[k] = step & 1 ? last.v[k] && v.v[k] : last.v[k] || v.v[k];
    if (!fuzz_check(&both)) return false;
    last = both.e->size < 40 && !ex_is_const(both.e) ? both : v;
    Valued s = {ex_select(c, v.e, x.e, z.e), {0}};
    for (int k = 0; k < ASSIGNMENTS; k++) s.v[k] = v.v[k] ? x.v[k] : z.v[k];
    if (!fuzz_check(&s)) return false;
    fuzz_add(s);
  }
  return true;
}

static void test_random_indices(void) {
  for (int round = 0; round < 60; round++) {
    end();
    begin();
    fuzz = calloc(1, sizeof *fuzz);
    fuzz->seed = (unsigned long long)round * 7919 + 3;
    for (int i = 0; i < 4; i++) rnd(2);
    bool ok = fuzz_round();
    free(fuzz);
    if (!ok) printf(" (round %d)", round);
    CU_ASSERT_FATAL(ok);
  }
}

/* ---- random data expressions, against the same tree left as it stands ---- */
typedef struct { Expr *made, *plain; } Pair;

static Scalar data_load(ExprEnv *env, const Expr *load, const int64_t *index) {
  static const int64_t ints[] = {0, 1, -1, 2, 3, 100, 127, -128, 255, 65536, INT32_MAX, INT32_MIN, INT64_MAX,
                                 INT64_MIN, 7, -9};
  static const double floats[] = {0, -0.0, 1, -1.5, 3, 1e30, 1e-30, INFINITY, -INFINITY, NAN, 0.1, 65504, -7, 2.5, 3.5,
                                  1e300};
  uint64_t h = mix64((uint64_t)index[0] * 31 + (uint64_t)fuzz->at * 977 + load->u.tensor->dtype);
  DType t = (DType)load->dtype;
  if (dtype_is_float(t)) return (Scalar){.f = scalar_round(t, floats[h % 16])};
  return (Scalar){.i = scalar_wrap(t, ints[h % 16])};
}

static Pair data_node(ExprOp op, DType t, const Pair *x, int n) {
  Expr *a[3], *b[3];
  for (int i = 0; i < n; i++) a[i] = x[i].made, b[i] = x[i].plain;
  Expr like = {.op = op, .dtype = (uint8_t)t, .n = (uint16_t)n};
  return (Pair){ex_make(c, &like, a), expr_raw(c, op, t, b, n)};
}

static bool data_equal(Expr *a, Expr *b) {
  ExprEnv env = {NULL, data_load};
  for (fuzz->at = 0; fuzz->at < 12; fuzz->at++) {
    Scalar x = expr_eval(&env, a), y = expr_eval(&env, b);
    bool same = dtype_is_float((DType)a->dtype) ? !memcmp(&x.f, &y.f, 8) || (isnan(x.f) && isnan(y.f)) : x.i == y.i;
    if (!same) {
      printf("\n  %s\n    differs from %s", expr_text(c, a), expr_text(c, b));
      return false;
    }
  }
  return true;
}

static Pair data_step(const Pair *pool, int n, const DType *types, int ntypes) {
  Pair x[3] = {pool[rnd((unsigned)n)]};
  DType t = (DType)x[0].made->dtype, to = types[rnd((unsigned)ntypes)];
  for (int i = 1; i < 3; i++) do x[i] = pool[rnd((unsigned)n)]; while (x[i].made->dtype != t);
  static const ExprOp ints[] = {EX_ADD, EX_ADD, EX_SUB, EX_MUL, EX_MUL, EX_DIV, EX_MOD, EX_TDIV, EX_TMOD, EX_MIN,
                                EX_MAX, EX_AND, EX_OR, EX_XOR, EX_SHL, EX_SHR};
  static const ExprOp floats[] = {EX_ADD, EX_SUB, EX_MUL, EX_DIV, EX_MIN, EX_MAX};
  static const ExprOp logic[] = {EX_AND, EX_OR, EX_XOR};
  static const ExprOp compare[] = {EX_LT, EX_LE, EX_EQ, EX_NE};
  switch (rnd(8)) {
  case 0: return data_node(EX_CAST, to, x, 1);
  case 1: return data_node(compare[rnd(4)], DT_BOOL, x, 2);
  case 2: {
    Pair cond;
    do cond = pool[rnd((unsigned)n)]; while (cond.made->dtype != DT_BOOL);
    return data_node(EX_SELECT, t, (Pair[]){cond, x[0], x[1]}, 3);
  }
  case 3:
    if (t == DT_BOOL) return data_node(EX_NOT, t, x, 1);
    if (dtype_is_float(t)) return rnd(3) ? data_node(rnd(2) ? EX_NEG : EX_ABS, t, x, 1) : data_node(EX_FMA, t, x, 3);
    return data_node(rnd(2) ? EX_NEG : rnd(2) ? EX_ABS : EX_NOT, t, x, 1);
  default:
    return data_node(t == DT_BOOL ? logic[rnd(3)] : dtype_is_float(t) ? floats[rnd(6)] : ints[rnd(COUNT(ints))], t, x,
                     2);
  }
}

static void test_random_data(void) {
  static const DType types[] = {DT_BOOL, DT_I32, DT_I64, DT_U8, DT_F32, DT_F64, DT_F16};
  static const char *const names[] = {"p", "i", "l", "y", "f", "d", "e"};
  for (int round = 0; round < 40; round++) {
    end();
    begin();
    fuzz = calloc(1, sizeof *fuzz);
    fuzz->seed = (unsigned long long)round * 104729 + 5;
    Pair pool[80];
    int n = 0;
    for (int i = 0; i < 7; i++)
      for (int j = 0; j < 6; j++) {
        static const double constants[] = {0, 1, 2, -1, 4, 16};
        Expr *e = j < 3 ? parse(ctx_printf(c, "%s[%d]", names[i], j)) : ex_const(c, types[i], constants[rnd(6)]);
        pool[n++] = (Pair){e, e};
      }
    bool ok = true;
    for (int step = 0; step < 250 && ok; step++) {
      Pair made = data_step(pool, n, types, COUNT(types));
      ok = data_equal(made.made, made.plain) && mistakes(made.made) == 0 && parse(expr_text(c, made.made)) == made.made;
      if (made.plain->size < 60) pool[n < 80 ? n++ : 42 + (int)rnd(38)] = made;
    }
    free(fuzz);
    if (!ok) printf(" (round %d)", round);
    CU_ASSERT_FATAL(ok);
  }
}

/* ---- meaning of constants ---- */
static const char *const meaning[][2] = {
  {"i32(7)/i32(-2)", "i32(-4)"}, {"i32(7)%i32(-2)", "i32(-1)"}, {"tdiv(i32(-7), 2)", "i32(-3)"},
  {"tmod(i32(-7), 2)", "i32(-1)"}, {"i32(5)/0", "i32(0)"}, {"i32(5)%0", "i32(0)"},
  {"i32(-2147483648)/i32(-1)", "i32(-2147483648)"}, {"i8(127) + 1", "i8(-128)"}, {"u8(3) - 5", "u8(254)"},
  {"u64(18446744073709551615)/2", "u64(9223372036854775807)"},
  {"u64(18446744073709551615) < 1", "false"}, {"i32(1) << 32", "i32(0)"}, {"i32(-8) >> 1", "i32(-4)"},
  {"i32(-8) >> 40", "i32(0)"}, {"i32(f32(3e9))", "i32(2147483647)"},
  {"i32(f32(nan))", "i32(0)"}, {"u8(f32(-1))", "u8(0)"}, {"i8(i32(300))", "i8(44)"}, {"bool(f32(nan))", "true"},
  {"bool(i32(256))", "true"}, {"f32(16777217)", "16777216.0f"},
  {"0.1f + 0.2f", "0.3f"}, {"f32(0.1) + 0.2f == 0.3f", "true"}, {"0.1 + 0.2", "0.30000000000000004"},
  {"f16(0.1) + 1", "f16(1.1)"}, {"f16(65504) + 16", "f16(inf)"}, {"bf16(256) + 1", "bf16(256.0)"},
  {"min(f32(nan), 1)", "f32(nan)"}, {"max(1.0f, f32(nan))", "f32(nan)"}, {"min(0.0f, -0.0f)", "-0.0f"},
  {"f32(nan) < 1", "false"}, {"f32(nan) != f32(nan)", "true"}, {"round(2.5f)", "2.0f"}, {"round(-0.4f)", "-0.0f"},
  {"fma(f32(16777217.0), 1.0f, -16777216.0f)", "0.0f"}, {"fma(1.00000012f, 1.00000012f, -1.0f)", "2.3841858e-07f"},
  {"-7.5f % 2.0f", "0.5f"}, {"tmod(-7.5f, 2.0f)", "-1.5f"}, {"pow(i32(2), 10)", "i32(1024)"},
  {"pow(i32(2), -1)", "i32(0)"}, {"bitcast_i32(1.0f)", "i32(1065353216)"}, {"bitcast_f32(i32(-2147483648))", "-0.0f"},
  {"sigmoid(0.0f)", "0.5f"}, {"1.0f/0", "f32(inf)"}, {"select(true, 1, 1/0)", "1"},
  {"1/6 + f[0]*0 == f[0]", "f[0] == f[0]*0.0f + 0.16666667f"}, {"l[0] + 7/2", "l[0] + 3"},
  {"-9223372036854775808", "-9223372036854775808"}, {"f64(inf)", "f64(inf)"}, {"1e30f", "1e+30f"}, {"2.0", "2.0"},
  {"abs(i32(-2147483648))", "i32(-2147483648)"}, {"all(r<3, r < 3)", "true"}, {"i64(1 < 2)", "1"},
};

static void test_meaning(void) {
  for (int i = 0; i < COUNT(meaning); i++) expect_text(meaning[i][0], meaning[i][1]);
  expect_text("max(f[0], 0) + min(0, 0.5*(exp(f[0]/0.5) - 1))",
              "max(f[0], 0.0f) + min((exp(f[0]*2.0f) - 1.0f)*0.5f, 0.0f)");
}

/* ---- evaluation with reductions and sharing ---- */
static Scalar no_sym(ExprEnv *env, const Sym *s) { return (Scalar){.i = 5}; }
static Scalar index_load(ExprEnv *env, const Expr *load, const int64_t *index) {
  return dtype_is_float((DType)load->dtype) ? (Scalar){.f = (double)index[0] + (load->n > 1 ? 0.25 * (double)index[1]
                                                                                : 0)} : (Scalar){.i = index[0]};
}

static void test_eval(void) {
  ExprEnv env = {no_sym, index_load};
  CU_ASSERT(expr_eval(&env, parse("sum(r<4, j<3, m[r, j])")).f == 18 + 3);
  CU_ASSERT(expr_eval(&env, parse("sum(r<N, j<r + 1, f[r*10 + j])")).f == 0 + 21 + 63 + 126 + 210);
  CU_ASSERT(expr_eval(&env, parse("max(r<4, 10 - l[r])")).i == 10 &&
            expr_eval(&env, parse("min(r<N - 5, f[r])")).f == INFINITY);
  Expr *e = parse("f[n]");
  for (int i = 0; i < 60; i++)
    e = ex_mul(c, ex_add(c, e, ex_const(c, DT_F32, 1)), ex_unary(c, EX_ABS, e));     /* 2^60 nodes as a tree */
  CU_ASSERT(isinf(expr_eval(&env, e).f) && !expr_uses(e, parse("h")->u.sym) && expr_uses(e, parse("n")->u.sym));
  const char *text = expr_text(c, e);
  CU_ASSERT(strlen(text) < 10000 && parse(text) == e);
  Expr *inner = ex_reduce(c, RED_SUM, expr_subst1(c, e, parse("n")->u.sym, parse("n + h")),
                          (Sym *[]){symbol(sym_axis(c, SYM_REDUCE, "n.r", ex_int(c, 4)))}, 1);
  CU_ASSERT(inner->op == EX_REDUCE && parse(expr_text(c, inner)) == inner);
}

/* ---- loads ---- */
static void test_loads(void) {
  static const int32_t bytes[6] = {10, 11, 12, 13, 14, 15};
  Tensor *t = tensor("table", DT_I32, 2, (int64_t[]){2, 3}), *known = tensor("known", DT_I64, 1, (int64_t[]){2}),
      *splat = tensor("splat", DT_I32, 1, (int64_t[]){1000});
  t->data = &(ConstData){.bytes = bytes};
  splat->data = &(ConstData){.bytes = bytes, .splat = true};
  known->known = (Expr *[]){parse("N*2"), parse("H")};
  known->nknown = 2;
  expect_text("table[1, 2]", "i32(15)");
  expect_text("table[1, 3]", "table[1, 3]");
  expect_text("table[k/4, 1 + k/9]", "i32(11)");
  expect_text("table[k, 0]", "table[k, 0]");
  expect_text("splat[k]", "i32(10)");
  expect_text("known[0] + known[1]*2", "N*2 + H*2");
  expect_text("f{n*W + w}", "f{w + W*n}");
  expect_text("s[]", "s[]");
}

/* ---- linear, substitution ---- */
static void test_linear(void) {
  static const char *const cases[][4] = {
    {"n*W + h*3 + 2", "n", "W", "h*3 + 2"}, {"n*W + n*4 - 1", "n", "W + 4", "-1"}, {"h", "n", "0", "h"},
    {"select(h < 3, n*2, w)", "n", "select(h < 3, 2, 0)", "select(h < 3, 0, w)"},
    {"n*n", "n", NULL, NULL}, {"n/4 + n", "n", NULL, NULL}, {"(n + 1)*(n + h)", "n", NULL, NULL},
    {"l[n]", "n", NULL, NULL},
  };
  for (int i = 0; i < COUNT(cases); i++) {
    Expr *coef, *rest, *e = parse(cases[i][0]);
    bool ok = expr_is_linear(c, e, parse(cases[i][1])->u.sym, &coef, &rest);
    CU_ASSERT(ok == (cases[i][2] != NULL));
    if (ok && cases[i][2]) CU_ASSERT(coef == parse(cases[i][2]) && rest == parse(cases[i][3]));
  }
}

static void test_subst(void) {
  Sym *n = parse("n")->u.sym, *dim = parse("N")->u.sym;
  CU_ASSERT(expr_subst1(c, parse("n*W + w"), n, parse("a*16 + b")) == parse("(a*16 + b)*W + w"));
  Expr *reduce = parse("sum(r<N, f[r + n])");
  CU_ASSERT(expr_uses(reduce, n) && expr_uses(reduce, dim) && !expr_uses(reduce, parse("r")->u.sym));
  CU_ASSERT(expr_subst1(c, reduce, n, ex_int(c, 3)) == parse("sum(r<N, f[r + 3])"));
  Expr *fixed = expr_subst1(c, reduce, dim, ex_int(c, 1));           /* the axis goes with its extent */
  CU_ASSERT(fixed == parse("f[n]"));
  fixed = expr_subst1(c, reduce, dim, ex_int(c, 7));
  CU_ASSERT(fixed->op == EX_REDUCE && ex_equals_int(fixed->a[1]->u.sym->extent, 7));
  Subst s = subst_new(c);
  subst_set(&s, n, parse("h"));
  subst_set(&s, parse("h")->u.sym, parse("n"));            /* at once, not one after the other */
  CU_ASSERT(subst_apply(&s, parse("n*3 + h")) == parse("h*3 + n"));
  Sym *again = sym_new(c, SYM_AXIS, "n", 0, 3), *third = sym_new(c, SYM_AXIS, "n", 0, 3);
  CU_ASSERT(again->self != n->self && !strcmp(again->name, "n.1") && !strcmp(third->name, "n.2"));
}

/* ---- text ---- */
static const char *const broken[][2] = {
  {"n +", "1:4: expected '(', not the end"}, {"n + zz", "1:5: unknown name 'zz'"},
  {"f[n", "1:4: expected ',', not the end"}, {"f[n, h]", "1:1: tensor 'f' of rank 1 with 2 indices"},
  {"n + f[0]", "'+' of i64 and f32"}, {"f", "1:1: tensor 'f' without indices"},
  {"\n  g[0]", "2:3: unknown tensor 'g'"}, {"foo(n)", "1:1: unknown function 'foo'"},
          {"l[0] + 0.5", "the number 0.5 is used as i64"},
  {"n n", "1:3: more text"}, {"select(n, 1, 2)", "select by i64, not bool"}, {"exp(n)", "'exp' of i64"},
  {"\"abc", "the string does not end"}, {"12ab", "a number runs into a name"},
          {"99999999999999999999", "the number is too large"},
  {"p[0] + p[1]", "'+' of bool"}, {"let = 3; 4", "1:5: expected a name, not '='"},
  {"f[0.5]", "an index is f64, not i64"}, {"bitcast_i32(d[0])", "bitcast of f64 to i32"},
          {"sum(r<f[0], 1)", "the extent of 'r' is f32, not i64"},
};

static void test_errors(void) {
  for (volatile int i = 0; i < COUNT(broken); i++) {
    end();
    begin();
    Diags *d = ctx_diags(c);
    if (!setjmp(d->unwind)) {
      d->armed = true;
      parse(broken[i][0]);
    }
    bool ok = d->list.n == 1 && d->list.v[0].code == E0309 && strstr(d->list.v[0].text, broken[i][1]);
    if (!ok) printf("\n  %s: %s, not %s", broken[i][0], d->list.n ? d->list.v[0].text : "no error", broken[i][1]);
    CU_ASSERT(ok);
  }
}

static void test_text(void) {
  symbol(sym_new(c, SYM_DIM, "batch size", 1, 9));
  symbol(sym_new(c, SYM_DIM, "true", 1, 9));
  tensor("conv/w:0", DT_F32, 1, (int64_t[]){9});
  expect_text("\"conv/w:0\"[\"batch size\" + \"true\"]  // remark\n", "\"conv/w:0\"[\"batch size\" + \"true\"]");
  expect_text("-(n*W)/3 + (n + h)*(w + 1)%5", "-(W*n)/3 + (n + h + n*w + h*w)%5");
  expect_text("p[0] & (p[1] | p[2]) ^ p[3]", "p[0] & (p[1] | p[2]) ^ p[3]");
  expect_text("(f[0] - f[1]) - (f[2] - f[3])*-f[4]", "f[0] - f[1] - (f[2] - f[3])*-f[4]");
  expect_text("let x = exp(f[n]); x/(1 + x)", "exp(f[n])/(exp(f[n]) + 1.0f)");
  expect_text("let x = exp(f[n*W + h*3 + w*5 + 7]); x/(1 + x) - log(x)",
              "let t0 = exp(f[h*3 + w*5 + W*n + 7]); t0/(t0 + 1.0f) - log(t0)");
  expect_text("l[0] << 2 < l[1] + 3 == p[0]", "p[0] == (l[0] << 2 < l[1] + 3)");
  expect_text("sum(r<4, let x = exp(f[n*W + h*3 + w*5 + r]); x/(1 + x))",
              "sum(r<4, let t0 = exp(f[h*3 + w*5 + W*n + r]); t0/(t0 + 1.0f))");
  expect_text("prod(z=-3..5, f[z + 3])", "prod(z=-3..5, f[z + 3])");
}

static void test_types(void) {
  Diags *d = ctx_diags(c);
  Expr *n = parse("n"), *x = parse("f[0]");
  if (!setjmp(d->unwind)) {
    d->armed = true;
    ex_add(c, n, x);
  }
  CU_ASSERT(d->list.n == 1 && d->list.v[0].code == E0900 && strstr(d->list.v[0].text, "+ of i64 and f32"));
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite suite = CU_add_suite_with_setup_and_teardown("expressions", NULL, NULL, begin, end);
  CU_add_test(suite, "canonical form", test_canonical);
  CU_add_test(suite, "proofs", test_proofs);
  CU_add_test(suite, "ranges", test_ranges);
  CU_add_test(suite, "every rewrite row is exact", test_rows);
  CU_add_test(suite, "every rewrite row fires", test_rows_fire);
  CU_add_test(suite, "random indices", test_random_indices);
  CU_add_test(suite, "random data", test_random_data);
  CU_add_test(suite, "meaning", test_meaning);
  CU_add_test(suite, "evaluation", test_eval);
  CU_add_test(suite, "loads", test_loads);
  CU_add_test(suite, "linear", test_linear);
  CU_add_test(suite, "substitution", test_subst);
  CU_add_test(suite, "text", test_text);
  CU_add_test(suite, "text with mistakes", test_errors);
  CU_add_test(suite, "types must agree", test_types);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0;
}
