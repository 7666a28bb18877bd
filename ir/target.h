/* target.h - what passes may know of a target: data only. The rows are in codegen/targets.def. */
#ifndef DLC_TARGET_H
#define DLC_TARGET_H

#include "base.h"

/* What a core does in a cycle. */
typedef struct TargetRates {
  double fma;                      /* multiply-adds of the widest registers */
  double l3, memory, memory_limit; /* bytes read from the L3 cache, from memory; by two cores from memory */
  double remote;                   /* bytes read of what another core wrote, beyond what products hide */
} TargetRates;

typedef struct Target {
  const char *name;                /* as --cpu takes it */
  const char *triple, *cpu, *features;   /* for LLVM */
  int vector_bits;                 /* of the widest register worth using */
  int vector_regs;
  bool fma;
  int64_t l1_bytes, l2_bytes, l3_bytes;
  TargetRates rate;
} Target;

static inline int target_lanes(const Target *t, int bits) { return t->vector_bits / bits; }

#endif
