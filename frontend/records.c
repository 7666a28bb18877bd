/* records.c - a record of every kernel and every call. */
#include "records.h"
#include "../codegen/work.h"

static void put_count(Json *j, Ctx *c, const char *key, const Expr *e) {
  int64_t v;
  if (e && ex_is_int(e, &v)) json_int(j, key, v);
  else json_text(j, key, e ? expr_text(c, e) : NULL);
}

static void put_kernel(Json *j, Ctx *c, const Kernel *k) {
  Work w = kernel_work(c, k);
  json_object(j, NULL);
  json_text(j, "name", k->name);
  json_text(j, "rule", k->why);
  json_text(j, "source", k->source);
  put_count(j, c, "flops", w.flops);
  put_count(j, c, "bytes", w.bytes);
  put_count(j, c, "weights", w.weights);
  json_close(j, '}');
}

/* The calls of a program without loops and choices; the IFs left are checks, whose branch ends the run. */
typedef struct { const Module *m; VEC(const Stmt *) calls; bool straight; } Steps;

static void find_steps(Steps *s, const Stmt *st) {
  if (st->op == ST_CALL) vec_push(s->m->c, &s->calls, st);
  else if (st->op == ST_IF) s->straight &= !st->body[1] && st->body[0]->op == ST_CALL && st->body[0]->kernel == s->m->stop;
  else if (st->op == ST_SEQ)
    for (int i = 0; i < st->n; i++) find_steps(s, st->body[i]);
  else s->straight = false;
}

static void put_step(Json *j, const Module *m, const Stmt *call, const Map *number) {
  const Kernel *k = call->kernel;
  json_array(j, NULL);
  json_int(j, NULL, (int64_t)(intptr_t)map_get(number, KEY(k)));
  json_text(j, NULL, call->source);
  bool renamed = false;
  for (int i = 0; i < k->dims.n; i++) renamed |= call->dims[i] != k->dims.v[i];
  if (renamed) json_object(j, NULL);
  for (int i = 0; i < k->dims.n && renamed; i++) json_text(j, k->dims.v[i]->name, call->dims[i]->name);
  if (renamed) json_close(j, '}');
  json_close(j, ']');
}

void records_json(Json *j, Module *m) {
  Map number = map_new(m->c);
  Steps s = {.m = m, .straight = true};
  json_array(j, "kernels");
  for (int i = 0; i < m->kernels.n; i++) {
    map_set(&number, KEY(m->kernels.v[i]), (void *)(intptr_t)i);
    put_kernel(j, m->c, m->kernels.v[i]);
  }
  json_close(j, ']');
  if (m->program) find_steps(&s, m->program);
  if (!s.straight) return;
  json_array(j, "steps");
  for (int i = 0; i < s.calls.n; i++) put_step(j, m, s.calls.v[i], &number);
  json_close(j, ']');
}
