/* graph_rules.h - rewrite rules on the graph, as rows of text (graph_rules.c). */
#ifndef DLC_GRAPH_RULES_H
#define DLC_GRAPH_RULES_H

#include "../ir/graph.h"
#include "../ir/op.h"

/* What a rule's pattern matched: variables by letter, the pattern's operators in the order they are written (node[0] = root). */
typedef struct Rewrite {
  Ctx *c;
  Node *root;
  Tensor *var[26];
  Node *node[6];
} Rewrite;
#define VAR(r, letter) ((r)->var[(letter) - 'a'])

typedef struct GraphRule {
  const char *name, *pattern;
  const char *conditions;          /* "const(w,b) float(x)"; "" = none */
  const char *text;                /* the replacement, or NULL and build makes it */
  Tensor *(*build)(Rewrite *r);    /* the tensor that replaces the root's first output; NULL declines */
} GraphRule;

extern const GraphRule graph_rules[];
extern const int graph_rule_count;

/* The tensor that replaces n's first output by the first rule that applies (new nodes stand before n, inferred), or NULL. */
Tensor *graph_rules_apply(Ctx *c, Node *n, const GraphRule **rule);

#endif
