#include "progress.h"
#include "term.h"
#include "../compile.h"

Progress progress_new(const Cli *cli) {
  static const char *const modes[] = {"auto", "plain", "none"};
  int choice = cli_choice(cli, OPT_PROGRESS, modes, COUNT(modes));
  Progress p = {.color = term_color(cli, stderr), .width = term_width(stderr)};
  if (cli->verbose < 0 || choice == 2) p.mode = PROGRESS_NONE;
  else if (choice == 1) p.mode = PROGRESS_PLAIN;
  else p.mode = term_is_terminal(stderr) ? PROGRESS_TERMINAL : PROGRESS_NONE;
  return p;
}

/* "[3/6] optimise   0.21 s   detail"; a stage that is not in the list has no number. */
static void put_line(const Progress *p, double seconds) {
  int n = 0, at = 0;
  for (; compile_stages[n]; n++)
    if (!strcmp(compile_stages[n], p->stage)) at = n + 1;
  char number[24] = "     ";
  if (at) snprintf(number, sizeof number, "[%d/%d]", at, n);
  int room = p->mode == PROGRESS_TERMINAL ? MAX(p->width - 30, 0) : 255;
  fprintf(stderr, "%s%s%s %-10s %6.2f s   %.*s", term_on(p->color, TERM_DIM), number, term_off(p->color), p->stage,
          seconds, room, p->detail);
}

static void finish_line(Progress *p) {
  if (!*p->stage || p->mode == PROGRESS_NONE) return;
  if (p->mode == PROGRESS_TERMINAL) fputs("\r\033[K", stderr);
  put_line(p, clock_seconds() - p->started);
  fputc('\n', stderr);
}

/* A bar and the time that is left, after the detail. */
static void draw(Progress *p, double fraction, double t) {
  enum { BAR = 24, PART = 40 };
  char text[sizeof p->detail], bar[BAR + 1], part[PART] = "";
  int full = (int)(fraction * BAR);
  for (int i = 0; i < BAR; i++) bar[i] = i < full ? '#' : '-';
  bar[BAR] = 0;
  double spent = t - p->started;
  if (fraction > 0.02 && fraction < 1 && spent > 0.5)
    snprintf(part, sizeof part, "  %.0f s left", spent / fraction - spent);
  snprintf(text, sizeof text, "%s", p->detail);
  snprintf(p->detail, sizeof p->detail, "%s  %.180s%s", bar, text, part);
  fputs("\r\033[K", stderr);
  put_line(p, spent);
  fflush(stderr);
  snprintf(p->detail, sizeof p->detail, "%s", text);
  p->drawn = t;
}

void progress_report(void *user, const char *stage, double fraction, const char *detail) {
  Progress *p = user;
  double t = clock_seconds();
  if (!stage) {
    if (p->mode == PROGRESS_TERMINAL) fputs("\r\033[K", stderr);
    p->stage[0] = 0;
    return;
  }
  if (strcmp(p->stage, stage) != 0) {
    finish_line(p);
    snprintf(p->stage, sizeof p->stage, "%s", stage);
    p->detail[0] = 0;
    p->started = t;
    p->drawn = 0;
  }
  if (detail) snprintf(p->detail, sizeof p->detail, "%s", detail);
  if (p->mode == PROGRESS_TERMINAL && t - p->drawn > 0.1) draw(p, MIN(MAX(fraction, 0), 1), t);
}

void progress_done(Progress *p) {
  finish_line(p);
  p->stage[0] = 0;
}
