/* elf.h - what a compiled library contains, read from the file: 64-bit little-endian ELF, without loading it. */
#ifndef DLC_ELF_H
#define DLC_ELF_H

#include "../ir/base.h"

typedef struct { const char *name; int64_t bytes; bool code, loaded; } ElfSection;
typedef struct ElfLibrary {
  const char *machine;             /* "x86-64", "aarch64"; "machine N" for others */
  int64_t file_bytes;
  VEC(const char *) exports, imports, needed;
  VEC(ElfSection) sections;
} ElfLibrary;

ElfLibrary elf_read(Ctx *c, const char *path);               /* E0501, or E0503 if it is not such a library */
const char *elf_model_prefix(Ctx *c, const ElfLibrary *e, const char *path);   /* P of the export P_model; else E0503 */

#endif
