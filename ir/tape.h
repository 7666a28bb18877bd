/* tape.h - a stage's body as a list of operations over rows: what the interpreter runs.
 *
 * A row is up to TAPE_LANES consecutive elements of the output, taken from its innermost axes. Every expression is computed once
 * per row at the outermost loop it depends on, in one of three widths: U one value for the row, S one value per run of the
 * innermost axis, L one value per element. Reductions are loops around rows. A select computes the loads of a side only where
 * that side is chosen. What expr.def says of an operation holds here: the typed loops of tape_ops.c are checked against
 * expr_apply, which also serves all that has no loop of its own.
 */
#ifndef DLC_TAPE_H
#define DLC_TAPE_H

#include "expr.h"
#include "op.h"

#define TAPE_LANES 256

/* A row-major array in memory. splat: one element at data stands for all. */
typedef struct Buffer Buffer;
typedef struct Value {
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];
  bool splat;
  const void *data;
  Buffer *buffer;                  /* NULL: data belongs to someone else */
} Value;

/* Where a tape finds what its expressions name. */
typedef struct TapeEnv {
  int64_t (*dim)(struct TapeEnv *env, const Sym *s);
  const Value *(*array)(struct TapeEnv *env, const Tensor *t);
  const Node *node;                /* for messages; may be NULL */
} TapeEnv;

typedef struct Tape Tape;
Tape *tape_new(Ctx *c, const Stage *stage, const int64_t *dims);  /* dims: concrete ones of stage->out */
size_t tape_pool_bytes(const Tape *t);                       /* scratch that tape_run needs, 64-byte aligned */
void tape_run(Tape *t, TapeEnv *env, void *pool, void *out); /* diag_fail E0505 if data leads to an index outside a tensor */

/* ---- rows of elements (tape_ops.c): operands and result do not overlap, or are the same; b is NULL for one operand ---- */
typedef void RowFn(void *d, const void *a, const void *b, int n);
RowFn *row_op(ExprOp op, DType operand);                     /* NULL: use expr_apply */
RowFn *row_cast(DType to, DType from);                       /* NULL: likewise */
RowFn *row_mac(DType t, bool uniform);                       /* d += a * b; uniform: one b for all */
void row_select(int bytes, void *d, const uint8_t *cond, const void *a, const void *b, int n);
void row_fill(int bytes, void *d, const void *value, int n);
void row_repeat(int bytes, void *d, const void *a, int n, int times);     /* each of the n elements of a, times in turn */
void row_take(int bytes, void *d, const void *base, const int64_t *offset, const uint8_t *mask, int n);   /* where mask, or everywhere */
void row_take_stride(int bytes, void *d, const void *from, int64_t stride, const uint8_t *mask, int n);

Scalar scalar_load(DType t, const void *p);
void scalar_store(DType t, void *p, Scalar v);

#endif
