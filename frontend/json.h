/* json.h - JSON written as it goes, commas and escapes being its business, and read back. */
#ifndef DLC_JSON_H
#define DLC_JSON_H

#include "../ir/base.h"

typedef struct { FILE *to; int depth; bool some[16]; } Json;

/* Keys are NULL inside arrays. */
Json json_begin(FILE *to, const char *verb);                 /* {"schema":"dlc.VERB/1","dlc":"VERSION" */
void json_end(Json *j);                                      /* closes the outermost object, with a newline */
void json_object(Json *j, const char *key);
void json_array(Json *j, const char *key);
void json_close(Json *j, char bracket);                      /* '}' or ']' */
void json_text(Json *j, const char *key, const char *value); /* NULL: null; bytes that are not UTF-8 become U+FFFD */
void json_int(Json *j, const char *key, int64_t value);
void json_number(Json *j, const char *key, double value);    /* NaN and infinities: null */
void json_bool(Json *j, const char *key, bool value);

/* ---- reading (json_read.c) ---- */
typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } JsonKind;
typedef struct JsonValue {
  JsonKind kind;
  const char *key;                 /* in an object */
  const char *text;                /* TEXT */
  double number;                   /* NUMBER; BOOL: 1 or 0 */
  struct JsonValue *items;         /* ARRAY, OBJECT: n of them */
  int n;
} JsonValue;

const JsonValue *json_read(Ctx *c, const char *text);        /* NULL: not JSON, or nested deeper than 32 */
const JsonValue *json_get(const JsonValue *object, const char *key);         /* a JSON_NULL where there is none; object may be NULL */

#endif
