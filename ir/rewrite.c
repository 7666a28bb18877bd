/* rewrite.c - matches the rows of expr_rules.c against a node about to be made, and builds their results.
 *
 * Rows are parsed once per Ctx and listed by root operation. The first row that matches wins; its result goes through
 * the constructors, which may rewrite it further. */
#include "expr_impl.h"
#include "parse_impl.h"

typedef struct {
  Rule *rule;                      /* rule_count of them */
  Sym var[RULE_VARS];              /* x y z w c0 c1 c2 c3 */
  VEC(const Rule *) by_op[EX_COUNT];
} Rules;

static const char *const var_name[RULE_VARS] = {"x", "y", "z", "w", "c0", "c1", "c2", "c3"};
enum { FIRST_CONST = 4 };

static bool is_var(const Expr *p) { return p->op == EX_SYM; }
static int var_of(const Expr *p) { return p->u.sym->id - (1 << 30); }

static Rules *rules_of(Ctx *c) {
  Rules *r = c->slots[SLOT_RULES];
  if (r) return r;
  c->slots[SLOT_RULES] = r = NEW(c, Rules);
  Scope scope = scope_new(c);
  for (int i = 0; i < RULE_VARS; i++) {
    r->var[i] = (Sym){.name = var_name[i], .id = (1 << 30) + i};
    Expr *e = expr_intern(c, &(Expr){.op = EX_SYM, .dtype = DT_NONE, .u.sym = &r->var[i]}, NULL);
    map_set(&scope.lets, KEY(ctx_intern(c, var_name[i])), e);
  }
  r->rule = NEW_ARRAY(c, Rule, rule_count);
  for (int i = 0; i < rule_count; i++) {
    const RuleRow *row = &rule_rows[i];
    r->rule[i] = (Rule){row, parse_pattern(c, &scope, row->pattern), parse_pattern(c, &scope, row->result),
                        row->condition ? parse_pattern(c, &scope, row->condition) : NULL};
    vec_push(c, &r->by_op[r->rule[i].pattern->op], &r->rule[i]);
  }
  return r;
}

const Rule *rule_at(Ctx *c, int i) { return &rules_of(c)->rule[i]; }

/* ---- matching ---- */
static bool number_is(const Expr *number, const Expr *e) {
  if (e->op != EX_CONST) return false;
  if (dtype_is_float((DType)e->dtype)) {
    double v = number->dtype == DT_F64 ? number->u.f : (double)number->u.i;
    return number->dtype != DT_BOOL && !memcmp(&v, &e->u.f, sizeof v);
  }
  if (number->dtype == DT_F64 || (number->dtype == DT_BOOL && e->dtype != DT_BOOL)) return false;
  if (e->dtype == DT_BOOL && number->u.i != 0 && number->u.i != 1) return false;
  return e->u.i == scalar_wrap((DType)e->dtype, number->u.i);
}

static bool match(const Expr *p, Expr *e, Binding *b);

static bool match_operands(const Expr *p, Expr *const *a, Binding *b) {
  Binding before = *b;
  if (p->n == 1) return match(p->a[0], a[0], b);
  if (p->n == 3) return match(p->a[0], a[0], b) && match(p->a[1], a[1], b) && match(p->a[2], a[2], b);
  if (match(p->a[0], a[0], b) && match(p->a[1], a[1], b)) return true;
  if (!strchr(expr_info[p->op].flags, 'C')) return false;
  *b = before;
  return match(p->a[0], a[1], b) && match(p->a[1], a[0], b);
}

/* Integers have no NEG node: -x matches x*-1. */
static bool match(const Expr *p, Expr *e, Binding *b) {
  if (is_var(p)) {
    int v = var_of(p);
    if (v >= FIRST_CONST && e->op != EX_CONST) return false;
    if (!b->var[v]) b->var[v] = e;
    return b->var[v] == e;
  }
  if (p->op == EX_CONST) return number_is(p, e);
  if (p->op == EX_NEG && e->op == EX_MUL && dtype_is_int((DType)e->dtype) &&
      ex_equals_int(e->a[1], scalar_wrap((DType)e->dtype, -1)))
    return match(p->a[0], e->a[0], b);
  return p->op == e->op && match_operands(p, e->a, b);
}

