/* strassen.c - pass_strassen: products with large constant matrices in 7 multiplications of half the size instead of 8.
 *
 * Before: y[.., m, n] = f(sum(k) a[.., m, k] * w[k, n])
 * After:  S[.., b, r, p, k'] = sums of a at two rows and two halves of k         m = 2 (b R + r) + x: rows are paired, R pairs are a block
 *         P[q, .., b, p, r, j] = sum(k') S[.., b, r, p, k'] * T[q, p, k', j]     T: sums of w, made when stored; n = (2 q + z) J + j
 *         y = f(C[x, z])                                                         C: sums of P over the products p = 0 .. 6
 * x, z and a half of k tell the blocks of the matrices apart: strassen.def. Halves of n and k alternate by panels of columns, those of m by
 * rows, so that what belongs together lies close together; a last odd row is computed twice. P and y are one group that works a piece (q, b)
 * at a time, so that P stays in cache. S is made once for all that multiply the same a; where a is such a product itself and nothing else
 * reads it, its group makes S instead of a.
 * Neighbouring axes of rows count as one: the points of a map, for a 1x1 convolution, whose columns are the channels.
 * Rows are mixed: an infinity in a row spoils its neighbour, and rounding errors are relative to the larger of the two.
 */
#include <math.h>

#include "bilinear.h"
#include "passes.h"

enum { PRODUCTS = 7, BLOCKS = 4, MAX_PAIRS = 128, LEAST_POINTS = 64, LEAST_ROWS = 32, LEAST_DEPTH = 128 };
#define B4(...) {__VA_ARGS__}
static const struct { double a[BLOCKS], b[BLOCKS], c[BLOCKS]; } products[PRODUCTS] = {
#define PRODUCT(...) {__VA_ARGS__},
#include "strassen.def"
#undef PRODUCT
};
#undef B4

typedef struct Sums { Stage *stage; Expr *body; struct Sums *next; } Sums;
typedef struct Product Product;

typedef struct {
  Module *m;
  Ctx *c;
  Map made;                        /* sums of weights, by those they come from and their form */
  Map readers;                     /* Tensor* -> number of stages that load it */
  Map sums;                        /* Tensor* -> Sums*: sums of rows of what loads that tensor first */
  Map products;                    /* Tensor* -> Product*: what was rewritten, by what it makes */
} Shared;

struct Product {
  Shared *g;
  Ctx *c;
  Stage *st;
  Expr *reduce, *a, *column;       /* a: what multiplies the weights; column: where in their columns */
  const Expr *w;
  Sym *k;
  int k_dim, column_dim;           /* dimensions of the weights along k and the columns; others have one element */
  int pair, unit, rest[MAX_RANK], nrest;         /* axes of paired rows, single columns, other rows */
  int64_t depth, columns, rows, points;        /* points: rows times the other axes', at the least */
  int64_t panel, half, block, blocks;          /* J, columns of k side by side in a half, R, number of blocks */
  Group *group;                    /* once rewritten: where it stands, y's expression with `sum` for the product's element, and that */
  Expr *body, *sum, *element;
};

/* ---- is it one? ---- */
/* Are its columns the channels of a map? */
static bool is_map(const Product *k) { return k->unit == 1 && k->st->out->rank > 2 && k->column == k->st->axes[1]->self; }

static bool match_weights(Product *k, Expr *w, Expr *a) {
  const ConstData *data = w->op == EX_LOAD && w->n >= 2 ? w->u.tensor->data : NULL;
  if (!data || data->splat || w->u.tensor->dtype != DT_F32) return false;
  k->k = k->reduce->a[1]->u.sym;
  k->k_dim = k->column_dim = -1;
  for (int d = 0; d < w->n; d++) {
    if (ex_equals_int(w->u.tensor->shape[d], 1)) continue;
    int *dim = w->a[d] == k->k->self ? &k->k_dim : &k->column_dim;
    if (*dim >= 0) return false;
    *dim = d;
  }
  if (k->k_dim < 0 || k->column_dim < 0) return false;
  k->w = w;
  k->a = a;
  k->column = w->a[k->column_dim];
  return !expr_uses(k->column, k->k) && w->u.tensor->shape[k->k_dim] == k->k->extent && ex_is_int(k->k->extent, &k->depth) &&
         ex_is_int(w->u.tensor->shape[k->column_dim], &k->columns);
}

