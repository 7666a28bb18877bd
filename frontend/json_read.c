/* json_read.c - JSON into values in the arena. */
#include <stdlib.h>

#include "json.h"

enum { DEEPEST = 32 };
typedef struct { Ctx *c; const char *p; int depth; } Reader;

static bool read_value(Reader *r, JsonValue *v);

static void skip_blanks(Reader *r) { r->p += strspn(r->p, " \t\r\n"); }

static bool accept(Reader *r, const char *word) {
  size_t n = strlen(word);
  skip_blanks(r);
  if (strncmp(r->p, word, n) != 0) return false;
  r->p += n;
  return true;
}

static char *put_utf8(char *to, unsigned code) {
  if (code < 0x80) {
    *to++ = (char)code;
    return to;
  }
  if (code >= 0x800) *to++ = (char)(0xe0 | code >> 12);
  *to++ = (char)(code >= 0x800 ? 0x80 | (code >> 6 & 0x3f) : 0xc0 | code >> 6);
  *to++ = (char)(0x80 | (code & 0x3f));
  return to;
}

/* Behind a backslash. Halves of surrogate pairs, which nothing here writes, become U+FFFD; so does the character 0, which would end a text. */
static char *read_escape(Reader *r, char *to) {
  static const char from[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
  const char *at = *r->p ? strchr(from, *r->p) : NULL;
  unsigned code;
  int used = 0;
  if (at) {
    r->p++;
    *to++ = meaning[at - from];
    return to;
  }
  if (sscanf(r->p, "u%4x%n", &code, &used) != 1 || used != 5) return NULL;
  r->p += 5;
  return put_utf8(to, code == 0 || (code >= 0xd800 && code < 0xe000) ? 0xfffd : code);
}

static const char *read_text(Reader *r) {
  if (!accept(r, "\"")) return NULL;
  size_t most = 0;
  while (r->p[most] && r->p[most] != '"') most += r->p[most] == '\\' && r->p[most + 1] ? 2 : 1;
  char *text = ctx_alloc(r->c, most + 1), *to = text;
  while (*r->p && *r->p != '"') {
    if (*r->p != '\\') {
      *to++ = *r->p++;
      continue;
    }
    r->p++;
    to = read_escape(r, to);
    if (!to) return NULL;
  }
  return accept(r, "\"") ? text : NULL;
}

static bool read_items(Reader *r, JsonValue *v, const char *end) {
  VEC(JsonValue) items = {0};
  if (++r->depth > DEEPEST) return false;
  for (bool first = true; !accept(r, end); first = false) {
    JsonValue item = {JSON_NULL};
    if (!first && !accept(r, ",")) return false;
    const char *key = v->kind == JSON_OBJECT ? read_text(r) : NULL;
    if (v->kind == JSON_OBJECT && (!key || !accept(r, ":"))) return false;
    if (!read_value(r, &item)) return false;
    item.key = key;
    vec_push(r->c, &items, item);
  }
  r->depth--;
  v->items = items.v;
  v->n = items.n;
  return true;
}

static bool read_value(Reader *r, JsonValue *v) {
  if (accept(r, "{")) return v->kind = JSON_OBJECT, read_items(r, v, "}");
  if (accept(r, "[")) return v->kind = JSON_ARRAY, read_items(r, v, "]");
  if (accept(r, "null")) return v->kind = JSON_NULL, true;
  bool yes = accept(r, "true");
  if (yes || accept(r, "false")) return v->kind = JSON_BOOL, v->number = yes, true;
  if (*r->p == '"') return v->kind = JSON_TEXT, (v->text = read_text(r)) != NULL;
  char *end;
  if (!strchr("-0123456789", *r->p) || !*r->p) return false;
  v->kind = JSON_NUMBER;
  v->number = strtod(r->p, &end);
  bool some = end != r->p;
  r->p = end;
  return some;
}

const JsonValue *json_read(Ctx *c, const char *text) {
  Reader r = {c, text, 0};
  JsonValue *v = NEW(c, JsonValue);
  bool ok = read_value(&r, v);
  skip_blanks(&r);
  return ok && !*r.p ? v : NULL;
}

const JsonValue *json_get(const JsonValue *object, const char *key) {
  static const JsonValue nothing = {JSON_NULL};
  for (int i = 0; object && object->kind == JSON_OBJECT && i < object->n; i++)
    if (!strcmp(object->items[i].key, key)) return &object->items[i];
  return &nothing;
}
