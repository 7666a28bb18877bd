/* module_text.c - a model as text wherever it stands in the pipeline, which module_parse.c reads back.
 *
 * Up to simplify it is its graph (ir/print.c). Then, in canonical names (ir/canon.h), so that equal modules have equal texts:
 *
 *   module NAME(x: f32[N,64], out y as "x": f32[N,64]; N, M=1..32) after fuse {
 *     const w: f32[64,64] layout "d1/16,d0,d1%16" = blob "9ae16a3b2f90404f"
 *     state h: f32[64]
 *     group "name of the node" {
 *       t: f32[N,64][i0, i1] = sum(k<64, x[i0, k]*w[k, i1])
 *       y[i0 < 8, i1] at [i0 + 4, i1] = t[i0, i1]          (at [..] clipped = ..: what lies outside of y is not stored;
 *                                                             kept = ..: others than the group read it, too)
 *     }
 *     check N%2 == 0
 *     for step < M {
 *     }
 *     if c {
 *     } else {
 *     }
 *   }
 *
 * Behind a group's name may stand block [1, 64, 0]: Group.block. A tensor's type stands where it is written first; axes have the
 * extents of what they index unless they say otherwise, and an axis may be the counter of a loop around. From lower on kernels and the
 * program that calls them take the place of groups, all tensors stand in front, and what was placed says where:
 *
 *     const w: f32[64,64] at 4096 = {...}
 *     tensor t: f32[N,64] at 512
 *     memory arena N*64 weights 8192
 */
#include <stdlib.h>

#include "../ir/text.h"
#include "passes.h"
#include "stages.h"
#include "storage.h"

typedef struct {
  Module *m;
  Str s;                           /* in the module's context; copies live in one of their own */
  Canon canon;
  Map seen;                        /* Tensor*: noted; */
  Map typed;                       /* Tensor*: its type stands already */
  VEC(Tensor *) all;               /* but inputs and outputs, in order of appearance */
  VEC(Tensor *) early;             /* read before they are written, as far as the order of the text goes */
} Printer;

/* ---- which tensors there are ---- */

static void note(Printer *p, Tensor *t) {
  if (map_get(&p->seen, KEY(t))) return;
  map_set(&p->seen, KEY(t), t);
  canon_tensor(&p->canon, t);
  vec_push(p->m->c, &p->all, t);
}

static void note_read(Printer *p, Tensor *t) {
  if (!t->data && !map_get(&p->seen, KEY(t))) vec_push(p->m->c, &p->early, t);
  note(p, t);
}

static void note_stage(Printer *p, const Stage *st) {
  TensorList l = {.c = p->m->c};
  expr_tensors(&l, st->body);
  for (int i = 0; i < l.list.n; i++) note_read(p, l.list.v[i]);
  note(p, st->out);
}

static void note_body(Printer *p, const Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    const Item *it = b->items.v[i];
    for (int k = 0; it->kind == ITEM_GROUP && k < it->group->stages.n; k++) note_stage(p, it->group->stages.v[k]);
    if (it->cond) note_read(p, it->cond);
    for (int k = 0; k < 2; k++)
      if (it->body[k]) note_body(p, it->body[k]);
  }
}

static void note_program(Printer *p, const Stmt *st) {
  for (int i = 0; st->op == ST_CALL && i < st->kernel->nparams; i++) note(p, st->args[i]);
  if (st->op == ST_IF && st->value->op == EX_FETCH) note(p, st->value->u.tensor);
  for (int i = 0; i < st->n; i++)
    if (st->body[i]) note_program(p, st->body[i]);
}

/* ---- lines ---- */

static void add_expr(Printer *p, Canon *k, Expr *e) { print_expr(&p->s, canon_expr(k, e)); }
static void add_name(Printer *p, Tensor *t) { lex_add_name(&p->s, canon_tensor(&p->canon, t)->name); }

static void add_type(Printer *p, Tensor *t) {
  str_add(&p->s, ": ");
  text_type(&p->s, canon_tensor(&p->canon, t));
  map_set(&p->typed, KEY(t), t);
}

