/* stmt.h - the tensor IR: eight statements, kernels, programs. Loop kinds stay kinds until emission. */
#ifndef DLC_STMT_H
#define DLC_STMT_H

#include "expr.h"
#include "graph.h"

typedef enum { ST_FOR, ST_STORE, ST_IF, ST_ALLOC, ST_SEQ, ST_CALL, ST_BARRIER, ST_PREFETCH } StmtOp;
typedef enum { LOOP_SERIAL, LOOP_PARALLEL, LOOP_VECTOR, LOOP_UNROLL, LOOP_BLOCK, LOOP_THREAD } LoopKind;
extern const char *const loop_kind_name[];                   /* "for" "parallel" "vector" "unroll" "block" "thread" */

/* FOR    kind sym in [0, extent): body[0]. VECTOR: extent <= lanes, the rest of the lanes is masked; UNROLL: constant extent.
 * STORE  tensor{index} = value (physical element offset); combiner >= 0 accumulates: tensor{index} = combine(tensor{index}, value)
 * IF     cond: body[0] else body[1] (may be NULL)
 * ALLOC  tensor (SCOPE_REG: emitted as SSA values, indices constant after unrolling; SCOPE_SCRATCH: the thread's scratch) in body[0]
 * SEQ    body[0..n)
 * CALL   in a program: kernel with the tensors args[], in kernel->params order
 * BARRIER
 * PREFETCH  tensor{index} will be read soon; the index may lie outside of the tensor */
struct Stmt {
  StmtOp op;
  LoopKind kind;
  Sym *sym;
  Expr *extent;                    /* FOR */
  int lanes;                       /* VECTOR */
  Tensor *tensor;                  /* STORE, ALLOC, PREFETCH */
  Expr *index, *value;             /* STORE, PREFETCH; IF: value is the condition */
  int combiner;                    /* STORE: -1 plain */
  Kernel *kernel;                  /* CALL */
  Tensor **args;
  Sym **dims;                      /* CALL: this call's symbols, in kernel->dims order */
  const char *source;              /* CALL: the ONNX node it came from */
  int n;
  Stmt **body;
};

/* A kernel: params are the tensors it touches (inputs and outputs), dims the symbols it needs from outside. If `body` is a parallel
 * FOR (possibly inside ALLOCs), a call runs lo..hi of it. */
struct Kernel {
  const char *name;
  Tensor **params; int nparams;
  bool *writes;                    /* per param */
  bool *shares;                    /* per param: some call gives it the memory of another param (in place); NULL: none */
  VEC(Sym *) dims;
  Stmt *body;
  Expr *scratch_bytes;             /* per thread, after lowering; NULL: none */
  const char *why;                 /* rule that scheduled it, for --explain */
  const char *source;              /* the ONNX nodes it came from, for profiles */
  struct Group *group;             /* of stages that it was made of; NULL: read from text */
};

Stmt *st_for(Ctx *c, LoopKind kind, Sym *s, Expr *extent, Stmt *body);
Stmt *st_store(Ctx *c, Tensor *t, Expr *index, Expr *value, int combiner);
Stmt *st_if(Ctx *c, Expr *cond, Stmt *then, Stmt *otherwise);
Stmt *st_alloc(Ctx *c, Tensor *t, Stmt *body);
Stmt *st_seq(Ctx *c, Stmt *const *s, int n);                 /* nested SEQs are flattened, NULLs dropped */
Stmt *st_call(Ctx *c, Kernel *k, Tensor *const *args, int n);
Stmt *st_barrier(Ctx *c);
Stmt *st_prefetch(Ctx *c, Tensor *t, Expr *index);

/* Copies with symbols and tensors of their own, in names and order of operands free of the compile's history (stmt_canon.c). */
Stmt *stmt_canonical(Ctx *c, const Stmt *s);
Kernel *kernel_canonical(Ctx *c, const Kernel *k);
const char *stmt_text(Ctx *c, const Stmt *s);                /* of the canonical copies: equal kernels have equal text */
const char *kernel_text(Ctx *c, const Kernel *k);
Kernel *kernel_parse(Ctx *c, const char *text);
void kernel_verify(Ctx *c, const Kernel *k);
void kernel_run(Ctx *c, const Kernel *k, void *const *params, const int64_t *dims);   /* interpreter of the tensor IR (stmt_eval.c) */

#endif
