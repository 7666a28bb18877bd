/* expr.c - the hash-consed expression: tables, symbols, constructors.
 *
 * A constructor checks types, folds constants, brings integer arithmetic into canonical form (expr_lin.c), tries the
 * rules (expr_rules.c) and only then makes the node. Commutative operands stand in the order of creation, constants
 * last. */
#include "expr_impl.h"
#include "graph.h"

const ExprInfo expr_info[EX_COUNT] = {
#define EXPR(op, text, arity, form, type, flags) {#op, text, arity, form, type, flags},
#include "expr.def"
#undef EXPR
};

const char *const combiner_name[RED_COUNT] = {"sum", "prod", "min", "max", "all", "any"};

/* ---- interning ---- */
static uint64_t payload_bits(const Expr *e) {
  switch (e->op) {
  case EX_SYM: return (uint64_t)e->u.sym->id;
  case EX_LOAD: case EX_FETCH: return (uint64_t)e->u.tensor->id;
  default: return (uint64_t)e->u.i;
  }
}

static uint32_t hash_of(const Expr *head, Expr *const *a) {
  uint64_t kind = head->op | (uint64_t)head->dtype << 8 | (uint64_t)head->n << 16;
  uint64_t h = mix64(kind) ^ mix64(payload_bits(head) + 0x9e3779b97f4a7c15u);
  for (int i = 0; i < head->n; i++) h = mix64(h * 31 + a[i]->id);
  return (uint32_t)h;
}

static bool same(const Expr *e, const Expr *head, Expr *const *a) {
  if (e->op != head->op || e->dtype != head->dtype || e->n != head->n || e->u.i != head->u.i) return false;
  for (int i = 0; i < head->n; i++)
    if (e->a[i] != a[i]) return false;
  return true;
}

static void exprs_grow(Ctx *c) {
  uint32_t cap = c->cap_exprs ? c->cap_exprs * 2 : 1024;
  Expr **t = NEW_ARRAY(c, Expr *, cap);
  for (uint32_t i = 0; i < c->cap_exprs; i++) {
    if (!c->exprs[i]) continue;
    uint32_t at = c->exprs[i]->hash & (cap - 1);
    while (t[at]) at = (at + 1) & (cap - 1);
    t[at] = c->exprs[i];
  }
  c->exprs = t;
  c->cap_exprs = cap;
}

/* What is known of a node from its operands. */
static void summarize(Expr *e) {
  uint64_t size = 1;
  uint32_t all = ~0u;
  for (int i = 0; i < e->n; i++) {
    size += e->a[i]->size;
    e->syms |= e->a[i]->syms;
    e->flags |= e->a[i]->flags & (EXPR_AXIS | EXPR_LOAD | EXPR_REDUCES);
    all &= e->a[i]->flags;
  }
  e->size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
  bool pure = e->op != EX_LOAD && e->op != EX_FETCH && e->op != EX_REDUCE && e->op != EX_CAST && e->op != EX_BITCAST;
  if (pure && (e->dtype == DT_I64 || e->dtype == DT_BOOL) && all & EXPR_INDEX) e->flags |= EXPR_INDEX;
  if (e->op == EX_LOAD || e->op == EX_FETCH) e->flags |= EXPR_LOAD;
  if (e->op == EX_SYM) {
    e->syms = 1u << (e->u.sym->id & 31);
    if (e->u.sym->kind != SYM_DIM) e->flags |= EXPR_AXIS;
  }
  if (e->op == EX_REDUCE) {        /* the extents of its axes are part of it */
    e->flags |= EXPR_REDUCES;
    for (int i = 1; i < e->n; i++)
      if (e->a[i]->u.sym->extent) e->syms |= e->a[i]->u.sym->extent->syms;
  }
}

