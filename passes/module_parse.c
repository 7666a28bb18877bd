/* module_parse.c - reads the text of a module (module_text.c shows its form), or of a graph, so that the pipeline can go on behind the pass that
 * the text stands after.
 *
 * What is wrong with the words is told with line and column. Text that reads well may still break what a pass ensures: the pipeline checks that.
 * From lower on the text is a program, which is compiled as it stands: where it reads and writes at run time is its own affair. */
#include "../ir/text.h"
#include "passes.h"
#include "stages.h"
#include "storage.h"

typedef struct {
  Module *m;
  Ctx *c;
  TextReader r;
  Map syms;                        /* names of dimensions and counters of loops around: what a stage starts from */
  VEC(Sym *) counters;
  Map kernels;
} Reader;

static bool is(Reader *r, const char *word) { return lex_is(&r->r.lx, word); }
static bool accept(Reader *r, const char *word) { return lex_accept(&r->r.lx, word); }
static void expect(Reader *r, const char *word) { lex_expect(&r->r.lx, word); }

static Map copy_map(const Map *from) {
  Map to = map_new(from->ctx);
  for (int i = 0; i < from->entries.n; i++) map_set(&to, from->entries.v[i].key, from->entries.v[i].value);
  return to;
}

static Expr *read_int(Reader *r) { return parse_expr_as(&r->r.lx, &r->r.scope, DT_I64); }

/* ---- tensors ---- */

static void add_tensor(Reader *r, const Lexer *at, Tensor *t) {
  Map *known = &r->r.scope.tensors;
  if (map_get(known, KEY(t->name))) lex_fail(at, "two tensors are called '%s'", diag_quote(r->c, t->name));
  map_set(known, KEY(t->name), t);
}

static Tensor *read_known(Reader *r) {
  Lexer at = r->r.lx;
  Tensor *t = map_get(&r->r.scope.tensors, KEY(lex_name(&r->r.lx)));
  if (!t) lex_fail(&at, "unknown tensor");
  return t;
}

/* NAME [as "NAME OUTSIDE"]: TYPE; the outer name is set when all is read. */
static Tensor *read_port(Reader *r, const char **name) {
  Lexer at = r->r.lx;
  Tensor *t = tensor_new(r->c, lex_name(&r->r.lx), DT_NONE, -1, NULL);
  *name = accept(r, "as") ? text_read_string(&r->r) : t->name;
  text_read_type(&r->r, t);
  add_tensor(r, &at, t);
  return t;
}

typedef VEC(const char *) Names;

static void read_ports(Reader *r, Names *names) {
  Graph *g = r->m->graph;
  while (!is(r, ";") && !is(r, ")")) {
    const char *name;
    if (names->n) expect(r, ",");
    bool out = text_mark(&r->r, "out");
    Tensor *t = read_port(r, &name);
    t->scope = out ? SCOPE_OUTPUT : SCOPE_INPUT;
    if (out) vec_push(r->c, &g->outputs, t);
    else if (g->outputs.n) lex_fail(&r->r.lx, "inputs stand before outputs");
    else vec_push(r->c, &g->inputs, t);
    vec_push(r->c, names, name);
  }
}

/* Behind the word: NAME: TYPE [at OFFSET] [= DATA] */
static Tensor *read_tensor(Reader *r) {
  Lexer at = r->r.lx;
  Tensor *t = text_read_tensor(&r->r);
  add_tensor(r, &at, t);
  if (accept(r, "at")) t->offset = read_int(r);
  t->scope = t->offset ? SCOPE_ARENA : SCOPE_NONE;
  return t;
}

/* Constants that share their bytes have one offset; the first of them is the one that is stored. */
static void read_const(Reader *r) {
  Module *m = r->m;
  Tensor *t = read_tensor(r);
  expect(r, "=");
  text_read_data(&r->r, t);
  for (int i = 0; i < m->consts.n; i++)
    if (m->consts.v[i]->offset == t->offset) return;
  if (t->offset) vec_push(r->c, &m->consts, t);
}

static void read_tensors(Reader *r) {
  for (;;) {
    if (text_mark(&r->r, "const")) {
      read_const(r);
    } else if (text_mark(&r->r, "state")) {
      vec_push(r->c, &r->m->states, read_tensor(r));
    } else if (text_mark(&r->r, "tensor")) {
      read_tensor(r);
    } else {
      return;
    }
  }
}

/* ---- stages ---- */

