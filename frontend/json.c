#include "json.h"
#include "../ir/diag.h"
#include <math.h>

static void put_string(FILE *to, const char *text) {
  fputc('"', to);
  for (const unsigned char *s = (const unsigned char *)text; *s;) {
    int n = utf8_length(s);
    if (n == 0) {
      fputs("\\ufffd", to);
      s++;
      continue;
    }
    if (n == 1 && (*s < 0x20 || *s == 0x7f)) fprintf(to, "\\u%04x", *s);
    else if (*s == '"' || *s == '\\') fprintf(to, "\\%c", *s);
    else fwrite(s, 1, (size_t)n, to);
    s += n;
  }
  fputc('"', to);
}

static void lead(Json *j, const char *key) {
  if (j->some[j->depth]) fputc(',', j->to);
  j->some[j->depth] = true;
  if (key) {
    put_string(j->to, key);
    fputc(':', j->to);
  }
}

static void open_bracket(Json *j, const char *key, char bracket) {
  lead(j, key);
  fputc(bracket, j->to);
  j->some[++j->depth] = false;
}

Json json_begin(FILE *to, const char *verb) {
  Json j = {.to = to};
  open_bracket(&j, NULL, '{');
  lead(&j, "schema");
  fprintf(to, "\"dlc.%s/1\"", verb);
  json_text(&j, "dlc", DLC_VERSION);
  return j;
}

void json_end(Json *j) {
  json_close(j, '}');
  fputc('\n', j->to);
}
void json_object(Json *j, const char *key) { open_bracket(j, key, '{'); }
void json_array(Json *j, const char *key) { open_bracket(j, key, '['); }
void json_close(Json *j, char bracket) {
  fputc(bracket, j->to);
  j->depth--;
}

void json_text(Json *j, const char *key, const char *value) {
  lead(j, key);
  if (value) put_string(j->to, value);
  else fputs("null", j->to);
}

void json_int(Json *j, const char *key, int64_t value) {
  lead(j, key);
  fprintf(j->to, "%lld", (long long)value);
}

void json_number(Json *j, const char *key, double value) {
  lead(j, key);
  if (isfinite(value)) fprintf(j->to, "%.9g", value);
  else fputs("null", j->to);
}

void json_bool(Json *j, const char *key, bool value) {
  lead(j, key);
  fputs(value ? "true" : "false", j->to);
}
