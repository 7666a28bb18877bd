/* elf.c - a relocatable ELF object for the weights, streamed to disk piece by piece; and the note of a compiled
 * library. The file: header, the data section from byte 4096 on, symbol table, names, section headers; the header last,
 * when the size is known. */
#include "link_impl.h"
#include "../ir/diag.h"
#include <elf.h>
#include <unistd.h>

enum { DATA_AT = 4096 };

struct ElfData {
  Link *l;
  FILE *file;
  const char *symbol;
  int64_t size; /* of the data so far */
  bool failed;
};

static void close_file(void *object) {
  ElfData *d = object;
  if (d->file) fclose(d->file);
}

static void raw(ElfData *d, const void *bytes, size_t n) {
  if (!d->failed && fwrite(bytes, 1, n, d->file) != n) d->failed = true;
}

static void fill(ElfData *d, uint64_t n) {
  static const char zeros[4096];
  for (; n; n -= MIN(n, sizeof zeros)) raw(d, zeros, MIN(n, sizeof zeros));
}

ElfData *elf_data_begin(Link *l, const char *name, const char *symbol) {
  ElfData *d = NEW(l->c, ElfData);
  *d = (ElfData){.l = l, .symbol = ctx_intern(l->c, symbol), .file = fdopen(dup(link_on_disk(l, name)), "wb")};
  if (!d->file) link_cannot_write(l);
  ctx_defer(l->c, close_file, d);
  fill(d, DATA_AT);
  return d;
}

void elf_data_put(ElfData *d, const void *bytes, size_t n) {
  raw(d, bytes, n);
  d->size += (int64_t)n;
}

void elf_data_at(ElfData *d, int64_t offset) {
  if (offset < d->size) diag_bug(d->l->c, "weights: byte %lld was already written", (long long)offset);
  fill(d, (uint64_t)(offset - d->size));
  d->size = offset;
}

/* Little-endian fields of 1 to 8 bytes, in either class. */
static void field(ElfData *d, uint64_t value, int bytes) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = (unsigned char)(value >> 8 * i);
  raw(d, b, (size_t)bytes);
}

static void symbol(ElfData *d, uint32_t name, uint8_t info, uint16_t section, uint64_t size) {
  bool wide = d->l->target->word == 8;
  field(d, name, 4);
  if (!wide) field(d, 0, 4), field(d, size, 4);
  field(d, info, 1), field(d, info ? STV_HIDDEN : 0, 1), field(d, section, 2);
  if (wide) field(d, 0, 8), field(d, size, 8);
}

typedef struct {
  uint32_t name, type;
  uint64_t flags, offset, size;
  uint32_t link, info;
  uint64_t align, entry;
} Section;

static void section(ElfData *d, Section s) {
  int w = d->l->target->word;
  field(d, s.name, 4), field(d, s.type, 4), field(d, s.flags, w), field(d, 0, w), field(d, s.offset, w),
      field(d, s.size, w);
  field(d, s.link, 4), field(d, s.info, 4), field(d, s.align, w), field(d, s.entry, w);
}

static void file_header(ElfData *d, uint64_t sections_at, int nsections, int names) {
  const ElfTarget *t = d->l->target;
  int w = t->word;
  unsigned char ident[EI_NIDENT] = {0x7f, 'E', 'L', 'F', w == 8 ? ELFCLASS64 : ELFCLASS32, ELFDATA2LSB, EV_CURRENT};
  raw(d, ident, sizeof ident);
  field(d, ET_REL, 2), field(d, t->machine, 2), field(d, EV_CURRENT, 4), field(d, 0, w), field(d, 0, w),
      field(d, sections_at, w);
  field(d, t->flags, 4), field(d, w == 8 ? 64 : 52, 2), field(d, 0, 2), field(d, 0, 2);
  field(d, w == 8 ? 64 : 40, 2), field(d, (uint64_t)nsections, 2), field(d, (uint64_t)names, 2);
}

void elf_data_end(ElfData *d) {
  const ElfTarget *t = d->l->target;
  uint64_t size = (uint64_t)d->size, entry = t->word == 8 ? 24 : 16;
  fill(d, (uint64_t)round_up(d->size, 8) - size);
  uint64_t symbols_at = DATA_AT + (uint64_t)round_up(d->size, 8), names_at = symbols_at + 2 * entry;
  const char *text[] = {t->data_section, ".symtab", ".strtab", ".note.GNU-stack", d->symbol};
  uint32_t at[COUNT(text)], n = 1;
  for (int i = 0; i < COUNT(text); i++) at[i] = n, n += (uint32_t)strlen(text[i]) + 1;
  symbol(d, 0, 0, 0, 0);
  symbol(d, at[4], STB_GLOBAL << 4 | STT_OBJECT, 1, size);
  raw(d, "", 1);
  for (int i = 0; i < COUNT(text); i++) raw(d, text[i], strlen(text[i]) + 1);
  uint64_t sections_at = (uint64_t)round_up((int64_t)(names_at + n), 8);
  fill(d, sections_at - names_at - n);
  section(d, (Section){0});
  section(d, (Section){at[0], SHT_PROGBITS, SHF_ALLOC | t->data_flags, DATA_AT, size, 0, 0, DATA_AT, 0});
  section(d, (Section){at[1], SHT_SYMTAB, 0, symbols_at, 2 * entry, 3, 1, 8, entry});
  section(d, (Section){at[2], SHT_STRTAB, 0, names_at, n, 0, 0, 1, 0});
  section(d, (Section){at[3], SHT_PROGBITS, 0, names_at, 0, 0, 0, 1, 0});
  if (fseek(d->file, 0, SEEK_SET)) d->failed = true;
  file_header(d, sections_at, 5, 3);
  bool ok = !d->failed;
  if (fclose(d->file)) ok = false;
  d->file = NULL;
  if (!ok) link_cannot_write(d->l);
}

