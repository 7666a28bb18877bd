/* library.h - a compiled library in this process: its table (runtime/dlc.h), a context, calls. */
#ifndef DLC_LIBRARY_H
#define DLC_LIBRARY_H

#include "runner.h"
#include "../../runtime/dlc.h"

typedef struct Library { Ctx *c; const char *path; void *handle; const dlc_model *model; dlc_ctx *ctx; } Library;

Library *library_load(Ctx *c, const char *path);             /* E0503 if it is none, or none for this machine */
void library_context(Library *l, const dlc_opts *opts);      /* E0601; one a library */
Runner *library_runner(Library *l);

/* A call with its inputs bound and room for its outputs; the same call may run again and again. */
typedef struct Call { DLTensor *in, *out; const DLTensor **pin; DLTensor **pout; int64_t *shapes; } Call;
Call *library_call(Library *l, const Array *in, Array *out);  /* outputs get the shapes that follow from the inputs', and memory */
void library_run(Library *l, Call *call);                    /* E0504 if the library refuses; shapes that data decide stand in call->out */

#endif
