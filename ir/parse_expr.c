/* parse_expr.c - expressions from text, built with the ordinary constructors.
 *
 *   expr    = { "let" name "=" infix ";" } infix
 *   infix   = operators, loosest first:   |   ^   &   < <= > >= == !=   << >>   + -   * / %   and prefix - !
 *   primary = number | true | false | name | function(args) | T(x) | bitcast_T(x) | (infix)
 *           | tensor[i, j] | tensor{offset} | sum(k<extent, ..., expr)    also prod min max all any; k=lo..hi
 *
 * A number without suffix takes the type of what it is used with (`max(x, 0)`); numbers among themselves are kept as an
 * integer and as a real value until that is known, so that 1/6 is 0 in i64 and 0.1666... in f32. */
#include "expr_impl.h"
#include "parse_impl.h"
#include "graph.h"
#include <math.h>
#include <stdlib.h>

/* A value while it is parsed: an expression, or (e == NULL) a number whose type is still open. */
typedef struct { Expr *e; bool is_float; int64_t i; double f; } Value;

typedef struct { const char *name; Expr *value; } Let;

typedef struct {
  Lexer *lx;
  Ctx *c;
  Scope *scope;
  bool raw;                        /* patterns: no types, no constructors */
  int depth;
  VEC(Let) lets;
} Parser;

enum { DEPTH_MAX = 2000 };

static Value parse_infix(Parser *p, int level);
static Value parse_block(Parser *p);

static Value typed(Expr *e) { return (Value){.e = e}; }

/* ---- types ---- */
static Expr *as_type(Parser *p, Value v, DType t) {
  if (v.e) return v.e;
  if (p->raw) return v.is_float ? ex_const(p->c, DT_F64, v.f) : ex_int(p->c, v.i);
  if (dtype_is_float(t)) return ex_const(p->c, t, v.f);
  if (t == DT_BOOL) lex_fail(p->lx, "a number where true or false is needed");
  if (v.is_float && v.f != trunc(v.f)) lex_fail(p->lx, "the number %.17g is used as %s", v.f, dtype_info[t].name);
  return ex_const_i(p->c, t, v.is_float ? scalar_cast(t, DT_F64, (Scalar){.f = v.f}).i : v.i);
}

static Expr *settled(Parser *p, Value v) { return as_type(p, v, v.is_float ? DT_F64 : DT_I64); }

static const char *type_text(const Expr *e) { return e->dtype < DT_COUNT ? dtype_info[e->dtype].name : "none"; }

/* The operands with one type; returns false if all are open numbers. */
static bool unify(Parser *p, const char *what, Value *v, int n) {
  const Expr *first = NULL;
  for (int i = 0; i < n; i++)
    if (v[i].e && !first) first = v[i].e;
  if (!first) return false;
  for (int i = 0; i < n; i++) {
    v[i].e = as_type(p, v[i], (DType)first->dtype);
    if (!p->raw && v[i].e->dtype != first->dtype)
      lex_fail(p->lx, "%s of %s and %s", what, type_text(first), type_text(v[i].e));
  }
  return true;
}

static Expr *raw_node(Parser *p, int op, Value *v, int n) {
  Expr *a[3];
  for (int i = 0; i < n; i++) a[i] = as_type(p, v[i], DT_NONE);
  return expr_intern(p->c, &(Expr){.op = (uint8_t)op, .dtype = DT_NONE, .n = (uint16_t)n}, a);
}

