/* records.h - what a library's JSON says of its kernels, written with the library, read by dlc bench and dlc profile.
 *
 * A count is a number, or text that expr_parse takes, in dims, or null where it is not known before a run.
 * "precision": the element type of most of its constants. "dims": the model's. "muls": multiplications of a run as the operators define them
 * (codegen may find ways with fewer).
 * "kernels": [{name, rule, source, type, dims, flops, muls, reads, writes, weights}]: of one call, as codegen/work.h defines them, in the kernel's dims.
 * "steps": [[kernel, source, {dim of the kernel: dim of the model}]]: the calls as they stand in the program; the third only where names
 * differ. "straight": each is made once, in this order; else some are repeated or chosen at run time.
 */
#ifndef DLC_RECORDS_H
#define DLC_RECORDS_H

#include "json.h"
#include "../passes/module.h"

void records_json(Json *j, Module *m);

/* ---- reading ---- */
typedef struct { double flops, muls, reads, writes, weights; } Counts;   /* NAN: not known */
typedef struct { const char *name, *rule, *source; DType type; Expr *flops, *muls, *reads, *writes, *weights; } KernelRecord;
typedef struct { int kernel; const char *source; const JsonValue *dims; } StepRecord;
typedef struct Records {
  Ctx *c;
  const JsonValue *info;           /* all that the library says */
  Expr *muls;                      /* NULL: not known */
  VEC(KernelRecord) kernels;
  VEC(StepRecord) steps;
  bool straight;
  Map dims;                        /* interned name -> int64_t *: what the model's dims are now; the user of the records sets them */
} Records;

Records *records_read(Ctx *c, const char *json, const char *path);       /* E0503 if they are not as above */
int records_kernel(const Records *r, const char *name);      /* -1: there is none */
/* Of the kernel's call at steps[step]; step -1: of any of its calls, where they agree. */
Counts records_counts(const Records *r, int kernel, int step);
double records_products(const Records *r);                   /* "muls" */

#endif