/* ---- reading: program headers ---- */
typedef struct {
  FILE *f;
  bool wide;
  uint64_t table;
  int count;
} ElfFile;
typedef struct {
  uint32_t type;
  uint64_t at, size;
} Segment;

static uint64_t word_at(const unsigned char *at, int bytes) {
  uint64_t v = 0;
  for (int i = bytes; i-- > 0;) v = v << 8 | at[i];
  return v;
}

static bool read_at(const ElfFile *e, uint64_t at, void *to, size_t n) {
  return at <= INT64_MAX / 2 && !fseeko(e->f, (off_t)at, SEEK_SET) && fread(to, 1, n, e->f) == n;
}

static bool open_elf(ElfFile *e) {
  unsigned char h[64];
  if (!e->f || !read_at(e, 0, h, 52) || memcmp(h, "\177ELF", 4) || h[EI_DATA] != ELFDATA2LSB) return false;
  e->wide = h[EI_CLASS] == ELFCLASS64;
  if (e->wide && !read_at(e, 0, h, 64)) return false;
  e->table = e->wide ? word_at(h + 32, 8) : word_at(h + 28, 4);
  e->count = (int)word_at(h + (e->wide ? 56 : 44), 2);
  return true;
}

static bool read_segment(const ElfFile *e, int i, Segment *s) {
  unsigned char p[56];
  size_t entry = e->wide ? 56 : 32;
  if (!read_at(e, e->table + (uint64_t)i * entry, p, entry)) return false;
  *s = (Segment){(uint32_t)word_at(p, 4), e->wide ? word_at(p + 8, 8) : word_at(p + 4, 4),
                 e->wide ? word_at(p + 32, 8) : word_at(p + 16, 4)};
  return true;
}

/* ---- the name that lld needs and the library shall not have ---- */
static bool drop_entry(ElfFile *e, Segment s, uint64_t tag) {
  unsigned char entry[16];
  size_t n = e->wide ? 16 : 8;
  int found = 0;
  for (uint64_t i = 0; i + n <= s.size; i += n) {
    if (!read_at(e, s.at + i, entry, n)) return false;
    if (word_at(entry, (int)n / 2) == tag) found = 1;
    else if (found && (fseeko(e->f, (off_t)(s.at + i - n), SEEK_SET) || fwrite(entry, 1, n, e->f) != n)) return false;
  }
  return true;
}

bool elf_drop_soname(const char *path) {
  ElfFile e = {.f = fopen(path, "r+b")};
  Segment s;
  bool ok = open_elf(&e);
  for (int i = 0; ok && i < e.count; i++) {
    ok = read_segment(&e, i, &s);
    if (ok && s.type == PT_DYNAMIC) ok = drop_entry(&e, s, DT_SONAME);
  }
  return (!e.f || !fclose(e.f)) && ok;
}

/* ---- the note ---- */
/* One PT_NOTE segment: notes are name size, description size, type, name, description, each padded to 4. */
static const char *find_note(Ctx *c, const ElfFile *e, Segment s) {
  enum { LIMIT = 16 << 20 };
  if (s.size > LIMIT) return NULL;
  for (uint64_t i = 0; i + 12 <= s.size;) {
    unsigned char head[16];
    if (!read_at(e, s.at + i, head, MIN(sizeof head, s.size - i))) return NULL;
    uint64_t name = word_at(head, 4), bytes = word_at(head + 4, 4), type = word_at(head + 8, 4);
    uint64_t data = i + 12 + (name + 3) / 4 * 4;
    if (name > s.size || bytes > s.size || data + bytes > s.size) return NULL;
    if (name == 4 && type == 1 && !memcmp(head + 12, "dlc", 4)) {
      char *text = ctx_alloc(c, bytes + 1);
      return read_at(e, s.at + data, text, bytes) ? text : NULL;
    }
    i = data + (bytes + 3) / 4 * 4;
  }
  return NULL;
}

const char *note_read(Ctx *c, const char *path) {
  ElfFile e = {.f = fopen(path, "rb")};
  const char *text = NULL;
  bool ok = open_elf(&e);
  for (int i = 0; ok && !text && i < e.count; i++) {
    Segment s;
    ok = read_segment(&e, i, &s);
    if (ok && s.type == PT_NOTE) text = find_note(c, &e, s);
  }
  if (e.f) fclose(e.f);
  return text;
}
