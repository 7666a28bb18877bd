/* t_fuzz.c - random graphs, each three ways: node by node on the interpreter as they stand; through the whole pipeline with the
 * kernels interpreted, where every access is checked; and as a library, run with several threads.
 *
 *   t_fuzz [ROUNDS [FIRST [CPU]]]        a round is known by its number; DLC_TEST_PRINT=1 prints its graph and program
 *
 * A graph is made twice from the same number: once computed along the way, so that no value grows out of bounds, then once more
 * to be compiled, its extents constants or symbols.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../ir/interp.h"
#include "library.h"

enum { MAX_TENSORS = 256, MAX_ELEMENTS = 4096 };
static const double TOLERANCE = 2e-3, HALF_TOLERANCE = 6e-2, LARGE = 300;

typedef struct {
  Ctx *c;
  Graph *g;
  uint64_t seed;
  bool symbolic, half;             /* half: a 16-bit float occurs */
  Interp *interp;                  /* first time */
  VEC(Tensor *) tensors;           /* in order of making, the same both times */
  const double *scale;             /* second time: largest magnitudes, -1 for what is no good as an operand */
  double made[MAX_TENSORS];
  VEC(Value) inputs;
} Fuzz;

/* ---- random numbers ---- */
static uint32_t next(Fuzz *f) {
  f->seed = f->seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(f->seed >> 33);
}
static int64_t below(Fuzz *f, int64_t n) { return (int64_t)(next(f) % (uint32_t)n); }
static bool chance(Fuzz *f, int percent) { return below(f, 100) < percent; }
static int64_t between(Fuzz *f, int64_t low, int64_t high) { return low + below(f, high - low + 1); }

static int64_t some_extent(Fuzz *f) {
  static const uint8_t sizes[] = { 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 8, 9, 12, 13, 16, 16, 17, 20, 24, 31, 32, 33, 48 };
  return sizes[below(f, COUNT(sizes))];
}

/* ---- extents ---- */
typedef struct { ExprEnv env; } Extents;
static Scalar extent_of(ExprEnv *env, const Sym *s) { return (Scalar){ .i = atoi(s->name + 1) }; }     /* n12 is 12 */

static int64_t number(const Expr *e) {
  ExprEnv env = { .sym = extent_of };
  return expr_eval(&env, e).i;
}
static int64_t dim(const Tensor *t, int d) { return number(t->shape[d < 0 ? d + t->rank : d]); }

static int64_t elements(const Tensor *t) {
  int64_t n = 1;
  for (int d = 0; d < t->rank; d++) n *= dim(t, d);
  return n;
}

/* ---- tensors ---- */
static double fraction(Fuzz *f) { return (double)(below(f, 2001) - 1000) / 1000; }

static void *random_data(Fuzz *f, DType t, int64_t n, double amount) {
  int each = dtype_bytes(t);
  char *p = ctx_alloc(f->c, (size_t)(n * each) + 64);
  for (int64_t i = 0; i < n; i++) {
    double v = fraction(f) * amount;
    if (dtype_is_float(t)) dtype_store_f(t, p + i * each, v);
    else dtype_store_i(t, p + i * each, t == DT_BOOL ? v > 0 : dtype_info[t].kind == 'i' ? (int64_t)(v * 9) : (int64_t)(fabs(v) * 9));
  }
  return p;
}

static void keep(Fuzz *f, Tensor *t, double scale) {
  if (f->tensors.n == MAX_TENSORS) return;
  f->made[f->tensors.n] = f->interp ? scale : f->scale[f->tensors.n];
  vec_push(f->c, &f->tensors, t);
}

static int64_t *numbers(Fuzz *f, int n, const int64_t *v) { return n ? ctx_copy(f->c, v, sizeof *v * (size_t)n) : NULL; }

static Tensor *weight(Fuzz *f, DType t, int rank, const int64_t *dims, double amount) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= dims[i];
  return graph_const(f->g, "w", t, numbers(f, rank, dims), rank, random_data(f, t, n, amount));
}

static Tensor *integers(Fuzz *f, int n, const int64_t *v) {
  int64_t dims[] = { n };
  return graph_const(f->g, "i", DT_I64, numbers(f, 1, dims), 1, numbers(f, n, v));
}

static Tensor *input(Fuzz *f, DType t, int rank, const int64_t *dims) {
  Tensor *x = graph_tensor(f->g, ctx_printf(f->c, "x%d", f->g->inputs.n));
  Value v = { .dtype = t, .rank = rank };
  int64_t n = 1;
  x->dtype = t;
  x->rank = rank;
  x->shape = NEW_ARRAY(f->c, Expr *, rank + 1);
  for (int d = 0; d < rank; d++) {
    bool open = chance(f, 60) && f->symbolic && dims[d] > 1;
    v.dims[d] = dims[d];
    n *= dims[d];
    x->shape[d] = open ? graph_dim(f->g, ctx_printf(f->c, "n%d", (int)dims[d]))->self : ex_int(f->c, dims[d]);
    if (open && f->interp) interp_set_dim(f->interp, x->shape[d]->u.sym, dims[d]);
  }
  v.data = random_data(f, t, n, 1);
  vec_push(f->c, &f->g->inputs, x);
  vec_push(f->c, &f->inputs, v);
  if (f->interp) interp_set(f->interp, x, &v);
  keep(f, x, dtype_is_float(t) ? 1 : 9);
  return x;
}

