/* pb.c - stored test data: ONNX TensorProto files. */
#include "array.h"
#include "../onnx/onnx.h"

Array array_read_pb(Ctx *c, const char *path, int rank) {
  OnnxArray t = onnx_read_tensor(c, path);
  int ones = MAX(rank - t.rank, 0);
  Array a = {.dtype = t.dtype, .rank = t.rank + ones};
  for (int i = 0; i < a.rank; i++) a.dims[i] = i < ones ? 1 : t.dims[i - ones];
  array_allocate(c, &a);
  if (t.bytes) memcpy(a.data, t.data, MIN(t.bytes, array_bytes(&a)));
  return a;
}
