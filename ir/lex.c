/* lex.c - tokens of dlc's texts. */
#include "lex.h"
#include "ctx.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

static bool starts_name(char ch) { return isalpha((unsigned char)ch) || ch == '_'; }
static bool in_name(char ch) { return isalnum((unsigned char)ch) || ch == '_' || ch == '.'; }

void lex_fail(const Lexer *lx, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  const char *text = ctx_vprintf(lx->ctx, fmt, args);
  va_end(args);
  diag_fail(lx->ctx, E0309, NULL, NULL, "%d:%d: %s", lx->line, lx->column, text);
}

static void skip_blank(Lexer *lx) {
  const char *p = lx->next;
  for (;;) {
    while (*p && isspace((unsigned char)*p)) p++;
    if (p[0] != '/' || p[1] != '/') break;
    while (*p && *p != '\n') p++;
  }
  lx->next = p;
}

static int hex_digit(char ch) {
  if (ch >= '0' && ch <= '9') return ch - '0';
  if (ch >= 'a' && ch <= 'f') return ch - 'a' + 10;
  return ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;
}

static void lex_string(Lexer *lx) {
  Str s = str_new(lx->ctx);
  const char *p = lx->start + 1;
  for (; *p != '"'; p++) {
    char ch = *p;
    if (!ch || ch == '\n') lex_fail(lx, "the string does not end");
    if (ch == '\\') {
      ch = *++p;
      if (ch == 'n') ch = '\n';
      else if (ch == 't') ch = '\t';
      else if (ch == 'x' && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0) {
        ch = (char)(hex_digit(p[1]) * 16 + hex_digit(p[2]));
        p += 2;
        if (!ch) lex_fail(lx, "a zero byte in a string");
      } else if (ch != '"' && ch != '\\') lex_fail(lx, "an unknown escape in a string");
    }
    str_add(&s, "%c", ch);
  }
  lx->kind = TOK_STRING;
  lx->name = ctx_intern_n(lx->ctx, s.s, s.n);
  lx->next = p + 1;
}

static void lex_number(Lexer *lx) {
  const char *p = lx->start;
  while (isdigit((unsigned char)*p)) p++;
  bool is_float = false;
  if (*p == '.' && p[1] != '.') {
    is_float = true;
    for (p++; isdigit((unsigned char)*p);) p++;
  }
  bool sign = (*p == 'e' || *p == 'E') && (p[1] == '+' || p[1] == '-');
  if ((*p == 'e' || *p == 'E') && isdigit((unsigned char)p[sign ? 2 : 1])) {
    is_float = true;
    for (p += sign ? 3 : 2; isdigit((unsigned char)*p);) p++;
  }
  lx->kind = is_float ? TOK_FLOAT : TOK_INT;
  lx->f = strtod(lx->start, NULL);
  lx->single = *p == 'f';
  if (lx->single) {
    p++;
    lx->kind = TOK_FLOAT;
  }
  if (lx->kind == TOK_INT) {       /* up to 2^64-1, so that -2^63 and u64 constants can be written */
    errno = 0;
    lx->i = (int64_t)strtoull(lx->start, NULL, 10);
    if (errno) lex_fail(lx, "the number is too large");
  }
  if (in_name(*p) && *p != '.') lex_fail(lx, "a number runs into a name");
  lx->next = p;
}

void lex_next(Lexer *lx) {
  static const char *const pairs[] = {"<<", ">>", "<=", ">=", "==", "!=", "->", "..", "+=", "*="};
  skip_blank(lx);
  for (const char *q = lx->start; q < lx->next; q++)
    if (*q == '\n') lx->line++, lx->line_start = q + 1;
  const char *p = lx->start = lx->next;
  lx->column = (int)(p - lx->line_start) + 1;
  lx->single = false;
  if (!*p) {
    lx->kind = TOK_END;
  } else if (starts_name(*p)) {
    while (in_name(*p)) p++;
    while (p[-1] == '.') p--;
    lx->kind = TOK_NAME;
    lx->name = ctx_intern_n(lx->ctx, lx->start, (size_t)(p - lx->start));
    lx->next = p;
  } else if (isdigit((unsigned char)*p)) {
    lex_number(lx);
  } else if (*p == '"') {
    lex_string(lx);
  } else {
    lx->kind = TOK_PUNCT;
    lx->next = p + 1;
    for (int i = 0; i < COUNT(pairs); i++)
      if (!strncmp(p, pairs[i], 2)) lx->next = p + 2;
  }
  lx->length = (int)(lx->next - lx->start);
}

Lexer lex_new(Ctx *c, const char *text) {
  Lexer lx = {.ctx = c, .text = text, .next = text, .start = text, .line_start = text, .line = 1};
  lex_next(&lx);
  return lx;
}

bool lex_is(const Lexer *lx, const char *token) {
  if (lx->kind != TOK_PUNCT && lx->kind != TOK_NAME) return false;
  return (size_t)lx->length == strlen(token) && !memcmp(lx->start, token, (size_t)lx->length);
}

bool lex_accept(Lexer *lx, const char *token) {
  if (!lex_is(lx, token)) return false;
  lex_next(lx);
  return true;
}

static const char *token_text(const Lexer *lx) {
  if (lx->kind == TOK_END) return "the end";
  const char *text = ctx_intern_n(lx->ctx, lx->start, (size_t)MIN(lx->length, 40));
  return ctx_printf(lx->ctx, "'%s'", diag_quote(lx->ctx, text));
}

void lex_expect(Lexer *lx, const char *token) {
  if (!lex_accept(lx, token)) lex_fail(lx, "expected '%s', not %s", token, token_text(lx));
}

const char *lex_name(Lexer *lx) {
  if (lx->kind != TOK_NAME && lx->kind != TOK_STRING) lex_fail(lx, "expected a name, not %s", token_text(lx));
  const char *name = lx->name;
  lex_next(lx);
  return name;
}

int64_t lex_int(Lexer *lx) {
  bool minus = lex_accept(lx, "-");
  if (lx->kind != TOK_INT) lex_fail(lx, "expected an integer, not %s", token_text(lx));
  if (lx->i < 0 && !(minus && lx->i == INT64_MIN)) lex_fail(lx, "the number is too large");
  int64_t v = minus ? (int64_t)-(uint64_t)lx->i : lx->i;
  lex_next(lx);
  return v;
}

DType lex_dtype(Lexer *lx) {
  DType t = lx->kind == TOK_NAME ? dtype_from_name(lx->name) : DT_NONE;
  if (t == DT_NONE) lex_fail(lx, "expected an element type, not %s", token_text(lx));
  lex_next(lx);
  return t;
}

/* ---- printing names ---- */
void lex_add_string(Str *s, const char *text) {
  str_add(s, "\"");
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
    if (*p == '"' || *p == '\\') str_add(s, "\\%c", *p);
    else if (*p == '\n') str_add(s, "\\n");
    else if (*p == '\t') str_add(s, "\\t");
    else if (*p < 0x20 || *p == 0x7f) str_add(s, "\\x%02x", *p);
    else str_add(s, "%c", *p);
  }
  str_add(s, "\"");
}

void lex_add_name(Str *s, const char *name) {
  static const char *const words[] = {"let", "true", "false", "inf", "nan"};
  const char *p = name;
  bool plain = starts_name(*p);
  while (in_name(*p)) p++;
  plain = plain && !*p && p[-1] != '.';
  for (int i = 0; i < COUNT(words); i++) plain = plain && strcmp(name, words[i]);
  if (plain) str_add(s, "%s", name);
  else lex_add_string(s, name);
}
