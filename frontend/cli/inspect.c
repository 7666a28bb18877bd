/* inspect.c - dlc inspect: what a model contains, or a compiled library, without running either. */
#include "../elf.h"
#include "../json.h"
#include "term.h"
#include "../output.h"
#include "../../codegen/link.h"
#include "../../ir/diag.h"
#include <stdlib.h>

static bool shows(const Cli *cli, const char *part, bool unasked) {
  const char *list = cli_value(cli, OPT_SHOW);
  if (!list) return unasked;
  size_t n = strlen(part);
  for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
    if (!strncmp(p, part, n) && (p[n] == ',' || !p[n])) return true;
  return false;
}

/* ---- models ---- */

typedef struct {
  const Op *op;
  int count;
} OpCount;
typedef struct {
  int64_t constants, elements, bytes;
  VEC(OpCount) ops;
  int nodes;
} Census;

static int by_count(const void *a, const void *b) {
  const OpCount *x = a, *y = b;
  return x->count != y->count ? y->count - x->count : strcmp(x->op->name, y->op->name);
}

static void count_node(Ctx *c, Census *s, const Node *n) {
  s->nodes++;
  for (int i = 0; i < s->ops.n; i++)
    if (s->ops.v[i].op == n->op) {
      s->ops.v[i].count++;
      return;
    }
  vec_push(c, &s->ops, ((OpCount){n->op, 1}));
}

static Census census_of(Graph *g) {
  Census s = {.nodes = 0};
  for (int i = 0; i < g->nodes.n; i++) count_node(g->ctx, &s, g->nodes.v[i]);
  for (int i = 0; i < g->names.entries.n; i++) {
    const Tensor *t = g->names.entries.v[i].value;
    int64_t dims[MAX_RANK], n = 1;
    if (!t || !t->data || !tensor_dims(t, dims)) continue;
    for (int d = 0; d < t->rank; d++) n *= dims[d];
    s.constants++;
    s.elements += n;
    s.bytes += n * dtype_bytes(t->dtype);
  }
  if (s.ops.n) qsort(s.ops.v, (size_t)s.ops.n, sizeof *s.ops.v, by_count);
  return s;
}

static void print_ports(FILE *out, Ctx *c, const char *what, Tensor *const *t, int n) {
  for (int i = 0; i < n; i++) fprintf(out, "%s %s  %s\n", what, diag_quote(c, t[i]->name), tensor_type_text(c, t[i]));
}

static void print_node(FILE *out, Ctx *c, const Node *n) {
  fprintf(out, "  %-4d %s-%d '%s'", n->index, n->op->name, n->op->opset, diag_quote(c, n->name));
  for (int i = 0; i < n->nin; i++)
    fprintf(out, "%s%s", i ? ", " : "  ", n->in[i] ? diag_quote(c, n->in[i]->name) : "-");
  for (int i = 0; i < n->nout; i++)
    fprintf(out, "%s%s", i ? ", " : " -> ", n->out[i] ? diag_quote(c, n->out[i]->name) : "-");
  fputc('\n', out);
}

/* g: as read, typed: simplified, with the types of all inputs and outputs */
static void model_text(const Cli *cli, FILE *out, Graph *g, const Graph *typed) {
  Ctx *c = cli->c;
  Census s = census_of(g);
  if (shows(cli, "io", true)) {
    print_ports(out, c, "input", typed->inputs.v, typed->inputs.n);
    print_ports(out, c, "output", typed->outputs.v, typed->outputs.n);
  }
  if (shows(cli, "nodes", true)) {
    fprintf(out, "%d nodes:", s.nodes);
    for (int i = 0; i < s.ops.n; i++) fprintf(out, "%s %d %s", i ? "," : "", s.ops.v[i].count, s.ops.v[i].op->name);
    fputc('\n', out);
    bool each = cli->verbose > 0 || (cli_has(cli, OPT_SHOW) && cli->verbose >= 0);
    for (int i = 0; i < g->nodes.n && each; i++) print_node(out, c, g->nodes.v[i]);
  }
  if (shows(cli, "sizes", true))
    fprintf(out, "%lld constants, %s elements, %s\n", (long long)s.constants, text_count(c, s.elements),
            text_bytes(c, s.bytes));
}