static DType some_type(Fuzz *f) {
  static const DType few[] = { DT_F64, DT_F16, DT_BF16, DT_I8, DT_U8, DT_I16, DT_I32, DT_I64, DT_U32, DT_U64, DT_U16, DT_BOOL };
  return chance(f, 80) ? DT_F32 : few[below(f, COUNT(few))];
}

static Tensor *new_input(Fuzz *f, DType t, int least, int most) {
  int64_t dims[MAX_RANK], n = 1;
  int rank = (int)between(f, MAX(least, 1), most);
  for (int d = 0; d < rank; d++) {
    dims[d] = some_extent(f);
    if (n * dims[d] > MAX_ELEMENTS / 2) dims[d] = 1 + (n * 3 <= MAX_ELEMENTS / 2) * 2;
    n *= dims[d];
  }
  return input(f, t, rank, dims);
}

typedef enum { ANY, FLOATS, NUMBERS, F32 } Class;
static bool is_of(const Tensor *t, Class k) {
  if (k == F32) return t->dtype == DT_F32;
  return k == ANY || (k == FLOATS ? dtype_is_float(t->dtype) : t->dtype != DT_BOOL);
}

/* An operand: a tensor there is, rather a late one, or a new input. */
static Tensor *pick(Fuzz *f, Class k, int least, int most, double limit) {
  for (int tries = 0; tries < 12 && f->tensors.n; tries++) {
    int i = f->tensors.n - 1 - (int)MIN(below(f, f->tensors.n), below(f, f->tensors.n));
    Tensor *t = f->tensors.v[i];
    if (f->made[i] < 0 || f->made[i] > limit || t->rank < least || t->rank > most || !is_of(t, k)) continue;
    return t;
  }
  DType t = some_type(f);
  Tensor probe = { .dtype = t };
  return new_input(f, is_of(&probe, k) ? t : DT_F32, least, most);
}

/* ---- nodes ---- */
static Node *node(Fuzz *f, const char *op, Tensor *const *in, int nin, int nout) {
  return graph_node(f->g, op_find(f->c, "", op), "", in, nin, nout);
}
static void set_i(Node *n, const char *name, int64_t v) {
  Attr *a = (Attr *)op_attr(n, name);
  *a = (Attr){ .name = a->name, .kind = ATTR_INT, .i = v };
}
static void set_s(Node *n, const char *name, const char *v) {
  Attr *a = (Attr *)op_attr(n, name);
  *a = (Attr){ .name = a->name, .kind = ATTR_STRING, .s = v };
}
static void set_is(Fuzz *f, Node *n, const char *name, int count, const int64_t *v) {
  Attr *a = (Attr *)op_attr(n, name);
  *a = (Attr){ .name = a->name, .kind = ATTR_INTS, .n = count, .ints = numbers(f, count, v) };
}

static double largest(const Value *v) {
  double most = 0;
  int64_t n = v->splat ? 1 : value_elements(v);
  for (int64_t i = 0; i < n; i++) {
    const char *p = (const char *)v->data + i * dtype_bytes(v->dtype);
    double x = fabs(dtype_is_float(v->dtype) ? dtype_load_f(v->dtype, p) : (double)dtype_load_i(v->dtype, p));
    if (!(x <= most)) most = isfinite(x) ? x : INFINITY;
  }
  return most;
}

/* The node stands: its outputs get types and, the first time, values. */
static void done(Fuzz *f, Node *n) {
  if (!op_infer(f->c, n)) diag_check(f->c);
  if (f->interp && !interp_node(f->interp, n)) diag_bug(f->c, "%s is not computed", n->op->name);
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    double scale = f->interp ? largest(interp_get(f->interp, t)) : 0;
    f->half |= dtype_is_float(t->dtype) && dtype_bytes(t->dtype) == 2;
    keep(f, t, scale < LARGE && elements(t) <= MAX_ELEMENTS ? scale : -1);
  }
}

static Tensor *unary(Fuzz *f, const char *op, Tensor *x) {
  Node *n = node(f, op, &x, 1, 1);
  done(f, n);
  return n->out[0];
}

static Node *with(Fuzz *f, const char *op, Tensor *a, Tensor *b) {
  Tensor *in[] = { a, b };
  return node(f, op, in, 2, 1);
}

/* A tensor that broadcasts to (or with) t. */
static Tensor *broadcast_partner(Fuzz *f, Tensor *t) {
  int64_t dims[MAX_RANK];
  int drop = chance(f, 40) ? (int)below(f, t->rank + 1) : 0;
  for (int i = 0; i < f->tensors.n && chance(f, 90); i++) {
    Tensor *u = f->tensors.v[f->tensors.n - 1 - i];
    bool fits = u != t && u->dtype == t->dtype && u->rank <= t->rank && f->made[f->tensors.n - 1 - i] >= 0;
    for (int d = 1; fits && d <= u->rank; d++) fits = ex_equals_int(u->shape[u->rank - d], 1) || dim(u, -d) == dim(t, -d);
    if (fits && chance(f, 60)) return u;
  }
  for (int d = drop; d < t->rank; d++) dims[d - drop] = chance(f, 25) ? 1 : dim(t, d);
  return chance(f, 70) ? weight(f, t->dtype, t->rank - drop, dims, 1) : input(f, t->dtype, t->rank - drop, dims);
}

