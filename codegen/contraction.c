/* contraction.c - the rule for sums of products: a register tile of rows by vectors, the sum in registers throughout.
 *
 * Vectors run along the axis that only one factor moves with (the panel: it lies packed, a few vectors side by side); rows are points that
 * share the panel. Rows whose addresses continue each other are one axis. An extent that is not known runs in tiles of falling size, each
 * code of its own; the rest of a vector is masked. The tile is chosen by a small model of a core with two multiply-adds and two loads a
 * cycle, which holds for AMD since Zen 2 and Intel since Haswell (where both are one, the ratio is the same).
 */
#include "../passes/contract.h"
#include "rules.h"

enum { FEW_POINTS = 256,           /* panels that so few points use come from memory faster when asked for early (net-wide measurement) */
       AHEAD = 4096,               /* bytes */
       TALL = 8,                   /* rows of a tile */
       OPEN = 128,                 /* rows that an open extent is judged by */
       SHARED = 8 };               /* iterations to share among threads below which open rows are shared too */

/* ---- the loops ---- */
typedef struct { const char *name; int64_t n; bool row, panel; Sym *sym; Expr *extent; } Loop;   /* n -1: open; panel: the panel moves with it */

typedef struct { int r1, r2, v; double cost; } Tile;

typedef struct {
  Case *k;
  Contract w;
  int n, v;
  Loop loop[2 * MAX_RANK];
  int row[2];                      /* of the tile, inner first; -1: none */
  Tile tile;
  Sym *blocked;
  Str splits, order;
  Names par;
} Plan;

static void name_axes(Plan *p) {
  Ctx *c = p->k->c;
  for (int i = 0; i < p->w.n; i++) {
    const ContractAxis *a = &p->w.axis[i];
    const StageLoop *given = p->k->loop ? &p->k->loop[a->axis] : NULL;
    const char *whole = rule_axis_name(p->k, a->axis);
    bool panel = expr_uses(p->w.panel, a->sym), parts = a->part != AXIS_WHOLE && !(given && given->extent <= a->by);
    Loop l = {whole, given ? given->extent : const_extent(a->extent), !panel, panel, a->sym, a->extent};
    if (parts) l.n = a->part == AXIS_LOW ? a->by : l.n / a->by;
    if (given && (!given->open || (a->part == AXIS_HIGH && !parts))) continue;      /* outside */
    if (parts && a->part == AXIS_HIGH) str_add(&p->splits, "split %s %lld -> %s.q %s.r; ", whole, (long long)a->by, whole, whole);
    if (parts) l.name = ctx_printf(c, "%s.%c", whole, a->part == AXIS_HIGH ? 'q' : 'r');
    if (i == p->w.v) p->v = p->n;
    p->loop[p->n++] = l;
  }
}

/* ---- rows that continue each other ---- */
typedef struct { Ctx *c; const Loop *a, *b; bool ok; } Fit;

/* Does the offset go on along b where a takes its next step? */
static void continues(Fit *f, Expr *offset) {
  Expr *step_a, *step_b, *rest;
  bool linear = expr_is_linear(f->c, offset, f->a->sym, &step_a, &rest) && expr_is_linear(f->c, offset, f->b->sym, &step_b, &rest);
  f->ok &= linear && step_a == ex_mul(f->c, step_b, f->b->extent);
}

static void load_continues(const Expr *e, void *user) {
  Fit *f = user;
  if (e->op == EX_LOAD) continues(f, layout_offset(f->c, e->u.tensor, e->a));
}

static Expr *drop_load(Ctx *c, Expr *e, void *user) {
  (void)user;
  return e->op == EX_LOAD ? ex_const(c, (DType)e->dtype, 0) : e;
}

static bool fuses(Plan *p, int a) {
  Ctx *c = p->k->c;
  if (a < 0 || p->k->loop) return false;
  Fit f = {c, &p->loop[a], &p->loop[a + 1], true};
  if (!f.a->row || !f.b->row) return false;
  Expr *values = expr_map(c, p->w.body, drop_load, NULL);
  continues(&f, p->w.store);
  expr_visit(p->w.body, load_continues, &f);
  return f.ok && !expr_uses(values, f.a->sym) && !expr_uses(values, f.b->sym);
}

