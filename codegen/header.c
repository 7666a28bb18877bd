/* header.c - writes P.h: what a C programmer needs to call a compiled model, with nothing else at hand. */
#include "header.h"
#include <ctype.h>

extern const unsigned char dlc_h[]; /* runtime/dlc.h */

static const char *const keywords[] = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
    "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof",
    "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
    /* C++ */
    "alignas", "alignof", "and", "and_eq", "asm", "bitand", "bitor", "bool", "catch", "char8_t", "char16_t", "char32_t",
    "class", "co_await", "co_return", "co_yield", "compl", "concept", "const_cast", "consteval", "constexpr",
    "constinit", "decltype", "delete", "dynamic_cast", "explicit", "export", "false", "friend", "mutable", "namespace",
    "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or", "or_eq", "private", "protected", "public",
    "reinterpret_cast", "requires", "static_assert", "static_cast", "template", "this", "thread_local", "throw", "true",
    "try", "typeid", "typename", "using", "virtual", "wchar_t", "xor", "xor_eq",
    /* the standard's names that P.h uses */
    "NULL", "int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t", "uint64_t", "size_t"};

static bool is_letter(char ch) { return isalnum((unsigned char)ch) && (unsigned char)ch < 128; }

const char *header_identifier(Ctx *c, const char *name) {
  Str s = str_new(c);
  if (!*name || isdigit((unsigned char)*name)) str_add(&s, "_");
  for (const char *p = name; *p; p++) str_add(&s, "%c", is_letter(*p) ? *p : '_');
  for (int i = 0; i < COUNT(keywords); i++)
    if (!strcmp(s.s, keywords[i])) {
      str_add(&s, "_");
      break;
    }
  return ctx_intern(c, s.s);
}

/* A parameter name that none of those before has. */
static const char *unique(Ctx *c, Map *taken, const char *name) {
  const char *base = header_identifier(c, name), *id = base;
  for (int i = 2; map_get(taken, KEY(id)); i++) id = ctx_intern(c, ctx_printf(c, "%s_%d", base, i));
  map_set(taken, KEY(id), taken);
  return id;
}

static void add_string(Str *s, const char *text) {
  str_add(s, "\"");
  for (const unsigned char *p = (const unsigned char *)text; *p; p++)
    if (*p == '"' || *p == '\\' || *p == '?') str_add(s, "\\%c", *p);
    else if (*p < 32 || *p > 126) str_add(s, "\\%03o", *p);
    else str_add(s, "%c", *p);
  str_add(s, "\"");
}

static void add_dims(Ctx *c, Str *s, const HeaderIo *io) {
  for (int i = 0; i < io->rank; i++) {
    const char *name = io->dim_names ? io->dim_names[i] : NULL;
    if (io->dims[i] >= 0) str_add(s, "%s%lld", i ? "," : "", (long long)io->dims[i]);
    else str_add(s, "%s%s", i ? "," : "", name ? header_identifier(c, name) : "?");
  }
}

static void add_size(Str *s, const char *prefix, const char *what, int64_t bytes) {
  str_add(s, "#define %s_%s %llu%s\n", prefix, what, (unsigned long long)bytes, bytes > UINT32_MAX ? "ull" : "u");
}

static bool io_bytes(const HeaderIo *io, int64_t *bytes) {
  *bytes = dtype_bytes(io->dtype);
  for (int i = 0; i < io->rank; i++)
    if (io->dims[i] < 0 || !mul_ok(*bytes, io->dims[i], bytes)) return false;
  return true;
}

static void add_ios(Ctx *c, Str *s, const char *prefix, const char *what, const HeaderIo *ios, int n) {
  str_add(s, "#define %s_NUM_%sPUTS %d\n", prefix, what, n);
  for (int i = 0; i < n; i++) {
    str_add(s, "#define %s_%s%d_NAME ", prefix, what, i);
    add_string(s, ios[i].name);
    str_add(s, "                /* %s [", dtype_info[ios[i].dtype].name);
    add_dims(c, s, &ios[i]);
    str_add(s, "] */\n");
    int64_t bytes;
    if (io_bytes(&ios[i], &bytes)) add_size(s, prefix, ctx_printf(c, "%s%d_BYTES", what, i), bytes);
  }
}

static void add_prototype(Ctx *c, Str *s, const HeaderInfo *h) {
  Map taken = map_new(c);
  map_set(&taken, KEY(ctx_intern(c, "workspace")), &taken);
  str_add(s, "int %s_run(", h->prefix);
  for (int i = 0; i < h->ninputs; i++)
    str_add(s, "const %s *%s, ", dtype_info[h->inputs[i].dtype].ctype, unique(c, &taken, h->inputs[i].name));
  for (int i = 0; i < h->noutputs; i++)
    str_add(s, "%s *%s, ", dtype_info[h->outputs[i].dtype].ctype, unique(c, &taken, h->outputs[i].name));
  for (int i = 0; i < h->nsyms; i++) str_add(s, "int64_t %s, ", unique(c, &taken, h->syms[i]));
  str_add(s, "void *workspace);\n");
}

static const char *upper(Ctx *c, const char *text) {
  char *s = ctx_copy(c, text, strlen(text) + 1);
  for (char *p = s; *p; p++) *p = (char)toupper((unsigned char)*p);
  return s;
}

const char *header_text(Ctx *c, const HeaderInfo *h) {
  const char *P = upper(c, h->prefix);
  Str s = str_new(c);
  str_add(&s,
          "/* %s: a compiled model. Link with its library and call %s_run, or use the table %s_model for threads, "
          "checks and\n"
          " * shapes. Made by dlc; do not edit. */\n",
          h->prefix, h->prefix, h->prefix);
  str_add(&s, "#ifndef %s_DLC_H\n#define %s_DLC_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n", P, P);
  str_add(&s, "#define %s_ABI 1\n", P);
  if (h->model_sha256) str_add(&s, "#define %s_MODEL_SHA256 \"%s\"\n", P, h->model_sha256);
  str_add(&s, "#define %s_TARGET ", P);
  add_string(&s, h->target);
  str_add(&s, "\n#define %s_CPU ", P);
  add_string(&s, h->cpu);
  str_add(&s, "\n");
  add_ios(c, &s, P, "IN", h->inputs, h->ninputs);
  add_ios(c, &s, P, "OUT", h->outputs, h->noutputs);
  if (h->workspace_bytes >= 0) add_size(&s, P, "WORKSPACE_BYTES", h->workspace_bytes);
  add_size(&s, P, "WEIGHTS_BYTES", h->weights_bytes);
  add_size(&s, P, "ALIGN", 64);
  str_add(&s, "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
  str_add(&s,
          "/* Any thread. One call on the calling thread; tensors are row-major. workspace: %s, 64-byte aligned,\n"
          " * not shared with a call under way. 0 or a DLC_E code. */\n",
          h->workspace_bytes >= 0 ? ctx_printf(c, "%s_WORKSPACE_BYTES", P)
                                  : ctx_printf(c, "%s_model.workspace_size bytes", h->prefix));
  add_prototype(c, &s, h);
  str_add(&s, "\n#ifdef __cplusplus\n}\n#endif\n\n%s\n", (const char *)dlc_h);
  str_add(&s,
          "#ifdef __cplusplus\nextern \"C\" {\n#endif\nextern const dlc_model %s_model;\n#ifdef "
          "__cplusplus\n}\n#endif\n\n#endif\n",
          h->prefix);
  return s.s;
}
