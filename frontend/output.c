/* output.c - the files of a compile. */
#include "output.h"
#include "../codegen/header.h"
#include "../codegen/link.h"
#include "../passes/passes.h"
#include "elf.h"
#include "records.h"
#include "../ir/blob.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

const char *output_prefix(Ctx *c, const Options *o) {
  if (o->name) {
    if (strcmp(header_identifier(c, o->name), o->name) != 0)
      diag_fail(c, E0202, NULL, ctx_printf(c, "--name=%s", header_identifier(c, o->name)),
                "--name: %s is not a C identifier", diag_quote(c, o->name));
    return o->name;
  }
  const char *slash = strrchr(o->output, '/'), *base = slash ? slash + 1 : o->output, *dot = strchr(base, '.');
  if (!strncmp(base, "lib", 3) && base[3] && base[3] != '.') base += 3;
  return header_identifier(c, dot && dot > base ? ctx_printf(c, "%.*s", (int)(dot - base), base) : base);
}

static HeaderIo *header_ports(Ctx *c, Tensor *const *t, int n) {
  HeaderIo *io = NEW_ARRAY(c, HeaderIo, n);
  for (int i = 0; i < n; i++) {
    int64_t *dims = NEW_ARRAY(c, int64_t, MAX(t[i]->rank, 1));
    const char **names = NEW_ARRAY(c, const char *, MAX(t[i]->rank, 1));
    for (int d = 0; d < t[i]->rank; d++)
      if (!ex_is_int(t[i]->shape[d], &dims[d])) {
        dims[d] = -1;
        names[d] = t[i]->shape[d]->op == EX_SYM ? t[i]->shape[d]->u.sym->name : NULL;
      }
    io[i] = (HeaderIo){t[i]->name, t[i]->dtype, t[i]->rank, dims, names};
  }
  return io;
}

/* As a library tells of it: this machine's CPU has a name too. */
static const char *cpu_name(const Target *t) { return strcmp(t->name, "host") ? t->name : t->cpu; }

/* At the largest sizes; -1 if a dimension has no bound but the one that every dimension has. */
static int64_t workspace_bytes(Module *m) {
  Range none = {0, 0, 1}, arena = m->arena_bytes ? expr_range(m->c, m->arena_bytes) : none;
  Range scratch = m->scratch_bytes ? expr_range(m->c, m->scratch_bytes) : none;
  int64_t bytes;
  for (int i = 0; i < m->graph->dims.n; i++)
    if (m->graph->dims.v[i]->max >= DIM_MAX) return -1;
  return arena.max == INT64_MAX || scratch.max == INT64_MAX || !add_ok(arena.max, scratch.max, &bytes) ? -1 : bytes;
}

static const char *header_of(Module *m, const char *sha256) {
  Graph *g = m->graph;
  const char **syms = NEW_ARRAY(m->c, const char *, MAX(g->dims.n, 1));
  for (int i = 0; i < g->dims.n; i++) syms[i] = g->dims.v[i]->name;
  HeaderInfo info = {.prefix = m->opt->name,
                     .model_sha256 = sha256,
                     .target = m->target->triple,
                     .cpu = cpu_name(m->target),
                     .ninputs = g->inputs.n,
                     .noutputs = g->outputs.n,
                     .syms = syms,
                     .nsyms = g->dims.n,
                     .workspace_bytes = workspace_bytes(m),
                     .weights_bytes = m->weight_bytes};
  info.inputs = header_ports(m->c, g->inputs.v, g->inputs.n);
  info.outputs = header_ports(m->c, g->outputs.v, g->outputs.n);
  return header_text(m->c, &info);
}

void output_json_ports(Json *j, Ctx *c, const char *key, Tensor *const *t, int n) {
  json_array(j, key);
  for (int i = 0; i < n; i++) {
    json_object(j, NULL);
    json_text(j, "name", t[i]->name);
    json_text(j, "dtype", dtype_info[t[i]->dtype].name);
    json_array(j, "shape");
    for (int d = 0; d < t[i]->rank; d++) {
      int64_t v;
      if (ex_is_int(t[i]->shape[d], &v)) json_int(j, NULL, v);
      else json_text(j, NULL, expr_text(c, t[i]->shape[d]));
    }
    json_close(j, ']');
    json_close(j, '}');
  }
  json_close(j, ']');
}