/* loop[a], loop[a + 1] -> one: as if b ran on. */
static void fuse(Plan *p, int a) {
  Ctx *c = p->k->c;
  Loop *x = &p->loop[a], *y = &p->loop[a + 1];
  const char *name = ctx_printf(c, "%s.%s", x->name, y->name);
  str_add(&p->splits, "fuse %s %s -> %s; ", x->name, y->name, name);
  Expr *extent = ex_mul(c, x->extent, y->extent);
  Sym *s = sym_axis(c, SYM_AXIS, name, extent);
  Subst to = subst_new(c);
  subst_set(&to, x->sym, ex_int(c, 0));
  subst_set(&to, y->sym, s->self);
  p->w.body = subst_apply(&to, p->w.body);
  p->w.store = subst_apply(&to, p->w.store);
  *x = (Loop){name, const_extent(extent), true, false, s, extent};
  memmove(y, y + 1, sizeof *y * (size_t)(--p->n - a - 1));
  if (p->v > a) p->v--;
}

/* The rows of the tile: the innermost, with those that continue it, and the next. */
static void choose_rows(Plan *p) {
  p->row[0] = p->row[1] = -1;
  for (int i = p->n - 1; i >= 0; i--) {
    if (!p->loop[i].row || p->loop[i].n == 1) continue;
    int at = p->row[0] < 0 ? 0 : 1;
    while (!at && fuses(p, i - 1)) fuse(p, --i);
    p->row[at] = i;
    if (at) break;
  }
}

/* ---- the tile ---- */
/* Cycles per step of K for r points by v vectors: multiply-adds, loads of both operands, four cycles until a sum can be added to, loop. */
static double step_cost(int r, int v) { return MAX(MAX(r * v, r + v) / 2.0, 4) + 0.15 * v + 0.1 * r + 0.4; }

/* Tile sizes that an open extent runs through after tiles of r. */
static int next_run(int r) {
  static const int runs[] = {14, 8, 4, 2, 1};
  for (int i = 0; i < COUNT(runs); i++)
    if (runs[i] < r) return runs[i];
  return 0;
}

static double rest_cost(int rest, int r, int v) {
  double cost = 0;
  for (int run = r; rest > 0; run = next_run(run)) cost += rest / run * step_cost(run, v), rest %= run;
  return cost;
}

/* Per row, of n rows (-1: open) in tiles of r, others rows of a second axis in each. */
static double row_cost(int64_t n, int r, int others, int v) {
  if (n >= 0) return ((double)(n / r) * step_cost(r * others, v) + (n % r ? step_cost((int)(n % r) * others, v) : 0)) / (double)(n * others);
  double rest = 0;
  for (int i = 1; i < r; i++) rest += rest_cost(i, r, v) / r;
  return (OPEN / r * step_cost(r, v) + rest) / (OPEN / r * r + (r - 1) / 2.0);
}

/* How the panel can lie for tiles of v vectors: stored in blocks as wide, as it stands, or not at all. */
typedef enum { PANEL_NONE, PANEL_PLAIN, PANEL_PACKED } PanelFit;
typedef struct { const Plan *p; const Sym *s; int64_t width; PanelFit fit; } PanelUse;

static void panel_load_fits(const Expr *e, void *user) {
  PanelUse *u = user;
  Ctx *c = u->p->k->c;
  Expr *coef, *rest;
  PanelFit fit = PANEL_NONE;
  if (e->op != EX_LOAD || !expr_uses(e, u->s)) return;
  if (access_stride(c, layout_offset(c, e->u.tensor, e->a), (Sym *)u->s, u->p->w.lanes) == 1) fit = PANEL_PLAIN;
  for (int d = 0; access_is_packable(e, u->s) && d < e->n; d++)
    if (expr_is_linear(c, e->a[d], u->s, &coef, &rest) && ex_equals_int(coef, 1) && expr_range(c, rest).multiple % u->width == 0) fit = PANEL_PACKED;
  if (!e->u.tensor->data && fit == PANEL_PLAIN) fit = PANEL_PACKED;          /* computed, and copied if that was worth while */
  u->fit = MIN(u->fit, fit);
}

static PanelFit panel_fit(const Plan *p, int v) {
  PanelUse u = {p, p->loop[p->v].sym, v * p->w.lanes, PANEL_PACKED};
  expr_visit(p->w.panel, panel_load_fits, &u);
  return u.fit;
}

