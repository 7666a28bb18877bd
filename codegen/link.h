/* link.h - from objects to a shared library, and the ELF files around that.
 *
 *     Link *l = link_begin(c, target->triple, "m.so");
 *     link_object(l, "kernels.o", bytes, n);                        // as often as wanted
 *     ElfData *w = elf_data_begin(l, "weights.o", "dlc_weights");   // constants, streamed to disk
 *     elf_data_at(w, offset); elf_data_put(w, bytes, n); ...        // ascending offsets; gaps are zeros
 *     elf_data_end(w);
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
typedef struct ElfData ElfData;

Link *link_begin(Ctx *c, const char *triple, const char *out);       /* E0701 if dlc carries no runtime for the triple; E0502 */
void link_object(Link *l, const char *name, const void *bytes, size_t n);
/* Links objects and runtime into the output; exports are the only visible symbols; soname may be NULL. E0502, or E0900 with
 * the linker's own words. */
void link_shared(Link *l, const char *const *exports, int nexports, const char *soname);

/* An object with one read-only, 4096-byte aligned section whose start is the hidden symbol (elf.c). */
ElfData *elf_data_begin(Link *l, const char *name, const char *symbol);
void elf_data_at(ElfData *d, int64_t offset);                        /* the next byte put is this one; not before what was put */
void elf_data_put(ElfData *d, const void *bytes, size_t n);
void elf_data_end(ElfData *d);

/* info_json of a compiled library, read without loading it (the note of runtime/model.h); NULL if the file is none. */
const char *note_read(Ctx *c, const char *path);

/* The linker in this process (lld.cc). 0, or nonzero with malloc'ed messages. One link at a time; others wait. */
int lld_link(int argc, const char *const *argv, char **messages);

#endif
