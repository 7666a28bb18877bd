/* op_known.c - the elements of small tensors, symbolically: what makes shape arithmetic disappear.
 *
 * An element is the stage's body at constant indices, small reductions written out. Loads of known tensors and constants fold when the
 * expression is rebuilt, so what still loads is not known. Serves every operator with a compute. Float tensors are followed only
 * where all their inputs are known (sizes that are scaled); what is constant altogether is left to constant folding. */
#include "op_impl.h"

static bool element_count(const Tensor *t, int64_t *n) {
  int64_t dims[MAX_RANK];
  if (!tensor_dims(t, dims)) return false;
  *n = 1;
  for (int i = 0; i < t->rank; i++)
    if (!mul_ok(*n, dims[i], n)) return false;
  return *n <= KNOWN_MAX;
}

/* sum(k<3, f(k)) becomes f(0) + f(1) + f(2). */
static Expr *unrolled(Ctx *c, Expr *e, void *user) {
  if (e->op != EX_REDUCE) return e;
  int64_t total = 1;
  for (int i = 1; i < e->n; i++) {
    int64_t n;
    const Expr *extent = e->a[i]->u.sym->extent;
    if (!extent || !ex_is_int(extent, &n) || n < 0 || (total *= n) > KNOWN_MAX) return e;
  }
  Expr *r = combiner_identity(c, (Combiner)e->u.i, (DType)e->dtype);
  for (int64_t at = 0; at < total; at++) {
    Subst s = subst_new(c);
    int64_t rest = at;
    for (int i = e->n - 1; i >= 1; i--) {
      const Sym *axis = e->a[i]->u.sym;
      subst_set(&s, axis, ex_int(c, rest % axis->extent->u.i));
      rest /= axis->extent->u.i;
    }
    Expr *v = subst_apply(&s, e->a[0]);
    r = at ? combiner_apply(c, (Combiner)e->u.i, r, v) : v;
  }
  return r;
}

/* NULL if it is not known. */
static Expr *element(Ctx *c, const Stage *st, int64_t number) {
  Subst s = subst_new(c);
  for (int d = st->out->rank - 1; d >= 0; d--) {
    int64_t n = st->out->shape[d]->u.i;
    subst_set(&s, st->axes[d], ex_int(c, number % n));
    number /= n;
  }
  Expr *e = subst_apply(&s, st->body);
  if (e->flags & EXPR_REDUCES) e = expr_map(c, e, unrolled, NULL);
  return e->flags & (EXPR_LOAD | EXPR_REDUCES | EXPR_AXIS) ? NULL : e;
}

static bool stage_known(Ctx *c, const Stage *st) {
  Tensor *t = st->out;
  int64_t n;
  if (!element_count(t, &n)) return false;
  Expr **known = NEW_ARRAY(c, Expr *, n + 1);
  bool symbolic = !dtype_is_float(t->dtype) || !t->def;
  for (int64_t i = 0; i < n; i++) {
    if (!(known[i] = element(c, st, i))) return false;
    symbolic |= !ex_is_const(known[i]);
  }
  t->known = symbolic ? known : NULL;
  t->nknown = symbolic ? (int)n : 0;
  return true;
}

static bool inputs_known(const Node *n) {
  for (int i = 0; i < n->nin; i++)
    if (n->in[i] && !n->in[i]->data && !n->in[i]->known) return false;
  return true;
}

void known_infer(OpCtx *oc) {
  const Node *n = oc->node;
  bool want = false, inputs = inputs_known(n);
  for (int i = 0; i < n->nout; i++) {
    Tensor *t = n->out[i];
    int64_t count;
    if (!t) continue;
    t->known = NULL;
    t->nknown = 0;
    want |= element_count(t, &count) && (inputs || !dtype_is_float(t->dtype));
  }
  if (!want || !op_compute(oc->c, oc->node, oc)) return;
  for (int i = 0; i < oc->stages.n; i++)
    if (!stage_known(oc->c, oc->stages.v[i]) && !oc->stages.v[i]->out->def) return;    /* later stages read it */
}
