/* text.c - see text.h. */
#include "text.h"

#include "../ir/blob.h"

bool text_is_ir(const Source *s) {
  static const char *const words[] = {"data \"", "graph ", "module "};
  for (int i = 0; i < COUNT(words); i++)
    if (s->size > strlen(words[i]) && !memcmp(s->bytes, words[i], strlen(words[i]))) return true;
  return s->size > 2 && !memcmp(s->bytes, "//", 2);
}

static void load_data(Ctx *c, const char *file, void *user) {
  const Source *s = user, *data = source_beneath(s, "the text", file);
  if (!blob_load(c, data->bytes, data->size))
    source_fail(s, E0305, NULL, "'%s' holds no data of constants, or only a part of them", diag_quote(c, file));
}

void text_read(Module *m, const Source *s) {
  if (memchr(s->bytes, 0, s->size)) source_fail(s, E0309, NULL, "a text with zero bytes");
  char *text = ctx_alloc(m->c, s->size + 1);
  memcpy(text, s->bytes, s->size);
  module_parse(m, text, load_data, (void *)s);
}