/* The tensor that a stage writes: with its type where it is written first. */
static Tensor *read_written(Reader *r) {
  Lexer at = r->r.lx;
  lex_name(&r->r.lx);
  bool first = is(r, ":");
  r->r.lx = at;
  if (!first) return read_known(r);
  Tensor *t = text_read_tensor(&r->r);
  add_tensor(r, &at, t);
  return t;
}

static Sym *read_axis(Reader *r, Tensor *out, int d) {
  const char *name = lex_name(&r->r.lx);
  for (int i = 0; i < r->counters.n; i++)
    if (r->counters.v[i]->name == name) return r->counters.v[i];
  Sym *s = sym_axis(r->c, SYM_AXIS, name, accept(r, "<") ? read_int(r) : out->shape[d]);
  s->name = name;
  map_set(&r->r.scope.syms, KEY(name), s);
  return s;
}

static Stage *read_stage(Reader *r) {
  Stage *st = NEW(r->c, Stage);
  r->r.scope.syms = copy_map(&r->syms);
  st->out = read_written(r);
  if (st->out->data || st->out->scope == SCOPE_INPUT) lex_fail(&r->r.lx, "a stage writes '%s'", diag_quote(r->c, st->out->name));
  st->axes = NEW_ARRAY(r->c, Sym *, st->out->rank + 1);
  expect(r, "[");
  for (int d = 0; d < st->out->rank; d++) {
    if (d) expect(r, ",");
    st->axes[d] = read_axis(r, st->out, d);
  }
  expect(r, "]");
  if (accept(r, "at")) {
    st->at = NEW_ARRAY(r->c, Expr *, st->out->rank + 1);
    expect(r, "[");
    for (int d = 0; d < st->out->rank; d++) {
      if (d) expect(r, ",");
      st->at[d] = read_int(r);
    }
    expect(r, "]");
    st->clipped = accept(r, "clipped");
  }
  st->kept = accept(r, "kept");
  expect(r, "=");
  st->body = parse_expr_as(&r->r.lx, &r->r.scope, st->out->dtype);
  return st;
}

static Body *read_body(Reader *r);

static int64_t *read_block(Reader *r, int *n) {
  int64_t *block = NEW_ARRAY(r->c, int64_t, MAX_RANK);
  expect(r, "[");
  do {
    if (*n == MAX_RANK) lex_fail(&r->r.lx, "more than %d numbers", MAX_RANK);
    block[*n] = lex_int(&r->r.lx);
    if (block[(*n)++] < 0) lex_fail(&r->r.lx, "a block of less than no elements");
  } while (accept(r, ","));
  expect(r, "]");
  return block;
}

static void read_group(Reader *r, Item *it) {
  Group *g = it->group = NEW(r->c, Group);
  int n = 0;
  g->source = text_read_string(&r->r);
  Lexer at = r->r.lx;
  if (accept(r, "block")) g->block = read_block(r, &n);
  expect(r, "{");
  do vec_push(r->c, &g->stages, read_stage(r));
  while (!accept(r, "}"));
  if (g->block && n != group_root(g)->out->rank) lex_fail(&at, "the last stage has %d axes", group_root(g)->out->rank);
}

static void read_loop(Reader *r, Item *it) {
  const char *name = lex_name(&r->r.lx);
  Map around = r->syms;
  r->r.scope.syms = r->syms = copy_map(&around);
  expect(r, "<");
  it->trips = read_int(r);
  it->counter = sym_new(r->c, SYM_DIM, name, 0, INT64_MAX);
  it->counter->extent = it->trips;
  it->counter->name = name;
  map_set(&r->syms, KEY(name), it->counter);
  vec_push(r->c, &r->counters, it->counter);
  it->body[0] = read_body(r);
  r->counters.n--;
  r->syms = around;
}

static Item *read_item(Reader *r) {
  Item *it = NEW(r->c, Item);
  r->r.scope.syms = copy_map(&r->syms);
  if (accept(r, "check")) {
    it->kind = ITEM_CHECK;
    it->check = parse_expr_as(&r->r.lx, &r->r.scope, DT_BOOL);
  } else if (accept(r, "if")) {
    it->kind = ITEM_IF;
    it->cond = read_known(r);
    it->body[0] = read_body(r);
    expect(r, "else");
    it->body[1] = read_body(r);
  } else if (accept(r, "for")) {
    it->kind = ITEM_LOOP;
    read_loop(r, it);
  } else {
    expect(r, "group");
    it->kind = ITEM_GROUP;
    read_group(r, it);
  }
  return it;
}

