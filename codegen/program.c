/* program.c - facts about a lowered program. */
#include "program.h"

enum { FORK_CYCLES = 12000 };      /* about 4 us: below it a second thread costs more than it brings */

const Stmt *program_parallel_loop(const Kernel *k) {
  const Stmt *s = k->body;
  while (s->op == ST_ALLOC || (s->op == ST_SEQ && s->n == 1)) s = s->body[0];
  return s->op == ST_FOR && s->kind == LOOP_PARALLEL ? s : NULL;
}

static void count_node(const Expr *e, void *user) {
  if (e->op != EX_CONST && e->op != EX_SYM && e->dtype != DT_I64) *(double *)user += e->op >= EX_EXP ? 10 : 1;
}

/* What computes little waits for the lines that it writes. */
static double stmt_work(const Stmt *s) {
  const double line = 4;
  double work = 0;
  int64_t n = 1;
  if (s->op == ST_STORE) expr_visit(s->value, count_node, &work), work = MAX(work + 1, line);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) work += stmt_work(s->body[i]);
  if (s->op != ST_FOR || s->kind == LOOP_VECTOR) return work;
  return ex_is_int(s->extent, &n) ? work * (double)n : 1e15;
}

double program_work(const Kernel *k) { return stmt_work(k->body); }
bool program_is_small(const Stmt *call) { return !program_parallel_loop(call->kernel) || program_work(call->kernel) < FORK_CYCLES; }

int program_io_index(const Module *m, const Tensor *t) {
  for (int i = 0; i < m->graph->inputs.n; i++)
    if (m->graph->inputs.v[i] == t) return i;
  for (int i = 0; i < m->graph->outputs.n; i++)
    if (m->graph->outputs.v[i] == t) return m->graph->inputs.n + i;
  return diag_bug(m->c, "tensor %s is neither input nor output", t->name), -1;
}
