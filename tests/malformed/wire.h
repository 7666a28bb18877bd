/* wire.h - writes protobuf bytes: ONNX files for the tests, right or wrong on purpose. */
#ifndef DLC_TEST_WIRE_H
#define DLC_TEST_WIRE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint8_t *b; size_t n, cap; } Wire;

static inline void wire_raw(Wire *w, const void *p, size_t n) {
  if (w->n + n > w->cap) w->b = realloc(w->b, w->cap = (w->n + n) * 2 + 64);
  if (n) memcpy(w->b + w->n, p, n);
  w->n += n;
}

static inline void wire_varint(Wire *w, uint64_t v) {
  do {
    uint8_t b = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
    wire_raw(w, &b, 1);
  } while (v >>= 7);
}

static inline void wire_int(Wire *w, int field, int64_t v) {
  wire_varint(w, (uint64_t)field << 3);
  wire_varint(w, (uint64_t)v);
}

static inline void wire_bytes(Wire *w, int field, const void *p, size_t n) {
  wire_varint(w, (uint64_t)field << 3 | 2);
  wire_varint(w, n);
  wire_raw(w, p, n);
}

static inline void wire_text(Wire *w, int field, const char *s) { wire_bytes(w, field, s, strlen(s)); }

static inline void wire_float(Wire *w, int field, float v) {
  wire_varint(w, (uint64_t)field << 3 | 5);
  wire_raw(w, &v, 4);
}

/* The message m as a field; m is emptied. */
static inline void wire_message(Wire *w, int field, Wire m) {
  wire_bytes(w, field, m.b, m.n);
  free(m.b);
}

/* ---- ONNX: names are lists separated by blanks, "-" stands for an empty name ---- */

static inline void wire_names(Wire *w, int field, const char *names) {
  char word[256];
  for (int n; sscanf(names, "%255s%n", word, &n) == 1; names += n) wire_text(w, field, strcmp(word, "-") ? word : "");
}

static inline Wire onnx_node(const char *op, const char *in, const char *out) {
  Wire w = {0};
  wire_names(&w, 1, in);
  wire_names(&w, 2, out);
  wire_text(&w, 4, op);
  return w;
}

static inline void attr_int(Wire *node, const char *name, int64_t v) {
  Wire a = {0};
  wire_text(&a, 1, name);
  wire_int(&a, 3, v);
  wire_int(&a, 20, 2);
  wire_message(node, 5, a);
}

static inline void attr_float(Wire *node, const char *name, float v) {
  Wire a = {0};
  wire_text(&a, 1, name);
  wire_float(&a, 2, v);
  wire_int(&a, 20, 1);
  wire_message(node, 5, a);
}

static inline void attr_text(Wire *node, const char *name, const char *v) {
  Wire a = {0};
  wire_text(&a, 1, name);
  wire_text(&a, 4, v);
  wire_int(&a, 20, 3);
  wire_message(node, 5, a);
}

static inline void attr_ints(Wire *node, const char *name, int n, ...) {
  Wire a = {0};
  va_list v;
  va_start(v, n);
  wire_text(&a, 1, name);
  for (int i = 0; i < n; i++) wire_int(&a, 8, va_arg(v, int));
  va_end(v);
  wire_int(&a, 20, 7);
  wire_message(node, 5, a);
}

static inline void attr_floats(Wire *node, const char *name, int n, ...) {
  Wire a = {0};
  va_list v;
  va_start(v, n);
  wire_text(&a, 1, name);
  for (int i = 0; i < n; i++) wire_float(&a, 7, (float)va_arg(v, double));
  va_end(v);
  wire_int(&a, 20, 6);
  wire_message(node, 5, a);
}

static inline void attr_message(Wire *node, const char *name, int field, int type, Wire m) {
  Wire a = {0};
  wire_text(&a, 1, name);
  wire_message(&a, field, m);
  wire_int(&a, 20, type);
  wire_message(node, 5, a);
}

static inline void attr_ref(Wire *node, const char *name, const char *of, int type) {
  Wire a = {0};
  wire_text(&a, 1, name);
  wire_text(&a, 21, of);
  wire_int(&a, 20, type);
  wire_message(node, 5, a);
}

/* A tensor's name, element type and dims ("2x3", "" for a scalar) without data. */
static inline Wire onnx_tensor(const char *name, int type, const char *dims) {
  Wire w = {0};
  for (const char *p = dims; *p; p += *p == 'x') wire_int(&w, 1, strtoll(p, (char **)&p, 10));
  wire_int(&w, 2, type);
  wire_text(&w, 8, name);
  return w;
}

/* A graph's input or output: dims as above, words for named dimensions, "?" for unknown ones; NULL: no shape. */
static inline Wire onnx_value(const char *name, int type, const char *dims) {
  Wire w = {0}, shape = {0}, tensor = {0}, t = {0};
  for (const char *p = dims ? dims : ""; *p; p += *p == 'x') {
    Wire d = {0};
    char word[64];
    size_t n = strcspn(p, "x");
    snprintf(word, sizeof word, "%.*s", (int)n, p);
    if (strchr("-0123456789", *word)) wire_int(&d, 1, strtoll(word, NULL, 10));
    else if (*word != '?') wire_text(&d, 2, word);
    wire_message(&shape, 1, d);
    p += n;
  }
  wire_int(&tensor, 1, type);
  if (dims) wire_message(&tensor, 2, shape);
  wire_message(&t, 1, tensor);
  wire_text(&w, 1, name);
  wire_message(&w, 2, t);
  return w;
}

/* A whole model around a graph; opset of the standard operators, 0: none said. */
static inline Wire onnx_model(Wire graph, int opset) {
  Wire w = {0}, o = {0};
  wire_int(&w, 1, 8);
  wire_text(&w, 2, "test");
  wire_int(&o, 2, opset);
  if (opset) wire_message(&w, 8, o);
  else free(o.b);
  wire_message(&w, 7, graph);
  return w;
}

#endif
