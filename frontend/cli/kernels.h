/* kernels.h - the time of every kernel of a model beside what the machine could do. */
#ifndef DLC_KERNELS_H
#define DLC_KERNELS_H

#include "session.h"
#include "../json.h"

/* ---- the steps of a run ---- */
typedef struct { int kernel, site; Counts counts; double seconds; } Step;     /* kernel -1: unknown to the records; site: in records->steps or -1 */
typedef struct Profile {
  int runs, nsteps;
  Step *steps;                     /* seconds: the median of the runs */
  double between;                  /* seconds of a run outside of kernels, the median */
  double busy;                     /* share of the run that threads spent in kernels, of all threads */
  Counts sum;                      /* of all steps; NAN where one of them is unknown */
} Profile;

/* Runs with the clock on for about `seconds`, but at least `least` times and at most `most`. */
Profile profile_take(Session *s, double seconds, int least, int most);
/* One span of a step and thread: at[step * threads + thread]. The number of steps that the next run has is that of the last. */
dlc_span *profile_spans(Session *s, int *nsteps);

/* ---- bounds ---- */
double computing_seconds(const Session *s, const Profile *p, const Peak *peak);   /* of all steps' operations at the peak of their type */
const PeakLevel *peak_level(const Peak *p, double bytes);    /* the nearest that holds so much */

/* ---- the table: a row for each kernel, in order of time ---- */
void kernels_print(const Session *s, FILE *out, const Profile *p, const Peak *peak);
void kernels_json(const Session *s, Json *j, const Profile *p, const Peak *peak);   /* "kernels": [...], in order of first call */
void peak_json(Json *j, const Peak *peak);
const char *peak_text(Ctx *c, const Peak *peak);             /* "computing, 540 GFLOP/s f32; reading, L2 440 ... GB/s" */

#endif
