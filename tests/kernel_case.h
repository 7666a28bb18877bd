/* kernel_case.h - a case of stages to kernels: the stages evaluated as they stand, and by way of every pass as kernels, interpreted and, where this
 * machine can run them, compiled. t_kernels.c has those of maps, t_products.c those of rows and products of matrices.
 */
#ifndef KERNEL_CASE_H
#define KERNEL_CASE_H

#include "../passes/module.h"

enum { CPUS = 3 };
extern const char *const cpus[CPUS];
extern const char *cpu_name;
#define EACH_CPU for (int cpu_row = 0; cpu_row < CPUS && (cpu_name = cpus[cpu_row]); cpu_row++)

extern Options options;
extern bool far_cores;             /* threads part rows, however small maps are */
extern bool small_caches;          /* of the target: bands of tiles pay for small maps already */
extern bool slow_sums;             /* of the target: fewer multiplications pay always */
extern int which_tile;             /* of contractions: 0 the best, others smaller */

typedef struct {
  Ctx *c;
  Module *m;
  VEC(Stage *) stages;
  uint32_t seed;
  Map data;
  char *weights;
  int64_t open;
  int calls;                       /* expected in the program; 0: any number */
  int sums;                        /* that some kernel holds in registers, at least */
  const char *says;                /* some kernel's text */
} Case;

Case start(uint32_t seed);
void finish(Case *k, const char *rule, int n);               /* builds, runs and compares; at least n kernels come from the rule, if any */

/* tensors and stages */
#define DIMS(...) COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}
#define EXTENTS(...) COUNT(((Expr *[]){__VA_ARGS__})), (Expr *[]){__VA_ARGS__}
Tensor *tensor(Case *k, const char *name, int rank, const int64_t *dims);
Tensor *as_input(Case *k, Tensor *t);                        /* filled with numbers between -1 and 1, as these are: */
Tensor *input(Case *k, const char *name, int rank, const int64_t *dims);
Tensor *weight(Case *k, const char *name, int rank, const int64_t *dims);
Expr *maybe_open(Case *k, int64_t n, bool open);              /* n, or where it is open the symbol that stands for it */
Stage *stage(Case *k, Tensor *out);                          /* without a body */
Expr *at(Case *k, Tensor *t, Expr *a, Expr *b, Expr *c, Expr *d);      /* the load at the first rank of these */
Expr *relu(Case *k, Expr *x);

#endif