/* Every axis moves the rows or the columns, one of them a column at a time; all columns are made. */
static bool match_axes(Product *k) {
  Stage *st = k->st;
  int64_t columns = 1;
  Expr *coef, *rest;
  k->pair = k->unit = -1;
  k->points = 1;
  for (int i = 0; i < st->out->rank; i++) {
    int64_t n = MAX(expr_range(k->c, st->axes[i]->extent).min, 1);
    bool row = expr_uses(k->a, st->axes[i]), column = expr_uses(k->column, st->axes[i]), open = !ex_is_int(st->axes[i]->extent, NULL);
    if (st->axes[i]->kind == SYM_DIM || row + column > 1 || (open && !row)) return false;
    if (n == 1 && !open) continue;
    if (row + column == 0) return false;
    if (column) columns *= n;
    else k->points *= n;
    if (row && n > k->rows) k->rows = n, k->pair = open ? -1 : i;
    if (column && expr_is_linear(k->c, k->column, st->axes[i], &coef, &rest) && ex_equals_int(coef, 1)) k->unit = i;
  }
  for (int i = 0; i < st->out->rank; i++)
    if (i != k->pair && expr_uses(k->a, st->axes[i]) && st->axes[i]->max) k->rest[k->nrest++] = i;
  if (is_map(k) && st->out->scope == SCOPE_OUTPUT) return false;    /* it would be scattered; the direct one is copied */
  return k->rows && k->unit >= 0 && columns == k->columns;
}

static bool is_row(const Product *k, int i) {
  const Sym *s = k->st->axes[i];
  return s->kind != SYM_DIM && ex_is_int(s->extent, NULL) && expr_uses(k->a, s) && !expr_uses(k->column, s);
}

/* Neighbouring axes of rows as one, f: y[.., f / n, f % n, ..]. */
static bool flatten_rows(Product *k) {
  Ctx *c = k->c;
  const Stage *st = k->st;
  int last = st->out->rank - 1, first;
  while (last > 0 && !(is_row(k, last) && is_row(k, last - 1))) last--;
  for (first = last; first > 0 && is_row(k, first - 1); first--) {}
  if (first == last) return false;
  Expr *n = ex_int(c, 1);
  Stage *flat = ctx_copy(c, st, sizeof *st);
  Subst to = subst_new(c);
  flat->axes = ctx_copy(c, st->axes, sizeof(Sym *) * (size_t)st->out->rank);
  flat->at = NEW_ARRAY(c, Expr *, st->out->rank);
  for (int i = 0; i < st->out->rank; i++) flat->at[i] = st->axes[i]->self;
  for (int i = first; i <= last; i++) n = ex_mul(c, n, st->axes[i]->extent);
  Sym *f = flat->axes[last] = sym_axis(c, SYM_AXIS, "f", n);
  Expr *row = f->self;
  for (int i = last; i >= first; i--) {
    flat->at[i] = i == first ? row : ex_mod(c, row, st->axes[i]->extent);
    row = ex_div(c, row, st->axes[i]->extent);
    subst_set(&to, st->axes[i], flat->at[i]);
    if (i < last) flat->axes[i] = sym_axis(c, SYM_AXIS, "one", ex_int(c, 1));
  }
  flat->body = subst_apply(&to, st->body);
  k->st = flat;
  return true;
}

static bool match_stage(Product *k) {
  Expr *r = k->reduce = stage_reduce(k->st->body), *p = r ? r->a[0] : NULL;
  return is_contraction(r) && r->n == 2 && r->dtype == DT_F32 && (match_weights(k, p->a[1], p->a[0]) || match_weights(k, p->a[0], p->a[1]));
}

