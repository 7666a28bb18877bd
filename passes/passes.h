/* passes.h - the passes that work on stages and kernels, in pipeline order. */
#ifndef DLC_PASSES_H
#define DLC_PASSES_H

#include "module.h"

void pass_simplify(Module *m);     /* simplify.c: inference, folding, rewrite rules, CSE, DCE to a fixed point */
void pass_stages(Module *m);       /* stages.c: nodes -> stages of computes */
void pass_winograd(Module *m);     /* winograd.c: convolutions by F(m,r), with fewer multiplications */
void pass_merge(Module *m);         /* merge.c: products of the same rows by different weights as one */
void pass_strassen(Module *m);      /* strassen.c: products with large constant matrices, one level of Strassen */
void pass_views(Module *m);        /* views.c: parts of a concatenation made in place */
void pass_layout(Module *m);       /* layout.c: an index map per tensor, for the whole model */
void pass_fuse(Module *m);         /* fuse.c: which stages share a kernel */
void pass_windows(Module *m);     /* windows.c: transposed and dilated convolutions by parts, without products that are zero */
void pass_attention(Module *m);  /* attention.c: products of products, by way of rows, computed a block of rows at a time */
void pass_pack(Module *m);         /* pack.c: run-time operands of contractions copied where they lie scattered */
void pass_pools(Module *m);        /* pools.c: sums over whole maps taken while the map's parts are made */
void pass_lower(Module *m);        /* lower.c: a schedule and a kernel per group, equal kernels shared; the program of calls */
void pass_weights(Module *m);      /* weights.c: where constants lie, stored as their kernels read them */
bool weights_write(Module *m, int fd, int64_t at, uint64_t *digest);   /* all, into a file from byte `at` on; false: errno */
void pass_memplan(Module *m);      /* memplan.c: where every tensor lives */
/* Does s read the operand only at the element of the result that it is writing? */
bool memplan_reads_in_place(const Stmt *s, const Tensor *result, const Tensor *operand);

#endif