/* ---- kinds of nodes ---- */
static void make_unary(Fuzz *f) {
  static const char *const ops[] = { "Relu", "Sigmoid", "Tanh", "Abs", "Neg", "HardSwish", "Erf", "Gelu", "Softplus", "Elu", "Softsign",
                                     "Mish", "LeakyRelu", "HardSigmoid", "Swish", "Identity" };
  unary(f, ops[below(f, COUNT(ops))], pick(f, FLOATS, 0, 5, 20));
}

static void make_binary(Fuzz *f) {
  static const char *const ops[] = { "Add", "Sub", "Mul", "Max", "Min" };
  Tensor *a = pick(f, NUMBERS, 0, 5, 20), *b = broadcast_partner(f, a);
  bool swap = chance(f, 30);
  done(f, with(f, ops[below(f, COUNT(ops))], swap ? b : a, swap ? a : b));
}

static void make_where(Fuzz *f) {
  Tensor *a = pick(f, ANY, 1, 5, LARGE), *b = broadcast_partner(f, a);
  int64_t dims[MAX_RANK];
  for (int d = 0; d < a->rank; d++) dims[d] = chance(f, 25) ? 1 : dim(a, d);
  Tensor *in[] = { chance(f, 50) ? weight(f, DT_BOOL, a->rank, dims, 1) : input(f, DT_BOOL, a->rank, dims), a, b };
  done(f, node(f, "Where", in, 3, 1));
}

static void make_compare(Fuzz *f) {
  static const char *const ops[] = { "Less", "LessOrEqual", "Greater", "Equal" };
  Tensor *a = new_input(f, some_type(f), 1, 4);              /* exact on every way; so are booleans */
  if (a->dtype == DT_BOOL) unary(f, "Not", a);
  else done(f, with(f, ops[below(f, COUNT(ops))], a, broadcast_partner(f, a)));
}

static void make_cast(Fuzz *f) {
  static const DType to[] = { DT_F32, DT_F32, DT_F64, DT_F16, DT_BF16, DT_I32, DT_I64, DT_I8, DT_U8 };
  Tensor *t = pick(f, ANY, 0, 5, LARGE);
  DType d = to[below(f, COUNT(to))];
  if (dtype_is_float(t->dtype) && !dtype_is_float(d)) t = new_input(f, t->dtype, 1, 4);     /* exact: rounding is no matter of luck */
  Node *n = node(f, "Cast", &t, 1, 1);
  set_i(n, "to", dtype_info[d].onnx);
  done(f, n);
}

static Tensor *transposed(Fuzz *f, Tensor *t, const int64_t *perm) {
  Node *n = node(f, "Transpose", &t, 1, 1);
  set_is(f, n, "perm", t->rank, perm);
  done(f, n);
  return n->out[0];
}

static void make_transpose(Fuzz *f) {
  Tensor *t = pick(f, ANY, 2, 5, LARGE);
  int64_t perm[MAX_RANK];
  for (int i = 0; i < t->rank; i++) perm[i] = i;
  for (int i = t->rank - 1; i > 0; i--) {
    int64_t j = below(f, i + 1), x = perm[i];
    perm[i] = perm[j];
    perm[j] = x;
  }
  transposed(f, t, perm);
}

static void make_reshape(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 5, LARGE);
  int64_t to[MAX_RANK] = { 0 }, last = dim(t, -1);
  int n = t->rank, factor = 2 + (int)below(f, 4);
  if (chance(f, 35)) {
    Node *flat = node(f, "Flatten", &t, 1, 1);
    set_i(flat, "axis", below(f, t->rank + 1));
    done(f, flat);
    return;
  }
  if (last % factor == 0 && t->rank < 5) to[n - 1] = chance(f, 50) ? factor : last / factor, to[n++] = -1;       /* the last in two */
  else if (n >= 2) to[--n - 1] = -1;                                                        /* the last two in one */
  else to[0] = -1;
  done(f, with(f, "Reshape", t, integers(f, n, to)));
}

static void make_squeeze(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 4, LARGE);
  int64_t axis = below(f, t->rank);
  const Expr *d = t->shape[axis];
  done(f, with(f, ex_equals_int(d, 1) ? "Squeeze" : "Unsqueeze", t, integers(f, 1, &axis)));
}

static void make_slice(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 5, LARGE);
  int64_t axis = below(f, t->rank), n = dim(t, (int)axis), step = chance(f, 60) ? 1 : between(f, 1, 3), from = below(f, n);
  int64_t to = between(f, from + 1, n + 1);
  if (chance(f, 25)) {                                       /* backwards */
    int64_t x = from;
    from = to - 1, to = x - 1 - (x ? 0 : n + 1), step = -step;
  }
  Tensor *in[] = { t, integers(f, 1, &from), integers(f, 1, &to), integers(f, 1, &axis), integers(f, 1, &step) };
  done(f, node(f, "Slice", in, 5, 1));
}