/* ---- conditions ---- */
static bool is_power2(const Expr *e) {             /* its inverse is exact */
  if (e->op != EX_CONST || !dtype_is_float((DType)e->dtype)) return false;
  int exponent, limit = e->dtype == DT_F16 ? 13 : e->dtype == DT_F64 ? 1020 : 124;
  double m = __builtin_frexp(e->u.f, &exponent);
  return (m == 0.5 || m == -0.5) && exponent < limit && exponent > -limit;
}

static int64_t ask(Ctx *c, const Expr *p, const Binding *b) {
  if (is_var(p)) return b->var[var_of(p)]->u.i;
  if (p->op == EX_CONST) return p->u.i;
  if (p->op >= EX_COUNT) {
    Expr *e = b->var[var_of(p->a[0])];
    switch ((int)p->op) {
    case PAT_LO: return expr_range(c, e).min;
    case PAT_HI: return expr_range(c, e).max;
    case PAT_BITS: return dtype_info[e->dtype].bits;
    case PAT_IS_INT: return dtype_is_int((DType)e->dtype);
    case PAT_IS_BOOL: return e->dtype == DT_BOOL;
    case PAT_PURE: return !(e->flags & (EXPR_LOAD | EXPR_REDUCES));
    default: return is_power2(e);
    }
  }
  int64_t x = ask(c, p->a[0], b), y = p->n > 1 ? ask(c, p->a[1], b) : 0;
  switch (p->op) {
  case EX_ADD: return x + y;
  case EX_AND: return x & y;
  case EX_OR: return x | y;
  case EX_LT: return x < y;
  case EX_LE: return x <= y;
  case EX_EQ: return x == y;
  case EX_NE: return x != y;
  default: diag_bug(c, "'%s' in a rule's condition", expr_info[p->op].text);
  }
}

bool rule_condition(Ctx *c, const Rule *r, const Binding *b) { return !r->condition || ask(c, r->condition, b); }

/* ---- results ---- */
static Expr *number_as(Ctx *c, const Expr *number, DType t) {
  if (number->dtype == DT_BOOL) return ex_bool(c, number->u.i);
  return number->dtype == DT_F64 ? ex_const(c, t, number->u.f) : ex_const_i(c, t, number->u.i);
}

Expr *rule_build(Ctx *c, const Expr *p, const Binding *b, DType t) {
  if (is_var(p)) return b->var[var_of(p)];
  if (p->op == EX_CONST) return number_as(c, p, t);
  Expr *a[3] = {NULL};
  int from = p->op == EX_SELECT;             /* the numbers of a node take the type of its other operands */
  for (int i = 0; i < p->n; i++) {
    if (p->a[i]->op == EX_CONST) continue;
    a[i] = rule_build(c, p->a[i], b, t);
    if (i >= from) t = (DType)a[i]->dtype;
  }
  for (int i = 0; i < p->n; i++)
    if (!a[i]) a[i] = number_as(c, p->a[i], t);
  return ex_make(c, &(Expr){.op = p->op, .dtype = (uint8_t)t, .n = p->n}, a);
}

Expr *rules_apply(Ctx *c, const Expr *head, Expr *const *a) {
  if (head->n == 0 || head->op >= EX_COUNT) return NULL;
  Rules *rules = rules_of(c);
  bool compares = expr_info[head->op].type == 'b';
  char kind = dtype_info[compares ? a[0]->dtype : head->dtype].kind;
  for (int i = 0; i < rules->by_op[head->op].n; i++) {
    const Rule *r = rules->by_op[head->op].v[i];
    Binding b = {{NULL}};
    if (!strchr(r->row->types, kind) || !match_operands(r->pattern, a, &b) || !rule_condition(c, r, &b)) continue;
    return rule_build(c, r->result, &b, (DType)head->dtype);
  }
  return NULL;
}
