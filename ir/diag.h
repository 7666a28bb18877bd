/* diag.h - what dlc says when something is wrong.
 *
 * Two kinds: a user's error (model, flags, files, environment) has a stable code from diag.def, which fixes the exit
 * status; a bug of ours goes to diag_bug. One line, then at most one hint line:
 *     dlc: m.onnx: error[E0411]: node 17 'proj' (MatMul-13): a f32[2,4] * b f32[5,4]: inner dimensions 4 and 5 differ
 *       hint: ...
 * diag_error records and returns, so that all problems of a model are told in one run; diag_fail records and unwinds to
 * the one setjmp, in frontend/compile.c; diag_check unwinds if anything was recorded.
 */
#ifndef DLC_DIAG_H
#define DLC_DIAG_H

#include <setjmp.h>
#include "base.h"

typedef enum {
#define DIAG(code, exit_status, title) code,
#include "diag.def"
#undef DIAG
  DIAG_COUNT
} DiagCode;

typedef struct { DiagCode code; char *text, *hint; } Diag;

typedef struct {
  VEC(Diag) list;
  const char *file;                /* the model's name as the user wrote it; NULL before one is known */
  const char *pass;                /* the pass that runs, for bugs */
  const Node *node;                /* the node at hand, for bugs */
  bool reading;                    /* IR text is being read: a broken invariant is the text's, E0309 */
  jmp_buf unwind;
  bool armed;                      /* unwind is set; otherwise diag_fail prints and exits */
} Diags;

Diags *ctx_diags(Ctx *c);

/* `where` may be NULL; with it the message starts "node 17 'name' (Op-13): ". hint may be NULL. Names are escaped. */
void diag_error(Ctx *c, DiagCode code, const Node *where, const char *hint, const char *fmt, ...) PRINTF_LIKE(5, 6);
_Noreturn void diag_fail(Ctx *c, DiagCode code, const Node *where, const char *hint, const char *fmt, ...) PRINTF_LIKE(5, 6);
_Noreturn void diag_bug(Ctx *c, const char *fmt, ...) PRINTF_LIKE(2, 3);   /* E0900: prints pass and node, exit status 8 */
void diag_check(Ctx *c);
_Noreturn void diag_pass_on(Ctx *c, Ctx *from);        /* what unwound a context of another thread unwinds c */
void diag_print(Ctx *c, FILE *to);                     /* every recorded one, in order */
int diag_exit_status(const Ctx *c);                    /* of the first recorded; 0 if none */
const char *diag_code_name(DiagCode code);             /* "E0411" */
const char *diag_code_title(DiagCode code);
int utf8_length(const unsigned char *s);               /* of the sequence at s; 0 if it is none or a C1 control */
const char *diag_quote(Ctx *c, const char *name);      /* control and non-UTF-8 bytes escaped, length limited */

#endif