static void make_concat(Fuzz *f) {
  Tensor *in[4] = { pick(f, ANY, 1, 5, LARGE) }, *t = in[0];
  int64_t axis = chance(f, 60) && t->rank > 1 ? 1 : below(f, t->rank), dims[MAX_RANK];
  int n = (int)between(f, 2, 4);
  for (int i = 1; i < n; i++) {
    for (int k = f->tensors.n - 1; k >= 0 && !in[i]; k--) {
      Tensor *u = f->tensors.v[k];
      bool fits = u->dtype == t->dtype && u->rank == t->rank && f->made[k] >= 0 && chance(f, 60);
      for (int d = 0; fits && d < t->rank; d++) fits = d == axis || dim(u, d) == dim(t, d);
      if (fits) in[i] = u;
    }
    for (int d = 0; d < t->rank; d++) dims[d] = d == axis ? between(f, 1, 9) : dim(t, d);
    if (!in[i]) in[i] = chance(f, 50) ? input(f, t->dtype, t->rank, dims) : weight(f, t->dtype, t->rank, dims, 1);
  }
  Node *c = node(f, "Concat", in, n, 1);
  set_i(c, "axis", axis);
  done(f, c);
}

static void make_split(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 5, LARGE);
  int64_t axis = below(f, t->rank), n = dim(t, (int)axis), first = 1 + below(f, n);
  if (n < 2) return;
  int64_t parts[] = { MIN(first, n - 1), n - MIN(first, n - 1) };
  Tensor *in[] = { t, integers(f, 2, parts) };
  Node *s = node(f, "Split", in, 2, 2);
  set_i(s, "axis", axis);
  done(f, s);
}

static void make_pad(Fuzz *f) {
  static const char *const modes[] = { "constant", "constant", "constant", "reflect", "edge", "wrap" };
  Tensor *t = pick(f, NUMBERS, 1, 5, LARGE);
  int64_t pads[2 * MAX_RANK] = { 0 };
  for (int d = 0; d < t->rank; d++)
    for (int side = 0; side < 2; side++)
      if (chance(f, 50)) pads[d + side * t->rank] = below(f, MIN(dim(t, d), 4));
  Tensor *in[] = { t, integers(f, 2 * t->rank, pads), weight(f, t->dtype, 0, NULL, 1) };
  Node *n = node(f, "Pad", in, chance(f, 30) ? 3 : 2, 1);
  set_s(n, "mode", modes[below(f, COUNT(modes))]);
  done(f, n);
}

static void make_gather(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 4, LARGE);
  int64_t axis = below(f, t->rank), n = dim(t, (int)axis), at[24];
  int count = (int)between(f, 1, 9);
  for (int i = 0; i < count; i++) at[i] = between(f, -n, n - 1);
  Node *g = with(f, "Gather", t, integers(f, count, at));
  set_i(g, "axis", axis);
  done(f, g);
}

static void make_repeat(Fuzz *f) {
  Tensor *t = pick(f, ANY, 1, 4, LARGE);
  int64_t v[MAX_RANK];
  bool tile = chance(f, 50);
  if (elements(t) > MAX_ELEMENTS / 4) return;
  for (int d = 0; d < t->rank; d++) v[d] = tile ? between(f, 1, 2) : ex_equals_int(t->shape[d], 1) ? between(f, 1, 4) : 1;
  done(f, with(f, tile ? "Tile" : "Expand", t, integers(f, t->rank, v)));
}

static void make_matmul(Fuzz *f) {
  Tensor *a = pick(f, F32, 2, 4, 20), *b = NULL;
  int64_t k = dim(a, -1), dims[MAX_RANK], perm[] = { 0, 1, 2, 3, 4 };
  if (chance(f, 30)) {                                       /* with itself, as attention has it */
    perm[a->rank - 1] = a->rank - 2;
    perm[a->rank - 2] = a->rank - 1;
    done(f, with(f, "MatMul", a, transposed(f, a, perm)));
    return;
  }
  int rank = chance(f, 60) ? 2 : a->rank;
  for (int d = 0; d < rank - 2; d++) dims[d] = chance(f, 30) ? 1 : dim(a, d);
  dims[rank - 2] = k;
  dims[rank - 1] = some_extent(f);
  bool flip = chance(f, 25), is_input = chance(f, 30);
  if (flip) dims[rank - 2] = dims[rank - 1], dims[rank - 1] = k;
  b = is_input ? input(f, DT_F32, rank, dims) : weight(f, DT_F32, rank, dims, 1 / sqrt((double)k));
  if (flip) {
    perm[rank - 1] = rank - 2;
    perm[rank - 2] = rank - 1;
    b = transposed(f, b, perm);
  }
  done(f, with(f, "MatMul", a, b));
}

static void make_gemm(Fuzz *f) {
  Tensor *a = pick(f, FLOATS, 2, 2, 20);
  bool ta = chance(f, 30), tb = chance(f, 50);
  int64_t m = dim(a, ta), k = dim(a, !ta), n = some_extent(f), w[] = { tb ? n : k, tb ? k : n }, bias[] = { chance(f, 20) ? m : 1, n };
  Tensor *in[] = { a, weight(f, a->dtype, 2, w, 1 / sqrt((double)k)), weight(f, a->dtype, 2, bias, 1) };
  Node *g = node(f, "Gemm", in, chance(f, 70) ? 3 : 2, 1);
  set_i(g, "transA", ta);
  set_i(g, "transB", tb);
  done(f, g);
}