static Tile choose_tile(const Plan *p) {
  const Target *t = p->k->m->target;
  const Loop *n1 = p->row[0] < 0 ? NULL : &p->loop[p->row[0]], *n2 = p->row[1] < 0 ? NULL : &p->loop[p->row[1]];
  int64_t m1 = n1 ? n1->n : 1, m2 = n2 && m1 > 0 && n2->n > 0 ? n2->n : 1, n = p->loop[p->v].n;
  int64_t vectors = n < 0 ? OPEN / p->w.lanes : (n + p->w.lanes - 1) / p->w.lanes;
  Tile best = {1, 1, 0, 1e30};
  for (int v = 1; v <= 6 && v <= vectors; v++) {
    PanelFit fit = panel_fit(p, v);
    for (int r1 = 1; fit && r1 <= 28 && (m1 < 0 || r1 <= m1); r1++)
      for (int r2 = 1; r2 <= (r1 == m1 ? MIN(m2, 8) : 1); r2++) {
        int r = r1 * r2;
        if (r * v + v + 1 >= t->vector_regs || r > 28) continue;
        double blocks = (double)(m2 / r2 + (m2 % r2 != 0)) * r2 / (double)m2;
        double panels = (double)((vectors + v - 1) / v * v) / (double)vectors;
        Tile tile = {r1, r2, v, row_cost(m1, r1, r2, v) * blocks * panels / v * (fit == PANEL_PLAIN ? 1.1 : 1)};
        if (tile.cost < best.cost * 0.999) best = tile;
      }
  }
  return best;
}

/* ---- the reduction ---- */
/* The reduction axis that the broadcast operand's blocked channels move with. */
static void find_blocked(const Expr *e, void *user) {
  if (e->op == EX_LOAD && e->u.tensor->layout && e->u.tensor->layout->n > e->u.tensor->rank) *(const Expr **)user = e;
}

static Sym *blocked_axis(const Plan *p) {
  const Expr *load = NULL, *reduce = p->w.reduce;
  expr_visit(p->w.broadcast, find_blocked, &load);
  for (int i = 1; load && i < reduce->n; i++)
    if (load->a[1] == reduce->a[i]) return reduce->a[i]->u.sym;
  return NULL;
}

/* A window's axis: some load's index moves with it and with an output axis. Unrolled, neighbouring points would share loads, and
 * the registers that hold them are missing for sums. */
typedef struct { const Contract *w; const Sym *s; bool found; } Window;
static void find_window(const Expr *e, void *user) {
  Window *w = user;
  for (int d = 0; e->op == EX_LOAD && d < e->n; d++)
    for (int i = 0; i < w->w->n && expr_uses(e->a[d], w->s); i++) w->found |= expr_uses(e->a[d], w->w->axis[i].sym);
}

static bool is_window(const Plan *p, const Sym *s) {
  Window w = {&p->w, s, false};
  expr_visit(p->w.broadcast, find_window, &w);
  return w.found;
}

/* K: the blocked axis in blocks outside, other axes, then inside the block unrolled; else the last axis in steps of four. */
static void reduction_order(Plan *p) {
  Case *k = p->k;
  const Expr *reduce = p->w.reduce;
  int n = reduce->n - 1, last = n - 1, lanes = k->lanes, rank = k->st->out->rank;
  for (int i = 0; i < n; i++)
    if (reduce->a[1 + i]->u.sym == p->blocked) last = i;
  const char *name = rule_axis_name(k, rank + last);
  if (p->blocked) str_add(&p->splits, "split %s %d -> %s.o %s.b; ", name, lanes, name, name);
  if (p->blocked) str_add(&p->order, " %s.o", name);
  for (int i = 0; i < n; i++)
    if (i != last) str_add(&p->order, " %s", rule_axis_name(k, rank + i));
  if (is_window(p, reduce->a[1 + last]->u.sym)) str_add(&p->order, " %s", name);
  else {
    str_add(&p->splits, "split %s%s %d 1 -> %s.i %s.u; unroll %s.u; ", name, p->blocked ? ".b" : "", p->blocked ? 8 : 4, name, name, name);
    str_add(&p->order, " %s.i %s.u", name, name);
  }
}

/* ---- the schedule ---- */
static void split_panel(Plan *p) {
  const char *v = p->loop[p->v].name;
  int lanes = p->k->lanes;
  str_add(&p->splits, "split %s %d", v, p->tile.v * lanes);
  if (p->loop[p->v].n < 0 && p->tile.v > 1) str_add(&p->splits, " %d", lanes);
  str_add(&p->splits, " -> %s.o %s.p; split %s.p %d -> %s.u %s.v; unroll %s.u; vector %s.v %d; ", v, v, v, lanes, v, v, v, v, lanes);
}

