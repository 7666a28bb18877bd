/* tile.c - see tile.h.
 *
 * The core does two multiply-adds and two loads a cycle and adds to a sum every fourth cycle: AMD since Zen 2, Intel since Haswell (where
 * 512-bit vectors halve all of these, the choice is the same). What caches deliver was fitted to tiles measured on a Zen 5 core.
 */
#include "tile.h"

#include <math.h>
#include <stdbool.h>

static const double
  LOADS = 1.08,                    /* of the two loads a cycle some meet in a bank */
  EPILOGUE = 2.5, START = 25,      /* cycles per vector of a tile, and per tile, outside of the reduction */
  FEW_SUMS = 1.5,                  /* what eight sums or fewer, whose latency nothing hides, lose in a step */
  FROM_L1 = 0.1, FROM_L2 = 0.25,   /* reading a vector of the panel */
  FROM_L3 = 0.2, MEMORY = 0.97,    /* the same, to what its bytes take there */
  NOT_HIDDEN = 0.1,                /* of the shorter one of two times that overlap: the tiles' and memory's */
  FAR_ROW = 0.02, FAR_BLOCK = 0.2, /* a row whose operands do not stay in L2 from one panel to the next: in a line that the hardware follows, or not */
  POINTER = 0.3,                   /* a row whose distance from the others is not known, beyond those whose addresses registers hold */
  CONFLICT = 0.15;                 /* times the square of the rows beyond those that a set of the L1 cache can hold */

enum { POINTERS = 6 };

typedef struct { const TileProblem *p; int v; int64_t panel; } Panel;

/* Rows that fall into the same set of the L1 cache, beyond those that fit beside the panel. */
static double conflicts(const TileProblem *p, int r1, int r2) {
  const int64_t way = 4096, ways = p->target->l1_bytes / way;
  double in_set = 1;
  for (int i = 0; i < 2; i++) {
    int64_t apart = 1, stride = p->stride[i] < 0 ? way / 2 : p->stride[i];
    while (apart * stride % way && apart * 64 < way) apart *= 2;
    in_set *= stride ? ceil((double)(i ? r2 : r1) / (double)apart) : 1;
  }
  return fmax(0, in_set - (double)(ways - 2));
}

static double overlapped(double a, double b) { return fmax(a, b) + NOT_HIDDEN * fmin(a, b); }

static double all_rows(const TileProblem *p) { return fmax((double)p->rows[0], 1) * fmax((double)p->rows[1], 1) * (double)p->others; }

/* Bytes per step that a tile moves behind L2: its rows' operands where they are read again for every panel, its results where they are many;
 * a short run of results costs a line more. */
static double traffic(const Panel *a, int r, bool far) {
  const TileProblem *p = a->p;
  double line = p->lanes * 4, run = line, bytes = far ? 4 * r : 0;
  if (p->store_vector == line) run = line * a->v;
  if (p->store_row == line) run = fmax(run, line * r);
  if (all_rows(p) * (double)p->vectors * line > (double)p->target->l2_bytes) bytes += 2 * line * r * a->v / (double)p->k * (1 + line / run);
  return bytes;
}

/* Cycles per step of the reduction for a tile of r1 x r2 rows. */
static double step_cost(const Panel *a, int r1, int r2) {
  const TileProblem *p = a->p;
  const Target *t = p->target;
  int r = r1 * r2, v = a->v;
  double line = p->lanes * 4 / 64.0, crowd = conflicts(p, r1, r2);
  double cost = fmax(fmax(r * v, LOADS * (r + v)) / 2.0, 4) + (r * v <= 8 ? FEW_SUMS : 0);
  double from = a->panel < t->l1_bytes / 2 ? FROM_L1 : FROM_L2;
  if (a->panel + r * p->k * 4 > t->l2_bytes * 9 / 10) from += FROM_L3 * 64 / t->rate.l3;
  bool far = all_rows(p) * (double)p->k * 4 > (double)t->l2_bytes / 2;
  if (far) cost += (p->blocks ? FAR_BLOCK : FAR_ROW) * r;
  if (p->stride[0] < 0) cost += POINTER * fmax(0, r1 - POINTERS);
  cost += from * v * line + CONFLICT * crowd * crowd + (EPILOGUE * r * v + START) / (double)p->k;
  return overlapped(cost, traffic(a, r, far) / t->rate.l3);
}