/* The window's attributes for n spatial axes; false if it does not fit. */
typedef struct { int n; int64_t kernel[3], strides[3], dilations[3], pads[6]; } Window;
static bool some_window(Fuzz *f, const Tensor *x, Window *w, bool half_pads) {
  w->n = x->rank - 2;
  for (int i = 0; i < w->n; i++) {
    int64_t size = dim(x, i + 2);
    w->kernel[i] = chance(f, 45) ? 3 : between(f, 1, 5);
    w->strides[i] = chance(f, 60) ? 1 : between(f, 1, 3);
    w->dilations[i] = chance(f, 80) ? 1 : 2;
    int64_t most = half_pads ? w->kernel[i] / 2 : 2;
    w->pads[i] = chance(f, 50) ? MIN(most, 1) : between(f, 0, most);
    w->pads[w->n + i] = chance(f, 70) ? w->pads[i] : between(f, 0, most);
    if (size + w->pads[i] + w->pads[w->n + i] < (w->kernel[i] - 1) * w->dilations[i] + 1) return false;
  }
  return w->n > 0;
}

static void put_window(Fuzz *f, Node *n, const Window *w) {
  set_is(f, n, "kernel_shape", w->n, w->kernel);
  set_is(f, n, "strides", w->n, w->strides);
  set_is(f, n, "dilations", w->n, w->dilations);
  set_is(f, n, "pads", 2 * w->n, w->pads);
}

static void make_conv(Fuzz *f) {
  Tensor *x = pick(f, F32, 3, 5, 20);
  int64_t channels = dim(x, 1), group = chance(f, 60) ? 1 : chance(f, 60) ? channels : between(f, 1, channels), dims[MAX_RANK];
  Window w;
  bool transposed_conv = chance(f, 20);
  if (channels % group || !some_window(f, x, &w, false)) return;
  int64_t out = group * (group == 1 ? some_extent(f) : group == channels && chance(f, 70) ? 1 : between(f, 1, 4)), steps = channels / group;
  dims[0] = transposed_conv ? channels : out;
  dims[1] = transposed_conv ? out / group : channels / group;
  for (int i = 0; i < w.n; i++) steps *= dims[i + 2] = w.kernel[i];
  if (steps * out > 20000) return;
  Tensor *k = chance(f, 85) ? weight(f, DT_F32, x->rank, dims, 1 / sqrt((double)steps)) : input(f, DT_F32, x->rank, dims);
  Tensor *in[] = { x, k, weight(f, DT_F32, 1, &out, 1) };
  if (transposed_conv)
    for (int i = 0; i < w.n; i++) w.pads[i] = MIN(w.pads[i], w.kernel[i] - 1), w.pads[w.n + i] = 0;
  Node *n = node(f, transposed_conv ? "ConvTranspose" : "Conv", in, chance(f, 60) ? 3 : 2, 1);
  set_i(n, "group", group);
  put_window(f, n, &w);
  done(f, n);
}

static void make_pool(Fuzz *f) {
  Tensor *x = pick(f, FLOATS, 3, 5, LARGE);
  Window w;
  bool max = chance(f, 50);
  if (chance(f, 20)) {
    unary(f, max ? "GlobalMaxPool" : "GlobalAveragePool", x);
    return;
  }
  if (!some_window(f, x, &w, true)) return;
  Node *n = node(f, max ? "MaxPool" : "AveragePool", &x, 1, 1);
  put_window(f, n, &w);
  set_i(n, "ceil_mode", chance(f, 30));
  if (!max) set_i(n, "count_include_pad", chance(f, 50));
  done(f, n);
}

static void make_reduce(Fuzz *f) {
  static const char *const ops[] = { "ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare",
                                     "ReduceL1", "ReduceLogSumExp" };
  Tensor *t = pick(f, FLOATS, 1, 5, 20);
  int64_t axes[MAX_RANK];
  int n = 0;
  if (!dtype_is_float(t->dtype)) return;
  for (int d = 0; d < t->rank; d++)
    if (chance(f, 45) || (d == t->rank - 1 && !n)) axes[n++] = chance(f, 70) ? d : d - t->rank;
  Node *r = with(f, ops[below(f, COUNT(ops))], t, integers(f, n, axes));
  set_i(r, "keepdims", chance(f, 50));
  done(f, r);
}

static void make_count(Fuzz *f) {
  static const char *const ops[] = { "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd" };
  static const DType types[] = { DT_I32, DT_I64, DT_U8, DT_I8, DT_U32 };
  DType t = types[below(f, COUNT(types))];
  Tensor *x = new_input(f, t, 1, 4);
  int64_t axis = below(f, x->rank);
  if (chance(f, 40)) {
    Node *n = unary(f, "Identity", x)->def;
    n = node(f, chance(f, 50) ? "ArgMax" : "ArgMin", &x, 1, 1);
    set_i(n, "axis", axis);
    set_i(n, "select_last_index", chance(f, 50));
    done(f, n);
    return;
  }
  done(f, with(f, ops[below(f, COUNT(ops))], x, integers(f, 1, &axis)));
}

