/* link_impl.h - a link under way, for link.c and elf.c. */
#ifndef DLC_LINK_IMPL_H
#define DLC_LINK_IMPL_H

#include "link.h"

/* A row of link.c: the numbers of ELF that differ between targets, and what dlc carries for each. */
typedef struct ElfTarget {
  const char *arch;                /* first part of the triple */
  const char *emulation;           /* of the linker */
  uint16_t machine;
  int word;                        /* bytes of an address: ELF64 or ELF32 */
  uint32_t flags;
  const char *data_section;        /* far from the code where the target has such sections, so that gigabytes fit */
  uint64_t data_flags;             /* beside SHF_ALLOC */
  const unsigned char *runtime, *runtime_end, *libc, *libc_end;
} ElfTarget;

/* A nameless file, which the linker opens as /proc/self/fd/FD. name: for messages. */
typedef struct { const char *name, *path; int fd; } LinkFile;

struct Link {
  Ctx *c;
  const char *out;
  const ElfTarget *target;
  VEC(LinkFile) files;             /* all, to be closed */
  VEC(const char *) objects;       /* paths of those that are linked, in order */
};

int link_on_disk(Link *l, const char *name);                 /* a file for a large object, in the output's folder; it is linked in */
bool elf_drop_soname(const char *path);                      /* elf.c: takes the name's entry out of the dynamic section */
_Noreturn void link_cannot_write(Link *l);                   /* E0502 with errno's words */

#endif
