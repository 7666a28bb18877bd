/* header.h - P.h, the C header of a compiled model: sizes and names as macros, the prototype of P_run, the table. */
#ifndef DLC_HEADER_H
#define DLC_HEADER_H

#include "../ir/base.h"
#include "../ir/dtype.h"

typedef struct { const char *name; DType dtype; int rank; const int64_t *dims; const char *const *dim_names; } HeaderIo;  /* as dlc_io */

typedef struct HeaderInfo {
  const char *prefix;              /* P: a C identifier */
  const char *model_sha256;        /* hex, or NULL */
  const char *target, *cpu;        /* "x86_64-linux-gnu", "x86-64-v3" */
  HeaderIo *inputs, *outputs;
  int ninputs, noutputs;
  const char *const *syms;         /* of P_run's symbol arguments, in order */
  int nsyms;
  int64_t workspace_bytes;         /* of P_run, at the largest shapes; -1 if they have no bound */
  int64_t weights_bytes;
} HeaderInfo;

const char *header_text(Ctx *c, const HeaderInfo *info);
/* name made a C identifier: other bytes become '_', a leading digit gets '_' before it, a keyword one behind it */
const char *header_identifier(Ctx *c, const char *name);

#endif
