/* parse_impl.h - the expression parser's second use: patterns of rewrite rows (expr_rules.c). */
#ifndef DLC_PARSE_IMPL_H
#define DLC_PARSE_IMPL_H

#include "lex.h"

/* Questions that conditions of rewrite rows ask, as operations behind the scalar ones. */
enum { PAT_LO = EX_COUNT, PAT_HI, PAT_BITS, PAT_IS_INT, PAT_IS_BOOL, PAT_PURE, PAT_POWER2, PAT_COUNT };

/* The text as a tree of untyped nodes (DT_NONE), nothing folded or rewritten; single letters, c0 ... c3 are variables:
 * EX_SYMs from scope.lets. Numbers are i64 or f64 constants. */
Expr *parse_pattern(Ctx *c, Scope *scope, const char *text);

#endif
