/* diag.c - recording, unwinding and printing of errors. */
#include "ctx.h"
#include "op.h"
#include <stdlib.h>

static const struct { const char *name; int exit_status; const char *title; } diag_info[DIAG_COUNT] = {
#define DIAG(code, exit_status, title) {#code, exit_status, title},
#include "diag.def"
#undef DIAG
};

Diags *ctx_diags(Ctx *c) { return &c->diags; }
const char *diag_code_name(DiagCode code) { return diag_info[code].name; }
const char *diag_code_title(DiagCode code) { return diag_info[code].title; }
int diag_exit_status(const Ctx *c) { return c->diags.list.n ? diag_info[c->diags.list.v[0].code].exit_status : 0; }

int utf8_length(const unsigned char *s) {
  int n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xf0 && *s < 0xf5 ? 4 : 0;
  for (int i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0))) return 0;
  if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))) return 0;
  if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0) return 0;       /* C1 control characters */
  return n;
}

const char *diag_quote(Ctx *c, const char *name) {
  enum { LONGEST = 200 };
  Str s = str_new(c);
  for (const unsigned char *p = (const unsigned char *)name; *p;) {
    int n = *p < 0x20 || *p == 0x7f ? 0 : utf8_length(p);
    if (n) str_add(&s, "%.*s", n, (const char *)p);
    else str_add(&s, "\\x%02x", *p);
    p += MAX(n, 1);
    if (s.n >= LONGEST && *p) {
      str_add(&s, "...");
      break;
    }
  }
  return s.s;
}

static void add_node(Ctx *c, Str *s, const Node *n) {
  str_add(s, "node");
  if (n->index >= 0) str_add(s, " %d", n->index);
  if (n->name && n->name[0]) str_add(s, " '%s'", diag_quote(c, n->name));
  if (n->op) {
    bool standard = !n->op->domain || !n->op->domain[0];
    str_add(s, " (%s%s%s-%d)", standard ? "" : n->op->domain, standard ? "" : ".", n->op->name, n->op->opset);
  }
}

static void record(Ctx *c, DiagCode code, const Node *where, const char *hint, const char *fmt, va_list args) {
  Str s = str_new(c);
  if (where) {
    add_node(c, &s, where);
    str_add(&s, ": ");
  }
  str_add(&s, "%s", ctx_vprintf(c, fmt, args));
  vec_push(c, &c->diags.list, ((Diag){code, s.s, hint ? ctx_printf(c, "%s", hint) : NULL}));
}

static _Noreturn void unwind(Ctx *c) {
  if (c->diags.armed) longjmp(c->diags.unwind, 1);
  diag_print(c, stderr);
  exit(diag_exit_status(c));
}

void diag_error(Ctx *c, DiagCode code, const Node *where, const char *hint, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  record(c, code, where, hint, fmt, args);
  va_end(args);
}

void diag_fail(Ctx *c, DiagCode code, const Node *where, const char *hint, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  record(c, code, where, hint, fmt, args);
  va_end(args);
  unwind(c);
}

void diag_bug(Ctx *c, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  Str s = str_new(c);
  if (c->diags.pass) str_add(&s, " in pass %s", c->diags.pass);
  if (c->diags.node) {
    str_add(&s, " at ");
    add_node(c, &s, c->diags.node);
  }
  const char *text = ctx_vprintf(c, fmt, args);
  va_end(args);
  if (c->diags.reading) diag_fail(c, E0309, NULL, NULL, "no pass leaves such a text: %s", text);
  vec_push(c, &c->diags.list, ((Diag){E0900, ctx_printf(c, "%s (please report): %s", s.s, text), NULL}));
  unwind(c);
}

void diag_check(Ctx *c) {
  if (c->diags.list.n) unwind(c);
}

void diag_pass_on(Ctx *c, Ctx *from) {
  for (int i = 0; i < from->diags.list.n; i++) {
    const Diag *d = &from->diags.list.v[i];
    vec_push(c, &c->diags.list, ((Diag){d->code, ctx_printf(c, "%s", d->text), d->hint ? ctx_printf(c, "%s", d->hint) : NULL}));
  }
  unwind(c);
}

void diag_print(Ctx *c, FILE *to) {
  const char *file = c->diags.file;
  for (int i = 0; i < c->diags.list.n; i++) {
    const Diag *d = &c->diags.list.v[i];
    fprintf(to, "dlc: ");
    if (file) fprintf(to, "%s: ", diag_quote(c, file));
    if (d->code == E0900) fprintf(to, "internal error[E0900]%s\n", d->text);
    else fprintf(to, "error[%s]: %s\n", diag_info[d->code].name, d->text);
    if (d->hint) fprintf(to, "  hint: %s\n", d->hint);
  }
}
