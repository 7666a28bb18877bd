/* records.h - what a library's JSON says of its kernels, for dlc bench and dlc profile. */
#ifndef DLC_RECORDS_H
#define DLC_RECORDS_H

#include "json.h"
#include "../passes/module.h"

/* "kernels": [{name, rule, source, flops, bytes, weights}]: of one call, as codegen/work.h defines them; a number, or text that
 * expr_parse takes, in the kernel's dims, or null.
 * "steps": [[kernel, source, {dim of the kernel: dim of the model}]]: the calls in order; the third only where names differ. Left out
 * if calls are repeated or chosen at run time. */
void records_json(Json *j, Module *m);

#endif
