/* ctx.h - the compile context from inside: what ctx.c, diag.c and the expression files share. Other modules see base.h
 * only, except for their slot: a module that keeps a table per compile hangs it on ctx->slots[SLOT_...]. */
#ifndef DLC_CTX_H
#define DLC_CTX_H

#include "base.h"
#include "diag.h"
#include "expr.h"

typedef enum { SLOT_OPS, SLOT_RULES, SLOT_GRAPH_RULES, SLOT_SCHED, SLOT_MATH, SLOT_TIR, SLOT_BLOBS, SLOT_STORAGE,
              SLOT_COUNT } CtxSlot;

typedef struct Chunk { struct Chunk *next; size_t used, size; } Chunk;
typedef struct { void (*close)(void *); void *object; } Closer;
typedef struct { char *p; size_t n; } FileMap;

struct Ctx {
  Chunk *chunk;                    /* newest first */
  Diags diags;
  VEC(Closer) closers;
  VEC(FileMap) maps;               /* ctx_map */
  const char **strings;            /* interned strings: open addressing, nstrings of cap_strings (a power of two) */
  uint32_t nstrings, cap_strings;
  Expr **exprs;                    /* hash-consed expressions: open addressing */
  uint32_t nexprs, cap_exprs;
  struct BuildMemo *memo;          /* (op, a, b) -> what the constructor gave */
  uint32_t nmemo, cap_memo;
  VEC(Range *) ranges;             /* by Expr.id; NULL = not computed */
  Map sym_names, sym_last;         /* interned name -> Sym*; name asked for -> the last number given out behind it */
  int nsyms, nserials;
  int prove_depth;                 /* proofs under way: a proof inside a proof gives up early */
  void *slots[SLOT_COUNT];
};

char *ctx_vprintf(Ctx *c, const char *fmt, va_list args) __attribute__((format(printf, 2, 0), nonnull(2)));

static inline uint64_t mix64(uint64_t x) {
  x ^= x >> 30; x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27; x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

#endif
