/* bilinear.h - what the passes share that trade multiplications for sums (winograd.c, strassen.c): sums by tables of coefficients, one
 * case of several chosen by an index, stages. */
#ifndef DLC_BILINEAR_H
#define DLC_BILINEAR_H

#include "stages.h"

Expr *bilinear_sum(Ctx *c, const double *row, Expr *const *v, int n);        /* sum of row[i] * v[i], without the zeros */
Expr *bilinear_case(Ctx *c, Expr *at, Expr *const *item, int n);             /* item[i] for i == at */
Stage *bilinear_stage(Ctx *c, const char *name, int rank, Expr *const *shape, const char *const *axes);   /* of f32, without a body */
Tensor *bilinear_weights(Ctx *c, Stage *st);                 /* the constant that st computes of others when it is stored */
Tensor *bilinear_source(Ctx *c, const Tensor *weights, const char *layout);   /* they in that layout: contiguous along the vectors' axis */

#endif
