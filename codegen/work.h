/* work.h - how much a kernel does: what its time is held against. */
#ifndef DLC_WORK_H
#define DLC_WORK_H

#include "codegen.h"

/* Of one call, as expressions in the kernel's dims; NULL where more than dims decides.
 * flops: floating operations as they stand in the loops, so those that Winograd saves are not counted and those on padding are; a
 * multiply-add is two, a transcendental operation as many as its polynomial has. What does not depend on a loop is taken to stand outside
 * of it, and to be shared by the copies of an unrolled one. Of a choice both sides count.
 * muls: of these, multiplications, but not those inside of transcendental operations.
 * reads, writes: bytes of parameters, every element that is touched counting once; weights: of reads, constants.
 * type: of the operations in the innermost loops; DT_NONE if there are none. */
typedef struct { Expr *flops, *muls, *reads, *writes, *weights; DType type; } Work;
Work kernel_work(Ctx *c, const Kernel *k);                   /* before math_expand */

#endif