static bool match(Product *k, const Group *g) {
  k->st = group_root(g);
  if (g->stages.n > 1 || k->st->at || k->st->out->dtype != DT_F32 || !match_stage(k)) return false;
  return (!flatten_rows(k) || match_stage(k)) && match_axes(k);
}

/* ---- where it pays ---- */
/* Panels of so many columns never lie across a border of their axis, and that axis or the next one tells the halves apart. */
static bool panel_fits(const Product *k, int64_t panel) {
  Sym *last = k->st->axes[k->unit];
  Expr *coef, *rest;
  int64_t n;
  if (k->column == last->self) return true;
  expr_is_linear(k->c, k->column, last, &coef, &rest);
  if (!ex_is_int(last->extent, &n) || k->columns % (2 * panel)) return false;
  int64_t begins = expr_range(k->c, rest).multiple;
  return n % (2 * panel) == 0 ? begins % (2 * panel) == 0 : n == panel && begins % panel == 0;
}

/* What padding makes of the work, and what two threads that do not have as many pieces each wait for the other, seen as often as one. */
static double waste(const Product *k) {
  double pieces = ceil((double)k->columns / (2.0 * (double)k->panel)) * (double)k->blocks, points = 1;
  for (int i = 0; i < k->nrest; i++) points *= (double)(k->st->axes[k->rest[i]]->max + 1);
  double padded = ceil((double)k->columns / (2.0 * (double)k->panel)) * (2.0 * (double)k->panel) / (double)k->columns;
  return padded * (double)(2 * k->block * k->blocks) / (double)k->rows * (1 + ceil(pieces * points / 2) / (pieces * points / 2)) / 2;
}

/* Columns of a panel and pairs of a block. Two vectors wide, a register tile has many rows: panels come from memory at an even pace. */
static bool choose_pieces(Product *k) {
  enum { FEWEST = 14, MORE = 3 };                            /* pairs; blocks than are needed, so that threads have as much to do each */
  static const int vectors[] = {2, 3, 1, 4};
  int64_t pairs = (k->rows + 1) / 2, needed = (pairs + MAX_PAIRS - 1) / MAX_PAIRS;
  double least = INFINITY;
  Product best = *k;
  for (int i = 0; i < COUNT(vectors); i++)
    for (int64_t blocks = needed; blocks <= needed + MORE && (blocks == needed || pairs / blocks >= FEWEST); blocks++) {
      k->panel = target_lanes(k->g->m->target, 32) * vectors[i];
      k->blocks = blocks;
      k->block = (pairs + blocks - 1) / blocks;
      if (!panel_fits(k, k->panel)) break;
      double cost = waste(k) * (1 + 0.02 * i) * (1 + 0.01 * (double)(blocks - needed));
      if (cost < least) best = *k, least = cost;
    }
  *k = best;
  return least < INFINITY;
}

/* NULL: the product can be made so. */
static const char *choose_blocks(Product *k) {
  if (k->pair < 0) return "the number of rows is open: they may be few";
  if (k->depth % 2) return "the sum has no halves";
  if (!choose_pieces(k)) return "no panels that part the columns";
  k->half = k->depth / 2;
  if (k->columns <= 2 * k->panel) return "few columns";
  return NULL;
}

/* Cycles to move a vector to or from where `bytes` are at home. */
static double vector_cycles(const Target *t, double bytes) {
  return bytes <= (double)t->l2_bytes ? 1.4 : bytes <= (double)t->l3_bytes ? 48 / t->rate.l3 : 114 / t->rate.memory;
}

/* To write a vector of the result, and to read its line first, beyond what the sums that it is made of hide. */
static double result_cycles(const Target *t, double bytes) {
  const double moved = 128, hidden = 11;
  return bytes <= (double)t->l2_bytes ? 0 : MAX(moved / (bytes <= (double)t->l3_bytes ? t->rate.l3 : t->rate.memory) - hidden, 0);
}