Expr *expr_intern(Ctx *c, const Expr *head, Expr *const *a) {
  if (2 * (c->nexprs + 1) > c->cap_exprs) exprs_grow(c);
  uint32_t hash = hash_of(head, a), at = hash & (c->cap_exprs - 1);
  for (; c->exprs[at]; at = (at + 1) & (c->cap_exprs - 1))
    if (c->exprs[at]->hash == hash && same(c->exprs[at], head, a)) return c->exprs[at];
  Expr *e = ctx_alloc(c, sizeof *e + sizeof(Expr *) * head->n);
  *e = *head;
  e->id = c->nexprs++;
  e->hash = hash;
  for (int i = 0; i < head->n; i++) e->a[i] = a[i];
  summarize(e);
  return c->exprs[at] = e;
}

Expr *expr_raw(Ctx *c, ExprOp op, DType t, Expr *const *a, int n) {
  return expr_intern(c, &(Expr){.op = op, .dtype = t, .n = (uint16_t)n}, a);
}

/* ---- symbols ---- */
Sym *sym_new(Ctx *c, SymKind kind, const char *name, int64_t min, int64_t max) {
  const char *stem = ctx_intern(c, name), *full = stem;
  intptr_t n = (intptr_t)map_get(&c->sym_last, KEY(stem));
  while (map_get(&c->sym_names, KEY(full))) full = ctx_intern(c, ctx_printf(c, "%s.%d", name, (int)++n));
  map_set(&c->sym_last, KEY(stem), (void *)n);
  Sym *s = NEW(c, Sym);
  *s = (Sym){.name = full, .kind = kind, .id = c->nsyms++, .min = min, .max = max, .multiple = 1};
  map_set(&c->sym_names, KEY(full), s);
  s->self = expr_intern(c, &(Expr){.op = EX_SYM, .dtype = DT_I64, .u.sym = s}, NULL);
  return s;
}

Sym *sym_axis(Ctx *c, SymKind kind, const char *name, Expr *extent) {
  if (extent->dtype != DT_I64)
    diag_bug(c, "the extent of axis %s is %s, not i64", name, dtype_info[extent->dtype].name);
  int64_t max = expr_range(c, extent).max;
  Sym *s = sym_new(c, kind, name, 0, max == INT64_MAX ? max : MAX(max, 1) - 1);
  s->extent = extent;
  return s;
}

/* ---- constants ---- */
Expr *ex_const_i(Ctx *c, DType t, int64_t v) {
  if (dtype_is_float(t)) return ex_const(c, t, (double)v);
  return expr_intern(c, &(Expr){.op = EX_CONST, .dtype = t, .u.i = scalar_wrap(t, v)}, NULL);
}

Expr *ex_const(Ctx *c, DType t, double v) {
  if (!dtype_is_float(t)) return ex_const_i(c, t, scalar_cast(t, DT_F64, (Scalar){.f = v}).i);
  return expr_intern(c, &(Expr){.op = EX_CONST, .dtype = t, .u.f = scalar_round(t, v)}, NULL);
}

Expr *ex_int(Ctx *c, int64_t v) { return ex_const_i(c, DT_I64, v); }
Expr *ex_bool(Ctx *c, bool v) { return ex_const_i(c, DT_BOOL, v); }

static Expr *const_scalar(Ctx *c, DType t, Scalar v) {
  return dtype_is_float(t) ? ex_const(c, t, v.f) : ex_const_i(c, t, v.i);
}

static const char *type_name(const Expr *e) { return dtype_info[e->dtype].name; }

/* ---- nodes: fold, rewrite, or make ---- */
static Expr *finish(Ctx *c, const Expr *head, Expr *const *a) {
  bool constant = head->n > 0;
  for (int i = 0; i < head->n; i++) constant &= a[i]->op == EX_CONST;
  if (constant) {
    Expr *e = expr_intern(c, head, a);
    Scalar v[3];
    for (int i = 0; i < head->n; i++)
      v[i] = dtype_is_float(a[i]->dtype) ? (Scalar){.f = a[i]->u.f} : (Scalar){.i = a[i]->u.i};
    return const_scalar(c, head->dtype, expr_apply(e, v));
  }
  Expr *e = rules_apply(c, head, a);
  return e ? e : expr_intern(c, head, a);
}

