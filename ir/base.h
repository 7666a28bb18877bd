/* base.h - the bottom of dlc: the compile context, its arena, growable arrays, maps and interned strings.
 *
 * One Ctx per compile owns every byte the compiler allocates; there is no free() in passes. User errors are recorded in
 * the Ctx and unwind by one longjmp to frontend/compile.c (see diag.h). Nothing in ir/ or passes/ has global state.
 */
#ifndef DLC_BASE_H
#define DLC_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct Arena Arena;
typedef struct Expr Expr;
typedef struct Sym Sym;
typedef struct Tensor Tensor;
typedef struct Node Node;
typedef struct Graph Graph;
typedef struct Op Op;
typedef struct Stmt Stmt;
typedef struct Kernel Kernel;

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define COUNT(array) (int)(sizeof(array) / sizeof((array)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- context (ctx.c) ---- */
Ctx *ctx_new(void);
void ctx_free(Ctx *c);                                       /* runs the deferred closers (last first), then frees the arena */
void ctx_defer(Ctx *c, void (*close)(void *), void *object); /* files, maps, LLVM contexts: closed however the compile ends */

/* ---- arena (ctx.c): zeroed, 16-byte aligned memory that lives as long as the Ctx ---- */
void *ctx_alloc(Ctx *c, size_t bytes);                       /* diag_fail(E0601) when memory is exhausted */
void *ctx_copy(Ctx *c, const void *from, size_t bytes);
char *ctx_printf(Ctx *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
const char *ctx_intern(Ctx *c, const char *s);               /* equal strings give equal pointers */
const char *ctx_intern_n(Ctx *c, const char *s, size_t n);
int ctx_serial(Ctx *c);                                      /* 1, 2, 3 ...: ids of what is made in this Ctx (tensors) */
/* A file's first n bytes, read-only, until the Ctx goes; NULL with errno. ctx_release: what lies there is not needed soon, its pages
 * may go (memory from elsewhere is left alone). */
const void *ctx_map(Ctx *c, int fd, size_t n);
void ctx_release(const Ctx *c, const void *from, size_t n);
#define NEW(c, T) ((T *)ctx_alloc(c, sizeof(T)))
#define NEW_ARRAY(c, T, n) ((T *)ctx_alloc(c, sizeof(T) * (size_t)(n)))

/* ---- growable array in the arena:  VEC(Node *) nodes;  vec_push(c, &nodes, n);  nodes.v[i], nodes.n ---- */
#define VEC(T) struct { T *v; int n, cap; }
#define vec_push(c, vec, item) \
  ((vec)->n == (vec)->cap ? (void)((vec)->v = vec_grow((c), (vec)->v, sizeof(*(vec)->v), (vec)->n, &(vec)->cap)) : (void)0, \
   (void)((vec)->v[(vec)->n++] = (item)))
void *vec_grow(Ctx *c, void *old, size_t size, int n, int *cap);

/* ---- map from 64-bit key (a number, an interned string or a pointer) to pointer; iteration is in insertion order ---- */
typedef struct { uint64_t key; void *value; } MapEntry;
typedef struct { Ctx *ctx; VEC(MapEntry) entries; int32_t *slots; int nslots; } Map;
Map map_new(Ctx *c);
void *map_get(const Map *m, uint64_t key);                   /* NULL if absent */
void map_set(Map *m, uint64_t key, void *value);             /* replaces */
#define KEY(pointer) ((uint64_t)(uintptr_t)(pointer))

/* ---- growing text (str.c), used by printers ---- */
typedef struct { Ctx *ctx; char *s; size_t n, cap; } Str;
Str str_new(Ctx *c);
void str_add(Str *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- checked arithmetic: false on overflow ---- */
static inline bool mul_ok(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool add_ok(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline int64_t floor_mod(int64_t a, int64_t b) { return a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0); }
static inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

#endif