/* WORD NAME: TYPE [at OFFSET] [= DATA] */
static void add_tensor(Printer *p, const char *word, Tensor *t) {
  if (map_get(&p->typed, KEY(t))) return;
  str_add(&p->s, "  %s ", word);
  add_name(p, t);
  add_type(p, t);
  if (t->offset) {
    str_add(&p->s, " at ");
    add_expr(p, &p->canon, t->offset);
  }
  if (t->data) {
    str_add(&p->s, " = ");
    storage_value(p->m, t);
    text_data(&p->s, t);
  }
  str_add(&p->s, "\n");
}

static void add_port(Printer *p, Tensor *t, bool out) {
  const char *name = canon_tensor(&p->canon, t)->name;
  map_set(&p->seen, KEY(t), t);
  str_add(&p->s, out ? "out " : "");
  lex_add_name(&p->s, name);
  if (strcmp(name, t->name) != 0) {
    str_add(&p->s, " as ");
    lex_add_string(&p->s, t->name);
  }
  add_type(p, t);
}

static void add_head(Printer *p) {
  const Graph *g = p->m->graph;
  Sym **dims = NEW_ARRAY(p->m->c, Sym *, g->dims.n + 1);
  for (int i = 0; i < g->dims.n; i++) dims[i] = canon_sym(&p->canon, g->dims.v[i]);
  for (int i = 0; i < g->inputs.n; i++) canon_tensor(&p->canon, g->inputs.v[i]);
  str_add(&p->s, "module ");
  lex_add_name(&p->s, g->name);
  str_add(&p->s, "(");
  for (int i = 0; i < g->inputs.n + g->outputs.n; i++) {
    bool out = i >= g->inputs.n;
    str_add(&p->s, i ? ", " : "");
    add_port(p, out ? g->outputs.v[i - g->inputs.n] : g->inputs.v[i], out);
  }
  str_add(&p->s, g->dims.n ? "; " : "");
  text_dims(&p->s, dims, g->dims.n);
  str_add(&p->s, ") after %s {\n", p->m->done);
}

static int by_name(const void *a, const void *b) { return strcmp((*(Tensor *const *)a)->name, (*(Tensor *const *)b)->name); }

/* Those that have no place yet by name: the order in which stages read them is no one's choice. */
static void add_consts(Printer *p) {
  Tensor **list = NEW_ARRAY(p->m->c, Tensor *, p->all.n + 1);
  int n = 0;
  for (int i = 0; i < p->all.n; i++)
    if (p->all.v[i]->data) list[n++] = p->all.v[i];
  if (!p->m->program) qsort(list, (size_t)n, sizeof *list, by_name);
  for (int i = 0; i < n; i++) add_tensor(p, "const", list[i]);
}

/* Constants in the order in which they lie, states, and whatever must be known before it is written. */
static void add_tensors(Printer *p) {
  const Module *m = p->m;
  for (int i = 0; i < m->consts.n; i++) note(p, m->consts.v[i]);
  for (int i = 0; i < m->states.n; i++) note(p, m->states.v[i]);
  for (int i = 0; i < m->consts.n; i++) add_tensor(p, "const", m->consts.v[i]);
  add_consts(p);
  for (int i = 0; i < m->states.n; i++) add_tensor(p, "state", m->states.v[i]);
  for (int i = 0; i < p->early.n; i++) add_tensor(p, "tensor", p->early.v[i]);
  for (int i = 0; m->program && i < p->all.n; i++) add_tensor(p, "tensor", p->all.v[i]);
}

/* ---- stages ---- */

static void add_axis(Printer *p, Canon *k, const Stage *st, int d) {
  Sym *axis = st->axes[d], *copy = canon_sym(k, axis);
  lex_add_name(&p->s, copy->name);
  if (axis->kind == SYM_DIM || axis->extent == st->out->shape[d]) return;
  str_add(&p->s, " < ");
  add_expr(p, k, axis->extent);
}

static void add_stage(Printer *p, const Stage *st, int depth) {
  Canon k = canon_twice(p->canon.c, &p->canon);
  text_indent(&p->s, depth);
  add_name(p, st->out);
  if (!map_get(&p->typed, KEY(st->out))) add_type(p, st->out);
  str_add(&p->s, "[");
  for (int d = 0; d < st->out->rank; d++) {
    str_add(&p->s, d ? ", " : "");
    add_axis(p, &k, st, d);
  }
  str_add(&p->s, st->at ? "] at [" : "]");
  for (int d = 0; st->at && d < st->out->rank; d++) {
    str_add(&p->s, d ? ", " : "");
    add_expr(p, &k, st->at[d]);
  }
  str_add(&p->s, "%s%s%s = ", st->at ? "]" : "", st->clipped ? " clipped" : "", st->kept ? " kept" : "");
  add_expr(p, &k, st->body);
  str_add(&p->s, "\n");
}