int tile_next_run(int r) {
  static const int runs[] = {14, 8, 4, 2, 1};
  for (int i = 0; i < (int)(sizeof runs / sizeof *runs); i++)
    if (runs[i] < r) return runs[i];
  return 0;
}

static double rest_cost(const Panel *a, int64_t rest, int r, int r2) {
  double cost = 0;
  for (int run = r; rest > 0; run = tile_next_run(run)) cost += (double)(rest / run) * step_cost(a, run, r2), rest %= run;
  return cost;
}

/* Of all rows along the first axis, r2 along the second, and the rows that were counted. */
static double line_cost(const Panel *a, int r1, int r2, double *rows) {
  int64_t n = a->p->rows[0];
  *rows = (double)n;
  if (n >= 0) return (double)(n / r1) * step_cost(a, r1, r2) + (n % r1 ? step_cost(a, (int)(n % r1), r2) : 0);
  double sum = 0;
  *rows = 0;
  if (a->p->multiple > 1) {                                  /* as many for one of it as for all of some */
    for (int64_t some = a->p->multiple, times = MAX(TILE_OPEN / some, 1); times > 0; some *= 2, times /= 2) {
      sum += (double)times * rest_cost(a, some, r1, r2);
      *rows += (double)(times * some);
    }
    return sum;
  }
  for (int i = 1; i < r1; i++) sum += rest_cost(a, i, r1, r2) / r1;          /* the mean of all rests */
  *rows = TILE_OPEN / r1 * r1 + (r1 - 1) / 2.0;
  return TILE_OPEN / r1 * step_cost(a, r1, r2) + sum;
}

static Tile judge(const TileProblem *p, int r1, int r2, int v) {
  Panel a = {p, v, p->k * v * p->lanes * 4};
  int64_t n2 = p->rows[1] < 0 ? 1 : p->rows[1];
  double rows, line = line_cost(&a, r1, r2, &rows), lines = (double)(n2 / r2), memory = p->constant ? MEMORY * v * p->lanes * 4 / p->target->rate.memory : 0;
  double cost = lines * line + (n2 % r2 ? line_cost(&a, r1, (int)(n2 % r2), &rows) : 0);
  double all = rows * (double)n2 * (double)p->others;
  cost *= (double)p->others;
  double filled = overlapped(cost, memory);
  Tile t = {r1, r2, v, 0, r1 * r2 + v > r1 * r2 * v ? "loads" : r1 * r2 * v < 8 ? "latency" : "multiply-adds", p->constant && all > r1 * r2};
  if (filled > cost * 1.1) t.bound = "memory";
  double width = ceil((double)p->vectors / v) * v / (double)p->vectors;
  t.cost = filled / all / v * width * p->panel_cost[v];
  return t;
}

static void insert(Tile *best, int n, int *count, Tile t) {
  int at = *count;
  while (at > 0 && t.cost < best[at - 1].cost * 0.999) at--;
  if (at == n) return;
  if (*count < n) ++*count;
  for (int i = *count - 1; i > at; i--) best[i] = best[i - 1];
  best[at] = t;
}

int tile_choose(const TileProblem *p, Tile *best, int n) {
  int count = 0;
  for (int v = 1; v <= TILE_VECTORS && v <= p->vectors; v++)
    for (int r1 = 1; p->panel_cost[v] > 0 && r1 <= TILE_ROWS && (p->rows[0] < 0 || r1 <= p->rows[0]); r1++)
      for (int r2 = 1; r2 == 1 || (r1 == p->rows[0] && r2 <= p->rows[1] && r1 * r2 <= TILE_ROWS); r2++)
        if (r1 * r2 * v + v + 1 < p->target->vector_regs) insert(best, n, &count, judge(p, r1, r2, v));
  return count;
}
