/* machine.h - the machine that measures: what it is, who else uses it, how much memory this process has. */
#ifndef DLC_MACHINE_H
#define DLC_MACHINE_H

#include "../../ir/base.h"

typedef struct Machine {
  const char *cpu;                 /* "AMD EPYC 9R14"; "" if unknown */
  const char *governor;            /* of the first of the CPUs; NULL if unknown */
  int online;                      /* CPUs of the machine */
  int32_t *cpus;                   /* those that this process may use */
  int ncpus;
} Machine;

Machine machine_read(Ctx *c);

/* How much of the CPUs others use between two looks, in CPUs; NAN where it cannot be told. */
typedef struct { double at, own, all; } Usage;               /* seconds: now, of this process, of everyone on the CPUs */
Usage machine_usage(const Machine *m);
double usage_of_others(Usage from, Usage to);

int64_t memory_now(void), memory_peak(void);                 /* resident bytes; -1 if unknown */

#endif
