/* sched_rules.c - which schedule a group of stages gets: an ordered list of rules, the last of which takes everything.
 *
 * A rule looks at the expressions (which axes a load moves with, what lies contiguous), never at operators, and answers with a schedule's
 * text or the reason why it declines.
 */
#include <stdlib.h>

#include "../passes/access.h"
#include "../passes/regions.h"
#include "rules.h"

static Walk walk_loads(Case *k, const Expr *e, Sym *s) { return access_walk(k->c, e, s, k->lanes); }
static int64_t store_stride(Case *k, const Stage *st, Sym *s) { return access_store_stride(k->c, st, s, k->lanes); }
static int vector_axis(Case *k, const Stage *st) { return access_vector_axis(k->c, st, k->lanes); }

int64_t const_extent(const Expr *e) {
  int64_t v;
  return ex_is_int(e, &v) ? v : -1;
}

int64_t rule_axis_extent(Case *k, int i) {
  return k->loop ? k->loop[i].extent : const_extent(k->st->at ? k->st->axes[i]->extent : stage_extent(k->c, k->st->out, i));
}

/* ---- constants in the layout that the vector axis wants ---- */
typedef struct { Case *k; Sym *s, *also; const Expr *part; int64_t n; Map packed; } Pack;

static int dim_using(const Expr *load, const Sym *s) {
  for (int d = 0; s && d < load->n; d++)
    if (expr_uses(load->a[d], s)) return d;
  return -1;
}

typedef struct { const Expr *what; bool found; } Contained;
static void find_same(const Expr *e, void *user) {
  Contained *w = user;
  w->found |= e == w->what;
}

/* The dimension that vectors lie along: the one that moves with the part of the axis, if that has one to itself, else with the axis; -1: none. */
static int packed_dim(const Expr *load, const Pack *p) {
  int at = -1, n = 0;
  for (int d = 0; p->part && d < load->n; d++) {
    Contained w = {p->part, false};
    expr_visit(load->a[d], find_same, &w);
    if (w.found) at = d, n++;
  }
  if (n == 1 && load->u.tensor->data && !load->u.tensor->layout) return at;
  return access_is_packable(load, p->s) ? dim_using(load, p->s) : -1;
}

static bool moves_with_data(Case *k, const Expr *index) {
  for (int i = 0; i < k->st->out->rank; i++)
    if (expr_uses(index, k->st->axes[i])) return true;
  return false;
}

static Layout *panel_layout(Case *k, const Expr *load, const Pack *p) {
  Layout *l = NEW(k->c, Layout);
  int d = packed_dim(load, p), a = dim_using(load, p->also);
  if (a == d) a = -1;
  for (int data = 1; data >= 0; data--) {
    for (int i = 0; i < load->n; i++)
      if (i != d && i != a && moves_with_data(k, load->a[i]) == data) l->part[l->n++] = (LayoutPart){(int8_t)i, 1, 0, 0};
    if (data) l->part[l->n++] = (LayoutPart){(int8_t)d, (int32_t)p->n, 0, 0};
    if (data && a >= 0) l->part[l->n++] = (LayoutPart){(int8_t)a, k->lanes, 0, 0};
  }
  if (a >= 0) l->part[l->n++] = (LayoutPart){(int8_t)a, 1, k->lanes, 0};
  l->part[l->n++] = (LayoutPart){(int8_t)d, 1, (int32_t)p->n, 0};
  return l;
}

static Expr *pack_load(Ctx *c, Expr *e, void *user) {
  Pack *p = user;
  if (e->op != EX_LOAD || !expr_uses(e, p->s) || packed_dim(e, p) < 0) return e;
  Tensor *t = map_get(&p->packed, KEY(e->u.tensor));
  if (!t) {
    t = tensor_new(c, e->u.tensor->name, e->u.tensor->dtype, e->u.tensor->rank, e->u.tensor->shape);
    t->data = e->u.tensor->data;
    t->layout = panel_layout(p->k, e, p);
    map_set(&p->packed, KEY(e->u.tensor), t);
  }
  return ex_load(c, t, e->a, e->n);
}

void rule_pack_constants(Case *k, Sym *s, const Expr *part, int64_t n, Sym *also) {
  Pack p = {k, s, also, part, n, map_new(k->c)};
  k->st->body = expr_map(k->c, k->st->body, pack_load, &p);
  k->reduce = stage_reduce(k->st->body);
}

