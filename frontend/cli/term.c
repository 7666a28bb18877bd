#include "term.h"
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

bool term_is_terminal(FILE *to) { return isatty(fileno(to)) == 1; }

bool term_color(const Cli *cli, FILE *to) {
  static const char *const when[] = {"auto", "always", "never"};
  int choice = cli_choice(cli, OPT_COLOR, when, COUNT(when));
  if (choice) return choice == 1;
  const char *off = getenv("NO_COLOR"), *type = getenv("TERM");
  return !(off && *off) && type && strcmp(type, "dumb") != 0 && term_is_terminal(to);
}

const char *term_on(bool color, TermStyle style) {
  static const char *const escape[] = {"", "\033[1m", "\033[31m", "\033[32m", "\033[2m"};
  return color ? escape[style] : "";
}

const char *term_off(bool color) { return color ? "\033[0m" : ""; }

int term_width(FILE *to) {
  struct winsize size;
  return ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

double clock_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

const char *text_bytes(Ctx *c, int64_t bytes) {
  static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return ctx_printf(c, "%lld B", (long long)bytes);
  double v = (double)bytes / 1024;
  int u = 0;
  while (v >= 1024 && u < COUNT(unit) - 1) {
    v /= 1024;
    u++;
  }
  return ctx_printf(c, "%.1f %s", v, unit[u]);
}

const char *text_count(Ctx *c, int64_t n) {
  if (n < 10000) return ctx_printf(c, "%lld", (long long)n);
  if (n < 1000000) return ctx_printf(c, "%.1f k", (double)n / 1e3);
  return n < 1000000000 ? ctx_printf(c, "%.1f M", (double)n / 1e6) : ctx_printf(c, "%.1f G", (double)n / 1e9);
}

const char *text_si(Ctx *c, double v, const char *unit) {
  static const char *const prefix[] = {"", "k", "M", "G", "T", "P"};
  int p = 0;
  for (; v >= 999.5 && p < COUNT(prefix) - 1; p++) v /= 1000;
  int decimals = v >= 99.95 || (p == 0 && v == (double)(int)v) ? 0 : v >= 9.995 ? 1 : 2;
  const char *blank = *prefix[p] || *unit ? " " : "";
  return ctx_printf(c, "%.*f%s%s%s", decimals, v, blank, prefix[p], unit);
}