/* Splits a row axis; where it is open and threads have little else to share, into chunks for them first. */
static void split_rows(Plan *p, int which, int r, bool share) {
  const char *n = p->loop[p->row[which]].name, *of = n;
  bool open = p->loop[p->row[which]].n < 0;
  if (open && share) {
    str_add(&p->splits, "chunk %s %d -> %s.c %s.w; ", n, SHARED * r, n, n);
    of = ctx_printf(p->k->c, "%s.w", n);
    vec_push(p->k->c, &p->par, ctx_printf(p->k->c, "%s.c", n));
  }
  str_add(&p->splits, "split %s %d", of, r);
  for (int run = open ? next_run(r) : 0; run; run = next_run(run)) str_add(&p->splits, " %d", run);
  str_add(&p->splits, " -> %s.o %s.i; unroll %s.i; ", n, n, n);
  if (open) str_add(&p->order, " %s.o", n);
  else vec_push(p->k->c, &p->par, ctx_printf(p->k->c, "%s.o", n));
}

/* Loops outside the tile: those that the panel moves with, panels, the others. */
static int64_t outer_loops(Plan *p) {
  int64_t count = 1;
  bool placed = p->loop[p->v].n < 0;
  for (int data = 1; data >= 0; data--) {
    for (int i = 0; i < p->n; i++) {
      const Loop *l = &p->loop[i];
      if (i == p->v || i == p->row[0] || i == p->row[1] || l->panel != data) continue;
      vec_push(p->k->c, &p->par, l->name);
      count *= l->n < 0 ? 1 : l->n;
    }
    if (data && !placed) vec_push(p->k->c, &p->par, ctx_printf(p->k->c, "%s.o", p->loop[p->v].name));
  }
  return placed ? count : count * (p->loop[p->v].n / (p->tile.v * p->k->lanes) + 1);
}

/* How far ahead constants are asked for: a panel, so that the next comes into L2 while rows use this one, if there is room for both beside the
 * rows; not where it stays in L1 anyway, nor where short tiles read panels so often that L2 has no time. */
static int64_t prefetch_distance(const Plan *p) {
  const Target *t = p->k->m->target;
  int64_t depth = (int64_t)sizeof(float), rows = 1;
  for (int i = 1; i < p->w.reduce->n; i++) depth *= MAX(const_extent(p->w.reduce->a[i]->u.sym->extent), 0);
  for (int i = 0; i < p->n; i++) rows *= p->loop[i].row ? MAX(p->loop[i].n, 1) : 1;
  int64_t panel = depth * p->tile.v * p->k->lanes;
  bool fits = panel > t->l1_bytes && rows * depth + 2 * panel <= t->l2_bytes / 5 * 4;
  return fits && p->tile.r1 * p->tile.r2 >= TALL ? panel : AHEAD;
}

static void write_schedule(Plan *p) {
  Str *out = &p->k->text;
  const char *v = p->loop[p->v].name;
  str_add(out, "%sorder%s", p->splits.s, p->k->outer);
  for (int i = 0; i < p->par.n; i++) str_add(out, " %s", p->par.v[i]);
  str_add(out, "%s", p->order.s);
  for (int i = 1; i >= 0; i--)
    if (p->row[i] >= 0) str_add(out, " %s.i", p->loop[p->row[i]].name);
  str_add(out, " %s.u %s.v; ", v, v);
  rule_share_loops(p->k, &p->par);
  int64_t rows = contract_rows(&p->w, 1 << 20);
  if (rows > 1 && rows <= FEW_POINTS) str_add(out, "prefetch %lld; ", (long long)prefetch_distance(p));
}

const char *rule_contraction(Case *k) {
  Plan p = {.k = k, .v = -1, .splits = str_new(k->c), .order = str_new(k->c)};
  if (!rule_is_alone(k)) return "not a sum of products";
  const char *why = contract_view(k->c, k->st, k->lanes, &p.w);
  if (why) return why;
  if (p.w.scattered) return "the panel operand is not contiguous";
  name_axes(&p);
  if (p.v < 0) return "the vector axis is outside";
  choose_rows(&p);
  p.tile = choose_tile(&p);
  if (!p.tile.v) return "the panel operand is not contiguous in blocks of vectors";
  if (p.row[1] >= 0 && p.tile.r2 == 1) p.row[1] = -1;
  p.blocked = blocked_axis(&p);
  if (panel_fit(&p, p.tile.v) == PANEL_PACKED) rule_pack_constants(k, k->st->axes[p.w.axis[p.w.v].axis], (int64_t)p.tile.v * k->lanes, p.blocked);
  split_panel(&p);
  bool open = p.loop[p.v].n < 0, share = outer_loops(&p) < SHARED && !k->loop;
  if (open) str_add(&p.order, " %s.o", p.loop[p.v].name);
  for (int i = 1; i >= 0; i--)
    if (p.row[i] >= 0) split_rows(&p, i, i ? p.tile.r2 : p.tile.r1, share);
  reduction_order(&p);
  write_schedule(&p);
  return NULL;
}
