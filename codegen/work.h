/* work.h - how much a kernel does: what its time is held against. */
#ifndef DLC_WORK_H
#define DLC_WORK_H

#include "codegen.h"

/* Of one call, as expressions in the kernel's dims; NULL where more than dims decides.
 * flops: floating operations as they stand in the loops, so those that Winograd saves are not counted and those on padding are; a
 * multiply-add is two. What does not depend on a loop is taken to stand outside of it.
 * bytes: every element of a parameter that is read, once, and every one that is written, once; weights: of these, constants. */
typedef struct { Expr *flops, *bytes, *weights; } Work;
Work kernel_work(Ctx *c, const Kernel *k);

#endif
