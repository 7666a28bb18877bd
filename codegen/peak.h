/* peak.h - what this machine can do, measured: the bounds that kernels are held against. */
#ifndef DLC_PEAK_H
#define DLC_PEAK_H

#include "../ir/base.h"

enum { PEAK_LEVELS = 3 };          /* second-level caches, third-level caches, memory */
typedef struct { const char *name; int64_t bytes; double rate; } PeakLevel;    /* what it holds, of all threads; bytes read in a second */
typedef struct Peak { int threads; double flops; PeakLevel level[PEAK_LEVELS]; } Peak;   /* flops: of f32 in a second, multiply-add two */

/* With that many threads at once: each the best of some short stretches, a fraction of a second in all. */
Peak peak_measure(Ctx *c, int threads);

#endif
