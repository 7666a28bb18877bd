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

struct Link {
  Ctx *c;
  const char *out;
  const ElfTarget *target;
  char *folder;
  VEC(const char *) files;         /* in the folder */
  VEC(const char *) objects;       /* those that are linked, in order */
};

#endif
