/* elf.c - ELF files as bytes: an object that only says how large the constants are, the place in a linked library where
 * they go, its name and its note. */
#include "link_impl.h"
#include "../ir/diag.h"
#include <elf.h>
#include <stdlib.h>
#include <unistd.h>

enum { DATA_ALIGN = 4096 };

/* ---- writing ---- */
typedef struct {
  const ElfTarget *t;
  FILE *file;
} Out;

/* Little-endian fields of 1 to 8 bytes, in either class. */
static void field(Out *o, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) fputc((int)(value >> 8 * i & 255), o->file);
}

static void symbol(Out *o, uint32_t name, uint8_t info, uint16_t section, uint64_t size) {
  bool wide = o->t->word == 8;
  field(o, name, 4);
  if (!wide) field(o, 0, 4), field(o, size, 4);
  field(o, info, 1), field(o, info ? STV_HIDDEN : 0, 1), field(o, section, 2);
  if (wide) field(o, 0, 8), field(o, size, 8);
}

typedef struct {
  uint32_t name, type;
  uint64_t flags, offset, size;
  uint32_t link, info;
  uint64_t align, entry;
} Section;

static void section(Out *o, Section s) {
  int w = o->t->word;
  field(o, s.name, 4), field(o, s.type, 4), field(o, s.flags, w), field(o, 0, w), field(o, s.offset, w),
      field(o, s.size, w);
  field(o, s.link, 4), field(o, s.info, 4), field(o, s.align, w), field(o, s.entry, w);
}

static void file_header(Out *o, uint64_t sections_at, int nsections, int names) {
  int w = o->t->word;
  unsigned char ident[EI_NIDENT] = {0x7f, 'E', 'L', 'F', w == 8 ? ELFCLASS64 : ELFCLASS32, ELFDATA2LSB, EV_CURRENT};
  fwrite(ident, 1, sizeof ident, o->file);
  field(o, ET_REL, 2), field(o, o->t->machine, 2), field(o, EV_CURRENT, 4), field(o, 0, w), field(o, 0, w),
      field(o, sections_at, w);
  field(o, o->t->flags, 4), field(o, w == 8 ? 64 : 52, 2), field(o, 0, 2), field(o, 0, 2);
  field(o, w == 8 ? 64 : 40, 2), field(o, (uint64_t)nsections, 2), field(o, (uint64_t)names, 2);
}

char *elf_data_object(const ElfTarget *t, const char *name, int64_t size, size_t *n) {
  char *bytes = NULL;
  Out o = {t, open_memstream(&bytes, n)};
  if (!o.file) return NULL;
  uint64_t head = t->word == 8 ? 64 : 52, entry = t->word == 8 ? 24 : 16, names_at = head + 2 * entry;
  const char *text[] = {t->data_section, ".symtab", ".strtab", ".note.GNU-stack", name};
  uint32_t at[COUNT(text)], end = 1;
  for (int i = 0; i < COUNT(text); i++) at[i] = end, end += (uint32_t)strlen(text[i]) + 1;
  uint64_t sections_at = (uint64_t)round_up((int64_t)(names_at + end), 8);
  file_header(&o, sections_at, 5, 3);
  symbol(&o, 0, 0, 0, 0);
  symbol(&o, at[4], STB_GLOBAL << 4 | STT_OBJECT, 1, (uint64_t)size);
  fputc(0, o.file);
  for (int i = 0; i < COUNT(text); i++) fwrite(text[i], 1, strlen(text[i]) + 1, o.file);
  for (uint64_t i = names_at + end; i < sections_at; i++) fputc(0, o.file);
  section(&o, (Section){0});
  section(&o, (Section){at[0], SHT_NOBITS, SHF_ALLOC | t->data_flags, head, (uint64_t)size, 0, 0, DATA_ALIGN, 0});
  section(&o, (Section){at[1], SHT_SYMTAB, 0, head, 2 * entry, 3, 1, 8, entry});
  section(&o, (Section){at[2], SHT_STRTAB, 0, names_at, end, 0, 0, 1, 0});
  section(&o, (Section){at[3], SHT_PROGBITS, 0, names_at, 0, 0, 0, 1, 0});
  return fclose(o.file) ? NULL : bytes;
}

