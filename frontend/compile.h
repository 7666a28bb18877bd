/* compile.h - dlc as a library: one call compiles a model.
 *
 * The stages a progress callback may hear of, in order: read, check, optimise, schedule, codegen, link. A NULL stage says that
 * an error message follows.
 */
#ifndef DLC_COMPILE_H
#define DLC_COMPILE_H

#include "../passes/module.h"

extern const char *const compile_stages[];                   /* ends with NULL */

typedef struct { char name[24]; double seconds; } StageTime;

/* What a compile did, for the summary. Sizes in bytes. */
typedef struct CompileReport {
  int64_t model_bytes, params;     /* params: elements of all constants of the model */
  int nodes_before, nodes_after, folded, fused, kernels;
  int64_t file_bytes, code_bytes, weight_bytes, workspace_bytes;     /* workspace_bytes: -1 if it depends on run-time sizes */
  StageTime stage[16];
  int nstages;
  char cpu[64], triple[64];
  char name[256];                  /* the prefix */
  char output[4096], header[4096]; /* what was written; "" if nothing of the kind */
  char inputs[2048], outputs[2048];/* "data f32[4,3,224,224], mask i64[N]" */
} CompileReport;

/* Compiles o->model. Returns the exit status; errors stand on stderr, and then no output file was touched. */
int dlc_compile(const Options *o, CompileReport *report);

/* For other uses of a model than compiling it. The graph as read, and after simplify; errors unwind as in passes. */
Graph *compile_read(Ctx *c, const Options *o);
Graph *compile_simplified(Ctx *c, const Options *o);

/* Runs body in a fresh context: a user's error in it unwinds to here, is printed, and gives the exit status that is returned;
 * otherwise body's own result is. The context is freed either way. */
int dlc_guard(int (*body)(Ctx *c, void *user), void *user);

#endif
