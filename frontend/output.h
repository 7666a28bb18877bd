/* output.h - what a compile writes: library and header, objects and texts; all of them or none. */
#ifndef DLC_OUTPUT_H
#define DLC_OUTPUT_H

#include "compile.h"
#include "json.h"
#include "outfile.h"
#include "../codegen/codegen.h"

typedef struct Outputs { VEC(OutFile *) files; VEC(const char *) kinds; } Outputs;   /* kinds: of --emit, "header", "data" of texts (the last) */

const char *output_prefix(Ctx *c, const Options *o);         /* of exported names: --name, or from the output's name */
Outputs output_open(Ctx *c, const Options *o);               /* early: what cannot be written is known at once */
const char *output_info(Module *m, const char *sha256);      /* JSON: what a library says of itself */
void output_json_ports(Json *j, Ctx *c, const char *key, Tensor *const *t, int n); /* name, dtype, shape */
bool output_wants(const Outputs *out, const char *kind);
void output_write(Module *m, Outputs *out, const ObjectList *objects, const char *sha256);
void output_commit(Module *m, const Outputs *out, CompileReport *r);   /* the files appear; the report tells of them */

#endif
