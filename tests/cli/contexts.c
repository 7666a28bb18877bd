/* contexts.c - four contexts, one on each of four threads, with one and two threads of their own: every result has the same bits.
 * Linked with digits.so by library.sh. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "digits.h"

enum { THREADS = 4, N = 8 };
static int rounds = 200;
static float pixels[N * 64], expected[N * 10];

static int run(dlc_ctx *ctx, float *scores) {
  int64_t in_shape[4] = {N, 1, 8, 8}, out_shape[2] = {N, 10};
  DLTensor x = {.data = pixels, .device = {1, 0}, .ndim = 4, .dtype = {2, 32, 1}, .shape = in_shape};
  DLTensor y = {.data = scores, .device = {1, 0}, .ndim = 2, .dtype = {2, 32, 1}, .shape = out_shape};
  const DLTensor *in[] = {&x};
  DLTensor *out[] = {&y};
  int status = digits_model.run(ctx, in, 1, out, 1);
  if (status) fprintf(stderr, "run: %d %s\n", status, digits_model.last_error(ctx));
  return status;
}

static void *worker(void *index) {
  dlc_opts opts = {.struct_size = sizeof opts, .threads = 1 + *(int *)index % 2};
  dlc_ctx *ctx;
  float scores[N * 10];
  int bad = digits_model.ctx_new(&opts, &ctx);
  for (int i = 0; i < rounds && !bad; i++) {
    memset(scores, 0, sizeof scores);
    bad = run(ctx, scores) || memcmp(scores, expected, sizeof scores) != 0;
  }
  if (ctx) digits_model.ctx_free(ctx);
  return bad ? (void *)"differs" : NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  int index[THREADS], failed = 0;
  dlc_ctx *ctx;
  if (argc > 1) rounds = atoi(argv[1]);
  for (int i = 0; i < N * 64; i++) pixels[i] = (float)(i * 7 % 17) / 16;
  if (digits_model.ctx_new(NULL, &ctx) || run(ctx, expected)) return 1;
  digits_model.ctx_free(ctx);
  for (int i = 0; i < THREADS; i++) {
    index[i] = i;
    pthread_create(&threads[i], NULL, worker, &index[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    void *result;
    pthread_join(threads[i], &result);
    failed |= result != NULL;
  }
  puts(failed ? "results differ between contexts" : "the same bits everywhere");
  return failed;
}
