/* link.c - objects, the runtime and the names of libc, through lld, to one shared library that appears whole or not at
 * all. */
#define _GNU_SOURCE
#include "link_impl.h"
#include "../ir/diag.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CARRIED(id) runtime_##id, runtime_##id##_end, libc_##id, libc_##id##_end
#define DECLARE(id) extern const unsigned char runtime_##id[], runtime_##id##_end[], libc_##id[], libc_##id##_end[];
DECLARE(x86_64_linux_gnu)

/* One row a target; runtime/CMakeLists.txt builds what the row carries. */
static const ElfTarget targets[] = {
    {"x86_64", "elf_x86_64", 62, 8, 0, ".lrodata", 0x10000000, CARRIED(x86_64_linux_gnu)},
};

static const ElfTarget *find_target(Ctx *c, const char *triple) {
  size_t n = strcspn(triple, "-");
  for (int i = 0; i < COUNT(targets); i++)
    if (strlen(targets[i].arch) == n && !strncmp(targets[i].arch, triple, n) && strstr(triple, "linux"))
      return &targets[i];
  diag_fail(c, E0701, NULL, NULL, "dlc carries no runtime for '%s'", triple);
}

static void close_files(void *object) {
  Link *l = object;
  for (int i = 0; i < l->files.n; i++) close(l->files.v[i].fd);
}

Link *link_begin(Ctx *c, const char *triple, const char *out) {
  Link *l = NEW(c, Link);
  l->c = c;
  l->out = ctx_intern(c, out);
  l->target = find_target(c, triple);
  ctx_defer(c, close_files, l);
  return l;
}

_Noreturn void link_cannot_write(Link *l) {
  diag_fail(l->c, E0502, NULL, NULL, "cannot write '%s': %s", l->out, strerror(errno));
}

static const char *add_file(Link *l, const char *name, int fd) {
  if (fd < 0) link_cannot_write(l);
  LinkFile f = {ctx_intern(l->c, name), ctx_printf(l->c, "/proc/self/fd/%d", fd), fd};
  vec_push(l->c, &l->files, f);
  return f.path;
}

static const char *in_memory(Link *l, const char *name, const void *bytes, size_t n) {
  int fd = memfd_create("dlc", MFD_CLOEXEC);
  const char *path = add_file(l, name, fd), *at = bytes;
  for (ssize_t done; n; at += done, n -= (size_t)done)
    if ((done = write(fd, at, n)) <= 0) link_cannot_write(l);
  return path;
}

void link_object(Link *l, const char *name, const void *bytes, size_t n) {
  const char *path = in_memory(l, name, bytes, n);
  vec_push(l->c, &l->objects, path);
}

void link_data(Link *l, const char *symbol, int64_t size, LinkWrite *write, void *user) {
  size_t n;
  char *bytes = elf_data_object(l->target, symbol, size, &n);
  if (!bytes) diag_fail(l->c, E0601, NULL, NULL, "out of memory");
  link_object(l, "weights.o", bytes, n);
  free(bytes);
  l->write = write;
  l->write_user = user;
}

static void write_data(Link *l) {
  int64_t at;
  uint64_t digest;
  if (!elf_append_data(l->out, l->target, &at)) link_cannot_write(l);
  if (at < 0) return;
  int fd = open(l->out, O_RDWR | O_CLOEXEC);
  add_file(l, l->out, fd);
  if (!l->write(l->write_user, fd, at, &digest) || !elf_mix_build_id(l->out, digest)) link_cannot_write(l);
}

/* The linker's own words are longer. */
static void check_folder(Link *l) {
  const char *slash = strrchr(l->out, '/');
  if (access(slash ? ctx_printf(l->c, "%.*s", (int)(slash - l->out + 1), l->out) : ".", W_OK)) link_cannot_write(l);
}

static const char *export_map(Link *l, const char *const *exports, int n) {
  Str s = str_new(l->c);
  str_add(&s, "DLC_1 {\n  global:\n");
  for (int i = 0; i < n; i++) str_add(&s, "    \"%s\";\n", exports[i]);
  str_add(&s, "  local: *;\n};\n");
  return in_memory(l, "exports.map", s.s, s.n);
}

/* The linker's words with the names that the files have here. */
static const char *explain(Link *l, const char *messages) {
  static const char prefix[] = "/proc/self/fd/";
  Str s = str_new(l->c);
  for (const char *p = messages, *hit; *p;) {
    hit = strstr(p, prefix);
    str_add(&s, "%.*s", (int)(hit ? (size_t)(hit - p) : strlen(p)), p);
    if (!hit) break;
    int fd = (int)strtol(hit + sizeof prefix - 1, (char **)&p, 10);
    for (int i = 0; i < l->files.n; i++)
      if (l->files.v[i].fd == fd) str_add(&s, "%s", l->files.v[i].name);
  }
  return s.s;
}

/* What the user can do something about is an error of input/output; the rest is ours. */
static _Noreturn void link_failed(Link *l, char *messages) {
  static const char *const io[] = {"No space left", "failed to write", "failed to open", "cannot open output",
                                   "File too large"};
  const char *text = explain(l, messages ? messages : "no message");
  free(messages);
  for (int i = 0; i < COUNT(io); i++)
    if (strstr(text, io[i])) diag_fail(l->c, E0502, NULL, NULL, "cannot write '%s': %s", l->out, text);
  diag_bug(l->c, "linking %s: %s", l->out, text);
}

void link_shared(Link *l, const char *const *exports, int nexports, const char *soname) {
  const ElfTarget *t = l->target;
  check_folder(l);
  link_object(l, "runtime.o", t->runtime, (size_t)(t->runtime_end - t->runtime));
  const char *libc = in_memory(l, "libc.so.6", t->libc, (size_t)(t->libc_end - t->libc));
  VEC(const char *) argv = {0};
#define ARG(text) vec_push(l->c, &argv, text)
  ARG("ld.lld"), ARG("-m"), ARG(t->emulation), ARG("-shared"), ARG("-o"), ARG(l->out);
  ARG("--version-script"), ARG(export_map(l, exports, nexports));
  ARG("-z"), ARG("relro"), ARG("-z"), ARG("now"), ARG("-z"), ARG("noexecstack"), ARG("-z"), ARG("defs");
  ARG("-z"), ARG("lrodata-after-bss"); /* last: there is room for the constants at the end of the file */
  ARG("--build-id=sha1"), ARG("--gc-sections"), ARG("--hash-style=gnu");
  ARG("-soname"),
      ARG(soname ? soname : "model"); /* names the set of versions too, which without it has the output's path */
  for (int i = 0; i < l->objects.n; i++) ARG(l->objects.v[i]);
  ARG(libc);
  char *messages;
  if (lld_link(argv.n, argv.v, &messages)) link_failed(l, messages);
  if (l->write) write_data(l);
  if (!soname && !elf_drop_soname(l->out)) link_cannot_write(l);
}
