/* work.c - counts a kernel's operations and bytes: for every store, how often the loops around it run, times what a run does. Loops
 * whose length changes from run to run of an outer one become sums over that one. */
#include "work.h"

/* Terms of a sum that are added up here; of a sum of sums. Longer ones count as their largest term times their number. */
enum { SUM_LIMIT = 1 << 16, NESTED_LIMIT = 256 };

/* What stands around a statement: a loop (copied: unrolled or a vector's), or a condition of the dims and the loops around it (sym NULL);
 * written: the tensors that are stored to within. */
typedef VEC(const Tensor *) Tensors;
typedef struct { Sym *sym; Expr *extent, *cond; bool copied; Tensors written; } Frame;

/* n elements of a parameter that loads (or stores) touch somewhere in this range of offsets */
typedef struct { int param; bool write; Range at; Expr *n; } Touch;

typedef struct {
  Ctx *c;
  const Kernel *k;
  VEC(Frame) frames;
  VEC(Touch) touches;
  Expr *flops, *muls;
  DType type;                      /* of the innermost operations */
  int depth;                       /* of those */
} Count;

static int param_index(const Kernel *k, const Tensor *t) {
  for (int i = 0; i < k->nparams; i++)
    if (k->params[i] == t) return i;
  return -1;
}

/* ---- free symbols ---- */
typedef struct { const Kernel *k; bool dims, others; } Free;

static bool is_dim_of(const Kernel *k, const Sym *s) {
  for (int i = 0; i < k->dims.n; i++)
    if (k->dims.v[i] == s) return true;
  return false;
}

static void note_free(const Expr *e, void *user) {
  Free *f = user;
  if (e->op != EX_SYM) return;
  const Sym *s = e->u.sym;
  if (is_dim_of(f->k, s)) f->dims = true;
  else if (s->kind != SYM_REDUCE) f->others = true;
  else if (s->extent) expr_visit(s->extent, note_free, user);
}

static Free free_of(const Kernel *k, const Expr *e) {
  Free f = {.k = k, .others = e->flags & EXPR_LOAD};
  expr_visit(e, note_free, &f);
  return f;
}

/* ---- how often ---- */
static Expr *closed_value(Count *w, Expr *e) {
  ExprEnv nothing = {NULL, NULL};
  Free f = free_of(w->k, e);
  return f.dims || f.others ? e : ex_int(w->c, expr_eval(&nothing, e).i);
}

/* The sum of e over the loop's runs. */
static Expr *sum_over(Count *w, const Frame *f, Expr *e) {
  int64_t n;
  if (!expr_uses(e, f->sym)) return ex_mul(w->c, f->extent, e);
  if (ex_is_int(f->extent, &n) && n > (e->flags & EXPR_REDUCES ? NESTED_LIMIT : SUM_LIMIT)) {
    Range r = expr_range(w->c, e);
    return ex_mul(w->c, f->extent, ex_int(w->c, r.max == INT64_MAX ? 0 : r.max));
  }
  Sym *s = sym_axis(w->c, SYM_REDUCE, "n", f->extent);
  return closed_value(w, ex_reduce(w->c, RED_SUM, expr_subst1(w->c, e, f->sym, s->self), &s, 1));
}

/* Sets of frames, as bits; the last bit stands for every frame from there on. */
typedef uint64_t Frames;
static Frames bit(int i) { return (Frames)1 << MIN(i, 63); }

/* The loops that an expression depends on, among the outermost n. */
static Frames loops_in(const Count *w, const Expr *e, int n) {
  Frames f = 0;
  for (int i = 0; i < n; i++)
    if (w->frames.v[i].sym && expr_uses(e, w->frames.v[i].sym)) f |= bit(i);
  return f;
}

/* How often these loops run what is inside; with them go those that their lengths depend on, and conditions that depend on no other loop:
 * explicit ones, and that a loop runs at all. */
static Expr *iterations(Count *w, Frames use) {
  Expr *e = ex_int(w->c, 1);
  for (int i = w->frames.n - 1; i >= 0; i--)
    if (w->frames.v[i].sym && (use & bit(i))) use |= loops_in(w, w->frames.v[i].extent, i);
  for (int i = 0; i < w->frames.n; i++)
    if (!w->frames.v[i].sym) use = loops_in(w, w->frames.v[i].cond, i) & ~use ? use & ~bit(i) : use | bit(i);
  for (int i = w->frames.n - 1; i >= 0; i--) {
    const Frame *f = &w->frames.v[i];
    if (use & bit(i)) e = f->sym ? sum_over(w, f, e) : ex_select(w->c, f->cond, e, ex_int(w->c, 0));
    else if (f->sym && expr_range(w->c, f->extent).min < 1 && !(loops_in(w, f->extent, i) & ~use))
      e = ex_mul(w->c, ex_min(w->c, f->extent, ex_int(w->c, 1)), e);
  }
  return e;
}

