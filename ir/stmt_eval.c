/* stmt_eval.c - interprets a kernel over real memory: the reference that schedules and back ends are tested against.
 *
 * serial loop. The meaning of an operation is expr_apply's; the rows of hot_ops only repeat it faster. A select jumps
 * over the side that is not chosen, so that a guarded load is never touched. A shared subexpression is computed once:
 * directly where control certainly passes, else as a thunk, computed when first needed and remembered until the
 * statement is done. Every index is checked against the tensor's storage, and fresh buffers hold NaN or -1: wrong
 * schedules do not go unseen.
 */
#include "diag.h"
#include "stmt.h"

/* HOT(instruction, operation, operand type, result): a and b are Scalars. f32 is held as double; one operation on two
 * f32 values, rounded to double and then to f32, is correctly rounded. */
#define HOT_OPS \
  HOT(T_ADD_I64, EX_ADD, DT_I64, .i = (int64_t)((uint64_t)a.i + (uint64_t)b.i)) \
  HOT(T_SUB_I64, EX_SUB, DT_I64, .i = (int64_t)((uint64_t)a.i - (uint64_t)b.i)) \
  HOT(T_MUL_I64, EX_MUL, DT_I64, .i = (int64_t)((uint64_t)a.i * (uint64_t)b.i)) \
  HOT(T_LT_I64, EX_LT, DT_I64, .i = a.i < b.i) \
  HOT(T_LE_I64, EX_LE, DT_I64, .i = a.i <= b.i) \
  HOT(T_AND_BOOL, EX_AND, DT_BOOL, .i = a.i & b.i) \
  HOT(T_ADD_F32, EX_ADD, DT_F32, .f = (float)(a.f + b.f)) \
  HOT(T_SUB_F32, EX_SUB, DT_F32, .f = (float)(a.f - b.f)) \
  HOT(T_MUL_F32, EX_MUL, DT_F32, .f = (float)(a.f * b.f))

typedef enum {
#define HOT(instr, op, type, result) instr,
  HOT_OPS
#undef HOT
  T_COUNT_HOT, T_APPLY = T_COUNT_HOT, T_FETCH, T_MOVE, T_JUMP, T_JUMP_IF_NOT, T_NEED, T_RETURN
} TapeOp;

static const struct { TapeOp instr; ExprOp op; DType type; } hot_ops[] = {
#define HOT(instr, op, type, result) { instr, op, type },
  HOT_OPS
#undef HOT
};

typedef struct { const Tensor *tensor; char *bytes; int64_t elements, capacity; } Buffer;

typedef struct {
  TapeOp op;
  int to, a, b, c;                 /* registers; JUMP*: to = the next instruction; NEED: a = the thunk */
  union { const Expr *node; Buffer *buffer; } u;
} Instr;

typedef struct { const Expr *e; int start, reg; int64_t epoch; } Thunk;
typedef struct { VEC(Instr) code; VEC(Thunk) thunks; } Tape;   /* starts at 0; the thunks' code follows */

typedef struct Code {
  const Stmt *s;
  Tape tape;                       /* FOR: extent, STORE: index and value, IF: condition, ALLOC: elements */
  int a, b;                        /* registers of its results */
  int sym;                         /* FOR: register of the loop variable */
  Buffer *buffer;
  struct Code *body[2], **seq;
} Code;

typedef struct {
  Ctx *c;
  const Kernel *kernel;
  Map buffers;                     /* Tensor* -> Buffer* */
  Map fixed;                       /* Expr* -> register + 1: constants and bound symbols */
  VEC(Scalar) regs;
  int64_t epoch;
  int threads;                     /* block, thread and parallel loops around */
} Machine;

/* ---- expressions to tapes ---- */

typedef struct {
  Machine *m;
  Tape *tape;
  Map uses;                        /* Expr* -> number of operands that are it */
  Map have;                        /* Expr* -> register + 1 where it is surely computed by now */
  VEC(const Expr *) log;           /* what was put into `have`, to take it out again */
  Map thunk_of;                    /* Expr* -> thunk + 1 */
  bool conditional;                /* the code being made may be jumped over */
} Maker;

static intptr_t get_number(const Map *m, const Expr *e) { return (intptr_t)map_get(m, KEY(e)); }
static void set_number(Map *m, const Expr *e, intptr_t v) { map_set(m, KEY(e), (void *)v); }

static int new_reg(Machine *m) {
  vec_push(m->c, &m->regs, (Scalar){ 0 });
  return m->regs.n - 1;
}

