/* scan.h - a bounded look at protobuf bytes before protobuf-c gets any of them.
 *
 * protobuf-c recurses as deep as a file tells it to and allocates a hundred times a file's size for many tiny messages,
 * so nothing that has not passed here may reach it. The scan is iterative and linear. It also prepares what protobuf-c
 * will read: a copy of the bytes without the fields that the schema does not declare, and with every large piece of
 * tensor data replaced by a note of where in the file it lies, so that weights are never copied through protobuf-c.
 */
#ifndef DLC_ONNX_SCAN_H
#define DLC_ONNX_SCAN_H

#include "source.h"

typedef enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 } WireType;
typedef enum { WIRE_NUMBER, WIRE_BYTES, WIRE_TEXT, WIRE_MESSAGE } WireKind;

typedef struct WireMessage WireMessage;
typedef struct WireField {
  const char *name;
  uint32_t number;
  WireKind kind;
  WireType type;                   /* of one element */
  bool repeated;                   /* numbers: packed or not, as the writer chose */
  bool bulk;                       /* large ones are cut out of the image */
  const WireMessage *message;      /* WIRE_MESSAGE */
} WireField;

struct WireMessage {
  const char *name;
  size_t cost;                     /* bytes of memory that one takes when unpacked, without its fields' data */
  int nfields;
  WireField *fields;               /* by rising number; at most 32 */
};

enum { WIRE_DEPTH = 64, WIRE_BULK = 64, WIRE_PIECE = 15, WIRE_PIECE_BYTES = 17 };      /* PIECE: see onnx.proto */

typedef struct { uint8_t *bytes; size_t size; } WireImage;

/* Checks the file as one message of kind root and makes its image, which is never longer. Errors, all with the offset:
 * E0301 broken wire format, E0303 too deep or too many parts, E0304 a field that may stand once stands twice, or a zero
 * byte in text. */
WireImage *wire_scan(const Source *src, const WireMessage *root);
void wire_image_free(WireImage *image);      /* early; otherwise it goes with the context */

#endif
