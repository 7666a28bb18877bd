/* stmt.c - the constructors of the tensor IR's statements. */
#include "stmt.h"

#include "diag.h"

const char *const loop_kind_name[] = { "for", "parallel", "vector", "unroll", "block", "thread" };

static Stmt *st_new(Ctx *c, StmtOp op, int nbody) {
  Stmt *s = NEW(c, Stmt);
  s->op = op;
  s->combiner = -1;
  s->n = nbody;
  if (nbody) s->body = NEW_ARRAY(c, Stmt *, nbody);
  return s;
}

Stmt *st_for(Ctx *c, LoopKind kind, Sym *sym, Expr *extent, Stmt *body) {
  Stmt *s = st_new(c, ST_FOR, 1);
  s->kind = kind;
  s->sym = sym;
  s->extent = extent;
  s->body[0] = body;
  return s;
}

Stmt *st_store(Ctx *c, Tensor *t, Expr *index, Expr *value, int combiner) {
  if (value->dtype != t->dtype)
    diag_bug(c, "a value of type %s is stored to '%s' of type %s", dtype_info[value->dtype].name, t->name,
             dtype_info[t->dtype].name);
  Stmt *s = st_new(c, ST_STORE, 0);
  s->tensor = t;
  s->index = index;
  s->value = value;
  s->combiner = combiner;
  return s;
}

Stmt *st_if(Ctx *c, Expr *cond, Stmt *then, Stmt *otherwise) {
  Stmt *s = st_new(c, ST_IF, 2);
  s->value = cond;
  s->body[0] = then;
  s->body[1] = otherwise;
  return s;
}

Stmt *st_alloc(Ctx *c, Tensor *t, Stmt *body) {
  Stmt *s = st_new(c, ST_ALLOC, 1);
  s->tensor = t;
  s->body[0] = body;
  return s;
}

Stmt *st_seq(Ctx *c, Stmt *const *list, int n) {
  int total = 0;
  for (int i = 0; i < n; i++)
    if (list[i]) total += list[i]->op == ST_SEQ ? list[i]->n : 1;
  Stmt *s = st_new(c, ST_SEQ, total);
  total = 0;
  for (int i = 0; i < n; i++) {
    if (!list[i]) continue;
    if (list[i]->op != ST_SEQ) s->body[total++] = list[i];
    else for (int j = 0; j < list[i]->n; j++) s->body[total++] = list[i]->body[j];
  }
  return total == 1 ? s->body[0] : s;
}

Stmt *st_call(Ctx *c, Kernel *k, Tensor *const *args, int n) {
  Stmt *s = st_new(c, ST_CALL, 0);
  if (n != k->nparams) diag_bug(c, "kernel '%s' has %d parameters; the call gives %d", k->name, k->nparams, n);
  s->kernel = k;
  s->args = n ? ctx_copy(c, args, sizeof(*args) * (size_t)n) : NULL;
  return s;
}

Stmt *st_barrier(Ctx *c) { return st_new(c, ST_BARRIER, 0); }

Stmt *st_prefetch(Ctx *c, Tensor *t, Expr *index) {
  Stmt *s = st_new(c, ST_PREFETCH, 0);
  s->tensor = t;
  s->index = index;
  return s;
}
