/* contraction.c - the rule for sums of products: a register tile of rows by vectors, the sum in registers throughout.
 *
 * Vectors run along the axis that only one factor moves with (the panel: it lies packed, a few vectors side by side); rows are points that
 * share the panel. Rows whose addresses continue each other are one axis. An extent that is not known runs in tiles of falling size, each
 * code of its own; the rest of a vector is masked. The tile is chosen by a model of a core (tile.c).
 */
#include <math.h>

#include "../passes/contract.h"
#include "rules.h"
#include "tile.h"

enum { LINE = 64,                  /* bytes of a cache line */
       SHARED = 8 };               /* iterations to share among threads below which open rows are shared too */

/* ---- the loops ---- */
typedef struct { const char *name; int64_t n; bool row, panel; Sym *sym; Expr *extent; } Loop;   /* n -1: open; panel: the panel moves with it */

typedef struct { const char *name; int64_t n; } Step;

typedef struct {
  Case *k;
  Contract w;
  int n, v;
  Loop loop[2 * MAX_RANK];
  int row[2];                      /* of the tile, inner first; -1: none */
  Tile tile;
  Sym *blocked;
  Str splits, order;
  Names par;                       /* shared loops */
  bool constant;                   /* the panel is one, packed */
  VEC(Step) steps;                 /* the loops around the innermost body, but those outside of a panel */
} Plan;

