/* str.c - growing text in the arena. */
#include "base.h"

Str str_new(Ctx *c) {
  Str s = {.ctx = c, .cap = 64};
  s.s = ctx_alloc(c, s.cap);
  return s;
}

static void make_room(Str *s, size_t n) {
  size_t old = s->cap;
  while (s->n + n >= s->cap) s->cap *= 2;
  if (s->cap == old) return;
  char *bigger = ctx_alloc(s->ctx, s->cap);
  memcpy(bigger, s->s, s->n);
  s->s = bigger;
}

static void add_text(Str *s, const char *text) {   /* printf takes its time */
  size_t n = strlen(text);
  make_room(s, n);
  memcpy(s->s + s->n, text, n + 1);
  s->n += n;
}

void str_add(Str *s, const char *fmt, ...) {
  va_list args, again;
  if (!strchr(fmt, '%')) { add_text(s, fmt); return; }
  va_start(args, fmt);
  if (!strcmp(fmt, "%s")) {
    add_text(s, va_arg(args, const char *));
    va_end(args);
    return;
  }
  va_copy(again, args);
  int n = vsnprintf(s->s + s->n, s->cap - s->n, fmt, args);
  va_end(args);
  if (n > 0 && s->n + (size_t)n >= s->cap) {
    make_room(s, (size_t)n);
    vsnprintf(s->s + s->n, s->cap - s->n, fmt, again);
  }
  va_end(again);
  if (n > 0) s->n += (size_t)n;
}
