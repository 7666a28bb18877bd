/* entry.c - what the library exports and what its runtime reads: descriptor, tables of inputs and outputs, P_model, P_run and the note,
 * as LLVM IR text (the layouts are those of runtime/model.h and runtime/dlc.h). */
#include "codegen.h"

#include "../runtime/model.h"

typedef struct { Ctx *c; Module *m; Str s; int next; } Entry;

static void quoted(Str *s, const char *text) {
  str_add(s, "c\"");
  for (const unsigned char *p = (const unsigned char *)text; *p; p++)
    str_add(s, *p < 32 || *p > 126 || *p == '"' || *p == '\\' ? "\\%02X" : "%c", *p);
  str_add(s, "\\00\"");
}

/* Defines a constant string and returns its name. */
static const char *string_of(Entry *e, const char *text) {
  const char *name = ctx_printf(e->c, "@s%d", e->next++);
  str_add(&e->s, "%s = private constant [%zu x i8] ", name, strlen(text) + 1);
  quoted(&e->s, text);
  str_add(&e->s, "\n");
  return name;
}

static const char *array_of(Entry *e, const char *type, const char *const *items, int n) {
  const char *name = ctx_printf(e->c, "@a%d", e->next++);
  if (!n) return "null";
  str_add(&e->s, "%s = private constant [%d x %s] [", name, n, type);
  for (int i = 0; i < n; i++) str_add(&e->s, "%s%s %s", i ? ", " : "", type, items[i]);
  str_add(&e->s, "]\n");
  return name;
}

static const char *numbers(Entry *e, const char *type, const int64_t *v, int n) {
  const char **items = NEW_ARRAY(e->c, const char *, n + 1);
  for (int i = 0; i < n; i++) items[i] = ctx_printf(e->c, "%lld", (long long)v[i]);
  return array_of(e, type, items, n);
}

static int64_t bounded(int64_t v) { return v == INT64_MAX ? (int64_t)1 << 40 : v; }

/* name, dtype, rank, dims, names of symbolic dims, bounds */
static const char *io_of(Entry *e, const Tensor *t) {
  int64_t dims[MAX_RANK], min[MAX_RANK], max[MAX_RANK];
  const char *names[MAX_RANK];
  const DTypeInfo *d = &dtype_info[t->dtype];
  for (int i = 0; i < t->rank; i++) {
    Range r = expr_range(e->c, t->shape[i]);
    bool known = ex_is_int(t->shape[i], &dims[i]);
    if (!known) dims[i] = -1;
    min[i] = known ? dims[i] : MAX(r.min, 0);
    max[i] = known ? dims[i] : bounded(r.max);
    names[i] = t->shape[i]->op == EX_SYM ? string_of(e, t->shape[i]->u.sym->name) : "null";
  }
  const char *name = string_of(e, t->name), *a = numbers(e, "i64", dims, t->rank), *n = array_of(e, "ptr", names, t->rank);
  const char *lo = numbers(e, "i64", min, t->rank), *hi = numbers(e, "i64", max, t->rank);
  return ctx_printf(e->c, "%%io { ptr %s, %%dtype { i8 %d, i8 %d, i16 1 }, i32 %d, ptr %s, ptr %s, ptr %s, ptr %s }", name, d->dlpack, d->bits,
                    t->rank, a, n, lo, hi);
}

static const char *ios_of(Entry *e, Tensor *const *list, int n) {
  const char **items = NEW_ARRAY(e->c, const char *, n + 1);
  for (int i = 0; i < n; i++) items[i] = io_of(e, list[i]);
  const char *name = ctx_printf(e->c, "@io%d", e->next++);
  str_add(&e->s, "%s = private constant [%d x %%io] [", name, n);
  for (int i = 0; i < n; i++) str_add(&e->s, "%s%s", i ? ", " : "", items[i]);
  str_add(&e->s, "]\n");
  return name;
}

