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

/* ---- building blocks of replacements ---- */
Node *rule_node(Rewrite *r, const char *op, Tensor *const *in, int nin);      /* before the root, under its name; attributes at their defaults */
Node *rule_copy(Rewrite *r, const Node *n, Tensor *const *in, int nin);       /* the same operator with the same attributes on other inputs */
Tensor *rule_done(Rewrite *r, Node *n);                      /* infers it; its first output */
Tensor *rule_ints(Rewrite *r, const int64_t *v, int n);      /* a constant i64[n] */
void rule_set_int(Node *n, const char *name, int64_t v);
bool rule_is_op(const Tensor *t, const char *name);          /* made by that operator; t may be NULL */
/* Is output i of n, a Slice or Split, what lies in its input from the elements from[rank] on? */
bool rule_is_window(Ctx *c, Node *n, int i, int64_t *from);

#endif
