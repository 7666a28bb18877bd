#include "array.h"
#include "../../ir/diag.h"

int64_t array_count(const Array *a) {
  int64_t n = 1;
  for (int i = 0; i < a->rank; i++) n *= a->dims[i];
  return n;
}

size_t array_bytes(const Array *a) { return (size_t)array_count(a) * (size_t)dtype_bytes(a->dtype); }

void array_allocate(Ctx *c, Array *a) {
  int64_t bytes = dtype_bytes(a->dtype);
  for (int i = 0; i < a->rank; i++)
    if (!mul_ok(bytes, MAX(a->dims[i], 1), &bytes))
      diag_fail(c, E0308, NULL, NULL, "an array of %s is too large", array_type_text(c, a));
  a->data = ctx_alloc(c, (size_t)bytes + 64);
  a->data = (void *)(((uintptr_t)a->data + 63) & ~(uintptr_t)63); /* as a model wants it */
}

double array_element(const Array *a, int64_t i) {
  return dtype_load_f(a->dtype, (const char *)a->data + i * dtype_bytes(a->dtype));
}

const char *array_type_text(Ctx *c, const Array *a) {
  Str s = str_new(c);
  str_add(&s, "%s[", dtype_info[a->dtype].name);
  for (int i = 0; i < a->rank; i++) str_add(&s, "%s%lld", i ? "," : "", (long long)a->dims[i]);
  str_add(&s, "]");
  return s.s;
}
