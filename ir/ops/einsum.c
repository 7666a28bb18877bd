/* einsum.c - Einsum: y[out letters] = sum over the other letters of the product of the operands. */
#include <ctype.h>

#include "../op_impl.h"

enum { LETTERS = 128 };            /* of the equation, then one for each dimension under the ellipsis */
typedef struct {
  OpCtx *oc;
  int nterms, n[33];               /* letters of each operand, last of the result */
  uint8_t term[33][MAX_RANK];
  Expr *extent[LETTERS + MAX_RANK];
  int dots;                        /* dimensions under the ellipsis */
} Einsum;

static bool bad(Einsum *e) {
  return op_error(e->oc, E0412, NULL, "equation '%s' does not fit %s",
                  diag_quote(e->oc->c, op_attr_s(e->oc->node, "equation")), op_inputs_text(e->oc));
}

static bool add_letter(Einsum *e, int term, int letter) {
  if (e->n[term] == MAX_RANK) return bad(e);
  e->term[term][e->n[term]++] = (uint8_t)letter;
  return true;
}

/* One operand's letters from *s on; `dots` dimensions stand under its ellipsis. */
static bool read_term(Einsum *e, int term, const char **s, int dots) {
  for (; **s && **s != ',' && strncmp(*s, "->", 2); ++*s) {
    if (**s == ' ') continue;
    if (!strncmp(*s, "...", 3)) {
      for (int i = 0; i < dots; i++) OP_BAIL(add_letter(e, term, LETTERS + e->dots - dots + i));
      *s += 2;
    } else if (!isalpha((unsigned char)**s)) return bad(e);
    else OP_BAIL(add_letter(e, term, **s));
  }
  return true;
}

static int letters_in(const char *s) {
  int n = 0;
  for (; *s && *s != ',' && strncmp(s, "->", 2); s++) n += isalpha((unsigned char)*s) != 0;
  return n;
}

static bool has_dots(const char *s) { return strcspn(s, ",-") > strcspn(s, "."); }

static const char *next_term(const char *s) {
  s += strcspn(s, ",-");
  return *s == ',' ? s + 1 : NULL;
}

/* The operands' letters; the widest ellipsis decides how many dimensions there are under it. */
static bool read_operands(Einsum *e, const char **s) {
  const Node *n = e->oc->node;
  const char *p = *s;
  for (int i = 0; i < n->nin; i++, p = next_term(p)) {
    if (!p || !n->in[i]) return bad(e);
    if (has_dots(p)) e->dots = MAX(e->dots, n->in[i]->rank - letters_in(p));
  }
  for (int i = 0; i < n->nin; i++) {
    int dots = has_dots(*s) ? n->in[i]->rank - letters_in(*s) : 0;
    if (dots < 0) return bad(e);
    OP_BAIL(read_term(e, i, s, dots));
    if (e->n[i] != n->in[i]->rank) return bad(e);
    if (i < n->nin - 1 && *(*s)++ != ',') return bad(e);
  }
  return true;
}

/* Without an arrow the result has the dimensions under the ellipsis and the letters that appear once, in order. */
static bool implied_result(Einsum *e) {
  int count[LETTERS] = { 0 };
  for (int t = 0; t < e->nterms; t++)
    for (int i = 0; i < e->n[t]; i++)
      if (e->term[t][i] < LETTERS) count[e->term[t][i]]++;
  for (int i = 0; i < e->dots; i++) OP_BAIL(add_letter(e, e->nterms, LETTERS + i));
  for (int l = 0; l < LETTERS; l++)
    if (count[l] == 1) OP_BAIL(add_letter(e, e->nterms, l));
  return true;
}

static bool einsum_extents(Einsum *e) {
  for (int t = 0; t < e->nterms; t++)
    for (int i = 0; i < e->n[t]; i++) {
      Expr **x = &e->extent[e->term[t][i]], *d = e->oc->node->in[t]->shape[i];
      if (!*x || ex_equals_int(*x, 1)) *x = d;
      else if (!ex_equals_int(d, 1)) *x = op_meet(e->oc, *x, d);
      if (!*x) return bad(e);
    }
  return true;
}

static bool einsum_read(OpCtx *oc, Einsum *e) {
  const char *s = op_attr_s(oc->node, "equation");
  *e = (Einsum){ .oc = oc, .nterms = oc->node->nin };
  if (e->nterms > COUNT(e->term) - 1)
    return op_error(oc, E0602, NULL, "%d operands; the most is %d", e->nterms, COUNT(e->term) - 1);
  OP_BAIL(read_operands(e, &s) && einsum_extents(e));
  if (strncmp(s, "->", 2)) return *s ? bad(e) : implied_result(e);
  s += 2;
  OP_BAIL(read_term(e, e->nterms, &s, e->dots));
  for (int i = 0; i < e->n[e->nterms]; i++) {
    int letter = e->term[e->nterms][i];
    if (!e->extent[letter]) return bad(e);
    for (int k = 0; k < i; k++)
      if (e->term[e->nterms][k] == letter) return bad(e);
  }
  return !*s || bad(e);
}

bool shape_einsum(OpCtx *oc) {
  Einsum e;
  Expr *shape[MAX_RANK];
  OP_BAIL(einsum_read(oc, &e));
  int rank = e.n[e.nterms];
  for (int i = 0; i < rank; i++) shape[i] = e.extent[e.term[e.nterms][i]];
  op_out(oc, 0, oc->node->in[0]->dtype, rank, shape);
  return true;
}

void compute_einsum(OpCtx *oc) {
  Ctx *c = oc->c;
  Einsum e;
  Expr *at[LETTERS + MAX_RANK] = { 0 }, *index[MAX_RANK], *product = NULL;
  Sym *axes[LETTERS + MAX_RANK];
  int naxes = 0;
  einsum_read(oc, &e);
  Stage *st = op_stage(oc, oc->node->out[0]);
  for (int i = 0; i < st->out->rank; i++) at[e.term[e.nterms][i]] = st->axes[i]->self;
  for (int l = 0; l < COUNT(at); l++) {
    if (!e.extent[l] || at[l]) continue;
    axes[naxes] = op_reduce_axis(oc, l < LETTERS ? (char[]){ (char)l, 0 } : "r", e.extent[l]);
    at[l] = axes[naxes++]->self;
  }
  for (int t = 0; t < e.nterms; t++) {
    for (int i = 0; i < e.n[t]; i++)
      index[i] = ex_equals_int(oc->node->in[t]->shape[i], 1) ? ex_int(c, 0) : at[e.term[t][i]];
    Expr *x = op_acc(oc, op_in(oc, t, index));
    product = product ? ex_mul(c, product, x) : x;
  }
  op_done(oc, st, ex_reduce(c, RED_SUM, product, axes, naxes));
}
