/* records.c - a record of every kernel and every call. */
#include "records.h"

#include <math.h>

#include "../codegen/work.h"
#include "../ir/diag.h"

static void put_dims(Json *j, Sym *const *dims, int n) {
  json_array(j, "dims");
  for (int i = 0; i < n; i++) json_text(j, NULL, dims[i]->name);
  json_close(j, ']');
}

static void put_count(Json *j, Ctx *c, const char *key, const Expr *e) {
  int64_t v;
  if (e && ex_is_int(e, &v)) json_int(j, key, v);
  else json_text(j, key, e ? expr_text(c, e) : NULL);
}

static void put_kernel(Json *j, Ctx *c, const Kernel *k) {
  Work w = kernel_work(c, k);
  json_object(j, NULL);
  json_text(j, "name", k->name);
  json_text(j, "rule", k->why);
  json_text(j, "source", k->source);
  json_text(j, "type", w.type == DT_NONE ? NULL : dtype_info[w.type].name);
  put_dims(j, k->dims.v, k->dims.n);
  put_count(j, c, "flops", w.flops);
  put_count(j, c, "muls", w.muls);
  put_count(j, c, "reads", w.reads);
  put_count(j, c, "writes", w.writes);
  put_count(j, c, "weights", w.weights);
  json_close(j, '}');
}

/* The calls as they stand in the program. straight: each is made once, in this order; the IFs left are then checks, whose branch ends the
 * run. */
typedef struct { const Module *m; VEC(const Stmt *) calls; bool straight; } Steps;

static void find_steps(Steps *s, const Stmt *st) {
  bool check = st->op == ST_IF && !st->body[1] && st->body[0]->op == ST_CALL && st->body[0]->kernel == s->m->stop;
  if (check) return;
  if (st->op == ST_CALL) vec_push(s->m->c, &s->calls, st);
  s->straight &= st->op == ST_CALL || st->op == ST_SEQ;
  for (int i = 0; i < st->n; i++)
    if (st->body[i]) find_steps(s, st->body[i]);
}

static void put_step(Json *j, const Module *m, const Stmt *call, const Map *number) {
  const Kernel *k = call->kernel;
  json_array(j, NULL);
  json_int(j, NULL, (int64_t)(intptr_t)map_get(number, KEY(k)));
  json_text(j, NULL, call->source);
  bool renamed = false;
  for (int i = 0; i < k->dims.n; i++) renamed |= call->dims[i] != k->dims.v[i];
  if (renamed) json_object(j, NULL);
  for (int i = 0; i < k->dims.n && renamed; i++) json_text(j, k->dims.v[i]->name, call->dims[i]->name);
  if (renamed) json_close(j, '}');
  json_close(j, ']');
}

/* The type of most bytes of constants; of the first input where there are none. */
static DType precision_of(const Module *m) {
  int64_t bytes[DT_COUNT + 1] = {0}, n;
  DType most = m->graph->inputs.n ? m->graph->inputs.v[0]->dtype : DT_NONE;
  for (int i = 0; i < m->consts.n; i++)
    if (ex_is_int(layout_elements(m->c, m->consts.v[i]), &n)) bytes[m->consts.v[i]->dtype] += n * dtype_bytes(m->consts.v[i]->dtype);
  for (int t = 0; t < DT_COUNT; t++)
    if (bytes[t] > bytes[most]) most = (DType)t;
  return most;
}

void records_json(Json *j, Module *m) {
  Map number = map_new(m->c);
  Steps s = {.m = m, .straight = true};
  DType precision = precision_of(m);
  json_text(j, "precision", precision == DT_NONE ? NULL : dtype_info[precision].name);
  put_dims(j, m->graph->dims.v, m->graph->dims.n);
  put_count(j, m->c, "muls", m->products);
  json_array(j, "kernels");
  for (int i = 0; i < m->kernels.n; i++) {
    map_set(&number, KEY(m->kernels.v[i]), (void *)(intptr_t)i);
    put_kernel(j, m->c, m->kernels.v[i]);
  }
  json_close(j, ']');
  if (m->program) find_steps(&s, m->program);
  json_bool(j, "straight", s.straight);
  json_array(j, "steps");
  for (int i = 0; i < s.calls.n; i++) put_step(j, m, s.calls.v[i], &number);
  json_close(j, ']');
}

/* ---- reading ---- */
typedef struct { Records *r; Scope scope; } Reader;

static void know_dims(Reader *r, const JsonValue *names) {
  for (int i = 0; i < names->n; i++) {
    const char *name = names->items[i].kind == JSON_TEXT ? ctx_intern(r->r->c, names->items[i].text) : NULL;
    if (name && !map_get(&r->scope.syms, KEY(name))) map_set(&r->scope.syms, KEY(name), sym_new(r->r->c, SYM_DIM, name, 0, INT64_MAX));
  }
}

