/* threads.c - see threads.h. */
#include "threads.h"

#include <pthread.h>
#include <unistd.h>

enum { MOST = 64 };

int threads_wanted(const Module *m, int64_t jobs) {
  int n = m->opt->jobs > 0 ? m->opt->jobs : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return (int)MAX(MIN(MIN(n, jobs), MOST), 1);
}

typedef struct { void (*body)(void *); void *user; } Work;

static void *start(void *work) {
  Work *w = work;
  w->body(w->user);
  return NULL;
}

void threads_run(int n, void (*body)(void *user), void *user) {
  pthread_t threads[MOST];
  Work w = {body, user};
  for (int i = 1; i < n; i++)
    if (pthread_create(&threads[i], NULL, start, &w)) n = i;
  body(user);
  for (int i = 1; i < n; i++) pthread_join(threads[i], NULL);
}
