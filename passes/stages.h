/* stages.h - a graph as the stages of its computes, the form that fusion, layout and lowering work on.
 *
 * pass_stages turns every node into the stages op_compute gives; If and Scan become items with bodies of their own. Fusion
 * then substitutes producers into consumers (fuse.c), which leaves one Group per kernel.
 */
#ifndef DLC_STAGES_H
#define DLC_STAGES_H

#include "module.h"

/* Stages computed together by one kernel. The last one is the root and writes a tensor that others read; the stages before
 * it are needed by later ones of the group only and live in registers or the thread's scratch, unless they are kept: then steps of the root
 * must be parts of them that together are the whole.
 * block, for every axis of the root: outer loops run over the axis in steps of so many elements, and the other stages are computed inside
 * them, as much as one step needs; 0: the axis lies inside. NULL: the schedule rule decides. */
typedef struct Group {
  VEC(Stage *) stages;
  const char *source;
  int64_t *block;
  Expr **bodies;                   /* the stages' own, before a schedule rule packed their constants; NULL: none did */
  int tile;                        /* which register tile its contractions have: 0, what the model thinks best, or smaller ones, by their place */
  double price;                    /* by the model, the time of that tile to the best one's; INFINITY: there are fewer; 0: they have none */
} Group;

typedef struct Body Body;
typedef enum { ITEM_GROUP, ITEM_IF, ITEM_LOOP, ITEM_CHECK } ItemKind;
typedef struct Item {
  ItemKind kind;
  Group *group;
  Tensor *cond;                    /* IF: a bool of one element */
  Body *body[2];                   /* IF: then, else; LOOP: [0] */
  Sym *counter;                    /* LOOP: for counter < trips */
  Expr *trips;
  Expr *check;                     /* CHECK: a condition on dims without which the program stops */
} Item;
struct Body { VEC(Item *) items; };

static inline Stage *group_root(const Group *g) { return g->stages.v[g->stages.n - 1]; }

/* Calls f for every group of the body and the bodies inside it, in program order. */
void body_each_group(Body *b, void (*f)(Group *g, void *user), void *user);

/* Tensor* -> the number of stages, of the body and the bodies inside it, that load it, as a pointer's value. */
Map body_readers(Ctx *c, Body *b);

/* A part of another tensor: element i along the axis is the whole's element i + offset. */
typedef struct { Tensor *whole; int axis; int64_t offset; } View;
Expr *view_load(Ctx *c, const Expr *load, const View *v);      /* the load of a part, as one of the whole */

/* Threads part a map of these extents, whatever is done to it, in two halves: by its images or rows, whichever come first. That axis; -1: not. */
int stage_parted_axis(const Module *m, Expr *const *extent, int rank);

/* What the stage writes: the extent of dimension d, the index there, the number of elements. */
Expr *stage_shape(const Stage *st, int d);
Expr *stage_index(const Stage *st, int d);
Expr *stage_elements(Ctx *c, const Stage *st);

/* Before item `at` of the body: a group of its own for the stage. */
void body_insert(Ctx *c, Body *b, int at, Stage *st, const char *source);

/* The tensors that an expression loads, each once, in order of first appearance. */
typedef struct { Ctx *c; VEC(Tensor *) list; } TensorList;
void expr_tensors(TensorList *out, const Expr *e);

/* Is cond a conjunction of nothing but bounds checks of this load's own indices? Then select(cond, load, 0) is a padded load. */
bool checks_bounds_only(Ctx *c, Expr *cond, const Expr *load);
bool is_padded_load(Ctx *c, const Expr *e);                  /* select(bounds checks, load, 0) of floats */

bool is_contraction(const Expr *reduce);                     /* a sum of products; reduce may be NULL */
bool module_is_state(const Module *m, const Tensor *t);      /* overwritten from step to step of a loop */

/* The single EX_REDUCE that a stage's body contains; NULL if none. Stages never hold two. */
Expr *stage_reduce(const Expr *body);

#endif
