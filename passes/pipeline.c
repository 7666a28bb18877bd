/* pipeline.c - runs the passes of passes.def: checks that each finds what it requires, verifies what it ensures, dumps what it changed.
 *
 * --dump-ir writes NN-PASS.ir (00-import.ir is the graph as read) where the text differs from the one before, --stop-after prints the
 * text after a pass on stdout and ends the pipeline there, --time-passes tells the time of each on stderr.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "passes.h"
#include "stages.h"

enum {
#define PROPERTY(name, check) PROP_##name,
#include "passes.def"
  PROP_COUNT
};
enum {
#define PROPERTY(name, check) name = 1 << PROP_##name,
#include "passes.def"
};

/* ---- text of a module: the most lowered form there is ---- */

static void add_text(Str *s, const char *text) {   /* str_add for long texts */
  str_add(s, "%s%s", text, *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
}

static void stage_text(Str *s, const Stage *st) {
  str_add(s, "  %s: %s[", st->out->name, dtype_info[st->out->dtype].name);
  for (int i = 0; i < st->out->rank; i++) str_add(s, "%s%s<%s", i ? ", " : "", st->axes[i]->name, expr_text(s->ctx, st->out->shape[i]));
  str_add(s, "]%s%s = %s\n", st->out->layout ? " " : "", layout_text(s->ctx, st->out->layout), expr_text(s->ctx, st->body));
}

static void body_text(Str *s, const Body *b) {
  for (int i = 0; i < b->items.n; i++) {
    const Item *it = b->items.v[i];
    if (it->kind == ITEM_GROUP) {
      str_add(s, "group \"%s\"", diag_quote(s->ctx, it->group->source ? it->group->source : ""));
      for (int k = 0; it->group->block && k < group_root(it->group)->out->rank; k++)
        str_add(s, "%s%lld", k ? ", " : " block [", (long long)it->group->block[k]);
      str_add(s, it->group->block ? "] {\n" : " {\n");
      for (int k = 0; k < it->group->stages.n; k++) stage_text(s, it->group->stages.v[k]);
      str_add(s, "}\n");
      continue;
    }
    if (it->kind == ITEM_CHECK) {
      str_add(s, "check %s\n", expr_text(s->ctx, it->check));
      continue;
    }
    if (it->kind == ITEM_IF) str_add(s, "if %s {\n", it->cond->name);
    else str_add(s, "for %s in [0, %s) {\n", it->counter->name, expr_text(s->ctx, it->trips));
    body_text(s, it->body[0]);
    if (it->body[1]) {
      str_add(s, "} else {\n");
      body_text(s, it->body[1]);
    }
    str_add(s, "}\n");
  }
}

const char *module_text(Module *m) {
  if (!m->program && !m->body) return graph_text(m->graph);
  Str s = str_new(m->c);
  if (!m->program) body_text(&s, m->body);
  for (int i = 0; m->program && i < m->kernels.n; i++) add_text(&s, kernel_text(m->c, m->kernels.v[i]));
  if (m->program) add_text(&s, stmt_text(m->c, m->program));
  return s.s;
}

/* ---- what properties promise ---- */

typedef void NodeCheck(Module *m, const Node *n);

static void each_node(Module *m, const Graph *g, NodeCheck *check) {
  for (int i = 0; i < g->nodes.n; i++) check(m, g->nodes.v[i]);
  for (int i = 0; i < g->inner.n; i++) each_node(m, g->inner.v[i], check);
}

static void check_imported(Module *m) { graph_verify(m->graph); }

static void node_shaped(Module *m, const Node *n) {
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && (n->out[i]->rank < 0 || n->out[i]->dtype == DT_NONE))
      diag_bug(m->c, "'%s' (%s) has no type", n->out[i]->name, n->op->name);
}

static void check_shaped(Module *m) {
  graph_verify(m->graph);
  each_node(m, m->graph, node_shaped);
}

static void node_canon(Module *m, const Node *n) {
  if (n->op->cls == OPC_EXPAND) diag_bug(m->c, "the %s node '%s' is left", n->op->name, n->name);
}

static void check_canon(Module *m) { each_node(m, m->graph, node_canon); }

static void group_staged(Group *g, void *user) {
  Module *m = user;
  if (!g->stages.n) diag_bug(m->c, "a group without stages");
  for (int i = 0; i < g->stages.n; i++) {
    const Stage *s = g->stages.v[i];
    if (s->body->dtype != s->out->dtype) diag_bug(m->c, "the stage of '%s' gives %s", s->out->name, dtype_info[s->body->dtype].name);
    for (int k = 0; k < s->out->rank; k++)
      if (!s->axes[k]) diag_bug(m->c, "the stage of '%s' lacks axis %d", s->out->name, k);
  }
}

static void check_staged(Module *m) {
  if (!m->body) diag_bug(m->c, "there are no stages");
  body_each_group(m->body, group_staged, m);
}

static void check_kernels(Module *m) {
  if (!m->program) diag_bug(m->c, "there is no program");
  for (int i = 0; i < m->kernels.n; i++) kernel_verify(m->c, m->kernels.v[i]);
}

