/* link.c - objects, the runtime and the names of libc, through lld, to one shared library that appears whole or not at all. */
#include "link.h"
#include "link_impl.h"
#include "../ir/diag.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
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
    if (strlen(targets[i].arch) == n && !strncmp(targets[i].arch, triple, n) && strstr(triple, "linux")) return &targets[i];
  diag_fail(c, E0701, NULL, NULL, "dlc carries no runtime for '%s'", triple);
}

static void cleanup(void *object) {
  Link *l = object;
  for (int i = 0; i < l->files.n; i++) unlink(l->files.v[i]);
  rmdir(l->folder);
}

Link *link_begin(Ctx *c, const char *triple, const char *out) {
  Link *l = NEW(c, Link);
  l->c = c;
  l->out = ctx_intern(c, out);
  l->target = find_target(c, triple);
  const char *slash = strrchr(out, '/');
  l->folder = ctx_printf(c, "%.*s.dlc-tmp.XXXXXX", slash ? (int)(slash - out + 1) : 0, out);
  if (!mkdtemp(l->folder)) diag_fail(c, E0502, NULL, NULL, "cannot write '%s': %s", out, strerror(errno));
  ctx_defer(c, cleanup, l);
  return l;
}

/* A name in the folder; removed with it. */
static const char *temp(Link *l, const char *name) {
  const char *path = ctx_printf(l->c, "%s/%s", l->folder, name);
  vec_push(l->c, &l->files, path);
  return path;
}

const char *link_file(Link *l, const char *name) {
  const char *path = temp(l, name);
  vec_push(l->c, &l->objects, path);
  return path;
}

static void write_file(Link *l, const char *path, const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  bool ok = f && fwrite(bytes, 1, n, f) == n;
  if ((f && fclose(f)) || !ok) diag_fail(l->c, E0502, NULL, NULL, "cannot write '%s': %s", l->out, strerror(errno));
}

void link_object(Link *l, const char *name, const void *bytes, size_t n) { write_file(l, link_file(l, name), bytes, n); }

static const char *export_map(Link *l, const char *const *exports, int n) {
  Str s = str_new(l->c);
  str_add(&s, "DLC_1 {\n  global:\n");
  for (int i = 0; i < n; i++) str_add(&s, "    \"%s\";\n", exports[i]);
  str_add(&s, "  local: *;\n};\n");
  const char *path = temp(l, "exports.map");
  write_file(l, path, s.s, s.n);
  return path;
}

/* What the user can do something about is an error of input/output; the rest is ours. */
static _Noreturn void link_failed(Link *l, char *messages) {
  static const char *const io[] = {"No space left", "failed to write", "failed to open", "cannot open output", "File too large"};
  const char *text = ctx_intern(l->c, messages ? messages : "no message");
  free(messages);
  for (int i = 0; i < COUNT(io); i++)
    if (strstr(text, io[i])) diag_fail(l->c, E0502, NULL, NULL, "cannot write '%s': %s", l->out, text);
  diag_bug(l->c, "linking %s: %s", l->out, text);
}

static void flush(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

void link_shared(Link *l, const char *const *exports, int nexports, const char *soname) {
  const ElfTarget *t = l->target;
  const char *whole = temp(l, "linked.so"), *libc = temp(l, "libc.so.6");
  link_object(l, "runtime.o", t->runtime, (size_t)(t->runtime_end - t->runtime));
  write_file(l, libc, t->libc, (size_t)(t->libc_end - t->libc));
  VEC(const char *) argv = {0};
#define ARG(text) vec_push(l->c, &argv, text)
  ARG("ld.lld"), ARG("-m"), ARG(t->emulation), ARG("-shared"), ARG("-o"), ARG(whole);
  ARG("--version-script"), ARG(export_map(l, exports, nexports));
  ARG("-z"), ARG("relro"), ARG("-z"), ARG("now"), ARG("-z"), ARG("noexecstack"), ARG("-z"), ARG("defs");
  ARG("--build-id=sha1"), ARG("--gc-sections"), ARG("--hash-style=gnu");
  if (soname) ARG("-soname"), ARG(soname);
  for (int i = 0; i < l->objects.n; i++) ARG(l->objects.v[i]);
  ARG(libc);
  char *messages;
  if (lld_link(argv.n, argv.v, &messages)) link_failed(l, messages);
  flush(whole);
  if (rename(whole, l->out)) diag_fail(l->c, E0502, NULL, NULL, "cannot write '%s': %s", l->out, strerror(errno));
}
