/* expr_walk.c - going through expressions: visit, map, substitute, ask for symbols. Everything goes once over each
 * distinct node, whatever the sharing. */
#include "expr_impl.h"
#include <stdlib.h>

/* ---- the set of nodes seen; no Ctx, so that reading needs none and is safe from several threads ---- */
typedef struct {
  const Expr **slot;
  uint32_t n, cap;
  const Expr *local[128];
} Seen;

static void seen_init(Seen *s) {
  s->slot = s->local;
  s->n = 0;
  s->cap = COUNT(s->local);
  memset(s->local, 0, sizeof s->local);
}

static void seen_free(Seen *s) {
  if (s->slot != s->local) free(s->slot);
}

static const Expr **seen_slot(Seen *s, const Expr *e) {
  uint32_t at = (uint32_t)mix64(e->id) & (s->cap - 1);
  while (s->slot[at] && s->slot[at] != e) at = (at + 1) & (s->cap - 1);
  return &s->slot[at];
}

static void seen_grow(Seen *s) {
  const Expr **old = s->slot;
  uint32_t old_cap = s->cap;
  s->cap *= 2;
  s->slot = calloc(s->cap, sizeof *s->slot);
  if (!s->slot) abort();
  for (uint32_t i = 0; i < old_cap; i++)
    if (old[i]) *seen_slot(s, old[i]) = old[i];
  if (old != s->local) free(old);
}

static bool seen_add(Seen *s, const Expr *e) {              /* false if it was there */
  const Expr **at = seen_slot(s, e);
  if (*at) return false;
  *at = e;
  if (2 * ++s->n > s->cap) seen_grow(s);
  return true;
}

static void visit(Seen *seen, const Expr *e, void (*f)(const Expr *, void *), void *user) {
  if (!seen_add(seen, e)) return;
  for (int i = 0; i < e->n; i++) visit(seen, e->a[i], f, user);
  f(e, user);
}

void expr_visit(const Expr *e, void (*f)(const Expr *e, void *user), void *user) {
  Seen seen;
  seen_init(&seen);
  visit(&seen, e, f, user);
  seen_free(&seen);
}

/* A free use: a symbol that a reduction binds is not used by the reduction, but the extents of its axes are. */
static bool uses(Seen *seen, const Expr *e, const Sym *s) {
  if (e->op == EX_SYM) return e->u.sym == s;
  if (!(e->syms >> (s->id & 31) & 1) || !seen_add(seen, e)) return false;
  if (e->op == EX_REDUCE)
    for (int i = 1; i < e->n; i++) {
      const Sym *axis = e->a[i]->u.sym;
      if (axis->extent && uses(seen, axis->extent, s)) return true;
      if (axis == s) return false;
    }
  for (int i = 0; i < (e->op == EX_REDUCE ? 1 : e->n); i++)
    if (uses(seen, e->a[i], s)) return true;
  return false;
}

bool expr_uses(const Expr *e, const Sym *s) {
  if (!(e->syms >> (s->id & 31) & 1)) return false;
  Seen seen;
  seen_init(&seen);
  bool found = uses(&seen, e, s);
  seen_free(&seen);
  return found;
}

/* ---- map ---- */
typedef struct { Ctx *c; Map memo; Expr *(*f)(Ctx *, Expr *, void *); void *user; } Mapping;

static Expr *rebuild(Ctx *c, Expr *e, Expr *const *a) {
  return memcmp(a, e->a, sizeof *a * e->n) ? ex_make(c, e, a) : e;
}

static Expr *map_expr(Mapping *m, Expr *e) {
  Expr *done = map_get(&m->memo, KEY(e));
  if (done) return done;
  Expr *few[4], **a = e->n <= COUNT(few) ? few : NEW_ARRAY(m->c, Expr *, e->n);
  for (int i = 0; i < e->n; i++) a[i] = e->op == EX_REDUCE && i > 0 ? e->a[i] : map_expr(m, e->a[i]);
  Expr *r = m->f(m->c, e->n ? rebuild(m->c, e, a) : e, m->user);
  map_set(&m->memo, KEY(e), r);
  return r;
}

Expr *expr_map(Ctx *c, Expr *e, Expr *(*f)(Ctx *c, Expr *e, void *user), void *user) {
  Mapping m = {c, map_new(c), f, user};
  return map_expr(&m, e);
}

static Expr *put(Ctx *c, Expr *e, void *user) {
  Expr **pair = user;
  (void)c;
  return e == pair[0] ? pair[1] : e;
}

