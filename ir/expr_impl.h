/* expr_impl.h - what the expression files share among themselves. */
#ifndef DLC_EXPR_IMPL_H
#define DLC_EXPR_IMPL_H

#include "ctx.h"
#include "expr.h"

/* expr.c: the node itself, as it stands (op, dtype, n and u of `head`), without any simplification. */
Expr *expr_intern(Ctx *c, const Expr *head, Expr *const *a);
Expr *expr_raw(Ctx *c, ExprOp op, DType t, Expr *const *a, int n);
static inline Expr *expr_raw2(Ctx *c, ExprOp op, DType t, Expr *a, Expr *b) { return expr_raw(c, op, t, (Expr *[]){a, b}, 2); }

/* expr_eval.c */
int64_t scalar_wrap(DType t, int64_t v);           /* an integer in the width of t */
double scalar_round(DType t, double v);            /* a float in the precision of t; one NaN */
Scalar scalar_cast(DType to, DType from, Scalar v);

/* expr_lin.c: integer sums, products, division, comparison in canonical form */
Expr *lin_sum(Ctx *c, Expr *a, Expr *b, int64_t scale_b);            /* a + scale_b * b */
Expr *lin_product(Ctx *c, Expr *a, Expr *b);
Expr *lin_divmod(Ctx *c, Expr *a, Expr *b, bool mod);
Expr *lin_compare(Ctx *c, ExprOp op, Expr *a, Expr *b);              /* NULL: nothing to gain */
Expr *lin_minmax(Ctx *c, ExprOp op, Expr *a, Expr *b);               /* NULL: nothing to gain */

/* expr_range.c */
Range range_of_type(DType t);
bool range_proves_le(Ctx *c, const Expr *a, const Expr *b, int64_t k);   /* a + k <= b for index arithmetic, symbolic extents used */

/* expr_rules.c: the first row that matches the node (op, dtype, a) rewritten; NULL if none */
Expr *rules_apply(Ctx *c, const Expr *head, Expr *const *a);

#endif
