/* regions.h - which part of a stage's tensor its readers need while the outer loops of the root stand. */
#ifndef DLC_REGIONS_H
#define DLC_REGIONS_H

#include "stages.h"

typedef struct { Expr *min, *extent; } Region;   /* of one dimension or axis: [min, min + extent) */

/* What every member of the group has to compute while the root runs over `root` (its axes, then those of its reduction):
 * out[i][d] for dimension d of stage i. All of a dimension where readers disagree or no interval is found. */
void group_regions(Ctx *c, const Group *g, const Region *root, Region (*out)[MAX_RANK]);

/* The regions of the root's axes at one step of the loops that g->block asks for. */
void group_block_axes(Ctx *c, const Group *g, Region *root);

#endif
