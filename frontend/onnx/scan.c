/* scan.c - see scan.h. One loop over the bytes with a stack of the messages that are open.
 *
 * In the image a message's length is written with as many bytes as in the file (varints may be padded), so that it can
 * be filled in when the message ends; what is cut out only makes it smaller. */
#include "scan.h"

#include <stdlib.h>

enum { VARINT_LONGEST = 10, LENGTH_LONGEST = 5, FIELD_LARGEST = (1 << 29) - 1 };

typedef struct {
  const WireMessage *message;
  const WireField *via;            /* the field that holds it; NULL at the top */
  size_t end;                      /* in the file */
  size_t length_at;                /* in the image: its length, of width bytes */
  int width;
  uint32_t seen;                   /* fields, by position in message->fields */
} Frame;

typedef struct {
  Ctx *c;
  const Source *src;
  const uint8_t *in;
  size_t size, pos;
  uint8_t *out;                    /* the image, nout bytes so far */
  size_t nout;
  uint64_t cost, budget;
  Frame stack[WIRE_DEPTH];
  int depth;
} Scan;

static Frame *top(Scan *s) { return &s->stack[s->depth - 1]; }

/* f is NULL for a field that the schema does not declare; number 0 stands for a field's number itself. */
static const char *field_text(Scan *s, const WireField *f, uint32_t number) {
  if (!number) return "the number of a field";
  return f ? ctx_printf(s->c, "field %s (%u)", f->name, number)
           : ctx_printf(s->c, "field %u of %s", number, top(s)->message->name);
}

/* want bytes of the field are needed at pos, which the open message does not have. */
static _Noreturn void fail_short(Scan *s, const WireField *f, uint32_t number, uint64_t want) {
  uint64_t left = s->size - s->pos;
  if (want > left)
    source_fail(s->src, E0301,
                ctx_printf(s->c, "the file was cut short or damaged; expected size is at least %llu bytes",
                           (unsigned long long)(s->pos + want)),
                "truncated at byte %zu: %s wants %llu bytes, %llu are left", s->size, field_text(s, f, number),
                (unsigned long long)want, (unsigned long long)left);
  source_fail(s->src, E0301, NULL, "corrupt at byte %zu: %s wants %llu bytes, %llu are left in its %s", s->pos,
              field_text(s, f, number), (unsigned long long)want, (unsigned long long)(top(s)->end - s->pos),
              top(s)->message->name);
}

/* A varint of at most `longest` bytes at *at, which moves behind it. */
static uint64_t read_varint(Scan *s, size_t *at, size_t end, int longest, const WireField *f, uint32_t number) {
  uint64_t v = 0;
  for (int i = 0; i < longest; i++) {
    if (*at + (size_t)i >= end) {
      const char *kind = end == s->size ? "truncated" : "corrupt";
      source_fail(s->src, E0301, NULL, "%s at byte %zu: %s wants at least %d bytes, %d are left", kind, *at,
                field_text(s, f, number), i + 1, i);
    }
    uint8_t b = s->in[*at + (size_t)i];
    v |= (uint64_t)(b & 0x7f) << (7 * i);
    if (b < 0x80) {
      *at += (size_t)i + 1;
      return v;
    }
  }
  source_fail(s->src, E0301, NULL, "corrupt at byte %zu: %s is longer than %d bytes", *at, field_text(s, f, number),
              longest);
}

static void put(Scan *s, const void *from, size_t n) {
  memcpy(s->out + s->nout, from, n);
  s->nout += n;
}

static void put_varint(Scan *s, uint64_t v, int width) {     /* width 0: as short as it goes */
  for (int i = 1; width ? i < width : v >= 0x80; i++, v >>= 7) s->out[s->nout++] = (uint8_t)(v | 0x80);
  s->out[s->nout++] = (uint8_t)v;
}

static void put_tag(Scan *s, uint32_t number, WireType type) { put_varint(s, (uint64_t)number << 3 | type, 0); }

static int find_field(const WireMessage *m, uint32_t number) {
  for (int i = 0; i < m->nfields && m->fields[i].number <= number; i++)
    if (m->fields[i].number == number) return i;
  return -1;
}

static void spend(Scan *s, uint64_t cost) {
  s->cost += cost;
  if (s->cost > s->budget)
    source_fail(s->src, E0303, NULL, "too many parts: by byte %zu of %zu they take more than %llu MiB of memory",
                s->pos, s->size, (unsigned long long)(s->budget >> 20));
}

static void open_message(Scan *s, const WireMessage *m, const WireField *via, size_t end, int width) {
  if (s->depth == WIRE_DEPTH)
    source_fail(s->src, E0303, NULL, "nested too deeply: at byte %zu stand more than %d messages inside each other",
                s->pos, WIRE_DEPTH);
  spend(s, m->cost);
  s->stack[s->depth++] = (Frame){.message = m, .via = via, .end = end, .length_at = s->nout, .width = width};
  s->nout += (size_t)width;
}

static void close_message(Scan *s) {
  Frame f = s->stack[--s->depth];
  if (!f.width) return;
  size_t end = s->nout;
  s->nout = f.length_at;
  put_varint(s, end - f.length_at - (size_t)f.width, f.width);
  s->nout = end;
}

