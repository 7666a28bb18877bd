/* concat.c - what is computed from a concatenation, channel by channel, is computed from its parts.
 *
 * Before: x = Concat(a, b)   y = Relu(x)   p, q = Split(y)
 * After:  p = Relu(a)   q = Relu(b)
 * The concatenation moves behind its readers: element-wise work becomes part of what makes a and b, and where a split has the same cuts
 * nothing is copied at all. So it is with the branches of mixed convolutions (Tan and Le, MixConv, 2019), whose channels begin anywhere
 * in a vector. Only where each part is made for the concatenation alone: else the work would be done for others to wait for, or twice.
 */
#include "concat.h"

#include "../ir/op.h"
#include "graph_rules.h"

enum { CHANNELS = 1 };

static bool joins_channels(const Tensor *t) {
  return rule_is_op(t, "Concat") && t->rank > CHANNELS && (op_attr_i(t->def, "axis") + t->rank) % t->rank == CHANNELS;
}

static int64_t channels_of(const Tensor *t) {
  int64_t n;
  return t->rank > CHANNELS && ex_is_int(t->shape[CHANNELS], &n) ? n : -1;
}

/* Concatenations of the same parts' sizes. */
static bool same_cuts(const Node *a, const Node *b) {
  if (a->nin != b->nin) return false;
  for (int i = 0; i < a->nin; i++)
    if (channels_of(a->in[i]) != channels_of(b->in[i])) return false;
  return true;
}

/* Which part begins at the channel, or -1. */
static int part_at(const Node *concat, int64_t channel) {
  int64_t at = 0;
  for (int i = 0; i < concat->nin; at += channels_of(concat->in[i++]))
    if (at == channel) return i;
  return -1;
}

/* ---- which readers treat each channel alone ---- */

/* The same value for every channel. */
static bool is_broadcast(const Tensor *t, int rank) {
  int d = CHANNELS - (rank - t->rank);
  return d < 0 || ex_equals_int(t->shape[d], 1);
}

static bool is_elementwise(const Node *n, const Node *concat) {
  const Tensor *whole = concat->out[0];
  if (n->op->cls != OPC_ELEM || n->out[0]->rank != whole->rank) return false;
  for (int i = 0; i < n->nin; i++) {
    const Tensor *t = n->in[i];
    if (t && !is_broadcast(t, whole->rank) && !ex_equals_int(t->shape[CHANNELS - (whole->rank - t->rank)], channels_of(whole))) return false;
  }
  return true;
}

static bool reduces_elsewhere(const Node *n, const Node *concat) {
  static const char *const pools[] = { "GlobalAveragePool", "GlobalMaxPool" };
  bool reduces = n->op->cls == OPC_REDUCE && n->out[0]->rank == concat->out[0]->rank;
  for (int i = 0; i < COUNT(pools); i++) reduces |= rule_is_op(n->out[0], pools[i]);
  return reduces && channels_of(n->out[0]) == channels_of(concat->out[0]);
}

/* Channels of the input that one group of the convolution reads, if each part is whole groups; 0 where that is not so. */
static int64_t group_of(const Node *n, const Node *concat) {
  int64_t all = channels_of(concat->out[0]), groups, dims[MAX_RANK];
  if (!rule_is_op(n->out[0], "Conv") || channels_of(n->out[0]) < 1 || n->in[0] != concat->out[0] || !n->in[1]->data || !tensor_dims(n->in[1], dims)) return 0;
  if (n->nin > 2 && n->in[2] && !n->in[2]->data) return 0;
  groups = op_attr_i(n, "group");
  for (int i = 0; i < concat->nin; i++)
    if (channels_of(concat->in[i]) % (all / groups)) return 0;
  return all / groups;
}

/* Slice and Split: which parts, from *first on, output i is; 0 where it is not whole parts. */
static int parts_taken(Ctx *c, Node *n, const Node *concat, int i, int *first) {
  const Tensor *out = n->out[i];
  int64_t from[MAX_RANK];
  if (n->in[0] != concat->out[0] || !rule_is_window(c, n, i, from)) return 0;
  for (int d = 0; d < out->rank; d++)
    if (d != CHANNELS && (from[d] || out->shape[d] != concat->out[0]->shape[d])) return 0;
  int64_t begin = from[CHANNELS], last = begin + channels_of(out);
  int end = last == channels_of(concat->out[0]) ? concat->nin : part_at(concat, last);
  *first = part_at(concat, begin);
  return *first < 0 || end < 0 ? 0 : end - *first;
}