static int add(Maker *k, Instr i) {
  vec_push(k->m->c, &k->tape->code, i);
  return k->tape->code.n - 1;
}

static void count_uses(const Expr *e, void *user) {
  Maker *k = user;
  for (int i = 0; i < e->n; i++) set_number(&k->uses, e->a[i], get_number(&k->uses, e->a[i]) + 1);
}

static Buffer *buffer_of(Machine *m, const Tensor *t) {
  Buffer *b = map_get(&m->buffers, KEY(t));
  if (!b) diag_bug(m->c, "kernel '%s': '%s' is used out of its scope", m->kernel->name, t->name);
  return b;
}

static int make_expr(Maker *k, const Expr *e);

static void leave_branch(Maker *k, int log_from) {
  while (k->log.n > log_from) set_number(&k->have, k->log.v[--k->log.n], 0);
}

static int make_select(Maker *k, const Expr *e) {
  bool outer = k->conditional;
  int cond = make_expr(k, e->a[0]), to = new_reg(k->m), log = k->log.n;
  int skip = add(k, (Instr){ .op = T_JUMP_IF_NOT, .a = cond });
  k->conditional = true;
  int value = make_expr(k, e->a[1]);
  add(k, (Instr){ .op = T_MOVE, .to = to, .a = value });
  leave_branch(k, log);
  int end = add(k, (Instr){ .op = T_JUMP });
  k->tape->code.v[skip].to = k->tape->code.n;
  value = make_expr(k, e->a[2]);
  add(k, (Instr){ .op = T_MOVE, .to = to, .a = value });
  leave_branch(k, log);
  k->tape->code.v[end].to = k->tape->code.n;
  k->conditional = outer;
  return to;
}

static TapeOp hot_op(const Expr *e) {
  for (int i = 0; i < COUNT(hot_ops); i++)
    if (hot_ops[i].op == (ExprOp)e->op && hot_ops[i].type == (DType)e->a[0]->dtype) return hot_ops[i].instr;
  return T_APPLY;
}

static int make_apply(Maker *k, const Expr *e) {
  int reg[3] = { 0 };
  if (e->n < 1 || e->n > 3)
    diag_bug(k->m->c, "kernel '%s': an operation of %d operands is left: %s", k->m->kernel->name, e->n,
             expr_text(k->m->c, e));
  for (int i = 0; i < e->n; i++) reg[i] = make_expr(k, e->a[i]);
  int to = new_reg(k->m);
  add(k, (Instr){ .op = hot_op(e), .to = to, .a = reg[0], .b = reg[1], .c = reg[2], .u.node = e });
  return to;
}

static int make_node(Maker *k, const Expr *e) {
  if (e->op == EX_SELECT) return make_select(k, e);
  if (e->op == EX_LOAD || e->op == EX_REDUCE || e->op == EX_SYM)
    diag_bug(k->m->c, "kernel '%s': not a lowered expression: %s", k->m->kernel->name, expr_text(k->m->c, e));
  if (e->op != EX_FETCH) return make_apply(k, e);
  int index = make_expr(k, e->a[0]), to = new_reg(k->m);
  add(k, (Instr){ .op = T_FETCH, .to = to, .a = index, .u.buffer = buffer_of(k->m, e->u.tensor) });
  return to;
}

static int make_thunk(Maker *k, const Expr *e) {
  intptr_t i = get_number(&k->thunk_of, e);
  if (!i) {
    vec_push(k->m->c, &k->tape->thunks, ((Thunk){ .e = e, .reg = new_reg(k->m) }));
    set_number(&k->thunk_of, e, i = k->tape->thunks.n);
  }
  add(k, (Instr){ .op = T_NEED, .a = (int)i - 1 });
  return k->tape->thunks.v[i - 1].reg;
}

/* The register that holds e from here on. */
static int make_expr(Maker *k, const Expr *e) {
  intptr_t reg = get_number(&k->m->fixed, e);
  if (!reg) reg = get_number(&k->have, e);
  if (reg) return (int)reg - 1;
  if (e->op == EX_CONST) {
    int r = new_reg(k->m);
    k->m->regs.v[r] = dtype_is_float(e->dtype) ? (Scalar){ .f = e->u.f } : (Scalar){ .i = e->u.i };
    set_number(&k->m->fixed, e, r + 1);
    return r;
  }
  int r = k->conditional && get_number(&k->uses, e) > 1 ? make_thunk(k, e) : make_node(k, e);
  set_number(&k->have, e, r + 1);
  vec_push(k->m->c, &k->log, e);
  return r;
}