/* An operation on open numbers: both ways at once. */
static Value compute(Parser *p, ExprOp op, const Value *v, int n) {
  Expr *f[3], *i[3];
  bool is_float = false, both = op < EX_FLOOR && op != EX_POW;
  for (int k = 0; k < n; k++) {
    is_float |= v[k].is_float;
    f[k] = ex_const(p->c, DT_F64, v[k].f);
    i[k] = ex_const_i(p->c, DT_I64, v[k].is_float ? 0 : v[k].i);
  }
  bool only_int = op == EX_AND || op == EX_OR || op == EX_XOR || op == EX_NOT || op == EX_SHL || op == EX_SHR;
  if (only_int && is_float) lex_fail(p->lx, "'%s' of a number with a fraction", expr_info[op].text);
  Expr *ri = !is_float && both ? ex_make(p->c, &(Expr){.op = op, .dtype = DT_I64, .n = (uint16_t)n}, i) : NULL;
  Expr *rf = only_int ? NULL : ex_make(p->c, &(Expr){.op = op, .dtype = DT_F64, .n = (uint16_t)n}, f);
  if (rf && rf->dtype == DT_BOOL) return typed(rf);
  if (!rf) return (Value){.i = ri->u.i, .f = (double)ri->u.i};
  return ri ? (Value){.i = ri->u.i, .f = rf->u.f} : (Value){.is_float = true, .f = rf->u.f};
}

static void check_type(Parser *p, ExprOp op, const Expr *a) {
  DType t = (DType)a->dtype;
  bool logic = op == EX_AND || op == EX_OR || op == EX_XOR || op == EX_NOT;
  bool compare = op == EX_EQ || op == EX_NE || op == EX_LT || op == EX_LE || op == EX_MIN || op == EX_MAX;
  bool ok = true;
  if (t == DT_BOOL) ok = logic || compare;
  else if (logic || op == EX_SHL || op == EX_SHR) ok = dtype_is_int(t);
  else if (op >= EX_FLOOR) ok = dtype_is_float(t);
  if (!ok) lex_fail(p->lx, "'%s' of %s", expr_info[op].text, type_text(a));
}

static Value apply(Parser *p, ExprOp op, Value *v, int n) {
  Ctx *c = p->c;
  if (p->raw) return typed(raw_node(p, op, v, n));
  if (op == EX_SELECT) {
    Expr *cond = settled(p, v[0]);
    if (cond->dtype != DT_BOOL) lex_fail(p->lx, "select by %s, not bool", type_text(cond));
    if (!unify(p, "select", v + 1, 2)) {
      DType t = v[1].is_float || v[2].is_float ? DT_F64 : DT_I64;
      v[1].e = as_type(p, v[1], t), v[2].e = as_type(p, v[2], t);
    }
    return typed(ex_select(c, cond, v[1].e, v[2].e));
  }
  if (!unify(p, ctx_printf(c, "'%s'", expr_info[op].text), v, n)) return compute(p, op, v, n);
  check_type(p, op, v[0].e);
  if (n == 1) return typed(ex_unary(c, op, v[0].e));
  return typed(n == 2 ? ex_binary(c, op, v[0].e, v[1].e) : ex_fma(c, v[0].e, v[1].e, v[2].e));
}

/* ---- names ---- */
static void *scope_get(Parser *p, const Map *m, const char *name) { return map_get(m, KEY(ctx_intern(p->c, name))); }

static Value named_value(Parser *p, const char *name, const Lexer *at) {
  for (int i = p->lets.n - 1; i >= 0; i--)
    if (p->lets.v[i].name == name) return typed(p->lets.v[i].value);
  Expr *e = scope_get(p, &p->scope->lets, name);
  if (e) return typed(e);
  Sym *s = scope_get(p, &p->scope->syms, name);
  if (s) return typed(s->self);
  if (scope_get(p, &p->scope->tensors, name)) lex_fail(at, "tensor '%s' without indices", diag_quote(p->c, name));
  lex_fail(at, "unknown name '%s'", diag_quote(p->c, name));
}

