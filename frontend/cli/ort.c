/* ort.c - ONNX Runtime as a reference, where python3 has it: arrays go and come as .npy files in a temporary folder. */
#include "runner.h"
#include "../../ir/diag.h"
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* argv: folder model. Exit status 7: no onnxruntime; 1: it failed, and standard output says why. */
static const char script[] =
    "import sys\n"
    "try:\n"
    "    import numpy, onnxruntime\n"
    "except ImportError as e:\n"
    "    print(e); sys.exit(7)\n"
    "folder, model = sys.argv[1:]\n"
    "try:\n"
    "    options = onnxruntime.SessionOptions()\n"
    "    options.log_severity_level = 4\n"
    "    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])\n"
    "    feeds = {x.name: numpy.load(f'{folder}/in_{i}.npy') for i, x in enumerate(session.get_inputs())}\n"
    "    for i, y in enumerate(session.run(None, feeds)):\n"
    "        numpy.save(f'{folder}/out_{i}.npy', numpy.require(y, requirements='C'))\n"
    "except Exception as e:\n"
    "    print(str(e).strip().splitlines()[-1]); sys.exit(1)\n"
    "print('onnxruntime', onnxruntime.__version__)\n";

typedef struct {
  Ctx *c;
  const char *folder, *model;
  int files;
} Ort;

static void remove_folder(void *object) {
  Ort *o = object;
  char path[4096];
  for (int i = 0; i < 2 * o->files; i++) {
    snprintf(path, sizeof path, "%s/%s_%d.npy", o->folder, i % 2 ? "out" : "in", i / 2);
    unlink(path);
  }
  rmdir(o->folder);
}

/* Runs the script; its standard output, cut to `size`, in text. The exit status, -1 if python3 did not start. */
static int run_script(const Ort *o, char *text, size_t size) {
  int ends[2], status;
  pid_t child;
  const char *python = getenv("DLC_PYTHON");
  char *argv[] = {
      (char *)(python ? python : "python3"), "-c", (char *)script, (char *)o->folder, (char *)o->model, NULL};
  posix_spawn_file_actions_t actions;
  if (pipe(ends) != 0) return -1;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  int failed = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  size_t n = 0;
  ssize_t got;
  while (!failed && n + 1 < size && (got = read(ends[0], text + n, size - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  text[strcspn(text, "\n")] = 0;
  close(ends[0]);
  if (failed) return -1;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void ort_run(Runner *r, const Array *in, Array *out) {
  Ort *o = r->state;
  char text[512];
  for (int i = 0; i < r->ninputs; i++) npy_write(r->c, ctx_printf(r->c, "%s/in_%d.npy", o->folder, i), &in[i]);
  int status = run_script(o, text, sizeof text);
  if (status == 7 || status == -1)
    diag_fail(r->c, E0701, NULL, "pip install onnxruntime, or DLC_PYTHON=the python3 that has it",
              "--ref=ort wants python3 with onnxruntime%s%s", status == 7 ? ": " : "",
              status == 7 ? diag_quote(r->c, text) : "");
  if (status != 0)
    diag_fail(r->c, E0503, NULL, NULL, "onnxruntime cannot run %s: %s", diag_quote(r->c, o->model),
              diag_quote(r->c, text));
  r->what = ctx_printf(r->c, "%s", text);
  for (int i = 0; i < r->noutputs; i++) out[i] = npy_read(r->c, ctx_printf(r->c, "%s/out_%d.npy", o->folder, i));
}

Runner *runner_ort(Ctx *c, const char *model, const Runner *like) {
  Ort *o = NEW(c, Ort);
  const char *base = getenv("TMPDIR");
  char *folder = ctx_printf(c, "%s/dlc-XXXXXX", base ? base : "/tmp");
  if (!mkdtemp(folder))
    diag_fail(c, E0502, NULL, NULL, "cannot make a folder in %s: %s", diag_quote(c, base ? base : "/tmp"),
              strerror(errno));
  *o = (Ort){c, folder, model, MAX(like->ninputs, like->noutputs)};
  ctx_defer(c, remove_folder, o);
  Runner *r = NEW(c, Runner);
  *r = *like;
  r->path = model;
  r->what = "onnxruntime";
  r->run = ort_run;
  r->state = o;
  return r;
}