static void read_items(Reader *r, Body *b) {
  text_deeper(&r->r);
  while (!accept(r, "}")) vec_push(r->c, &b->items, read_item(r));
  r->r.depth--;
}

static Body *read_body(Reader *r) {
  Body *b = NEW(r->c, Body);
  expect(r, "{");
  read_items(r, b);
  return b;
}

/* ---- kernels and program ---- */

static void read_kernels(Reader *r) {
  Module *m = r->m;
  r->kernels = map_new(r->c);
  m->stop = NEW(r->c, Kernel);
  m->stop->name = ctx_intern(r->c, "stop");
  map_set(&r->kernels, KEY(m->stop->name), m->stop);
  while (is(r, "kernel")) {
    Lexer at = r->r.lx;
    Kernel *k = text_read_kernel(&r->r);
    if (map_get(&r->kernels, KEY(k->name))) lex_fail(&at, "two kernels are called '%s'", diag_quote(r->c, k->name));
    map_set(&r->kernels, KEY(k->name), k);
    vec_push(r->c, &m->kernels, k);
  }
}

static void check_places(Reader *r, const Lexer *at) {
  const Module *m = r->m;
  for (int i = 0; i < m->consts.n; i++) {
    const Tensor *t = m->consts.v[i];
    int64_t from, n, end;
    bool ok = ex_is_int(t->offset, &from) && from >= 0 && storage_bytes(r->c, t, &n) && add_ok(from, n, &end) && end <= m->weight_bytes;
    if (!ok) lex_fail(at, "the constant '%s' does not lie inside the weights", diag_quote(r->c, t->name));
  }
}

static void read_program(Reader *r) {
  Module *m = r->m;
  Lexer at = r->r.lx;
  if (accept(r, "memory")) {
    if (accept(r, "arena")) {
      m->arena_bytes = read_int(r);
      expect(r, "zeroed");
      m->zeroed_bytes = read_int(r);
      expect(r, "scratch");
      m->scratch_bytes = read_int(r);
    }
    if (accept(r, "weights")) m->weight_bytes = lex_int(&r->r.lx);
  }
  check_places(r, &at);
  read_kernels(r);
  expect(r, "program");
  r->r.kernels = &r->kernels;
  m->program = text_read_block(&r->r);
  expect(r, "}");
}

/* ---- the text ---- */

static const char *read_pass(Reader *r) {
  Lexer at = r->r.lx;
  const char *name = lex_name(&r->r.lx), *pass;
  for (int i = 0; (pass = pipeline_pass(i)); i++)
    if (!strcmp(pass, name)) return pass;
  lex_fail(&at, "there is no pass '%s'", diag_quote(r->c, name));
}

static void read_module(Reader *r) {
  Module *m = r->m;
  SymList dims = {0};
  Names names = {0};
  m->graph = graph_new(r->c, NULL, lex_name(&r->r.lx));
  expect(r, "(");
  text_read_dims(&r->r, &dims, 1);
  for (int i = 0; i < dims.n; i++) vec_push(r->c, &m->graph->dims, dims.v[i]);
  read_ports(r, &names);
  text_skip_dims(&r->r);
  r->syms = copy_map(&r->r.scope.syms);
  expect(r, "after");
  m->done = read_pass(r);
  expect(r, "{");
  read_tensors(r);
  if (is(r, "memory") || is(r, "kernel") || is(r, "program")) {
    read_program(r);
  } else {
    m->body = NEW(r->c, Body);
    read_items(r, m->body);
  }
  for (int i = 0, n = m->graph->inputs.n; i < names.n; i++)
    (i < n ? m->graph->inputs.v[i] : m->graph->outputs.v[i - n])->name = names.v[i];
}

void module_parse(Module *m, const char *text, LoadData *load, void *user) {
  Reader r = {.m = m, .c = m->c, .r = text_reader(m->c, text)};
  ctx_diags(m->c)->reading = true;
  while (accept(&r, "data")) {
    const char *name = text_read_string(&r.r);
    if (!load) lex_fail(&r.r.lx, "there are no data files here");
    load(m->c, name, user);
  }
  if (accept(&r, "module")) read_module(&r);
  else m->graph = text_read_graph(&r.r);
  if (r.r.lx.kind != TOK_END) lex_fail(&r.r.lx, "more text than one %s", m->done ? "module" : "graph");
  pipeline_check(m);
  ctx_diags(m->c)->reading = m->program;                     /* as nothing but emission looks into kernels any more */
}
