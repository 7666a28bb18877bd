/* source.h - a file of the user's as bytes: mapped, recognised where it is something else, hashed. */
#ifndef DLC_ONNX_SOURCE_H
#define DLC_ONNX_SOURCE_H

#include "../../ir/diag.h"

typedef struct Source {
  Ctx *c;
  const char *path;                /* as the user wrote it */
  bool data;                       /* a file of tensor data: every error is E0504 and names the file */
  const uint8_t *bytes;            /* mapped, or in memory for pipes; until the context ends */
  size_t size;
  void *owned;                     /* what to free; NULL: nothing */
} Source;

Source *source_open(Ctx *c, const char *path, bool data);              /* "-": standard input; E0501 */
Source *source_map(Ctx *c, int fd, const char *path, size_t size); /* a regular file's first size bytes; closes fd */
/* A file that s names, beneath its folder and reached by no link; label: what the message says names it. E0306. (external.c) */
Source *source_beneath(const Source *s, const char *label, const char *path);
void source_check_magic(const Source *s);                    /* E0302 if the first bytes are those of something else */
void source_sha256(const Source *s, char hex[65]);
_Noreturn void source_fail(const Source *s, DiagCode code, const char *hint, const char *fmt, ...) PRINTF_LIKE(4, 5);

#endif
