/* lower.c - pass_lower: a kernel per group, kernels that are equal but for what they are called with shared, and the program of calls.
 *
 * A tensor with a ring is followed by a call that clears it, since the arena's bytes are shared over time.
 */
#include <stdlib.h>

#include "passes.h"
#include "sched.h"

typedef struct { Module *m; Ctx *c; Map kernels; int made; } Builder;
typedef VEC(Stmt *) StmtList;

/* ---- equal kernels: a text in which tensors, symbols and sub-expressions are numbered by first appearance ---- */
typedef struct { Str s; Map number; int next; const Kernel *k; } Canon;

static int number_of(Canon *k, const void *p, bool *fresh) {
  uintptr_t n = (uintptr_t)map_get(&k->number, KEY(p));
  *fresh = !n;
  if (!n) map_set(&k->number, KEY(p), (void *)(n = (uintptr_t)++k->next));
  return (int)n;
}

static int canon_tensor(Canon *k, const Tensor *t) {
  bool fresh;
  int n = number_of(k, t, &fresh);
  if (!fresh) return n;
  str_add(&k->s, "t%d:%d", n, (int)t->dtype);
  if (t->scope == SCOPE_REG || t->scope == SCOPE_SCRATCH)
    str_add(&k->s, "/%d,%lld,%s", t->scope, t->offset ? (long long)t->offset->u.i : 0, tensor_type_text(k->s.ctx, t));
  return n;
}

static int canon_sym(Canon *k, const Sym *s) {
  bool fresh;
  int n = number_of(k, s, &fresh);
  return n;
}

static void canon_node(const Expr *e, void *user) {
  Canon *k = user;
  bool fresh;
  int sub[MAX_RANK + 2] = {0}, n;
  for (int i = 0; i < e->n; i++) sub[i] = number_of(k, e->a[i], &fresh);
  if ((uintptr_t)map_get(&k->number, KEY(e))) return;
  char leaf[64] = "";
  if (e->op == EX_CONST) snprintf(leaf, sizeof leaf, "%llx", (unsigned long long)e->u.i);
  if (e->op == EX_SYM) snprintf(leaf, sizeof leaf, "s%d", canon_sym(k, e->u.sym));
  if (e->op == EX_FETCH) snprintf(leaf, sizeof leaf, "t%d", canon_tensor(k, e->u.tensor));
  n = number_of(k, e, &fresh);
  str_add(&k->s, "%d=%d.%d %s", n, e->op, e->dtype, leaf);
  for (int i = 0; i < e->n; i++) str_add(&k->s, ",%d", sub[i]);
  str_add(&k->s, ";");
}

static int canon_expr(Canon *k, const Expr *e) {
  bool fresh;
  if (!e) return 0;
  expr_visit(e, canon_node, k);
  return number_of(k, e, &fresh);
}

static void canon_stmt(Canon *k, const Stmt *s) {
  str_add(&k->s, "(%d %d %d ", s->op, s->kind, s->lanes);
  if (s->op == ST_FOR) {
    int extent = canon_expr(k, s->extent);
    str_add(&k->s, "s%d<%d", canon_sym(k, s->sym), extent);
  }
  if (s->tensor) {
    int t = canon_tensor(k, s->tensor);
    str_add(&k->s, "t%d", t);
  }
  if (s->index || s->value) {
    int i = canon_expr(k, s->index), v = canon_expr(k, s->value);
    str_add(&k->s, "[%d]%d=%d", i, s->combiner, v);
  }
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) canon_stmt(k, s->body[i]);
  str_add(&k->s, ")");
}

static const char *canon_text(Ctx *c, const Kernel *k) {
  Canon w = {.s = str_new(c), .number = map_new(c), .k = k};
  for (int i = 0; i < k->nparams; i++) {
    int n = canon_tensor(&w, k->params[i]);
    str_add(&w.s, "p%d%d ", n, k->writes[i]);
  }
  for (int i = 0; i < k->dims.n; i++) {
    int n = canon_sym(&w, k->dims.v[i]);
    str_add(&w.s, "d%d ", n);
  }
  canon_stmt(&w, k->body);
  return ctx_intern(c, w.s.s);
}

