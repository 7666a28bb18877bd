/* stmt_canon.c - see canon.h: copies of statements and expressions in canonical form.
 *
 * The order of commutative operands follows the order in which expressions were made, and names the history of the
 * compile: a symbol called i may be i.37 in its hundredth kernel. The copy has symbols and tensors of its own, made
 * in the order in which they stand in the kernel, and its expressions are built in an order that depends on structure
 * and names alone. So equal kernels have equal text whatever happened before, and text that was read back prints as
 * it was.
 */
#include "canon.h"

#include "diag.h"

/* ---- what is copied already, here or further out ---- */

static Sym *known_sym(const Canon *k, const Sym *s) {
  Sym *copy = NULL;
  for (; k && !copy; k = k->outer) copy = map_get(&k->syms, KEY(s));
  return copy;
}

static Tensor *known_tensor(const Canon *k, const Tensor *t) {
  Tensor *copy = NULL;
  for (; k && !copy; k = k->outer) copy = map_get(&k->tensors, KEY(t));
  return copy;
}

/* ---- names ---- */

static bool is_taken(const Canon *k, const char *name) {
  for (; k; k = k->outer)
    if (map_get(&k->taken, KEY(name))) return true;
  return false;
}

/* The first of stem, stem.1, stem.2 ... that is free. */
static const char *free_name(Canon *k, const char *stem) {
  const char *name = ctx_intern(k->c, stem);
  for (int i = 1; is_taken(k, name); i++) name = ctx_intern(k->c, ctx_printf(k->c, "%s.%d", stem, i));
  map_set(&k->taken, KEY(name), k);
  return name;
}

/* A loop's name without the .N in it that tell it from others in the compile: ci.1.o is ci.o. Dimensions are the model's
 * and keep theirs. */
static const char *stem_of(Canon *k, const Sym *s) {
  if (s->kind == SYM_DIM) return s->name;
  Str stem = str_new(k->c);
  for (const char *p = s->name; *p;) {
    size_t n = strcspn(p + 1, ".") + 1, digits = strspn(p + 1, "0123456789") + 1;
    if (*p != '.' || n == 1 || digits < n) str_add(&stem, "%.*s", (int)n, p);
    p += n;
  }
  return ctx_intern(k->c, stem.s);
}

/* ---- hashes of structure ---- */

static uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t h = (a ^ b * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
  return h ^ h >> 29;
}