/* Where rows of the result begin inside of lines, stores that meet two lines wait for memory, once in every row of a piece. */
static double split_cycles(const Product *k) {
  const double wait = 1024;                                  /* bytes that memory could have brought */
  const Target *t = k->g->m->target;
  if (k->unit != k->st->out->rank - 1 || k->columns % target_lanes(t, 32) == 0 || 4 * k->points * k->columns <= t->l2_bytes) return 0;
  return (double)k->points * (double)k->columns / (2.0 * (double)k->panel) * wait / t->rate.memory;
}

/* NULL: it pays. In cycles, as measured: an eighth of the multiply-adds is saved, sums are read and written, which two threads, that then read
 * what the other one wrote, do no faster than one; weights are larger, and between two runs of a model push the result out of the cache. */
static const char *weigh(const Product *k) {
  const Target *t = k->g->m->target;
  double lanes = target_lanes(t, 32), m = (double)k->points, n = (double)k->columns, depth = (double)k->depth;
  if (k->points < LEAST_POINTS || k->rows < LEAST_ROWS) return "few rows for the larger weights";
  if (is_map(k) && k->half % target_lanes(t, 32)) return "halves of the channels are no whole blocks";
  if (k->depth < LEAST_DEPTH) return "short sums: what they add up is as long";
  double of_a = 2.75 * m * depth, of_c = 3.5 * m * n, piece = (double)(PRODUCTS * k->block * k->panel), weights = 4 * depth * n;
  double all = m * n * depth / lanes / t->rate.fma, larger = weights * PRODUCTS / BLOCKS;
  double sums = (1.5 * of_a * vector_cycles(t, 4 * of_a) + of_c * vector_cycles(t, 4 * piece) + m * n * result_cycles(t, 4 * m * n + larger)) / lanes + split_cycles(k);
  double direct = bilinear_cycles(t, all, BILINEAR_EVEN, weights);
  double fewer = bilinear_cycles(t, all * waste(k) * PRODUCTS / (2 * BLOCKS) + sums, BILINEAR_EVEN, larger);
  return fewer < direct * 0.975 ? NULL : "the sums cost what the multiplications save";
}

/* ---- the weights ---- */
/* The step of k that is step kk of half z: halves lie side by side, some columns each. */
static Expr *half_step(const Product *k, Expr *kk, int z) {
  Ctx *c = k->c;
  Expr *half = ex_int(c, k->half);
  return ex_add(c, ex_mul(c, ex_add(c, ex_mul(c, ex_div(c, kk, half), ex_int(c, 2)), ex_int(c, z)), half), ex_mod(c, kk, half));
}

/* w there, 0 behind the last column */
static Expr *weight(const Product *k, Tensor *from, Expr *step, Expr *column) {
  Ctx *c = k->c;
  Expr *at[MAX_RANK];
  for (int d = 0; d < from->rank; d++) at[d] = d == k->k_dim ? step : d == k->column_dim ? column : ex_int(c, 0);
  Expr *w = ex_cast(c, DT_F64, ex_load(c, from, at, from->rank));
  return ex_select(c, ex_lt(c, column, ex_int(c, k->columns)), w, ex_const(c, DT_F64, 0));
}

/* The weights as they are read: a row of columns after the other. */
static Tensor *source_by_steps(const Product *k) {
  Str layout = str_new(k->c);
  str_add(&layout, "d%d,d%d", k->k_dim, k->column_dim);
  for (int d = 0; d < k->w->n; d++)
    if (d != k->k_dim && d != k->column_dim) str_add(&layout, ",d%d", d);
  return bilinear_source(k->c, k->w->u.tensor, layout.s);
}