static void model_json(FILE *out, const char *path, Graph *g, const Graph *typed) {
  Census s = census_of(g);
  Json j = json_begin(out, "inspect");
  json_text(&j, "model", path);
  output_json_ports(&j, g->ctx, "inputs", typed->inputs.v, typed->inputs.n);
  output_json_ports(&j, g->ctx, "outputs", typed->outputs.v, typed->outputs.n);
  json_int(&j, "nodes", s.nodes);
  json_object(&j, "operators");
  for (int i = 0; i < s.ops.n; i++) json_int(&j, s.ops.v[i].op->name, s.ops.v[i].count);
  json_close(&j, '}');
  json_int(&j, "constants", s.constants);
  json_int(&j, "constant_elements", s.elements);
  json_int(&j, "constant_bytes", s.bytes);
  json_end(&j);
}

static void inspect_model(const Cli *cli, const char *path) {
  Options o = {.model = path};
  cli_shape_options(cli, &o);
  Graph *g = compile_read(cli->c, &o), *typed = compile_simplified(cli->c, &o);
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) model_json(out, path, g, typed);
  else model_text(cli, out, g, typed);
  cli_out_done(cli, out);
}

/* ---- compiled libraries ---- */

static void print_names(FILE *out, const char *what, const char *const *names, int n) {
  fprintf(out, "%s", what);
  for (int i = 0; i < n; i++) fprintf(out, " %s", names[i]);
  fputc('\n', out);
}

/* JSON text with a line for each member of the outer two levels. */
static void print_json_lines(FILE *out, const char *text) {
  int depth = 0;
  bool quoted = false;
  for (const char *p = text; *p; p++) {
    if (*p == '"' && (p == text || p[-1] != '\\')) quoted = !quoted;
    if (!quoted && (*p == '}' || *p == ']') && --depth < 2) fprintf(out, "\n%*s", 2 * depth, "");
    fputc(*p, out);
    if (quoted) continue;
    if (*p == '{' || *p == '[') depth++;
    if (strchr("{[,", *p) && depth < 3 && depth > 0) fprintf(out, "\n%*s", 2 * depth, "");
  }
  fputc('\n', out);
}

static void library_text(const Cli *cli, FILE *out, const ElfLibrary *e, const char *note) {
  Ctx *c = cli->c;
  if (shows(cli, "sizes", true)) {
    fprintf(out, "ELF %s, %s\n", e->machine, text_bytes(c, e->file_bytes));
    for (int i = 0; i < e->sections.n; i++)
      if (e->sections.v[i].loaded && (cli->verbose > 0 || e->sections.v[i].bytes >= 1024))
        fprintf(out, "  %-18s %s\n", e->sections.v[i].name, text_bytes(c, e->sections.v[i].bytes));
  }
  if (shows(cli, "symbols", true)) {
    print_names(out, "exports:", e->exports.v, e->exports.n);
    print_names(out, "imports:", e->imports.v, e->imports.n);
    print_names(out, "needs:", e->needed.v, e->needed.n);
  }
  if (note && shows(cli, "note", true)) print_json_lines(out, note);
}

static void json_names(Json *j, const char *key, const char *const *names, int n) {
  json_array(j, key);
  for (int i = 0; i < n; i++) json_text(j, NULL, names[i]);
  json_close(j, ']');
}

static void library_json(FILE *out, const char *path, const ElfLibrary *e, const char *note) {
  Json j = json_begin(out, "inspect");
  json_text(&j, "library", path);
  json_text(&j, "machine", e->machine);
  json_int(&j, "bytes", e->file_bytes);
  json_object(&j, "sections");
  for (int i = 0; i < e->sections.n; i++)
    if (e->sections.v[i].loaded) json_int(&j, e->sections.v[i].name, e->sections.v[i].bytes);
  json_close(&j, '}');
  json_names(&j, "exports", e->exports.v, e->exports.n);
  json_names(&j, "imports", e->imports.v, e->imports.n);
  json_names(&j, "needs", e->needed.v, e->needed.n);
  json_text(&j, "note", note);
  json_end(&j);
}

static void inspect_library(const Cli *cli, const char *path) {
  ElfLibrary e = elf_read(cli->c, path);
  elf_model_prefix(cli->c, &e, path);
  const char *note = note_read(cli->c, path);
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) library_json(out, path, &e, note);
  else library_text(cli, out, &e, note);
  cli_out_done(cli, out);
}

int verb_inspect(Cli *cli) {
  const char *path = cli->args.v[0];
  if (cli_is_model(path)) inspect_model(cli, path);
  else inspect_library(cli, path);
  return 0;
}