/* As many elements as the loops give different values to the index, at most. Loads over the same range, as in the branches for whole tiles
 * and for tails, touch the same elements. */
static void touch(Count *w, int param, bool write, Expr *index) {
  Range r = expr_range(w->c, index);
  bool known = r.min != INT64_MIN && r.max != INT64_MAX;
  Expr *n = iterations(w, loops_in(w, index, w->frames.n));
  if (known) n = ex_min(w->c, n, ex_int(w->c, r.max - r.min + 1));
  for (int i = 0; i < w->touches.n && known; i++) {
    Touch *t = &w->touches.v[i];
    if (t->param != param || t->write != write || t->at.min != r.min || t->at.max != r.max) continue;
    t->n = ex_max(w->c, t->n, n);
    return;
  }
  vec_push(w->c, &w->touches, ((Touch){param, write, r, n}));
}

/* How often a value that depends on these loops is computed. Copies of an unrolled loop and lanes of a vector share what they do not change;
 * a serial loop computes again what a loop inside of it changes. */
static Expr *computations(Count *w, Frames depends) {
  Frames use = 0;
  bool inside = false;
  for (int i = w->frames.n - 1; i >= 0; i--) {
    const Frame *f = &w->frames.v[i];
    if (!f->sym || !((depends & bit(i)) || (inside && !f->copied))) continue;
    use |= bit(i);
    inside |= !f->copied;
  }
  return iterations(w, use);
}

/* ---- what a run does ---- */
static int flops_of(Ctx *c, const Expr *e);

typedef struct { Ctx *c; int n; } FlopSum;
static void add_flops(const Expr *e, void *user) {
  FlopSum *sum = user;
  sum->n += flops_of(sum->c, e);
}

/* Of a transcendental operation: of what math.c makes of it. */
static int expanded_flops(Ctx *c, const Expr *e) {
  FlopSum sum = {c, 0};
  Expr *operands[2];
  for (int i = 0; i < e->n; i++)
    operands[i] = ex_is_const(e->a[i]) ? e->a[i] : ex_fetch(c, tensor_new(c, "x", (DType)e->a[i]->dtype, 0, NULL), ex_int(c, 0));
  Stmt *s = st_store(c, tensor_new(c, "y", (DType)e->dtype, 0, NULL), ex_int(c, 0), ex_make(c, e, operands), -1);
  expr_visit(math_expand(c, s)->value, add_flops, &sum);
  return sum.n;
}

static bool is_transcendental(const Expr *e) {
  bool remainder = e->op == EX_TMOD || e->op == EX_MOD || e->op == EX_TDIV;
  return dtype_is_float((DType)e->dtype) && (e->op == EX_POW || e->op >= EX_EXP || remainder);
}

static int flops_of(Ctx *c, const Expr *e) {
  bool compares = e->op == EX_LT || e->op == EX_LE || e->op == EX_EQ || e->op == EX_NE;
  if (!dtype_is_float((DType)(compares ? e->a[0]->dtype : e->dtype))) return 0;
  if (is_transcendental(e)) return expanded_flops(c, e);
  switch (e->op) {
    case EX_ADD: case EX_SUB: case EX_MUL: case EX_DIV: case EX_MIN: case EX_MAX: case EX_SQRT: case EX_FLOOR: case EX_CEIL: case EX_ROUND:
    case EX_TRUNC: case EX_LT: case EX_LE: case EX_EQ: case EX_NE: return 1;
    case EX_FMA: return 2;
    default: return 0;
  }
}

/* The operations of a store, summed up by the loops they depend on. */
typedef struct { Frames loops; int64_t flops, muls; } Tally;
typedef struct { Count *w; Map loops; VEC(Tally) tallies; } Visit;   /* loops: those that a node depends on */

static void tally(Visit *v, Frames loops, DType t, int flops, bool mul) {
  int at = 0, depth = v->w->frames.n;
  while (depth > 0 && !(loops & bit(depth - 1))) depth--;
  if (depth >= v->w->depth) v->w->depth = depth, v->w->type = t;
  while (at < v->tallies.n && v->tallies.v[at].loops != loops) at++;
  if (at == v->tallies.n) vec_push(v->w->c, &v->tallies, ((Tally){.loops = loops}));
  v->tallies.v[at].flops += flops;
  v->tallies.v[at].muls += mul;
}

static bool writes(const Frame *f, const Tensor *t) {
  for (int i = 0; i < f->written.n; i++)
    if (f->written.v[i] == t) return true;
  return false;
}