static void make_softmax(Fuzz *f) {
  Tensor *t = pick(f, FLOATS, 1, 5, 20);
  Node *n = node(f, chance(f, 70) ? "Softmax" : "LogSoftmax", &t, 1, 1);
  set_i(n, "axis", chance(f, 60) ? -1 : below(f, t->rank));
  done(f, n);
}

static void make_norm(Fuzz *f) {
  Tensor *t = pick(f, F32, 3, 5, 20);
  int64_t c = dim(t, 1), axis = between(f, 1, t->rank - 1), dims[MAX_RANK];
  Tensor *scale = weight(f, DT_F32, 1, &c, 1), *bias = weight(f, DT_F32, 1, &c, 1), *in[] = { t, scale, bias, bias, NULL };
  int kind = (int)below(f, 5);
  for (int d = (int)axis; d < t->rank; d++) dims[d - axis] = dim(t, d);
  static const char *const ops[] = { "BatchNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization",
                                     "GroupNormalization" };
  if (kind == 0) in[4] = unary(f, "Abs", weight(f, DT_F32, 1, &c, 1));
  if (kind == 2 || kind == 3) in[1] = weight(f, DT_F32, t->rank - (int)axis, dims, 1), in[2] = weight(f, DT_F32, t->rank - (int)axis, dims, 1);
  Node *n = node(f, ops[kind], in, kind == 0 ? 5 : kind == 3 ? 2 : 3, 1);
  const char *const epsilon = "epsilon";
  ((Attr *)op_attr(n, epsilon))->f = 0.1;                    /* a constant row must not blow rounding up */
  if (kind == 2 || kind == 3) set_i(n, "axis", axis);
  if (kind == 4) set_i(n, "num_groups", c % 2 ? 1 : 2);
  done(f, n);
}

static void make_resize(Fuzz *f) {
  Tensor *t = pick(f, FLOATS, 3, 4, LARGE);
  float scales[4] = { 1, 1, 2, 2 };
  int64_t rank = t->rank;
  if (elements(t) > MAX_ELEMENTS / 4) return;
  Tensor *in[] = { t, NULL, graph_const(f->g, "s", DT_F32, numbers(f, 1, &rank), 1, ctx_copy(f->c, scales, sizeof scales)) };
  Node *n = node(f, "Resize", in, 3, 1);
  set_s(n, "mode", chance(f, 50) ? "nearest" : "linear");
  if (chance(f, 50)) set_s(n, "coordinate_transformation_mode", "asymmetric");
  done(f, n);
}

static void make_shuffle(Fuzz *f) {
  Tensor *t = pick(f, F32, 4, 4, LARGE);
  bool up = dim(t, 1) % 4 == 0;
  if (!up && (dim(t, 2) % 2 || dim(t, 3) % 2)) return;
  Node *n = node(f, up ? "DepthToSpace" : "SpaceToDepth", &t, 1, 1);
  set_i(n, "blocksize", 2);
  set_s(n, "mode", chance(f, 50) ? "DCR" : "CRD");
  done(f, n);
}

static void make_cumsum(Fuzz *f) {
  Tensor *t = pick(f, F32, 1, 4, 20);
  int64_t axis = below(f, t->rank);
  Node *n = with(f, "CumSum", t, graph_const(f->g, "i", DT_I64, NULL, 0, numbers(f, 1, &axis)));
  set_i(n, "exclusive", chance(f, 50));
  set_i(n, "reverse", chance(f, 50));
  done(f, n);
}

static void make_trilu(Fuzz *f) {
  Tensor *t = pick(f, ANY, 2, 4, LARGE);
  int64_t k = between(f, -2, 2);
  Node *n = with(f, "Trilu", t, graph_const(f->g, "i", DT_I64, NULL, 0, numbers(f, 1, &k)));
  set_i(n, "upper", chance(f, 50));
  done(f, n);
}

static const struct { void (*make)(Fuzz *f); int weight; } kinds[] = {
  { make_unary, 12 },  { make_binary, 16 },  { make_where, 3 },   { make_compare, 2 }, { make_cast, 3 },   { make_transpose, 6 },
  { make_reshape, 6 }, { make_squeeze, 3 },  { make_slice, 6 },   { make_concat, 7 },  { make_split, 4 },  { make_pad, 5 },
  { make_gather, 3 },  { make_repeat, 3 },   { make_matmul, 10 }, { make_gemm, 5 },    { make_conv, 20 },  { make_pool, 8 },
  { make_reduce, 8 },  { make_count, 3 },    { make_softmax, 5 }, { make_norm, 6 },    { make_resize, 3 }, { make_shuffle, 3 },
  { make_cumsum, 2 },  { make_trilu, 2 },
};

/* Every tensor that nothing reads is an output, and a few that something does. */
static void choose_outputs(Fuzz *f) {
  for (int i = 0; i < f->tensors.n; i++) {
    Tensor *t = f->tensors.v[i];
    bool also = chance(f, 8);
    if (f->made[i] >= 0 && ((t->def && !t->users.n) || also) && f->g->outputs.n < 24) vec_push(f->c, &f->g->outputs, t);
  }
}