static bool type_fits(ExprOp op, DType t) {
  if (t == DT_BOOL)
    return op == EX_AND || op == EX_OR || op == EX_XOR || op == EX_NOT || op == EX_EQ || op == EX_NE ||
           op == EX_LT || op == EX_LE || op == EX_MIN || op == EX_MAX;
  if (op == EX_AND || op == EX_OR || op == EX_XOR || op == EX_NOT || op == EX_SHL || op == EX_SHR)
    return dtype_is_int(t);
  if (op >= EX_FLOOR) return dtype_is_float(t);
  return true;
}

Expr *ex_unary(Ctx *c, ExprOp op, Expr *a) {
  if (expr_info[op].arity != 1 || expr_info[op].type != 's' || !type_fits(op, a->dtype))
    diag_bug(c, "%s of %s: %s", expr_info[op].text, type_name(a), expr_text(c, a));
  if (op == EX_NEG && dtype_is_int(a->dtype)) return lin_sum(c, ex_const_i(c, a->dtype, 0), a, -1);
  return finish(c, &(Expr){.op = op, .dtype = a->dtype, .n = 1}, &a);
}

/* What binary constructors gave before: the canonical forms cost more to find than to look up. */
struct BuildMemo { Expr *a, *b, *result; uint32_t op; };

static uint32_t memo_hash(ExprOp op, const Expr *a, const Expr *b) {
  return (uint32_t)mix64((uint64_t)a->id << 32 ^ (uint64_t)b->id << 6 ^ op);
}

static struct BuildMemo *memo_slot(Ctx *c, ExprOp op, const Expr *a, const Expr *b) {
  uint32_t mask = c->cap_memo - 1, at = memo_hash(op, a, b) & mask;
  while (c->memo[at].a && !(c->memo[at].a == a && c->memo[at].b == b && c->memo[at].op == op)) at = (at + 1) & mask;
  return &c->memo[at];
}

static void memo_grow(Ctx *c) {
  struct BuildMemo *old = c->memo;
  uint32_t old_cap = c->cap_memo;
  c->cap_memo = old_cap ? old_cap * 2 : 1024;
  c->memo = NEW_ARRAY(c, struct BuildMemo, c->cap_memo);
  for (uint32_t i = 0; i < old_cap; i++)
    if (old[i].a) *memo_slot(c, (ExprOp)old[i].op, old[i].a, old[i].b) = old[i];
}

/* Commutative operands: constants last, else in order of creation. */
static void order(Expr **a, Expr **b) {
  if (ex_is_const(*a) != ex_is_const(*b) ? !ex_is_const(*a) : (*a)->id <= (*b)->id) return;
  Expr *swap = *a;
  *a = *b, *b = swap;
}

static Expr *binary(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  DType t = expr_info[op].type == 'b' ? DT_BOOL : (DType)a->dtype;
  bool integer = dtype_is_int(a->dtype), constant = ex_is_const(a) && ex_is_const(b);
  Expr *e = NULL;
  if (integer && !constant) {
    switch (op) {
    case EX_ADD: return lin_sum(c, a, b, 1);
    case EX_SUB: return lin_sum(c, a, b, -1);
    case EX_MUL: return lin_product(c, a, b);
    case EX_DIV: case EX_MOD: return lin_divmod(c, a, b, op == EX_MOD);
    case EX_LT: case EX_LE: case EX_EQ: case EX_NE: e = lin_compare(c, op, a, b); break;
    case EX_MIN: case EX_MAX: e = lin_minmax(c, op, a, b); break;
    default: break;
    }
  }
  if ((op == EX_AND || op == EX_OR) && t == DT_BOOL && !constant) e = lin_logic(c, op, a, b);
  return e ? e : finish(c, &(Expr){.op = op, .dtype = t, .n = 2}, (Expr *[]){a, b});
}

