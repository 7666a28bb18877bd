/* t_npy.c - .npy files: what is written is read back, what others write is understood, what is malformed is refused. */
#include "../frontend/cli/array.h"
#include "../frontend/compile.h"
#include <CUnit/Basic.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/t_npy.XXXXXX";

static void put(const char *header, const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  unsigned char length[2] = {(unsigned char)strlen(header), (unsigned char)(strlen(header) >> 8)};
  fwrite("\x93NUMPY\x01\x00", 1, 8, f);
  fwrite(length, 1, 2, f);
  fputs(header, f);
  fwrite(data, 1, n, f);
  fclose(f);
}

static int every_type(Ctx *c, void *user) {
  for (int t = 0; t < DT_COUNT; t++)
    for (int rank = 0; rank < 4; rank++) {
      Array a = {.dtype = (DType)t, .rank = rank, .dims = {3, 1, 2}};
      array_allocate(c, &a);
      for (int64_t i = 0; i < array_count(&a); i++) dtype_store_i(a.dtype, (char *)a.data + i * dtype_bytes(a.dtype), i % 2);
      npy_write(c, path, &a);
      Array b = npy_read(c, path);
      CU_ASSERT(a.dtype == b.dtype && a.rank == b.rank && !memcmp(a.dims, b.dims, (size_t)rank * sizeof *a.dims));
      CU_ASSERT(!memcmp(a.data, b.data, array_bytes(&a)));
    }
  return 0;
}

static void test_round_trip(void) { CU_ASSERT_EQUAL(dlc_guard(every_type, NULL, NULL), 0); }

static int read_one(Ctx *c, void *user) {
  *(Array *)user = npy_read(c, path);
  return 0;
}

static int status_of(const char *header, size_t bytes) {
  static const char data[64];
  static Array ignored;
  put(header, data, bytes);
  fclose(stderr);                  /* the messages are not the point */
  stderr = fopen("/dev/null", "w");
  return dlc_guard(read_one, NULL, &ignored);
}

static int foreign(Ctx *c, void *user) {
  const float v[] = {1, 2, 3, 4, 5, 6};
  put("{'shape': (2L, 3L), \"x\": 1, 'fortran_order':False,'descr':'<f4'}\n", v, sizeof v);
  Array a = npy_read(c, path);
  CU_ASSERT(a.dtype == DT_F32 && a.rank == 2 && a.dims[0] == 2 && a.dims[1] == 3 && array_element(&a, 5) == 6);
  put("{'descr': '|b1', 'fortran_order': True, 'shape': (0,), }\n", v, 0);
  a = npy_read(c, path);
  CU_ASSERT(a.dtype == DT_BOOL && a.rank == 1 && a.dims[0] == 0);
  return 0;
}

static void test_foreign(void) { CU_ASSERT_EQUAL(dlc_guard(foreign, NULL, NULL), 0); }

static void test_malformed(void) {
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n", 16), 0);
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n", 15), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '>f4', 'fortran_order': False, 'shape': (4,), }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': True, 'shape': (2,2), }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905,4), }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("{'descr': '<f4', 'fortran_order': False, }\n", 16), 5);
  CU_ASSERT_EQUAL(status_of("", 0), 5);
}

int main(void) {
  int fd = mkstemp(path);
  if (fd < 0) return 1;
  close(fd);
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("npy", NULL, NULL);
  CU_ADD_TEST(s, test_round_trip);
  CU_ADD_TEST(s, test_foreign);
  CU_ADD_TEST(s, test_malformed);
  CU_basic_run_tests();
  int failures = (int)CU_get_number_of_failures();
  unlink(path);
  return failures != 0;
}