static void build(Fuzz *f, int round) {
  int total = 0, nodes;
  f->seed = (uint64_t)round * 0x9E3779B97F4A7C15u + 1;
  for (int i = 0; i < 4; i++) next(f);
  f->symbolic = chance(f, 40);
  f->g = graph_new(f->c, NULL, "fuzz");
  for (int i = 0; i < COUNT(kinds); i++) total += kinds[i].weight;
  nodes = (int)between(f, 1, 9);
  for (int i = 0; i < nodes; i++) {
    int at = (int)below(f, total), k = 0;
    while (at >= kinds[k].weight) at -= kinds[k++].weight;
    kinds[k].make(f);
  }
  choose_outputs(f);
}

/* ---- the program, interpreted ---- */
typedef struct { ExprEnv env; Module *m; Map syms; char *arena, *weights; void **inputs, **outputs; } Machine;

static void *place(Machine *p, const Tensor *t) {
  Graph *g = p->m->graph;
  for (int i = 0; t->scope == SCOPE_INPUT && i < g->inputs.n; i++)
    if (g->inputs.v[i] == t) return p->inputs[i];
  for (int i = 0; t->scope == SCOPE_OUTPUT && i < g->outputs.n; i++)
    if (g->outputs.v[i] == t) return p->outputs[i];
  return (t->scope == SCOPE_CONST ? p->weights : p->arena) + expr_eval(&p->env, t->offset).i;
}

static Scalar machine_sym(ExprEnv *env, const Sym *s) {
  const int64_t *v = map_get(&((Machine *)env)->syms, KEY(s));
  return v ? (Scalar){ .i = *v } : extent_of(env, s);
}

static Scalar machine_load(ExprEnv *env, const Expr *load, const int64_t *index) {
  const Tensor *t = load->u.tensor;
  return scalar_load(t->dtype, (char *)place((Machine *)env, t) + index[0] * dtype_bytes(t->dtype));
}

static void run_program(Machine *p, const Stmt *s) {
  if (s->op == ST_IF) {
    const Stmt *body = s->body[expr_eval(&p->env, s->value).i ? 0 : 1];
    if (body) run_program(p, body);
    return;
  }
  if (s->op == ST_CALL) {
    if (s->kernel == p->m->stop) diag_bug(p->m->c, "the program stops: an assumption does not hold");
    void **params = NEW_ARRAY(p->m->c, void *, s->kernel->nparams + 1);
    int64_t *dims = NEW_ARRAY(p->m->c, int64_t, s->kernel->dims.n + 1);
    for (int i = 0; i < s->kernel->nparams; i++) params[i] = place(p, s->args[i]);
    for (int i = 0; i < s->kernel->dims.n; i++) dims[i] = expr_eval(&p->env, s->dims[i]->self).i;
    kernel_run(p->m->c, s->kernel, params, dims);
    return;
  }
  int64_t trips = s->op == ST_FOR ? expr_eval(&p->env, s->extent).i : 1;
  for (int64_t i = 0; i < trips; i++) {
    if (s->op == ST_FOR) map_set(&p->syms, KEY(s->sym), &i);
    for (int k = 0; k < s->n; k++)
      if (s->body[k]) run_program(p, s->body[k]);
  }
}

static void run_kernels(Module *m, const Fuzz *f, Array *out) {
  Machine p = { .env = { machine_sym, machine_load }, .m = m, .syms = map_new(m->c) };
  Graph *g = m->graph;
  int64_t bytes = expr_eval(&p.env, m->arena_bytes).i;
  p.arena = malloc((size_t)bytes + 64);
  memset(p.arena, 0x7f, (size_t)bytes + 64);                 /* what nobody writes is a huge number */
  memset(p.arena, 0, (size_t)expr_eval(&p.env, m->zeroed_bytes).i);
  p.inputs = NEW_ARRAY(m->c, void *, g->inputs.n + 1);
  p.outputs = NEW_ARRAY(m->c, void *, g->outputs.n + 1);
  for (int i = 0; i < g->inputs.n; i++) p.inputs[i] = (void *)f->inputs.v[i].data;
  for (int i = 0; i < g->outputs.n; i++) p.outputs[i] = out[i].data;
  p.weights = test_weights(m);
  run_program(&p, m->program);
  free(p.weights);
  free(p.arena);
}

/* ---- comparing ---- */
static double value_at(DType t, const char *p) { return dtype_is_float(t) ? dtype_load_f(t, p) : (double)dtype_load_i(t, p); }

static bool same(const Fuzz *f, const Value *want, const Array *got, const char *how, const char *name) {
  DType t = want->dtype;
  double scale = largest(want), allowed = (f->half ? HALF_TOLERANCE : TOLERANCE) * (1 + scale), worst = 0;
  int64_t n = value_elements(want), at = 0, bad = 0;
  if (!dtype_is_float(t)) allowed = 0;
  bool shape = got->dtype == t && got->rank == want->rank && !memcmp(got->dims, want->dims, sizeof(int64_t) * (size_t)got->rank);
  for (int64_t i = 0; shape && i < n; i++) {
    double a = value_at(t, (const char *)want->data + (want->splat ? 0 : i * dtype_bytes(t)));
    double b = value_at(t, (const char *)got->data + i * dtype_bytes(t)), gap = isfinite(b) ? fabs(a - b) : INFINITY;
    if (a == b || (isnan(a) && isnan(b)) || gap <= allowed) continue;
    if (!bad++ || gap > worst) worst = gap, at = i;
  }
  if (!shape) printf("  %s '%s': another shape or type\n", how, name);
  else if (bad) printf("  %s '%s': %lld of %lld differ, the most at %lld: %g instead of %g\n", how, name, (long long)bad, (long long)n,
                       (long long)at, value_at(t, (const char *)got->data + at * dtype_bytes(t)),
                       value_at(t, (const char *)want->data + (want->splat ? 0 : at * dtype_bytes(t))));
  return shape && !bad;
}

