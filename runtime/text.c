/* text.c - messages without stdio. */
#include "rt.h"

Text text_new(char *buffer, size_t n) {
  if (n) *buffer = 0;
  return (Text){buffer, n ? buffer + n - 1 : buffer};
}

void text_add(Text *t, const char *s) {
  if (t->at == t->end) return;
  while (*s && t->at < t->end) *t->at++ = *s++;
  *t->at = 0;
}

void text_int(Text *t, int64_t v) {
  char digits[24], *p = digits + sizeof digits - 1;
  uint64_t rest = v < 0 ? -(uint64_t)v : (uint64_t)v;
  *p = 0;
  do *--p = (char)('0' + rest % 10);
  while (rest /= 10);
  if (v < 0) *--p = '-';
  text_add(t, p);
}

void text_dims(Text *t, const int64_t *dims, const char *const *names, int32_t rank) {
  text_add(t, "[");
  for (int32_t i = 0; i < rank; i++) {
    if (i) text_add(t, ",");
    if (!names || dims[i] >= 0) text_int(t, dims[i]);
    else text_add(t, names[i] ? names[i] : "?");
  }
  text_add(t, "]");
}

void text_dtype(Text *t, DLDataType d) {
  static const char *const kind[] = {"i", "u", "f", "code 3, ", "bf", "c", "bool"};
  if (d.code < sizeof kind / sizeof kind[0]) text_add(t, kind[d.code]);
  else text_add(t, "code "), text_int(t, d.code), text_add(t, ", ");
  if (d.code != 6 || d.bits != 8) text_int(t, d.bits);
  if (d.lanes != 1) text_add(t, "x"), text_int(t, d.lanes);
}
