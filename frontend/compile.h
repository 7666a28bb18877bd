/* compile.h - dlc as a library: one call compiles a model.
 *
 * The stages a progress callback may hear of, in order: read, optimise, schedule, codegen, link. A NULL stage says that
 * an error message follows.
 */
#ifndef DLC_COMPILE_H
#define DLC_COMPILE_H

#include "../passes/module.h"
#include "onnx/onnx.h"

extern const char *const compile_stages[]; /* ends with NULL */

typedef struct { char name[24]; double seconds; } StageTime;

/* What a compile did, for the summary. Sizes in bytes. */
typedef struct CompileReport {
  char sha256[65];                 /* of the model file */
  int64_t model_bytes, params;     /* params: elements of all constants of the model */
  int nodes_before, nodes_after, folded, fused, kernels;
  int64_t file_bytes, code_bytes, weight_bytes, workspace_bytes; /* the last: -1 if sizes have no bound */
  StageTime stage[16];
  int nstages;
  char cpu[64], triple[64];
  char name[256];                  /* the prefix */
  char output[4096], header[4096]; /* what was written; "" if nothing of the kind */
  char inputs[2048], outputs[2048];/* "data f32[4,3,224,224], mask i64[N]" */
} CompileReport;

/* Compiles o->model, an ONNX file or an IR text. Returns the exit status; errors stand on stderr, and then no output file was touched. */
int dlc_compile(const Options *o, CompileReport *report);

/* The suffix that --emit KIND (n bytes) gives its file: ".so"; NULL if there is no such kind. */
const char *compile_suffix(const char *kind, size_t n);

/* For other uses of a model: the graph as read, and after simplify; errors unwind. */
Graph *compile_read(Ctx *c, const Options *o);
Graph *compile_simplified(Ctx *c, const Options *o);

/* Runs body in a fresh context, which is freed in the end. A user's error in body unwinds to here: `failed` (may be
 * NULL) sees the diagnostics, which are printed unless it returns true; their exit status is returned. Otherwise body's
 * result is. */
int dlc_guard(int (*body)(Ctx *c, void *user), bool (*failed)(Ctx *c, void *user), void *user);

#endif