/* ---- names: the axes' own, as sched_new gives them ---- */
const char *rule_axis_name(Case *k, int i) {
  return k->loop && i < k->st->out->rank ? k->loop[i].name : stage_axis_name(k->c, k->st, i);
}

static bool is_loop(Case *k, int i) { return k->st->axes[i]->kind != SYM_DIM && (!k->loop || k->loop[i].open); }

bool rule_is_alone(const Case *k) { return k->g->stages.n == 1 || k->loop; }

void rule_share_loops(Case *k, const Names *list) {
  const char *run = NULL;
  for (int i = 0; i < list->n && !k->loop; i++) {
    if (run) str_add(&k->text, "fuse %s %s -> par%d; ", run, list->v[i], i);
    run = run ? ctx_printf(k->c, "par%d", i) : list->v[i];
  }
  if (run) str_add(&k->text, "parallel %s; ", run);
}

/* ---- an expression that picks a case by an axis (i == 0 ? .. : i == 1 ? ..), by its remainder, or by blocks of it: unrolled there, one
 * case is left ---- */
enum { MOST_CASES = 12 };
typedef struct { Case *k; int64_t period[MAX_RANK], block[MAX_RANK]; bool any; } Cases;   /* period: of so many blocks */
static void find_case(const Expr *e, void *user) {
  Cases *w = user;
  if (e->op != EX_EQ || !dtype_is_int((DType)e->a[0]->dtype)) return;
  const Expr *at = e->a[0]->op == EX_CONST ? e->a[1] : e->a[0];
  int64_t m = 0, block = 1;
  if (at->op == EX_MOD && ex_is_int(at->a[1], &m)) at = at->a[0];
  if (at->op == EX_DIV && ex_is_int(at->a[1], &block)) at = at->a[0];
  for (int i = 0; i < w->k->st->out->rank; i++) {
    Sym *s = w->k->st->axes[i];
    int64_t period = m ? m : s->max / block + 1;
    if (at == s->self && block > 0 && period <= MOST_CASES) w->period[i] = period, w->block[i] = block, w->any = true;
  }
}

/* Vectors along axis v, of which `outer` goes outside of other loops; where cases alternate within a step of v, all of them are open at
 * once, unless one is cut short. */
static bool vectors_of_cases(Case *k, const Cases *w, int v, Str *outer, Str *inner) {
  const char *n = rule_axis_name(k, v), *of = n;
  int64_t extent = rule_axis_extent(k, v), block = w->block[v], all = const_extent(k->st->axes[v]->extent);
  if (w->period[v]) {
    if (block % k->lanes || !k->loop || extent != block * w->period[v]) return false;
    bool whole = all % extent == 0;
    of = ctx_printf(k->c, "%s.j", n);
    str_add(&k->text, "split %s %d -> %s.h %s; unroll %s.h; ", n, (int)block, n, of, n);
    str_add(whole ? inner : outer, " %s.h", n);
  }
  str_add(&k->text, w->period[v] ? "split %s %d" : "chunk %s %d", of, k->lanes);
  str_add(&k->text, " -> %s.o %s.v; vector %s.v %d; ", n, n, n, k->lanes);
  str_add(outer, " %s.o", n);
  str_add(inner, " %s.v", n);
  return true;
}

/* A computed tensor of more bytes, or of who knows how many. */
typedef struct { Ctx *c; int64_t bytes; bool any; } Larger;
static void find_larger(const Expr *e, void *user) {
  Larger *w = user;
  int64_t n;
  if (e->op != EX_LOAD || e->u.tensor->data) return;
  w->any |= !ex_is_int(layout_elements(w->c, e->u.tensor), &n) || n * dtype_bytes(e->u.tensor->dtype) > w->bytes;
}

/* The axes in the order of their loops: where more is read than the L2 cache holds, vectors move in front of the loop around them, whose
 * steps then are asked for in time. Returns that loop's axis, or -1. */
static int order_of_cases(Case *k, const Cases *w, int v, int *order) {
  Larger far = {k->c, k->m->target->l2_bytes, false};
  int last = -1;
  expr_visit(k->st->body, find_larger, &far);
  for (int i = 0; i < k->st->out->rank; i++) order[i] = i;
  for (int i = 0; i < v; i++)
    if (is_loop(k, i) && !w->period[i]) last = i;
  if (!far.any || v != k->st->out->rank - 1 || last != v - 1) return -1;
  order[last] = v, order[v] = last;
  return last;
}

