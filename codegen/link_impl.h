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
  LinkWrite *write;                /* link_data */
  void *write_user;
};

/* elf.c: of files at path; false: errno */
char *elf_data_object(const ElfTarget *t, const char *name, int64_t size, size_t *n);   /* malloc'ed; NULL: no memory */
bool elf_append_data(const char *path, const ElfTarget *t, int64_t *at);     /* room for the data section at the end; -1: nobody uses it */
bool elf_mix_build_id(const char *path, uint64_t digest);
bool elf_drop_soname(const char *path);                      /* takes the name's entry out of the dynamic section */
_Noreturn void link_cannot_write(Link *l);                   /* E0502 with errno's words */

#endif
