/* link.h - from objects to a shared library, and the ELF files around that.
 *
 *     Link *l = link_begin(c, target->triple, "m.so");
 *     link_object(l, "kernels.o", bytes, n);                        // as often as wanted
 *     link_data(l, "dlc_weights", size, write, user);               // constants
 *     link_shared(l, exports, 2, NULL);                             // m.so now exists, whole
 *
 * What is linked stands in files without a name. The output is written beside itself and renamed; it is best a temporary of
 * frontend/outfile.h, which keeps an older file safe until all is well. The runtime and the names of libc that it imports are inside dlc:
 * linking needs neither a tool nor a library of the system.
 */
#ifndef DLC_LINK_H
#define DLC_LINK_H

#include "../ir/base.h"

typedef struct Link Link;

Link *link_begin(Ctx *c, const char *triple, const char *out);       /* E0701 if dlc carries no runtime for the triple; E0502 */
void link_object(Link *l, const char *name, const void *bytes, size_t n);
/* Constants: size bytes, read-only and 4096-byte aligned, whose start is the hidden symbol; once a link. The linker only learns their
 * size: when all else is in the file, write puts them there from byte `at` on (what it leaves out is zero; false: errno) and gives a digest
 * of them for the build id. */
typedef bool LinkWrite(void *user, int fd, int64_t at, uint64_t *digest);
void link_data(Link *l, const char *symbol, int64_t size, LinkWrite *write, void *user);
/* Links objects and runtime into the output; exports are the only visible symbols; soname may be NULL. E0502, or E0900 with
 * the linker's own words. */
void link_shared(Link *l, const char *const *exports, int nexports, const char *soname);

/* info_json of a compiled library, read without loading it (the note of runtime/model.h); NULL if the file is none. */
const char *note_read(Ctx *c, const char *path);

/* The linker in this process (lld.cc). 0, or nonzero with malloc'ed messages. One link at a time; others wait. */
int lld_link(int argc, const char *const *argv, char **messages);

#endif