static const char *rule_cases(Case *k) {
  Stage *st = k->st;
  Cases w = {.k = k};
  expr_visit(st->body, find_case, &w);
  if (!rule_is_alone(k) || k->reduce || !w.any) return "no cases";
  int v = vector_axis(k, st);
  Str outer = str_new(k->c), inner = str_new(k->c), along = str_new(k->c), vectors = str_new(k->c);
  if (v < 0 || walk_loads(k, st->body, st->axes[v]).bad || !vectors_of_cases(k, &w, v, &along, &vectors)) return "not contiguous";
  rule_pack_constants(k, st->axes[v], NULL, k->lanes, NULL);
  Names par = {0};
  int order[MAX_RANK], walk = order_of_cases(k, &w, v, order);
  bool open = true;                                          /* loops of whole periods fuse into the parallel one while nothing stands between */
  for (int p = 0, i; p < st->out->rank; p++) {
    if (!is_loop(k, i = order[p])) continue;
    const char *n = rule_axis_name(k, i), *loop = n;
    bool whole = true;
    if (i == v) {
      loop = ctx_printf(k->c, "%s.o", n);
    } else if (w.block[i] == 1 && w.period[i] == rule_axis_extent(k, i)) {
      str_add(&k->text, "unroll %s; ", n);
      str_add(&inner, " %s", n);
      continue;
    } else if (w.block[i]) {
      int64_t all = w.period[i] * w.block[i];
      str_add(&k->text, "split %s %d -> %s.o %s.i; ", n, (int)all, n, n);
      if (w.block[i] > 1) str_add(&k->text, "split %s.i %d -> %s.c %s.b; unroll %s.c; ", n, (int)w.block[i], n, n, n);
      else str_add(&k->text, "unroll %s.i; ", n);
      str_add(&inner, " %s.%s", n, w.block[i] > 1 ? "c" : "i");
      loop = ctx_printf(k->c, w.block[i] > 1 ? "%s.o %s.b" : "%s.o", n, n);
      whole = w.block[i] == 1 && rule_axis_extent(k, i) > 0 && rule_axis_extent(k, i) % all == 0;
    }
    str_add(&outer, "%s", i == v ? along.s : ctx_printf(k->c, " %s", loop));
    open &= whole;
    if (open) vec_push(k->c, &par, loop);
  }
  str_add(&k->text, "order%s%s%s%s; ", k->outer, outer.s, inner.s ? inner.s : "", vectors.s);
  if (walk >= 0) str_add(&k->text, "soon 2 %s%s%s; ", rule_axis_name(k, walk), inner.s ? inner.s : "", vectors.s);
  rule_share_loops(k, &par);
  return NULL;
}

/* ---- everything that is contiguous from end to end: one flat loop ---- */
typedef struct { Case *k; bool flat; } Flat;
static void check_flat(const Expr *e, void *user) {
  Flat *f = user;
  if (e->op != EX_LOAD || !f->flat) return;
  const Tensor *t = e->u.tensor, *out = f->k->st->out;
  if (t->data && t->data->splat) return;
  bool same = t->rank == out->rank && !t->layout && !out->layout, fixed = true;
  for (int d = 0; d < e->n; d++) {
    same = same && e->a[d] == f->k->st->axes[d]->self && t->shape[d] == out->shape[d];
    for (int i = 0; i < out->rank; i++) fixed &= !expr_uses(e->a[d], f->k->st->axes[i]);
  }
  f->flat = same || fixed;
}

static void check_axis_use(const Expr *e, void *user) {
  Flat *f = user;                                            /* axes used outside of loads: a coordinate as a value */
  if (e->op == EX_SELECT || e->op == EX_CAST) for (int i = 0; i < f->k->st->out->rank; i++)
    if (e->a[0]->dtype == DT_I64 && expr_uses(e->a[0], f->k->st->axes[i])) f->flat = false;
  if (e->op == EX_SELECT) for (int i = 0; i < f->k->st->out->rank; i++)
    if (e->a[0]->op != EX_LOAD && e->a[0]->n == 2 && e->a[0]->a[0]->dtype == DT_I64 && expr_uses(e->a[0], f->k->st->axes[i])) f->flat = false;
}

