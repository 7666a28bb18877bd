/* onnx.h - ONNX files: a model becomes a Graph, a stored tensor becomes an array.
 *
 * A file is mapped, its wire format checked (scan.h), then read. Older operator versions are rewritten to the one form
 * that the IR knows (onnx_upgrade.def), functions are inlined, attributes and operand counts are checked against the
 * operators' rows. All problems of a model are reported in one run. Weights stay in the mapped file where they are
 * aligned.
 */
#ifndef DLC_ONNX_H
#define DLC_ONNX_H

#include "../../passes/module.h"
#include "source.h"

typedef struct OnnxOpset { const char *domain; int64_t version; } OnnxOpset;   /* domain "" = the standard operators */

typedef struct OnnxInfo {          /* what the summary tells of the model */
  int64_t ir_version;
  const char *producer, *producer_version;             /* "" if not given */
  const OnnxOpset *opsets; int nopsets;
  int nodes;                       /* of the top graph, as in the file */
  int64_t params;                  /* elements of all constants */
  int64_t bytes;                   /* of the file and its external data */
  char sha256[65];                 /* of the file, hex; filled in if OnnxOptions.hash */
} OnnxInfo;

typedef struct OnnxOptions {       /* NULL: nothing is fixed */
  const DimBound *dims; int ndims;           /* --dim */
  const ShapeOption *shapes; int nshapes;    /* --shape: 1x3x224x224, "?" leaves a dimension as it is */
  bool hash;
  OnnxInfo *info;                  /* filled in; may be NULL */
} OnnxOptions;

/* The model at path ("-": standard input). Unwinds with E03xx (malformed), E04xx (unsupported), E0501 (not readable),
 * E0202 (a dimension or shape option that does not fit). The file stays mapped until the context ends: constants point
 * into it. */
Graph *onnx_import(Ctx *c, const char *path, const OnnxOptions *o);
Graph *onnx_import_source(const Source *s, const OnnxOptions *o);      /* of a file that is open already */

typedef struct OnnxArray {
  const char *name;                /* "" if the file gives none */
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];
  const void *data;                /* row-major; lives as long as the context */
  size_t bytes;
} OnnxArray;

OnnxArray onnx_read_tensor(Ctx *c, const char *path);  /* a TensorProto file (input_0.pb), aligned; E0501, E0504 */

#endif
