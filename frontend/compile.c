/* compile.c - the library entry: one Ctx, the pipeline, and the one place where errors unwind to. */
#include "compile.h"
#include "output.h"
#include "../passes/passes.h"
#include <time.h>

const char *const compile_stages[] = {"read", "check", "optimise", "schedule", "codegen", "link", NULL};

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

Graph *compile_read(Ctx *c, const Options *o, OnnxInfo *info) {
  OnnxOptions onnx = {.dims = o->dims.v,
                      .ndims = o->dims.n,
                      .shapes = o->shapes.v,
                      .nshapes = o->shapes.n,
                      .hash = info != NULL,
                      .info = info};
  ctx_diags(c)->file = o->model;
  return onnx_import(c, o->model, &onnx);
}

static Module *module_new(Ctx *c, const Options *o, OnnxInfo *info) {
  Module *m = NEW(c, Module);
  *m =
      (Module){.c = c, .opt = o, .target = target_find(c, o->cpu), .schedule = sched_rules_choose, .notes = str_new(c)};
  m->graph = compile_read(c, o, info);
  return m;
}

Graph *compile_simplified(Ctx *c, const Options *o) {
  Module *m = module_new(c, o, NULL);
  pass_simplify(m);
  diag_check(c);
  return m->graph;
}

typedef struct {
  const Options *o;
  CompileReport *report;
  double started;
} Job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The work of a stage is done: its time goes into the report. */
static void stage_done(Job *j, const char *name, const char *detail) {
  CompileReport *r = j->report;
  double t = now();
  if (r->nstages < COUNT(r->stage)) {
    StageTime *s = &r->stage[r->nstages++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->seconds = t - j->started;
  }
  j->started = t;
  if (j->o->progress) j->o->progress(j->o->progress_user, name, 1, detail);
}

static void stage_begins(Job *j, const char *name) {
  if (j->o->progress) j->o->progress(j->o->progress_user, name, 0, NULL);
}

static int compile_body(Ctx *c, void *user) {
  Job *j = user;
  CompileReport *r = j->report;
  Options *o = ctx_copy(c, j->o, sizeof *j->o);
  OnnxInfo info = {.nodes = 0};
  ObjectList objects = {0};
  stage_begins(j, "read");
  o->name = output_prefix(c, o);
  Outputs out = o->stop_after ? (Outputs){.files = {0}} : output_open(c, o);
  Module *m = module_new(c, o, &info);
  r->nodes_before = info.nodes;
  r->params = info.params;
  r->model_bytes = info.bytes;
  snprintf(r->sha256, sizeof r->sha256, "%s", info.sha256);
  stage_done(
      j, "read",
      ctx_printf(c, "%d nodes, %.1f M parameters, sha256 %.8s", info.nodes, (double)info.params / 1e6, info.sha256));
  pipeline_run(m);
  stage_done(j, "schedule", ctx_printf(c, "%d kernels", m->kernels.n));
  if (o->stop_after) return 0;
  stage_begins(j, "codegen");
  if (output_wants(&out, "so")) {
    emit_kernels(m, &objects);
    entry_emit(m, &(EntryInfo){o->name, output_info(m, info.sha256)}, &objects);
  }
  stage_done(j, "codegen", NULL);
  stage_begins(j, "link");
  output_write(m, &out, &objects, info.sha256);
  output_commit(m, &out, r);
  stage_done(j, "link", NULL);
  return 0;
}

static bool compile_failed(Ctx *c, void *user) {
  const Options *o = ((Job *)user)->o;
  if (o->progress) o->progress(o->progress_user, NULL, 0, NULL);
  return false;
}

int dlc_compile(const Options *o, CompileReport *report) {
  Job job = {o, report, now()};
  return dlc_guard(compile_body, compile_failed, &job);
}
