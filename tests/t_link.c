/* t_link.c - a hand-written model (link_model.c) through the linker: what the library exports and imports, that it
 * runs, that the same input gives the same bytes, what is said when linking fails; the note; the generated header. */
#define _GNU_SOURCE
#include <CUnit/Basic.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>
#include "../codegen/header.h"
#include "../codegen/link.h"
#include "../ir/diag.h"
#include "../runtime/dlc.h"

static char folder[] = "/tmp/t_link.XXXXXX";

static const char *in_folder(const char *name) {
  static char text[4][256];
  static int at;
  at = (at + 1) % 4;
  snprintf(text[at], sizeof text[at], "%s/%s", folder, name);
  return text[at];
}

static char *slurp(const char *path, size_t *n) {
  *n = 0;
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  char *bytes = malloc(1 << 20);
  *n = fread(bytes, 1, 1 << 20, f);
  fclose(f);
  return bytes;
}

static int shell(const char *fmt, const char *a, const char *b) {
  char command[1024];
  snprintf(command, sizeof command, fmt, a, b);
  return system(command);
}

enum { WEIGHTS = 70003 };

static bool write_weights(void *user, int fd, int64_t at, uint64_t *digest) {
  const float *w = user;
  *digest = (uint64_t)w[0];
  return at % 4096 == 0 && pwrite(fd, w, 8, at) == 8 && pwrite(fd, "end", 3, at + WEIGHTS - 3) == 3;
}

/* The model's object with two weights, linked to `out`. */
static void link_weights(Ctx *c, const char *object, const char *out, const char *soname, float *weights) {
  size_t n;
  char *bytes = slurp(in_folder(object), &n);
  Link *l = link_begin(c, "x86_64-pc-linux-gnu", out);
  link_object(l, "model.o", bytes, n);
  free(bytes);
  link_data(l, "dlc_weights", WEIGHTS, write_weights, weights);
  const char *exports[] = {"affine_model", "affine_run"};
  link_shared(l, exports, 2, soname);
}

static void link_model(Ctx *c, const char *object, const char *out, const char *soname) {
  link_weights(c, object, out, soname, (float[]){2, 1});
}

static DLTensor tensor(float *data, int64_t *shape) {
  return (DLTensor){.data = data, .device = {1, 0}, .ndim = 2, .dtype = {2, 32, 1}, .shape = shape};
}

static void test_run(void) {
  Ctx *c = ctx_new();
  link_model(c, "model.o", in_folder("a.so"), NULL);
  ctx_free(c);
  void *library = dlopen(in_folder("a.so"), RTLD_NOW);
  CU_ASSERT_PTR_NOT_NULL_FATAL(library);
  const dlc_model *m = dlsym(library, "affine_model");
  int (*run)(const float *, float *, float *, int64_t, void *) = dlsym(library, "affine_run");
  CU_ASSERT_PTR_NOT_NULL_FATAL(m);
  CU_ASSERT_PTR_NOT_NULL_FATAL(run);
  float x[12], y[12], h[12], y2[12], h2[12];
  for (int i = 0; i < 12; i++) x[i] = (float)i + 0.1f;
  _Alignas(64) char workspace[512];
  CU_ASSERT_EQUAL(run(x, y, h, 3, workspace), DLC_OK);
  for (int i = 0; i < 12; i++) CU_ASSERT_EQUAL(y[i], x[i] * 2 + 1);
  for (int i = 0; i < 12; i++) CU_ASSERT_EQUAL(h[i], (float)(_Float16)x[i]);
  CU_ASSERT_EQUAL(run(x, y, h, 65, workspace), DLC_E_SHAPE);
  CU_ASSERT_EQUAL(run(x, y, h, 3, workspace + 1), DLC_E_ARG);
  dlc_ctx *ctx;
  CU_ASSERT_EQUAL_FATAL(
      m->ctx_new(&(dlc_opts){.struct_size = sizeof(dlc_opts), .threads = 3, .flags = DLC_COPY_WEIGHTS}, &ctx), DLC_OK);
  int64_t shape[] = {3, 4};
  DLTensor in = tensor(x, shape), o1 = tensor(y2, shape), o2 = tensor(h2, shape);
  CU_ASSERT_EQUAL(m->run(ctx, (const DLTensor *[]){&in}, 1, (DLTensor *[]){&o1, &o2}, 2), DLC_OK);
  CU_ASSERT(!memcmp(y, y2, sizeof y) && !memcmp(h, h2, sizeof h));
  m->ctx_free(ctx);
  dlclose(library);
}

