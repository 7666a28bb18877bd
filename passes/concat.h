/* concat.h - what is computed from a concatenation, channel by channel, is computed from its parts. */
#ifndef DLC_CONCAT_H
#define DLC_CONCAT_H

#include "../ir/graph.h"

/* A concatenation of channels among n's inputs whose parts n is to read instead, *others: and so all else that reads it, as all treat each
 * channel alone; or NULL. */
Node *concat_of_parts(Ctx *c, Node *n, bool *others);

/* What stands for output i of `reader`, which reads the concatenation: made of its parts by new nodes before the reader. */
Tensor *concat_reader(Ctx *c, Node *concat, Node *reader, int i);

#endif
