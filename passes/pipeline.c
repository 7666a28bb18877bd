/* pipeline.c - runs the passes of passes.def: checks that each finds what it requires, verifies what it ensures, dumps what it changed.
 *
 * --dump-ir writes NN-PASS.ir (00-import.ir is the graph as read) where the text differs from the one before, and constants that are too large
 * for a text into constants.data beside them; --stop-after ends the pipeline behind a pass, --time-passes tells the time of each on stderr.
 * A module that was read from such a text starts behind the pass that the text stands after.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "../ir/blob.h"
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

static void check_planned(Module *m) {
  if (!m->arena_bytes) diag_bug(m->c, "nothing tells how much memory the program needs");
  args_planned(m, m->program);
}

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

/* ---- dumps ---- */

#define DATA_FILE "constants.data"
typedef struct { const char *last; int stored; } Dump;       /* the text before; how many blobs stand in the data file */

static _Noreturn void dump_failed(Module *m, const char *path) {
  diag_fail(m->c, E0502, NULL, NULL, "%s: %s", diag_quote(m->c, path), strerror(errno));
}

static void store_blobs(Module *m, Dump *d) {
  if (d->stored == blob_count(m->c)) return;
  const char *path = ctx_printf(m->c, "%s/" DATA_FILE, m->opt->dump_ir);
  FILE *f = fopen(path, d->stored ? "ab" : "wb");
  bool ok = f && blob_store(m->c, d->stored, f);
  if (f && fclose(f)) ok = false;
  if (!ok) dump_failed(m, path);
  d->stored = blob_count(m->c);
}

static void write_dump(Module *m, Dump *d, int number, const char *name, const char *text) {
  const char *folder = m->opt->dump_ir;
  if (!strcmp(folder, "-")) {
    fprintf(stderr, "---- %02d-%s.ir\n%s", number, name, text);
    return;
  }
  const char *path = ctx_printf(m->c, "%s/%02d-%s.ir", folder, number, name);
  if (mkdir(folder, 0777) && errno != EEXIST) dump_failed(m, folder);
  store_blobs(m, d);
  FILE *f = fopen(path, "w");
  bool ok = f && (!d->stored || fputs("data \"" DATA_FILE "\"\n", f) >= 0) && fputs(text, f) >= 0;
  if (f && fclose(f)) ok = false;
  if (!ok) dump_failed(m, path);
}

/* Whether only the pass differs that the texts stand after. */
static bool same_text(const char *a, const char *b) {
  static const char mark[] = ") after ";
  const char *x = strstr(a, mark), *y = strstr(b, mark);
  if (!x || !y) return !strcmp(a, b);
  if (x - a != y - b || strncmp(a, b, (size_t)(x - a)) != 0) return false;
  x += sizeof mark, y += sizeof mark;
  return !strcmp(x + strcspn(x, " "), y + strcspn(y, " "));
}

/* Writes the module's text if it is asked for and differs from the last one. */
static void dump(Module *m, Dump *d, int number, const char *name) {
  const Options *o = m->opt;
  if (!o->dump_ir) return;
  const char *text = module_text(m);
  bool wanted = !o->dump_passes || named_in(o->dump_passes, name);
  if (wanted && (!d->last || !same_text(text, d->last))) write_dump(m, d, number, name, text);
  d->last = text;
}

/* ---- running ---- */

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check_properties(Module *m, unsigned which) {
  for (int k = 0; k < PROP_COUNT; k++)
    if (which & 1u << k && properties[k].check) properties[k].check(m);
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
  m->done = p->name;
  check_properties(m, p->ensures);
  if (p->ensures & CANON && o->emit && named_in(o->emit, "graph")) m->graph_text = graph_text(m->graph);
  if (o->time_passes) fprintf(stderr, "%-10s %9.3f ms  verified in %.3f ms\n", p->name, (end - start) * 1e3, (seconds() - end) * 1e3);
  ctx_diags(m->c)->pass = NULL;
  ctx_diags(m->c)->node = NULL;
}

static int pass_number(const char *name) {
  for (int i = 0; name && i < COUNT(passes); i++)
    if (!strcmp(passes[i].name, name)) return i;
  return -1;
}

const char *pipeline_pass(int i) { return i < COUNT(passes) ? passes[i].name : NULL; }

void pipeline_check(Module *m) {
  int done = pass_number(m->done), stages = pass_number("stages"), lower = pass_number("lower");
  bool staged = m->body || m->program, lowered = m->program;
  unsigned have = m->done ? 0 : IMPORTED;
  if (staged != (done >= stages) || lowered != (done >= lower)) diag_bug(m->c, "behind %s a module has another form", m->done ? m->done : "no pass");
  for (int i = lowered ? lower : staged ? stages : 0; i <= done; i++) have |= passes[i].ensures;
  check_properties(m, have);
}

void pipeline_run(Module *m) {
  const Options *o = m->opt;
  Dump d = {.last = NULL};
  int next = pass_number(m->done) + 1, last = o->stop_after ? pass_number(o->stop_after) : COUNT(passes) - 1;
  check_order(m->c);
  check_pass_names(m->c, o->stop_after, "--stop-after");
  check_pass_names(m->c, o->dump_passes, "--dump-passes");
  if (last < next - 1) diag_fail(m->c, E0202, NULL, NULL, "--stop-after: the text stands behind %s already", m->done);
  pipeline_check(m);
  dump(m, &d, next, m->done ? m->done : "import");
  for (int i = next; i <= last; i++) {
    run_pass(m, i);
    dump(m, &d, i + 1, passes[i].name);
  }
}