static int64_t sym_index(const Module *m, const Expr *dim) {
  if (ex_is_int(dim, NULL)) return -1;
  for (int i = 0; dim->op == EX_SYM && i < m->graph->dims.n; i++)
    if (m->graph->dims.v[i] == dim->u.sym) return i;
  return -2;
}

static const char *sym_of(Entry *e, Tensor *const *list, int n) {
  VEC(int64_t) at = {0};
  for (int i = 0; i < n; i++)
    for (int d = 0; d < list[i]->rank; d++) vec_push(e->c, &at, sym_index(e->m, list[i]->shape[d]));
  return numbers(e, "i32", at.v, at.n);
}

/* ---- the functions of the table, in its order; NULL where a CPU library has none ---- */
static const char *const table[] = {"dlc_rt_check_host", "dlc_rt_workspace_size", "dlc_rt_ctx_init", "dlc_rt_ctx_new", "dlc_rt_ctx_free",
                                    "dlc_rt_infer_shapes", "dlc_rt_run", NULL, NULL, "dlc_rt_last_error", "dlc_rt_profile", "dlc_rt_trim"};

static void declarations(Entry *e) {
  str_add(&e->s, "%%dtype = type { i8, i8, i16 }\n%%io = type { ptr, %%dtype, i32, ptr, ptr, ptr, ptr }\n"
                 "declare hidden i32 @dlc_rt_run_static(ptr, ptr, ptr)\ndeclare hidden i32 @dlc_plan(ptr, ptr)\n"
                 "declare hidden i32 @dlc_main(ptr, ptr, ptr, ptr, ptr)\n@dlc_weights = external hidden constant i8\n");
  for (int i = 0; i < COUNT(table); i++)
    if (table[i]) str_add(&e->s, "declare hidden i32 @%s()\n", table[i]);
  str_add(&e->s, "declare hidden i32 @dlc_rt_trace()\n");
  for (int i = 0; i < e->m->kernels.n; i++) str_add(&e->s, "declare hidden void @%s()\n", e->m->kernels.v[i]->name);
}

static void note(Entry *e, const char *json) {
  size_t n = strlen(json) + 1, pad = (4 - n % 4) % 4;
  str_add(&e->s, "@dlc_note = constant { i32, i32, i32, [4 x i8], [%zu x i8], [%zu x i8] } { i32 4, i32 %zu, i32 1, [4 x i8] c\"dlc\\00\", [%zu x i8] ", n,
          pad, n, n);
  quoted(&e->s, json);
  str_add(&e->s,
          ", [%zu x i8] zeroinitializer }, section \".note.dlc\", align 4\n@llvm.used = appending global [1 x ptr] "
          "[ptr @dlc_note], section \"llvm.metadata\"\n",
          pad);
}

static void run_function(Entry *e, const char *prefix) {
  Graph *g = e->m->graph;
  int n = g->inputs.n + g->outputs.n, syms = g->dims.n;
  str_add(&e->s, "define i32 @%s_run(", prefix);
  for (int i = 0; i < n; i++) str_add(&e->s, "ptr %%io%d, ", i);
  for (int i = 0; i < syms; i++) str_add(&e->s, "i64 %%n%d, ", i);
  str_add(&e->s, "ptr %%workspace) {\n  %%io = alloca [%d x ptr]\n  %%syms = alloca [%d x i64]\n", n + 1, syms + 1);
  for (int i = 0; i < n; i++) str_add(&e->s, "  %%p%d = getelementptr ptr, ptr %%io, i64 %d\n  store ptr %%io%d, ptr %%p%d\n", i, i, i, i);
  for (int i = 0; i < syms; i++) str_add(&e->s, "  %%q%d = getelementptr i64, ptr %%syms, i64 %d\n  store i64 %%n%d, ptr %%q%d\n", i, i, i, i);
  str_add(&e->s, "  %%r = call i32 @dlc_rt_run_static(ptr %%io, ptr %%syms, ptr %%workspace)\n  ret i32 %%r\n}\n");
}