static void name_axes(Plan *p) {
  Ctx *c = p->k->c;
  for (int i = 0; i < p->w.n; i++) {
    const ContractAxis *a = &p->w.axis[i];
    const StageLoop *given = p->k->loop ? &p->k->loop[a->axis] : NULL;
    const char *whole = rule_axis_name(p->k, a->axis);
    bool panel = expr_uses(p->w.panel, a->sym), parts = a->part != AXIS_WHOLE && !(given && given->extent <= a->by);
    Loop l = {whole, given ? given->extent : const_extent(a->extent), !panel, panel, a->sym, a->extent};
    if (parts) l.n = a->part == AXIS_LOW ? a->by : given ? l.n / a->by : l.n;
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
  p->w.broadcast = subst_apply(&to, (Expr *)p->w.broadcast);
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

static void find_constant(const Expr *e, void *user) { *(bool *)user |= e->op == EX_LOAD && e->u.tensor->data && !e->u.tensor->data->splat; }

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

/* Bytes from a row to the next in the broadcast operand: of the first load that moves with the axis. */
typedef struct { Ctx *c; Sym *s; int64_t stride; } RowStride;
static void find_stride(const Expr *e, void *user) {
  RowStride *w = user;
  Expr *coef, *rest;
  int64_t step;
  if (e->op != EX_LOAD || !expr_uses(e, w->s)) return;
  Expr *offset = layout_offset(w->c, e->u.tensor, e->a);
  bool known = expr_is_linear(w->c, offset, w->s, &coef, &rest) && ex_is_int(coef, &step);
  w->stride = known ? step * dtype_bytes(e->u.tensor->dtype) : -1;
}

static TileProblem tile_problem(Plan *p) {
  Ctx *c = p->k->c;
  const Loop *vector = &p->loop[p->v];
  TileProblem t = {.target = p->k->m->target, .lanes = p->w.lanes, .rows = {1, 1}, .others = 1, .k = 1};
  t.vectors = vector->n < 0 ? TILE_OPEN / t.lanes : (vector->n + t.lanes - 1) / t.lanes;
  for (int i = 0; i < 2 && p->row[i] >= 0; i++) {
    RowStride w = {c, p->loop[p->row[i]].sym, 0};
    expr_visit(p->w.broadcast, find_stride, &w);
    t.rows[i] = p->loop[p->row[i]].n;
    if (!i) t.multiple = expr_range(c, p->loop[p->row[i]].extent).multiple;
    t.stride[i] = w.stride;
  }
  t.blocks = blocked_axis(p) != NULL;
  t.store_row = p->row[0] < 0 ? -1 : 4 * access_stride(c, p->w.store, p->loop[p->row[0]].sym, 1);
  t.store_vector = 4 * t.lanes * access_stride(c, p->w.store, vector->sym, 2 * t.lanes);
  for (int i = 0; i < p->n; i++)
    if (p->loop[i].row && i != p->row[0] && i != p->row[1]) t.others *= p->loop[i].n < 0 ? 1 : p->loop[i].n;
  for (int i = 1; i < p->w.reduce->n; i++) {
    int64_t n = const_extent(p->w.reduce->a[i]->u.sym->extent);
    t.k *= n < 0 ? TILE_OPEN : n;
  }
  if (t.rows[0] < 0 || t.rows[1] < 0) t.rows[1] = 1;
  for (int v = 1; v <= TILE_VECTORS; v++) {
    PanelFit fit = panel_fit(p, v);
    t.panel_cost[v] = fit == PANEL_NONE ? 0 : fit == PANEL_PLAIN ? 1.1 : 1;
  }
  expr_visit(p->w.panel, find_constant, &t.constant);
  return t;
}

/* The model's candidates: cycles a row, vector and step (half a cycle is the peak), and what holds the tile up. */
static void explain_tiles(const Plan *p, const Tile *all, int n, int taken) {
  enum { SHOWN = 5 };
  Str *out = &p->k->m->notes;
  str_add(out, "    %s tiles (rows x vectors: cycles, bound):", p->k->st->out->name);
  for (int i = 0; i < n; i++) {
    if (i >= SHOWN && i != taken) continue;
    const Tile *t = &all[i];
    const char *rows = t->r2 > 1 ? ctx_printf(p->k->c, "%d*%d", t->r1, t->r2) : ctx_printf(p->k->c, "%d", t->r1);
    str_add(out, "%s %sx%d: %.3f, %s%s", i ? ";" : "", rows, t->v, t->cost, t->bound, i == taken ? " (taken)" : "");
  }
  str_add(out, "\n");
}

/* The group's choice among the tiles as wide as the best one, which its constants are packed for, each smaller than the one before. */
static bool pick_tile(Plan *p, const TileProblem *problem) {
  enum { CANDIDATES = 24 };
  Group *g = p->k->g;
  Tile all[CANDIDATES];
  int n = tile_choose(problem, all, CANDIDATES), at = 0, further = g->tile;
  if (!n) return false;
  for (int i = 1; i < n && further; i++)
    if (all[i].v == all[0].v && all[i].r1 * all[i].r2 < all[at].r1 * all[at].r2) at = i, further--;
  p->tile = all[at];
  g->price = further ? INFINITY : MAX(g->price, all[at].cost / all[0].cost);
  if (p->k->m->opt->explain) explain_tiles(p, all, n, at);
  return true;
}

/* ---- the reduction ---- */
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
static void add_step(Plan *p, const char *name, int64_t n) { vec_push(p->k->c, &p->steps, ((Step){name, n})); }

static void reduction_order(Plan *p) {
  Case *k = p->k;
  const Expr *reduce = p->w.reduce;
  int n = reduce->n - 1, last = n - 1, lanes = k->lanes, rank = k->st->out->rank, first = p->steps.n;
  for (int i = 0; i < n; i++)
    if (reduce->a[1 + i]->u.sym == p->blocked) last = i;
  const char *name = rule_axis_name(k, rank + last);
  int64_t extent = const_extent(reduce->a[1 + last]->u.sym->extent), unroll = p->blocked ? 8 : 4;
  if (p->blocked) {
    str_add(&p->splits, "split %s %d -> %s.o %s.b; ", name, lanes, name, name);
    add_step(p, ctx_printf(k->c, "%s.o", name), extent < 0 ? extent : (extent + lanes - 1) / lanes);
    extent = lanes;
  }
  for (int i = 0; i < n; i++)
    if (i != last) add_step(p, rule_axis_name(k, rank + i), const_extent(reduce->a[1 + i]->u.sym->extent));
  bool window = is_window(p, reduce->a[1 + last]->u.sym);
  if (window) add_step(p, name, extent);
  else {
    if (extent > 1) unroll = MIN(unroll, extent);
    str_add(&p->splits, "split %s%s %d 1 -> %s.i %s.u; unroll %s.u; ", name, p->blocked ? ".b" : "", (int)unroll, name, name, name);
    add_step(p, ctx_printf(k->c, "%s.i", name), extent < 0 ? extent : (extent + unroll - 1) / unroll);
    add_step(p, ctx_printf(k->c, "%s.u", name), unroll);
  }
  for (int i = first; i < p->steps.n; i++) str_add(&p->order, " %s", p->steps.v[i].name);
}

/* ---- the schedule ---- */
static void split_panel(Plan *p) {
  const char *v = p->loop[p->v].name;
  int lanes = p->k->lanes;
  str_add(&p->splits, "split %s %d", v, p->tile.v * lanes);
  if (p->loop[p->v].n < 0 && p->tile.v > 1) str_add(&p->splits, " %d", lanes);
  str_add(&p->splits, " -> %s.o %s.p; split %s.p %d -> %s.u %s.v; unroll %s.u; vector %s.v %d; ", v, v, v, lanes, v, v, v, v, lanes);
}

/* Of the panel's constants for one of its columns; not positive: a sum is open. */
static int64_t column_bytes(const Plan *p) {
  int64_t bytes = 4;
  for (int i = 1; i < p->w.reduce->n; i++) bytes *= const_extent(p->w.reduce->a[i]->u.sym->extent);
  return bytes;
}

/* ---- threads ---- */
typedef struct { Ctx *c; double bytes; } Read;
static void add_read(const Expr *e, void *user) {
  Read *r = user;
  int64_t n;
  if (e->op != EX_LOAD || e->u.tensor->data || !ex_is_int(layout_elements(r->c, e->u.tensor), &n)) return;
  r->bytes += (double)n * dtype_bytes(e->u.tensor->dtype);
}

/* Threads that part panels read half of the rows where another one made them; threads that part rows read all panels from memory. */
static bool rows_are_far(const Plan *p) {
  const Target *t = p->k->m->target;
  Read rows = {p->k->c, 0};
  double panels = (double)p->loop[p->v].n * (double)column_bytes(p);
  for (int i = 0; i < p->n; i++)
    if (i != p->v && p->loop[i].panel) panels *= (double)p->loop[i].n;
  expr_visit(p->w.broadcast, add_read, &rows);
  return panels > 0 && rows.bytes / t->rate.remote > panels / t->rate.memory;
}

/* Rows in two halves, each with all panels: what a thread made it reads. */
static void part_rows(Plan *p) {
  if (p->k->m->opt->threads == 1 || p->k->loop || !p->constant || !rows_are_far(p)) return;
  for (int i = 0; i < p->n; i++) {
    Loop *l = &p->loop[i];
    int64_t r = i == p->row[0] ? p->tile.r1 : i == p->row[1] ? p->tile.r2 : 1;
    if (l->panel || i == p->v || l->n == 1) continue;
    if (l->n < 2 * r || l->n % 2) return;
    const char *half = ctx_printf(p->k->c, "%s.t", l->name), *rest = ctx_printf(p->k->c, "%s.s", l->name);
    l->n /= 2;
    str_add(&p->splits, "split %s %lld -> %s %s; ", l->name, (long long)l->n, half, rest);
    vec_push(p->k->c, &p->par, half);
    l->name = rest;
    return;
  }
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
  for (int run = open ? tile_next_run(r) : 0; run; run = tile_next_run(run)) str_add(&p->splits, " %d", run);
  str_add(&p->splits, " -> %s.o %s.i; unroll %s.i; ", n, n, n);
  const char *tiles = ctx_printf(p->k->c, "%s.o", n);
  if (open) str_add(&p->order, " %s", tiles);
  else vec_push(p->k->c, &p->par, tiles);
  if (!open || !p->steps.n) add_step(p, tiles, (open ? TILE_OPEN : p->loop[p->row[which]].n + r - 1) / r);
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
      if (!data && l->n > 0) add_step(p, l->name, l->n);
      count *= l->n < 0 ? 1 : l->n;
    }
    if (data && !placed) vec_push(p->k->c, &p->par, ctx_printf(p->k->c, "%s.o", p->loop[p->v].name));
  }
  return placed ? count : count * (p->loop[p->v].n / (p->tile.v * p->k->lanes) + 1);
}