Expr *ex_binary(Ctx *c, ExprOp op, Expr *a, Expr *b) {
  if (expr_info[op].arity != 2 || a->dtype != b->dtype || !type_fits(op, a->dtype))
    diag_bug(c, "%s of %s and %s: %s and %s", expr_info[op].text, type_name(a), type_name(b), expr_text(c, a),
             expr_text(c, b));
  if (strchr(expr_info[op].flags, 'C')) order(&a, &b);
  if (2 * (c->nmemo + 1) > c->cap_memo) memo_grow(c);
  struct BuildMemo *known = memo_slot(c, op, a, b);
  if (known->a) return known->result;
  Expr *e = binary(c, op, a, b);
  if (2 * (c->nmemo + 1) > c->cap_memo) memo_grow(c);
  known = memo_slot(c, op, a, b);  /* the table may have moved meanwhile */
  if (!known->a) c->nmemo++;
  *known = (struct BuildMemo){a, b, e, op};
  return e;
}

Expr *ex_select(Ctx *c, Expr *cond, Expr *a, Expr *b) {
  if (cond->dtype != DT_BOOL || a->dtype != b->dtype)
    diag_bug(c, "select of %s, %s and %s: %s", type_name(cond), type_name(a), type_name(b), expr_text(c, cond));
  if (ex_is_const(cond)) return cond->u.i ? a : b;
  if (a == b) return a;
  Expr *arms[] = {cond, a, b};
  Expr head = {.op = EX_SELECT, .dtype = a->dtype, .n = 3}, *e = rules_apply(c, &head, arms);
  return e ? e : expr_intern(c, &head, arms);
}

Expr *ex_fma(Ctx *c, Expr *a, Expr *b, Expr *addend) {
  if (a->dtype != b->dtype || a->dtype != addend->dtype || a->dtype == DT_BOOL)
    diag_bug(c, "fma of %s, %s and %s", type_name(a), type_name(b), type_name(addend));
  if (dtype_is_int(a->dtype)) return ex_add(c, ex_mul(c, a, b), addend);
  order(&a, &b);
  return finish(c, &(Expr){.op = EX_FMA, .dtype = a->dtype, .n = 3}, (Expr *[]){a, b, addend});
}

/* ---- casts ---- */
/* Every value of `from` is one of `to`. */
static bool holds_all(DType to, DType from) {
  const DTypeInfo *t = &dtype_info[to], *f = &dtype_info[from];
  if (to == from || f->kind == 'b') return true;
  if (t->kind == 'b') return false;
  if (t->kind == 'f') {
    int digits = to == DT_F64 ? 53 : to == DT_F32 ? 24 : to == DT_F16 ? 11 : 8;
    if (f->kind == 'f') return t->bits > f->bits;
    return f->bits - (f->kind == 'i') <= digits;
  }
  if (f->kind == 'f' || (f->kind == 'i' && t->kind == 'u')) return false;
  return t->bits - (t->kind == 'i') >= f->bits - (f->kind == 'i');
}

Expr *ex_cast(Ctx *c, DType t, Expr *a) {
  if (t == a->dtype) return a;
  if (a->op == EX_CAST) {
    Expr *x = a->a[0];
    DType mid = a->dtype, from = x->dtype;
    bool integers = dtype_is_int(t) && dtype_is_int(mid) && dtype_is_int(from);
    bool wraps = integers && dtype_info[t].bits <= dtype_info[mid].bits;
    bool saturates = dtype_is_float(mid) && dtype_is_int(from) && dtype_is_int(t) && !holds_all(t, from);
    if (wraps || (holds_all(mid, from) && !saturates)) return ex_cast(c, t, x);
    if (dtype_is_int(mid) && dtype_is_int(from)) {           /* the values at hand fit, if not all of the type */
      Range r = expr_range(c, x), all = range_of_type(mid);
      bool open = dtype_info[mid].bits == 64 && (r.max == INT64_MAX || (mid == DT_U64 && r.min < 0));
      if (!open && r.min >= all.min && r.max <= all.max) return ex_cast(c, t, x);
    }
  }
  return finish(c, &(Expr){.op = EX_CAST, .dtype = t, .n = 1}, &a);
}

