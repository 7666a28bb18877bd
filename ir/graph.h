/* graph.h - the graph IR: tensors, nodes, graphs. Nodes stand in topological order; names are kept from the model. */
#ifndef DLC_GRAPH_H
#define DLC_GRAPH_H

#include "base.h"
#include "diag.h"
#include "dtype.h"
#include "expr.h"

#define MAX_RANK 16

/* Layout: from logical indices to the element's place, built of split, reorder and pad. Physical dimension j of `part` holds
 *     (index[dim] + ring_lo[dim]) / div  % mod        (div 1: whole, mod 0: no mod)
 * and has extent  mod ? mod : ceil((shape[dim] + ring_lo + ring_hi) / div).  Elements that no index reaches (ring, channel
 * tail) hold zero. NULL layout = row-major, no ring. NCHW16c with ring 1: {n} {c,div16} {h} {w} {c,mod16}, ring h 1 1, w 1 1.
 * kept: the ring is zero before the first run, and stays so: the tensor shares its memory with none that lies otherwise.
 * pad: elements left unused behind each step of the dimension, so that steps are not apart by many cache lines' power of two. */
typedef struct { int8_t dim; int32_t div, mod, pad; } LayoutPart;
typedef struct Layout {
  int n;
  LayoutPart part[2 * MAX_RANK];
  int32_t ring_lo[MAX_RANK], ring_hi[MAX_RANK];
  bool kept;
} Layout;

/* Bytes of a constant: row-major, little endian, often in a mapped file and then aligned to nothing. splat: one element stands for all.
 * stage: bytes is NULL, what it computes of other constants is the value, once that is stored (passes/storage.c). */
typedef struct { const void *bytes; bool splat; const struct Stage *stage; } ConstData;

/* Where a tensor lives once planned. */
typedef enum { SCOPE_NONE, SCOPE_INPUT, SCOPE_OUTPUT, SCOPE_ARENA, SCOPE_CONST, SCOPE_SCRATCH, SCOPE_REG } MemScope;

struct Tensor {
  const char *name;                /* unique in its graph */
  DType dtype;                     /* DT_NONE until inferred */
  int rank;                        /* -1 until inferred */
  Expr **shape;                    /* rank expressions over SYM_DIMs */
  ConstData *data;                 /* constants only */
  Expr **known;                    /* elements of a small integer or bool tensor (rank 0 or 1, or few), symbolically; NULL if not known */
  int nknown;
  Layout *layout;
  Node *def;                       /* the node that makes it; NULL for graph inputs, constants, stage tensors */
  int def_index;                   /* which output of def */
  VEC(Node *) users;               /* one entry a use; graph outputs are not users. Kept by the three mutators below */
  MemScope scope;
  Expr *offset;                    /* byte offset in its scope, after planning */
  int id;
};

typedef enum { ATTR_NONE, ATTR_INT, ATTR_FLOAT, ATTR_STRING, ATTR_INTS, ATTR_FLOATS, ATTR_STRINGS, ATTR_TENSOR, ATTR_GRAPH } AttrKind;
typedef struct Attr {
  const char *name;
  AttrKind kind;                   /* ATTR_NONE: absent and without default */
  int64_t i; double f; const char *s;
  int n;                           /* of the lists */
  int64_t *ints; double *floats; const char **strings;
  Tensor *tensor;
  Graph *graph;
} Attr;

struct Node {
  const Op *op;
  const char *name;                /* of the ONNX node; "" if it had none */
  int index;                       /* its number in the model file, for messages; -1 if dlc made it */
  int nin, nout;
  Tensor **in;                     /* NULL where an optional input is absent */
  Tensor **out;                    /* NULL where an optional output is not wanted */
  Attr *attrs;                     /* one per row attribute, in the row's order, defaults filled in */
  Graph *graph;                    /* the graph it stands in */
};