/* One tape computes the n expressions into regs[]. */
static Tape make_tape(Machine *m, Expr *const *e, int n, int *regs) {
  Tape tape = { 0 };
  Maker k = { .m = m, .tape = &tape, .uses = map_new(m->c), .have = map_new(m->c), .thunk_of = map_new(m->c) };
  for (int i = 0; i < n; i++) expr_visit(e[i], count_uses, &k);
  for (int i = 0; i < n; i++) regs[i] = make_expr(&k, e[i]);
  add(&k, (Instr){ .op = T_RETURN });
  k.conditional = true;
  for (int i = 0; i < tape.thunks.n; i++) {              /* the list grows meanwhile */
    leave_branch(&k, 0);
    tape.thunks.v[i].start = tape.code.n;
    int value = make_node(&k, tape.thunks.v[i].e);
    add(&k, (Instr){ .op = T_MOVE, .to = tape.thunks.v[i].reg, .a = value });
    add(&k, (Instr){ .op = T_RETURN });
  }
  return tape;
}

/* ---- running tapes ---- */

static inline Scalar load_element(DType t, const char *bytes, int64_t i) {
  switch (t) {
  case DT_F32: return (Scalar){ .f = ((const float *)bytes)[i] };
  case DT_I64: return (Scalar){ .i = ((const int64_t *)bytes)[i] };
  default:
    bytes += i * dtype_bytes(t);
    return dtype_is_float(t) ? (Scalar){ .f = dtype_load_f(t, bytes) } : (Scalar){ .i = dtype_load_i(t, bytes) };
  }
}

static inline void store_element(DType t, char *bytes, int64_t i, Scalar v) {
  switch (t) {
  case DT_F32: ((float *)bytes)[i] = (float)v.f; break;
  case DT_I64: ((int64_t *)bytes)[i] = v.i; break;
  default:
    bytes += i * dtype_bytes(t);
    if (dtype_is_float(t)) dtype_store_f(t, bytes, v.f);
    else dtype_store_i(t, bytes, v.i);
  }
}

static inline void check_index(const Machine *m, const Buffer *b, int64_t i) {
  if ((uint64_t)i >= (uint64_t)b->elements)
    diag_bug(m->c, "kernel '%s': index %lld of '%s' is outside its %lld elements", m->kernel->name, (long long)i,
             b->tensor->name, (long long)b->elements);
}

static void run_from(Machine *m, Tape *tape, int at) {
  Scalar *r = m->regs.v;
  for (;;) {
    const Instr *in = &tape->code.v[at++];
    Scalar a = r[in->a], b = r[in->b];
    switch (in->op) {
#define HOT(instr, op, type, result) case instr: r[in->to] = (Scalar){ result }; break;
    HOT_OPS
#undef HOT
    case T_APPLY: r[in->to] = expr_apply(in->u.node, (Scalar[]){ a, b, r[in->c] }); break;
    case T_FETCH:
      check_index(m, in->u.buffer, a.i);
      r[in->to] = load_element(in->u.buffer->tensor->dtype, in->u.buffer->bytes, a.i);
      break;
    case T_MOVE: r[in->to] = a; break;
    case T_JUMP: at = in->to; break;
    case T_JUMP_IF_NOT: at = a.i ? at : in->to; break;
    case T_NEED: {
      Thunk *t = &tape->thunks.v[in->a];
      if (t->epoch != m->epoch) run_from(m, tape, t->start);
      t->epoch = m->epoch;
      break;
    }
    case T_RETURN: return;
    }
  }
}

static inline void run_tape(Machine *m, Tape *tape) {
  m->epoch++;
  run_from(m, tape, 0);
}

/* ---- statements ---- */

static Code *make_code(Machine *m, const Stmt *s);

static void make_loop(Machine *m, Code *code, const Stmt *s) {
  bool spread = s->kind == LOOP_PARALLEL || s->kind == LOOP_BLOCK || s->kind == LOOP_THREAD;
  code->tape = make_tape(m, &s->extent, 1, &code->a);
  code->sym = new_reg(m);
  set_number(&m->fixed, s->sym->self, code->sym + 1);
  m->threads += spread;
  code->body[0] = make_code(m, s->body[0]);
  m->threads -= spread;
  set_number(&m->fixed, s->sym->self, 0);
}

static void make_store(Machine *m, Code *code, const Stmt *s) {
  Expr *e[2] = { s->index, s->value };
  int regs[2];
  if (s->combiner >= 0)
    e[1] = combiner_apply(m->c, (Combiner)s->combiner, ex_fetch(m->c, s->tensor, s->index), s->value);
  code->buffer = buffer_of(m, s->tensor);
  code->tape = make_tape(m, e, 2, regs);
  code->a = regs[0];
  code->b = regs[1];
}

