/* access.h - how the loads and the store of a stage walk through storage: what schedule rules and packing decide by. */
#ifndef DLC_ACCESS_H
#define DLC_ACCESS_H

#include "stages.h"

/* The loads of an expression along an axis: at one place, at stride one, permuted within a block of channels (counted under unit too: one
 * load and a shuffle), constants that could be stored so, and others. */
typedef struct { Ctx *c; Sym *s; int lanes, fixed, unit, turned, packable, bad; } Walk;
Walk access_walk(Ctx *c, const Expr *e, Sym *s, int lanes);

/* The stride of an offset along axis s, looked at in steps of one within an aligned block of `lanes`; -1: not constant. */
int64_t access_stride(Ctx *c, Expr *offset, Sym *s, int lanes);
int64_t access_store_stride(Ctx *c, const Stage *st, Sym *s, int lanes);     /* in elements; -1: not constant */
bool access_is_turned(Ctx *c, const Expr *load, Sym *s, int lanes);          /* within an aligned block, lanes read its elements in a fixed order */
bool access_is_packable(const Expr *load, const Sym *s);     /* a row-major constant that moves with s in one dimension */

/* The data axis to run vectors along: where the output lies contiguous and the fewest loads are scattered; -1 if all extents are 1. */
int access_vector_axis(Ctx *c, const Stage *st, int lanes);

/* Of a product, the factor that moves with s (panel) and the one that does not (broadcast); false if both or neither do. */
bool access_split(const Expr *product, const Sym *s, const Expr **broadcast, const Expr **panel);

#endif