/* A load of what a loop writes may give another value each time around. */
static Frames own_loops(const Count *w, const Expr *e) {
  Frames loops = e->op == EX_SYM ? loops_in(w, e, w->frames.n) : 0;
  for (int i = 0; i < w->frames.n && e->op == EX_FETCH; i++)
    if (writes(&w->frames.v[i], e->u.tensor)) loops |= bit(i);
  return loops;
}

static void visit(const Expr *e, void *user) {
  Visit *v = user;
  Count *w = v->w;
  int flops = flops_of(w->c, e), param;
  Frames loops = own_loops(w, e);
  for (int i = 0; i < e->n; i++) loops |= (Frames)(uintptr_t)map_get(&v->loops, KEY(e->a[i]));
  map_set(&v->loops, KEY(e), (void *)(uintptr_t)loops);
  if (flops) tally(v, loops, (DType)e->a[0]->dtype, flops, e->op == EX_MUL || e->op == EX_FMA);
  if (e->op == EX_FETCH && (param = param_index(w->k, e->u.tensor)) >= 0)
    touch(w, param, false, e->a[0]);
}

static void count_store(Count *w, const Stmt *s) {
  int param = param_index(w->k, s->tensor);
  Visit v = {.w = w, .loops = map_new(w->c)};
  expr_visit(s->value, visit, &v);
  if (s->combiner >= 0 && dtype_is_float(s->tensor->dtype)) tally(&v, ~(Frames)0, s->tensor->dtype, 1, false);
  for (int i = 0; i < v.tallies.n; i++) {
    const Tally *t = &v.tallies.v[i];
    Expr *n = computations(w, t->loops);
    w->flops = ex_add(w->c, w->flops, ex_mul(w->c, ex_int(w->c, t->flops), n));
    w->muls = ex_add(w->c, w->muls, ex_mul(w->c, ex_int(w->c, t->muls), n));
  }
  if (param < 0) return;
  touch(w, param, true, s->index);
  if (s->combiner >= 0) touch(w, param, false, s->index);
}

static void list_written(Ctx *c, Tensors *t, const Stmt *s) {
  if (s->op == ST_STORE) vec_push(c, t, s->tensor);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) list_written(c, t, s->body[i]);
}

static Frame loop_frame(Ctx *c, const Stmt *s) {
  Frame f = {s->sym, s->extent, NULL, s->kind == LOOP_UNROLL || s->kind == LOOP_VECTOR, {0}};
  list_written(c, &f.written, s->body[0]);
  return f;
}

static void count(Count *w, const Stmt *s) {
  bool decidable = s->op == ST_IF && s->value->flags & EXPR_INDEX && !(s->value->flags & EXPR_LOAD);
  if (s->op == ST_STORE) count_store(w, s);
  for (int i = 0; i < s->n; i++) {
    if (!s->body[i]) continue;
    int outside = w->frames.n;
    if (s->op == ST_FOR) vec_push(w->c, &w->frames, loop_frame(w->c, s));
    if (decidable) vec_push(w->c, &w->frames, ((Frame){.cond = i ? ex_unary(w->c, EX_NOT, s->value) : s->value}));
    count(w, s->body[i]);
    w->frames.n = outside;
  }
}

/* ---- sums ---- */
static Expr *known(const Kernel *k, Expr *e) { return free_of(k, e).others ? NULL : e; }

/* Bytes that are read (or written): a tensor has no more elements than it has, and all of them where more than dims decides. */
static Expr *traffic(Count *w, int param, bool write) {
  Ctx *c = w->c;
  const Kernel *k = w->k;
  const Tensor *t = k->params[param];
  Expr *all = known(k, layout_elements(c, t)), *touched = ex_int(c, 0);
  for (int i = 0; i < w->touches.n; i++)
    if (w->touches.v[i].param == param && w->touches.v[i].write == write) touched = ex_add(c, touched, w->touches.v[i].n);
  Expr *elements = !all ? touched : known(k, touched) ? ex_min(c, touched, all) : all;
  return ex_mul(c, elements, ex_int(c, dtype_bytes(t->dtype)));
}

Work kernel_work(Ctx *c, const Kernel *k) {
  Expr *zero = ex_int(c, 0);
  Count w = {.c = c, .k = k, .flops = zero, .muls = zero, .type = DT_NONE};
  Work r = {.reads = zero, .writes = zero, .weights = zero};
  count(&w, k->body);
  for (int i = 0; i < k->nparams; i++) {
    Expr *reads = traffic(&w, i, false);
    r.reads = ex_add(c, r.reads, reads);
    r.writes = ex_add(c, r.writes, traffic(&w, i, true));
    if (k->params[i]->data) r.weights = ex_add(c, r.weights, reads);
  }
  return (Work){known(k, w.flops), known(k, w.muls), known(k, r.reads), known(k, r.writes), known(k, r.weights), w.type};
}