struct Graph {
  Ctx *ctx;
  Graph *parent;                   /* for bodies of If, Loop, Scan; NULL at the top */
  const char *name;
  VEC(Tensor *) inputs, outputs;   /* outputs may repeat and may be inputs or constants */
  VEC(Node *) nodes;               /* topological order */
  VEC(Expr *) assumed;             /* conditions on dims that the graph is compiled under; a run that breaks one stops with DLC_E_SHAPE */
  VEC(Sym *) dims;                 /* the named dimensions of the model, in order of appearance (top graph) */
  Map names;                       /* interned name -> Tensor*; inner graphs look up through parent */
  VEC(Graph *) inner;              /* every graph made with this one as its parent */
  Map suffixes;                    /* graph_tensor: interned name -> last .N that was given out */
};

Graph *graph_new(Ctx *c, Graph *parent, const char *name);
Tensor *graph_tensor(Graph *g, const char *name);            /* new, registered; a taken name gets .1, .2 ... */
void graph_rename(Graph *g, Tensor *t, const char *name);    /* t of g gets the name; another tensor of g that had it gets name.N */
Tensor *graph_find(Graph *g, const char *name);              /* here, then in the parents; NULL */
Tensor *graph_const(Graph *g, const char *name, DType t, const int64_t *dims, int rank, const void *bytes);  /* bytes are referenced, not copied */
/* appended; attrs at their defaults; out[] fresh, named OP.N, all wanted: graph_rename those the model names, and set to NULL
 * (out[i] = NULL) what is not wanted */
Node *graph_node(Graph *g, const Op *op, const char *name, Tensor *const *in, int nin, int nout);
Node *graph_node_before(Graph *g, Node *at, const Op *op, const char *name, Tensor *const *in, int nin, int nout);
#define DIM_MAX (((int64_t)1 << 40) - 1)
Sym *graph_dim(Graph *g, const char *name);                  /* the named dimension (top graph's list), made at first use: 1 .. DIM_MAX */
void graph_sort(Graph *g);                                   /* stable topological sort, iterative; diag_fail E0307 names a cycle; inner graphs too */
bool graph_returns(const Graph *g, const Tensor *t);         /* t is an output of g or of a graph inside it: in use although no node uses it */
bool graph_contains(const Graph *g, const Graph *inner);     /* inner is g or stands inside it */
/* What the node's inner graphs (at any depth) take from outside, each once, in order of use: inputs of the node as much as in[]. */
int node_captures(Ctx *c, const Node *n, Tensor ***list);

/* the mutators */
void node_set_input(Node *n, int i, Tensor *t);
void tensor_replace(Graph *g, Tensor *old, Tensor *by);      /* in all users (inner graphs too) and graph outputs */
void node_erase(Graph *g, Node *n);                          /* its outputs must be unused; takes its inner graphs with it */

/* tensors */
Tensor *tensor_new(Ctx *c, const char *name, DType t, int rank, Expr *const *shape);      /* outside graphs: stages, buffers */
bool tensor_dims(const Tensor *t, int64_t *dims);            /* true if all are constants */
bool tensor_is_scalar_const(const Tensor *t, double *v);     /* one element (or splat) */
Expr *tensor_elements(Ctx *c, const Tensor *t);              /* product of the dimensions */
int64_t tensor_const_int(const Tensor *t, int64_t i);        /* element of a constant, row-major */
double tensor_const_float(const Tensor *t, int64_t i);
const char *tensor_type_text(Ctx *c, const Tensor *t);       /* "f32[2,N,4]" */

/* layouts (layout.c) */
Expr *layout_offset(Ctx *c, const Tensor *t, Expr *const *index);   /* element offset in storage */
Expr *layout_elements(Ctx *c, const Tensor *t);              /* size of the storage in elements */
bool layout_covers(Ctx *c, const Tensor *t, Expr *const *index);    /* index provably within shape plus ring: a padded load needs no guard */
bool layout_is_plain(const Tensor *t);                       /* row-major without ring */
const char *layout_text(Ctx *c, const Layout *l);            /* "d0,d1/16,d2+8,d3,d1%16 ring d2=1:1 d3=1:1" (+pad, lo:hi); "" if NULL */
Layout *layout_parse(Ctx *c, const char *text);

/* text and checks (print.c, parse.c, verify.c) */
#define CONST_INLINE 64            /* constants of up to so many elements stand in the text; larger ones by hash, which does not parse */
const char *graph_text(Graph *g);
Graph *graph_parse(Ctx *c, const char *text);
void graph_verify(Graph *g);                                 /* diag_bug on the first broken invariant */

#endif