Expr *expr_replace(Ctx *c, Expr *e, Expr *from, Expr *to) {
  Expr *pair[] = {from, to};
  return expr_map(c, e, put, pair);
}

/* ---- substitution ---- */
Subst subst_new(Ctx *c) { return (Subst){c, map_new(c), 0}; }

static void replace(Subst *s, const Sym *from, Expr *to) {
  map_set(&s->memo, KEY(from->self), to);
  if (to != from->self) s->syms |= from->self->syms;
}

void subst_set(Subst *s, const Sym *from, Expr *to) {
  if (to->dtype != DT_I64)
    diag_bug(s->ctx, "symbol %s replaced by %s, which is %s", from->name, expr_text(s->ctx, to),
             dtype_info[to->dtype].name);
  replace(s, from, to);
}

/* A reduction's axes are bound: they stay, unless their extents change, which takes new symbols. */
static Expr *subst_reduce(Subst *s, Expr *e) {
  Ctx *c = s->ctx;
  Sym **axes = NEW_ARRAY(c, Sym *, e->n);
  for (int i = 1; i < e->n; i++) {
    Sym *axis = e->a[i]->u.sym;
    Expr *known = map_get(&s->memo, KEY(axis->self));
    if (known && known->op == EX_SYM) {            /* renamed, here or by an earlier reduction over the same axis */
      axes[i - 1] = known->u.sym;
      continue;
    }
    Expr *extent = axis->extent ? subst_apply(s, axis->extent) : NULL;
    axes[i - 1] = extent == axis->extent ? axis : sym_axis(c, axis->kind, axis->name, extent);
    replace(s, axis, axes[i - 1]->self);
  }
  return ex_reduce(c, (Combiner)e->u.i, subst_apply(s, e->a[0]), axes, e->n - 1);
}

Expr *subst_apply(Subst *s, Expr *e) {
  if (!(e->syms & s->syms)) return e;
  Expr *done = map_get(&s->memo, KEY(e));
  if (done) return done;
  Expr *r = e;
  if (e->op == EX_REDUCE) {
    r = subst_reduce(s, e);
  } else if (e->n) {
    Expr *few[4], **a = e->n <= COUNT(few) ? few : NEW_ARRAY(s->ctx, Expr *, e->n);
    for (int i = 0; i < e->n; i++) a[i] = subst_apply(s, e->a[i]);
    r = rebuild(s->ctx, e, a);
  }
  map_set(&s->memo, KEY(e), r);
  return r;
}

Expr *expr_subst1(Ctx *c, Expr *e, const Sym *from, Expr *to) {
  if (!expr_uses(e, from)) return e;
  Subst s = subst_new(c);
  subst_set(&s, from, to);
  return subst_apply(&s, e);
}

/* ---- linear in a symbol ---- */
bool expr_is_linear(Ctx *c, Expr *e, const Sym *s, Expr **coef, Expr **rest) {
  Expr *zero = ex_const_i(c, e->dtype, 0), *c1, *r1, *c2, *r2;
  if (!expr_uses(e, s)) {
    *coef = zero, *rest = e;
    return true;
  }
  switch (e->op) {
  case EX_SYM:
    *coef = ex_int(c, 1), *rest = zero;
    return true;
  case EX_ADD:
    if (!dtype_is_int(e->dtype) || !expr_is_linear(c, e->a[0], s, &c1, &r1) || !expr_is_linear(c, e->a[1], s, &c2, &r2))
      return false;
    *coef = ex_add(c, c1, c2), *rest = ex_add(c, r1, r2);
    return true;
  case EX_MUL: {
    if (!dtype_is_int(e->dtype)) return false;
    int with = expr_uses(e->a[0], s) ? 0 : 1;
    Expr *other = e->a[!with];
    if (expr_uses(other, s) || !expr_is_linear(c, e->a[with], s, &c1, &r1)) return false;
    *coef = ex_mul(c, c1, other), *rest = ex_mul(c, r1, other);
    return true;
  }
  case EX_SELECT:
    if (!dtype_is_int(e->dtype) || expr_uses(e->a[0], s)) return false;
    if (!expr_is_linear(c, e->a[1], s, &c1, &r1) || !expr_is_linear(c, e->a[2], s, &c2, &r2)) return false;
    *coef = ex_select(c, e->a[0], c1, c2), *rest = ex_select(c, e->a[0], r1, r2);
    return true;
  default:
    return false;
  }
}
