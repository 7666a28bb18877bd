/* contract.h - a stage that sums products, as packing and its schedule rule look at it: which axis vectors run along, which factor moves
 * with it (the panel) and which is repeated in all lanes (the broadcast operand).
 *
 * An axis that loads take apart by a constant (heads beside their elements in one axis) stands as two here: with i = q*64 + r the head
 * moves both factors, the element only one.
 */
#ifndef DLC_CONTRACT_H
#define DLC_CONTRACT_H

#include "access.h"

typedef enum { AXIS_WHOLE, AXIS_HIGH, AXIS_LOW } AxisPart;
typedef struct { int axis; AxisPart part; int64_t by; Sym *sym; Expr *extent; } ContractAxis;    /* by: what HIGH and LOW were divided by */

typedef struct Contract {
  Ctx *c;
  const Stage *st;
  int lanes, n, v;                 /* v: the vector axis */
  ContractAxis axis[2 * MAX_RANK];
  Expr *body, *reduce, *store;     /* the stage's, in the axes above; store: the offset that is written */
  const Expr *broadcast, *panel;
  bool scattered;                  /* the panel does not lie contiguous along v, and could not be stored so */
  const Expr *operand;             /* of a scattered panel: the load of a tensor that is better copied whole, with dimension dim last; else NULL */
  int dim;
} Contract;

/* NULL, or the reason why the stage is none. */
const char *contract_view(Ctx *c, const Stage *st, int lanes, Contract *k);
/* The constant by which loads of the stage's product take the axis apart, without remainder; 1: none. */
int64_t contract_taken_apart(Ctx *c, const Stage *st, int axis);
Expr *contract_back(const Contract *k, Expr *e);              /* e in the stage's own axes */
int64_t contract_rows(const Contract *k, int64_t open);       /* points that share a panel; an open extent counts as `open` */

#endif
