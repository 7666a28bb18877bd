/* simplify.h - the simplify pass for whoever has a graph and no module: the interpreter's users, tests. */
#ifndef DLC_SIMPLIFY_H
#define DLC_SIMPLIFY_H

#include "../ir/graph.h"

/* Simplifies g and the graphs inside it to a fixed point; errors of all nodes are reported, then it unwinds. How many nodes were folded. */
int graph_simplify(Ctx *c, Graph *g);

#endif
