/* order.c - nodes in an order in which they can be made.
 *
 * A node needs its inputs and whatever its sub-graphs take from outside. Depth first over needs with a stack of our
 * own, in the file's order, so that a sorted file stays as it is. Recursion goes over the nesting of sub-graphs only.
 */
#include "import.h"

typedef struct Inner {             /* names that a sub-graph makes itself */
  const struct Inner *around;
  Map names;
} Inner;

typedef VEC(const char *) Names;

static bool made_inside(const Inner *in, const char *name) {
  for (; in; in = in->around)
    if (map_get(&in->names, KEY(name))) return true;
  return false;
}

static void add_subgraphs(Ctx *c, const OnnxNode *n, const Inner *around, Names *free);

/* The names that g uses and does not make. */
static void add_free(Ctx *c, const OnnxGraph *g, const Inner *around, Names *free) {
  Inner in = {around, map_new(c)};
  for (int i = 0; i < g->nin; i++) map_set(&in.names, KEY(ctx_intern(c, g->in[i].name)), c);
  for (int i = 0; i < g->ninits; i++) map_set(&in.names, KEY(ctx_intern(c, g->inits[i].name)), c);
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 0; k < g->nodes[i].nout; k++) map_set(&in.names, KEY(ctx_intern(c, g->nodes[i].out[k])), c);
  for (int i = 0; i < g->nnodes; i++) {
    for (int k = 0; k < g->nodes[i].nin; k++) {
      const char *name = ctx_intern(c, g->nodes[i].in[k]);
      if (!made_inside(&in, name)) vec_push(c, free, name);
    }
    add_subgraphs(c, &g->nodes[i], &in, free);
  }
  for (int i = 0; i < g->nout; i++) {
    const char *name = ctx_intern(c, g->out[i].name);
    if (!made_inside(&in, name)) vec_push(c, free, name);
  }
}

static void add_subgraphs(Ctx *c, const OnnxNode *n, const Inner *around, Names *free) {
  for (int i = 0; i < n->nattr; i++)
    if (n->attrs[i].g) add_free(c, n->attrs[i].g, around, free);
}

/* ---- sorting ---- */

enum { FRESH, OPEN, DONE };
typedef struct { Names needs; int next; int state; } Visit;
typedef struct {
  Import *im;
  const OnnxNode *nodes;
  int n;
  Map made;
  Visit *visits;
  int *stack, depth, *order, norder;
} Sort;

static const char *node_text(Ctx *c, const OnnxNode *nodes, int i) {
  const char *name = *nodes[i].name ? ctx_printf(c, " '%s'", diag_quote(c, nodes[i].name)) : "";
  return ctx_printf(c, "node %d%s (%s)", i, name, diag_quote(c, nodes[i].op));
}

static void note_outputs(Sort *s, const Map *given, int i) {
  Ctx *c = s->im->c;
  for (int k = 0; k < s->nodes[i].nout; k++) {
    const char *name = ctx_intern(c, s->nodes[i].out[k]);
    if (!*name) continue;
    intptr_t other = (intptr_t)map_get(&s->made, KEY(name));
    if (other)
      diag_error(c, E0307, NULL, NULL, "value '%s' is made twice, by %s and by %s", diag_quote(c, name),
                 node_text(c, s->nodes, (int)other - 1), node_text(c, s->nodes, i));
    else if (map_get(given, KEY(name)))
      diag_error(c, E0307, NULL, NULL, "value '%s' is made by %s, but it is an input or initializer already",
                 diag_quote(c, name), node_text(c, s->nodes, i));
    else map_set(&s->made, KEY(name), (void *)(intptr_t)(i + 1));
  }
}

static void open_node(Sort *s, int i) {
  Ctx *c = s->im->c;
  Visit *v = &s->visits[i];
  v->state = OPEN;
  for (int k = 0; k < s->nodes[i].nin; k++) vec_push(c, &v->needs, ctx_intern(c, s->nodes[i].in[k]));
  add_subgraphs(c, &s->nodes[i], NULL, &v->needs);
  s->stack[s->depth++] = i;
}

static _Noreturn void fail_cycle(Sort *s, int again) {
  Ctx *c = s->im->c;
  int from = 0;
  while (s->stack[from] != again) from++;
  Str text = str_new(c);
  for (int i = s->depth - 1; i >= from; i--) {     /* the order in which values would flow */
    if (s->depth - i > 8) {
      str_add(&text, " -> ... (%d nodes)", s->depth - from);
      break;
    }
    str_add(&text, "%s%s", i == s->depth - 1 ? "" : " -> ", node_text(c, s->nodes, s->stack[i]));
  }
  diag_fail(c, E0307, NULL, NULL, "nodes need each other's results: %s", text.s);
}

static void visit_from(Sort *s, int root) {
  open_node(s, root);
  while (s->depth) {
    int i = s->stack[s->depth - 1];
    Visit *v = &s->visits[i];
    if (v->next == v->needs.n) {
      v->state = DONE;
      s->order[s->norder++] = i;
      s->depth--;
      continue;
    }
    int need = (int)(intptr_t)map_get(&s->made, KEY(v->needs.v[v->next++])) - 1;
    if (need < 0) continue;
    if (s->visits[need].state == OPEN) fail_cycle(s, need);
    if (s->visits[need].state == FRESH) open_node(s, need);
  }
}

const int *import_order(Import *im, const Map *given, const OnnxNode *nodes, int n) {
  Ctx *c = im->c;
  Sort s = {.im = im, .nodes = nodes, .n = n, .made = map_new(c), .visits = NEW_ARRAY(c, Visit, n + 1)};
  s.stack = NEW_ARRAY(c, int, n + 1);
  s.order = NEW_ARRAY(c, int, n + 1);
  for (int i = 0; i < n; i++) note_outputs(&s, given, i);
  for (int i = 0; i < n; i++)
    if (s.visits[i].state == FRESH) visit_from(&s, i);
  return s.order;
}
