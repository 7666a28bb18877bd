/* masks.c - which sums under a lane mask may leave the other lanes of their registers with anything in them.
 *
 * At the end of a data axis a vector loop runs over fewer lanes than a register has. The rest of the lanes need not be kept if whatever
 * reads the register does so under the same mask: the sum is then a plain multiply-add.
 */
#include "codegen.h"

typedef struct { const Tensor *t; const Expr *extent; int64_t first, last; const Stmt *store; } Use;   /* registers first..last; store NULL: a read */

typedef struct { Ctx *c; const Stmt *vector; VEC(Use) reads, sums; } Masks;

static Use use_of(Masks *w, const Tensor *t, Expr *index, const Stmt *store) {
  Range r = expr_range(w->c, index);
  int64_t lanes = w->vector ? w->vector->lanes : 1;
  bool moves = w->vector && expr_uses(index, w->vector->sym), known = moves && r.min >= 0 && r.max < INT64_MAX;
  return (Use){t, moves ? w->vector->extent : NULL, known ? r.min / lanes : 0, known ? r.max / lanes : INT64_MAX, store};
}

static void note_read(const Expr *e, void *user) {
  Masks *w = user;
  if (e->op == EX_FETCH && e->u.tensor->scope == SCOPE_REG) vec_push(w->c, &w->reads, use_of(w, e->u.tensor, e->a[0], NULL));
}

static void note_uses(Masks *w, const Stmt *s) {
  const Stmt *outer = w->vector;
  if (s->op == ST_FOR && s->kind == LOOP_VECTOR) w->vector = s;
  if (s->index) expr_visit(s->index, note_read, w);
  if (s->value) expr_visit(s->value, note_read, w);
  if (s->op == ST_STORE && s->tensor->scope == SCOPE_REG && s->combiner >= 0 && w->vector && expr_uses(s->index, w->vector->sym))
    vec_push(w->c, &w->sums, use_of(w, s->tensor, s->index, s));
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) note_uses(w, s->body[i]);
  w->vector = outer;
}

void masks_note(Ctx *c, Map *loose, const Stmt *body) {
  Masks w = {.c = c};
  note_uses(&w, body);
  for (int i = 0; i < w.sums.n; i++) {
    const Use *a = &w.sums.v[i];
    bool same = true;
    for (int j = 0; j < w.reads.n && same; j++) {
      const Use *b = &w.reads.v[j];
      same = a->t != b->t || a->last < b->first || b->last < a->first || a->extent == b->extent;
    }
    if (same) map_set(loose, KEY(a->store), (void *)a->store);
  }
}
