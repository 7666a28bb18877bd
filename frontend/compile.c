/* compile.c - the library entry: one Ctx, the pipeline, and the one place where errors unwind to. */
#include "compile.h"
#include "output.h"
#include "text.h"
#include "../passes/passes.h"
#include <time.h>

const char *const compile_stages[] = {"read", "optimise", "schedule", "codegen", "link", NULL};

int dlc_guard(int (*body)(Ctx *, void *), bool (*failed)(Ctx *, void *), void *user) {
  Ctx *c = ctx_new();
  Diags *d = ctx_diags(c);
  volatile int status = 0;
  if (setjmp(d->unwind) == 0) {
    d->armed = true;
    status = body(c, user);
  }
  d->armed = false;
  int error = diag_exit_status(c);
  if (error && !(failed && failed(c, user))) diag_print(c, stderr);
  ctx_free(c);
  return error ? error : status;
}

static void read_text(Module *m, const Source *s, OnnxInfo *info) {
  text_read(m, s);
  if (!info) return;
  *info = (OnnxInfo){.producer = "", .producer_version = "", .nodes = m->graph->nodes.n, .bytes = (int64_t)s->size};
  source_sha256(s, info->sha256);
}

static void read_file(Module *m, OnnxInfo *info) {
  const Options *o = m->opt;
  OnnxOptions onnx = {.dims = o->dims.v,
                      .ndims = o->dims.n,
                      .shapes = o->shapes.v,
                      .nshapes = o->shapes.n,
                      .hash = info != NULL,
                      .info = info};
  ctx_diags(m->c)->file = o->model;
  const Source *s = source_open(m->c, o->model, false);
  if (text_is_ir(s)) read_text(m, s, info);
  else m->graph = onnx_import_source(s, &onnx);
}

static Module *module_new(Ctx *c, const Options *o, OnnxInfo *info) {
  Module *m = NEW(c, Module);
  *m = (Module){.c = c,
                .opt = o,
                .target = target_find(c, o->cpu),
                .schedule = sched_rules_choose,
                .host = &codegen_host,
                .notes = str_new(c)};
  read_file(m, info);
  return m;
}

static Graph *graph_of(const Module *m) {
  if (m->done) diag_fail(m->c, E0202, NULL, "dlc compile takes it", "a graph is wanted; this text stands behind %s", m->done);
  return m->graph;
}

Graph *compile_read(Ctx *c, const Options *o) { return graph_of(module_new(c, o, NULL)); }

Graph *compile_simplified(Ctx *c, const Options *o) {
  Module *m = module_new(c, o, NULL);
  graph_of(m);
  pass_simplify(m);
  diag_check(c);
  return m->graph;
}

/* A compile under way: the stages that passes and this file report are timed, then told to the user's progress. */
typedef struct {
  const Options *o;
  CompileReport *report;
  Module *m;
  double started;
} Job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(const Job *j, const char *stage, double fraction, const char *detail) {
  if (j->o->progress) j->o->progress(j->o->progress_user, stage, fraction, detail);
}

/* What there is to say when a stage is over. */
static const char *stage_result(const Job *j, const char *stage) {
  const CompileReport *r = j->report;
  const Module *m = j->m;
  if (!m) return NULL;
  Ctx *c = m->c;
  if (!strcmp(stage, "read"))
    return ctx_printf(c, "%d nodes, %.1f M parameters, sha256 %.8s", r->nodes_before, (double)r->params / 1e6,
                      r->sha256);
  if (!strcmp(stage, "optimise"))
    return ctx_printf(c, "%d -> %d nodes: %d folded, %d fused", r->nodes_before, m->graph->nodes.n, m->folded,
                      m->fused);
  return strcmp(stage, "schedule") ? NULL : ctx_printf(c, "%d kernels", m->kernels.n);
}

/* Closes the running stage; NULL: none follows. */
static void next_stage(Job *j, const char *name) {
  CompileReport *r = j->report;
  double t = now();
  if (r->nstages) {
    StageTime *last = &r->stage[r->nstages - 1];
    last->seconds = t - j->started;
    tell(j, last->name, 1, stage_result(j, last->name));
  }
  j->started = t;
  if (name && r->nstages < COUNT(r->stage)) snprintf(r->stage[r->nstages++].name, sizeof r->stage->name, "%s", name);
}

static void on_progress(void *user, const char *stage, double fraction, const char *detail) {
  Job *j = user;
  if (!j->report->nstages || strcmp(j->report->stage[j->report->nstages - 1].name, stage) != 0) next_stage(j, stage);
  tell(j, stage, fraction, detail);
}

static void read_model(Job *j, Ctx *c, const Options *o) {
  CompileReport *r = j->report;
  OnnxInfo info = {.nodes = 0};
  Module *m = module_new(c, o, &info);
  r->nodes_before = info.nodes;
  r->params = info.params;
  r->model_bytes = info.bytes;
  snprintf(r->sha256, sizeof r->sha256, "%s", info.sha256);
  j->m = m;
}

static int compile_body(Ctx *c, void *user) {
  Job *j = user;
  CompileReport *r = j->report;
  Options *o = ctx_copy(c, j->o, sizeof *j->o);
  ObjectList objects = {0};
  o->progress = on_progress;
  o->progress_user = j;
  if (o->output) o->name = output_prefix(c, o);
  on_progress(j, "read", 0, NULL);
  if (o->stop_after) o->emit = "tir";
  else if (!strcmp(o->emit, "graph")) o->stop_after = "simplify";
  Outputs out = o->output ? output_open(c, o) : (Outputs){.files = {0}};
  read_model(j, c, o);
  pipeline_run(j->m);
  if (!o->output) {
    fputs(module_text(j->m), stdout);
    return 0;
  }
  on_progress(j, "codegen", 0, NULL);
  if (output_wants(&out, "so")) {
    EntryInfo info = {o->name, output_info(j->m, r->sha256)};  /* kernels are counted before emission expands them */
    emit_kernels(j->m, &objects);
    entry_emit(j->m, &info, &objects);
  }
  on_progress(j, "link", 0, NULL);
  output_write(j->m, &out, &objects, r->sha256);
  output_commit(j->m, &out, r);
  next_stage(j, NULL);
  if (o->explain) fputs(j->m->notes.s, stdout);
  return 0;
}

static bool compile_failed(Ctx *c, void *user) {
  const Options *o = ((Job *)user)->o;
  if (o->progress) o->progress(o->progress_user, NULL, 0, NULL);
  return false;
}

int dlc_compile(const Options *o, CompileReport *report) {
  Job job = {.o = o, .report = report, .started = now()};
  return dlc_guard(compile_body, compile_failed, &job);
}
