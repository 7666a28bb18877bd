/* rules.h - what the files of schedule rules share. */
#ifndef DLC_RULES_H
#define DLC_RULES_H

#include "../passes/sched.h"
#include "codegen.h"

/* The loop that a rule has for an axis of the stage: its iterator, how far it runs (-1: not known), and whether the rule is to place it. */
typedef struct { const char *name; int64_t extent; bool open; } StageLoop;

typedef struct {
  Module *m;
  Ctx *c;
  Group *g;
  Stage *st;                       /* the root, or with `loop` any stage of the group */
  Expr *reduce;
  int lanes;
  Str text;                        /* the schedule */
  StageLoop *loop;                 /* per axis, for a stage inside outer loops; NULL: a root that has all loops to itself */
  const char *outer;               /* with loop: the iterators outside of those the rule places, for the order; else "" */
} Case;

typedef const char *Rule(Case *k);                           /* NULL and k->text, or the reason why the rule declines */

Rule rule_contraction;             /* contraction.c */
Rule rule_square;                  /* square.c */

typedef VEC(const char *) Names;

bool rule_is_alone(const Case *k);                           /* one stage, not several to be placed together */
int64_t rule_axis_extent(Case *k, int i);                    /* how far loops over a data axis run; -1: not known */
int64_t const_extent(const Expr *e);                         /* -1: not known */
const char *rule_axis_name(Case *k, int i);                  /* of axis i as the schedule calls it; reduction axes follow the data axes */
/* The adjacent loops named, outermost first, as one that threads share; those inside outer loops stay as they are. */
void rule_share_loops(Case *k, const Names *list);

/* Constants that move with s in one dimension get the layout that vectors along s want: blocks of n along it innermost, `also` blocked by
 * lanes before it; dimensions that move with other data axes outermost. part: of s, what vectors lie along; NULL: all of it. */
void rule_pack_constants(Case *k, Sym *s, const Expr *part, int64_t n, Sym *also);

#endif
