/* runner.h - one way to run a model, whoever runs it: a compiled library, the interpreter, ONNX Runtime. */
#ifndef DLC_RUNNER_H
#define DLC_RUNNER_H

#include "array.h"
#include "cli.h"

typedef struct Port {
  const char *name;
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];          /* -1: known when the model runs */
  const char *dim_names[MAX_RANK]; /* of those: the symbol, or NULL */
} Port;

typedef struct Runner {
  Ctx *c;
  const char *path, *what;         /* "m.so", "interpreter" */
  Port *inputs, *outputs;
  int ninputs, noutputs;
  bool symbolic;                   /* --dim and --shape are about the arrays; else the model was read with them */
  void (*run)(struct Runner *r, const Array *in, Array *out);    /* out: filled in, data included */
  void *state;
} Runner;

Runner *runner_library(Ctx *c, const char *path, int threads);
Runner *runner_interp(Ctx *c, const char *model, const Options *shapes);
Runner *runner_ort(Ctx *c, const char *model, const Runner *like);   /* in a python3 process; E0701 if absent */

/* The inputs that the command line asks for (--input, --dim): files are read, what is not given is random. */
Array *runner_inputs(const Cli *cli, const Runner *r);
/* Checks arrays against the ports: count, element types, ranks, extents; E0504. Leading extents of 1 that an array lacks are added. */
void runner_check(const Runner *r, Array *in, int n);

#endif
