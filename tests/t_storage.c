/* t_storage.c - constants in random layouts, stored in random runs of rows, against the layout's own offset of every element. */
#include <CUnit/Basic.h>
#include <stdlib.h>

#include "library.h"
#include "../passes/storage.h"

static uint32_t seed;
static int64_t below(int64_t n) { return (int64_t)((seed = seed * 1664525 + 1013904223) >> 8) % n; }

/* Every dimension whole, or split into one or two inner pieces; the pieces in any order. */
static Layout *random_layout(Ctx *c, int rank) {
  Layout *l = NEW(c, Layout);
  for (int d = 0; d < rank; d++) {
    int32_t inner = below(2) ? (int32_t)(1 + below(20)) : 0, middle = inner && !below(3) ? (int32_t)(1 + below(3)) : 0;
    if (inner) l->part[l->n++] = (LayoutPart){(int8_t)d, 1, inner, 0};
    if (middle) l->part[l->n++] = (LayoutPart){(int8_t)d, inner, middle, 0};
    l->part[l->n++] = (LayoutPart){(int8_t)d, MAX(inner, 1) * MAX(middle, 1), 0, 0};
    if (!below(6)) l->ring_lo[d] = (int32_t)below(3), l->ring_hi[d] = (int32_t)below(3);
  }
  for (int i = l->n - 1; i > 0; i--) {
    int k = (int)below(i + 1);
    LayoutPart p = l->part[i];
    l->part[i] = l->part[k];
    l->part[k] = p;
  }
  return l;
}

/* Some rows at a time where they can be made apart. */
static void fill(Module *m, const Storage *s, char *to) {
  if (s->value) memcpy(to, s->value, (size_t)s->bytes);
  else if (!s->by_rows) storage_make(m, s, to);
  for (int64_t row = 0, n; !s->value && s->by_rows && row < s->rows; row += n) {
    n = 1 + below(s->rows - row);
    CU_ASSERT(storage_fill(m, s, row, n, to + row * s->row_bytes));
  }
}

static void check(Module *m, const Tensor *t, Ctx *c, const int64_t *dims, const char *data, int64_t elements) {
  Storage s = storage_of(m, t);
  int64_t size = dtype_bytes(t->dtype), total, at[MAX_RANK] = {0};
  CU_ASSERT_FATAL(ex_is_int(layout_elements(c, t), &total) && s.bytes == total * size && s.rows * s.row_bytes == s.bytes);
  char *want = calloc(1, (size_t)s.bytes + 1), *got = malloc((size_t)s.bytes + 1);
  memset(got, 0x55, (size_t)s.bytes + 1);
  for (int64_t e = 0; e < elements; e++) {
    Expr *index[MAX_RANK];
    int64_t offset;
    for (int i = 0; i < t->rank; i++) index[i] = ex_int(c, at[i]);
    CU_ASSERT_FATAL(ex_is_int(layout_offset(c, t, index), &offset));
    memcpy(want + offset * size, data + (t->data->splat ? 0 : e * size), (size_t)size);
    for (int i = t->rank - 1; i >= 0 && ++at[i] == dims[i]; i--) at[i] = 0;
  }
  fill(m, &s, got);
  if (memcmp(want, got, (size_t)s.bytes)) printf("  %s %s\n", tensor_type_text(c, t), layout_text(c, t->layout));
  CU_ASSERT(!memcmp(want, got, (size_t)s.bytes));
  CU_ASSERT(got[s.bytes] == 0x55);
  free(want);
  free(got);
}

static void test_layouts(void) {
  static const int64_t most[] = {1, 12000, 150, 30, 12};      /* some small enough for the interpreter */
  static const DType types[] = {DT_U8, DT_F16, DT_F32, DT_I64};
  for (int i = 0; i < 160; i++) {
    Ctx *c = ctx_new();
    seed = (uint32_t)i;
    int rank = (int)below(5);
    int64_t dims[MAX_RANK], n = 1;
    Expr *shape[MAX_RANK];
    for (int d = 0; d < rank; d++) shape[d] = ex_int(c, dims[d] = 1 + below(most[rank])), n *= dims[d];
    Tensor *t = tensor_new(c, "w", types[below(4)], rank, shape);
    t->layout = rank && below(8) ? random_layout(c, rank) : NULL;
    t->data = NEW(c, ConstData);
    t->data->splat = !below(6);
    char *data = malloc((size_t)(n * 8 + 1)), *from = data + below(2);     /* wherever a file may have it */
    for (int64_t k = 0; k < n * dtype_bytes(t->dtype); k++) from[k] = (char)(1 + below(250));
    t->data->bytes = from;
    Module *m = test_module(c, NULL, "host", NULL);
    if (i % 2) m->host = NULL;
    check(m, t, c, dims, from, n);
    free(data);
    ctx_free(c);
  }
}

/* One form's code, made for a constant that is large, and the interpreter for a small one: the rules that made the code may change what they
 * are given. */
static void test_one_form(void) {
  static const int64_t extents[][2] = {{120, 40}, {21, 40}};
  Ctx *c = ctx_new();
  Module *m = test_module(c, NULL, "host", NULL);
  char *data = ctx_alloc(c, 120 * 40 * 4);
  for (int i = 0; i < 120 * 40 * 4; i++) data[i] = (char)(1 + below(250));
  for (int i = 0; i < COUNT(extents); i++) {
    const int64_t *dims = extents[i];
    Tensor *t = tensor_new(c, "w", DT_F32, 2, (Expr *[]){ex_int(c, dims[0]), ex_int(c, dims[1])});
    t->data = NEW(c, ConstData);
    t->data->bytes = data;
    t->layout = layout_parse(c, "d0/32,d1/16,d1%16,d0%32");
    check(m, t, c, dims, data, dims[0] * dims[1]);
  }
  ctx_free(c);
}

/* What a row alone reads of the data, which may go once the row is made. */
static void test_rows(void) {
  Ctx *c = ctx_new();
  Module *m = test_module(c, NULL, "host", NULL);
  Expr *shape[] = {ex_int(c, 128), ex_int(c, 5000)};
  Tensor *t = tensor_new(c, "w", DT_F32, 2, shape);
  t->data = NEW(c, ConstData);
  t->data->bytes = ctx_alloc(c, 128 * 5000 * 4);
  t->layout = layout_parse(c, "d0/64,d1,d0%64");
  Storage s = storage_of(m, t);
  CU_ASSERT(s.by_rows && s.rows == 2 && s.from_row == 64 * 5000 * 4 && s.from_bytes == 128 * 5000 * 4);
  t->layout = layout_parse(c, "d1/8,d0,d1%8");
  s = storage_of(m, t);
  CU_ASSERT(s.by_rows && s.rows == 625 && s.from_row == 0);
  ctx_free(c);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("storage", NULL, NULL);
  CU_add_test(s, "layouts", test_layouts);
  CU_add_test(s, "one form", test_one_form);
  CU_add_test(s, "rows", test_rows);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0 || CU_get_error() != CUE_SUCCESS;
}
