/* sched.h - schedules as data: a text of primitives applied to the loops of a group's stages, then loops made from them.
 *
 * A stage starts with one iterator per axis (data axes in order, then the axes of its reduction) under the axis's name. Primitives
 * (statements separated by ';', one function each in sched.c; a refusal has a reason):
 *   in T                     the following statements are about the stage that makes tensor T (at first: the root)
 *   split i 14 4 -> i.o i.i  i = i.o * f + i.i in runs of the given factors: as many 14s as fit, then 4s, then one shorter rest
 *   chunk i 4096 -> i.o i.i  i = i.o * 4096 + i.i, the last i.i shorter: one loop, for sharing among threads
 *   fuse i j -> ij           one iterator over the product of two adjacent ones
 *   order i j k              the loops from outside in, all of them
 *   parallel i | vector i 16 | unroll i
 *   partial i                a reduction iterator each of whose steps keeps a result of its own, combined after the reduction
 *                            (a vector iterator over a reduction axis is always partial: one result per lane)
 *   ahead 65536 1024 512 i k while loops i and k, the named ones, take their 512 steps, 1024 cache lines of constants are asked for: from that
 *                            many bytes beyond the beginning of the panel at hand on, some in each step of k
 *   soon 2 k.o r i           in every step of reduction loop k.o what the product reads of computed tensors two steps later is asked for, over all of
 *                            loops r and i inside; other loops inside, and lanes, stand at their beginning. Of a stage without a reduction any loop
 *   at i                     compute this stage inside the root's loop i (else: before the root's loops)
 *   reg                      hold what is computed there in registers: its loops have constant extents and are unrolled
 */
#ifndef DLC_SCHED_H
#define DLC_SCHED_H

#include "stages.h"

typedef struct Iter Iter;
struct Iter {
  const char *name;
  bool reduce;
  LoopKind kind;
  int lanes;                       /* VECTOR */
  Iter *outer, *inner;             /* split or chunked into these */
  int64_t factor[6]; int nfactors;
  bool chunk, partial;
  Iter *parent;                    /* the iterator this one is outer or inner of */
  Iter *fused;                     /* fused into this one ... */
  bool fused_hi;                   /* ... as its quotient (else its remainder) by mate's extent */
  Iter *mate;
  /* while loops are made: */
  Expr *extent;                    /* now */
  Expr *value;                     /* leaves: the loop's symbol or a constant */
  Expr *here;                      /* its value in the branch at hand */
  Expr *base, *run;                /* of a split iterator: start and factor of the current run */
  Expr *origin;                    /* of an axis of which only a part is computed: where the part begins */
  int64_t stride;                  /* in the accumulator */
};

typedef struct StageLoops {
  Stage *stage;
  Expr *reduce;                    /* the EX_REDUCE of the body, or NULL */
  VEC(Iter *) axes;                /* data axes in the stage's order, then reduction axes */
  Sym **syms;                      /* their symbols */
  VEC(Iter *) order;               /* leaves from outside in */
  VEC(Iter *) splits;              /* iterators that were split or chunked */
  Iter *at;                        /* loop of the root, or NULL */
  struct { int64_t bytes, lines, steps; int n; Iter *at[16]; } ahead;
  struct { int64_t steps; Iter *loop; int n; Iter *over[6]; } soon;
  bool reg;                        /* what the loop needs of it is held in registers */
} StageLoops;

typedef struct Sched {
  Ctx *c;
  Group *group;
  VEC(StageLoops *) stages;
  StageLoops *current;
  Str text;                        /* what was applied: parses back */
} Sched;

Sched *sched_new(Ctx *c, Group *g);
const char *sched_apply(Sched *s, const char *text);         /* NULL, or the reason of the first refusal */
StageLoops *sched_root(const Sched *s);
const char *stage_axis_name(Ctx *c, Stage *st, int i);       /* of the iterator that a schedule starts with; axes of the reduction follow */
Expr *stage_extent(Ctx *c, const Tensor *t, int d);          /* how far loops over a dimension run: a blocked layout's tail is written too */

/* Loops for the group under the schedule. Loads and stores become fetches at layout offsets; the result passes kernel_verify. */
Kernel *sched_kernel(Sched *s, const char *name);
Kernel *kernel_of(Ctx *c, const char *name, Stmt *body);     /* a kernel around loops: parameters and dims found in them */

#endif