static void check_packed(Module *m) {
  for (int i = 0; i < m->consts.n; i++)
    if (!m->consts.v[i]->offset) diag_bug(m->c, "the constant '%s' is not packed", m->consts.v[i]->name);
}

static void args_planned(Module *m, const Stmt *s) {
  for (int i = 0; s->op == ST_CALL && i < s->kernel->nparams; i++)
    if (s->args[i]->scope == SCOPE_NONE || (s->args[i]->scope == SCOPE_ARENA && !s->args[i]->offset))
      diag_bug(m->c, "the tensor '%s' has no place", s->args[i]->name);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) args_planned(m, s->body[i]);
}

static void check_planned(Module *m) { args_planned(m, m->program); }

/* ---- the rows ---- */

static const struct { const char *name; void (*check)(Module *m); } properties[] = {
#define PROPERTY(name, check) { #name, check },
#include "passes.def"
};

typedef struct { const char *name; void (*run)(Module *m); unsigned requires, ensures; const char *stage, *purpose; } Pass;
static const Pass passes[] = {
#define P(name, function, requires, ensures, stage, purpose) { #name, function, requires, ensures, #stage, purpose },
#include "passes.def"
};

static void check_order(Ctx *c) {
  unsigned have = IMPORTED;
  for (int i = 0; i < COUNT(passes); have |= passes[i++].ensures)
    for (int k = 0; k < PROP_COUNT; k++)
      if (passes[i].requires & ~have & 1u << k)
        diag_bug(c, "pass %s requires %s, which no pass before it ensures", passes[i].name, properties[k].name);
}

static bool named_in(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
    if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
  return false;
}

static void check_pass_names(Ctx *c, const char *list, const char *option) {
  for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
    int length = (int)strcspn(p, ","), known = 0;
    Str all = str_new(c);
    for (int i = 0; i < COUNT(passes); i++) {
      known |= (int)strlen(passes[i].name) == length && !strncmp(p, passes[i].name, (size_t)length);
      str_add(&all, "%s%s", i ? ", " : "", passes[i].name);
    }
    if (!known)
      diag_fail(c, E0202, NULL, ctx_printf(c, "passes: %s", all.s), "%s: there is no pass '%s'", option,
                diag_quote(c, ctx_printf(c, "%.*s", length, p)));
  }
}

static void write_dump(Module *m, const char *folder, int number, const char *name, const char *text) {
  if (!strcmp(folder, "-")) {
    fprintf(stderr, "---- %02d-%s.ir\n%s", number, name, text);
    return;
  }
  const char *path = ctx_printf(m->c, "%s/%02d-%s.ir", folder, number, name);
  if (mkdir(folder, 0777) && errno != EEXIST) diag_fail(m->c, E0502, NULL, NULL, "%s: %s", diag_quote(m->c, folder), strerror(errno));
  FILE *f = fopen(path, "w");
  bool ok = f && fputs(text, f) >= 0;
  if (f && fclose(f)) ok = false;
  if (!ok) diag_fail(m->c, E0502, NULL, NULL, "%s: %s", diag_quote(m->c, path), strerror(errno));
}

/* Writes the module's text if it is asked for and differs from *last. */
static void dump(Module *m, int number, const char *name, const char **last) {
  const Options *o = m->opt;
  if (!o->dump_ir) return;
  const char *text = module_text(m);
  bool wanted = !o->dump_passes || named_in(o->dump_passes, name);
  if (wanted && (!*last || strcmp(text, *last))) write_dump(m, o->dump_ir, number, name, text);
  *last = text;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_pass(Module *m, int i) {
  const Pass *p = &passes[i];
  const Options *o = m->opt;
  ctx_diags(m->c)->pass = p->name;
  if (o->progress) o->progress(o->progress_user, p->stage, (double)i / COUNT(passes), p->name);
  double start = seconds(), end;
  p->run(m);
  diag_check(m->c);
  end = seconds();
  for (int k = 0; k < PROP_COUNT; k++)
    if (p->ensures & 1u << k && properties[k].check) properties[k].check(m);
  if (o->time_passes) fprintf(stderr, "%-10s %9.3f ms  verified in %.3f ms\n", p->name, (end - start) * 1e3, (seconds() - end) * 1e3);
  ctx_diags(m->c)->pass = NULL;
  ctx_diags(m->c)->node = NULL;
}

void pipeline_run(Module *m) {
  const Options *o = m->opt;
  const char *text = NULL;
  check_order(m->c);
  check_pass_names(m->c, o->stop_after, "--stop-after");
  check_pass_names(m->c, o->dump_passes, "--dump-ir");
  check_imported(m);
  dump(m, 0, "import", &text);
  for (int i = 0; i < COUNT(passes); i++) {
    run_pass(m, i);
    dump(m, i + 1, passes[i].name, &text);
    if (o->stop_after && !strcmp(o->stop_after, passes[i].name)) {
      fputs(module_text(m), stdout);
      return;
    }
  }
}
