/* term.h - what the terminal can do, what time it is, and how sizes are written. */
#ifndef DLC_TERM_H
#define DLC_TERM_H

#include "cli.h"

typedef enum { TERM_PLAIN, TERM_BOLD, TERM_RED, TERM_GREEN, TERM_DIM } TermStyle;

bool term_is_terminal(FILE *to);
bool term_color(const Cli *cli, FILE *to);                   /* --color, NO_COLOR, TERM=dumb, is it a terminal */
const char *term_on(bool color, TermStyle style);            /* the escape sequence, "" without colours */
const char *term_off(bool color);
int term_width(FILE *to);                                    /* columns; 80 if unknown */
double clock_seconds(void);                                  /* since some time in the past */
const char *text_bytes(Ctx *c, int64_t bytes);               /* "812 B", "61.3 KiB", "97.8 MiB" */
const char *text_count(Ctx *c, int64_t n);                   /* "812", "25.6 M" */
const char *text_si(Ctx *c, double v, const char *unit);     /* three digits: "812 B", "25.6 MB", "1.81 GB"; without a unit "25.6 M" */

#endif
