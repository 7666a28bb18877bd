/* op_impl.h - what the files of the operator table share. Everybody else sees op.h. */
#ifndef DLC_OP_IMPL_H
#define DLC_OP_IMPL_H

#include "op.h"

/* ---- rows (op_row.c) ---- */
void row_parse(Ctx *c, Op *op, const char *signature, const char *attrs);    /* diag_bug on a bad row */
bool row_check(OpCtx *oc);                                   /* operands' types and attributes' values against the row */
DType row_type(const Node *n, const OpParam *p);             /* of a parameter, from the inputs; DT_NONE if they do not say */

/* ---- text classes (op_text.c) ---- */
bool elem_shape(OpCtx *oc);
void elem_compute(OpCtx *oc);
bool reduce_shape(OpCtx *oc);
void reduce_compute(OpCtx *oc);
bool reduce_axes(OpCtx *oc, bool *mask);                     /* the dimensions of input 0 that a reducing operator removes */

/* ---- known elements (op_known.c) ---- */
void known_infer(OpCtx *oc);

/* ---- more for operator functions (op_util.c) ---- */
enum { KNOWN_MAX = 64 };                                     /* elements of a tensor that are followed symbolically */
#define OP_BAIL(call) do { if (!(call)) return false; } while (0)

int64_t op_attr_at(const Node *n, const char *name, int i, int64_t dflt);    /* element of an INTS attribute */
int op_attr_len(const Node *n, const char *name);            /* -1 if absent */
bool op_attr_is(const Node *n, const char *name, const char *value);
void op_assume(OpCtx *oc, Expr *cond);                       /* a condition on the model's dimensions that every run has to meet */
Expr *op_meet(OpCtx *oc, Expr *a, Expr *b);                  /* what both dimensions are, assumed equal; NULL if they cannot be */
bool op_not_empty(OpCtx *oc, Expr *dim, Expr *reads);        /* the dimension has elements, unless the number of reads is 0 */
bool op_one(OpCtx *oc, int input);                           /* the input is absent or has one element */
bool op_wants(const Node *n, int i);                         /* output i is asked for */
Tensor *op_input(const Node *n, int i);                      /* NULL if absent */
bool op_rank(OpCtx *oc, int input, int lo, int hi);          /* else E0411; hi < 0: no limit */
bool op_like(OpCtx *oc, int out, int input);                 /* output has the shape and type of an input; true */
bool op_axes_mask(OpCtx *oc, const int64_t *axes, int n, int rank, bool *mask);      /* each axis once, in range */
bool op_input_axes(OpCtx *oc, int input, int rank, bool *mask, int *n);      /* of a constant axes input; *n = -1 if it is absent */
Expr *op_index_of_data(OpCtx *oc, Expr *index, Expr *extent);        /* negative ones from the end, clamped into the tensor */
Expr *op_scalar(OpCtx *oc, int input);                       /* the first element of input i */
Expr *op_acc(OpCtx *oc, Expr *x);                            /* cast to the accumulation type of its type */
DType op_acc_type(const OpCtx *oc, int input);
Sym *op_reduce_axis(OpCtx *oc, const char *name, Expr *extent);
void op_done(OpCtx *oc, Stage *st, Expr *body);              /* st->body = body, cast to the type of st->out */
Expr *op_product(Ctx *c, Expr *const *dims, int n);
const char *op_shape_text(Ctx *c, Expr *const *dims, int rank);
void op_axes_exprs(const Stage *st, Expr **index);           /* the symbols of the stage's axes */
Expr *op_clamp(Ctx *c, Expr *x, Expr *lo, Expr *hi);
Expr *op_flat(Ctx *c, Expr *const *index, Expr *const *dims, int rank);      /* row-major number */
void op_unflat(Ctx *c, Expr *flat, Expr *const *dims, int rank, Expr **index);

const char *op_inputs_text(OpCtx *oc);                       /* "a f32[2,4], b f32[5,4]" */
bool op_elements(OpCtx *oc, int input, int max, Expr ***v, int *n);  /* known elements in the input's own type; false without an error */
bool row_choice(const char *choices, const char *value);     /* value is one of "a|b|c" */

/* ---- building nodes, for EXPAND (op_build.c): each new node is inferred at once; after a failure all that follows is meaningless ---- */
typedef struct Build {
  OpCtx *oc;
  Ctx *c;
  Graph *g;
  Node *at;                        /* new nodes stand before it; NULL: at the end */
  bool failed;
} Build;
Build build_before(OpCtx *oc);                               /* in the node's graph, before the node */
Node *build_node(Build *b, const char *op, Tensor *const *in, int nin, int nout);    /* not inferred yet: attributes first, then build_done */
void build_int(Node *n, const char *attr, int64_t v);
void build_ints(Build *b, Node *n, const char *attr, const int64_t *v, int count);
Tensor *build_done(Build *b, Node *n);                       /* inferred; output 0 */
Tensor *build_1(Build *b, const char *op, Tensor *x);
Tensor *build_2(Build *b, const char *op, Tensor *x, Tensor *y);
Tensor *build_3(Build *b, const char *op, Tensor *x, Tensor *y, Tensor *z);
Tensor *build_indices(Build *b, const int64_t *v, int n);    /* an i64 constant [n] */
Tensor *build_scalar(Build *b, DType t, double v);
Tensor *build_slice(Build *b, Tensor *x, int axis, int64_t from, int64_t to);
Tensor *build_reverse(Build *b, Tensor *x, int axis);
Tensor *build_squeeze(Build *b, Tensor *x, int axis);
Tensor *build_unsqueeze(Build *b, Tensor *x, int axis);
Tensor *build_transpose(Build *b, Tensor *x, const int64_t *perm, int n);
Tensor *build_concat(Build *b, Tensor *const *x, int n, int axis);
void build_replace(Build *b, int output, Tensor *by);        /* takes the place of the node's output, and its name */

#endif
