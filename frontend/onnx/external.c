/* external.c - tensor data in files beside the model.
 *
 * A model may name any file, so what it names is opened part by part beneath the model's own folder, following no
 * symbolic link: with neither ".." nor links there is no way out, whatever else changes in the folder meanwhile.
 * Offsets and lengths are held against the file's true size. */
#include "onnx_model.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct { const Source *s; Ctx *c; const char *label, *path; } Place;

static _Noreturn void fail(const Place *p, const char *why) {
  source_fail(p->s, E0306, NULL, "%s: external data '%s': %s", p->label, diag_quote(p->c, p->path), why);
}

static void check_path(const Place *p) {
  if (!*p->path) source_fail(p->s, E0306, NULL, "%s: its external data names no file", p->label);
  if (*p->path == '/') fail(p, "an absolute path; only files beneath the model's folder are read");
  for (const char *part = p->path; *part; part += strspn(part, "/")) {
    size_t n = strcspn(part, "/");
    if (n == 2 && part[0] == '.' && part[1] == '.') fail(p, "leads out of the model's folder");
    part += n;
  }
}

static int open_part(const Place *p, int dir, const char *part, int flags) {
  int fd = openat(dir, part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | flags);
  int why = errno;
  struct stat st;
  bool link = fd < 0 && !fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode);
  close(dir);
  if (link) fail(p, "a symbolic link, which dlc does not follow here; put the file itself into the model's folder");
  if (fd < 0) fail(p, strerror(why));
  return fd;
}

static int open_folder(const Place *p) {
  const char *slash = strrchr(p->s->path, '/');
  const char *folder = !slash                ? "."
                       : slash == p->s->path ? "/"
                                             : ctx_printf(p->c, "%.*s", (int)(slash - p->s->path), p->s->path);
  int fd = open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (fd < 0) fail(p, strerror(errno));
  return fd;
}

static Source *open_place(const Place *p) {
  check_path(p);
  int fd = open_folder(p);
  char *rest = ctx_printf(p->c, "%s", p->path), *part;
  while ((part = strsep(&rest, "/")) && rest)
    if (*part && strcmp(part, ".")) fd = open_part(p, fd, part, O_DIRECTORY);
  if (!*part || !strcmp(part, ".")) {
    close(fd);
    fail(p, "names a folder");
  }
  fd = open_part(p, fd, part, O_NONBLOCK);   /* a pipe must not stop us */
  struct stat st;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
    close(fd);
    fail(p, "is no regular file");
  }
  return source_map(p->c, fd, p->path, (size_t)st.st_size);
}

Source *source_beneath(const Source *s, const char *label, const char *path) {
  return open_place(&(Place){.s = s, .c = s->c, .label = label, .path = path});
}

static const Source *external_file(OnnxFiles *f, const Place *p) {
  for (int i = 0; i < f->external.n; i++)
    if (!strcmp(f->external.v[i]->path, p->path)) return f->external.v[i];
  Source *s = open_place(p);
  vec_push(p->c, &f->external, s);
  return s;
}

/* The value of a key that may stand once; NULL if it does not stand. */
static const char *entry(const Place *p, const OnnxTensor *t, const char *key) {
  const char *value = NULL;
  for (int i = 0; i < t->nentries; i++) {
    if (strcmp(t->entries[i].key, key)) continue;
    if (value) source_fail(p->s, E0306, NULL, "%s: its external data gives '%s' twice", p->label, key);
    value = t->entries[i].value;
  }
  return value;
}

static uint64_t number(const Place *p, const OnnxTensor *t, const char *key, uint64_t otherwise) {
  const char *text = entry(p, t, key);
  if (!text) return otherwise;
  uint64_t v = 0;
  bool ok = *text;
  for (const char *d = text; *d && ok; d++)
    ok = *d >= '0' && *d <= '9' && !__builtin_mul_overflow(v, 10, &v) &&
         !__builtin_add_overflow(v, (uint64_t)(*d - '0'), &v);
  if (!ok)
    source_fail(p->s, E0306, NULL, "%s: its external data has %s '%s', no size", p->label, key, diag_quote(p->c, text));
  return v;
}

const uint8_t *onnx_external_data(OnnxFiles *f, const OnnxTensor *t, const char *label, size_t bytes,
                                  const Source **from) {
  Place p = {.s = f->model, .c = f->model->c, .label = label};
  const char *path = entry(&p, t, "location");
  p.path = ctx_intern(p.c, path ? path : "");
  uint64_t offset = number(&p, t, "offset", 0), length = number(&p, t, "length", bytes), end;
  if (length != bytes)
    source_fail(p.s, E0305, NULL, "%s: its external data has %llu bytes, %zu are needed", label,
                (unsigned long long)length, bytes);
  const Source *s = external_file(f, &p);
  if (__builtin_add_overflow(offset, length, &end) || end > s->size)
    source_fail(p.s, E0306, NULL, "%s: external data '%s': %llu bytes from byte %llu are wanted, the file has %zu",
                label, diag_quote(p.c, p.path), (unsigned long long)length, (unsigned long long)offset, s->size);
  *from = s;
  return s->bytes + offset;
}