static Array *arrays_like(Ctx *c, const Value *v, int n) {
  Array *a = NEW_ARRAY(c, Array, n + 1);
  for (int i = 0; i < n; i++) {
    a[i] = (Array){ .dtype = v[i].dtype, .rank = v[i].rank };
    memcpy(a[i].dims, v[i].dims, sizeof a[i].dims);
    array_allocate(c, &a[i]);
  }
  return a;
}

/* ---- a round ---- */
typedef struct { int round; const char *cpu, *path; Fuzz first; Value *want; bool ok; } Round;

static void compute(Round *r) {
  Fuzz *f = &r->first;
  f->interp = interp_new(f->c);
  build(f, r->round);
  r->want = NEW_ARRAY(f->c, Value, f->g->outputs.n + 1);
  for (int i = 0; i < f->g->outputs.n; i++) r->want[i] = *interp_get(f->interp, f->g->outputs.v[i]);
}

static void compile(Ctx *c, Round *r) {
  Fuzz f = { .c = c, .scale = r->first.made };
  build(&f, r->round);
  int n = f.g->outputs.n;
  if (n != r->first.g->outputs.n || f.tensors.n != r->first.tensors.n) diag_bug(c, "the second graph is another");
  if (getenv("DLC_TEST_PRINT")) printf("%s\n", graph_text(f.g)), fflush(stdout);
  Module *m = test_module(c, f.g, r->cpu, r->path);
  Options *options = ctx_copy(c, m->opt, sizeof *m->opt);
  options->eager = r->round % 2 == 0;                        /* extents are small here: other algorithms would never pay */
  m->opt = options;
  if (r->round % 3 == 0) m = test_run_by_texts(m);
  else pipeline_run(m);
  if (getenv("DLC_TEST_PRINT")) printf("%s\n", module_text(m)), fflush(stdout);
  Array *out = arrays_like(c, r->want, n), *in = arrays_like(c, f.inputs.v, f.inputs.n);
  run_kernels(m, &f, out);
  for (int i = 0; i < n; i++) r->ok &= same(&r->first, &r->want[i], &out[i], "interpreted kernels,", r->first.g->outputs.v[i]->name);
  if (m->target->vector_bits > target_find(c, "host")->vector_bits) return;   /* not every machine has them */
  Runner *library = test_library(m, 3);
  for (int i = 0; i < f.inputs.n; i++) memcpy(in[i].data, f.inputs.v[i].data, array_bytes(&in[i]));
  library->run(library, in, out);
  for (int i = 0; i < n; i++) r->ok &= same(&r->first, &r->want[i], &out[i], "library,", r->first.g->outputs.v[i]->name);
}

/* Diagnostics of our own graphs are faults too. */
static bool guarded(Ctx *c, Round *r, bool first) {
  Diags *d = ctx_diags(c);
  if (setjmp(d->unwind)) {
    for (int i = 0; i < d->list.n; i++) printf("  %s %s\n", diag_code_name(d->list.v[i].code), d->list.v[i].text);
    return false;
  }
  d->armed = true;
  if (first) compute(r);
  else compile(c, r);
  return true;
}

static bool run_round(int round, const char *cpu, const char *folder) {
  static const char *const cpus[] = { "host", "x86-64-v2", "x86-64-v3", "x86-64-v4" };
  Ctx *a = ctx_new(), *b = ctx_new();
  Round r = { .round = round, .cpu = cpu ? cpu : cpus[round % COUNT(cpus)], .ok = true, .first = { .c = a } };
  r.path = ctx_printf(a, "%s/m%d.so", folder, round);
  bool ok = guarded(a, &r, true) && (!r.first.g->outputs.n || guarded(b, &r, false)) && r.ok;
  if (!ok) printf("round %d on %s fails\n", round, r.cpu);
  ctx_free(b);
  remove(r.path);
  remove(ctx_printf(a, "%s/m%d.h", folder, round));
  ctx_free(a);
  return ok;
}

static const struct { int round; const char *cpu; } once[] = {           /* failed before */
  { 5187, "x86-64-v3" },           /* a ring around blocked channels */
  { 7130, "x86-64-v3" },           /* groups of a channel axis that runs over its blocks' tail */
};

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 150, first = argc > 2 ? atoi(argv[2]) : 1, failed = 0;
  char folder[] = "/tmp/t_fuzz.XXXXXX";
  if (!mkdtemp(folder)) return 1;
  for (int i = first; i < first + rounds; i++) failed += !run_round(i, argc > 3 ? argv[3] : NULL, folder);
  for (int i = 0; argc == 1 && i < COUNT(once); i++, rounds++) failed += !run_round(once[i].round, once[i].cpu, folder);
  rmdir(folder);
  printf("%d rounds, %d fail\n", rounds, failed);
  return failed != 0;
}
