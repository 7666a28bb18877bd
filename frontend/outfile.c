#include "outfile.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Temporary files that a signal or an exit must remove. The handler reads what the program wrote before. */
enum { MAX_PENDING = 16 };
static char *volatile pending[MAX_PENDING];

static void remove_pending(void) {
  for (int i = 0; i < MAX_PENDING; i++)
    if (pending[i]) unlink(pending[i]);
}

static void on_signal(int number) {
  remove_pending();
  signal(number, SIG_DFL);
  raise(number);
}

static void watch_signals(void) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  static bool watched;
  if (!watched) atexit(remove_pending);
  watched = true;
  for (int i = 0; i < COUNT(numbers); i++) {
    struct sigaction now;
    if (sigaction(numbers[i], NULL, &now) != 0 || now.sa_handler != SIG_DFL) continue;
    now.sa_handler = on_signal;
    sigaction(numbers[i], &now, NULL);
  }
}

static void set_pending(char *from, char *to) {
  for (int i = 0; i < MAX_PENDING; i++)
    if (pending[i] == from) {
      pending[i] = to;
      return;
    }
}

static void discard(void *object) {
  OutFile *f = object;
  if (!f->done) unlink(f->temporary);
  set_pending(f->temporary, NULL);
}

static _Noreturn void cannot_write(Ctx *c, const char *path) {
  diag_fail(c, E0502, NULL, NULL, "cannot write %s: %s", diag_quote(c, path), strerror(errno));
}

OutFile *outfile_new(Ctx *c, const char *path) {
  OutFile *f = NEW(c, OutFile);
  const char *slash = strrchr(path, '/');
  struct stat st;
  f->path = path;
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
    diag_fail(c, E0502, NULL, NULL, "cannot write %s: it is not a regular file", diag_quote(c, path));
  f->temporary = ctx_printf(c, "%.*s.dlc-tmp.XXXXXX", slash ? (int)(slash + 1 - path) : 0, path);
  watch_signals();
  int fd = mkstemp(f->temporary);
  if (fd < 0) cannot_write(c, path);
  close(fd);
  set_pending(NULL, f->temporary);
  ctx_defer(c, discard, f);
  return f;
}

void outfile_vanishes(Ctx *c, char *path) {
  OutFile *f = NEW(c, OutFile);
  *f = (OutFile){.path = path, .temporary = path};
  watch_signals();
  set_pending(NULL, path);
  ctx_defer(c, discard, f);
}

const char *outfile_temporary(Ctx *c, const char *suffix) {
  const char *folder = getenv("TMPDIR");
  char *path = ctx_printf(c, "%s/dlc-XXXXXX%s", folder && *folder ? folder : "/tmp", suffix);
  int fd = mkstemps(path, (int)strlen(suffix));
  if (fd < 0) cannot_write(c, path);
  close(fd);
  outfile_vanishes(c, path);
  return path;
}

void outfile_write(Ctx *c, OutFile *f, const void *bytes, size_t n) {
  FILE *to = fopen(f->temporary, "w");
  if (!to) cannot_write(c, f->path);
  bool ok = fwrite(bytes, 1, n, to) == n;
  ok = fclose(to) == 0 && ok;
  if (!ok) cannot_write(c, f->path);
}

static void sync_path(Ctx *c, const char *path, const char *reported) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* some file systems have no fsync of folders */
  if (fd >= 0) close(fd);
  if (!ok) cannot_write(c, reported);
}

void outfile_commit(Ctx *c, OutFile *const *files, int n) {
  mode_t mask = umask(0);
  umask(mask);
  for (int i = 0; i < n; i++) {
    if (chmod(files[i]->temporary, (files[i]->program ? 0777 : 0666) & ~mask) != 0) cannot_write(c, files[i]->path);
    sync_path(c, files[i]->temporary, files[i]->path);
  }
  for (int i = 0; i < n; i++) {
    if (rename(files[i]->temporary, files[i]->path) != 0) cannot_write(c, files[i]->path);
    files[i]->done = true;
  }
  for (int i = 0; i < n; i++) {
    const char *slash = strrchr(files[i]->path, '/');
    sync_path(c, slash ? ctx_printf(c, "%.*s", (int)(slash + 1 - files[i]->path), files[i]->path) : ".",
              files[i]->path);
  }
}
