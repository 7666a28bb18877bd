/* target.c - the rows of targets.def, and "host": the widest row that this machine has, tuned for its CPU and its caches. */
#include "codegen.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "../ir/diag.h"

static const struct { Target t; const char *needs; } rows[] = {
#define TARGET(name, triple, cpu, features, needs, bits, regs, fma, l1, l2, l3) {{name, triple, cpu, features, bits, regs, fma, l1, l2, l3, {0, 0, 0, 0, 0}}, needs},
#define CPU(...)
#include "targets.def"
#undef TARGET
#undef CPU
};

static const struct { const char *name; TargetRates rate; } cpus[] = {
#define TARGET(...)
#define CPU(name, ...) {name, {__VA_ARGS__}},
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

/* ---- caches: by /sys, which knows what part of the machine this is ---- */
static bool read_line(const char *path, char *line, int n) {
  FILE *f = fopen(path, "r");
  bool ok = f && fgets(line, n, f);
  if (f) fclose(f);
  return ok;
}

/* "0-3,8-11": 8 */
static int list_length(const char *list) {
  int n = 0, from, to, used;
  for (; sscanf(list, "%d%n", &from, &used) == 1; list += *list == ',') {
    list += used;
    to = from;
    if (sscanf(list, "-%d%n", &to, &used) == 1) list += used;
    n += to - from + 1;
  }
  return MAX(n, 1);
}

int64_t target_host_cache(Ctx *c, int level, int *sharers) {
  char line[256];
  *sharers = level < 3 ? 1 : INT_MAX;                        /* as it mostly is, where nothing is said */
  for (int i = 0; i < 10; i++) {
    const char *folder = ctx_printf(c, "/sys/devices/system/cpu/cpu0/cache/index%d", i);
    if (!read_line(ctx_printf(c, "%s/level", folder), line, sizeof line) || strtol(line, NULL, 10) != level) continue;
    if (!read_line(ctx_printf(c, "%s/type", folder), line, sizeof line) || line[0] == 'I') continue;
    if (!read_line(ctx_printf(c, "%s/size", folder), line, sizeof line)) return 0;
    int64_t bytes = MAX(strtol(line, NULL, 10), 0) << (strchr(line, 'M') ? 20 : 10);
    if (read_line(ctx_printf(c, "%s/shared_cpu_list", folder), line, sizeof line)) *sharers = list_length(line);
    return bytes;
  }
  return 0;
}

static void set_caches(Ctx *c, Target *t) {
  int64_t *bytes[] = {&t->l1_bytes, &t->l2_bytes, &t->l3_bytes};
  for (int i = 0; i < COUNT(bytes); i++) {
    int sharers;
    int64_t known = target_host_cache(c, i + 1, &sharers);
    if (known) *bytes[i] = known;
  }
}

static Target *copy_row(Ctx *c, int row) {
  Target *t = ctx_copy(c, &rows[row].t, sizeof rows[row].t);
  t->rate = cpus[0].rate;
  return t;
}

static void set_rates(Target *t) {
  for (int i = 1; i < COUNT(cpus); i++)
    if (!strcmp(cpus[i].name, t->cpu) || has_feature(t->features, cpus[i].name, strlen(cpus[i].name))) t->rate = cpus[i].rate;
}

static const Target *host_target(Ctx *c) {
  const char *features, *cpu = emit_host_cpu(c, &features);
  for (int i = COUNT(rows) - 1; i >= 0; i--) {
    if (!host_has(features, rows[i].needs)) continue;
    Target *t = copy_row(c, i);
    t->name = "host";
    t->cpu = cpu;
    t->features = features;
    set_caches(c, t);
    set_rates(t);
    return t;
  }
  return diag_fail(c, E0701, NULL, NULL, "this machine's CPU '%s' is older than every target that dlc knows", cpu), NULL;
}

const Target *target_find(Ctx *c, const char *cpu) {
  Str names = str_new(c);
  if (!cpu || !strcmp(cpu, "host")) return host_target(c);
  for (int i = 0; i < COUNT(rows); i++) {
    if (!strcmp(rows[i].t.name, cpu)) return copy_row(c, i);
    str_add(&names, ", %s", rows[i].t.name);
  }
  diag_fail(c, E0202, NULL, ctx_printf(c, "known: host%s", names.s), "unknown CPU '%s'", diag_quote(c, cpu));
}