static Expr *read_count(Reader *r, const JsonValue *v) {
  if (v->kind == JSON_NUMBER) return ex_int(r->r->c, (int64_t)v->number);
  return v->kind == JSON_TEXT ? expr_parse(r->r->c, &r->scope, v->text) : NULL;
}

static KernelRecord read_kernel(Reader *r, const JsonValue *v) {
  KernelRecord k = {.name = json_get(v, "name")->text, .rule = json_get(v, "rule")->text, .source = json_get(v, "source")->text, .type = DT_NONE};
  const char *type = json_get(v, "type")->text;
  for (int t = 0; t < DT_COUNT && type; t++)
    if (!strcmp(type, dtype_info[t].name)) k.type = (DType)t;
  know_dims(r, json_get(v, "dims"));
  k.flops = read_count(r, json_get(v, "flops"));
  k.muls = read_count(r, json_get(v, "muls"));
  k.reads = read_count(r, json_get(v, "reads"));
  k.writes = read_count(r, json_get(v, "writes"));
  k.weights = read_count(r, json_get(v, "weights"));
  return k;
}

static bool read_step(Records *r, const JsonValue *v) {
  if (v->kind != JSON_ARRAY || v->n < 2 || v->items[0].kind != JSON_NUMBER) return false;
  StepRecord s = {(int)v->items[0].number, v->items[1].text, v->n > 2 ? &v->items[2] : NULL};
  if (s.kernel < 0 || s.kernel >= r->kernels.n) return false;
  vec_push(r->c, &r->steps, s);
  return true;
}

Records *records_read(Ctx *c, const char *json, const char *path) {
  Reader r = {.r = NEW(c, Records), .scope = scope_new(c)};
  const JsonValue *info = json ? json_read(c, json) : NULL, *kernels = json_get(info, "kernels"), *steps = json_get(info, "steps");
  bool ok = info && kernels->kind == JSON_ARRAY && steps->kind == JSON_ARRAY;
  *r.r = (Records){.c = c, .info = info, .dims = map_new(c), .straight = json_get(info, "straight")->number != 0};
  know_dims(&r, json_get(info, "dims"));
  r.r->muls = read_count(&r, json_get(info, "muls"));
  for (int i = 0; ok && i < kernels->n; i++) {
    vec_push(c, &r.r->kernels, read_kernel(&r, &kernels->items[i]));
    ok = r.r->kernels.v[i].name != NULL;
  }
  for (int i = 0; ok && i < steps->n; i++) ok = read_step(r.r, &steps->items[i]);
  if (!ok) diag_fail(c, E0503, NULL, "compile the model again", "%s does not say what its kernels are", diag_quote(c, path));
  return r.r;
}

int records_kernel(const Records *r, const char *name) {
  for (int i = 0; i < r->kernels.n; i++)
    if (!strcmp(r->kernels.v[i].name, name)) return i;
  return -1;
}

/* The model's dims under the names that a step's kernel has for them. */
typedef struct { ExprEnv env; const Records *r; const JsonValue *renamed; bool unknown; } Values;

static Scalar value_of(ExprEnv *env, const Sym *s) {
  Values *v = (Values *)env;
  const char *name = v->renamed ? json_get(v->renamed, s->name)->text : NULL;
  const int64_t *at = map_get(&v->r->dims, KEY(ctx_intern(v->r->c, name ? name : s->name)));
  v->unknown |= !at;
  return (Scalar){.i = at ? *at : 1};
}

static double evaluate(const Records *r, const Expr *e, const JsonValue *renamed) {
  Values v = {{value_of, NULL}, r, renamed, !e};
  double value = e ? (double)expr_eval(&v.env, e).i : 0;
  return v.unknown ? NAN : value;
}

static Counts counts_at(const Records *r, const KernelRecord *k, const JsonValue *renamed) {
  return (Counts){evaluate(r, k->flops, renamed), evaluate(r, k->muls, renamed), evaluate(r, k->reads, renamed), evaluate(r, k->writes, renamed),
                  evaluate(r, k->weights, renamed)};
}

Counts records_counts(const Records *r, int kernel, int step) {
  Counts all = {NAN, NAN, NAN, NAN, NAN};
  bool first = true;
  for (int i = step < 0 ? 0 : step; i < (step < 0 ? r->steps.n : step + 1); i++) {
    if (r->steps.v[i].kernel != kernel) continue;
    Counts one = counts_at(r, &r->kernels.v[kernel], r->steps.v[i].dims);
    if (first) all = one;
    else if (memcmp(&one, &all, sizeof all) != 0) return (Counts){NAN, NAN, NAN, NAN, NAN};
    first = false;
  }
  return all;
}

double records_products(const Records *r) { return evaluate(r, r->muls, NULL); }
