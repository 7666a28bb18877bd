/* expr_impl.h - what the expression files share among themselves. */
#ifndef DLC_EXPR_IMPL_H
#define DLC_EXPR_IMPL_H

#include "ctx.h"
#include "expr.h"

/* expr.c: the node itself, as it stands (op, dtype, n and u of `head`), without any simplification. */
Expr *expr_intern(Ctx *c, const Expr *head, Expr *const *a);
Expr *expr_raw(Ctx *c, ExprOp op, DType t, Expr *const *a, int n);
static inline Expr *expr_raw2(Ctx *c, ExprOp op, DType t, Expr *a, Expr *b) {
  return expr_raw(c, op, t, (Expr *[]){a, b}, 2);
}

/* expr_eval.c */
int64_t scalar_wrap(DType t, int64_t v);           /* an integer in the width of t */
double scalar_round(DType t, double v);            /* a float in the precision of t; one NaN */
Scalar scalar_cast(DType to, DType from, Scalar v);
Scalar combiner_start(Combiner how, DType t);      /* the neutral element */

/* ---- sums and products of integers (expr_lin.c) ----
 * The canonical sum is  core*coef + core*coef + ... + k, left to right, cores in order of creation; the canonical
 * product is f*f*...*coef with the factors in order of creation. A product distributes over a sum that contains an axis
 * and over a constant; a sum of dimensions stays one factor (without common divisor), so that addresses keep their
 * extents whole. */
enum { LIN_MAX = 48, MONO_MAX = 8 };
typedef struct { Expr *core; int64_t coef; } Term;
typedef struct { DType t; bool over; int n; int64_t k; Term term[LIN_MAX]; } Lin;       /* over: too many terms */
typedef struct { int64_t coef; int n; Expr *f[MONO_MAX]; } Mono;                        /* n < 0: too many factors */

Lin lin_of(Expr *e);
void lin_add(Lin *l, Expr *e, int64_t scale);                        /* l += scale*e */
void lin_add_core(Lin *l, Expr *core, int64_t coef);
Expr *lin_build(Ctx *c, Lin *l);
Mono mono_of(Expr *core, int64_t coef);
/* factors only; the quotient has m's coefficient */
bool mono_divides(const Mono *by, const Mono *m, Mono *quotient);
Expr *mono_build(Ctx *c, DType t, const Mono *m);

Expr *lin_sum(Ctx *c, Expr *a, Expr *b, int64_t scale_b);            /* a + scale_b * b */
Expr *lin_product(Ctx *c, Expr *a, Expr *b);
Expr *lin_divmod(Ctx *c, Expr *a, Expr *b, bool mod);                /* expr_div.c */
Expr *lin_compare(Ctx *c, ExprOp op, Expr *a, Expr *b);              /* expr_cmp.c; NULL: nothing to gain */
Expr *lin_logic(Ctx *c, ExprOp op, Expr *a, Expr *b);                /* & and | of comparisons, likewise */
Expr *lin_minmax(Ctx *c, ExprOp op, Expr *a, Expr *b);               /* expr_cmp.c; NULL: nothing to gain */

/* expr_range.c */
Range range_of_type(DType t);

/* expr_prove.c: a + k <= b whatever the symbols are, over the integers; false also if it cannot tell */
bool prove_le(Ctx *c, Expr *a, Expr *b, int64_t k);

/* ---- rewrite rows (expr_rules.c, applied by rewrite.c) ----
 * pattern and result are text; x y z w stand for anything, c0 to c3 for constants, numbers for constants of the type at
 * hand. types: kinds (dtype.def) of the values the row is about: the operands of a comparison, else the node.
 * condition: NULL, or integer arithmetic over constants and lo(x) hi(x) bits(x) is_int(x) is_bool(x) pure(x) power2(x);
 * it must hold. */
typedef struct { const char *types, *pattern, *result, *condition; } RuleRow;
typedef struct { const RuleRow *row; Expr *pattern, *result, *condition; } Rule;
enum { RULE_VARS = 8 };
typedef struct { Expr *var[RULE_VARS]; } Binding;
extern const RuleRow rule_rows[];
extern const int rule_count;

/* the node rewritten by the first row that matches; NULL if none */
Expr *rules_apply(Ctx *c, const Expr *head, Expr *const *a);
const Rule *rule_at(Ctx *c, int i);
bool rule_condition(Ctx *c, const Rule *r, const Binding *b);
Expr *rule_build(Ctx *c, const Expr *pattern, const Binding *b, DType t);       /* numbers alone take type t */

#endif
