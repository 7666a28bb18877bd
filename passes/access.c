/* access.c - how the loads and the store of a stage walk through storage. */
#include "access.h"

enum { NONLINEAR = -1 };

/* offset with s as a whole number of vectors and a lane */
static Expr *in_lanes(Ctx *c, Expr *offset, Sym *s, int lanes, Sym **lane) {
  Sym *block = sym_new(c, SYM_AXIS, "block", 0, s->max == INT64_MAX ? INT64_MAX : s->max / lanes);
  *lane = sym_axis(c, SYM_AXIS, "lane", ex_int(c, lanes));
  return expr_subst1(c, offset, s, ex_add(c, ex_mul(c, block->self, ex_int(c, lanes)), (*lane)->self));
}

int64_t access_stride(Ctx *c, Expr *offset, Sym *s, int lanes) {
  Expr *coef, *rest;
  Sym *lane;
  int64_t v;
  if (!expr_uses(offset, s)) return 0;
  offset = in_lanes(c, offset, s, lanes, &lane);
  if (!expr_uses(offset, lane)) return 0;
  if (!expr_is_linear(c, offset, lane, &coef, &rest)) return NONLINEAR;
  return ex_is_int(coef, &v) && v >= 0 ? v : NONLINEAR;
}

int64_t access_store_stride(Ctx *c, const Stage *st, Sym *s, int lanes) {
  Expr *at[MAX_RANK];
  for (int i = 0; i < st->out->rank; i++) at[i] = stage_index(st, i);
  return access_stride(c, layout_offset(c, st->out, at), s, lanes);
}

bool access_is_packable(const Expr *load, const Sym *s) {
  int uses = 0;
  for (int d = 0; d < load->n; d++) uses += expr_uses(load->a[d], s);
  return load->u.tensor->data && !load->u.tensor->layout && uses == 1;
}

bool access_is_turned(Ctx *c, const Expr *load, Sym *s, int lanes) {
  const Layout *l = load->u.tensor->layout;
  Sym *lane;
  int64_t step, last = 0;
  if (!l || l->n <= load->u.tensor->rank || l->part[l->n - 1].mod != lanes) return false;
  Expr *offset = in_lanes(c, layout_offset(c, load->u.tensor, load->a), s, lanes, &lane), *first = expr_subst1(c, offset, lane, ex_int(c, 0));
  for (int i = 1; i < lanes; i++) {
    if (!ex_is_int(ex_sub(c, expr_subst1(c, offset, lane, ex_int(c, i)), first), &step) || step < 0 || step >= lanes) return false;
    last = MAX(last, step);
  }
  return expr_range(c, ex_mod(c, first, ex_int(c, lanes))).max + last < lanes;
}

static void walk_load(const Expr *e, void *user) {
  Walk *w = user;
  if (e->op != EX_LOAD) return;
  int64_t stride = access_stride(w->c, layout_offset(w->c, e->u.tensor, e->a), w->s, w->lanes);
  if (stride == 0) w->fixed++;
  else if (stride == 1) w->unit++;
  else if (access_is_packable(e, w->s)) w->packable++;
  else if (access_is_turned(w->c, e, w->s, w->lanes)) w->turned++, w->unit++;
  else w->bad++;
}

Walk access_walk(Ctx *c, const Expr *e, Sym *s, int lanes) {
  Walk w = {.c = c, .s = s, .lanes = lanes};
  expr_visit(e, walk_load, &w);
  return w;
}

/* Lanes along s may lie outside of the tensor where others do not. */
static bool lanes_are_clipped(Ctx *c, const Stage *st, const Sym *s) {
  bool clipped = false;
  for (int d = 0; st->clipped && d < st->out->rank; d++)
    clipped |= expr_uses(st->at[d], s) && !expr_proves(c, ex_lt(c, st->at[d], st->out->shape[d]));
  return clipped;
}

int access_vector_axis(Ctx *c, const Stage *st, int lanes) {
  int best = -1, best_score = 0;
  for (int i = 0; i < st->out->rank; i++) {
    Sym *s = st->axes[i];
    if (s->kind == SYM_DIM || s->max == 0) continue;
    int bad = access_walk(c, st->body, s, lanes).bad;
    int score = 1000 - 10 * bad - (access_store_stride(c, st, s, lanes) == 1 ? 0 : 15) - (s->max < lanes / 2 ? 12 : 0) -
                (lanes_are_clipped(c, st, s) ? 12 : 0);
    if (score >= best_score) best = i, best_score = score;
  }
  return best;
}

bool access_split(const Expr *product, const Sym *s, const Expr **broadcast, const Expr **panel) {
  bool a = expr_uses(product->a[0], s), b = expr_uses(product->a[1], s);
  *panel = a ? product->a[0] : product->a[1];
  *broadcast = a ? product->a[1] : product->a[0];
  return a != b;
}