static Stage *combining_stage(const Product *k) {
  Ctx *c = k->c;
  int64_t panels = (k->columns + 2 * k->panel - 1) / (2 * k->panel);
  Expr *shape[] = {ex_int(c, panels), ex_int(c, PRODUCTS), ex_int(c, k->depth / 2), ex_int(c, k->panel)};
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.T", k->w->u.tensor->name), 4, shape, (const char *const[]){"q", "p", "k", "j"});
  Tensor *from = source_by_steps(k);
  Expr *b[BLOCKS], *sum[PRODUCTS], *two = ex_int(c, 2), *panel = ex_int(c, k->panel);
  for (int i = 0; i < BLOCKS; i++) {
    Expr *part = ex_add(c, ex_mul(c, two, st->axes[0]->self), ex_int(c, i % 2));
    b[i] = weight(k, from, half_step(k, st->axes[2]->self, i / 2), ex_add(c, ex_mul(c, part, panel), st->axes[3]->self));
  }
  for (int p = 0; p < PRODUCTS; p++) sum[p] = bilinear_sum(c, products[p].b, b, BLOCKS, false);
  st->body = ex_cast(c, DT_F32, bilinear_case(c, st->axes[1]->self, sum, PRODUCTS));
  return st;
}

static Tensor *combined(Product *k) {
  Ctx *c = k->c;
  const Tensor *from = k->w->u.tensor;
  const char *form = ctx_intern(c, ctx_printf(c, "%p %d %lld %lld", (void *)from->data, k->k_dim, (long long)k->panel, (long long)k->half));
  Stage *st = map_get(&k->g->made, KEY(form));
  if (!st) map_set(&k->g->made, KEY(form), st = combining_stage(k));
  return bilinear_weights(c, st);
}

/* ---- expressions ---- */
/* A tensor's shape and its axes' names. */
typedef struct { int rank; Expr *shape[MAX_RANK]; const char *names[MAX_RANK]; } Form;

static void add_axis(Form *f, const char *name, Expr *extent) {
  f->names[f->rank] = name;
  f->shape[f->rank++] = extent;
}

static void add_blocks(const Product *k, Form *f) {
  for (int i = 0; i < k->nrest; i++) add_axis(f, k->st->axes[k->rest[i]]->name, k->st->axes[k->rest[i]]->extent);
  add_axis(f, "b", ex_int(k->c, k->blocks));
}

/* S[.., b, r, p, k]: the sums of a place lie close together, in different sets of the cache. */
static Form sums_form(const Product *k) {
  Form f = {0};
  add_blocks(k, &f);
  add_axis(&f, "r", ex_int(k->c, k->block));
  add_axis(&f, "p", ex_int(k->c, PRODUCTS));
  add_axis(&f, "k", ex_int(k->c, k->depth / 2));
  return f;
}
typedef enum { S_BLOCK, S_PAIR, S_PRODUCT, S_STEP } SumsAxis;
static Expr *sums_at(const Product *k, const Stage *s, SumsAxis which) { return s->axes[k->nrest + which]->self; }

/* Where the stage of S stands: the row x of its pair, the step of k in its half z. */
static Expr *row_at(const Product *k, const Stage *s, int x) {
  Ctx *c = k->c;
  Expr *pair = ex_add(c, ex_mul(c, sums_at(k, s, S_BLOCK), ex_int(c, k->block)), sums_at(k, s, S_PAIR));
  return ex_add(c, ex_mul(c, ex_int(c, 2), pair), ex_int(c, x));
}

static Expr *step_at(const Product *k, const Stage *s, int z) { return half_step(k, sums_at(k, s, S_STEP), z); }

/* The axes of p, whose rows are paired like those of k, at that place. */
static Subst at_place(const Product *k, const Product *p, const Stage *s, Expr *row, Sym *step, int z) {
  Subst to = subst_new(k->c);
  for (int i = 0; i < p->st->out->rank; i++)
    if (p->st->axes[i]->max == 0) subst_set(&to, p->st->axes[i], ex_int(k->c, 0));
  for (int i = 0; i < k->nrest; i++) subst_set(&to, p->st->axes[p->rest[i]], s->axes[i]->self);
  subst_set(&to, p->st->axes[p->pair], row);
  subst_set(&to, step, step_at(k, s, z));
  return to;
}