const char *output_info(Module *m, const char *sha256) {
  char *text = NULL;
  size_t size = 0;
  FILE *memory = open_memstream(&text, &size);
  if (!memory) diag_fail(m->c, E0601, NULL, NULL, "out of memory");
  Json j = json_begin(memory, "model");
  json_text(&j, "name", m->opt->name);
  json_text(&j, "model_sha256", sha256);
  json_text(&j, "target", m->target->triple);
  json_text(&j, "cpu", cpu_name(m->target));
  output_json_ports(&j, m->c, "inputs", m->graph->inputs.v, m->graph->inputs.n);
  output_json_ports(&j, m->c, "outputs", m->graph->outputs.v, m->graph->outputs.n);
  json_int(&j, "weight_bytes", m->weight_bytes);
  records_json(&j, m);
  json_close(&j, '}');
  fclose(memory);
  const char *info = ctx_printf(m->c, "%s", text);
  free(text);
  return info;
}

static bool write_weights(void *module, int fd, int64_t at, uint64_t *digest) {
  return weights_write(module, fd, at, digest);
}

/* The library of all objects and the weights, at `path`. */
static void link_library(Module *m, const ObjectList *objects, const char *path) {
  Link *l = link_begin(m->c, m->target->triple, path);
  const char *exports[2] = {ctx_printf(m->c, "%s_model", m->opt->name), ctx_printf(m->c, "%s_run", m->opt->name)};
  for (int i = 0; i < objects->n; i++) link_object(l, objects->v[i].name, objects->v[i].bytes, objects->v[i].size);
  if (m->weight_bytes) link_data(l, "dlc_weights", m->weight_bytes, write_weights, m);
  link_shared(l, exports, 2, NULL);
}

static int64_t file_bytes(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? st.st_size : 0;
}

static void put_ports(Ctx *c, char *text, size_t size, Tensor *const *t, int n) {
  size_t at = 0;
  for (int i = 0; i < n && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, "%s%s %s", i ? ", " : "", t[i]->name, tensor_type_text(c, t[i]));
}

/* x.so with another suffix: x.h */
static const char *with_suffix(Ctx *c, const char *path, const char *suffix) {
  const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
  bool cut = dot && (!slash || dot > slash + 1) && dot != path;
  return ctx_printf(c, "%.*s%s", cut ? (int)(dot - path) : (int)strlen(path), path, suffix);
}

typedef struct {
  const char *kind, *suffix;
} EmitKind;
static const EmitKind emit_kinds[] = {
    {"so", ".so"}, {"ll", ".ll"}, {"asm", ".s"}, {"graph", ".graph"}, {"tir", ".tir"}};

const char *compile_suffix(const char *kind, size_t n) {
  for (int i = 0; i < COUNT(emit_kinds); i++)
    if (strlen(emit_kinds[i].kind) == n && !memcmp(emit_kinds[i].kind, kind, n)) return emit_kinds[i].suffix;
  return NULL;
}

static bool is_ir(const char *kind) { return !strcmp(kind, "graph") || !strcmp(kind, "tir"); }

static OutFile *add_file(Ctx *c, Outputs *out, const char *path, const char *kind) {
  for (int i = 0; i < out->files.n; i++)
    if (!strcmp(out->files.v[i]->path, path))
      diag_fail(c, E0202, NULL, NULL, "--output: two files of this compile would be %s", diag_quote(c, path));
  OutFile *f = outfile_new(c, path);
  vec_push(c, &out->files, f);
  vec_push(c, &out->kinds, kind);
  return f;
}

/* The first kind has the name of -o, the others its stem. */
Outputs output_open(Ctx *c, const Options *o) {
  Outputs out = {.files = {0}};
  bool ir = false;
  for (const char *p = o->emit; *p; p += strcspn(p, ","), p += *p == ',') {
    size_t n = strcspn(p, ",");
    const char *suffix = compile_suffix(p, n), *kind = ctx_intern_n(c, p, n);
    if (!suffix)
      diag_fail(c, E0202, NULL, "so, ll, asm, graph, tir", "--emit: there is no kind %s", diag_quote(c, kind));
    const char *path = out.files.n ? with_suffix(c, o->output, suffix) : o->output;
    ir |= is_ir(kind);
    OutFile *f = add_file(c, &out, path, kind);
    if (strcmp(kind, "so") != 0) continue;
    f->program = true;
    add_file(c, &out, with_suffix(c, path, ".h"), "header");
  }
  if (ir) add_file(c, &out, with_suffix(c, o->output, ".data"), "data");
  return out;
}