/* Constants come from memory at a fraction of the speed at which tiles could use them: while the tiles of a panel are computed the next one is
 * asked for, evenly, a line at a time where loops are short enough: some CPUs take many at once much slower. A panel that one tile uses is a
 * part of a stream: that is asked for some way ahead, unless the whole of it may still be in the cache. */
static void look_ahead(Plan *p) {
  enum { AT_ONCE = 8, AHEAD = 3072 };                        /* lines, at the most; bytes, within a page's length of what is read */
  const Loop *vector = &p->loop[p->v];
  int64_t panel = p->tile.v * p->k->lanes * column_bytes(p), steps = 1;
  int n = 0;
  if (!p->constant || panel <= 0 || vector->n < 0) return;
  int64_t lines = (panel + LINE - 1) / LINE, all = panel * ((vector->n + p->tile.v * p->k->lanes - 1) / (p->tile.v * p->k->lanes));
  if (!p->tile.ahead && all <= 2 * p->k->m->target->l2_bytes) return;
  while (n < p->steps.n && steps < lines && (steps * AT_ONCE < lines || steps * p->steps.v[n].n <= 2 * lines)) steps *= p->steps.v[n++].n;
  if (!n) steps = p->steps.v[n++].n;
  str_add(&p->k->text, "ahead %lld %lld %lld", (long long)(p->tile.ahead ? panel : AHEAD), (long long)lines, (long long)steps);
  for (int i = 0; i < n; i++) str_add(&p->k->text, " %s", p->steps.v[i].name);
  str_add(&p->k->text, "; ");
}

enum { LATENCY = 256, MOST = 64, STREAMS = 32 };             /* cycles; requests in a step; parts that lie apart: more than the hardware follows */

