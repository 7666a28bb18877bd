/* layout.c - index maps from logical indices to places in storage (graph.h says what a Layout means).
 *
 * Offsets are built with the simplifying constructors, so the div and mod of an axis that was split by the same
 * factor are gone from the result. All extents may be symbolic.
 */
#include "diag.h"
#include "graph.h"

static Expr *part_extent(Ctx *c, const Tensor *t, const LayoutPart *p) {
  if (p->mod) return ex_int(c, p->mod);
  const Layout *l = t->layout;
  Expr *whole = ex_add(c, t->shape[p->dim], ex_int(c, (int64_t)l->ring_lo[p->dim] + l->ring_hi[p->dim]));
  return p->div > 1 ? ex_ceil_div(c, whole, p->div) : whole;
}

static Expr *part_index(Ctx *c, const Layout *l, const LayoutPart *p, Expr *const *index) {
  Expr *i = ex_add(c, index[p->dim], ex_int(c, l->ring_lo[p->dim]));
  if (p->div > 1) i = ex_div(c, i, ex_int(c, p->div));
  return p->mod ? ex_mod(c, i, ex_int(c, p->mod)) : i;
}

static void check_layout(Ctx *c, const Tensor *t) {
  const Layout *l = t->layout;
  for (int i = 0; i < l->n; i++)
    if (l->part[i].dim < 0 || l->part[i].dim >= t->rank || l->part[i].div < 1 || l->part[i].mod < 0 || l->part[i].pad < 0)
      diag_bug(c, "the layout '%s' does not fit '%s' %s", layout_text(c, l), t->name, tensor_type_text(c, t));
}

static bool has_pads(const Layout *l) {
  bool any = false;
  for (int i = 0; i < l->n; i++) any |= l->part[i].pad > 0;
  return any;
}

/* How far a step of part i goes; of part -1: the size of all. */
static Expr *part_stride(Ctx *c, const Tensor *t, int i) {
  const LayoutPart *p = t->layout->part;
  Expr *n = ex_int(c, 1);
  for (int j = t->layout->n - 1; j > i; j--) n = ex_mul(c, ex_add(c, n, ex_int(c, p[j].pad)), part_extent(c, t, &p[j]));
  return i < 0 ? n : ex_add(c, n, ex_int(c, p[i].pad));
}

/* Horner's scheme from the outermost physical dimension inwards; a sum where steps are padded. */
Expr *layout_offset(Ctx *c, const Tensor *t, Expr *const *index) {
  Expr *offset = ex_int(c, 0);
  if (!t->layout) {
    for (int i = 0; i < t->rank; i++) offset = ex_add(c, ex_mul(c, offset, t->shape[i]), index[i]);
    return offset;
  }
  check_layout(c, t);
  bool pads = has_pads(t->layout);
  for (int i = 0; i < t->layout->n; i++) {
    const LayoutPart *p = &t->layout->part[i];
    Expr *at = part_index(c, t->layout, p, index);
    offset = pads ? ex_add(c, offset, ex_mul(c, at, part_stride(c, t, i))) : ex_add(c, ex_mul(c, offset, part_extent(c, t, p)), at);
  }
  return offset;
}

Expr *layout_elements(Ctx *c, const Tensor *t) {
  if (!t->layout) return tensor_elements(c, t);
  check_layout(c, t);
  return part_stride(c, t, -1);
}

bool layout_covers(Ctx *c, const Tensor *t, Expr *const *index) {
  for (int i = 0; i < t->rank; i++) {
    int lo = t->layout ? t->layout->ring_lo[i] : 0, hi = t->layout ? t->layout->ring_hi[i] : 0;
    if (!expr_proves(c, ex_le(c, ex_int(c, -(int64_t)lo), index[i]))) return false;
    if (!expr_proves(c, ex_lt(c, index[i], ex_add(c, t->shape[i], ex_int(c, hi))))) return false;
  }
  return true;
}

