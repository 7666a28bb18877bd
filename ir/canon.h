/* canon.h - canonical copies: what texts are made from (stmt_canon.c). The originals are left alone.
 *
 * What one Canon copies has names of its own in the order of its coming; what its outer one has copied is shared. */
#ifndef DLC_CANON_H
#define DLC_CANON_H

#include "stmt.h"

typedef struct Canon {
  Ctx *c;
  const struct Canon *outer;       /* NULL: none */
  Map syms, tensors, exprs;        /* the original's to the copy's */
  Map hashes;                      /* Expr* -> boxed hash of its structure */
  Map taken;                       /* names in use */
  struct Canon *again;             /* copies the copies; NULL: once is enough */
} Canon;

Canon canon_new(Ctx *c, const Canon *outer);                 /* copies are made in c, whatever context the originals live in */
/* Copies of copies: what the first copy simplifies further than its original was leaves the order of that one behind, a second
 * one does not. outer is such a one, too. */
Canon canon_twice(Ctx *c, const Canon *outer);
Sym *canon_sym(Canon *k, Sym *s);
Tensor *canon_tensor(Canon *k, Tensor *t);                   /* type, layout and scope; neither data nor offset */
Expr *canon_expr(Canon *k, Expr *e);
Stmt *canon_stmt(Canon *k, const Stmt *s);

#endif