/* Conversions that this CPU may have no instruction for: every half value, and roundings halfway between two of them.
 */
static void test_half(void) {
  void *library = dlopen(in_folder("a.so"), RTLD_NOW);
  CU_ASSERT_PTR_NOT_NULL_FATAL(library);
  int (*run)(const float *, float *, float *, int64_t, void *) = dlsym(library, "affine_run");
  _Alignas(64) char workspace[512];
  static float x[256], y[256], h[256];
  int wrong = 0;
  for (uint32_t i = 0; i < 1 << 18; i += 256) { /* the upper 18 bits of a float: 8 between neighbouring halves */
    for (uint32_t j = 0; j < 256; j++) memcpy(&x[j], &(uint32_t){(i + j) << 14 | (j & 1)}, 4);
    run(x, y, h, 64, workspace);
    for (int j = 0; j < 256; j++) {
      float want = (float)(_Float16)x[j];
      wrong += isnan(want) ? !isnan(h[j]) : memcmp(&want, &h[j], 4) != 0;
    }
  }
  CU_ASSERT_EQUAL(wrong, 0);
  dlclose(library);
}

static void test_symbols(void) {
  const char *so = in_folder("a.so"), *list = in_folder("nm");
  size_t n;
  CU_ASSERT_EQUAL(shell("nm -D --defined-only %s | cut -d' ' -f3 > %s", so, list), 0);
  char *text = slurp(list, &n);
  text[n] = 0;
  CU_ASSERT_STRING_EQUAL(text, "affine_model@@DLC_1\naffine_run@@DLC_1\n");
  free(text);
  CU_ASSERT_EQUAL(shell("nm -Du %s | sed 's/@.*//; s/.* //' | tr '\\n' ' ' > %s", so, list), 0);
  text = slurp(list, &n);
  text[n] = 0;
  CU_ASSERT_STRING_EQUAL(text,
                         "clock_gettime madvise memcmp memcpy memset mmap munmap pthread_create pthread_join syscall ");
  free(text);
  CU_ASSERT_EQUAL(
      shell("readelf -d %s | grep -q 'NEEDED.*libc.so.6' && ! readelf -d %s | grep -qE 'PATH|TEXTREL|SONAME|INIT'", so,
            so),
      0);
  CU_ASSERT_EQUAL(shell("readelf -lW %s | grep -q 'GNU_STACK.*RW ' && readelf -lW %s | grep -q GNU_RELRO", so, so), 0);
}

static void test_same_bytes(void) {
  Ctx *c = ctx_new();
  link_model(c, "model.o", in_folder("b.so"), NULL);
  link_model(c, "model.o", in_folder("named.so"), "libaffine.so.1");
  link_weights(c, "model.o", in_folder("other.so"), NULL, (float[]){3, 1});
  ctx_free(c);
  CU_ASSERT_EQUAL(shell("cmp -s %s %s", in_folder("a.so"), in_folder("b.so")), 0);
  CU_ASSERT_EQUAL(shell("readelf -d %s | grep -q 'SONAME.*libaffine.so.1'%s", in_folder("named.so"), ""), 0);
}

