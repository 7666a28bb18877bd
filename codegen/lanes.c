/* lanes.c - parts of vectors, and vectors across each other: rows to columns. */
#include "llvm.h"

Ref lanes_part(Emit *e, Ref v, int first, int n) {
  Ref mask[64];
  for (int i = 0; i < n; i++) mask[i] = LLVMConstInt(e->i32, (unsigned)(first + i), false);
  return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(mask, (unsigned)n), "");
}

/* a[0] b[0] a[1] b[1] ... of the lower or the higher halves. */
static Ref interleave(Emit *e, Ref a, Ref b, int high) {
  Ref mask[64];
  for (int i = 0; i < e->lanes; i++)
    mask[i] = LLVMConstInt(e->i32, (unsigned)(i / 2 + high * e->lanes / 2 + i % 2 * e->lanes), false);
  return LLVMBuildShuffleVector(e->b, a, b, LLVMConstVector(mask, (unsigned)e->lanes), "");
}

/* Each round interleaves rows with those half a square further down; as many as the number of rows can be halved. */
void lanes_transpose(Emit *e, Ref *row) {
  Ref next[64];
  for (int step = e->lanes; step > 1; step /= 2) {
    for (int i = 0; i < e->lanes; i++) next[i] = interleave(e, row[i / 2], row[i / 2 + e->lanes / 2], i % 2);
    memcpy(row, next, sizeof *row * (size_t)e->lanes);
  }
}
