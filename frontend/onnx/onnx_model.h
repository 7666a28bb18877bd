/* onnx_model.h - a model as read: ONNX's messages as plain structs, and what the parts of the importer share.
 *
 * Strings and lists point into what the reader unpacked, which lives until the import is over; what stays is interned
 * or copied. Counts fit an int: the scan bounds them. */
#ifndef DLC_ONNX_MODEL_H
#define DLC_ONNX_MODEL_H

#include "onnx.h"

typedef struct OnnxGraph OnnxGraph;
typedef struct OnnxBytes { const uint8_t *bytes; size_t n; } OnnxBytes;        /* bytes NULL: absent */
typedef struct OnnxEntry { const char *key, *value; } OnnxEntry;

typedef struct OnnxTensor {        /* data: in raw or floats or ... or elsewhere (external) */
  const char *name;
  int type;                        /* code of TensorProto.DataType */
  const int64_t *dims; int ndims;
  OnnxBytes raw, floats, doubles;  /* elements in memory order, maybe unaligned in the mapped file */
  const int32_t *ints32; size_t nints32;
  const int64_t *ints64; size_t nints64;
  const uint64_t *uints64; size_t nuints64;
  int nstrings;
  bool external, segment;
  const OnnxEntry *entries; int nentries;    /* external_data */
} OnnxTensor;

/* ONNX's codes of attribute types, as far as dlc has them; others keep their number. */
enum { ONNX_FLOAT = 1, ONNX_INT, ONNX_STRING, ONNX_TENSOR, ONNX_GRAPH, ONNX_FLOATS, ONNX_INTS, ONNX_STRINGS };

typedef struct OnnxAttr {
  const char *name, *ref;          /* ref: the attribute of the calling node that it stands for; "" = none */
  int type;
  float f; int64_t i; OnnxBytes s;
  const OnnxTensor *t;
  const OnnxGraph *g;
  const void *scope;               /* where g's names are looked up; NULL: where the node stands */
  const float *floats; const int64_t *ints; const OnnxBytes *strings; int n;
} OnnxAttr;

typedef struct OnnxNode {
  const char *name, *op, *domain, *overload;
  const char *const *in; int nin;
  const char *const *out; int nout;
  const OnnxAttr *attrs; int nattr;
} OnnxNode;

typedef struct OnnxDim { int64_t value; const char *param; } OnnxDim;      /* value < 0: unknown; param "" = no name */

typedef struct OnnxValue {         /* a graph's input or output */
  const char *name;
  const char *kind;                /* NULL: a tensor or not said; else "a sequence", "a map" ... */
  int elem;                        /* code of the element type; 0 = not said */
  bool has_shape;
  const OnnxDim *dims; int ndims;
} OnnxValue;

struct OnnxGraph {
  const char *name;
  const OnnxNode *nodes; int nnodes;
  const OnnxTensor *inits; int ninits;
  const OnnxValue *in; int nin;
  const OnnxValue *out; int nout;
  int nsparse;
};

typedef struct OnnxFunction {
  const char *domain, *name, *overload;
  const char *const *in; int nin;
  const char *const *out; int nout;
  const OnnxAttr *defaults; int ndefaults;
  const OnnxNode *nodes; int nnodes;
  const OnnxOpset *opsets; int nopsets;
} OnnxFunction;

typedef struct OnnxModel {
  int64_t ir_version;
  const char *producer, *producer_version;
  const OnnxOpset *opsets; int nopsets;
  const OnnxGraph *graph;          /* NULL: the file has none */
  const OnnxFunction *functions; int nfunctions;
  void *unpacked;                  /* the reader's */
} OnnxModel;

/* ---- reader.c ---- */
OnnxModel *onnx_read_model(const Source *s);
OnnxTensor *onnx_read_tensor_message(const Source *s);
void onnx_model_release(OnnxModel *m);       /* its strings and lists are gone */

/* ---- tensor.c: the elements of a stored tensor ---- */
typedef struct OnnxFiles { const Source *model; VEC(Source *) external; } OnnxFiles;   /* external: by path */
const char *onnx_type_name(Ctx *c, int code);                /* "float16" */
/* dtype, dims and bytes, aligned to nothing; name for messages. E0303 rank, E0304 dims, E0305 data, E0306 external, E0308 size,
 * E0404 type. */
OnnxArray onnx_tensor_data(OnnxFiles *f, const OnnxTensor *t, const char *name);

/* ---- external.c ---- */
const uint8_t *onnx_external_data(OnnxFiles *f, const OnnxTensor *t, const char *label, size_t bytes,
                                  const Source **from);

#endif
