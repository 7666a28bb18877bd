/* expr.h - the one expression type: dimensions, index arithmetic, scalar computation, guards, loop bounds, plan offsets.
 *
 * An Expr is immutable and hash-consed in its Ctx: equal expressions are equal pointers. The constructors fold and
 * simplify (rules in expr_rules.c, with the ranges of the symbols), so every expression is in canonical form; there is no
 * simplify call. Indices and dimensions are i64. Not thread safe: one Ctx, one thread; reading from many threads is fine.
 */
#ifndef DLC_EXPR_H
#define DLC_EXPR_H

#include "base.h"
#include "dtype.h"

typedef enum {
#define EXPR(op, text, arity, form, type, flags) op,
#include "expr.def"
#undef EXPR
  EX_COUNT
} ExprOp;

typedef struct { const char *id, *text; int arity; char form, type; const char *flags; } ExprInfo;
extern const ExprInfo expr_info[EX_COUNT];

typedef enum { RED_SUM, RED_PROD, RED_MIN, RED_MAX, RED_AND, RED_OR, RED_COUNT } Combiner;
extern const char *const combiner_name[RED_COUNT];           /* "sum" "prod" "min" "max" "all" "any" */

struct Expr {
  uint8_t op, dtype;
  uint16_t n;                      /* operands in a[] */
  uint32_t id;                     /* order of creation: the deterministic order for sorting */
  uint32_t hash;
  uint32_t size;                   /* nodes when written out as a tree, saturating: how far sharing matters */
  uint32_t flags;                  /* EXPR_... */
  uint32_t syms;                   /* bit id % 32 of each symbol used: a quick "does not use" */
  union { int64_t i; double f; Sym *sym; Tensor *tensor; } u;
  Expr *a[];
};

/* EXPR_INDEX: i64 or bool, of symbols and constants only. Such index arithmetic is taken not to overflow (sizes are checked where
 * they enter); arithmetic on data wraps, and is rewritten only where that is exact. */
enum { EXPR_INDEX = 1, EXPR_AXIS = 2 /* uses a SYM_AXIS or SYM_REDUCE */, EXPR_LOAD = 4 /* a load or fetch */, EXPR_REDUCES = 8 };

/* A named integer: a dimension, a loop variable, a reduction axis. Its range is fixed when it is made. */
typedef enum { SYM_DIM, SYM_AXIS, SYM_REDUCE } SymKind;
struct Sym {
  const char *name;                /* unique in printed text; sym_new appends .N where it must */
  SymKind kind;
  int id;
  int64_t min, max;                /* inclusive; INT64_MAX = unbounded */
  int64_t multiple;                /* the value is a multiple of this; 1 if nothing is known */
  Expr *extent;                    /* the value is < extent (NULL if unknown); proves i < N for symbolic N */
  Expr *self;                      /* the EX_SYM expression */
};

/* ---- symbols ---- */
Sym *sym_new(Ctx *c, SymKind kind, const char *name, int64_t min, int64_t max);
Sym *sym_axis(Ctx *c, SymKind kind, const char *name, Expr *extent);   /* 0 <= s < extent */

/* ---- constructors (expr.c); operands must have agreeing types, else diag_bug ---- */
Expr *ex_int(Ctx *c, int64_t v);                             /* i64 */
Expr *ex_const(Ctx *c, DType t, double v);                   /* any type; integers above 2^53 need ex_const_i */
Expr *ex_const_i(Ctx *c, DType t, int64_t v);
Expr *ex_bool(Ctx *c, bool v);
Expr *ex_unary(Ctx *c, ExprOp op, Expr *a);
Expr *ex_binary(Ctx *c, ExprOp op, Expr *a, Expr *b);
Expr *ex_select(Ctx *c, Expr *cond, Expr *a, Expr *b);
Expr *ex_fma(Ctx *c, Expr *a, Expr *b, Expr *addend);
Expr *ex_cast(Ctx *c, DType t, Expr *a);
Expr *ex_bitcast(Ctx *c, DType t, Expr *a);
Expr *ex_load(Ctx *c, Tensor *t, Expr *const *index, int n); /* n == t->rank */
Expr *ex_fetch(Ctx *c, Tensor *t, Expr *offset);
Expr *ex_reduce(Ctx *c, Combiner how, Expr *body, Sym *const *axes, int n);   /* n == 0 or extents all 1: the body itself */
Expr *ex_make(Ctx *c, const Expr *like, Expr *const *operands);  /* the same op, dtype and u with other operands */
#define ex_add(c, a, b) ex_binary(c, EX_ADD, a, b)
#define ex_sub(c, a, b) ex_binary(c, EX_SUB, a, b)
#define ex_mul(c, a, b) ex_binary(c, EX_MUL, a, b)
#define ex_div(c, a, b) ex_binary(c, EX_DIV, a, b)
#define ex_mod(c, a, b) ex_binary(c, EX_MOD, a, b)
#define ex_min(c, a, b) ex_binary(c, EX_MIN, a, b)
#define ex_max(c, a, b) ex_binary(c, EX_MAX, a, b)
#define ex_and(c, a, b) ex_binary(c, EX_AND, a, b)
#define ex_or(c, a, b) ex_binary(c, EX_OR, a, b)
#define ex_lt(c, a, b) ex_binary(c, EX_LT, a, b)
#define ex_le(c, a, b) ex_binary(c, EX_LE, a, b)
#define ex_eq(c, a, b) ex_binary(c, EX_EQ, a, b)
Expr *ex_ceil_div(Ctx *c, Expr *a, int64_t b);               /* (a + b-1) / b */
Expr *combiner_identity(Ctx *c, Combiner how, DType t);      /* sum 0, prod 1, min +inf or the largest integer ... */
Expr *combiner_apply(Ctx *c, Combiner how, Expr *a, Expr *b);