static void make_alloc(Machine *m, Code *code, const Stmt *s) {
  Expr *size = layout_elements(m->c, s->tensor);
  code->tape = make_tape(m, &size, 1, &code->a);
  code->buffer = NEW(m->c, Buffer);
  code->buffer->tensor = s->tensor;
  map_set(&m->buffers, KEY(s->tensor), code->buffer);
  code->body[0] = make_code(m, s->body[0]);
  map_set(&m->buffers, KEY(s->tensor), NULL);
}

static Code *make_code(Machine *m, const Stmt *s) {
  Code *code = NEW(m->c, Code);
  code->s = s;
  switch (s->op) {
  case ST_FOR: make_loop(m, code, s); break;
  case ST_STORE: make_store(m, code, s); break;
  case ST_ALLOC: make_alloc(m, code, s); break;
  case ST_IF:
    code->tape = make_tape(m, &s->value, 1, &code->a);
    code->body[0] = make_code(m, s->body[0]);
    if (s->body[1]) code->body[1] = make_code(m, s->body[1]);
    break;
  case ST_SEQ:
    code->seq = NEW_ARRAY(m->c, Code *, s->n + 1);
    for (int i = 0; i < s->n; i++) code->seq[i] = make_code(m, s->body[i]);
    break;
  case ST_CALL: diag_bug(m->c, "kernel '%s' calls kernel '%s'", m->kernel->name, s->kernel->name);
  case ST_PREFETCH: break;
  case ST_BARRIER:
    if (m->threads)
      diag_bug(m->c, "kernel '%s': a barrier between threads cannot be run one thread after the other",
               m->kernel->name);
    break;
  }
  return code;
}

static void size_buffer(Machine *m, Buffer *b, int64_t elements) {
  int64_t bytes;
  if (elements < 0 || !mul_ok(elements, dtype_bytes(b->tensor->dtype), &bytes))
    diag_bug(m->c, "kernel '%s': '%s' has %lld elements", m->kernel->name, b->tensor->name, (long long)elements);
  b->elements = elements;
  if (bytes > b->capacity) {
    b->bytes = ctx_alloc(m->c, (size_t)bytes);
    b->capacity = bytes;
  }
  if (bytes) memset(b->bytes, b->tensor->dtype == DT_BOOL ? 1 : 0xff, (size_t)bytes);
}

static void run_code(Machine *m, Code *code) {
  const Stmt *s = code->s;
  if (code->tape.code.n) run_tape(m, &code->tape);
  Scalar *r = m->regs.v;
  switch (s->op) {
  case ST_FOR:
    for (int64_t i = 0, n = r[code->a].i; i < n; i++) {
      r[code->sym].i = i;
      run_code(m, code->body[0]);
    }
    break;
  case ST_STORE:
    check_index(m, code->buffer, r[code->a].i);
    store_element(s->tensor->dtype, code->buffer->bytes, r[code->a].i, r[code->b]);
    break;
  case ST_IF:
    if (r[code->a].i) run_code(m, code->body[0]);
    else if (code->body[1]) run_code(m, code->body[1]);
    break;
  case ST_ALLOC:
    size_buffer(m, code->buffer, r[code->a].i);
    run_code(m, code->body[0]);
    break;
  case ST_SEQ:
    for (int i = 0; i < s->n; i++) run_code(m, code->seq[i]);
    break;
  case ST_CALL: case ST_BARRIER: case ST_PREFETCH: break;
  }
}

void kernel_run(Ctx *c, const Kernel *kernel, void *const *params, const int64_t *dims) {
  Machine m = { .c = c, .kernel = kernel, .buffers = map_new(c), .fixed = map_new(c) };
  for (int i = 0; i < kernel->dims.n; i++) {
    int reg = new_reg(&m);
    m.regs.v[reg].i = dims[i];
    set_number(&m.fixed, kernel->dims.v[i]->self, reg + 1);
  }
  for (int i = 0; i < kernel->nparams; i++) {
    Buffer *b = NEW(c, Buffer);
    Expr *size = layout_elements(c, kernel->params[i]);
    int reg;
    Tape tape = make_tape(&m, &size, 1, &reg);
    run_tape(&m, &tape);
    *b = (Buffer){ .tensor = kernel->params[i], .bytes = params[i], .elements = m.regs.v[reg].i };
    map_set(&m.buffers, KEY(kernel->params[i]), b);
  }
  run_code(&m, make_code(&m, kernel->body));
}
