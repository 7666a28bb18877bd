/* target.h - what passes may know of a target: data only. The rows are in codegen/targets.def. */
#ifndef DLC_TARGET_H
#define DLC_TARGET_H

#include "base.h"

typedef struct Target {
  const char *name;                /* as --cpu takes it */
  const char *triple, *cpu, *features;   /* for LLVM */
  int vector_bits;                 /* of the widest register worth using */
  int vector_regs;
  bool fma;
  double fma_rate;                 /* multiply-adds of such registers that a core starts in a cycle */
  int64_t l1_bytes, l2_bytes, l3_bytes;
  double l3_rate, memory_rate, memory_limit;     /* bytes a cycle: that a core reads from the L3 cache, from memory; all cores from memory */
} Target;

static inline int target_lanes(const Target *t, int bits) { return t->vector_bits / bits; }

#endif