static Value parse_index(Parser *p, const char *name, const Lexer *at) {
  Tensor *t = scope_get(p, &p->scope->tensors, name);
  if (!t) lex_fail(at, "unknown tensor '%s'", diag_quote(p->c, name));
  bool fetch = lex_is(p->lx, "{");
  const char *close = fetch ? "}" : "]";
  Expr *index[MAX_RANK];
  int n = 0;
  lex_next(p->lx);
  while (!lex_is(p->lx, close)) {
    if (n) lex_expect(p->lx, ",");
    if (n == MAX_RANK) lex_fail(p->lx, "more than %d indices", MAX_RANK);
    index[n] = settled(p, parse_infix(p, 0));
    if (index[n]->dtype != DT_I64) lex_fail(p->lx, "an index is %s, not i64", type_text(index[n]));
    n++;
  }
  lex_next(p->lx);
  if (t->dtype == DT_NONE) lex_fail(at, "tensor '%s' has no type", diag_quote(p->c, name));
  if (n != (fetch ? 1 : t->rank))
    lex_fail(at, "tensor '%s' of rank %d with %d indices", diag_quote(p->c, name), t->rank, n);
  return typed(fetch ? ex_fetch(p->c, t, index[0]) : ex_load(p->c, t, index, n));
}

/* ---- reductions ---- */
static bool at_axis(const Lexer *at) {
  if (at->kind != TOK_NAME && at->kind != TOK_STRING) return false;
  Lexer ahead = *at;
  lex_next(&ahead);
  return lex_is(&ahead, "<") || lex_is(&ahead, "=");
}

/* `k<extent,` or `k=lo..hi,`: the symbol of that name if the scope has it so, else a new one, which the scope then has.
 * NULL: what looks like an axis is the body, `k < 3` before the end. */
static Sym *parse_axis(Parser *p) {
  Lexer back = *p->lx;
  const char *name = lex_name(p->lx);
  Sym *s = scope_get(p, &p->scope->syms, name);
  if (lex_accept(p->lx, "<")) {
    Expr *extent = settled(p, parse_infix(p, 4));
    if (!lex_accept(p->lx, ",")) {
      *p->lx = back;
      return NULL;
    }
    if (extent->dtype != DT_I64) lex_fail(p->lx, "the extent of '%s' is %s, not i64", name, type_text(extent));
    if (!s || s->extent != extent) s = sym_axis(p->c, SYM_REDUCE, name, extent);
  } else {
    lex_expect(p->lx, "=");
    int64_t lo = lex_int(p->lx);
    lex_expect(p->lx, "..");
    int64_t hi = lex_int(p->lx);
    lex_expect(p->lx, ",");
    if (!s || s->extent || s->min != lo || s->max != hi) s = sym_new(p->c, SYM_REDUCE, name, lo, hi);
  }
  map_set(&p->scope->syms, KEY(name), s);
  map_set(&p->scope->syms, KEY(s->name), s);                 /* as it is printed, if another symbol has the name */
  return s;
}

static Value parse_reduce(Parser *p, Combiner how) {
  VEC(Sym *) axes = {0};
  for (Sym *s; at_axis(p->lx) && (s = parse_axis(p));) vec_push(p->c, &axes, s);
  Expr *body = settled(p, parse_block(p));
  lex_expect(p->lx, ")");
  bool logical = how == RED_AND || how == RED_OR, sums = how == RED_SUM || how == RED_PROD;
  if (logical ? dtype_is_float((DType)body->dtype) : sums && body->dtype == DT_BOOL)
    lex_fail(p->lx, "%s of %s", combiner_name[how], type_text(body));
  return typed(ex_reduce(p->c, how, body, axes.v, axes.n));
}

static int find_combiner(const char *name) {
  for (int i = 0; i < RED_COUNT; i++)
    if (!strcmp(combiner_name[i], name)) return i;
  return -1;
}

/* ---- functions ---- */
static const char *const question_name[] = {"lo", "hi", "bits", "is_int", "is_bool", "pure", "power2"};

static int find_function(const Parser *p, const char *name) {
  for (int op = 0; op < EX_COUNT; op++)
    if (expr_info[op].form == 'f' && op != EX_CAST && op != EX_BITCAST && !strcmp(expr_info[op].text, name)) return op;
  for (int i = 0; p->raw && i < COUNT(question_name); i++)
    if (!strcmp(question_name[i], name)) return EX_COUNT + i;
  return p->raw && !strcmp(name, "cast") ? EX_CAST : -1;
}

