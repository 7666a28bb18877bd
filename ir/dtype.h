/* dtype.h - element types; everything about one is its row in dtype.def. */
#ifndef DLC_DTYPE_H
#define DLC_DTYPE_H

#include "base.h"

typedef enum {
#define DTYPE(id, text, bits, kind, onnx, acc, ctype, numpy, dlpack) id,
#include "dtype.def"
#undef DTYPE
  DT_COUNT, DT_NONE = DT_COUNT
} DType;

typedef struct { const char *name; int bits; char kind; int onnx; DType acc; const char *ctype, *numpy; int dlpack; } DTypeInfo;
extern const DTypeInfo dtype_info[DT_COUNT];

DType dtype_from_onnx(int code);                 /* DT_NONE if dlc has no such type */
DType dtype_from_name(const char *text);
static inline int dtype_bytes(DType t) { return dtype_info[t].bits / 8; }
static inline bool dtype_is_float(DType t) { return dtype_info[t].kind == 'f'; }
static inline bool dtype_is_int(DType t) { return dtype_info[t].kind == 'i' || dtype_info[t].kind == 'u'; }

/* One element in memory, read and written as the widest type of its kind; f16 and bf16 round to nearest even. */
double dtype_load_f(DType t, const void *p);
int64_t dtype_load_i(DType t, const void *p);    /* floats truncate */
void dtype_store_f(DType t, void *p, double v);
void dtype_store_i(DType t, void *p, int64_t v);

#endif