/* The constants: a section and a segment of their own, in the build id too; other tools keep them. */
static void test_data(void) {
  const char *so = in_folder("a.so");
  CU_ASSERT_EQUAL(shell("readelf -SW %s | grep -qE 'lrodata +PROGBITS .* 011173 '%s", so, ""), 0);
  CU_ASSERT_EQUAL(shell("readelf -lW %s | grep -qE 'LOAD .* 0x011173 0x011173 R '%s", so, ""), 0);
  CU_ASSERT_EQUAL(shell("test $(readelf -n %s %s | grep 'Build ID' | sort -u | wc -l) = 2", so, in_folder("other.so")), 0);
  CU_ASSERT_EQUAL(shell("strip -o %s %s", in_folder("stripped.so"), so), 0);
  void *library = dlopen(in_folder("stripped.so"), RTLD_NOW);
  CU_ASSERT_PTR_NOT_NULL_FATAL(library);
  int (*run)(const float *, float *, float *, int64_t, void *) = dlsym(library, "affine_run");
  float x[4] = {1, 2, 3, 4}, y[4], h[4];
  _Alignas(64) char workspace[512];
  CU_ASSERT_EQUAL(run(x, y, h, 1, workspace), DLC_OK);
  CU_ASSERT_EQUAL(y[3], 9);
  dlclose(library);
}

/* What a failing link says, and its exit status. */
static int status_of(void (*f)(Ctx *), char *said, size_t n) {
  Ctx *c = ctx_new();
  Diags *d = ctx_diags(c);
  d->armed = true;
  if (!setjmp(d->unwind)) f(c);
  FILE *to = fmemopen(said, n, "w");
  diag_print(c, to);
  fclose(to);
  int status = diag_exit_status(c);
  ctx_free(c);
  return status;
}

static void no_folder(Ctx *c) { link_model(c, "model.o", "/nowhere/at/all.so", NULL); }
static void no_target(Ctx *c) { link_begin(c, "vax-dec-ultrix", in_folder("v.so")); }

static void undefined(Ctx *c) {
  size_t n;
  char *bytes = slurp(in_folder("undefined.o"), &n);
  Link *l = link_begin(c, "x86_64-linux-gnu", in_folder("u.so"));
  link_object(l, "kernels.o", bytes, n);
  free(bytes);
  link_shared(l, (const char *[]){"f"}, 1, NULL);
}

static void test_failures(void) {
  char said[4096];
  CU_ASSERT_EQUAL(status_of(no_folder, said, sizeof said), 5);
  CU_ASSERT_PTR_NOT_NULL(strstr(said, "error[E0502]: cannot write '/nowhere/at/all.so': No such file or directory"));
  CU_ASSERT_EQUAL(status_of(no_target, said, sizeof said), 7);
  CU_ASSERT_PTR_NOT_NULL(strstr(said, "E0701"));
  CU_ASSERT_EQUAL(status_of(undefined, said, sizeof said), 8);
  CU_ASSERT_PTR_NOT_NULL(strstr(said, "undefined symbol: nobody_has_it"));
  CU_ASSERT_PTR_NOT_NULL(strstr(said, "kernels.o"));
  CU_ASSERT_PTR_NULL(strstr(said, "/proc/"));
  CU_ASSERT_EQUAL(shell("test $(ls -A %s | grep -c -e u.so -e tmp) = 0%s", folder, ""), 0);
}

static void test_note(void) {
  Ctx *c = ctx_new();
  const char *note = note_read(c, in_folder("a.so"));
  CU_ASSERT_PTR_NOT_NULL_FATAL(note);
  CU_ASSERT_STRING_EQUAL(note, "{\"model\":\"affine\"}");
  CU_ASSERT_PTR_NULL(note_read(c, in_folder("model.o")));
  CU_ASSERT_PTR_NULL(note_read(c, in_folder("nm")));
  CU_ASSERT_PTR_NULL(note_read(c, in_folder("absent")));
  size_t n;
  char *bytes = slurp(in_folder("a.so"), &n);
  for (size_t cut = 0; cut < n; cut += cut < 1024 ? 1 : 997) { /* truncated and bent files: any answer, no fault */
    FILE *f = fopen(in_folder("cut"), "wb");
    char old = bytes[cut];
    bytes[cut] = (char)0xff;
    fwrite(bytes, 1, cut % 2 ? cut : n, f);
    fclose(f);
    bytes[cut] = old;
    note_read(c, in_folder("cut"));
  }
  free(bytes);
  ctx_free(c);
}