/* Is each of its outputs the same as so many parts, or fewer? */
static bool takes_parts(Ctx *c, Node *n, const Node *concat, int most) {
  int first, parts;
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && (!(parts = parts_taken(c, n, concat, i, &first)) || parts > most)) return false;
  return true;
}

static bool reads_by_channel(Ctx *c, Node *n, const Node *concat) {
  if (takes_parts(c, n, concat, concat->nin)) return true;
  return n->nout == 1 && (is_elementwise(n, concat) || reduces_elsewhere(n, concat) || group_of(n, concat));
}

static bool has_sizes(const Node *concat) {
  for (int i = 0; i < concat->nin; i++)
    if (channels_of(concat->in[i]) < 1) return false;
  return concat->nin > 1;
}

/* Each is made for the concatenation alone. */
static bool has_own_parts(const Node *concat) {
  for (int i = 0; i < concat->nin; i++) {
    const Tensor *t = concat->in[i];
    if (!t->def || t->users.n != 1 || graph_returns(concat->graph, t)) return false;
  }
  return true;
}

static bool moves_behind_readers(Ctx *c, const Node *concat) {
  const Tensor *t = concat->out[0];
  if (!has_own_parts(concat) || graph_returns(concat->graph, t)) return false;
  for (int i = 0; i < t->users.n; i++)
    if (t->users.v[i]->graph != concat->graph || !reads_by_channel(c, t->users.v[i], concat)) return false;
  return true;
}

Node *concat_of_parts(Ctx *c, Node *n, bool *others) {
  for (int i = 0; i < n->nin; i++) {
    Node *concat = n->in[i] && joins_channels(n->in[i]) ? n->in[i]->def : NULL;
    if (!concat || concat->graph != n->graph || !has_sizes(concat)) continue;
    *others = !takes_parts(c, n, concat, 1);
    if (!*others || moves_behind_readers(c, concat)) return concat;
  }
  return NULL;
}

static Tensor *slice(Rewrite *r, Tensor *t, int axis, int64_t from, int64_t n) {
  int64_t end = from + n, d = axis;
  Tensor *in[] = { t, rule_ints(r, &from, 1), rule_ints(r, &end, 1), rule_ints(r, &d, 1) };
  return rule_done(r, rule_node(r, "Slice", in, 4));
}

/* What the part's copy of the reader has in t's place; from: the part's first channel. */
static Tensor *part_of(Rewrite *r, Tensor *t, const Node *concat, int part, int64_t from) {
  if (t == concat->out[0]) return concat->in[part];
  if (!t || is_broadcast(t, concat->out[0]->rank)) return t;
  if (joins_channels(t) && same_cuts(t->def, concat)) return t->def->in[part];
  return slice(r, t, CHANNELS - (concat->out[0]->rank - t->rank), from, channels_of(concat->in[part]));
}

/* The convolution of one part: its groups' weights and biases. */
static Tensor *convolve(Rewrite *r, const Node *n, const Node *concat, int part, int64_t from) {
  int64_t group = group_of(n, concat), channels = channels_of(concat->in[part]), each = channels_of(n->out[0]) / op_attr_i(n, "group");
  Tensor *in[3] = { concat->in[part] };
  for (int i = 1; i < n->nin; i++) in[i] = n->in[i] ? slice(r, n->in[i], 0, from / group * each, channels / group * each) : NULL;
  Node *to = rule_copy(r, n, in, n->nin);
  rule_set_int(to, "group", channels / group);
  return rule_done(r, to);
}

static Tensor *read_part(Rewrite *r, const Node *n, const Node *concat, int part, int64_t from) {
  if (group_of(n, concat)) return convolve(r, n, concat, part, from);
  Tensor **in = NEW_ARRAY(r->c, Tensor *, n->nin);
  for (int i = 0; i < n->nin; i++) in[i] = n->op->cls == OPC_ELEM || !i ? part_of(r, n->in[i], concat, part, from) : n->in[i];
  return rule_done(r, rule_copy(r, n, in, n->nin));
}

Tensor *concat_reader(Ctx *c, Node *concat, Node *reader, int i) {
  Rewrite r = { .c = c, .root = reader };
  int first = 0, n = parts_taken(c, reader, concat, i, &first);
  Tensor **parts = n ? &concat->in[first] : NEW_ARRAY(c, Tensor *, concat->nin);
  int64_t from = 0;
  for (int k = 0; !n && k < concat->nin; from += channels_of(concat->in[k++])) parts[k] = read_part(&r, reader, concat, k, from);
  if (n == 1) return parts[0];
  return rule_done(&r, rule_copy(&r, concat, parts, n ? n : concat->nin));
}