/* ---- reading, and what is changed in place ---- */
typedef struct {
  FILE *f;
  bool wide;
  uint64_t segments, sections;
  int nsegments, nsections, names;
} ElfFile;
typedef struct {
  uint32_t type;
  uint64_t at, address, size;
} Segment;

static uint64_t word_at(const unsigned char *at, int bytes) {
  uint64_t v = 0;
  for (int i = bytes; i-- > 0;) v = v << 8 | at[i];
  return v;
}

static bool read_at(const ElfFile *e, uint64_t at, void *to, size_t n) {
  return at <= INT64_MAX / 2 && !fseeko(e->f, (off_t)at, SEEK_SET) && fread(to, 1, n, e->f) == n;
}

static bool write_at(const ElfFile *e, uint64_t at, const void *bytes, size_t n) {
  return !fseeko(e->f, (off_t)at, SEEK_SET) && fwrite(bytes, 1, n, e->f) == n;
}

/* Addresses and sizes have 8 bytes or 4. */
static bool write_word(const ElfFile *e, uint64_t at, uint64_t value) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = (unsigned char)(value >> 8 * i);
  return write_at(e, at, b, e->wide ? 8 : 4);
}

static bool open_elf(ElfFile *e) {
  unsigned char h[64];
  if (!e->f || !read_at(e, 0, h, 52) || memcmp(h, "\177ELF", 4) || h[EI_DATA] != ELFDATA2LSB) return false;
  e->wide = h[EI_CLASS] == ELFCLASS64;
  if (e->wide && !read_at(e, 0, h, 64)) return false;
  const unsigned char *counts = h + (e->wide ? 56 : 44);
  e->segments = e->wide ? word_at(h + 32, 8) : word_at(h + 28, 4);
  e->sections = e->wide ? word_at(h + 40, 8) : word_at(h + 32, 4);
  e->nsegments = (int)word_at(counts, 2);
  e->nsections = (int)word_at(counts + 4, 2);
  e->names = (int)word_at(counts + 6, 2);
  return true;
}

static uint64_t segment_at(const ElfFile *e, int i) { return e->segments + (uint64_t)i * (e->wide ? 56 : 32); }
static uint64_t section_at(const ElfFile *e, int i) { return e->sections + (uint64_t)i * (e->wide ? 64 : 40); }

static bool read_segment(const ElfFile *e, int i, Segment *s) {
  unsigned char p[56];
  int w = e->wide ? 8 : 4;
  if (!read_at(e, segment_at(e, i), p, e->wide ? 56 : 32)) return false;
  *s = (Segment){(uint32_t)word_at(p, 4), word_at(p + w, w), word_at(p + 2 * w, w), word_at(p + 4 * w, w)};
  return true;
}

static bool read_section(const ElfFile *e, int i, Section *s, uint64_t *address) {
  unsigned char p[64];
  int w = e->wide ? 8 : 4;
  if (!read_at(e, section_at(e, i), p, e->wide ? 64 : 40)) return false;
  *s = (Section){.name = (uint32_t)word_at(p, 4),
                 .type = (uint32_t)word_at(p + 4, 4),
                 .offset = word_at(p + 8 + 2 * w, w),
                 .size = word_at(p + 8 + 3 * w, w)};
  *address = word_at(p + 8 + w, w);
  return true;
}

static bool is_named(const ElfFile *e, const Section *s, const char *name) {
  Section names;
  uint64_t address;
  char text[32];
  size_t n = strlen(name) + 1;
  return n <= sizeof text && read_section(e, e->names, &names, &address) &&
         read_at(e, names.offset + s->name, text, n) && !memcmp(text, name, n);
}

/* ---- the place of the constants ---- */
/* Their segment: it begins with them, and the file has nothing of it. */
static int data_segment(const ElfFile *e, uint64_t address) {
  Segment s;
  for (int i = 0; i < e->nsegments && read_segment(e, i, &s); i++)
    if (s.type == PT_LOAD && s.address == address && !s.size) return i;
  return -1;
}

static bool append_data(const ElfFile *e, int i, const Section *s, uint64_t address, int64_t *at) {
  int segment = data_segment(e, address), w = e->wide ? 8 : 4;
  unsigned char type[4] = {SHT_PROGBITS};
  if (segment < 0 || fseeko(e->f, 0, SEEK_END)) return false;
  *at = round_up(ftello(e->f), DATA_ALIGN);
  uint64_t header = segment_at(e, segment), offset = (uint64_t)*at;
  return write_word(e, header + (uint64_t)w, offset) && write_word(e, header + 4 * (uint64_t)w, s->size) &&
         write_at(e, section_at(e, i) + 4, type, 4) && write_word(e, section_at(e, i) + 8 + 2 * (uint64_t)w, offset) &&
         !fflush(e->f) && !ftruncate(fileno(e->f), *at + (int64_t)s->size);
}

