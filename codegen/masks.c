/* masks.c - which sums under a lane mask may leave the other lanes of their registers with anything in them.
 *
 * At the end of a data axis a vector loop runs over fewer lanes than a register has. The rest of the lanes need not be kept if whatever
 * reads the register does so under the same mask: the sum is then a plain multiply-add.
 */
#include "codegen.h"

/* Registers first, first + step, .. last; store NULL: a read. */
typedef struct { const Tensor *t; const Expr *extent; int64_t first, last, step; const Stmt *store; } Use;

typedef struct { Ctx *c; const Stmt *vector; VEC(Use) reads, sums; } Masks;

static Use use_of(Masks *w, const Tensor *t, Expr *index, const Stmt *store) {
  Ctx *c = w->c;
  Use u = {.t = t, .last = INT64_MAX, .step = 1, .store = store};
  if (!w->vector || !expr_uses(index, w->vector->sym)) return u;
  u.extent = w->vector->extent;
  Expr *base = ex_sub(c, index, w->vector->sym->self);
  Range r = expr_range(c, base);
  int64_t lanes = w->vector->lanes;
  if (r.min < 0 || r.min % lanes || r.max == INT64_MAX) return u;
  int64_t step = expr_range(c, ex_sub(c, base, ex_int(c, r.min))).multiple;
  u.first = r.min / lanes;
  u.last = r.max / lanes;
  if (step % lanes == 0) u.step = step / lanes;
  return u;
}

static bool apart(const Use *a, const Use *b) {
  int64_t common = int_gcd(a->step, b->step);
  return a->t != b->t || a->last < b->first || b->last < a->first || (common > 1 && (a->first - b->first) % common);
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
      same = apart(a, b) || a->extent == b->extent;
    }
    if (same) map_set(loose, KEY(a->store), (void *)a->store);
  }
}