static void add_body(Printer *p, const Body *b, int depth);

static void add_group(Printer *p, const Group *g, int depth) {
  str_add(&p->s, "group ");
  lex_add_string(&p->s, g->source ? g->source : "");
  for (int d = 0; g->block && d < group_root(g)->out->rank; d++) str_add(&p->s, "%s%lld", d ? ", " : " block [", (long long)g->block[d]);
  str_add(&p->s, g->block ? "] {\n" : " {\n");
  for (int i = 0; i < g->stages.n; i++) add_stage(p, g->stages.v[i], depth + 1);
}

static void add_block_head(Printer *p, Item *it) {
  if (it->kind == ITEM_IF) {
    str_add(&p->s, "if ");
    add_name(p, it->cond);
  } else {
    str_add(&p->s, "for ");
    lex_add_name(&p->s, canon_sym(&p->canon, it->counter)->name);
    str_add(&p->s, " < ");
    add_expr(p, &p->canon, it->trips);
  }
  str_add(&p->s, " {\n");
}

static void add_item(Printer *p, Item *it, int depth) {
  text_indent(&p->s, depth);
  if (it->kind == ITEM_CHECK) {
    str_add(&p->s, "check ");
    add_expr(p, &p->canon, it->check);
    str_add(&p->s, "\n");
    return;
  }
  if (it->kind == ITEM_GROUP) add_group(p, it->group, depth);
  else add_block_head(p, it);
  if (it->body[0]) add_body(p, it->body[0], depth + 1);
  text_indent(&p->s, depth);
  if (it->body[1]) {
    str_add(&p->s, "} else {\n");
    add_body(p, it->body[1], depth + 1);
    text_indent(&p->s, depth);
  }
  str_add(&p->s, "}\n");
}

static void add_body(Printer *p, const Body *b, int depth) {
  for (int i = 0; i < b->items.n; i++) add_item(p, b->items.v[i], depth);
}

/* ---- kernels and program ---- */

static void add_memory(Printer *p) {
  const Module *m = p->m;
  if (!m->weight_bytes && !m->arena_bytes) return;
  str_add(&p->s, "  memory");
  if (m->arena_bytes) {
    str_add(&p->s, " arena ");
    add_expr(p, &p->canon, m->arena_bytes);
    str_add(&p->s, " zeroed ");
    add_expr(p, &p->canon, m->zeroed_bytes);
    str_add(&p->s, " scratch ");
    add_expr(p, &p->canon, m->scratch_bytes);
  }
  str_add(&p->s, m->weight_bytes ? " weights %lld\n" : "\n", (long long)m->weight_bytes);
}

static void add_program(Printer *p) {
  const Module *m = p->m;
  Ctx *c = p->canon.c;
  add_memory(p);
  /* twice, as canon.h says */
  for (int i = 0; i < m->kernels.n; i++) text_kernel(&p->s, kernel_canonical(c, kernel_canonical(c, m->kernels.v[i])), 1);
  str_add(&p->s, "  program {\n");
  text_stmt(&p->s, canon_stmt(&p->canon, m->program), 2);
  str_add(&p->s, "  }\n");
}

/* ---- the text ---- */

static void free_copies(void *copies) {
  ctx_free(*(Ctx **)copies);
  *(Ctx **)copies = NULL;
}

const char *module_text(Module *m) {
  if (!m->program && !m->body) return graph_text(m->graph);
  Ctx **copies = NEW(m->c, Ctx *);
  *copies = ctx_new();
  ctx_defer(m->c, free_copies, copies);
  Printer p = {.m = m, .s = str_new(m->c), .canon = canon_twice(*copies, NULL), .seen = map_new(m->c), .typed = map_new(m->c)};
  add_head(&p);
  if (m->program) note_program(&p, m->program);
  else note_body(&p, m->body);
  add_tensors(&p);
  if (m->program) add_program(&p);
  else add_body(&p, m->body, 1);
  str_add(&p.s, "}\n");
  free_copies(copies);
  return p.s.s;
}
