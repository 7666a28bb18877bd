/* outfile.h - output files that appear whole or not at all: written under a temporary name by the final one, renamed
 * in the end. What is not committed vanishes with the Ctx, and at SIGINT, SIGTERM and SIGHUP. */
#ifndef DLC_OUTFILE_H
#define DLC_OUTFILE_H

#include "../ir/diag.h"

typedef struct OutFile {
  const char *path;                /* final */
  char *temporary;                 /* exists, empty, mode 0600 */
  bool program, done;              /* program: executable bits are set */
} OutFile;

OutFile *outfile_new(Ctx *c, const char *path);              /* E0502 if the folder cannot be written to */
const char *outfile_temporary(Ctx *c, const char *suffix);   /* an empty file in TMPDIR, which vanishes in the same way */
void outfile_vanishes(Ctx *c, char *path);                   /* a file that someone else makes or made, too */
void outfile_write(Ctx *c, OutFile *f, const void *bytes, size_t n);   /* the whole content */
void outfile_commit(Ctx *c, OutFile *const *files, int n);   /* modes as the umask has it */

#endif
