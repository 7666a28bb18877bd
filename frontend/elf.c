/* elf.c - reads section headers and the dynamic symbol table; every offset is checked against the file's size. */
#include "elf.h"
#include "../ir/diag.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  Ctx *c;
  const char *path;
  const unsigned char *bytes;
  uint64_t size;
} File;

static void unmap(void *object) {
  File *f = object;
  munmap((void *)f->bytes, f->size);
}

static _Noreturn void bad(const File *f, const char *what) {
  diag_fail(f->c, E0503, NULL, NULL, "%s: %s", diag_quote(f->c, f->path), what);
}

static File *map_file(Ctx *c, const char *path) {
  File *f = NEW(c, File);
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) != 0) {
    if (fd >= 0) close(fd);
    diag_fail(c, E0501, NULL, NULL, "cannot read %s: %s", diag_quote(c, path), strerror(errno));
  }
  f->c = c;
  f->path = path;
  f->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
  if (f->size) f->bytes = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (!f->size || f->bytes == MAP_FAILED) bad(f, "this is not a library");
  ctx_defer(c, unmap, f);
  return f;
}

static const void *part(const File *f, uint64_t offset, uint64_t size) {
  if (offset > f->size || size > f->size - offset || offset % 8) bad(f, "the library is damaged");
  return f->bytes + offset;
}

/* The string at `at` of a string table section. */
static const char *string_at(const File *f, const Elf64_Shdr *table, uint64_t at) {
  if (at >= table->sh_size || table->sh_offset > f->size || table->sh_size > f->size - table->sh_offset)
    bad(f, "the library is damaged");
  const char *s = (const char *)f->bytes + table->sh_offset + at;
  if (!memchr(s, 0, table->sh_size - at)) bad(f, "the library is damaged");
  return s;
}

static void read_symbols(const File *f, const Elf64_Shdr *s, const Elf64_Shdr *strings, ElfLibrary *e) {
  const Elf64_Sym *symbol = part(f, s->sh_offset, s->sh_size);
  for (uint64_t i = 1; i < s->sh_size / sizeof *symbol; i++) {
    const char *name = string_at(f, strings, symbol[i].st_name);
    if (symbol[i].st_shndx == SHN_UNDEF) vec_push(f->c, &e->imports, name);
    else if (ELF64_ST_BIND(symbol[i].st_info) != STB_LOCAL) vec_push(f->c, &e->exports, name);
  }
}

static void read_needed(const File *f, const Elf64_Shdr *s, const Elf64_Shdr *strings, ElfLibrary *e) {
  const Elf64_Dyn *d = part(f, s->sh_offset, s->sh_size);
  for (uint64_t i = 0; i < s->sh_size / sizeof *d && d[i].d_tag != DT_NULL; i++)
    if (d[i].d_tag == DT_NEEDED) vec_push(f->c, &e->needed, string_at(f, strings, d[i].d_un.d_val));
}

static const char *machine_name(Ctx *c, int machine) {
  return machine == EM_X86_64 ? "x86-64" : machine == EM_AARCH64 ? "aarch64" : ctx_printf(c, "machine %d", machine);
}

ElfLibrary elf_read(Ctx *c, const char *path) {
  File *f = map_file(c, path);
  if (f->size < sizeof(Elf64_Ehdr) || memcmp(f->bytes, ELFMAG, SELFMAG) != 0) bad(f, "this is not a library");
  const Elf64_Ehdr *h = (const Elf64_Ehdr *)f->bytes;
  if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_type != ET_DYN ||
      h->e_shentsize != sizeof(Elf64_Shdr))
    bad(f, "this is not a 64-bit shared library");
  ElfLibrary e = {.machine = machine_name(c, h->e_machine), .file_bytes = (int64_t)f->size};
  const Elf64_Shdr *s = part(f, h->e_shoff, (uint64_t)h->e_shnum * sizeof *s);
  if (h->e_shstrndx >= h->e_shnum) bad(f, "the library has no section names");
  for (int i = 1; i < h->e_shnum; i++) {
    ElfSection section = {string_at(f, &s[h->e_shstrndx], s[i].sh_name), (int64_t)s[i].sh_size,
                          (s[i].sh_flags & SHF_EXECINSTR) != 0,
                          (s[i].sh_flags & SHF_ALLOC) && s[i].sh_type != SHT_NOBITS};
    vec_push(c, &e.sections, section);
    bool linked = s[i].sh_link < h->e_shnum;
    if (s[i].sh_type == SHT_DYNSYM && linked) read_symbols(f, &s[i], &s[s[i].sh_link], &e);
    if (s[i].sh_type == SHT_DYNAMIC && linked) read_needed(f, &s[i], &s[s[i].sh_link], &e);
  }
  return e;
}

const char *elf_model_prefix(Ctx *c, const ElfLibrary *e, const char *path) {
  static const char suffix[] = "_model";
  for (int i = 0; i < e->exports.n; i++) {
    const char *name = e->exports.v[i];
    size_t n = strlen(name), end = sizeof suffix - 1;
    if (n > end && !strcmp(name + n - end, suffix)) return ctx_intern_n(c, name, n - end);
  }
  diag_fail(c, E0503, NULL, "a library that dlc compile has written exports NAME_model and NAME_run",
            "%s is a library, but not a compiled model", diag_quote(c, path));
}
