/* codegen.h - from kernels to a library. */
#ifndef DLC_CODEGEN_H
#define DLC_CODEGEN_H

#include "../passes/stages.h"

/* ---- targets (target.c): rows of targets.def ---- */
const Target *target_find(Ctx *c, const char *cpu);          /* NULL or "host": this machine; diag_fail E0202 names the rows */
const char *target_needs(const Target *t);                   /* CPU features that the library checks for, comma-separated */
int64_t target_host_cache(Ctx *c, int level, int *sharers);  /* bytes of this machine's data cache of that level, and CPUs that have one together; 0: unknown */
const Target *target_at(int i);                              /* rows in order; NULL at the end */

extern const Host codegen_host;                              /* this machine while compiling (host.c) */

/* ---- schedules (sched_rules.c) ---- */
Kernel *sched_rules_choose(Module *m, Group *g, const char *name);

/* ---- math (math.c): transcendental operations as polynomials; returns a kernel body free of operations from EX_EXP on ---- */
Stmt *math_expand(Ctx *c, Stmt *s);

/* ---- masks (masks.c): the accumulating stores of a kernel body that may do anything to lanes beyond their mask ---- */
void masks_note(Ctx *c, Map *loose, const Stmt *body);

/* ---- LLVM (llvm_module.c, emit_llvm.c) ---- */
typedef struct { const char *name; const char *bytes; size_t size; } Object;   /* a relocatable object in memory (arena) */
typedef VEC(Object) ObjectList;
/* In parallel on m->opt->jobs threads; deterministic order. A tile whose sums leave the registers gives way to a smaller one, if the model finds
 * that cheaper. */
void emit_kernels(Module *m, ObjectList *out);
/* Of the instructions of an innermost loop of products, the share that reads or writes vectors on the stack; the worst loop's (stack.c). */
double stack_share(Ctx *c, const Target *t, const char *object, size_t size);
void emit_ir_text(Module *m, const char *name, const char *llvm_ir, ObjectList *out);   /* textual LLVM IR of the entry's tables */
const char *emit_text(Module *m, const char *what);          /* "ll" or "asm" of all kernels and the program */
/* A kernel in this process, compiled for h->target, which is this machine. native_run: iterations lo..hi of its parallel loop; any thread. */
typedef struct Native Native;
Native *native_load(Module *h, Kernel *k);
void native_run(const Native *n, void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch);
void native_free(Native *n);
const char *emit_host_cpu(Ctx *c, const char **features);    /* name and features of this machine's CPU as LLVM spells them */

/* ---- entry (entry.c): the program's main, the plan function, descriptor and tables ---- */
typedef struct { const char *prefix, *json; } EntryInfo;     /* of the exported names; what the note and P_model say of the model */
void entry_emit(Module *m, const EntryInfo *info, ObjectList *out);

#endif