static const char *rule_flat(Case *k) {
  Flat f = {k, k->g->stages.n == 1 && !k->reduce && !k->st->out->layout && !k->st->at};
  int rank = k->st->out->rank;
  expr_visit(k->st->body, check_flat, &f);
  expr_visit(k->st->body, check_axis_use, &f);
  if (!f.flat || rank < 1) return "not flat";
  for (int i = 0; i < rank; i++)
    if (!is_loop(k, i)) return "an axis is fixed";
  const char *name = rule_axis_name(k, 0);
  for (int i = 1; i < rank; i++) {
    str_add(&k->text, "fuse %s %s -> f%d; ", name, rule_axis_name(k, i), i);
    name = ctx_printf(k->c, "f%d", i);
  }
  str_add(&k->text, "chunk %s 8192 -> par in; parallel par; split in %d -> i.o i.v; vector i.v %d", name, k->lanes, k->lanes);
  return NULL;
}

/* ---- rows: statistics inside the root's outer loops, each stage vectorised along the row ---- */
static void outer_parallel(Case *k, int n, Str *order) {
  const char *run = NULL;
  for (int i = 0; i < n; i++) {
    if (!is_loop(k, i)) continue;
    const char *name = rule_axis_name(k, i);
    if (run) str_add(order, "fuse %s %s -> par%d; ", run, name, i);
    run = run ? ctx_printf(k->c, "par%d", i) : name;
  }
  if (run) str_add(order, "parallel %s; ", run);
}

/* A reduction over a contiguous axis r: lanes of partial results, four of them at a time. */
static void reduce_along(Case *k, const char *r, Str *out) {
  str_add(out, "split %s %d %d -> %s.o %s.i; split %s.i %d -> %s.u %s.v; partial %s.u; unroll %s.u; vector %s.v %d; ", r, 4 * k->lanes, k->lanes, r, r, r,
          k->lanes, r, r, r, r, r, k->lanes);
}

static const char *rule_row(Case *k) {
  Stage *st = k->st;
  if (k->g->stages.n < 2) return "not a row group";
  int outer = st->out->rank;
  Sched *s = sched_new(k->c, k->g);
  for (int i = 0; i + 1 < k->g->stages.n; i++) {             /* as many outer axes as the members have points for */
    Stage *member = k->g->stages.v[i];
    Expr *points = ex_int(k->c, 1);
    int n = 0;
    while (n < outer && points != tensor_elements(k->c, member->out)) points = ex_mul(k->c, points, st->out->shape[n++]);
    outer = MIN(outer, MAX(n, 1));
  }
  for (int i = 0; i < outer; i++)
    if (!is_loop(k, i)) return "an axis is fixed";
  const char *row = NULL;
  for (int i = 0; i < outer; i++) row = i ? ctx_printf(k->c, "par%d", i) : rule_axis_name(k, 0);
  outer_parallel(k, outer, &k->text);
  for (int i = 0; i + 1 < k->g->stages.n; i++) {
    StageLoops *l = s->stages.v[i];
    int n = l->axes.n;
    str_add(&k->text, "in %s; at %s; ", l->stage->out->name, row);
    if (n == l->stage->out->rank) continue;
    Sym *last = l->syms[n - 1];
    Walk w = walk_loads(k, l->reduce->a[0], last);
    if (!w.bad && !w.packable && last->max >= k->lanes) reduce_along(k, l->axes.v[n - 1]->name, &k->text);
  }
  if (outer < st->out->rank) {
    int last = st->out->rank - 1;
    Walk w = walk_loads(k, st->body, st->axes[last]);
    const char *name = rule_axis_name(k, last);
    if (!w.bad && is_loop(k, last) && store_stride(k, st, st->axes[last]) == 1 && st->axes[last]->max >= k->lanes / 2)
      str_add(&k->text, "in %s; split %s %d -> v.o v.i; vector v.i %d", st->out->name, name, k->lanes, k->lanes);
  }
  return NULL;
}

/* ---- a reduction whose reduced axis lies contiguous and whose output axes do not ---- */
static const char *rule_dot(Case *k) {
  Stage *st = k->st;
  if (!rule_is_alone(k) || !k->reduce) return "no reduction";
  Sym *r = k->reduce->a[k->reduce->n - 1]->u.sym;
  if (r->max < 2 * k->lanes) return "too short";
  Walk w = walk_loads(k, k->reduce->a[0], r);
  if (w.bad || w.packable || !w.unit) return "not contiguous along the reduction";
  int v = vector_axis(k, st);
  if (v >= 0) {
    Walk over = walk_loads(k, k->reduce->a[0], st->axes[v]);
    if (!over.bad && over.unit + over.packable && st->axes[v]->max + 1 >= k->lanes) return "an output axis vectorises";
  }
  int n = 0;
  while (n < st->out->rank && is_loop(k, n)) n++;
  if (n == st->out->rank && !k->loop) outer_parallel(k, n, &k->text);
  reduce_along(k, rule_axis_name(k, k->st->out->rank + k->reduce->n - 2), &k->text);
  return NULL;
}

