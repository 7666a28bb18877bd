/* lex.h - tokens of dlc's texts (expressions, tensor IR, graphs, rules) and the expression parser on top of them.
 *
 * Names: a letter or _, then letters, digits, _ and . ; any other name stands in double quotes with \" \\ \n \t \xNN.
 * Numbers: 12  0.5  1e-3  0.5f (a float with the suffix f is f32).  Comments: // to the end of the line.
 * A Lexer is a plain value: a copy of it is a place to come back to. */
#ifndef DLC_LEX_H
#define DLC_LEX_H

#include "expr.h"

typedef enum { TOK_END, TOK_NAME, TOK_STRING, TOK_INT, TOK_FLOAT, TOK_PUNCT } TokKind;

typedef struct Lexer {
  Ctx *ctx;
  const char *text, *next;         /* the whole text; behind the current token */
  TokKind kind;
  const char *start;               /* the current token */
  int length;
  const char *name;                /* NAME and STRING: interned, unescaped */
  int64_t i;                       /* INT */
  double f;                        /* FLOAT, INT */
  bool single;                     /* FLOAT or INT with the suffix f */
  int line, column;                /* of the current token, from 1 */
  const char *line_start;
} Lexer;

Lexer lex_new(Ctx *c, const char *text);                     /* stands on the first token */
void lex_next(Lexer *lx);
bool lex_is(const Lexer *lx, const char *token);             /* this punctuation or unquoted name */
bool lex_accept(Lexer *lx, const char *token);               /* steps over it if it is there */
void lex_expect(Lexer *lx, const char *token);
const char *lex_name(Lexer *lx);                             /* a name, quoted or not; steps over it */
int64_t lex_int(Lexer *lx);                                  /* an integer with optional minus; steps over it */
DType lex_dtype(Lexer *lx);
_Noreturn void lex_fail(const Lexer *lx, const char *fmt, ...) PRINTF_LIKE(2, 3);     /* E0309 at the current token */

/* Adds a name to text, quoted where it must be. */
void lex_add_name(Str *s, const char *name);
void lex_add_string(Str *s, const char *text);               /* always quoted */

/* One expression (with `let`s before it); stands behind it after. Numbers without suffix take the type of what they are
 * used with; alone they are i64 or f64. */
Expr *parse_expr(Lexer *lx, Scope *scope);
/* a lone number takes type t; any other type is an error */
Expr *parse_expr_as(Lexer *lx, Scope *scope, DType t);

/* print_expr.c: adds the text of e; several expressions of one statement print one after the other */
void print_expr(Str *s, const Expr *e);

#endif
