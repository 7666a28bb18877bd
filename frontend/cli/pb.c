/* pb.c - stored test data: ONNX TensorProto files. */
#include "array.h"
#include "../onnx/onnx.h"

Array array_read_pb(Ctx *c, const char *path) {
  OnnxArray t = onnx_read_tensor(c, path);
  Array a = {.dtype = t.dtype, .rank = t.rank};
  memcpy(a.dims, t.dims, sizeof a.dims);
  array_allocate(c, &a);
  if (t.bytes) memcpy(a.data, t.data, MIN(t.bytes, array_bytes(&a)));
  return a;
}
