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

/* ---- --dim: the model's dimensions fixed or bounded once more ---- */

static Expr *bound_dim(Ctx *c, const DimBound *b) {
  if (b->min == b->max) return ex_int(c, b->min);
  Sym *s = sym_new(c, SYM_DIM, b->name, b->min, b->max);
  s->name = ctx_intern(c, b->name);
  return s->self;
}

static void put_dim(Graph *g, Subst *by) {
  for (int i = 0; i < g->assumed.n; i++) g->assumed.v[i] = subst_apply(by, g->assumed.v[i]);
  for (int i = 0; i < g->inner.n; i++) put_dim(g->inner.v[i], by);
}

/* What follows from the inputs is inferred again by simplify. */
static void bind_dim(Graph *g, const DimBound *b) {
  int at = 0;
  while (at < g->dims.n && strcmp(g->dims.v[at]->name, b->name) != 0) at++;
  if (at == g->dims.n) diag_fail(g->ctx, E0202, NULL, NULL, "--dim %s: the model has no such dimension", diag_quote(g->ctx, b->name));
  Subst by = subst_new(g->ctx);
  Expr *e = bound_dim(g->ctx, b);
  subst_set(&by, g->dims.v[at], e);
  for (int i = 0; i < g->inputs.n; i++)
    for (int d = 0; d < g->inputs.v[i]->rank; d++) g->inputs.v[i]->shape[d] = subst_apply(&by, g->inputs.v[i]->shape[d]);
  put_dim(g, &by);
  if (e->op == EX_SYM) g->dims.v[at] = e->u.sym;
  else memmove(&g->dims.v[at], &g->dims.v[at + 1], sizeof(Sym *) * (size_t)(--g->dims.n - at));
}

static void bind_dims(Module *m) {
  const Options *o = m->opt;
  if (o->shapes.n) diag_fail(m->c, E0202, NULL, "fix its dimensions by --dim", "--shape: the shapes of a text stand in it");
  if (o->dims.n && m->done) diag_fail(m->c, E0202, NULL, NULL, "--dim: the dimensions of a text behind %s stand in it", m->done);
  for (int i = 0; i < o->dims.n; i++) bind_dim(m->graph, &o->dims.v[i]);
}

void text_read(Module *m, const Source *s) {
  if (memchr(s->bytes, 0, s->size)) source_fail(s, E0309, NULL, "a text with zero bytes");
  char *text = ctx_alloc(m->c, s->size + 1);
  memcpy(text, s->bytes, s->size);
  module_parse(m, text, load_data, (void *)s);
  bind_dims(m);
}
