/* rules.h - what the files of schedule rules share. */
#ifndef DLC_RULES_H
#define DLC_RULES_H

#include "../passes/sched.h"
#include "codegen.h"

typedef struct {
  Module *m;
  Ctx *c;
  Group *g;
  Stage *st;                       /* the root */
  Expr *reduce;
  int lanes;
  Str text;                        /* the schedule */
} Case;

typedef const char *Rule(Case *k);                           /* NULL and k->text, or the reason why the rule declines */

Rule rule_contraction;             /* contraction.c */

int64_t const_extent(const Expr *e);                         /* -1: not known */
const char *rule_axis_name(Case *k, int i);                  /* of axis i as the schedule calls it; reduction axes follow the data axes */

/* Constants that move with s in one dimension get the layout that vectors along s want: blocks of n along it innermost, `also` blocked by
 * lanes before it; dimensions that move with other data axes outermost. */
void rule_pack_constants(Case *k, Sym *s, int64_t n, Sym *also);

#endif