/* ---- calls ---- */
static Stmt *call(Builder *b, Kernel *k) {
  const char *key = canon_text(b->c, k);
  Kernel *same = map_get(&b->kernels, KEY(key));
  Tensor **args = k->params;
  if (!same) {
    map_set(&b->kernels, KEY(key), same = k);
    vec_push(b->c, &b->m->kernels, k);
  }
  b->m->scratch_bytes = MAX(b->m->scratch_bytes, k->scratch_bytes);
  Stmt *s = st_call(b->c, same, args, k->nparams);
  s->dims = k->dims.v;
  s->source = k->source;
  return s;
}

static const char *kernel_name(Builder *b, const Group *g) {
  Str s = str_new(b->c);
  str_add(&s, "k%d_", b->made++);
  for (const char *p = g->source ? g->source : ""; *p && s.n < 48; p++) {
    bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
    str_add(&s, "%c", plain ? *p : '_');
  }
  return ctx_intern(b->c, s.s);
}

/* Loops over one side of the ring in dimension `dim`: dimensions before it run over the inside, later ones over their rings too. */
static Stmt *clear_side(Builder *b, Tensor *t, int dim, bool high) {
  Ctx *c = b->c;
  const Layout *l = t->layout;
  Expr *at[MAX_RANK];
  Sym *loop[MAX_RANK] = {0};
  int n = 0;
  for (int d = 0; d < t->rank; d++) {
    int64_t lo = d == dim ? (high ? 0 : l->ring_lo[d]) : d > dim ? l->ring_lo[d] : 0;
    Expr *extent = d == dim ? ex_int(c, high ? l->ring_hi[d] : l->ring_lo[d]) : stage_extent(c, t, d);
    if (d > dim) extent = ex_add(c, extent, ex_int(c, l->ring_lo[d] + l->ring_hi[d]));
    Sym *s = loop[n++] = sym_axis(c, SYM_AXIS, ctx_printf(c, "z%d", d), extent);
    Expr *z = ex_equals_int(extent, 1) ? ex_int(c, 0) : s->self;
    at[d] = d == dim && high ? ex_add(c, z, t->shape[d]) : ex_sub(c, z, ex_int(c, lo));
  }
  Stmt *body = st_store(c, t, layout_offset(c, t, at), ex_const(c, t->dtype, 0), -1);
  int channels = l->n > t->rank ? l->part[l->n - 1].dim : t->rank - 1;     /* the dimension that lies contiguous */
  for (int pass = 0; pass < 2; pass++)
    for (int d = n - 1; d >= 0; d--)
      if ((d == channels) == (pass == 0) && !ex_equals_int(loop[d]->extent, 1)) body = st_for(c, LOOP_SERIAL, loop[d], loop[d]->extent, body);
  return body;
}

static void clear_ring(Builder *b, StmtList *out, Tensor *t) {
  Ctx *c = b->c;
  VEC(Stmt *) seq = {0};
  if (!t->layout) return;
  for (int d = 0; d < t->rank; d++) {
    if (t->layout->ring_lo[d]) vec_push(c, &seq, clear_side(b, t, d, false));
    if (t->layout->ring_hi[d]) vec_push(c, &seq, clear_side(b, t, d, true));
  }
  if (!seq.n) return;
  Kernel *k = kernel_of(c, ctx_printf(c, "k%d_ring", b->made++), st_seq(c, seq.v, seq.n));
  k->source = "zero ring";
  vec_push(c, out, call(b, k));
}

static Stmt *lower_body(Builder *b, Body *body) {
  Ctx *c = b->c;
  StmtList seq = {0};
  for (int i = 0; i < body->items.n; i++) {
    Item *it = body->items.v[i];
    if (it->kind == ITEM_GROUP) {
      vec_push(c, &seq, call(b, b->m->schedule(b->m, it->group, kernel_name(b, it->group))));
      clear_ring(b, &seq, group_root(it->group)->out);
    } else if (it->kind == ITEM_IF) {
      Expr *cond = ex_fetch(c, it->cond, ex_int(c, 0));
      vec_push(c, &seq, st_if(c, cond, lower_body(b, it->body[0]), lower_body(b, it->body[1])));
    } else {
      vec_push(c, &seq, st_for(c, LOOP_SERIAL, it->counter, it->trips, lower_body(b, it->body[0])));
    }
  }
  return st_seq(c, seq.v, seq.n);
}

void pass_lower(Module *m) {
  Builder b = {.m = m, .c = m->c, .kernels = map_new(m->c)};
  m->program = lower_body(&b, m->body);
}