void entry_emit(Module *m, const EntryInfo *info, ObjectList *out) {
  Entry e = {.c = m->c, .m = m, .s = str_new(m->c)};
  Graph *g = m->graph;
  int n = g->dims.n;
  int64_t *min = NEW_ARRAY(m->c, int64_t, n + 1), *max = NEW_ARRAY(m->c, int64_t, n + 1);
  const char **names = NEW_ARRAY(m->c, const char *, n + 1), **kernels = NEW_ARRAY(m->c, const char *, m->kernels.n + 1);
  const char **sources = NEW_ARRAY(m->c, const char *, m->kernels.n + 1);
  declarations(&e);
  for (int i = 0; i < n; i++) {
    names[i] = string_of(&e, g->dims.v[i]->name);
    min[i] = MAX(g->dims.v[i]->min, 0);
    max[i] = bounded(g->dims.v[i]->max);
  }
  for (int i = 0; i < m->kernels.n; i++) {
    kernels[i] = ctx_printf(m->c, "@%s", m->kernels.v[i]->name);
    sources[i] = string_of(&e, m->kernels.v[i]->name);
  }
  const char *name = string_of(&e, info->prefix), *json = string_of(&e, info->json), *needs = string_of(&e, target_needs(m->target));
  const char *in = ios_of(&e, g->inputs.v, g->inputs.n), *outs = ios_of(&e, g->outputs.v, g->outputs.n);
  const char *in_sym = sym_of(&e, g->inputs.v, g->inputs.n), *out_sym = sym_of(&e, g->outputs.v, g->outputs.n);
  const char *lo = numbers(&e, "i64", min, n), *hi = numbers(&e, "i64", max, n), *dims = array_of(&e, "ptr", names, n);
  const char *list = array_of(&e, "ptr", kernels, m->kernels.n), *labels = array_of(&e, "ptr", sources, m->kernels.n);
  str_add(&e.s,
          "@dlc_rt_this = hidden constant { ptr, ptr, ptr, i32, i32, i32, i32, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, "
          "i64, ptr, ptr, i64, ptr, ptr } "
          "{ ptr %s, ptr %s, ptr %s, i32 %d, i32 %d, i32 %d, i32 %d, ptr %s, ptr %s, ptr %s, ptr %s, ptr %s, ptr %s, "
          "ptr %s, ptr %s, i64 %lld, "
          "ptr @dlc_plan, ptr @dlc_main, i64 %d, ptr %s, ptr %s }\n",
          name, json, needs, g->inputs.n, g->outputs.n, n, m->opt->threads, in, outs, in_sym, out_sym, lo, hi, dims,
          m->weight_bytes ? "@dlc_weights" : "null", (long long)m->weight_bytes,
          m->kernels.n, list, labels);
  str_add(&e.s, "@%s_model = constant { i32, i32, i32, i32, ptr, ptr, i32, i32, ptr, ptr, [12 x ptr], i32, i32, ptr, ptr, ptr, ptr } "
                "{ i32 %zu, i32 %d, i32 %d, i32 %d, ptr %s, ptr %s, i32 %d, i32 %d, ptr %s, ptr %s, [12 x ptr] [", info->prefix, sizeof(dlc_model),
          DLC_ABI_MAJOR, DLC_ABI_MINOR, n ? 0 : DLC_MODEL_STATIC, name, json, g->inputs.n, g->outputs.n, in, outs);
  for (int i = 0; i < COUNT(table); i++) str_add(&e.s, "%sptr %s%s", i ? ", " : "", table[i] ? "@" : "null", table[i] ? table[i] : "");
  str_add(&e.s, "], i32 %d, i32 0, ptr %s, ptr %s, ptr %s, ptr @dlc_rt_trace }\n", n, dims, lo, hi);
  run_function(&e, info->prefix);
  note(&e, info->json);
  emit_ir_text(m, "entry", e.s.s, out);
}
