/* session.h - a model made ready to be measured: compiled if need be, loaded, given inputs, run once. */
#ifndef DLC_SESSION_H
#define DLC_SESSION_H

#include "library.h"
#include "machine.h"
#include "../records.h"
#include "../../codegen/peak.h"

typedef struct Session {
  Cli *cli;
  Ctx *c;
  Machine machine;
  Library *library;
  Records *records;
  int threads;                     /* of a run, with the caller's */
  bool pinned;
  Array *in, *out;
  Call *call;
  double load_s, first_s;          /* until there was a context; the first run */
  int64_t memory_before, workspace;   /* resident before loading; a context's own: -1 if unknown */
} Session;

/* The first argument of the command line, with its options. A model that cannot be compiled: NULL, and *status is the exit status. */
Session *session_open(Cli *cli, int *status);
void session_warm_up(Session *s);                            /* for --warmup */
Peak session_peak(Session *s);                               /* of as many threads; the caller may run everywhere again */
const char *session_inputs(const Session *s);                /* "ids i64[1,128], mask i64[1,128]" */

#endif