/* The reduction axis over a group's channels where groups are narrower than a vector: a turned load moves with it inside the block. */
typedef struct { Case *k; Sym *s; int found; int64_t n; } Narrow;
static void find_narrow(const Expr *e, void *user) {
  Narrow *w = user;
  for (int d = 0; e->op == EX_LOAD && d < e->n; d++)
    for (int i = 1; i < w->k->reduce->n && expr_uses(e->a[d], w->s); i++) {
      Sym *r = w->k->reduce->a[i]->u.sym;
      if (!expr_uses(e->a[d], r) || !ex_is_int(r->extent, &w->n) || w->n >= w->k->lanes || !access_is_turned(w->k->c, e, w->s, w->k->lanes)) continue;
      w->found = i - 1;
      return;
    }
}

/* The innermost loop stays one of its own where threads have enough to share without it: what does not move with it is computed outside. */
static void share_outer_loops(Case *k, Names *par, const int64_t *extent) {
  enum { ENOUGH = 64 };
  int64_t points = 1;
  for (int i = 0; i + 1 < par->n; i++) points = extent[i] < 0 ? ENOUGH : MIN(points * extent[i], ENOUGH);
  if (points >= ENOUGH) par->n--;
  rule_share_loops(k, par);
}

/* Blocks that begin inside others (parts of a concatenation, say) go in vectors of half or a quarter of the length if those go well. */
static int copy_lanes(Case *k, const Stage *st, int v, Walk *w) {
  for (int lanes = k->lanes / 2; w->bad && !k->reduce && lanes >= MAX(k->lanes / 4, 2); lanes /= 2) {
    Walk narrow = access_walk(k->c, st->body, st->axes[v], lanes);
    if (narrow.bad || narrow.packable || access_store_stride(k->c, st, st->axes[v], lanes) != 1) continue;
    *w = narrow;
    return lanes;
  }
  return k->lanes;
}

/* The last axis of a reduction in steps of several results each: one alone would wait for itself. Returns the loops' names. */
static const char *sums_aside(Case *k, const char *r) {
  enum { MOST = 8, ODD = 4 };
  int64_t n = const_extent(k->reduce->a[k->reduce->n - 1]->u.sym->extent);
  int f = ODD;
  for (int i = ODD + 1; i <= MOST; i++)
    if (n % i == 0) f = i;
  str_add(&k->text, "split %s %d 1 -> %s.o %s.u; partial %s.u; unroll %s.u; ", r, f, r, r, r, r);
  return ctx_printf(k->c, "%s.o %s.u", r, r);
}

/* The axis whose halves stand outside of all, so that threads read what they made; -1: none, or one that does not lie outside of the vectors. */
static int parted_axis(Case *k, int v, int m1) {
  Expr *extent[MAX_RANK];
  if (k->loop || v != 1) return -1;
  for (int i = 0; i < k->st->out->rank; i++) extent[i] = stage_shape(k->st, i);
  int axis = stage_parted_axis(k->m, extent, k->st->out->rank);
  return axis == m1 || (axis >= 0 && !is_loop(k, axis)) ? -1 : axis;
}

/* Axes in the order in which copies and element-wise work go through memory: that of the layout's parts, each axis once. */
static int nth_axis(const Case *k, int i) {
  const Layout *l = k->st->out->layout;
  return !k->reduce && l && l->n == k->st->out->rank ? l->part[i].dim : i;
}

