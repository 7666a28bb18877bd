/* npy.c - NumPy's .npy files: magic, version, header length, a Python dict literal padded to 64 bytes, the elements. */
#include "array.h"
#include "../../ir/diag.h"
#include "../outfile.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

typedef struct {
  Ctx *c;
  const char *path;
  FILE *file;
} Npy;

static void close_file(void *file) { fclose(file); }

static _Noreturn void bad(const Npy *n, const char *hint, const char *what) {
  diag_fail(n->c, E0504, NULL, hint, "%s: %s", diag_quote(n->c, n->path), what);
}

static void read_bytes(Npy *n, void *to, size_t bytes) {
  if (fread(to, 1, bytes, n->file) != bytes) bad(n, NULL, ferror(n->file) ? strerror(errno) : "the file is cut short");
}

static char *read_header(Npy *n) {
  unsigned char start[8], length[4] = {0};
  read_bytes(n, start, sizeof start);
  if (memcmp(start, "\x93NUMPY", 6) != 0) bad(n, NULL, "this is not a .npy file");
  if (start[6] < 1 || start[6] > 3) bad(n, NULL, "a version of .npy later than 3");
  read_bytes(n, length, start[6] == 1 ? 2 : 4);
  size_t size = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
  if (size > 1 << 20) bad(n, NULL, "the header is too long");
  char *text = ctx_alloc(n->c, size + 1);
  read_bytes(n, text, size);
  if (strlen(text) != size) bad(n, NULL, "the header is not text");
  return text;
}

/* What stands after 'key': in the header's dict. */
static const char *value_of(const Npy *n, const char *header, const char *key) {
  const char *p = strstr(header, ctx_printf(n->c, "'%s'", key));
  if (!p) bad(n, NULL, "the header lacks descr, fortran_order or shape");
  p += strlen(key) + 2;
  p += strspn(p, " ");
  if (*p != ':') bad(n, NULL, "the header is not a dict");
  p++;
  return p + strspn(p, " ");
}

/* '<f4' and the like: byte order, kind, bytes. */
static DType parse_descr(const Npy *n, const char *p) {
  static const char kinds[] = "biuf";
  if (*p != '\'') bad(n, NULL, "records are not supported");
  char order = p[1], kind = p[2];
  int bytes = order && kind ? atoi(p + 3) : 0;
  if (order == '>') bad(n, "x.astype(x.dtype.newbyteorder('<'))", "the elements are big endian");
  if (kind == 'V' && bytes == 2) return DT_BF16;
  for (int t = 0; t < DT_COUNT; t++)
    if (t != DT_BF16 && strchr(kinds, kind) && dtype_info[t].kind == kind && dtype_info[t].bits == bytes * 8)
      return (DType)t;
  bad(n, NULL, ctx_printf(n->c, "element type %.*s is not supported", (int)strcspn(p + 1, "'"), p + 1));
}

static void parse_shape(const Npy *n, const char *p, Array *a) {
  if (*p++ != '(') bad(n, NULL, "the shape is not a tuple");
  for (;;) {
    p += strspn(p, " ,");
    if (*p == ')') return;
    if (!isdigit((unsigned char)*p) || a->rank == MAX_RANK)
      bad(n, NULL, "the shape is malformed or has too many dimensions");
    char *end;
    errno = 0;
    a->dims[a->rank++] = strtoll(p, &end, 10);
    if (errno) bad(n, NULL, "a dimension is too large");
    p = end + strspn(end, "L");
  }
}

Array npy_read(Ctx *c, const char *path) {
  Npy n = {c, path, fopen(path, "rb")};
  if (!n.file) diag_fail(c, E0501, NULL, NULL, "cannot read %s: %s", diag_quote(c, path), strerror(errno));
  ctx_defer(c, close_file, n.file);
  const char *header = read_header(&n);
  Array a = {.dtype = parse_descr(&n, value_of(&n, header, "descr"))};
  parse_shape(&n, value_of(&n, header, "shape"), &a);
  if (a.rank > 1 && !strncmp(value_of(&n, header, "fortran_order"), "True", 4))
    bad(&n, "np.save(path, np.ascontiguousarray(x))", "the elements stand in Fortran order");
  long at = ftell(n.file);
  if (at >= 0 && fseek(n.file, 0, SEEK_END) == 0) { /* a file, not a pipe: its size is checked before memory is taken */
    int64_t bytes = dtype_bytes(a.dtype);
    for (int i = 0; i < a.rank; i++)
      if (!mul_ok(bytes, a.dims[i], &bytes)) bad(&n, NULL, "the shape is too large");
    if (ftell(n.file) - at < bytes) bad(&n, NULL, "the file is cut short");
    fseek(n.file, at, SEEK_SET);
  }
  array_allocate(c, &a);
  read_bytes(&n, a.data, array_bytes(&a));
  return a;
}

static const char *header_text(Ctx *c, const Array *a) {
  const DTypeInfo *t = &dtype_info[a->dtype];
  Str s = str_new(c);
  char kind = a->dtype == DT_BF16 ? 'V' : t->kind;
  str_add(&s, "{'descr': '%c%c%d', 'fortran_order': False, 'shape': (", t->bits == 8 ? '|' : '<', kind, t->bits / 8);
  for (int i = 0; i < a->rank; i++) str_add(&s, "%s%lld", i ? ", " : "", (long long)a->dims[i]);
  str_add(&s, a->rank == 1 ? ",), }" : "), }");
  while ((s.n + 10 + 1) % 64 != 0) str_add(&s, " ");
  str_add(&s, "\n");
  return s.s;
}

void npy_write(Ctx *c, const char *path, const Array *a) {
  const char *header = header_text(c, a);
  size_t n = strlen(header), bytes = array_bytes(a);
  unsigned char *whole = ctx_alloc(c, 10 + n + bytes);
  memcpy(whole, "\x93NUMPY\x01\x00", 8);
  whole[8] = (unsigned char)(n & 0xff);
  whole[9] = (unsigned char)(n >> 8);
  memcpy(whole + 10, header, n);
  memcpy(whole + 10 + n, a->data, bytes);
  OutFile *file = outfile_new(c, path);
  outfile_write(c, file, whole, 10 + n + bytes);
  outfile_commit(c, &file, 1);
}