bool elf_append_data(const char *path, const ElfTarget *t, int64_t *at) {
  ElfFile e = {.f = fopen(path, "r+b")};
  bool ok = open_elf(&e);
  *at = -1;
  for (int i = 1; ok && i < e.nsections; i++) {
    Section s;
    uint64_t address;
    ok = read_section(&e, i, &s, &address);
    if (ok && s.type == SHT_NOBITS && is_named(&e, &s, t->data_section)) ok = append_data(&e, i, &s, address, at);
  }
  return (!e.f || !fclose(e.f)) && ok;
}

/* ---- the name that lld needs and the library shall not have ---- */
static bool drop_entry(ElfFile *e, Segment s, uint64_t tag) {
  unsigned char entry[16];
  size_t n = e->wide ? 16 : 8;
  int found = 0;
  for (uint64_t i = 0; i + n <= s.size; i += n) {
    if (!read_at(e, s.at + i, entry, n)) return false;
    if (word_at(entry, (int)n / 2) == tag) found = 1;
    else if (found && !write_at(e, s.at + i - n, entry, n)) return false;
  }
  return true;
}

bool elf_drop_soname(const char *path) {
  ElfFile e = {.f = fopen(path, "r+b")};
  Segment s;
  bool ok = open_elf(&e);
  for (int i = 0; ok && i < e.nsegments; i++) {
    ok = read_segment(&e, i, &s);
    if (ok && s.type == PT_DYNAMIC) ok = drop_entry(&e, s, DT_SONAME);
  }
  return (!e.f || !fclose(e.f)) && ok;
}

/* ---- notes ---- */
/* Each has name size, description size, type, name, description, padded to 4. Where the description lies; 0: there is no such note. */
static uint64_t find_in(const ElfFile *e, Segment s, const char *name, uint32_t type, uint64_t *size) {
  enum { LIMIT = 16 << 20 };
  if (s.size > LIMIT) return 0;
  for (uint64_t i = 0; i + 12 <= s.size;) {
    unsigned char head[16];
    if (!read_at(e, s.at + i, head, MIN(sizeof head, s.size - i))) return 0;
    uint64_t length = word_at(head, 4), bytes = word_at(head + 4, 4), data = i + 12 + (length + 3) / 4 * 4;
    if (length > s.size || bytes > s.size || data + bytes > s.size) return 0;
    *size = bytes;
    if (length == 4 && word_at(head + 8, 4) == type && !memcmp(head + 12, name, 4)) return s.at + data;
    i = data + (bytes + 3) / 4 * 4;
  }
  return 0;
}

static uint64_t find_note(const ElfFile *e, const char *name, uint32_t type, uint64_t *size) {
  uint64_t at = 0;
  Segment s;
  for (int i = 0; !at && i < e->nsegments && read_segment(e, i, &s); i++)
    if (s.type == PT_NOTE) at = find_in(e, s, name, type, size);
  return at;
}

const char *note_read(Ctx *c, const char *path) {
  ElfFile e = {.f = fopen(path, "rb")};
  char *text = NULL;
  uint64_t size, at = open_elf(&e) ? find_note(&e, "dlc", 1, &size) : 0;
  if (at) text = ctx_alloc(c, size + 1);
  if (at && !read_at(&e, at, text, size)) text = NULL;
  if (e.f) fclose(e.f);
  return text;
}

bool elf_mix_build_id(const char *path, uint64_t digest) {
  ElfFile e = {.f = fopen(path, "r+b")};
  unsigned char id[20];
  uint64_t size, at = open_elf(&e) ? find_note(&e, "GNU", NT_GNU_BUILD_ID, &size) : 0;
  bool ok = at && size == sizeof id && read_at(&e, at, id, sizeof id);
  for (int i = 0; i < 8; i++) id[i] ^= (unsigned char)(digest >> 8 * i);
  ok = ok && write_at(&e, at, id, sizeof id);
  return (!e.f || !fclose(e.f)) && ok;
}