/* ---- any nest: one data axis in vectors, a few points of the next in registers, the others outside ---- */
static const char *rule_nest(Case *k) {
  Stage *st = k->st;
  int rank = st->out->rank;
  if (!rule_is_alone(k)) return "a row group";
  int v = vector_axis(k, st);
  if (v < 0) return "no axis";
  Walk w = walk_loads(k, st->body, st->axes[v]);
  int64_t n = rule_axis_extent(k, v);
  int lanes = copy_lanes(k, st, v, &w);
  if (w.bad > w.unit + w.packable && w.bad > 1) return "loads are scattered";
  if (n >= 0 && n < k->lanes / 4) return "the axis is short";
  Narrow narrow = {.k = k, .s = st->axes[v], .found = -1};
  if (w.turned && k->reduce) expr_visit(k->reduce->a[0], find_narrow, &narrow);
  rule_pack_constants(k, st->axes[v], NULL, k->lanes, NULL);
  const char *nv = rule_axis_name(k, v);
  int m1 = -1;
  for (int i = rank - 1; i >= 0 && m1 < 0 && k->reduce; i--)
    if (i != v && is_loop(k, i) && st->axes[i]->max > 0) m1 = i;
  int64_t e1 = m1 < 0 ? 1 : rule_axis_extent(k, m1);
  Str order = str_new(k->c);
  Names par = {0};
  int64_t extent[MAX_RANK + 1];
  enum { SUMS = 4 };                                         /* side by side: one alone would wait for itself */
  bool wide = k->reduce && m1 < 0 && !k->loop && n >= SUMS * lanes;
  if (wide) str_add(&k->text, "split %s %d -> %s.o %s.p; split %s.p %d -> %s.u %s.v; unroll %s.u; ", nv, SUMS * lanes, nv, nv, nv, lanes, nv, nv, nv);
  else str_add(&k->text, k->loop ? "split %s %d -> %s.o %s.v; " : "chunk %s %d -> %s.o %s.v; ", nv, lanes, nv, nv);
  str_add(&k->text, "vector %s.v %d; ", nv, lanes);
  int parted = parted_axis(k, v, m1);
  if (parted >= 0) {
    const char *rows = rule_axis_name(k, parted);
    str_add(&k->text, "split %s %lld -> %s.t %s.s; ", rows, (long long)rule_axis_extent(k, parted) / 2, rows, rows);
    extent[0] = 2, vec_push(k->c, &par, ctx_printf(k->c, "%s.t", rows));
  }
  for (int nth = 0; nth < rank; nth++) {
    int i = nth_axis(k, nth);
    if (!is_loop(k, i) || i == m1) continue;
    int64_t e = rule_axis_extent(k, i);
    extent[par.n] = i == parted ? e / 2 : i == v && e > 0 ? (e + lanes - 1) / lanes : e;
    vec_push(k->c, &par, i == v ? ctx_printf(k->c, "%s.o", nv) : i == parted ? ctx_printf(k->c, "%s.s", rule_axis_name(k, i)) : rule_axis_name(k, i));
  }
  for (int i = 0; i < par.n; i++) str_add(&order, " %s", par.v[i]);
  if (m1 >= 0) {
    int tile = 1, most = narrow.found < 0 ? 8 : MIN(14, k->m->target->vector_regs - 2 * (int)narrow.n - 2);   /* their weights and orders of lanes */
    for (int f = 2; f <= most && f <= e1; f++)
      if (e1 % f == 0 || f == 4) tile = f;
    const char *n1 = rule_axis_name(k, m1), *factors = e1 < 0 ? "4 1" : ctx_printf(k->c, "%d", tile);
    str_add(&k->text, "split %s %s -> %s.o %s.i; unroll %s.i; ", n1, factors, n1, n1, n1);
    str_add(&order, " %s.o", n1);
  }
  bool aside = k->reduce && m1 < 0 && k->loop && n > 0 && n <= lanes && narrow.found < 0;
  for (int i = 0; k->reduce && i + 1 < k->reduce->n; i++) {
    const char *r = rule_axis_name(k, rank + i);
    if (i != narrow.found) str_add(&order, " %s", aside && i + 2 == k->reduce->n ? sums_aside(k, r) : r);
  }
  if (m1 >= 0) str_add(&order, " %s.i", rule_axis_name(k, m1));
  if (narrow.found >= 0) str_add(&k->text, "unroll %s; ", rule_axis_name(k, rank + narrow.found)), str_add(&order, " %s", rule_axis_name(k, rank + narrow.found));
  if (wide) str_add(&order, " %s.u", nv);
  str_add(&k->text, "order%s%s %s.v; ", k->outer, order.s, nv);
  if (k->reduce) rule_share_loops(k, &par);
  else share_outer_loops(k, &par, extent);
  return NULL;
}

/* ---- stages in blocks: the root's outer loops in steps, the other stages inside them ---- */
typedef struct { const char *name; Rule *rule; } NamedRule;