static Value parse_cast(Parser *p, DType t, bool bits) {
  Value v = parse_infix(p, 0);
  lex_expect(p->lx, ")");
  if (bits) {
    Expr *e = settled(p, v);
    if (dtype_info[t].bits != dtype_info[e->dtype].bits)
      lex_fail(p->lx, "bitcast of %s to %s", type_text(e), dtype_info[t].name);
    return typed(ex_bitcast(p->c, t, e));
  }
  if (v.e) return typed(ex_cast(p->c, t, v.e));
  if (t == DT_BOOL) return typed(ex_bool(p->c, v.f != 0));
  return typed(dtype_is_float(t) || v.is_float ? ex_const(p->c, t, v.f) : ex_const_i(p->c, t, v.i));
}

static Value parse_call(Parser *p, const char *name, const Lexer *at) {
  lex_expect(p->lx, "(");
  DType t = dtype_from_name(name);
  if (t != DT_NONE) return parse_cast(p, t, false);
  if (!strncmp(name, "bitcast_", 8) && (t = dtype_from_name(name + 8)) != DT_NONE) return parse_cast(p, t, true);
  int how = find_combiner(name), op = find_function(p, name);
  if (how >= 0 && !p->raw && (op < 0 || at_axis(p->lx))) return parse_reduce(p, (Combiner)how);
  if (op < 0) lex_fail(at, "unknown function '%s'", name);
  Value v[3];
  int n = 0, arity = op < EX_COUNT ? expr_info[op].arity : 1;
  while (n < arity) {
    if (n) lex_expect(p->lx, ",");
    v[n++] = parse_infix(p, 0);
  }
  lex_expect(p->lx, ")");
  return op < EX_COUNT ? apply(p, (ExprOp)op, v, n) : typed(raw_node(p, op, v, n));
}

/* ---- primaries and operators ---- */
static Value parse_word(Parser *p) {
  Lexer at = *p->lx;
  bool plain = at.kind == TOK_NAME;
  const char *name = lex_name(p->lx);
  bool number = scope_get(p, &p->scope->syms, name) && !scope_get(p, &p->scope->tensors, name);      /* `for i < N {` */
  if (lex_is(p->lx, "[") || (lex_is(p->lx, "{") && !number)) return parse_index(p, name, &at);
  if (plain && lex_is(p->lx, "(")) return parse_call(p, name, &at);
  if (plain && (!strcmp(name, "true") || !strcmp(name, "false"))) return typed(ex_bool(p->c, name[0] == 't'));
  if (plain && !strcmp(name, "inf")) return (Value){.is_float = true, .f = INFINITY};
  if (plain && !strcmp(name, "nan")) return (Value){.is_float = true, .f = NAN};
  return named_value(p, name, &at);
}

static Value parse_primary(Parser *p) {
  Lexer *lx = p->lx;
  Value v;
  switch (lx->kind) {
  case TOK_INT:
    v = (Value){.i = lx->i, .f = lx->i < 0 ? (double)(uint64_t)lx->i : (double)lx->i};
    lex_next(lx);
    return v;
  case TOK_FLOAT:
    v = lx->single ? typed(ex_const(p->c, DT_F32, strtof(lx->start, NULL))) : (Value){.is_float = true, .f = lx->f};
    lex_next(lx);
    return v;
  case TOK_NAME: case TOK_STRING:
    return parse_word(p);
  default:
    lex_expect(lx, "(");
    v = parse_infix(p, 0);
    lex_expect(lx, ")");
    return v;
  }
}