static Expr *last_row_at_most(const Product *k, Expr *row) { return ex_min(k->c, row, ex_int(k->c, k->rows - 1)); }

/* a there */
static Expr *block_of_a(const Product *k, const Stage *s, int x, int z) {
  Subst to = at_place(k, k, s, last_row_at_most(k, row_at(k, s, x)), k->k, z);
  return subst_apply(&to, k->a);
}

typedef Expr *BlockOf(const Product *k, const Stage *s, int x, int z);
static Expr *sums_of(const Product *k, const Stage *s, BlockOf *of) {
  Expr *a[BLOCKS], *sum[PRODUCTS];
  for (int i = 0; i < BLOCKS; i++) a[i] = of(k, s, i / 2, i % 2);
  for (int p = 0; p < PRODUCTS; p++) sum[p] = bilinear_sum(k->c, products[p].a, a, BLOCKS, false);
  return bilinear_case(k->c, sums_at(k, s, S_PRODUCT), sum, PRODUCTS);
}

/* The first tensor that a loads; NULL if what it loads is overwritten while the body runs: sums of it then hold for a moment only. */
static const Tensor *lasting_tensor(const Product *k) {
  TensorList l = {.c = k->c};
  expr_tensors(&l, k->a);
  for (int i = 0; i < l.list.n; i++)
    if (module_is_state(k->g->m, l.list.v[i])) return NULL;
  return l.list.n ? l.list.v[0] : NULL;
}

static bool has_form(const Stage *s, const Form *f) {
  bool same = s->out->rank == f->rank;
  for (int i = 0; i < f->rank && same; i++) same = s->out->shape[i] == f->shape[i];
  return same;
}

/* The stage of S; *is_new: nobody has made it yet. */
static Stage *sums_stage(const Product *k, bool *is_new) {
  Ctx *c = k->c;
  Form f = sums_form(k);
  const Tensor *key = lasting_tensor(k);
  Sums *first = key ? map_get(&k->g->sums, KEY(key)) : NULL;
  *is_new = false;
  for (Sums *s = first; s; s = s->next)
    if (has_form(s->stage, &f) && sums_of(k, s->stage, block_of_a) == s->body) return s->stage;
  Sums *s = NEW(c, Sums);
  s->stage = bilinear_stage(c, ctx_printf(c, "%s.S", k->st->out->name), f.rank, f.shape, f.names);
  s->body = s->stage->body = sums_of(k, s->stage, block_of_a);
  s->next = first;
  if (key) map_set(&k->g->sums, KEY(key), s);
  *is_new = true;
  return s->stage;
}

static Stage *product_stage(Product *k, Tensor *s) {
  Ctx *c = k->c;
  Form f = {0};
  Tensor *t = combined(k);
  add_axis(&f, "q", t->shape[0]);
  add_blocks(k, &f);
  int p = f.rank;
  add_axis(&f, "p", ex_int(c, PRODUCTS));
  add_axis(&f, "r", ex_int(c, k->block));
  add_axis(&f, "j", ex_int(c, k->panel));
  Stage *st = bilinear_stage(c, ctx_printf(c, "%s.P", k->st->out->name), f.rank, f.shape, f.names);
  Sym *kk = sym_axis(c, SYM_REDUCE, "k", ex_int(c, k->depth / 2)), **axes = st->axes;
  Expr *left[MAX_RANK], *right[] = {axes[0]->self, axes[p]->self, kk->self, axes[p + 2]->self};
  for (int i = 1; i < p; i++) left[i - 1] = axes[i]->self;
  left[p - 1] = axes[p + 1]->self;
  left[p] = axes[p]->self;
  left[p + 1] = kk->self;
  st->body = ex_reduce(c, RED_SUM, ex_mul(c, ex_load(c, s, left, p + 2), ex_load(c, t, right, 4)), &kk, 1);
  return st;
}

