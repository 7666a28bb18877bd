/* module.h - one model on its way through the pipeline, and the passes over it (passes.def gives their order). */
#ifndef DLC_MODULE_H
#define DLC_MODULE_H

#include "../ir/graph.h"
#include "../ir/op.h"
#include "../ir/stmt.h"
#include "../ir/target.h"

typedef struct { const char *name; int64_t min, max; } DimBound;         /* --dim N=4 (min == max) or N=1..32 */
typedef struct { const char *input; const char *dims; } ShapeOption;     /* --shape x=1x3x224x224 */

typedef struct Options {
  const char *model, *output;      /* paths */
  const char *name;                /* prefix of the exported names; NULL: from the output's file name */
  const char *cpu;                 /* row of targets.def; NULL = host */
  int threads;                     /* default number at run time; 0 = the affinity mask */
  int jobs;                        /* compile threads; 0 = all cores */
  VEC(DimBound) dims;
  VEC(ShapeOption) shapes;
  const char *dump_ir;             /* NULL, "-" for stderr, or a folder; dump_passes NULL = all */
  const char *dump_passes;         /* "simplify,lower" */
  const char *stop_after;          /* name of a pass; the text behind it goes to output, or to stdout if that is NULL */
  const char *emit;                /* list of "so", "ll", "asm", "graph", "tir" */
  bool fp32_strict;                /* --fp32=strict: no algorithm that changes rounding beyond reassociation */
  bool eager;                      /* for tests: other algorithms also where they do not pay */
  bool explain, time_passes;
  int verbose;                     /* -v count; -1 quiet */
  void (*progress)(void *user, const char *stage, double fraction, const char *detail);  /* may be NULL; called from one thread */
  void *progress_user;
} Options;

struct Group;

/* A stage as code of this machine (codegen/host.c), for what is too large for the interpreter. It takes the kernel's params; run: iterations
 * lo..hi of its parallel loop, on any thread. */
typedef struct Module Module;
typedef struct HostKernel {
  const Kernel *kernel;
  const Expr *extent;              /* of the parallel loop, over kernel->dims; NULL: there is none, call with 0, 1 */
  struct Native *code;
} HostKernel;
typedef struct Host {
  HostKernel (*load)(Module *m, const Stage *st);
  void (*run)(const HostKernel *k, void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch);
  void (*free)(HostKernel *k);
} Host;

struct Module {
  Ctx *c;
  const Options *opt;
  const Target *target;
  const char *done;                /* the last pass that ran (a name of passes.def); NULL: none */
  const Host *host;                /* set by frontend/compile.c; NULL: the interpreter does all it can */
  /* Chooses a schedule for a group and makes its kernel (codegen/sched_rules.c); may give constants other layouts. */
  Kernel *(*schedule)(Module *m, struct Group *g, const char *name);
  Graph *graph;                    /* of a module read from text behind simplify: inputs, outputs and dimensions only */
  const char *graph_text;          /* as simplify left it, if Options.emit asks for it */
  struct Body *body;               /* after pass_stages */
  Expr *products;                  /* multiplications of floats in a run, as the operators define them; NULL: not known before it */
  VEC(Tensor *) states;            /* overwritten while the model runs: the states of loops */
  VEC(Kernel *) kernels;           /* distinct ones, in order of first use */
  Kernel *stop;                    /* a CALL of it ends the program: the shapes break what the model was compiled under */
  Stmt *program;                   /* CALLs, and FOR / IF / SEQ around them */
  Expr *arena_bytes;               /* of all SCOPE_ARENA tensors */
  Expr *zeroed_bytes;              /* of these, at the beginning, those that are zero before the first run: rings that are kept */
  VEC(Tensor *) consts;            /* SCOPE_CONST tensors in execution order; offset set */
  Expr *scratch_bytes;             /* per thread */
  int64_t weight_bytes;            /* of all of consts with their gaps (weights_write gives the bytes) */
  Str notes;                       /* --explain */
  int folded, fused;               /* counts for the summary line */
};

void pipeline_run(Module *m);      /* pipeline.c: the rows of passes.def behind m->done in order, verified, timed, dumped */
void pipeline_check(Module *m);    /* what the passes up to m->done ensure; run by pipeline_run, and on what was read */
const char *pipeline_pass(int i);  /* the names in order, as m->done has them; NULL at the end */

/* The most lowered form there is: graph, stages or kernels and program; equal for equal modules. Constants too large for it are
 * blobs (ir/blob.h) of m->c from then on. */
const char *module_text(Module *m);
/* Fills in an empty module from such a text, in front of which may stand `data "FILE"`: load makes FILE's blobs known. E0309. */
typedef void LoadData(Ctx *c, const char *file, void *user);
void module_parse(Module *m, const char *text, LoadData *load, void *user);

#endif