bool layout_is_plain(const Tensor *t) {
  const Layout *l = t->layout;
  if (!l) return true;
  if (l->n != t->rank) return false;
  for (int i = 0; i < l->n; i++)
    if (l->part[i].dim != i || l->part[i].div != 1 || l->part[i].mod || l->part[i].pad || l->ring_lo[i] || l->ring_hi[i]) return false;
  return true;
}

/* ---- text: PART,PART... [ring dI=LO:HI ... [kept]]   with PART = dI[/DIV][%MOD][+PAD] ---- */

const char *layout_text(Ctx *c, const Layout *l) {
  if (!l) return "";
  Str s = str_new(c);
  for (int i = 0; i < l->n; i++) {
    str_add(&s, "%sd%d", i ? "," : "", l->part[i].dim);
    if (l->part[i].div != 1) str_add(&s, "/%d", l->part[i].div);
    if (l->part[i].mod) str_add(&s, "%%%d", l->part[i].mod);
    if (l->part[i].pad) str_add(&s, "+%d", l->part[i].pad);
  }
  bool any = false;
  for (int i = 0; i < MAX_RANK; i++)
    if (l->ring_lo[i] || l->ring_hi[i]) {
      str_add(&s, "%s d%d=%d:%d", any ? "" : " ring", i, l->ring_lo[i], l->ring_hi[i]);
      any = true;
    }
  if (l->kept) str_add(&s, " kept");
  return s.s ? s.s : "";
}

/* A number up to INT32_MAX at *p, which moves past it; -1 if there is none. */
static int32_t take_number(const char **p) {
  if (**p < '0' || **p > '9') return -1;
  int64_t v = 0;
  while (**p >= '0' && **p <= '9' && v <= INT32_MAX) v = v * 10 + *(*p)++ - '0';
  return v <= INT32_MAX ? (int32_t)v : -1;
}

static bool take(const char **p, const char *word) {
  size_t n = strlen(word);
  if (strncmp(*p, word, n)) return false;
  *p += n;
  return true;
}

static int32_t take_dim(const char **p) {
  int32_t d = take(p, "d") ? take_number(p) : -1;
  return d < MAX_RANK ? d : -1;
}

static bool take_part(const char **p, LayoutPart *part) {
  int32_t dim = take_dim(p);
  part->dim = (int8_t)dim;
  part->div = take(p, "/") ? take_number(p) : 1;
  part->mod = take(p, "%") ? take_number(p) : 0;
  part->pad = take(p, "+") ? take_number(p) : 0;
  return dim >= 0 && part->div > 0 && part->mod >= 0 && part->pad >= 0;
}

static bool take_ring(const char **p, Layout *l) {
  int32_t d = take_dim(p);
  if (d < 0 || !take(p, "=")) return false;
  l->ring_lo[d] = take_number(p);
  if (l->ring_lo[d] < 0 || !take(p, ":")) return false;
  l->ring_hi[d] = take_number(p);
  return l->ring_hi[d] >= 0;
}

static bool take_layout(const char **p, Layout *l) {
  if (**p == 0) return true;                   /* of a scalar */
  if (**p != ' ')
    do
      if (l->n == 2 * MAX_RANK || !take_part(p, &l->part[l->n++])) return false;
    while (take(p, ","));
  if (take(p, " ring "))
    do
      if (take(p, "kept")) l->kept = true;
      else if (l->kept || !take_ring(p, l)) return false;
    while (take(p, " "));
  return **p == 0;
}

Layout *layout_parse(Ctx *c, const char *text) {
  Layout *l = NEW(c, Layout);
  const char *p = text;
  if (!take_layout(&p, l))
    diag_fail(c, E0309, NULL, "a layout reads like \"d0,d1/16,d2,d3,d1%16 ring d2=1:1\"",
              "layout \"%s\": error at column %d", diag_quote(c, text), (int)(p - text) + 1);
  return l;
}
