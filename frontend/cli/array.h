/* array.h - arrays in memory on their way into and out of a model, and their files. */
#ifndef DLC_ARRAY_H
#define DLC_ARRAY_H

#include "../../ir/graph.h"

typedef struct Array {
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];
  void *data;                      /* row-major */
} Array;

int64_t array_count(const Array *a);                         /* elements */
size_t array_bytes(const Array *a);
void array_allocate(Ctx *c, Array *a);                       /* zeroed data; E0308 if the size overflows */
double array_element(const Array *a, int64_t i);
const char *array_type_text(Ctx *c, const Array *a);         /* "f32[2,4]" */

/* .npy: versions 1 to 3, every element type of dlc, C order, little endian; else E0504. bf16 is NumPy's V2. */
Array npy_read(Ctx *c, const char *path);
void npy_write(Ctx *c, const char *path, const Array *a);

/* .pb: an ONNX TensorProto, as stored test data are. Some lack leading dimensions of 1: they get them, up to rank. */
Array array_read_pb(Ctx *c, const char *path, int rank);

#endif
