/* session.c - what dlc bench and dlc profile do before they measure. */
#define _GNU_SOURCE
#include "session.h"
#include "progress.h"
#include "term.h"
#include "../compile.h"
#include "../outfile.h"
#include "../../codegen/header.h"
#include "../../codegen/link.h"
#include <errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a process of its own, so that the compiler's memory is not counted as the model's. */
static int compile_apart(Cli *cli, Options *o) {
  int status;
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) diag_fail(cli->c, E0601, NULL, NULL, "cannot start the compiler");
  if (child == 0) {
    CompileReport report = {.nodes_before = 0};
    Progress progress = progress_new(cli);
    o->progress = progress_report;
    o->progress_user = &progress;
    status = dlc_compile(o, &report);
    if (status == 0) progress_done(&progress);
    fflush(NULL);
    _exit(status);
  }
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) diag_fail(cli->c, E0601, NULL, NULL, "the compiler is lost: %s", strerror(errno));
  if (!WIFEXITED(status)) diag_fail(cli->c, E0602, NULL, NULL, "the compiler was ended by signal %d", WTERMSIG(status));
  return WEXITSTATUS(status);
}

/* The library of the model, which goes when the Ctx does. */
static const char *compile_model(Cli *cli, int *status) {
  Options o = cli_compile_options(cli);
  const char *model = cli->args.v[0], *slash = strrchr(model, '/'), *stem = slash ? slash + 1 : model;
  const char *path = outfile_temporary(cli->c, ".so");
  outfile_vanishes(cli->c, ctx_printf(cli->c, "%.*s.h", (int)strlen(path) - 3, path));
  o.name = header_identifier(cli->c, ctx_printf(cli->c, "%.*s", (int)strlen(stem) - 5, stem));
  o.output = path;
  o.verbose = 0;
  *status = compile_apart(cli, &o);
  return path;
}

static void load(Session *s, const char *path) {
  const Machine *m = &s->machine;
  dlc_opts opts = {.struct_size = sizeof opts, .threads = (int32_t)cli_int(s->cli, OPT_THREADS, 0, 1023, 0)};
  if (s->pinned) opts.cpus = m->cpus, opts.n_cpus = m->ncpus;
  s->memory_before = memory_now();
  double start = clock_seconds();
  s->library = library_load(s->c, path);
  if (s->library->model->struct_size < sizeof(dlc_model))
    diag_fail(s->c, E0503, NULL, "compile the model again", "%s is older than this dlc and cannot be measured by it", diag_quote(s->c, path));
  library_context(s->library, &opts);
  s->load_s = clock_seconds() - start;
  s->threads = s->library->model->trace(s->library->ctx, NULL, 0);
}

/* What the model's dims are, by its inputs. */
static void bind_dims(Session *s, const Runner *r) {
  for (int i = 0; i < r->ninputs; i++)
    for (int d = 0; d < r->inputs[i].rank; d++)
      if (r->inputs[i].dims[d] < 0 && r->inputs[i].dim_names[d])
        map_set(&s->records->dims, KEY(ctx_intern(s->c, r->inputs[i].dim_names[d])), &s->in[i].dims[d]);
}

/* Of a context for these sizes; a dim that data decide may be as large as it gets. */
static int64_t workspace_bytes(const Session *s) {
  const dlc_model *m = s->library->model;
  dlc_opts opts = {.struct_size = sizeof opts, .threads = s->threads};
  int64_t *dims = NEW_ARRAY(s->c, int64_t, m->n_dims);
  size_t bytes;
  for (int i = 0; i < m->n_dims; i++) {
    const int64_t *v = map_get(&s->records->dims, KEY(ctx_intern(s->c, m->dim_names[i])));
    dims[i] = v ? *v : m->dim_max[i];
  }
  return m->workspace_size(&opts, dims, &bytes) == 0 ? (int64_t)bytes : -1;
}

static void pin_caller(const Session *s, int ncpus) {
  const Machine *m = &s->machine;
  size_t size = CPU_ALLOC_SIZE(m->ncpus ? m->cpus[m->ncpus - 1] + 1 : 1);
  cpu_set_t *set = ctx_alloc(s->c, size);
  for (int i = 0; i < ncpus; i++) CPU_SET_S(m->cpus[i], size, set);
  if (ncpus) sched_setaffinity(0, size, set);
}

Peak session_peak(Session *s) {
  if (s->pinned) pin_caller(s, s->machine.ncpus);
  return peak_measure(s->c, MIN(s->threads, MAX(s->machine.ncpus, 1)));
}

static void refuse_compile_options(const Cli *cli) {
  static const OptionId ids[] = {OPT_CPU, OPT_FP32, OPT_JOBS};
  for (int i = 0; i < COUNT(ids); i++)
    if (cli_has(cli, ids[i]))
      diag_fail(cli->c, E0202, NULL, NULL, "--%s is for a MODEL.onnx: %s is compiled already", option_info[ids[i]].name,
                diag_quote(cli->c, cli->args.v[0]));
}

Session *session_open(Cli *cli, int *status) {
  Session *s = NEW(cli->c, Session);
  const char *path = cli->args.v[0];
  bool model = cli_is_model(path);
  *s = (Session){.cli = cli, .c = cli->c, .pinned = cli_has(cli, OPT_PIN)};
  *status = 0;
  if (model) path = compile_model(cli, status);
  else refuse_compile_options(cli);
  if (*status != 0) return NULL;
  s->machine = machine_read(s->c);
  load(s, path);
  s->library->path = cli->args.v[0];
  s->records = records_read(s->c, note_read(s->c, path), cli->args.v[0]);
  Runner *r = library_runner(s->library);
  r->symbolic = !model;                                      /* a model was compiled with --dim and --shape */
  s->in = runner_inputs(cli, r);
  s->out = NEW_ARRAY(s->c, Array, r->noutputs);
  s->call = library_call(s->library, s->in, s->out);
  bind_dims(s, r);
  s->workspace = workspace_bytes(s);
  if (s->pinned) pin_caller(s, 1);
  double start = clock_seconds();
  library_run(s->library, s->call);
  s->first_s = clock_seconds() - start;
  return s;
}

void session_warm_up(Session *s) {
  double end = clock_seconds() + cli_duration(s->cli, OPT_WARMUP, 0.2);
  while (clock_seconds() < end) library_run(s->library, s->call);
}

const char *session_inputs(const Session *s) {
  Str text = str_new(s->c);
  for (int i = 0; i < s->library->model->n_inputs; i++)
    str_add(&text, "%s%s %s", i ? ", " : "", diag_quote(s->c, s->library->model->inputs[i].name), array_type_text(s->c, &s->in[i]));
  return text.s;
}
