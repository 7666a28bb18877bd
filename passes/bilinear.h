/* bilinear.h - what the passes share that trade multiplications for sums (winograd.c, strassen.c): sums by tables of coefficients, one
 * case of several chosen by an index, stages. */
#ifndef DLC_BILINEAR_H
#define DLC_BILINEAR_H

#include "stages.h"

enum { BILINEAR_MOST = 12,
       BILINEAR_EVEN = 64 };       /* pieces that divide well among threads */
typedef struct { const double *row; int stride, rows, cols; } BilinearMatrix;   /* row after row, `stride` apart; at most BILINEAR_MOST of each */

/* fused: by fma where a factor is not 1. */
Expr *bilinear_sum(Ctx *c, const double *row, Expr *const *v, int n, bool fused);   /* sum of row[i] * v[i], without the zeros */
void bilinear_multiply(Ctx *c, const BilinearMatrix *l, Expr *const *v, Expr **out, bool fused);   /* out = L v, sums shared between rows */
Expr *bilinear_case(Ctx *c, Expr *at, Expr *const *item, int n);             /* item[i] for i == at */
Stage *bilinear_stage(Ctx *c, const char *name, int rank, Expr *const *shape, const char *const *axes);   /* of f32, without a body */
Tensor *bilinear_weights(Ctx *c, Stage *st);                 /* the constant that st computes of others when it is stored */
Tensor *bilinear_source(Ctx *c, const Tensor *weights, const char *layout);   /* they in that layout: contiguous along the vectors' axis */

/* Cycles of a core for so many of computing, in that many equal pieces, with weights that come from memory at every run meanwhile: the mean of
 * one and of two threads, these taken together, which wait for each other where pieces do not divide. */
double bilinear_cycles(const Target *t, double compute, int64_t pieces, double weight_bytes);

#endif