/* All loops of the stage as they stand, but `last` in the place of the last axis. */
static void plain_order(Case *k, const char *last) {
  int rank = k->st->out->rank;
  str_add(&k->text, "order%s", k->outer);
  for (int i = 0; i < rank; i++)
    if (is_loop(k, i)) str_add(&k->text, " %s", i == rank - 1 && last ? last : rule_axis_name(k, i));
  for (int i = 0; k->reduce && i + 1 < k->reduce->n; i++) str_add(&k->text, " %s", rule_axis_name(k, rank + i));
  str_add(&k->text, "; ");
}

static const char *rule_line(Case *k) {                      /* element by element along the last axis, in vectors */
  int last = k->st->out->rank - 1;
  if (k->reduce || last < 0 || !is_loop(k, last) || walk_loads(k, k->st->body, k->st->axes[last]).bad) return "not contiguous";
  const char *n = rule_axis_name(k, last);
  str_add(&k->text, "split %s %d -> %s.o %s.v; vector %s.v %d; ", n, k->lanes, n, n, n, k->lanes);
  plain_order(k, ctx_printf(k->c, "%s.o %s.v", n, n));
  return NULL;
}

static const char *rule_serial(Case *k) { return plain_order(k, NULL), NULL; }

static const NamedRule stage_rules[] = {
  {"contraction", rule_contraction}, {"cases", rule_cases}, {"dot", rule_dot}, {"nest", rule_nest}, {"line", rule_line},
  {"serial", rule_serial},
};

/* The first rule that takes the stage, with its loops as given. */
static void schedule_stage(Case *k, Stage *st, StageLoop *loop, const char *outer) {
  Case s = *k;
  s.st = st;
  s.loop = loop;
  s.outer = outer;
  for (int i = 0; i < COUNT(stage_rules); i++) {
    Expr *body = st->body;
    s.reduce = stage_reduce(body);
    s.text = str_new(k->c);
    const char *why = stage_rules[i].rule(&s);
    if (k->m->opt->explain) str_add(&k->m->notes, "    %s %s: %s\n", st->out->name, stage_rules[i].name, why ? why : "taken");
    if (!why) break;
    st->body = body;
  }
  str_add(&k->text, "%s", s.text.s);
}

/* An outer loop over axis i of the root: bytes of constants that move with it, in any stage, and loads of the root that do. Constants come from
 * memory and are best read once; of the rest, what few loads move with stays in cache while the others turn, if that is the inner loop. */
typedef struct { double constants; int loads; } Moving;
typedef struct { Case *k; const Stage *st; const Region *part; const Sym *axis, *step; Moving sum; } Movers;

static void add_mover(const Expr *e, void *user) {
  Movers *m = user;
  int64_t n;
  bool moves = false;
  if (e->op != EX_LOAD) return;
  for (int d = 0; d < e->n; d++)
    for (int i = 0; i < m->st->out->rank && !moves; i++)
      moves = expr_uses(e->a[d], m->st->axes[i]) && m->step && expr_uses(m->part[i].min, m->step);
  if (moves && e->u.tensor->data && ex_is_int(layout_elements(m->k->c, e->u.tensor), &n)) m->sum.constants += (double)n * dtype_bytes(e->u.tensor->dtype);
  if (m->st == m->k->st && expr_uses(e, m->axis)) m->sum.loads++;
}

static void find_step(const Expr *e, void *user) {
  if (e->op == EX_SYM) *(const Sym **)user = e->u.sym;
}

static Moving moving_with(Case *k, const Region *root, Region (*part)[MAX_RANK], int axis) {
  Movers m = {.k = k, .axis = k->st->axes[axis]};
  expr_visit(root[axis].min, find_step, &m.step);
  for (int i = 0; i < k->g->stages.n; i++) {
    m.st = k->g->stages.v[i];
    m.part = m.st == k->st ? root : part[i];
    expr_visit(m.st->body, add_mover, &m);
  }
  return m.sum;
}

static bool goes_outside(const Moving *a, const Moving *b) {
  return a->constants != b->constants ? a->constants > b->constants : a->loads > b->loads;
}