Expr *ex_bitcast(Ctx *c, DType t, Expr *a) {
  if (dtype_info[t].bits != dtype_info[a->dtype].bits)
    diag_bug(c, "bitcast of %s to %s", type_name(a), dtype_info[t].name);
  if (a->op == EX_BITCAST) a = a->a[0];
  if (t == a->dtype) return a;
  return finish(c, &(Expr){.op = EX_BITCAST, .dtype = t, .n = 1}, &a);
}

/* ---- loads ---- */
/* Row-major number of the element, or -1 if it is not constant or lies outside. */
static int64_t element_number(const Tensor *t, Expr *const *index) {
  int64_t at = 0;
  for (int i = 0; i < t->rank; i++) {
    int64_t v, dim = 0;
    if (!ex_is_int(index[i], &v) || v < 0) return -1;
    if (ex_is_int(t->shape[i], &dim) ? v >= dim : i > 0) return -1;
    if (i > 0 && (!mul_ok(at, dim, &at))) return -1;
    at += v;
  }
  return at;
}

static Expr *const_element(Ctx *c, const Tensor *t, int64_t at) {
  const char *p = (const char *)t->data->bytes + (t->data->splat ? 0 : at * dtype_bytes(t->dtype));
  if (dtype_is_float(t->dtype)) return ex_const(c, t->dtype, dtype_load_f(t->dtype, p));
  return ex_const_i(c, t->dtype, dtype_load_i(t->dtype, p));
}

static void check_index(Ctx *c, const Tensor *t, const Expr *e) {
  if (e->dtype != DT_I64) diag_bug(c, "an index of %s is %s, not i64: %s", t->name, type_name(e), expr_text(c, e));
}

Expr *ex_load(Ctx *c, Tensor *t, Expr *const *index, int n) {
  if (n != t->rank) diag_bug(c, "load of %s, of rank %d, with %d indices", t->name, t->rank, n);
  if (t->dtype == DT_NONE) diag_bug(c, "load of %s, whose type is not known", t->name);
  for (int i = 0; i < n; i++) check_index(c, t, index[i]);
  if (t->data && t->data->splat) return const_element(c, t, 0);
  int64_t at = t->known || (t->data && !t->layout) ? element_number(t, index) : -1;
  if (at >= 0 && t->data && !t->layout && t->data->bytes) return const_element(c, t, at);
  if (at >= 0 && t->known && at < t->nknown && t->known[at]) return ex_cast(c, t->dtype, t->known[at]);
  return expr_intern(c, &(Expr){.op = EX_LOAD, .dtype = t->dtype, .n = (uint16_t)n, .u.tensor = t}, index);
}

Expr *ex_fetch(Ctx *c, Tensor *t, Expr *offset) {
  check_index(c, t, offset);
  return expr_intern(c, &(Expr){.op = EX_FETCH, .dtype = t->dtype, .n = 1, .u.tensor = t}, &offset);
}

/* ---- reductions ---- */
Expr *combiner_identity(Ctx *c, Combiner how, DType t) { return const_scalar(c, t, combiner_start(how, t)); }

Expr *combiner_apply(Ctx *c, Combiner how, Expr *a, Expr *b) {
  static const ExprOp ops[RED_COUNT] = {EX_ADD, EX_MUL, EX_MIN, EX_MAX, EX_AND, EX_OR};
  return ex_binary(c, ops[how], a, b);
}

