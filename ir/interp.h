/* interp.h - the reference interpreter: runs a graph's computes as they stand, over row-major arrays of concrete sizes.
 *
 * What everything else is tested against, and what folds constants. The graph is one that simplify has been over (no EXPAND
 * nodes, all types known). An Interp keeps what it has compiled, so that the next run of the same graph is quick; its memory is
 * its own and goes with interp_free or with the Ctx.
 */
#ifndef DLC_INTERP_H
#define DLC_INTERP_H

#include "graph.h"
#include "tape.h"

typedef struct Interp Interp;
Interp *interp_new(Ctx *c);
void interp_free(Interp *in);

int64_t value_elements(const Value *v);

/* Runs g: inputs in the graph's order (data is only read, and must stay until the outputs were used); the sizes of the named
 * dimensions come from them. outputs[i].data is the interpreter's and stays until the next interp_graph or interp_free. Errors:
 * E0504 inputs do not fit the model, E0505 an index out of range, E0401 an operator that only compiled code can run. */
void interp_graph(Interp *in, Graph *g, const Value *inputs, Value *outputs);

/* One node whose inputs are constants or were set; false if it is no pure compute or a size is not known. */
void interp_set(Interp *in, const Tensor *t, const Value *v);          /* v->data stays the caller's */
bool interp_node(Interp *in, Node *n);
bool interp_stage(Interp *in, const Stage *st, void *to);              /* a stage alone, over what was set; false if a size is not known */
const Value *interp_get(Interp *in, const Tensor *t);                  /* NULL if it has no value */
void interp_drop(Interp *in, const Tensor *t);                         /* forgets t's value */
void interp_clear(Interp *in);                                         /* forgets all values; programs stay */

/* A concrete size from an expression over dimensions; false if one of them has no value. */
bool interp_size(Interp *in, const Expr *e, int64_t *v);
void interp_set_dim(Interp *in, const Sym *s, int64_t v);

#endif
