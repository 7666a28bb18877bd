/* progress.h - the stage lines of `dlc compile` on stderr: rewritten within a stage on a terminal, plain elsewhere. */
#ifndef DLC_PROGRESS_H
#define DLC_PROGRESS_H

#include "cli.h"

typedef enum { PROGRESS_NONE, PROGRESS_PLAIN, PROGRESS_TERMINAL } ProgressMode;
typedef struct Progress {
  ProgressMode mode;
  bool color;
  int width;
  char stage[24], detail[256];     /* the line at hand */
  double started, drawn;           /* seconds */
} Progress;

Progress progress_new(const Cli *cli);
void progress_report(void *progress, const char *stage, double fraction, const char *detail);   /* Options.progress */
void progress_done(Progress *p);                             /* finishes the last line */

#endif