static Value parse_prefix(Parser *p) {
  if (++p->depth > DEPTH_MAX) lex_fail(p->lx, "nested too deeply");
  Value v;
  if (lex_accept(p->lx, "-")) {
    v = parse_prefix(p);
    if (!v.e) v = (Value){.is_float = v.is_float, .i = (int64_t)-(uint64_t)v.i, .f = -v.f};
    else v = apply(p, EX_NEG, &v, 1);
  } else if (lex_accept(p->lx, "!")) {
    v = parse_prefix(p);
    v = apply(p, EX_NOT, &v, 1);
  } else {
    v = parse_primary(p);
  }
  p->depth--;
  return v;
}

/* Infix operators by level, loosest first; `swap`: a > b is b < a. */
typedef struct { const char *text; int level; ExprOp op; bool swap; } Infix;
static const Infix infix[] = {
  {"|", 0, EX_OR, false},  {"^", 1, EX_XOR, false}, {"&", 2, EX_AND, false},
  {"<", 3, EX_LT, false},  {"<=", 3, EX_LE, false}, {">", 3, EX_LT, true}, {">=", 3, EX_LE, true},
  {"==", 3, EX_EQ, false}, {"!=", 3, EX_NE, false},
  {"<<", 4, EX_SHL, false}, {">>", 4, EX_SHR, false},
  {"+", 5, EX_ADD, false}, {"-", 5, EX_SUB, false},
  {"*", 6, EX_MUL, false}, {"/", 6, EX_DIV, false}, {"%", 6, EX_MOD, false},
};
enum { LEVELS = 7 };

static const Infix *infix_at(const Lexer *lx, int level) {
  for (int i = 0; i < COUNT(infix); i++)
    if (infix[i].level == level && lex_is(lx, infix[i].text)) return &infix[i];
  return NULL;
}

static Value parse_infix(Parser *p, int level) {
  if (level == LEVELS) return parse_prefix(p);
  Value v = parse_infix(p, level + 1);
  for (const Infix *in; (in = infix_at(p->lx, level));) {
    lex_next(p->lx);
    Value right = parse_infix(p, level + 1);
    Value both[2] = {in->swap ? right : v, in->swap ? v : right};
    v = apply(p, in->op, both, 2);
  }
  return v;
}

/* Names given by `let` hold to the end of the block. */
static Value parse_block(Parser *p) {
  int outer = p->lets.n;
  while (lex_accept(p->lx, "let")) {
    const char *name = lex_name(p->lx);
    lex_expect(p->lx, "=");
    Expr *e = settled(p, parse_infix(p, 0));
    lex_expect(p->lx, ";");
    vec_push(p->c, &p->lets, ((Let){name, e}));
  }
  Value v = parse_infix(p, 0);
  p->lets.n = outer;
  return v;
}

/* ---- entries ---- */
Expr *parse_expr(Lexer *lx, Scope *scope) {
  Parser p = {.lx = lx, .c = lx->ctx, .scope = scope};
  return settled(&p, parse_block(&p));
}

Expr *parse_expr_as(Lexer *lx, Scope *scope, DType t) {
  Parser p = {.lx = lx, .c = lx->ctx, .scope = scope};
  Expr *e = as_type(&p, parse_block(&p), t);
  if (e->dtype != t) lex_fail(lx, "an expression of type %s, not %s", type_text(e), dtype_info[t].name);
  return e;
}

Expr *parse_pattern(Ctx *c, Scope *scope, const char *text) {
  Lexer lx = lex_new(c, text);
  Parser p = {.lx = &lx, .c = c, .scope = scope, .raw = true};
  Expr *e = settled(&p, parse_infix(&p, 0));
  if (lx.kind != TOK_END) lex_fail(&lx, "more text than one pattern");
  return e;
}

Scope scope_new(Ctx *c) { return (Scope){map_new(c), map_new(c), map_new(c)}; }

Expr *expr_parse(Ctx *c, Scope *scope, const char *text) {
  Lexer lx = lex_new(c, text);
  Expr *e = parse_expr(&lx, scope);
  if (lx.kind != TOK_END) lex_fail(&lx, "more text than one expression");
  return e;
}
