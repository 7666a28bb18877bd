/* tile.h - the register tile of a contraction: how many rows by how many vectors, by a model of one core. Numbers only. */
#ifndef DLC_TILE_H
#define DLC_TILE_H

#include "../ir/target.h"

enum { TILE_ROWS = 28, TILE_VECTORS = 6,                     /* the largest tiles that are looked at */
       TILE_OPEN = 128 };          /* what an extent that is not known counts as */

typedef struct {
  const Target *target;
  int lanes;
  int64_t rows[2];                 /* of the axes that a tile may take rows from, inner first; -1: open */
  int64_t multiple;                /* of open rows: their number is one of this */
  int64_t stride[2];               /* bytes from one row's first operand to the next one's; -1: not known */
  int64_t store_row, store_vector; /* bytes from one row's result, from one vector of results, to the next; -1: not known */
  bool blocks;                     /* the broadcast operand lies in blocks of the reduction that are far apart */
  int64_t others;                  /* further rows that share a panel */
  int64_t k, vectors;              /* of the reduction; of the vector axis */
  bool constant;                   /* panels come from memory, in the order in which they are read */
  double panel_cost[TILE_VECTORS + 1];   /* by vectors: what reading a panel so wide costs (1: as it should be); 0: it cannot be */
} TileProblem;

typedef struct {
  int r1, r2, v;
  double cost;                     /* cycles per row, vector and step of the reduction; half a cycle is what the multiply-adds take */
  const char *bound;
  bool ahead;                      /* the next panel is asked for while tiles of one are computed */
} Tile;

/* The best tiles first, at most n of them; the number written. */
int tile_choose(const TileProblem *p, Tile *best, int n);

/* Sizes of the tiles that an open extent runs through after tiles of r; 0: no further one. */
int tile_next_run(int r);

#endif