/* The element of the product, from the seven that make it. */
static Expr *element(const Product *k, Tensor *p) {
  Ctx *c = k->c;
  Sym **axes = k->st->axes;
  Expr *two = ex_int(c, 2), *panel = ex_int(c, k->panel), *block = ex_int(c, k->block);
  Expr *pair = ex_div(c, axes[k->pair]->self, two);
  Expr *at[MAX_RANK], *load[PRODUCTS], *row[2];
  int n = 0;
  at[n++] = ex_div(c, k->column, ex_mul(c, two, panel));
  for (int i = 0; i < k->nrest; i++) at[n++] = axes[k->rest[i]]->self;
  at[n++] = ex_div(c, pair, block);
  Expr **which = &at[n++];
  at[n++] = ex_mod(c, pair, block);
  at[n++] = ex_mod(c, k->column, panel);
  for (int i = 0; i < PRODUCTS; i++) *which = ex_int(c, i), load[i] = ex_load(c, p, at, n);
  for (int x = 0; x < 2; x++) {
    Expr *item[2];
    for (int z = 0; z < 2; z++) {
      double by[PRODUCTS];
      for (int i = 0; i < PRODUCTS; i++) by[i] = products[i].c[2 * x + z];
      item[z] = bilinear_sum(c, by, load, PRODUCTS, false);
    }
    row[x] = bilinear_case(c, ex_mod(c, ex_div(c, k->column, panel), two), item, 2);
  }
  return bilinear_case(c, ex_mod(c, axes[k->pair]->self, two), row, 2);
}

/* ---- a product of a product (the two of a feed-forward layer): the first one's elements are summed where they are made ---- */
static bool loads(Ctx *c, const Expr *e, const Tensor *t) {
  TensorList l = {.c = c};
  expr_tensors(&l, e);
  for (int i = 0; i < l.list.n; i++)
    if (l.list.v[i] == t) return true;
  return false;
}

/* The product that makes a, if nothing else reads it and its rows are paired alike; its columns are this one's k, its panels the halves. */
static Product *product_of_a(Product *k) {
  Expr *a = k->a;
  Ctx *c = k->c;
  Sym **axes = k->st->axes;
  Product *p = a->op == EX_LOAD ? map_get(&k->g->products, KEY(a->u.tensor)) : NULL;
  const Tensor *t = p ? p->st->out : NULL;
  if (!p || t->scope == SCOPE_OUTPUT || module_is_state(k->g->m, t) || map_get(&k->g->readers, KEY(t)) != (void *)1) return NULL;
  if (loads(c, k->body, t)) return NULL;
  if (p->rows != k->rows || p->block != k->block || p->nrest != k->nrest) return NULL;
  if (p->column != p->st->axes[p->unit]->self || p->columns != k->depth || k->depth % (2 * p->panel)) return NULL;
  Subst to = subst_new(c);
  subst_set(&to, p->st->axes[p->pair], axes[k->pair]->self);
  subst_set(&to, p->st->axes[p->unit], k->k->self);
  for (int i = 0; i < k->nrest; i++) {
    if (p->st->axes[p->rest[i]]->extent != axes[k->rest[i]]->extent) return NULL;
    subst_set(&to, p->st->axes[p->rest[i]], axes[k->rest[i]]->self);
  }
  for (int d = 0; d < t->rank; d++)
    if (a->a[d] != subst_apply(&to, stage_index(p->st, d)) && !ex_equals_int(t->shape[d], 1)) return NULL;
  return p;
}

/* p's element: rows beyond the last exist among the sums of products, but not in what else y loads. */
static Expr *block_of_product(const Product *k, const Stage *s, int x, int z) {
  Ctx *c = k->c;
  const Product *p = map_get(&k->g->products, KEY(k->a->u.tensor));
  Expr *row[] = {row_at(k, s, x), last_row_at_most(k, row_at(k, s, x))}, *e[] = {p->element, p->body};
  for (int i = 0; i < 2; i++) {
    Subst to = at_place(k, p, s, row[i], p->st->axes[p->unit], z);
    e[i] = subst_apply(&to, e[i]);
  }
  return expr_replace(c, e[1], p->sum, e[0]);
}

