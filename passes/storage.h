/* storage.h - constants as they are stored: computes run while compiling, by the interpreter or, what is too large for it, as code for this
 * machine. A layout is a copy, whose result has a dimension for every part of the layout; weights that are transformed are a stage of
 * their own (ConstData.stage), which is computed right to where its layout puts it. */
#ifndef DLC_STORAGE_H
#define DLC_STORAGE_H

#include "module.h"

enum { STORAGE_SOURCES = 8 };

typedef struct Storage {
  int64_t bytes, rows, row_bytes;  /* a row: what one index of the outermost dimension holds */
  const char *value;               /* all of it; NULL: not computed yet */
  const char *from;                /* the constant's own bytes; NULL: it is made from others */
  int64_t from_bytes, from_row;    /* of those, what a row alone reads: so much, in order; 0: rows share them */
  struct Form *form;               /* what computes it */
  const Tensor *source[STORAGE_SOURCES];         /* what that loads */
  int64_t *dims;                   /* and the sizes that it works with */
  bool by_rows, interpreted;       /* rows can be computed apart; by the interpreter */
} Storage;

bool storage_bytes(Ctx *c, const Tensor *t, int64_t *n);     /* false: too many */
Storage storage_of(Module *m, const Tensor *t);              /* E0308 if its size overflows */
/* All of it for as long as it is needed, made on all threads if it has no value. */
typedef struct { const void *at; void *own; int64_t bytes; } StorageLoan;
StorageLoan storage_borrow(Module *m, const Storage *s);
void storage_give_back(const StorageLoan *l);
void storage_make(Module *m, const Storage *s, void *to);    /* what has no value: all rows, on all threads */
bool storage_fill(Module *m, const Storage *s, int64_t row, int64_t count, void *to);   /* by_rows, on any thread; false: no memory */
void storage_value(Module *m, Tensor *t);                    /* for texts: a constant that is made from others has bytes from now on */

/* With m->host: the stages one after the other, out[i] taking the row-major result of stage i; they load constants and each other's
 * results. false: a size is not known. */
bool storage_compute(Module *m, Stage *const *stages, int n, void *const *out);

#endif