/* Asks for what the loop over `by` reads a few steps later: the lines of a tile, and of the window's other axes if they are not too many. */
static void ask_sooner(Plan *p, const Sym *by, const char *loop, int64_t cycles, int64_t asked, const char *inner) {
  Case *k = p->k;
  int rank = k->st->out->rank, n = p->w.reduce->n - 1;
  Str over = str_new(k->c);
  for (int i = 0; i < n; i++) {
    const Sym *s = p->w.reduce->a[1 + i]->u.sym;
    int64_t extent = const_extent(s->extent);
    if (s == by) continue;
    cycles *= MAX(extent, 1);
    if (i == n - 1 || extent * asked > MOST) continue;       /* the last axis of a window: most of its lines are those of other rows */
    str_add(&over, " %s", rule_axis_name(k, rank + i));
    asked *= extent;
  }
  str_add(&k->text, "soon %lld %s%s%s; ", (long long)((LATENCY + cycles - 1) / cycles), loop, over.s ? over.s : "", inner);
}

static bool is_behind(const Plan *p, const Tensor *t, int times) {
  int64_t elements;
  return !ex_is_int(layout_elements(p->k->c, t), &elements) || elements * dtype_bytes(t->dtype) > times * p->k->m->target->l2_bytes;
}

static void find_map(const Expr *e, void *user) {
  if (e->op == EX_LOAD && !e->u.tensor->data && e->n >= 3) *(const Expr **)user = e;
}

/* Channels that lie far apart, in blocks of rows that are broadcast or in planes that vectors run along, are more streams than the hardware
 * follows: where they come from behind L2, the next ones are asked for while the tile works on some. */
static void look_sooner(Plan *p) {
  enum { BEHIND = 4 };                                       /* times L2, for blocks, in which lines of several points follow each other */
  Case *k = p->k;
  const Expr *load = NULL;
  int rank = k->st->out->rank, n = p->w.reduce->n - 1;
  int64_t tile = (int64_t)p->tile.r1 * p->tile.r2, cycles = tile * p->tile.v / 2;
  Str inner = str_new(k->c);
  if (!p->blocked && !p->constant) expr_visit(p->w.panel, find_map, &load);
  for (int i = 0; load && i < n - 1; i++) {
    const Sym *s = p->w.reduce->a[1 + i]->u.sym;
    if (load->a[1] != s->self || const_extent(s->extent) < STREAMS || !is_behind(p, load->u.tensor, 1)) continue;
    ask_sooner(p, s, rule_axis_name(k, rank + i), MAX(cycles, 1), p->tile.v, ctx_printf(k->c, " %s.u", p->loop[p->v].name));
  }
  if (!p->blocked || !p->constant || const_extent(p->blocked->extent) < STREAMS * k->lanes) return;
  expr_visit(p->w.broadcast, find_blocked, &load);
  if (!is_behind(p, load->u.tensor, BEHIND)) return;
  for (int i = 1; i >= 0; i--)
    if (p->row[i] >= 0) str_add(&inner, " %s.i", p->loop[p->row[i]].name);
  for (int i = 0; i < n; i++)
    if (p->w.reduce->a[1 + i]->u.sym == p->blocked)
      ask_sooner(p, p->blocked, ctx_printf(k->c, "%s.o", rule_axis_name(k, rank + i)), MAX(k->lanes * cycles, 1), tile, inner.s ? inner.s : "");
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
  look_ahead(p);
  look_sooner(p);
  rule_share_loops(p->k, &p->par);
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
  TileProblem problem = tile_problem(&p);
  if (!pick_tile(&p, &problem)) return "the panel operand is not contiguous in blocks of vectors";
  if (p.row[1] >= 0 && p.tile.r2 == 1) p.row[1] = -1;
  p.blocked = blocked_axis(&p);
  bool packed = problem.panel_cost[p.tile.v] == 1;
  p.constant = problem.constant && packed;
  const ContractAxis *v = &p.w.axis[p.w.v];
  const Expr *part = v->part == AXIS_LOW ? ex_mod(k->c, k->st->axes[v->axis]->self, ex_int(k->c, v->by)) : NULL;
  if (packed) rule_pack_constants(k, k->st->axes[v->axis], part, (int64_t)p.tile.v * k->lanes, p.blocked);
  part_rows(&p);
  split_panel(&p);
  bool open = p.loop[p.v].n < 0, share = outer_loops(&p) < SHARED && !k->loop;
  if (open) str_add(&p.order, " %s.o", p.loop[p.v].name);
  for (int i = 1; i >= 0; i--)
    if (p.row[i] >= 0) split_rows(&p, i, i ? p.tile.r2 : p.tile.r1, share);
  reduction_order(&p);
  write_schedule(&p);
  return NULL;
}
