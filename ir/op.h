/* op.h - the operator table. An operator is one row; everything that dlc knows of it is read from the row.
 *
 * Signature text: names separated by blanks; suffix ? optional, * variadic (last). A type may follow a colon: one of the
 * classes  num (any number)  float  int  bool  any  idx (i32 or i64)  or a dtype name. Names with the same single capital
 * letter share one type ("x:T:float y:T"); without a colon an operand has the type of the first one.
 * Outputs follow an arrow, "x:num -> y:bool"; without one the output is y, of the first one's type.
 * Attribute text: "name:kind=default" with kind i f s is fs ss t g; suffix ? = optional without default; no default and no ? = required.
 * A string's values may be listed, the default first: "mode:s=DCR|CRD".
 */
#ifndef DLC_OP_H
#define DLC_OP_H

#include "graph.h"
#include "stmt.h"

typedef enum { OPC_ELEM, OPC_REDUCE, OPC_EXPAND, OPC_MOVE, OPC_OP, OPC_TIR, OPC_HOST, OPC_REGION } OpClass;

typedef struct { const char *name; bool optional, variadic; char var; const char *type; } OpParam;
typedef struct { const char *name; AttrKind kind; bool required; Attr dflt; const char *choices; } OpAttr;   /* choices: "DCR|CRD" or NULL */

/* What an operator's functions see. */
typedef struct OpCtx {
  Ctx *c;
  Node *node;
  VEC(struct Stage *) stages;      /* filled by compute functions */
} OpCtx;

struct Op {
  const char *name, *domain;       /* domain "" = ai.onnx */
  int opset;                       /* newest version: the one form the IR knows */
  OpClass cls;
  OpParam in[32], out[8];
  int nin, nin_min, nout;          /* variadic: nin counts it once */
  OpAttr attr[24];
  int nattr;
  const char *text, *text2;        /* ELEM: body; REDUCE: body and result; EXPAND: graph text; TIR: file */
  Combiner combiner;               /* REDUCE */
  bool (*shape)(OpCtx *oc);        /* sets rank, dtype and shape of every wanted output; false after op_error */
  void (*compute)(OpCtx *oc);      /* appends stages; outputs' stages write node->out[i] */
  Expr *(*index)(OpCtx *oc, Sym *const *axes);   /* MOVE: the load of the input that output element [axes] is */
  bool (*expand)(OpCtx *oc);       /* EXPAND without text: builds the body before the node and returns true; false after op_error */
};

/* One array produced element by element: out[axes] = body. A body may load any tensor, and earlier stages' outputs. */
typedef struct Stage {
  Tensor *out;
  Sym **axes;                      /* out->rank of them, SYM_AXIS, extents = out->shape */
  Expr *body;
  Expr **at;                       /* where in out the element [axes] goes; NULL: at [axes]. Else the stage writes a part of out, the
                                    * extents of axes are the part's (passes/views.c) */
  bool clipped;                    /* what `at` puts outside of out is not stored */
  bool kept;                       /* others than its group read it: where it stands inside the root's loops it still writes all of out */
} Stage;

/* ---- the table (op.c) ---- */
const Op *op_find(Ctx *c, const char *domain, const char *name);         /* NULL if dlc has none */
const Op *op_at(Ctx *c, int i);                              /* in table order; NULL at the end */

/* ---- what every pass asks of a node: the class answers, never the caller ---- */
bool op_infer(Ctx *c, Node *n);                              /* outputs' dtype, shape and known elements; false after recording an error */
bool op_compute(Ctx *c, Node *n, OpCtx *oc);                 /* false: not a pure compute (TIR, HOST, REGION) */
bool op_expand(Ctx *c, Node *n);                             /* EXPAND: replaces n by its body in the graph */

/* ---- for operator functions (op_util.c) ---- */
bool op_error(OpCtx *oc, DiagCode code, const char *hint, const char *fmt, ...) PRINTF_LIKE(4, 5);   /* returns false */
const Attr *op_attr(const Node *n, const char *name);        /* diag_bug if the row has no such attribute */
int64_t op_attr_i(const Node *n, const char *name);
double op_attr_f(const Node *n, const char *name);
const char *op_attr_s(const Node *n, const char *name);
bool op_has_input(const Node *n, int i);
bool op_axis(OpCtx *oc, int64_t axis, int rank, int *out);   /* negative axes resolved, range checked */
bool op_known_ints(OpCtx *oc, int input, int64_t *v, int max, int *n);   /* input i known as constants now */
bool op_known_exprs(OpCtx *oc, int input, Expr ***v, int *n);            /* input i known symbolically; else op_error E0413 */
void op_out(OpCtx *oc, int i, DType t, int rank, Expr *const *shape);    /* sets output i where it is wanted */
bool op_broadcast(OpCtx *oc, Expr *const *a, int ra, Expr *const *b, int rb, Expr **out, int *rank);  /* NumPy rules, symbolic */
bool op_same_dim(Ctx *c, const Expr *a, const Expr *b);      /* provably equal */
/* stages: */
Stage *op_stage(OpCtx *oc, Tensor *out);                     /* new, axes made from out's shape; set ->body */
Tensor *op_temp(OpCtx *oc, const char *name, DType t, int rank, Expr *const *shape);
Expr *op_in(OpCtx *oc, int input, Expr *const *index);       /* load of input i */
Expr *op_in_bcast(OpCtx *oc, int input, Expr *const *axes, int rank);    /* the element that broadcasting puts at output [axes] */
Expr *op_in_pad(OpCtx *oc, int input, Expr *const *index, Expr *fill);   /* fill outside the shape: select(in range, load, fill) */

#endif
