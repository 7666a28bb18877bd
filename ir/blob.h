/* blob.h - constants that are too large for a text. The text names their bytes by a hash, and the context knows what the hash stands
 * for: it printed it, or found it in a data file beside the text (frontend/text.c).
 *
 * A data file is one record behind the other: a head of 64 bytes (BLOB_MAGIC, the hash, the number of bytes; then zeros) and
 * the bytes, filled up with zeros to a multiple of 64. Numbers are of 64 bits, little endian. */
#ifndef DLC_BLOB_H
#define DLC_BLOB_H

#include "base.h"

#define BLOB_MAGIC "dlcblob"

uint64_t blob_note(Ctx *c, const void *bytes, size_t n);     /* its hash; the bytes are referenced, not copied */
const void *blob_find(Ctx *c, uint64_t hash, size_t n);      /* NULL: unknown, of another size, or not what the hash says */
int blob_count(const Ctx *c);
bool blob_store(const Ctx *c, int from, FILE *to);           /* records of all but the first `from` noted; false with errno */
bool blob_load(Ctx *c, const void *file, size_t n);          /* what a data file holds becomes known; false if it is none */

#endif