static const char *rule_block(Case *k) {
  Group *g = k->g;
  Stage *root = k->st;
  Ctx *c = k->c;
  if (!g->block) return "no blocks";
  int n = g->stages.n, rank = root->out->rank;
  Region axes[2 * MAX_RANK], (*part)[MAX_RANK] = ctx_alloc(c, sizeof *part * (size_t)n);
  group_block_axes(c, g, axes);
  group_regions(c, g, axes, part);
  StageLoop *loop = NEW_ARRAY(c, StageLoop, rank);
  Str outer = str_new(c);
  Names par = {0};
  Moving moving[MAX_RANK];
  for (int i = 0; i < rank; i++) {
    const char *name = stage_axis_name(c, root, i), *step = ctx_printf(c, "%s.b", name);
    loop[i] = (StageLoop){name, const_extent(axes[i].extent), is_loop(k, i) && g->block[i] != 1};
    if (!is_loop(k, i) || !g->block[i]) continue;
    if (g->block[i] == 1) step = name;
    else {
      const char *how = ex_is_int(root->axes[i]->extent, NULL) ? "split" : "chunk";
      str_add(&k->text, "%s %s %d -> %s %s.r; ", how, name, (int)g->block[i], step, name);
      loop[i].name = ctx_printf(c, "%s.r", name);
    }
    int at = par.n;
    vec_push(c, &par, step);
    Moving here = moving_with(k, axes, part, i);
    for (; at > 0 && goes_outside(&here, &moving[at - 1]); at--) moving[at] = moving[at - 1], par.v[at] = par.v[at - 1];
    par.v[at] = step;
    moving[at] = here;
  }
  for (int i = 0; i < par.n; i++) str_add(&outer, " %s", par.v[i]);
  schedule_stage(k, root, loop, outer.s ? outer.s : "");
  rule_share_loops(k, &par);
  const char *at = par.n > 1 ? ctx_printf(c, "par%d", par.n - 1) : par.v[0];
  for (int i = 0; i + 1 < n; i++) {
    Stage *st = g->stages.v[i];
    StageLoop *inner = NEW_ARRAY(c, StageLoop, st->out->rank + 1);
    Str one = str_new(c);
    for (int d = 0; d < st->out->rank; d++) {
      inner[d] = (StageLoop){stage_axis_name(c, st, d), const_extent(part[i][d].extent), !ex_equals_int(part[i][d].extent, 1)};
      if (!inner[d].open && st->axes[d]->kind != SYM_DIM) str_add(&one, " %s", inner[d].name);
    }
    str_add(&k->text, "in %s; at %s; ", st->out->name, at);
    schedule_stage(k, st, inner, one.s ? one.s : "");
  }
  return NULL;
}

static const char *rule_naive(Case *k) {
  Sched *s = sched_new(k->c, k->g);
  for (int i = 0; i + 1 < k->g->stages.n; i++)
    str_add(&k->text, "in %s; at %s; ", k->g->stages.v[i]->out->name, sched_root(s)->order.v[0]->name);
  return NULL;
}

static const NamedRule rules[] = {
  {"block", rule_block}, {"contraction", rule_contraction}, {"row", rule_row}, {"cases", rule_cases}, {"dot", rule_dot}, {"flat", rule_flat},
  {"square", rule_square}, {"nest", rule_nest}, {"naive", rule_naive},
};

/* The bodies of the stages as they came, also when the group was scheduled before. */
static void own_bodies(Ctx *c, Group *g) {
  bool first = !g->bodies;
  if (first) g->bodies = NEW_ARRAY(c, Expr *, g->stages.n);
  for (int i = 0; i < g->stages.n; i++)
    if (first) g->bodies[i] = g->stages.v[i]->body;
    else g->stages.v[i]->body = g->bodies[i];
}

Kernel *sched_rules_choose(Module *m, Group *g, const char *name) {
  Ctx *c = m->c;
  own_bodies(c, g);
  g->price = 0;
  for (int i = 0; i < COUNT(rules); i++) {
    Stage *root = group_root(g);
    Expr *body = root->body;
    Case k = {.m = m, .c = c, .g = g, .st = root, .reduce = stage_reduce(body), .lanes = target_lanes(m->target, 32), .text = str_new(c), .outer = ""};
    const char *why = rules[i].rule(&k);
    if (m->opt->explain) str_add(&m->notes, "  %s %s: %s\n", name, rules[i].name, why ? why : k.text.n ? k.text.s : "as it stands");
    if (why) { root->body = body; continue; }
    Sched *s = sched_new(c, g);
    const char *refused = k.text.n ? sched_apply(s, k.text.s) : NULL;
    if (refused) diag_bug(c, "rule %s for %s: %s", rules[i].name, name, refused);
    Kernel *kernel = sched_kernel(s, name);
    kernel->why = rules[i].name;
    kernel->group = g;
    return kernel;
  }
  return diag_bug(c, "no schedule for %s", name), NULL;
}
