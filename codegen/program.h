/* program.h - facts about a lowered program that emission and entry need. */
#ifndef DLC_PROGRAM_H
#define DLC_PROGRAM_H

#include "codegen.h"

const Stmt *program_parallel_loop(const Kernel *k);          /* the loop that a call's lo..hi runs over; NULL if there is none */
bool program_is_small(const Stmt *call);                     /* below the work at which waking threads pays */
int program_io_index(const Module *m, const Tensor *t);      /* of a model input or output among inputs then outputs */
double program_work(const Kernel *k);                        /* rough cycles of one core; 1e15 where an extent is symbolic */

#endif
