/* text.h - pieces of both IRs' texts that the text of a module (passes/module_text.c) is made of as well. */
#ifndef DLC_TEXT_H
#define DLC_TEXT_H

#include "canon.h"
#include "lex.h"

/* ---- printing (print.c) ---- */
void text_indent(Str *s, int depth);
void text_type(Str *s, const Tensor *t);                     /* f32[N,64] layout "..." */
void text_data(Str *s, const Tensor *t);                     /* of a constant: {1,2,3}, splat(0.5), blob "HASH" */
void text_dims(Str *s, Sym *const *dims, int n);             /* N, M=1..32, K=16..1024%16 */
void text_kernel(Str *s, const Kernel *canonical, int depth);
void text_stmt(Str *s, const Stmt *canonical, int depth);

/* ---- reading (parse.c) ---- */
enum { TEXT_DEPTH = 100 };         /* how deep blocks stand inside each other */
typedef struct TextReader {
  Ctx *c;
  Lexer lx;
  Scope scope;
  const Kernel *kernel;            /* the one being read */
  const Map *kernels;              /* while a program is read: interned name -> Kernel*; else NULL */
  int depth;
} TextReader;
typedef VEC(Sym *) SymList;

TextReader text_reader(Ctx *c, const char *text);
void text_deeper(TextReader *r);                             /* on the way in; r->depth-- on the way out */
/* The lists behind ';' of a head whose '(' was just read: lists[0] those of the model or kernel, lists[1] those that data decides. The
 * reader stays where it is; text_skip_dims steps over them and the ')'. */
void text_read_dims(TextReader *r, SymList *lists, int n);
void text_skip_dims(TextReader *r);
bool text_mark(TextReader *r, const char *word);             /* steps over a word in front of a name; a name may be the same word */
Tensor *text_read_tensor(TextReader *r);                     /* NAME: TYPE, nothing of it left open */
void text_read_type(TextReader *r, Tensor *t);               /* : TYPE, of a tensor whose name was read */
void text_read_data(TextReader *r, Tensor *t);
const char *text_read_string(TextReader *r);
Graph *text_read_graph(TextReader *r);
Kernel *text_read_kernel(TextReader *r);
Stmt *text_read_block(TextReader *r);                        /* { statements } */

#endif