/* p's group makes the sums instead of y. */
static Stage *sums_in_place(Product *k, Product *p) {
  Form f = sums_form(k);
  Stage *s = bilinear_stage(k->c, ctx_printf(k->c, "%s.S", k->st->out->name), f.rank, f.shape, f.names);
  k->half = p->panel;
  s->body = sums_of(k, s, block_of_product);
  p->group->block = NEW_ARRAY(k->c, int64_t, f.rank);
  for (int i = 0; i <= k->nrest; i++) p->group->block[i] = s->axes[i]->max > 0;
  p->group->block[f.rank - 1] = p->panel;
  return p->group->stages.v[p->group->stages.n - 1] = s;
}

/* How the group is computed: a piece at a time, that is a panel of columns and a block of rows, with all products in it. */
static int64_t *pieces(const Product *k) {
  Sym **axes = k->st->axes;
  int rank = k->st->out->rank;
  int64_t *block = NEW_ARRAY(k->c, int64_t, rank), unit = axes[k->unit]->max + 1;
  Expr *coef, *rest;
  for (int i = 0; i < rank; i++) {
    if (axes[i]->max == 0) continue;
    block[i] = i != k->pair;                                 /* other rows and columns one by one */
    if (i == k->pair && k->blocks > 1) block[i] = 2 * k->block;
    if (i == k->unit) block[i] = unit > 2 * k->panel ? 2 * k->panel : 0;
    else if (unit == k->panel && expr_is_linear(k->c, k->column, axes[i], &coef, &rest) && ex_equals_int(coef, unit)) block[i] = 2;
  }
  return block;
}

static void rewrite(Product *k, Body *b, int *item) {
  Ctx *c = k->c;
  Group *g = k->group = b->items.v[*item]->group;
  bool is_new = false;
  k->sum = ex_load(c, tensor_new(c, "sum", DT_F32, 0, NULL), NULL, 0);
  k->body = expr_replace(c, k->st->body, k->reduce, k->sum);
  Product *of_product = product_of_a(k);
  Stage *sums = of_product ? sums_in_place(k, of_product) : sums_stage(k, &is_new), *product = product_stage(k, sums->out);
  k->element = element(k, product->out);
  k->st->body = expr_replace(c, k->body, k->sum, k->element);
  g->block = pieces(k);
  g->stages.v[0] = product;
  vec_push(c, &g->stages, k->st);
  map_set(&k->g->products, KEY(k->st->out), ctx_copy(c, k, sizeof *k));
  if (is_new) body_insert(c, b, (*item)++, sums, g->source);
}

static void rewrite_body(Shared *g, Body *b) {
  Module *m = g->m;
  g->sums = map_new(g->c);
  g->products = map_new(g->c);
  for (int i = 0; i < b->items.n; i++) {
    Item *it = b->items.v[i];
    Product k = {.g = g, .c = g->c};
    if (it->kind != ITEM_GROUP || !match(&k, it->group)) continue;
    const char *why = choose_blocks(&k);
    if (!why && !m->opt->eager) why = weigh(&k);
    if (m->opt->explain) str_add(&m->notes, "  %s: Strassen: %s\n", k.st->out->name, why ? why : "7 products of 8");
    if (!why) rewrite(&k, b, &i);
  }
  for (int i = 0; i < b->items.n; i++)
    for (int k = 0; k < 2; k++)
      if (b->items.v[i]->body[k]) rewrite_body(g, b->items.v[i]->body[k]);
}

void pass_strassen(Module *m) {
  Shared g = {.m = m, .c = m->c, .made = map_new(m->c)};
  if (m->opt->fp32_strict) return;
  g.readers = body_readers(m->c, m->body);
  rewrite_body(&g, m->body);
}