/* ---- questions ---- */
static inline bool ex_is_const(const Expr *e) { return e->op == EX_CONST; }
bool ex_is_int(const Expr *e, int64_t *v);                   /* an integer constant; v may be NULL */
bool ex_equals_int(const Expr *e, int64_t v);
bool expr_uses(const Expr *e, const Sym *s);
bool expr_is_linear(Ctx *c, Expr *e, const Sym *s, Expr **coef, Expr **rest);  /* e == coef*s + rest, both free of s */

/* ---- ranges (expr_range.c): what the symbols' ranges imply ---- */
int64_t int_gcd(int64_t a, int64_t b);                               /* >= 0 */
typedef struct { int64_t min, max, multiple; } Range;        /* INT64_MIN / INT64_MAX = unbounded */
Range expr_range(Ctx *c, const Expr *e);                     /* of an integer expression, memoised */
bool expr_proves(Ctx *c, Expr *cond);                        /* cond (a bool Expr) holds for all values; symbolic extents used */

/* ---- rewriting ---- */
typedef struct { Ctx *ctx; Map memo; uint32_t syms; } Subst; /* symbol -> expression, memoised per node; syms as in Expr */
Subst subst_new(Ctx *c);
void subst_set(Subst *s, const Sym *from, Expr *to);         /* before the first subst_apply */
Expr *subst_apply(Subst *s, Expr *e);
Expr *expr_subst1(Ctx *c, Expr *e, const Sym *from, Expr *to);
/* Rebuilds e bottom-up; f gets each node with its operands already rebuilt and returns it or a replacement. */
Expr *expr_map(Ctx *c, Expr *e, Expr *(*f)(Ctx *c, Expr *e, void *user), void *user);
Expr *expr_replace(Ctx *c, Expr *e, Expr *from, Expr *to);   /* everywhere in e */
void expr_visit(const Expr *e, void (*f)(const Expr *e, void *user), void *user);   /* each distinct node once, operands first */

/* ---- evaluation of scalars (expr_eval.c): symbols and loads by callback; the value as i (ints, bool) or f (floats) ---- */
typedef union { int64_t i; double f; } Scalar;
typedef struct ExprEnv {
  Scalar (*sym)(struct ExprEnv *env, const Sym *s);
  Scalar (*load)(struct ExprEnv *env, const Expr *load, const int64_t *index);      /* EX_LOAD and EX_FETCH */
} ExprEnv;
Scalar expr_eval(ExprEnv *env, const Expr *e);
Scalar expr_apply(const Expr *node, const Scalar *operands); /* one operation, the meaning stated in expr.def; also folds constants */

/* ---- text (print_expr.c, parse_expr.c): what is printed parses back to the same pointer ----
 * Infix as in C where C has it; the grammar is at the head of parse_expr.c. Constants: 3 is i64, 0.5 is f64, 0.5f is f32, i32(3), f16(0.5),
 * f32(inf), true. x[i, j] loads, x{i*64 + j} fetches, sum(k<64, body) reduces. Shared sub-expressions: let t0 = ...; at the head. */
const char *expr_text(Ctx *c, const Expr *e);
typedef struct {                   /* what names mean while text is parsed; unknown names are errors */
  Map syms;                        /* interned name -> Sym* */
  Map tensors;                     /* interned name -> Tensor* */
  Map lets;                        /* interned name -> Expr*: operator operands, `let a = ...;` */
} Scope;
Scope scope_new(Ctx *c);
Expr *expr_parse(Ctx *c, Scope *scope, const char *text);    /* whole text; diag_fail E0309 with line and column */

#endif