static void test_header(void) {
  Ctx *c = ctx_new();
  int64_t fixed[] = {2, 3}, open[] = {-1, -1, 4};
  const char *names[] = {"N", NULL, NULL};
  HeaderIo in[] = {
      {"x.1", DT_F32, 2, fixed, NULL}, {"x/1", DT_I64, 3, open, names}, {"workspace", DT_BOOL, 0, NULL, NULL}};
  HeaderIo out[] = {{"a \"quoted\" */ name\n", DT_F16, 2, fixed, NULL}};
  const char *syms[] = {"N"};
  HeaderInfo info = {"net", "00ff", "x86_64-linux-gnu", "x86-64-v3", in, out, 3, 1, syms, 1, 25690112, 5000000000};
  const char *text = header_text(c, &info);
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "int net_run(const float *x_1, const int64_t *x_1_2, const uint8_t *workspace_2, "
                                      "uint16_t *a__quoted_____name_, int64_t N, void *workspace);"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "#define NET_IN0_BYTES 24u\n"));
  CU_ASSERT_PTR_NULL(strstr(text, "NET_IN1_BYTES"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "#define NET_WEIGHTS_BYTES 5000000000ull\n"));
  CU_ASSERT_STRING_EQUAL(header_identifier(c, "3-class"), "_3_class");
  CU_ASSERT_STRING_EQUAL(header_identifier(c, "class"), "class_");
  FILE *f = fopen(in_folder("net.h"), "w");
  fputs(text, f);
  fclose(f);
  info.prefix = "other"; /* two models in one program */
  f = fopen(in_folder("other.h"), "w");
  fputs(header_text(c, &info), f);
  fclose(f);
  ctx_free(c);
  f = fopen(in_folder("use.c"), "w");
  fputs("#include \"net.h\"\n#include \"other.h\"\nconst char *name = NET_OUT0_NAME; const dlc_model *m = &net_model, "
        "*o = &other_model;\n",
        f);
  fclose(f);
  CU_ASSERT_EQUAL(shell("cd %s && cc -std=c99 -Wall -Wextra -pedantic -Werror -c use.c -o use.o%s", folder, ""), 0);
  CU_ASSERT_EQUAL(
      shell("cd %s && c++ -std=c++11 -Wall -Wextra -pedantic -Werror -x c++ -c use.c -o use.o%s", folder, ""), 0);
}

static int setup(void) {
  if (!mkdtemp(folder)) return -1;
  FILE *f = fopen(in_folder("undefined.c"), "w");
  if (!f) return -1;
  fputs("int nobody_has_it(void); int f(void) { return nobody_has_it(); }\n", f);
  fclose(f);
  return shell("clang-19 -std=gnu11 -O2 -fPIC -fvisibility=hidden -c %s/link_model.c -o %s/model.o", FIXTURES,
               folder) ||
         shell("clang-19 -fPIC -c %s/undefined.c -o %s/undefined.o", folder, folder);
}

static int teardown(void) { return shell("rm -r %s%s", folder, ""); }

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("link", setup, teardown);
  CU_add_test(s, "run", test_run);
  CU_add_test(s, "half", test_half);
  CU_add_test(s, "symbols", test_symbols);
  CU_add_test(s, "same bytes", test_same_bytes);
  CU_add_test(s, "data", test_data);
  CU_add_test(s, "failures", test_failures);
  CU_add_test(s, "note", test_note);
  CU_add_test(s, "header", test_header);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0 || CU_get_error() != CUE_SUCCESS;
}
