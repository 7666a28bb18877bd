/* target.c - the rows of targets.def, and "host": the widest row that this machine has, tuned for its CPU. */
#include "codegen.h"

#include "../ir/diag.h"

static const struct { Target t; const char *needs; } rows[] = {
#define TARGET(name, triple, cpu, features, needs, bits, regs, fma, l1, l2, l3) {{name, triple, cpu, features, bits, regs, fma, 2, l1, l2, l3}, needs},
#define CPU(name, fma_rate)
#include "targets.def"
#undef TARGET
#undef CPU
};

static const struct { const char *name; double fma_rate; } cpus[] = {
#define TARGET(...)
#define CPU(name, fma_rate) {name, fma_rate},
#include "targets.def"
#undef TARGET
#undef CPU
};

const Target *target_at(int i) { return i < COUNT(rows) ? &rows[i].t : NULL; }

const char *target_needs(const Target *t) {
  for (int i = 0; i < COUNT(rows); i++)
    if (rows[i].t.vector_bits == t->vector_bits && !strcmp(rows[i].t.triple, t->triple)) return rows[i].needs;
  return "";
}

static bool has_feature(const char *features, const char *name, size_t n) {
  for (const char *p = features; (p = strstr(p, "+")); p++)
    if (!strncmp(p + 1, name, n) && (p[1 + n] == ',' || !p[1 + n])) return true;
  return false;
}

static bool host_has(const char *features, const char *needs) {
  for (const char *p = needs; *p;) {
    size_t n = strcspn(p, ",");
    if (!has_feature(features, p, n)) return false;
    p += n + (p[n] == ',');
  }
  return true;
}

static const Target *host_target(Ctx *c) {
  const char *features, *cpu = emit_host_cpu(c, &features);
  for (int i = COUNT(rows) - 1; i >= 0; i--) {
    if (!host_has(features, rows[i].needs)) continue;
    Target *t = ctx_copy(c, &rows[i].t, sizeof rows[i].t);
    t->name = "host";
    t->cpu = cpu;
    t->features = features;
    for (int k = 0; k < COUNT(cpus); k++)
      if (!strcmp(cpus[k].name, cpu)) t->fma_rate = cpus[k].fma_rate;
    return t;
  }
  return diag_fail(c, E0701, NULL, NULL, "this machine's CPU '%s' is older than every target that dlc knows", cpu), NULL;
}

const Target *target_find(Ctx *c, const char *cpu) {
  Str names = str_new(c);
  if (!cpu || !strcmp(cpu, "host")) return host_target(c);
  for (int i = 0; i < COUNT(rows); i++) {
    if (!strcmp(rows[i].t.name, cpu)) return &rows[i].t;
    str_add(&names, ", %s", rows[i].t.name);
  }
  diag_fail(c, E0202, NULL, ctx_printf(c, "known: host%s", names.s), "unknown CPU '%s'", diag_quote(c, cpu));
}
