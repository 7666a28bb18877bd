/* inputs.c - inputs for a run: read from files, or made. Made values depend on the seed and the input's place alone. */
#include "runner.h"
#include "../../ir/diag.h"
#include <math.h>
#include <stdlib.h>

static uint64_t next_random(uint64_t *state) {
  uint64_t x = *state += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* N(0,1) by Box and Muller. */
static double next_normal(uint64_t *state) {
  double u = ((double)(next_random(state) >> 11) + 1) / 9007199254740993.0,
         v = (double)(next_random(state) >> 11) / 9007199254740992.0;
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Floats N(0,1), integers in [0, max), booleans either. */
static void fill_random(Array *a, uint64_t seed, int64_t max) {
  int64_t n = array_count(a), step = dtype_bytes(a->dtype);
  char *p = a->data;
  for (int64_t i = 0; i < n; i++, p += step) {
    if (dtype_is_float(a->dtype)) dtype_store_f(a->dtype, p, next_normal(&seed));
    else dtype_store_i(a->dtype, p, (int64_t)(next_random(&seed) % (uint64_t)(a->dtype == DT_BOOL ? 2 : max)));
  }
}

static void fill_ones(Array *a) {
  int64_t n = array_count(a), step = dtype_bytes(a->dtype);
  for (int64_t i = 0; i < n; i++) dtype_store_f(a->dtype, (char *)a->data + i * step, 1);
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && !strcmp(s + n - m, end);
}

static Array read_file(const Cli *cli, const char *path, int rank) {
  if (ends_with(path, ".pb")) return array_read_pb(cli->c, path, rank);
  if (ends_with(path, ".npy")) return npy_read(cli->c, path);
  diag_fail(cli->c, E0202, NULL, NULL, "--input: %s is neither .npy nor .pb", diag_quote(cli->c, path));
}

/* rand[:seed=N][:max=N] */
static void make_random(const Cli *cli, Array *a, const char *spec, int index) {
  long long seed = 0, max = 2;
  for (const char *p = spec + 4; *p;) {
    int n = 0;
    if (sscanf(p, ":seed=%lld%n", &seed, &n) < 1 && sscanf(p, ":max=%lld%n", &max, &n) < 1) n = 0;
    if (n == 0 || max < 1)
      diag_fail(cli->c, E0202, NULL, NULL, "--input: rand[:seed=N][:max=N], not %s", diag_quote(cli->c, spec));
    p += n;
  }
  uint64_t state = (uint64_t)seed * 1000003u + (uint64_t)index;
  fill_random(a, next_random(&state), max);
}

static const char *spec_of(const Cli *cli, const Runner *r, int index) {
  const char *name, *value, *found = NULL, *names[64];
  for (int i = 0; cli_pair(cli, OPT_INPUT, i, &name, &value); i++) {
    bool known = false;
    for (int k = 0; k < r->ninputs; k++) known |= !strcmp(name, r->inputs[k].name);
    int n = 0;
    for (; n < r->ninputs && n < COUNT(names); n++) names[n] = r->inputs[n].name;
    const char *near = known ? NULL : cli_nearest(name, names, n);
    if (!known && !near && n == 1) near = names[0];
    if (!known)
      diag_fail(cli->c, E0202, NULL, near ? ctx_printf(cli->c, "did you mean %s?", diag_quote(cli->c, near)) : NULL,
                "--input: the model has no input %s", diag_quote(cli->c, name));
    if (!strcmp(name, r->inputs[index].name)) found = value;
  }
  return found ? found : "rand";
}

/* Values of the named dimensions: from --dim, from the files given, else 1. */
static void bind_dims(Ctx *c, Map *dims, const Port *port, const Array *a) {
  for (int d = 0; d < port->rank && d < a->rank; d++)
    if (port->dims[d] < 0 && port->dim_names[d] && a->dims[d] >= 0) {
      int64_t *v = NEW(c, int64_t);
      *v = a->dims[d];
      map_set(dims, KEY(ctx_intern(c, port->dim_names[d])), v);
    }
}

static void fill_shape(Ctx *c, const Map *dims, const Port *port, Array *a) {
  *a = (Array){.dtype = port->dtype, .rank = port->rank};
  for (int d = 0; d < port->rank; d++) {
    const int64_t *v = port->dim_names[d] ? map_get(dims, KEY(ctx_intern(c, port->dim_names[d]))) : NULL;
    a->dims[d] = port->dims[d] >= 0 ? port->dims[d] : v ? *v : 1;
  }
  array_allocate(c, a);
}

/* --shape x=1x3x224x224: the extents of an input that is made; a part that is no number fixes nothing. */
static void apply_shape_option(const Cli *cli, const Options *o, Map *dims, const Port *port) {
  for (int i = 0; i < o->shapes.n; i++) {
    if (strcmp(o->shapes.v[i].input, port->name) != 0) continue;
    Array a = {.rank = 0};
    for (const char *p = o->shapes.v[i].dims; *p && a.rank < MAX_RANK;) {
      char *end;
      int64_t v = strtoll(p, &end, 10);
      a.dims[a.rank++] = end == p ? -1 : v;
      p = end == p ? p + strcspn(p, "x") : end;
      if (*p == 'x') p++;
    }
    bind_dims(cli->c, dims, port, &a);
  }
}

/* A library's dimensions are fixed by the arrays alone, so that a name it does not have would go unnoticed. */
static void check_dim_names(const Cli *cli, const Runner *r, const Options *o) {
  for (int i = 0; i < o->dims.n; i++) {
    bool known = false;
    for (int k = 0; k < r->ninputs; k++)
      for (int d = 0; d < r->inputs[k].rank; d++) {
        const char *name = r->inputs[k].dim_names[d];
        known |= name && !strcmp(name, o->dims.v[i].name);
      }
    if (!known)
      diag_fail(cli->c, E0202, NULL, NULL, "--dim: no input of %s has a dimension %s", diag_quote(cli->c, r->path),
                diag_quote(cli->c, o->dims.v[i].name));
  }
}

Array *runner_inputs(const Cli *cli, const Runner *r) {
  Array *in = NEW_ARRAY(cli->c, Array, r->ninputs);
  Map dims = map_new(cli->c);
  Options o = {.model = NULL};
  cli_shape_options(cli, &o);
  if (r->symbolic && cli->verb != VERB_COMPARE) check_dim_names(cli, r, &o);
  for (int i = 0; i < o.dims.n; i++) map_set(&dims, KEY(ctx_intern(cli->c, o.dims.v[i].name)), &o.dims.v[i].min);
  for (int i = 0; i < r->ninputs; i++) {
    const char *spec = spec_of(cli, r, i);
    apply_shape_option(cli, &o, &dims, &r->inputs[i]);
    if (*spec != '@') continue;
    in[i] = read_file(cli, spec + 1, r->inputs[i].rank);
    bind_dims(cli->c, &dims, &r->inputs[i], &in[i]);
  }
  for (int i = 0; i < r->ninputs; i++) {
    const char *spec = spec_of(cli, r, i);
    if (*spec == '@') continue;
    fill_shape(cli->c, &dims, &r->inputs[i], &in[i]);
    if (!strncmp(spec, "rand", 4)) make_random(cli, &in[i], spec, i);
    else if (!strcmp(spec, "ones")) fill_ones(&in[i]);
    else if (strcmp(spec, "zeros") != 0)
      diag_fail(cli->c, E0202, NULL, "NAME=@FILE.npy, @FILE.pb, rand[:seed=N], zeros or ones",
                "--input: there is no way %s to make an input", diag_quote(cli->c, spec));
  }
  runner_check(r, in, r->ninputs);
  return in;
}

static const char *port_type_text(Ctx *c, const Port *p) {
  Str s = str_new(c);
  str_add(&s, "%s[", dtype_info[p->dtype].name);
  for (int i = 0; i < p->rank; i++) {
    if (p->dims[i] >= 0) str_add(&s, "%s%lld", i ? "," : "", (long long)p->dims[i]);
    else str_add(&s, "%s%s", i ? "," : "", p->dim_names[i] ? p->dim_names[i] : "?");
  }
  str_add(&s, "]");
  return s.s;
}

/* Stored data often lack the leading dimensions of extent 1 that the model has. */
static void add_leading_ones(const Port *p, Array *a) {
  int missing = p->rank - a->rank;
  if (missing <= 0) return;
  for (int d = 0; d < p->rank; d++) {
    int64_t extent = d < missing ? 1 : a->dims[d - missing];
    if (p->dims[d] >= 0 && p->dims[d] != extent) return;
  }
  memmove(a->dims + missing, a->dims, sizeof *a->dims * (size_t)a->rank);
  for (int d = 0; d < missing; d++) a->dims[d] = 1;
  a->rank = p->rank;
}

void runner_check(const Runner *r, Array *in, int n) {
  if (n != r->ninputs) diag_fail(r->c, E0504, NULL, NULL, "%d inputs are given, the model has %d", n, r->ninputs);
  for (int i = 0; i < n; i++) {
    const Port *p = &r->inputs[i];
    add_leading_ones(p, &in[i]);
    bool fits = in[i].dtype == p->dtype && in[i].rank == p->rank;
    for (int d = 0; d < p->rank && fits; d++) fits = p->dims[d] < 0 || p->dims[d] == in[i].dims[d];
    if (!fits)
      diag_fail(r->c, E0504, NULL, NULL, "input %s is %s, the data are %s", diag_quote(r->c, p->name),
                port_type_text(r->c, p), array_type_text(r->c, &in[i]));
  }
}
