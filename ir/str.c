/* str.c - growing text in the arena. */
#include "base.h"

Str str_new(Ctx *c) {
  Str s = {.ctx = c, .cap = 64};
  s.s = ctx_alloc(c, s.cap);
  return s;
}

void str_add(Str *s, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int n = vsnprintf(s->s + s->n, s->cap - s->n, fmt, args);
  va_end(args);
  if (n > 0 && s->n + (size_t)n >= s->cap) {
    while (s->n + (size_t)n >= s->cap) s->cap *= 2;
    char *bigger = ctx_alloc(s->ctx, s->cap);
    memcpy(bigger, s->s, s->n);
    s->s = bigger;
    vsnprintf(s->s + s->n, s->cap - s->n, fmt, again);
  }
  va_end(again);
  if (n > 0) s->n += (size_t)n;
}
