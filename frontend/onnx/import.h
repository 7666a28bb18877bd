/* import.h - what the files of the importer share: the import under way, scopes of names, a node on its way into the
 * graph. */
#ifndef DLC_ONNX_IMPORT_H
#define DLC_ONNX_IMPORT_H

#include "onnx_model.h"

enum { NEWEST_OPSET = 28 };        /* of the standard operators; op.h knows the newest form of each */

/* One kind of node that dlc has no operator for. */
typedef struct { const char *op, *node, *why; int nodes; } Refused;

typedef struct Import {
  Ctx *c;
  const OnnxOptions *o;
  const OnnxModel *m;
  OnnxFiles files;
  Graph *g;                        /* the top graph */
  Map functions;                   /* interned "domain\001name\001overload" -> OnnxFunction* */
  Map dims;                        /* interned name -> Expr*: named dimensions so far */
  Map named;                       /* Tensor* -> itself: it has the name of a model's value for good */
  Map told;                        /* interned text -> itself: problems that are told once a model */
  Map cursor;                      /* Graph* -> number of nodes whose shapes were looked at (upgrade.c) */
  VEC(Refused) refused;
  VEC(const OnnxFunction *) calls; /* functions being inlined, outermost first */
  Tensor *absent;                  /* what a function's name means when the caller leaves the input out */
  int nodes, most_nodes;           /* in the whole graph, functions inlined; the most that may be */
  int depth;                       /* sub-graphs and function bodies around the node at hand */
  int64_t params;
} Import;

/* Names and what they mean. A sub-graph sees what is around it, a function's body only its own. */
typedef struct NameScope {
  struct NameScope *parent;            /* NULL: the top graph or a function's body */
  Graph *g;                        /* where nodes go */
  Map names;                       /* interned name -> Tensor* */
  const OnnxOpset *opsets; int nopsets;
  const OnnxAttr *bound; int nbound;         /* in a function: the call's attributes */
  const char *prefix;              /* of node names: "" or "call/" */
  int index;                       /* in a function: the number of the node that calls it; else -1 */
  bool top;                        /* names are the model's own, to be kept */
} NameScope;

/* A node whose operator, inputs and attributes may still be changed by upgrades. */
typedef struct Draft {
  Import *im;
  NameScope *scope;
  const char *domain, *op;         /* op: what it has become */
  const char *said;                /* the operator as the file calls it */
  int version;                     /* of the operator set */
  const char *name;
  int index;
  const char *out;                 /* name of the first output: what made constants are named after */
  VEC(Tensor *) in;                /* NULL: absent */
  VEC(OnnxAttr) attrs;
  int nout;
  Tensor *(*finish)(struct Draft *d, Tensor *out);     /* adds what must follow the node, gives the new first output */
  int64_t arg;                     /* for finish */
  Tensor *tensor;                  /* likewise */
} Draft;

/* ---- import.c ---- */
void draft_error(const Draft *d, DiagCode code, const char *hint, const char *fmt, ...) PRINTF_LIKE(4, 5);
void draft_refuse(const Draft *d, const char *why);          /* E0401, told together with the others */
/* around: where names are looked up */
Graph *import_subgraph(Import *im, Graph *parent, NameScope *around, const OnnxGraph *from);
Tensor *import_const(Import *im, Graph *g, const char *name, const OnnxTensor *t);

/* ---- order.c: the nodes' numbers so that each stands behind those whose results it needs; E0307 for cycles and values
 * made twice. given: names that exist already ---- */
const int *import_order(Import *im, const Map *given, const OnnxNode *nodes, int n);

/* ---- attrs.c ---- */
void import_attrs(Draft *d, const OnnxNode *n); /* fills d->attrs: references to the call's attributes resolved */
const OnnxAttr *draft_attr(const Draft *d, const char *name);          /* NULL if absent */
void draft_drop(Draft *d, const char *name);
void draft_set(Draft *d, OnnxAttr a);                        /* replaces or adds */
bool import_check_attrs(Draft *d, const Op *op);             /* against the row: unknown, wrong kind, missing */
void import_set_attrs(Draft *d, Node *n);

/* ---- upgrade.c ---- */
bool import_upgrade(Draft *d);                               /* to the newest form; false after an error */

/* ---- inputs.c ---- */
void import_inputs(Import *im, NameScope *top); /* the model's inputs, their dimensions fixed as the options say */

#endif
