/* machine.c - read from /proc and /sys; what is not there is unknown. */
#define _GNU_SOURCE
#include "machine.h"
#include "term.h"
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* What stands behind the colon of the first line that starts with `key`; NULL if there is none. */
static const char *line_of(Ctx *c, const char *path, const char *key) {
  char line[512];
  const char *found = NULL;
  FILE *f = fopen(path, "r");
  while (f && !found && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    found = ctx_printf(c, "%s", colon + 1 + strspn(colon + 1, " \t"));
  }
  if (f) fclose(f);
  return found;
}

static void read_cpus(Ctx *c, Machine *m) {
  enum { MOST = 8192 };
  cpu_set_t *set = CPU_ALLOC(MOST);
  size_t size = CPU_ALLOC_SIZE(MOST);
  m->cpus = NEW_ARRAY(c, int32_t, MOST);
  if (set && sched_getaffinity(0, size, set) == 0)
    for (int i = 0; i < MOST; i++)
      if (CPU_ISSET_S(i, size, set)) m->cpus[m->ncpus++] = i;
  CPU_FREE(set);
}

Machine machine_read(Ctx *c) {
  Machine m = {.online = (int)sysconf(_SC_NPROCESSORS_ONLN)};
  char governor[64] = "";
  m.cpu = line_of(c, "/proc/cpuinfo", "model name");
  if (!m.cpu) m.cpu = "";
  read_cpus(c, &m);
  FILE *f = fopen(ctx_printf(c, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", m.ncpus ? m.cpus[0] : 0), "r");
  if (f && fscanf(f, "%63s", governor) == 1) m.governor = ctx_printf(c, "%s", governor);
  if (f) fclose(f);
  return m;
}

static bool is_ours(const Machine *m, int cpu) {
  for (int i = 0; i < m->ncpus; i++)
    if (m->cpus[i] == cpu) return true;
  return false;
}

/* Ticks of the CPUs that were not idle: user, nice, system, (idle, iowait,) irq, softirq, steal. */
static double busy_seconds(const Machine *m) {
  char line[1024];
  long long t[8], sum = 0;
  int cpu, seen = 0;
  FILE *f = fopen("/proc/stat", "r");
  while (f && fgets(line, sizeof line, f)) {
    int n = sscanf(line, "cpu%d %lld %lld %lld %lld %lld %lld %lld %lld", &cpu, &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
    if (n != 9 || !is_ours(m, cpu)) continue;
    seen++;
    sum += t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
  }
  if (f) fclose(f);
  return seen && seen == m->ncpus ? (double)sum / (double)sysconf(_SC_CLK_TCK) : NAN;
}

static double of_timeval(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec * 1e-6; }

Usage machine_usage(const Machine *m) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (Usage){clock_seconds(), of_timeval(r.ru_utime) + of_timeval(r.ru_stime), busy_seconds(m)};
}

double usage_of_others(Usage from, Usage to) {
  double span = to.at - from.at, others = (to.all - from.all) - (to.own - from.own);
  return span < 0.2 ? NAN : fmax(others / span, 0);          /* ticks are too coarse for less */
}

static int64_t memory_of(const char *key) {
  char line[256];
  long long kib = -1;
  size_t n = strlen(key);
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, key, n) && sscanf(line + n, ": %lld", &kib) == 1) break;
  if (f) fclose(f);
  return kib < 0 ? -1 : kib * 1024;
}

int64_t memory_now(void) { return memory_of("VmRSS"); }
int64_t memory_peak(void) { return memory_of("VmHWM"); }
