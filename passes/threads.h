/* threads.h - work of one kind on several threads. What runs there may read a Ctx but make nothing in it. */
#ifndef DLC_THREADS_H
#define DLC_THREADS_H

#include "module.h"

int threads_wanted(const Module *m, int64_t jobs);           /* as --jobs or the machine's CPUs say, at most one a job */
void threads_run(int n, void (*body)(void *user), void *user);   /* body on n threads, one of them the caller's; returns when all are done */
static inline int64_t threads_take(int64_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }   /* the number of a job */

#endif
