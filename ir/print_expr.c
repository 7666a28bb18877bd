/* print_expr.c - expressions as text that parse_expr.c reads back to the same pointer.
 *
 * Sub-expressions that occur more than once and are not small are named first (`let t0 = ...;`), so that the text is
 * never much larger than the graph. Names that depend on a reduction's axis stand inside the reduction. */
#include "expr_impl.h"
#include "graph.h"
#include "lex.h"
#include <math.h>
#include <stdlib.h>

enum { NAME_FROM = 12 };           /* nodes of a shared sub-expression that is worth a name */
enum { OR_LEVEL, XOR_LEVEL, AND_LEVEL, COMPARE_LEVEL, SHIFT_LEVEL, ADD_LEVEL, MUL_LEVEL, PREFIX_LEVEL };

typedef struct {
  Str *s;
  Map named;                       /* Expr* -> its name; NULL when out of scope again */
  Map taken;                       /* interned names of symbols and tensors that occur */
  int next;
} Printer;

static void print(Printer *p, const Expr *e, int level);
static void print_block(Printer *p, const Expr *e);

/* ---- constants ---- */

/* The shortest text that reads back as v, a value of type t. */
static const char *float_text(Ctx *c, double v, DType t) {
  char text[40];
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, v);
    if (scalar_round(t, strtod(text, NULL)) == v) break;
  }
  return ctx_printf(c, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

/* Beside an operand of its own type an integer needs no type. */
static void print_bare(Printer *p, const Expr *e) {
  str_add(p->s, e->dtype == DT_U64 ? "%llu" : "%lld", (long long)e->u.i);
}

static void print_const(Printer *p, const Expr *e) {
  Ctx *c = p->s->ctx;
  DType t = (DType)e->dtype;
  if (t == DT_BOOL) str_add(p->s, e->u.i ? "true" : "false");
  else if (t == DT_I64) str_add(p->s, "%lld", (long long)e->u.i);
  else if (t == DT_U64) str_add(p->s, "u64(%llu)", (unsigned long long)e->u.i);
  else if (!dtype_is_float(t)) str_add(p->s, "%s(%lld)", dtype_info[t].name, (long long)e->u.i);
  else if (!isfinite(e->u.f))
    str_add(p->s, "%s(%s)", dtype_info[t].name, isnan(e->u.f) ? "nan" : e->u.f < 0 ? "-inf" : "inf");
  else if (t == DT_F64 || t == DT_F32) str_add(p->s, "%s%s", float_text(c, e->u.f, t), t == DT_F32 ? "f" : "");
  else str_add(p->s, "%s(%s)", dtype_info[t].name, float_text(c, e->u.f, t));
}

/* ---- operators ---- */
static const char *name_of(Printer *p, const Expr *e) { return p->named.entries.n ? map_get(&p->named, KEY(e)) : NULL; }

static bool negative_term(const Expr *e) {
  if (ex_is_const(e)) return e->u.i < 0 && e->u.i != INT64_MIN;
  return e->op == EX_MUL && ex_is_const(e->a[1]) && e->a[1]->u.i < 0 && e->a[1]->u.i != INT64_MIN;
}

/* An operand; other: one that stands beside it. */
static void print_operand(Printer *p, const Expr *e, const Expr *other, int level) {
  if (ex_is_const(e) && dtype_is_int((DType)e->dtype) && !ex_is_const(other)) print_bare(p, e);
  else print(p, e, level);
}

/* A term of an integer sum, without its sign if `negate`. */
static void print_term(Printer *p, const Expr *e, bool negate) {
  if (!negate && ex_is_const(e)) {
    print_bare(p, e);
  } else if (!negate || name_of(p, e)) {
    print(p, e, MUL_LEVEL);
  } else if (ex_is_const(e)) {
    str_add(p->s, "%lld", -(long long)e->u.i);
  } else {
    print(p, e->a[0], MUL_LEVEL);
    if (e->a[1]->u.i != -1) str_add(p->s, "*%lld", -(long long)e->a[1]->u.i);
  }
}

/* a + b - c: the first positive term goes first. */
static void print_sum(Printer *p, const Expr *e) {
  const Expr *term[LIN_MAX + 2];
  int n = 0, first = 0;
  while (e->op == EX_ADD && n < LIN_MAX && (n == 0 || !name_of(p, e))) {
    term[n++] = e->a[1];
    e = e->a[0];
  }
  term[n++] = e;
  for (int i = 0; i < n / 2; i++) {
    const Expr *swap = term[i];
    term[i] = term[n - 1 - i], term[n - 1 - i] = swap;
  }
  while (first < n && (negative_term(term[first]) && !name_of(p, term[first]))) first++;
  if (first == n) first = 0;
  for (int i = -1; i < n; i++) {
    if (i == first) continue;
    const Expr *t = term[i < 0 ? first : i];
    bool negative = negative_term(t) && !name_of(p, t);
    if (i >= 0) str_add(p->s, negative ? " - " : " + ");
    print_term(p, t, negative && i >= 0);
  }
}

static int level_of(const Expr *e) {
  switch (e->op) {
  case EX_OR: return OR_LEVEL;
  case EX_XOR: return XOR_LEVEL;
  case EX_AND: return AND_LEVEL;
  case EX_LT: case EX_LE: case EX_EQ: case EX_NE: return COMPARE_LEVEL;
  case EX_SHL: case EX_SHR: return SHIFT_LEVEL;
  case EX_ADD: case EX_SUB: return ADD_LEVEL;
  case EX_MUL: case EX_DIV: case EX_MOD: return MUL_LEVEL;
  case EX_NEG: case EX_NOT: return PREFIX_LEVEL;
  default: return PREFIX_LEVEL + 1;
  }
}

/* Index comparisons stand as a < b; written the way one reads them: 0 <= i, i <= n. */
static bool print_comparison(Printer *p, const Expr *e) {
  const Expr *a = e->a[0], *b = e->a[1];
  int64_t k;
  if (e->op != EX_LT || !(e->flags & EXPR_INDEX) || a->dtype != DT_I64) return false;
  if (ex_is_int(a, &k) && k < INT64_MAX) {
    str_add(p->s, "%lld <= ", (long long)k + 1);
    print(p, b, SHIFT_LEVEL);
    return true;
  }
  if (b->op == EX_ADD && ex_equals_int(b->a[1], 1) && !name_of(p, b)) {
    print(p, a, SHIFT_LEVEL);
    str_add(p->s, " <= ");
    print(p, b->a[0], SHIFT_LEVEL);
    return true;
  }
  return false;
}

static void print_infix(Printer *p, const Expr *e, int level) {
  bool tight = level == MUL_LEVEL;
  if (e->op == EX_ADD && dtype_is_int((DType)e->dtype)) {
    print_sum(p, e);
  } else if (e->op == EX_MUL && ex_equals_int(e->a[1], -1)) {
    str_add(p->s, "-");
    print(p, e->a[0], PREFIX_LEVEL);
  } else if (!print_comparison(p, e)) {
    print_operand(p, e->a[0], e->a[1], level == COMPARE_LEVEL ? level + 1 : level);
    str_add(p->s, tight ? "%s" : " %s ", expr_info[e->op].text);
    print_operand(p, e->a[1], e->a[0], level + 1);
  }
}

/* ---- the rest ---- */
static void print_list(Printer *p, const Expr *e, int from) {
  for (int i = from; i < e->n; i++) {
    if (i > from) str_add(p->s, ", ");
    print(p, e->a[i], OR_LEVEL);
  }
}

static void print_reduce(Printer *p, const Expr *e) {
  str_add(p->s, "%s(", combiner_name[e->u.i]);
  for (int i = 1; i < e->n; i++) {
    const Sym *k = e->a[i]->u.sym;
    lex_add_name(p->s, k->name);
    if (k->extent) {
      str_add(p->s, "<");
      print(p, k->extent, SHIFT_LEVEL);
    } else {
      str_add(p->s, "=%lld..%lld", (long long)k->min, (long long)k->max);
    }
    str_add(p->s, ", ");
  }
  print_block(p, e->a[0]);
  str_add(p->s, ")");
}

static void print_node(Printer *p, const Expr *e, int own) {
  switch (e->op) {
  case EX_CONST:
    print_const(p, e);
    return;
  case EX_SYM:
    lex_add_name(p->s, e->u.sym->name);
    return;
  case EX_LOAD: case EX_FETCH:
    lex_add_name(p->s, e->u.tensor->name);
    str_add(p->s, e->op == EX_LOAD ? "[" : "{");
    print_list(p, e, 0);
    str_add(p->s, e->op == EX_LOAD ? "]" : "}");
    return;
  case EX_REDUCE:
    print_reduce(p, e);
    return;
  case EX_NEG: case EX_NOT:
    str_add(p->s, e->op == EX_NEG ? "-" : "!");
    print(p, e->a[0], PREFIX_LEVEL);
    return;
  case EX_CAST: case EX_BITCAST:
    str_add(p->s, "%s%s(", e->op == EX_BITCAST ? "bitcast_" : "", dtype_info[e->dtype].name);
    print_list(p, e, 0);
    str_add(p->s, ")");
    return;
  default:
    if (own < PREFIX_LEVEL) {
      print_infix(p, e, own);
      return;
    }
    str_add(p->s, "%s(", expr_info[e->op].text);
    for (int i = 0, first = e->op == EX_SELECT; i < e->n; i++) {
      if (i > 0) str_add(p->s, ", ");
      print_operand(p, e->a[i], i == first && e->n > 1 ? e->a[i + 1] : e->a[first], OR_LEVEL);
    }
    str_add(p->s, ")");
  }
}

static void print(Printer *p, const Expr *e, int level) {
  const char *name = name_of(p, e);
  if (name) {
    str_add(p->s, "%s", name);
    return;
  }
  int own = level_of(e);
  bool minus = e->op == EX_MUL && ex_equals_int(e->a[1], -1);
  bool parens = own < level && !(minus && level <= PREFIX_LEVEL);
  if (parens) str_add(p->s, "(");
  print_node(p, e, own);
  if (parens) str_add(p->s, ")");
}

/* ---- names for what is shared ---- */
typedef struct { Ctx *c; Map uses; VEC(const Expr *) order; VEC(const Sym *) bound; } Sharing;

static void count_node(const Expr *e, void *user) {
  Sharing *sh = user;
  vec_push(sh->c, &sh->order, e);
  for (int i = 0; i < e->n; i++)
    map_set(&sh->uses, KEY(e->a[i]), (void *)((uintptr_t)map_get(&sh->uses, KEY(e->a[i])) + 1));
  if (e->op == EX_REDUCE)
    for (int i = 1; i < e->n; i++) vec_push(sh->c, &sh->bound, e->a[i]->u.sym);
}

static bool is_closed(const Sharing *sh, const Expr *e) {
  for (int i = 0; i < sh->bound.n; i++)
    if (expr_uses(e, sh->bound.v[i])) return false;
  return true;
}

static const char *fresh_name(Printer *p) {
  Ctx *c = p->s->ctx;
  for (;;) {
    const char *name = ctx_intern(c, ctx_printf(c, "t%d", p->next++));
    if (!map_get(&p->taken, KEY(name))) return name;
  }
}

static void print_block(Printer *p, const Expr *e) {
  Ctx *c = p->s->ctx;
  Sharing sh = {.c = c, .uses = map_new(c)};
  if (e->size > 2 * NAME_FROM) expr_visit(e, count_node, &sh);
  VEC(const Expr *) mine = {0};
  for (int i = 0; i < sh.order.n; i++) {
    const Expr *x = sh.order.v[i];
    if (x->size <= NAME_FROM || (uintptr_t)map_get(&sh.uses, KEY(x)) < 2 || name_of(p, x) || !is_closed(&sh, x))
      continue;
    const char *name = fresh_name(p);
    str_add(p->s, "let %s = ", name);
    print(p, x, OR_LEVEL);
    str_add(p->s, "; ");
    map_set(&p->named, KEY(x), (void *)name);
    vec_push(c, &mine, x);
  }
  print(p, e, OR_LEVEL);
  for (int i = 0; i < mine.n; i++) map_set(&p->named, KEY(mine.v[i]), NULL);       /* the names end with the block */
}

static void take_names(const Expr *e, void *user) {
  Printer *p = user;
  bool reads = e->op == EX_LOAD || e->op == EX_FETCH;
  const char *name = e->op == EX_SYM ? e->u.sym->name : reads ? e->u.tensor->name : NULL;
  if (name) map_set(&p->taken, KEY(ctx_intern(p->s->ctx, name)), p);
}

void print_expr(Str *s, const Expr *e) {
  Printer p = {s, map_new(s->ctx), map_new(s->ctx), 0};
  if (e->size > 2 * NAME_FROM) expr_visit(e, take_names, &p);
  print_block(&p, e);
}

const char *expr_text(Ctx *c, const Expr *e) {
  Str s = str_new(c);
  print_expr(&s, e);
  return s.s;
}
