/* outfile.h - output files that appear whole or not at all: written under a temporary name beside the final one, renamed at the
 * end. What is not committed vanishes with the Ctx, and at SIGINT, SIGTERM and SIGHUP. */
#ifndef DLC_OUTFILE_H
#define DLC_OUTFILE_H

#include "../ir/diag.h"

typedef struct OutFile {
  const char *path;                /* final */
  char *temporary;                 /* exists, empty, mode 0600 */
  bool done;
} OutFile;

OutFile *outfile_new(Ctx *c, const char *path);              /* E0502 if the folder cannot be written to */
void outfile_write(Ctx *c, OutFile *f, const void *bytes, size_t n);   /* the whole content */
void outfile_commit(Ctx *c, OutFile *const *files, int n, int mode);   /* mode 0666 or 0777, less the umask */

#endif