static uint64_t hash_name(const char *name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

/* The operands whose order means nothing: of one commutative node, or of a chain of them where grouping
 * means nothing either. */
typedef VEC(Expr *) Terms;

static bool commutes(const Expr *e) { return e->n == 2 && strchr(expr_info[e->op].flags, 'C'); }

static bool is_chain(const Expr *e) { return strchr(expr_info[e->op].flags, 'A') && !dtype_is_float((DType)e->dtype); }

static void take_terms(Ctx *c, const Expr *e, Terms *to) {
  bool chain = is_chain(e);
  for (int i = 0; i < e->n; i++)
    if (chain && e->a[i]->op == e->op && to->n < 256) take_terms(c, e->a[i], to);
    else vec_push(c, to, e->a[i]);
}

static uint64_t hash_leaf(Canon *k, const Expr *e) {
  uint64_t h = mix(e->op, e->dtype);
  const Sym *s;
  const Tensor *t;
  switch (e->op) {
  case EX_SYM:
    s = known_sym(k, e->u.sym);
    return mix(h, hash_name(s ? s->name : stem_of(k, e->u.sym)));
  case EX_LOAD: case EX_FETCH:
    t = known_tensor(k, e->u.tensor);
    return mix(h, hash_name(t ? t->name : e->u.tensor->name));
  case EX_CONST: case EX_REDUCE: return mix(h, (uint64_t)e->u.i);
  default: return h;
  }
}

static uint64_t hash_expr(Canon *k, const Expr *e) {
  uint64_t *known = map_get(&k->hashes, KEY(e));
  if (known) return *known;
  uint64_t h = hash_leaf(k, e);
  if (commutes(e)) {
    Terms terms = { 0 };
    uint64_t sum = 0;
    take_terms(k->c, e, &terms);
    for (int i = 0; i < terms.n; i++) sum += hash_expr(k, terms.v[i]);
    h = mix(h, sum);
  } else {
    for (int i = 0; i < e->n; i++) h = mix(h, hash_expr(k, e->a[i]));
  }
  known = NEW(k->c, uint64_t);
  *known = h;
  map_set(&k->hashes, KEY(e), known);
  return h;
}

/* ---- expressions ---- */

static Expr *copy_expr(Canon *k, Expr *e);

static Sym *copy_sym(Canon *k, Sym *s) {
  Sym *copy = known_sym(k, s);
  if (copy) return copy;
  Expr *extent = s->extent ? copy_expr(k, s->extent) : NULL;
  copy = sym_new(k->c, s->kind, ctx_printf(k->c, "#%d", ctx_serial(k->c)), s->min, s->max);
  copy->multiple = s->multiple;
  copy->extent = extent;
  copy->name = free_name(k, stem_of(k, s));
  map_set(&k->syms, KEY(s), copy);
  return copy;
}

static Tensor *copy_tensor(Canon *k, Tensor *t) {
  Tensor *copy = known_tensor(k, t);
  if (copy) return copy;
  copy = tensor_new(k->c, free_name(k, t->name), t->dtype, t->rank, t->shape);
  copy->scope = t->data ? SCOPE_CONST : t->scope;
  copy->layout = t->layout;
  if (t->scope == SCOPE_SCRATCH && t->offset) copy->offset = copy_expr(k, t->offset);
  for (int i = 0; i < t->rank; i++) copy->shape[i] = copy_expr(k, t->shape[i]);
  map_set(&k->tensors, KEY(t), copy);
  return copy;
}

static bool is_negative(const Expr *e) {
  const Expr *k = e->op == EX_MUL ? e->a[1] : e;
  return ex_is_const(k) && k->u.i < 0;
}

/* The operands of e as they are printed: by their hashes, but a positive one first. */
static Terms sorted_terms(Canon *k, const Expr *e) {
  Terms t = { 0 };
  take_terms(k->c, e, &t);
  for (int i = 1; i < t.n; i++)
    for (int j = i; j > 0 && hash_expr(k, t.v[j]) < hash_expr(k, t.v[j - 1]); j--) {
      Expr *swap = t.v[j];
      t.v[j] = t.v[j - 1], t.v[j - 1] = swap;
    }
  int first = 0;
  while (e->op == EX_ADD && is_chain(e) && first < t.n && is_negative(t.v[first])) first++;
  if (first == 0 || first == t.n) return t;
  Expr *positive = t.v[first];
  memmove(t.v + 1, t.v, sizeof *t.v * (size_t)first);
  t.v[0] = positive;
  return t;
}

/* Operands are made in the order in which the text has them, as whoever reads it makes them: what the constructors find to simplify
 * may depend on that. A chain is built anew, so that nothing is left of how it was grouped. */
static Expr *copy_commutative(Canon *k, Expr *e) {
  Terms t = sorted_terms(k, e);
  Expr *a[2] = { copy_expr(k, t.v[0]) };
  if (is_chain(e)) {
    for (int i = 1; i < t.n; i++) a[1] = copy_expr(k, t.v[i]), a[0] = ex_make(k->c, e, a);
    return a[0];
  }
  for (int i = 1; i < t.n; i++) copy_expr(k, t.v[i]);
  for (int i = 0; i < 2; i++) a[i] = copy_expr(k, e->a[i]);
  return ex_make(k->c, e, a);
}

static Expr *copy_node(Canon *k, Expr *e) {
  Expr **a = NEW_ARRAY(k->c, Expr *, e->n + 1);
  if (e->op == EX_SYM) return copy_sym(k, e->u.sym)->self;
  if (commutes(e)) return copy_commutative(k, e);
  if (e->op == EX_REDUCE)                                /* axes first: the body uses them */
    for (int i = 1; i < e->n; i++) a[i] = copy_expr(k, e->a[i]);
  for (int i = 0; i < e->n; i++) a[i] = copy_expr(k, e->a[i]);
  if (e->op == EX_FETCH) return ex_fetch(k->c, copy_tensor(k, e->u.tensor), a[0]);
  if (e->op == EX_LOAD) return ex_load(k->c, copy_tensor(k, e->u.tensor), a, e->n);
  return ex_make(k->c, e, a);
}

static Expr *copy_expr(Canon *k, Expr *e) {
  if (e->op == EX_CONST) return dtype_is_float((DType)e->dtype) ? ex_const(k->c, (DType)e->dtype, e->u.f) : ex_const_i(k->c, (DType)e->dtype, e->u.i);
  Expr *copy = map_get(&k->exprs, KEY(e));
  if (copy) return copy;
  copy = copy_node(k, e);
  map_set(&k->exprs, KEY(e), copy);
  return copy;
}

/* ---- statements ---- */

/* What is known of a loop's variable follows from the loop. Every loop gets one of its own, also where two loops shared one. Counters
 * of programs are dimensions to their kernels and stay as they are. */
static Sym *copy_loop_sym(Canon *k, Sym *s, Expr *extent) {
  if (s->kind == SYM_DIM) return copy_sym(k, s);
  if (known_sym(k, s)) k->exprs = map_new(k->c), k->hashes = map_new(k->c);
  Sym *copy = sym_axis(k->c, s->kind, ctx_printf(k->c, "#%d", ctx_serial(k->c)), extent);
  copy->name = free_name(k, stem_of(k, s));
  map_set(&k->syms, KEY(s), copy);
  return copy;
}

static Stmt *copy_stmt(Canon *k, const Stmt *s) {
  if (!s) return NULL;
  Stmt *copy = ctx_copy(k->c, s, sizeof *s);
  if (s->extent) copy->extent = copy_expr(k, s->extent);
  if (s->sym) copy->sym = copy_loop_sym(k, s->sym, copy->extent);
  if (s->tensor) copy->tensor = copy_tensor(k, s->tensor);
  if (s->index) copy->index = copy_expr(k, s->index);
  if (s->value) copy->value = copy_expr(k, s->value);
  if (s->args) {
    copy->args = NEW_ARRAY(k->c, Tensor *, s->kernel->nparams);
    for (int i = 0; i < s->kernel->nparams; i++) copy->args[i] = copy_tensor(k, s->args[i]);
  }
  if (s->dims) {
    copy->dims = NEW_ARRAY(k->c, Sym *, s->kernel->dims.n + 1);
    for (int i = 0; i < s->kernel->dims.n; i++) copy->dims[i] = copy_sym(k, s->dims[i]);
  }
  if (s->n) copy->body = NEW_ARRAY(k->c, Stmt *, s->n);
  for (int i = 0; i < s->n; i++) copy->body[i] = copy_stmt(k, s->body[i]);
  return copy;
}

/* ---- entries ---- */

Canon canon_new(Ctx *c, const Canon *outer) {
  return (Canon){ .c = c, .outer = outer, .syms = map_new(c), .tensors = map_new(c), .exprs = map_new(c),
                 .hashes = map_new(c), .taken = map_new(c) };
}

Canon canon_twice(Ctx *c, const Canon *outer) {
  Canon k = canon_new(c, outer);
  k.again = NEW(c, Canon);
  *k.again = canon_new(c, outer ? outer->again : NULL);
  return k;
}

Sym *canon_sym(Canon *k, Sym *s) { return k->again ? copy_sym(k->again, copy_sym(k, s)) : copy_sym(k, s); }
Tensor *canon_tensor(Canon *k, Tensor *t) { return k->again ? copy_tensor(k->again, copy_tensor(k, t)) : copy_tensor(k, t); }
Expr *canon_expr(Canon *k, Expr *e) { return k->again ? copy_expr(k->again, copy_expr(k, e)) : copy_expr(k, e); }
Stmt *canon_stmt(Canon *k, const Stmt *s) { return k->again ? copy_stmt(k->again, copy_stmt(k, s)) : copy_stmt(k, s); }

Stmt *stmt_canonical(Ctx *c, const Stmt *s) {
  Canon k = canon_new(c, NULL);
  return copy_stmt(&k, s);
}

Kernel *kernel_canonical(Ctx *c, const Kernel *kernel) {
  Canon k = canon_new(c, NULL);
  Kernel *copy = ctx_copy(c, kernel, sizeof *kernel);
  if (kernel->dims.n) copy->dims.v = NEW_ARRAY(c, Sym *, kernel->dims.n);
  copy->dims.cap = kernel->dims.n;
  for (int i = 0; i < kernel->dims.n; i++) copy->dims.v[i] = copy_sym(&k, kernel->dims.v[i]);
  copy->params = NEW_ARRAY(c, Tensor *, kernel->nparams + 1);
  for (int i = 0; i < kernel->nparams; i++) copy->params[i] = copy_tensor(&k, kernel->params[i]);
  if (kernel->scratch_bytes) copy->scratch_bytes = copy_expr(&k, kernel->scratch_bytes);
  copy->body = copy_stmt(&k, kernel->body);
  return copy;
}
