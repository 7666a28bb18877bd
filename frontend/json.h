/* json.h - writes JSON as it goes: commas and escapes are its business. Keys are NULL inside arrays. */
#ifndef DLC_JSON_H
#define DLC_JSON_H

#include "../ir/base.h"

typedef struct { FILE *to; int depth; bool some[16]; } Json;

Json json_begin(FILE *to, const char *verb);                 /* {"schema":"dlc.VERB/1","dlc":"VERSION" */
void json_end(Json *j);                                      /* closes the outermost object, with a newline */
void json_object(Json *j, const char *key);
void json_array(Json *j, const char *key);
void json_close(Json *j, char bracket);                      /* '}' or ']' */
void json_text(Json *j, const char *key, const char *value); /* NULL: null; bytes that are not UTF-8 become U+FFFD */
void json_int(Json *j, const char *key, int64_t value);
void json_number(Json *j, const char *key, double value);    /* NaN and infinities: null */
void json_bool(Json *j, const char *key, bool value);

#endif
