/* work.c - counts a kernel's operations and bytes: for every store, how often the loops around it run, times what a run does. Loops
 * whose length changes from run to run of an outer one become sums over that one. */
#include "work.h"

enum { SUM_LIMIT = 1 << 16,        /* terms of a sum that are added up here; longer ones count as their largest term times their number */
       UNEXPANDED = 10 };          /* operations that a transcendental one stands for */

/* What stands around a statement: a loop, or a condition of the dims and the loops around it (sym NULL). */
typedef struct { Sym *sym; Expr *extent, *cond; } Frame;

typedef struct {
  Ctx *c;
  const Kernel *k;
  VEC(Frame) frames;
  Expr *flops, **reads, **writes;  /* the last two by parameter, in elements */
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
  Free f = {.k = k};
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
  if (ex_is_int(f->extent, &n) && n > SUM_LIMIT) {
    Range r = expr_range(w->c, e);
    return ex_mul(w->c, f->extent, ex_int(w->c, r.max == INT64_MAX ? 0 : r.max));
  }
  Sym *s = sym_axis(w->c, SYM_REDUCE, "n", f->extent);
  return closed_value(w, ex_reduce(w->c, RED_SUM, expr_subst1(w->c, e, f->sym, s->self), &s, 1));
}

/* How often the outermost n frames run what is inside; `use`: only these of them. */
static Expr *iterations(Count *w, const bool *use, int n) {
  Expr *e = ex_int(w->c, 1);
  for (int i = n - 1; i >= 0; i--) {
    const Frame *f = &w->frames.v[i];
    if (use && !use[i]) continue;
    e = f->sym ? sum_over(w, f, e) : ex_select(w->c, f->cond, e, ex_int(w->c, 0));
  }
  return e;
}

/* Different values that the loops give the index, at most. */
static Expr *elements_at(Count *w, const Expr *index) {
  bool *use = NEW_ARRAY(w->c, bool, w->frames.n + 1);
  for (int i = w->frames.n - 1; i >= 0; i--) {
    const Frame *f = &w->frames.v[i];
    use[i] = f->sym && (use[i] || expr_uses(index, f->sym));
    for (int k = 0; k < i && use[i]; k++)
      use[k] |= w->frames.v[k].sym && expr_uses(f->extent, w->frames.v[k].sym);
  }
  return iterations(w, use, w->frames.n);
}

/* ---- what a run does ---- */
static int flops_of(const Expr *e) {
  bool compares = e->op == EX_LT || e->op == EX_LE || e->op == EX_EQ || e->op == EX_NE;
  if (!dtype_is_float((DType)(compares ? e->a[0]->dtype : e->dtype))) return 0;
  switch (e->op) {
    case EX_ADD: case EX_SUB: case EX_MUL: case EX_DIV: case EX_MIN: case EX_MAX: case EX_SQRT: case EX_TDIV: case EX_TMOD: case EX_MOD:
    case EX_FLOOR: case EX_CEIL: case EX_ROUND: case EX_TRUNC: case EX_LT: case EX_LE: case EX_EQ: case EX_NE: return 1;
    case EX_FMA: return 2;
    default: return e->op == EX_POW || e->op >= EX_EXP ? UNEXPANDED : 0;
  }
}

typedef struct { Count *w; Map depth; int64_t *ops; } Visit;       /* depth: of the innermost frame that a node depends on; ops: by depth */

static int depth_of(Visit *v, const Expr *e) { return (int)(intptr_t)map_get(&v->depth, KEY(e)); }

/* A load of what the kernel itself writes may give another value each time. */
static int own_depth(const Count *w, const Expr *e) {
  int n = w->frames.n, param;
  if (e->op == EX_FETCH && ((param = param_index(w->k, e->u.tensor)) < 0 || w->k->writes[param])) return n;
  while (e->op == EX_SYM && n > 0 && w->frames.v[n - 1].sym != e->u.sym) n--;
  return e->op == EX_SYM ? n : 0;
}

static void visit(const Expr *e, void *user) {
  Visit *v = user;
  int depth = own_depth(v->w, e), ops = flops_of(e), param;
  for (int i = 0; i < e->n; i++) depth = MAX(depth, depth_of(v, e->a[i]));
  map_set(&v->depth, KEY(e), (void *)(intptr_t)depth);
  v->ops[depth] += ops;
  if (e->op == EX_FETCH && (param = param_index(v->w->k, e->u.tensor)) >= 0)
    v->w->reads[param] = ex_add(v->w->c, v->w->reads[param], elements_at(v->w, e->a[0]));
}

static void count_store(Count *w, const Stmt *s) {
  int n = w->frames.n, param = param_index(w->k, s->tensor);
  Visit v = {w, map_new(w->c), NEW_ARRAY(w->c, int64_t, n + 1)};
  expr_visit(s->value, visit, &v);
  if (s->combiner >= 0) v.ops[n] += dtype_is_float(s->tensor->dtype);
  for (int i = 0; i <= n; i++)
    if (v.ops[i]) w->flops = ex_add(w->c, w->flops, ex_mul(w->c, ex_int(w->c, v.ops[i]), iterations(w, NULL, i)));
  if (param < 0) return;
  Expr *touched = elements_at(w, s->index);
  w->writes[param] = ex_add(w->c, w->writes[param], touched);
  if (s->combiner >= 0) w->reads[param] = ex_add(w->c, w->reads[param], touched);
}

static void count(Count *w, const Stmt *s) {
  bool decidable = s->op == ST_IF && s->value->flags & EXPR_INDEX && !(s->value->flags & EXPR_LOAD);
  if (s->op == ST_STORE) count_store(w, s);
  for (int i = 0; i < s->n; i++) {
    if (!s->body[i]) continue;
    int outside = w->frames.n;
    if (s->op == ST_FOR) vec_push(w->c, &w->frames, ((Frame){s->sym, s->extent, NULL}));
    if (decidable) vec_push(w->c, &w->frames, ((Frame){NULL, NULL, i ? ex_unary(w->c, EX_NOT, s->value) : s->value}));
    count(w, s->body[i]);
    w->frames.n = outside;
  }
}

/* ---- sums ---- */
static Expr *known(const Kernel *k, Expr *e) { return free_of(k, e).others ? NULL : e; }

/* Bytes behind that many element accesses: a tensor has no more elements than it has. */
static Expr *traffic(Ctx *c, const Kernel *k, const Tensor *t, Expr *touched) {
  Expr *all = known(k, layout_elements(c, t));
  return ex_mul(c, all ? ex_min(c, touched, all) : touched, ex_int(c, dtype_bytes(t->dtype)));
}

Work kernel_work(Ctx *c, const Kernel *k) {
  Expr *zero = ex_int(c, 0);
  Count w = {.c = c, .k = k, .flops = zero, .reads = NEW_ARRAY(c, Expr *, k->nparams + 1), .writes = NEW_ARRAY(c, Expr *, k->nparams + 1)};
  Work r = {.bytes = zero, .weights = zero};
  for (int i = 0; i < k->nparams; i++) w.reads[i] = w.writes[i] = zero;
  count(&w, k->body);
  for (int i = 0; i < k->nparams; i++) {
    Expr *b = ex_add(c, traffic(c, k, k->params[i], w.reads[i]), traffic(c, k, k->params[i], w.writes[i]));
    r.bytes = ex_add(c, r.bytes, b);
    if (k->params[i]->data) r.weights = ex_add(c, r.weights, b);
  }
  return (Work){known(k, w.flops), known(k, r.bytes), known(k, r.weights)};
}