static void check_once(Scan *s, int i, size_t tag_at) {
  const WireField *f = &top(s)->message->fields[i];
  if (!f->repeated && top(s)->seen >> i & 1)
    source_fail(s->src, E0304, NULL, "field %s (%u) of %s stands a second time, at byte %zu", f->name, f->number,
              top(s)->message->name, tag_at);
  top(s)->seen |= 1u << i;
}

static void check_packed(Scan *s, const WireField *f, size_t end) {
  size_t n = end - s->pos, item = f->type == WIRE_FIXED64 ? 8 : 4;
  if (f->type == WIRE_VARINT) {
    for (size_t at = s->pos; at < end;) read_varint(s, &at, end, VARINT_LONGEST, f, f->number);
  } else if (n % item) {
    source_fail(s->src, E0301, NULL, "corrupt at byte %zu: field %s (%u) has %zu bytes, no multiple of %zu", s->pos,
                f->name, f->number, n, item);
  }
}

/* Puts the note of where the data lies in the place of the data. */
static void cut(Scan *s, const WireField *f, size_t n) {
  uint8_t piece[WIRE_PIECE_BYTES] = {(uint8_t)f->number};
  uint64_t place[2] = {s->pos, n};
  memcpy(piece + 1, place, sizeof place);
  put_tag(s, WIRE_PIECE, WIRE_LENGTH);
  put_varint(s, sizeof piece, 0);
  put(s, piece, sizeof piece);
}

/* A length and what it measures: bytes, text, packed numbers or a message. */
static void scan_length(Scan *s, const WireField *f, uint32_t number) {
  size_t at = s->pos, end = top(s)->end;
  uint64_t n = read_varint(s, &s->pos, end, LENGTH_LONGEST, f, number);
  int width = (int)(s->pos - at);
  if (n > end - s->pos) fail_short(s, f, number, n);
  if (f && f->kind == WIRE_MESSAGE) {
    put_tag(s, number, WIRE_LENGTH);
    open_message(s, f->message, f, s->pos + n, width);
    return;
  }
  if (f && f->kind == WIRE_NUMBER) check_packed(s, f, s->pos + n);
  if (f && f->kind == WIRE_TEXT && memchr(s->in + s->pos, 0, n))
    source_fail(s->src, E0304, NULL, "field %s (%u) at byte %zu holds a zero byte", f->name, number, s->pos);
  if (f && f->kind != WIRE_NUMBER) spend(s, 40);
  if (f && f->bulk && n >= WIRE_BULK) {
    cut(s, f, n);
  } else if (f) {
    put_tag(s, number, WIRE_LENGTH);
    put_varint(s, n, 0);
    put(s, s->in + s->pos, n);
  }
  s->pos += n;
}

static void scan_number(Scan *s, const WireField *f, uint32_t number, WireType type) {
  size_t at = s->pos, n = type == WIRE_FIXED64 ? 8 : 4;
  if (type == WIRE_VARINT) {
    read_varint(s, &s->pos, top(s)->end, VARINT_LONGEST, f, number);
  } else {
    if (n > top(s)->end - at) fail_short(s, f, number, n);
    s->pos += n;
  }
  if (!f) return;
  if (f->repeated) spend(s, 16);
  put_tag(s, number, type);
  put(s, s->in + at, s->pos - at);
}

static void scan_field(Scan *s) {
  size_t at = s->pos;
  uint64_t tag = read_varint(s, &s->pos, top(s)->end, LENGTH_LONGEST, NULL, 0);
  WireType type = (WireType)(tag & 7);
  if (tag >> 3 == 0 || tag >> 3 > FIELD_LARGEST || (type > WIRE_LENGTH && type != WIRE_FIXED32))
    source_fail(s->src, E0301, NULL, "corrupt at byte %zu: %llu is no field of %s (number %llu, wire type %u)", at,
              (unsigned long long)tag, top(s)->message->name, (unsigned long long)(tag >> 3), (unsigned)type);
  uint32_t number = (uint32_t)(tag >> 3);
  int i = find_field(top(s)->message, number);
  const WireField *f = i < 0 ? NULL : &top(s)->message->fields[i];
  bool packed = f && f->kind == WIRE_NUMBER && f->repeated && type == WIRE_LENGTH;
  if (f && type != f->type && !packed)
    source_fail(s->src, E0301, NULL, "corrupt at byte %zu: field %s (%u) of %s has wire type %u, not %u", at, f->name,
                number, top(s)->message->name, (unsigned)type, (unsigned)f->type);
  if (f) check_once(s, i, at);
  if (type == WIRE_LENGTH) scan_length(s, f, number);
  else scan_number(s, f, number, type);
}

void wire_image_free(WireImage *image) {
  free(image->bytes);
  image->bytes = NULL;
}

static void image_close(void *image) { wire_image_free(image); }

WireImage *wire_scan(const Source *src, const WireMessage *root) {
  WireImage *image = NEW(src->c, WireImage);
  Scan s = {.c = src->c, .src = src, .in = src->bytes, .size = src->size};
  s.budget = ((uint64_t)256 << 20) + 16 * (uint64_t)src->size;
  image->bytes = s.out = malloc(src->size + 1);    /* pages that are not written cost nothing */
  if (!s.out) source_fail(src, E0601, NULL, "out of memory (asked for %zu bytes)", src->size);
  ctx_defer(src->c, image_close, image);
  open_message(&s, root, NULL, src->size, 0);
  while (s.depth) {
    if (s.pos == top(&s)->end) close_message(&s);
    else scan_field(&s);
  }
  image->size = s.nout;
  return image;
}