static void fill_report(Module *m, CompileReport *r) {
  Graph *g = m->graph;
  r->nodes_after = g->nodes.n;
  r->folded = m->folded;
  r->fused = m->fused;
  r->kernels = m->kernels.n;
  r->weight_bytes = m->weight_bytes;
  r->workspace_bytes = workspace_bytes(m);
  snprintf(r->cpu, sizeof r->cpu, "%s%s", cpu_name(m->target), strcmp(m->target->name, "host") ? "" : " (host)");
  snprintf(r->triple, sizeof r->triple, "%s", m->target->triple);
  snprintf(r->name, sizeof r->name, "%s", m->opt->name);
  put_ports(m->c, r->inputs, sizeof r->inputs, g->inputs.v, g->inputs.n);
  put_ports(m->c, r->outputs, sizeof r->outputs, g->outputs.v, g->outputs.n);
}

bool output_wants(const Outputs *out, const char *kind) {
  for (int i = 0; i < out->kinds.n; i++)
    if (!strcmp(out->kinds.v[i], kind)) return true;
  return false;
}

static const char *text_of(Module *m, const char *kind, const char *sha256) {
  if (!strcmp(kind, "header")) return header_of(m, sha256);
  if (!strcmp(kind, "graph")) return m->graph_text;
  if (!strcmp(kind, "tir")) return module_text(m);
  return emit_text(m, kind);
}

/* The texts of IR name the data file if there is any need of it, else it is dropped. */
static void write_data(Module *m, Outputs *out, const char **texts) {
  int n = out->files.n - 1;
  if (n < 0 || strcmp(out->kinds.v[n], "data") != 0) return;
  const OutFile *data = out->files.v[n];
  const char *slash = strrchr(data->path, '/');
  if (!blob_count(m->c)) {
    out->files.n--;
    return;
  }
  FILE *f = fopen(data->temporary, "w");
  bool ok = f && blob_store(m->c, 0, f);
  if (f && fclose(f)) ok = false;
  if (!ok) diag_fail(m->c, E0502, NULL, NULL, "cannot write %s: %s", diag_quote(m->c, data->path), strerror(errno));
  for (int i = 0; i < n; i++)
    if (is_ir(out->kinds.v[i])) texts[i] = ctx_printf(m->c, "data \"%s\"\n%s", slash ? slash + 1 : data->path, texts[i]);
}

void output_write(Module *m, Outputs *out, const ObjectList *objects, const char *sha256) {
  const char **texts = NEW_ARRAY(m->c, const char *, out->files.n + 1);
  for (int i = 0; i < out->files.n; i++)
    if (!strcmp(out->kinds.v[i], "so")) link_library(m, objects, out->files.v[i]->temporary);
    else if (strcmp(out->kinds.v[i], "data") != 0) texts[i] = text_of(m, out->kinds.v[i], sha256);
  write_data(m, out, texts);
  for (int i = 0; i < out->files.n; i++)
    if (texts[i]) outfile_write(m->c, out->files.v[i], texts[i], strlen(texts[i]));
}

void output_commit(Module *m, const Outputs *out, CompileReport *r) {
  fill_report(m, r);
  outfile_commit(m->c, out->files.v, out->files.n);
  for (int i = 0; i < out->files.n; i++) {
    const char *path = out->files.v[i]->path;
    if (!strcmp(out->kinds.v[i], "header")) snprintf(r->header, sizeof r->header, "%s", path);
    if (i > 0) continue;
    snprintf(r->output, sizeof r->output, "%s", path);
    r->file_bytes = file_bytes(path);
    if (strcmp(out->kinds.v[i], "so") != 0) continue;
    ElfLibrary e = elf_read(m->c, path);
    for (int k = 0; k < e.sections.n; k++) r->code_bytes += e.sections.v[k].code ? e.sections.v[k].bytes : 0;
  }
}
