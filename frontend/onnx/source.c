/* source.c - see source.h. */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void source_fail(const Source *s, DiagCode code, const char *hint, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char text[2048];
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  if (s->data) diag_fail(s->c, E0504, NULL, hint, "%s: %s", diag_quote(s->c, s->path), text);
  diag_fail(s->c, code, NULL, hint, "%s", text);
}

static _Noreturn void fail_io(Ctx *c, const char *path) {
  diag_fail(c, E0501, NULL, NULL, "cannot read '%s': %s", diag_quote(c, path), strerror(errno));
}

static void source_free(void *p) {
  Source *s = p;
  free(s->owned);
}

Source *source_map(Ctx *c, int fd, const char *path, size_t size) {
  Source *s = NEW(c, Source);
  *s = (Source){.c = c, .path = path, .size = size, .bytes = ctx_map(c, fd, size)};
  int why = errno;
  close(fd);
  errno = why;
  if (!s->bytes) fail_io(c, path);
  return s;
}

/* Everything that can be read from a pipe or a terminal. */
static Source *read_all(Ctx *c, int fd, const char *path) {
  Source *s = NEW(c, Source);
  *s = (Source){.c = c, .path = path};
  ctx_defer(c, source_free, s);
  for (size_t room = 0;;) {
    if (room - s->size < 1 << 16) {
      room = room ? room * 2 : 1 << 20;
      void *more = realloc(s->owned, room);
      if (!more) diag_fail(c, E0601, NULL, NULL, "out of memory (asked for %zu bytes)", room);
      s->bytes = s->owned = more;
    }
    ssize_t n = read(fd, (char *)s->owned + s->size, room - s->size);
    if (n == 0) return s;
    if (n < 0 && errno != EINTR) fail_io(c, path);
    if (n > 0) s->size += (size_t)n;
  }
}

Source *source_open(Ctx *c, const char *path, bool data) {
  bool standard = !strcmp(path, "-");
  int fd = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) fail_io(c, path);
  Source *s;
  if (S_ISREG(st.st_mode) && !standard) {
    s = source_map(c, fd, path, (size_t)st.st_size);
  } else {
    s = read_all(c, fd, path);     /* a folder fails here: EISDIR */
    close(fd);
  }
  s->data = data;
  return s;
}

void source_sha256(const Source *s, char hex[65]) {
  enum { STEP = 8 << 20 };
  struct sha256_ctx h;
  uint8_t digest[SHA256_DIGEST_SIZE];
  sha256_init(&h);
  for (size_t at = 0; at < s->size; at += STEP) {
    size_t n = MIN(s->size - at, (size_t)STEP);
    sha256_update(&h, n, s->bytes + at);
    ctx_release(s->c, s->bytes + at, n);
  }
  sha256_digest(&h, sizeof digest, digest);
  for (int i = 0; i < SHA256_DIGEST_SIZE; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* ---- what is often mistaken for a model ---- */

typedef struct { int at, n; const char *magic, *what, *hint; } Magic;
static const Magic magics[] = {
    {0, 4, "PK\3\4", "a zip archive (a PyTorch checkpoint, an .npz or a packed download)",
     "export the model to ONNX, or unpack it"},
    {0, 2, "\x1f\x8b", "gzip-compressed", "unpack it with gunzip"},
    {0, 4, "\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it with unzstd"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "xz-compressed", "unpack it with unxz"},
    {0, 3, "BZh", "bzip2-compressed", "unpack it with bunzip2"},
    {257, 5, "ustar", "a tar archive", "unpack it with tar -xf"},
    {4, 6, "\0\0\0\0{\"", "a safetensors file: weights without a graph", "export the model to ONNX"},
    {0, 4, "GGUF", "a GGUF file", "export the model to ONNX"},
    {0, 8, "\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", "export the model to ONNX"},
    {4, 4, "TFL3", "a TensorFlow Lite model", "export the model to ONNX"},
    {4, 4, "ORTM", "a model in ONNX Runtime's own format", "use the .onnx file that it was made from"},
    {0, 6, "\x93NUMPY", "a NumPy array", NULL},
    {0, 4,
     "\x7f"
     "ELF",
     "a compiled program or library", NULL},
    {0, 8, "\x89PNG\r\n\x1a\n", "a PNG image", NULL},
    {0, 1, "{", "JSON text", NULL},
};

static bool starts_with_letters(const uint8_t *p, size_t n, const char *word) {   /* any case */
  size_t k = strlen(word);
  if (n < k) return false;
  for (size_t i = 0; i < k; i++)
    if ((p[i] >= 'A' && p[i] <= 'Z' ? p[i] + 32 : p[i]) != word[i]) return false;
  return true;
}

static const char *last_part(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static const char *wanted(const Source *s) { return s->data ? "a tensor" : "a model"; }

static void check_lfs(const Source *s) {
  static const char head[] = "version https://git-lfs.github.com/spec/";
  if (s->size < sizeof head - 1 || memcmp(s->bytes, head, sizeof head - 1)) return;
  char text[513] = "", oid[16] = "?";
  unsigned long long size = 0;
  memcpy(text, s->bytes, MIN(s->size, sizeof text - 1));
  const char *o = strstr(text, "oid sha256:"), *z = strstr(text, "size ");
  if (o) sscanf(o + 11, "%8[0-9a-f]", oid);
  if (z) sscanf(z + 5, "%llu", &size);
  source_fail(s, E0302, ctx_printf(s->c, "git lfs pull --include %s", diag_quote(s->c, last_part(s->path))),
              "this is a Git LFS pointer, not %s (sha256:%s..., %.1f MB)", wanted(s), oid, (double)size / 1e6);
}

void source_check_magic(const Source *s) {
  if (!s->size) source_fail(s, E0302, NULL, "the file is empty");
  check_lfs(s);
  const uint8_t *p = s->bytes;
  size_t n = s->size;
  while (n && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++, n--;
  if (starts_with_letters(p, n, "<!doctype") || starts_with_letters(p, n, "<html") ||
      starts_with_letters(p, n, "<?xml"))
    source_fail(s, E0302, "download the file itself, not the page that shows it", "this is a web page, not %s",
                wanted(s));
  for (int i = 0; i < COUNT(magics); i++) {
    const Magic *m = &magics[i];
    if (s->size >= (size_t)(m->at + m->n) && !memcmp(s->bytes + m->at, m->magic, (size_t)m->n))
      source_fail(s, E0302, m->hint, "this is %s, not %s", m->what, wanted(s));
  }
  if (s->size > 2 && s->bytes[0] == 0x80 && s->bytes[1] >= 2 && s->bytes[1] <= 5 && s->bytes[2] != 0)
    source_fail(s, E0302, "export the model to ONNX", "this is a Python pickle, not %s", wanted(s));
}