/* One axis of a reduction over a body that does not depend on it; NULL if it must stay. */
static Expr *reduce_constant(Ctx *c, Combiner how, Expr *body, const Sym *axis) {
  if (!axis->extent || expr_uses(body, axis)) return NULL;
  bool some = expr_range(c, axis->extent).min >= 1;
  if (how == RED_SUM && dtype_is_int(body->dtype)) {
    Expr *count = ex_cast(c, body->dtype, some ? axis->extent : ex_max(c, axis->extent, ex_int(c, 0)));
    return ex_mul(c, body, count);
  }
  return some && how != RED_SUM && how != RED_PROD ? body : NULL;
}

Expr *ex_reduce(Ctx *c, Combiner how, Expr *body, Sym *const *axes, int n) {
  bool logical = how == RED_AND || how == RED_OR;
  if (logical ? dtype_is_float(body->dtype) : body->dtype == DT_BOOL && (how == RED_SUM || how == RED_PROD))
    diag_bug(c, "%s of %s: %s", combiner_name[how], type_name(body), expr_text(c, body));
  Expr **a = NEW_ARRAY(c, Expr *, n + 1);
  int kept = 1;
  for (int i = 0; i < n; i++) {
    Expr *extent = axes[i]->extent, *less;
    int64_t count;
    if (extent && ex_is_int(extent, &count) && count <= 0) return combiner_identity(c, how, body->dtype);
    if (axes[i]->min == axes[i]->max && (!extent || ex_equals_int(extent, 1)))
      body = expr_subst1(c, body, axes[i], ex_int(c, axes[i]->min));
    else if ((less = reduce_constant(c, how, body, axes[i]))) body = less;
    else a[kept++] = axes[i]->self;
  }
  if (kept == 1) return body;
  a[0] = body;
  return expr_intern(c, &(Expr){.op = EX_REDUCE, .dtype = body->dtype, .n = (uint16_t)kept, .u.i = how}, a);
}

/* ---- the same again with other operands ---- */
Expr *ex_make(Ctx *c, const Expr *like, Expr *const *a) {
  switch (like->op) {
  case EX_CONST: case EX_SYM: return (Expr *)like;
  case EX_LOAD: return ex_load(c, like->u.tensor, a, like->n);
  case EX_FETCH: return ex_fetch(c, like->u.tensor, a[0]);
  case EX_SELECT: return ex_select(c, a[0], a[1], a[2]);
  case EX_CAST: return ex_cast(c, like->dtype, a[0]);
  case EX_BITCAST: return ex_bitcast(c, like->dtype, a[0]);
  case EX_FMA: return ex_fma(c, a[0], a[1], a[2]);
  case EX_REDUCE: {
    Sym **axes = NEW_ARRAY(c, Sym *, like->n);
    for (int i = 1; i < like->n; i++) {
      if (a[i]->op != EX_SYM) diag_bug(c, "a reduction over %s, which is no axis", expr_text(c, a[i]));
      axes[i - 1] = a[i]->u.sym;
    }
    return ex_reduce(c, (Combiner)like->u.i, a[0], axes, like->n - 1);
  }
  default: return expr_info[like->op].arity == 1 ? ex_unary(c, like->op, a[0]) : ex_binary(c, like->op, a[0], a[1]);
  }
}

Expr *ex_ceil_div(Ctx *c, Expr *a, int64_t b) { return ex_div(c, ex_add(c, a, ex_int(c, b - 1)), ex_int(c, b)); }

/* ---- questions ---- */
bool ex_is_int(const Expr *e, int64_t *v) {
  if (e->op != EX_CONST || !dtype_is_int(e->dtype)) return false;
  if (v) *v = e->u.i;
  return true;
}

bool ex_equals_int(const Expr *e, int64_t v) { return e->op == EX_CONST && dtype_is_int(e->dtype) && e->u.i == v; }
