/* storage.h - a constant as its layout stores it: an index map run over whole tensors, some rows at a time. */
#ifndef DLC_STORAGE_H
#define DLC_STORAGE_H

#include "module.h"

/* A dimension of the storage, outermost first: extent, distance of neighbours in the data and in the storage (elements), the logical
 * dimension whose bounds must be looked at (-1: none) and how far a step goes in it. */
typedef struct { int64_t extent, step, place, div; int dim; } StorageDim;

typedef struct Storage {
  int64_t bytes, rows, row_bytes;  /* of all; a row: what the dimensions after the first `outer` and one more hold */
  int64_t group;                   /* rows in order that read one region of the data */
  int n, outer, tile, size;        /* tile: the dimension along which the data lies densest, -1 if that is the last */
  StorageDim dim[2 * MAX_RANK + 1];
  int order[2 * MAX_RANK];         /* the dimensions between outer and last but tile, those far apart in the data first */
  int norder, nbounded;
  int64_t base;                    /* in the data, of the storage's first element (may lie before it) */
  struct { int64_t lo, shape; } bound[MAX_RANK];
} Storage;

Storage storage_of(Ctx *c, const Tensor *t);                 /* E0308 if its size overflows */
void storage_fill(const Storage *s, const void *data, int64_t row, int64_t count, void *to);   /* zeros where no index reaches */
/* What of the data, in bytes, the rows up to `end` have read for the last time; false: later rows read it again. */
bool storage_done(const Storage *s, int64_t row, int64_t end, int64_t *from, int64_t *to);

#endif
