/* emit_llvm.c - tensor IR to object code through LLVM's C API.
 *
 * One walk over a kernel's statements. Loop kinds end here: unrolled loops are walked once per iteration with the symbol constant, a
 * vector loop once with the symbol standing for the lanes, serial loops become loops. Register tensors are SSA values with phis at the loops
 * they live across. An integer is kept as value + constant, so that unrolled addresses differ by displacements only. Conditional loads
 * never branch: a guarded scalar or contiguous load reads zeros elsewhere, a lane mask becomes a masked load.
 * Kernels are independent modules, compiled on several threads; no Expr is made here, since hash-consing is not thread safe.
 */
#include <stdlib.h>

#include "codegen.h"
#include "llvm.h"
#include "program.h"


static Val eval(Emit *e, const Expr *x);

/* ---- types and small builders ---- */
static LLVMTypeRef scalar_type(Emit *e, DType t) {
  switch (t) {
    case DT_BOOL: return e->i1;
    case DT_F16: return LLVMHalfTypeInContext(e->lc);
    case DT_BF16: return LLVMBFloatTypeInContext(e->lc);
    case DT_F32: return LLVMFloatTypeInContext(e->lc);
    case DT_F64: return LLVMDoubleTypeInContext(e->lc);
    default: return LLVMIntTypeInContext(e->lc, (unsigned)dtype_info[t].bits);
  }
}
static LLVMTypeRef memory_type(Emit *e, DType t) { return t == DT_BOOL ? e->i8 : scalar_type(e, t); }
static LLVMTypeRef type_of(Emit *e, DType t, bool vec) {
  LLVMTypeRef s = scalar_type(e, t);
  return vec ? LLVMVectorType(s, (unsigned)e->lanes) : s;
}
static Ref int_const(Emit *e, int64_t v) { return LLVMConstInt(e->i64, (uint64_t)v, true); }

static Ref splat(Emit *e, Ref scalar) {
  LLVMTypeRef vt = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)e->lanes);
  Ref one = LLVMBuildInsertElement(e->b, LLVMGetPoison(vt), scalar, LLVMConstInt(e->i32, 0, false), "");
  return LLVMBuildShuffleVector(e->b, one, LLVMGetPoison(vt), LLVMConstNull(LLVMVectorType(e->i32, (unsigned)e->lanes)), "");
}

static Ref intrinsic(Emit *e, const char *name, LLVMTypeRef *over, int nover, Ref *args, int nargs) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  if (!id) diag_bug(e->c, "LLVM has no %s", name);
  Ref f = LLVMGetIntrinsicDeclaration(e->mod, id, over, (size_t)nover);
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->lc, id, over, (size_t)nover), f, args, (unsigned)nargs, "");
}

/* ---- values once computed, found again while their block dominates ---- */
static int cse_slot(const uint64_t key[3]) {
  uint64_t h = key[0] * 0x9E3779B97F4A7C15u ^ (key[1] + 0x7F4A7C15u) * 0xC2B2AE3D27D4EB4Fu ^ key[2] * 0x165667B19E3779F9u;
  return (int)((h ^ h >> 29) & 1023);
}

static Ref cse_find(Emit *e, const uint64_t key[3]) {
  for (int i = e->heads[cse_slot(key)]; i; i = e->cse.v[i - 1].next)
    if (!memcmp(e->cse.v[i - 1].key, key, sizeof e->cse.v[0].key)) return e->cse.v[i - 1].v;
  return NULL;
}

static Ref cse_add(Emit *e, const uint64_t key[3], Ref v) {
  int slot = cse_slot(key);
  vec_push(e->c, &e->cse, ((Cse){{key[0], key[1], key[2]}, v, e->heads[slot]}));
  e->heads[slot] = e->cse.n;
  return v;
}

static void cse_cut(Emit *e, int n) {
  while (e->cse.n > n) {
    Cse *last = &e->cse.v[--e->cse.n];
    e->heads[cse_slot(last->key)] = last->next;
  }
}

static uint64_t memo_open(Emit *e) {
  vec_push(e->c, &e->gens, ++e->next_gen);
  return e->next_gen;
}
static void memo_close(Emit *e) { e->gens.n--; }
void memo_start(Emit *e) { memo_open(e); }

/* ---- integers as value + constant ---- */
static Ref checked(Emit *e, const char *name, Ref a, Ref b) {
  Ref args[] = {a, b}, pair = intrinsic(e, name, &e->i64, 1, args, 2);
  Ref bad = LLVMBuildExtractValue(e->b, pair, 1, "");
  LLVMBuildStore(e->b, LLVMBuildOr(e->b, LLVMBuildLoad2(e->b, e->i1, e->overflow, ""), bad, ""), e->overflow);
  return LLVMBuildExtractValue(e->b, pair, 0, "");
}

static Ref int_op(Emit *e, ExprOp op, Ref a, Ref b) {
  if (e->overflow) return checked(e, op == EX_ADD ? "llvm.sadd.with.overflow" : op == EX_SUB ? "llvm.ssub.with.overflow" : "llvm.smul.with.overflow", a, b);
  uint64_t key[3] = {op, KEY(a), KEY(b)};
  Ref v = cse_find(e, key);
  if (v) return v;
  v = op == EX_ADD ? LLVMBuildNSWAdd(e->b, a, b, "") : op == EX_SUB ? LLVMBuildNSWSub(e->b, a, b, "") : LLVMBuildNSWMul(e->b, a, b, "");
  return cse_add(e, key, v);
}

static Ref int_value(Emit *e, Val a) {
  if (!a.v) return int_const(e, a.c);
  return a.c ? int_op(e, EX_ADD, a.v, int_const(e, a.c)) : a.v;
}

static bool is_index(const Expr *x) { return x->dtype == DT_I64; }
static Val int_val(int64_t c) { return (Val){NULL, c, false}; }

static Ref value(Emit *e, const Expr *x, Val a) { return is_index(x) && !a.vec ? int_value(e, a) : a.v; }
static Ref as_vector(Emit *e, const Expr *x, Val a) { return a.vec ? a.v : splat(e, value(e, x, a)); }

static Val int_arith(Emit *e, ExprOp op, Val a, Val b) {
  if (e->overflow) return (Val){int_op(e, op, int_value(e, a), int_value(e, b)), 0, false};
  if (op == EX_MUL) {
    if (a.v && b.v) return (Val){int_op(e, op, int_value(e, a), int_value(e, b)), 0, false};
    Val k = a.v ? b : a, x = a.v ? a : b;
    if (!x.v || !k.c) return int_val((int64_t)((uint64_t)x.c * (uint64_t)k.c) * (x.v == NULL || k.c != 0));
    return (Val){k.c == 1 ? x.v : int_op(e, EX_MUL, x.v, int_const(e, k.c)), (int64_t)((uint64_t)x.c * (uint64_t)k.c), false};
  }
  int64_t c = (int64_t)(op == EX_ADD ? (uint64_t)a.c + (uint64_t)b.c : (uint64_t)a.c - (uint64_t)b.c);
  if (!b.v) return (Val){a.v, c, false};
  if (!a.v && op == EX_ADD) return (Val){b.v, c, false};
  return (Val){int_op(e, op, a.v ? a.v : int_const(e, 0), b.v), c, false};
}

/* ---- the element stride of an index along the vector symbol ---- */
enum { NONLINEAR = INT32_MIN };
static int64_t lane_stride(Emit *e, const Expr *x) {
  if (x->op == EX_SYM) return x->u.sym == e->vsym;
  if (!expr_uses(x, e->vsym)) return 0;
  if (x->op == EX_ADD || x->op == EX_SUB) {
    int64_t a = lane_stride(e, x->a[0]), b = lane_stride(e, x->a[1]);
    if (a == NONLINEAR || b == NONLINEAR) return NONLINEAR;
    return x->op == EX_ADD ? a + b : a - b;
  }
  if (x->op != EX_MUL) return NONLINEAR;
  int moving = expr_uses(x->a[1], e->vsym);
  if (expr_uses(x->a[!moving], e->vsym)) return NONLINEAR;
  Val k = eval(e, x->a[!moving]);
  int64_t s = lane_stride(e, x->a[moving]);
  return k.v || s == NONLINEAR ? NONLINEAR : s * k.c;
}

static Val *sym_slot(Emit *e, const Sym *s) {
  Val *v = map_get(&e->syms, KEY(s));
  if (!v) map_set(&e->syms, KEY(s), v = NEW(e->c, Val));
  return v;
}

/* The index of lane 0. */
static Val eval_lane0(Emit *e, const Expr *x) {
  if (!e->vsym || !expr_uses(x, e->vsym)) return eval(e, x);
  const Sym *s = e->vsym;
  Val *slot = sym_slot(e, s), saved = *slot;
  *slot = int_val(0);
  e->vsym = NULL;
  int outer = e->gens.n;
  uint64_t held[64];
  memcpy(held, e->gens.v, sizeof(uint64_t) * (size_t)MIN(outer, 64));
  e->gens.n = 0;                                             /* nothing memoised about lanes holds for lane 0 alone */
  memo_open(e);
  Val v = eval(e, x);
  e->gens.n = outer;
  memcpy(e->gens.v, held, sizeof(uint64_t) * (size_t)MIN(outer, 64));
  e->vsym = s;
  *slot = saved;
  return v;
}

/* ---- registers ---- */
static Reg *find_reg(Emit *e, const Tensor *t) {
  for (int i = e->regs.n - 1; i >= 0; i--)
    if (e->regs.v[i].t == t) return &e->regs.v[i];
  return NULL;
}

static Ref *reg_place(Emit *e, const Tensor *t, const Expr *index) {
  Reg *r = find_reg(e, t);
  Val at = eval_lane0(e, index);
  if (!r || at.v || at.c < 0 || at.c >= r->n)
    diag_bug(e->c, "register tensor %s of %s is indexed by %s", t->name, e->kernel->name,
             at.v ? "a variable" : "too much");
  return &r->v[at.c];
}

/* ---- memory ---- */
static bool is_written(Emit *e, const Tensor *t) {
  for (int i = 0; e->kernel && i < e->kernel->nparams; i++)
    if (e->kernel->params[i] == t) return e->kernel->writes[i];
  return true;
}

static Ref tensor_address(Emit *e, const Tensor *t);
static Ref base_of(Emit *e, const Tensor *t) {
  if (!e->kernel) return tensor_address(e, t);
  Ref p = map_get(&e->bases, KEY(t));
  if (!p) diag_bug(e->c, "tensor %s has no address in %s", t->name, e->kernel ? e->kernel->name : "main");
  return p;
}

static Ref address(Emit *e, const Tensor *t, Val at) {
  int64_t size = dtype_bytes(t->dtype);
  Ref p = base_of(e, t);
  if (at.v) {
    uint64_t key[3] = {1000 + (uint64_t)size, KEY(p), KEY(at.v)};
    Ref q = cse_find(e, key);
    if (!q) q = cse_add(e, key, LLVMBuildGEP2(e->b, memory_type(e, t->dtype), p, &at.v, 1, ""));
    p = q;
  }
  if (!at.c) return p;
  Ref bytes = int_const(e, at.c * size);
  return LLVMBuildGEP2(e->b, e->i8, p, &bytes, 1, "");
}

static Ref from_memory(Emit *e, DType t, Ref v) {
  if (t != DT_BOOL) return v;
  return LLVMBuildICmp(e->b, LLVMIntNE, v, LLVMConstNull(LLVMTypeOf(v)), "");
}

static Ref and_mask(Emit *e, Ref a, Ref b) { return !a ? b : !b ? a : LLVMBuildAnd(e->b, a, b, ""); }

static Ref any_lane(Emit *e, Ref mask) {
  LLVMTypeRef t = LLVMTypeOf(mask);
  return intrinsic(e, "llvm.vector.reduce.or", &t, 1, &mask, 1);
}

static Ref all_lanes(Emit *e) { return LLVMConstAllOnes(LLVMVectorType(e->i1, (unsigned)e->lanes)); }

static Ref load_vector(Emit *e, const Tensor *t, Ref p) {
  LLVMTypeRef vt = LLVMVectorType(memory_type(e, t->dtype), (unsigned)e->lanes);
  Ref mask = and_mask(e, e->vmask, e->guard_v);
  unsigned align = (unsigned)dtype_bytes(t->dtype);
  if (e->guard_s) p = LLVMBuildSelect(e->b, e->guard_s, p, e->zeros, "");
  if (!mask) {
    Ref v = LLVMBuildLoad2(e->b, vt, p, "");
    LLVMSetAlignment(v, align);
    return v;
  }
  LLVMTypeRef over[] = {vt, e->ptr};
  Ref args[] = {p, LLVMConstInt(e->i32, align, false), mask, LLVMConstNull(vt)};
  return intrinsic(e, "llvm.masked.load", over, 2, args, 4);
}

static Ref load_scalar(Emit *e, const Tensor *t, Ref p) {
  Ref ok = e->guard_v ? and_mask(e, e->guard_s, any_lane(e, e->guard_v)) : e->guard_s;
  if (ok) p = LLVMBuildSelect(e->b, ok, p, e->zeros, "");
  Ref v = LLVMBuildLoad2(e->b, memory_type(e, t->dtype), p, "");
  LLVMSetAlignment(v, (unsigned)dtype_bytes(t->dtype));
  return v;
}

static Ref lane_addresses(Emit *e, const Tensor *t, const Expr *index) {
  Ref at = as_vector(e, index, eval(e, index)), p = base_of(e, t);
  return LLVMBuildGEP2(e->b, memory_type(e, t->dtype), p, &at, 1, "");
}

static Ref gather(Emit *e, const Tensor *t, const Expr *index) {
  LLVMTypeRef vt = LLVMVectorType(memory_type(e, t->dtype), (unsigned)e->lanes), over[] = {vt, LLVMVectorType(e->ptr, (unsigned)e->lanes)};
  Ref mask = and_mask(e, e->vmask, e->guard_v);
  if (e->guard_s) mask = and_mask(e, mask, splat(e, e->guard_s));
  Ref args[] = {lane_addresses(e, t, index), LLVMConstInt(e->i32, (unsigned)dtype_bytes(t->dtype), false), mask ? mask : all_lanes(e), LLVMConstNull(vt)};
  return intrinsic(e, "llvm.masked.gather", over, 2, args, 4);
}

/* What lane `lane` adds to the address: the terms of the sum that move with the lanes, if they are constants there. */
static int64_t lane_term(Emit *e, const Expr *x, int64_t lane, bool *ok) {
  if (x->op == EX_SYM && x->u.sym == e->vsym) return lane;
  if (!expr_uses(x, e->vsym)) {
    Val v = eval(e, x);
    *ok &= !v.v;
    return v.c;
  }
  if (x->n != 2) return *ok = false, 0;
  int64_t a = lane_term(e, x->a[0], lane, ok), b = lane_term(e, x->a[1], lane, ok);
  switch (x->op) {
    case EX_ADD: return a + b;
    case EX_SUB: return a - b;
    case EX_MUL: return a * b;
    case EX_DIV: return b > 0 && a >= 0 ? a / b : (*ok = false, 0);
    case EX_MOD: return b > 0 && a >= 0 ? a % b : (*ok = false, 0);
    default: return *ok = false, 0;
  }
}

static int64_t lane_sum(Emit *e, const Expr *x, int64_t lane, bool *ok) {
  if (x->op != EX_ADD) return expr_uses(x, e->vsym) ? lane_term(e, x, lane, ok) : 0;
  return lane_sum(e, x->a[0], lane, ok) + lane_sum(e, x->a[1], lane, ok);
}

/* Lanes that read one block of a blocked tensor in a fixed order: the block, and a shuffle. NULL: it is none. */
static Ref turned_load(Emit *e, const Expr *x) {
  const Tensor *t = x->u.tensor;
  const Layout *l = t->layout;
  Ref index[64];
  bool ok = l && l->n > t->rank && l->part[l->n - 1].mod == e->lanes && !e->vmask && !e->guard_v;
  if (!ok) return NULL;
  Val at = eval_lane0(e, x->a[0]);
  int64_t inside = (at.c % e->lanes + e->lanes) % e->lanes, first = lane_sum(e, x->a[0], 0, &ok);
  for (int i = 0; i < e->lanes; i++) {
    int64_t place = inside + lane_sum(e, x->a[0], i, &ok) - first;
    if (!ok || place < 0 || place >= e->lanes) return NULL;
    index[i] = LLVMConstInt(e->i32, (uint64_t)place, false);
  }
  at.c -= inside;
  Ref p = address(e, t, at);
  uint64_t key[3] = {2001 + 2 * (is_written(e, t) ? e->epoch : 0), KEY(base_of(e, t)) ^ (uint64_t)at.c << 20, KEY(at.v)};
  Ref v = e->guard_s ? NULL : cse_find(e, key);
  if (!v) {
    v = load_vector(e, t, p);
    if (!e->guard_s) cse_add(e, key, v);
  }
  return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)e->lanes), "");
}

/* Lane i is one element of the vector held at at + i * stride: a column of rows in registers. All columns are made at once. */
static Ref reg_column(Emit *e, const Tensor *t, int64_t at, int64_t stride) {
  Reg *r = find_reg(e, t);
  int64_t lane = at % stride % e->lanes, first = at - lane;
  Ref row[64], last = NULL;
  for (int i = 0; i < e->lanes; i++) {
    int64_t place = first + i * stride;
    row[i] = place < r->n ? r->v[place] : NULL;
    if (row[i]) last = row[i];
  }
  if (!row[0]) diag_bug(e->c, "register tensor %s of %s is read before it is set", t->name, e->kernel->name);
  const uint64_t key[3] = {3000 + (uint64_t)lane, KEY(row[0]), KEY(last)};
  Ref v = cse_find(e, key);
  if (v) return v;
  for (int i = 0; i < e->lanes; i++)
    if (!row[i]) row[i] = LLVMGetPoison(LLVMTypeOf(row[0]));
  lanes_transpose(e, row);
  for (int i = 0; i < e->lanes; i++) cse_add(e, (const uint64_t[]){3000 + (uint64_t)i, key[1], key[2]}, row[i]);
  return row[lane];
}

static Val fetched(Ref v, bool vec) { return (Val){v, 0, vec}; }

static Val eval_fetch(Emit *e, const Expr *x) {
  const Tensor *t = x->u.tensor;
  bool moves = e->vsym && expr_uses(x->a[0], e->vsym);
  if (t->scope == SCOPE_REG) {
    int64_t rows = moves ? lane_stride(e, x->a[0]) : 0;
    if (rows > 1) return fetched(reg_column(e, t, eval_lane0(e, x->a[0]).c, rows), true);
    Ref v = *reg_place(e, t, x->a[0]);
    if (!v) diag_bug(e->c, "register tensor %s of %s is read before it is set", t->name, e->kernel->name);
    return fetched(v, LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind);
  }
  int64_t stride = moves ? lane_stride(e, x->a[0]) : 0;
  if (moves && stride != 1 && stride != 0) {
    Ref turned = turned_load(e, x);
    return fetched(from_memory(e, t->dtype, turned ? turned : gather(e, t, x->a[0])), true);
  }
  Val at = eval_lane0(e, x->a[0]);
  bool plain = !e->guard_s && !e->guard_v && !(stride && e->vmask);
  Ref p = address(e, t, at);
  uint64_t key[3] = {2000 + 2 * (is_written(e, t) ? e->epoch : 0) + (stride == 1), KEY(base_of(e, t)) ^ (uint64_t)at.c << 20, KEY(at.v)};
  Ref v = plain ? cse_find(e, key) : NULL;
  if (!v) {
    v = from_memory(e, t->dtype, stride == 1 ? load_vector(e, t, p) : load_scalar(e, t, p));
    if (plain) cse_add(e, key, v);
  }
  return fetched(v, stride == 1);
}

/* ---- operations ---- */
static Ref float_const(Emit *e, DType t, double v) { return LLVMConstReal(scalar_type(e, t), v); }

static Ref unary_intrinsic(Emit *e, const char *name, Ref a) {
  LLVMTypeRef t = LLVMTypeOf(a);
  return intrinsic(e, name, &t, 1, &a, 1);
}

static Ref build_fma(Emit *e, Ref a, Ref b, Ref c) {
  LLVMTypeRef t = LLVMTypeOf(a);
  Ref args[] = {a, b, c};
  return intrinsic(e, e->m->target->fma ? "llvm.fma" : "llvm.fmuladd", &t, 1, args, 3);
}

static bool is_const_ref(Ref v) { return LLVMIsConstant(v); }

/* NaN propagates: with a constant that is no NaN one compare and select does (x86's maxps gives the second operand on NaN). */
static Ref build_minmax(Emit *e, bool is_max, DType t, Ref a, Ref b) {
  if (!dtype_is_float(t)) {
    bool u = dtype_info[t].kind != 'i';
    Ref less = LLVMBuildICmp(e->b, u ? LLVMIntULT : LLVMIntSLT, a, b, "");
    return is_max ? LLVMBuildSelect(e->b, less, b, a, "") : LLVMBuildSelect(e->b, less, a, b, "");
  }
  if (is_const_ref(a)) { Ref x = a; a = b; b = x; }
  if (is_const_ref(b)) return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, is_max ? LLVMRealOGT : LLVMRealOLT, b, a, ""), b, a, "");
  LLVMTypeRef type = LLVMTypeOf(a);
  Ref args[] = {a, b};
  return intrinsic(e, is_max ? "llvm.maximum" : "llvm.minimum", &type, 1, args, 2);
}

static Ref like_const(Emit *e, Ref v, int64_t n) {
  LLVMTypeRef t = LLVMTypeOf(v);
  bool vec = LLVMGetTypeKind(t) == LLVMVectorTypeKind;
  Ref s = LLVMConstInt(vec ? LLVMGetElementType(t) : t, (uint64_t)n, true);
  if (!vec) return s;
  Ref all[64];
  for (int i = 0; i < e->lanes; i++) all[i] = s;
  return LLVMConstVector(all, (unsigned)e->lanes);
}

/* Division of integers: floor or truncating; by zero 0, by -1 negation (so that no input traps). */
static Ref build_division(Emit *e, const Expr *x, Ref a, Ref b) {
  bool is_signed = dtype_info[x->dtype].kind == 'i', mod = x->op == EX_MOD || x->op == EX_TMOD, is_floor = x->op == EX_DIV || x->op == EX_MOD;
  bool nonneg = !is_signed || map_get(&e->facts->nonneg, KEY(x));
  bool known = ex_is_const(x->a[1]) && x->a[1]->u.i != 0 && x->a[1]->u.i != -1;
  Ref zero = like_const(e, a, 0), one = like_const(e, a, 1), is_zero = NULL, is_minus = NULL, d = b;
  if (!known) {
    is_zero = LLVMBuildICmp(e->b, LLVMIntEQ, b, zero, "");
    d = LLVMBuildSelect(e->b, is_zero, one, b, "");
    if (is_signed) is_minus = LLVMBuildICmp(e->b, LLVMIntEQ, b, like_const(e, a, -1), ""), d = LLVMBuildSelect(e->b, is_minus, one, d, "");
  }
  Ref q, r;
  if (nonneg) {
    q = mod ? LLVMBuildURem(e->b, a, d, "") : LLVMBuildUDiv(e->b, a, d, "");
  } else {
    q = mod && !is_floor ? LLVMBuildSRem(e->b, a, d, "") : LLVMBuildSDiv(e->b, a, d, "");
    if (is_floor) {
      r = LLVMBuildSub(e->b, a, LLVMBuildMul(e->b, q, d, ""), "");
      Ref wrong = LLVMBuildAnd(e->b, LLVMBuildICmp(e->b, LLVMIntNE, r, zero, ""),
                               LLVMBuildICmp(e->b, LLVMIntSLT, LLVMBuildXor(e->b, r, d, ""), zero, ""), "");
      q = mod ? LLVMBuildSelect(e->b, wrong, LLVMBuildAdd(e->b, r, d, ""), r, "") : LLVMBuildSelect(e->b, wrong, LLVMBuildSub(e->b, q, one, ""), q, "");
    }
  }
  if (is_minus) q = LLVMBuildSelect(e->b, is_minus, mod ? zero : LLVMBuildNeg(e->b, a, ""), q, "");
  return is_zero ? LLVMBuildSelect(e->b, is_zero, zero, q, "") : q;
}

static Ref build_shift(Emit *e, const Expr *x, Ref a, Ref b) {
  int bits = dtype_info[x->dtype].bits;
  Ref in = LLVMBuildICmp(e->b, LLVMIntULT, b, like_const(e, b, bits), ""), safe = LLVMBuildSelect(e->b, in, b, like_const(e, b, 0), "");
  bool is_signed = dtype_info[x->dtype].kind == 'i';
  Ref v = x->op == EX_SHL ? LLVMBuildShl(e->b, a, safe, "") : is_signed ? LLVMBuildAShr(e->b, a, safe, "") : LLVMBuildLShr(e->b, a, safe, "");
  return LLVMBuildSelect(e->b, in, v, like_const(e, a, 0), "");
}

static Ref build_compare(Emit *e, ExprOp op, DType t, Ref a, Ref b) {
  static const LLVMRealPredicate fp[] = {LLVMRealOLT, LLVMRealOLE, LLVMRealOEQ, LLVMRealUNE};
  static const LLVMIntPredicate si[] = {LLVMIntSLT, LLVMIntSLE, LLVMIntEQ, LLVMIntNE}, ui[] = {LLVMIntULT, LLVMIntULE, LLVMIntEQ, LLVMIntNE};
  int i = op - EX_LT;
  if (dtype_is_float(t)) return LLVMBuildFCmp(e->b, fp[i], a, b, "");
  return LLVMBuildICmp(e->b, dtype_info[t].kind == 'i' ? si[i] : ui[i], a, b, "");
}

static Ref build_binary(Emit *e, const Expr *x, Ref a, Ref b) {
  DType t = (DType)x->a[0]->dtype;
  bool fp = dtype_is_float(t);
  switch (x->op) {
    case EX_ADD: return fp ? LLVMBuildFAdd(e->b, a, b, "") : LLVMBuildAdd(e->b, a, b, "");
    case EX_SUB: return fp ? LLVMBuildFSub(e->b, a, b, "") : LLVMBuildSub(e->b, a, b, "");
    case EX_MUL: return fp ? LLVMBuildFMul(e->b, a, b, "") : LLVMBuildMul(e->b, a, b, "");
    case EX_DIV: case EX_TDIV: case EX_MOD: case EX_TMOD:
      if (!fp) return build_division(e, x, a, b);
      if (x->op == EX_DIV) return LLVMBuildFDiv(e->b, a, b, "");
      break;
    case EX_MIN: case EX_MAX: return build_minmax(e, x->op == EX_MAX, t, a, b);
    case EX_AND: return LLVMBuildAnd(e->b, a, b, "");
    case EX_OR: return LLVMBuildOr(e->b, a, b, "");
    case EX_XOR: return LLVMBuildXor(e->b, a, b, "");
    case EX_SHL: case EX_SHR: return build_shift(e, x, a, b);
    case EX_LT: case EX_LE: case EX_EQ: case EX_NE: return build_compare(e, (ExprOp)x->op, t, a, b);
    default: break;
  }
  return diag_bug(e->c, "operation %s of %s reaches the emitter", expr_info[x->op].text, dtype_info[t].name), NULL;
}

static Ref build_unary(Emit *e, const Expr *x, Ref a) {
  bool fp = dtype_is_float((DType)x->dtype);
  switch (x->op) {
    case EX_NEG: return fp ? LLVMBuildFNeg(e->b, a, "") : LLVMBuildNeg(e->b, a, "");
    case EX_NOT: return LLVMBuildNot(e->b, a, "");
    case EX_ABS:
      if (fp) return unary_intrinsic(e, "llvm.fabs", a);
      if (dtype_info[x->dtype].kind != 'i') return a;
      return LLVMBuildSelect(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, a, like_const(e, a, 0), ""), LLVMBuildNeg(e->b, a, ""), a, "");
    case EX_FLOOR: return fp ? unary_intrinsic(e, "llvm.floor", a) : a;
    case EX_CEIL: return fp ? unary_intrinsic(e, "llvm.ceil", a) : a;
    case EX_ROUND: return fp ? unary_intrinsic(e, "llvm.roundeven", a) : a;
    case EX_TRUNC: return fp ? unary_intrinsic(e, "llvm.trunc", a) : a;
    case EX_SQRT: return unary_intrinsic(e, "llvm.sqrt", a);
    default: return diag_bug(e->c, "operation %s reaches the emitter", expr_info[x->op].text), NULL;
  }
}

static Ref build_cast(Emit *e, DType to, DType from, Ref a, bool vec) {
  LLVMTypeRef type = type_of(e, to, vec);
  bool tf = dtype_is_float(to), ff = dtype_is_float(from), is_signed = dtype_info[from].kind == 'i';
  if (to == from) return a;
  if (to == DT_BOOL) {
    Ref zero = LLVMConstNull(LLVMTypeOf(a));
    return ff ? LLVMBuildFCmp(e->b, LLVMRealUNE, a, zero, "") : LLVMBuildICmp(e->b, LLVMIntNE, a, zero, "");
  }
  if (ff && tf) {
    if (dtype_info[from].bits == 16 && dtype_info[to].bits == 16) a = LLVMBuildFPExt(e->b, a, type_of(e, DT_F32, vec), "");
    return dtype_info[to].bits > dtype_info[from].bits ? LLVMBuildFPExt(e->b, a, type, "") : LLVMBuildFPTrunc(e->b, a, type, "");
  }
  if (tf) return is_signed ? LLVMBuildSIToFP(e->b, a, type, "") : LLVMBuildUIToFP(e->b, a, type, "");
  if (ff) {
    LLVMTypeRef over[] = {type, LLVMTypeOf(a)};
    return intrinsic(e, dtype_info[to].kind == 'i' ? "llvm.fptosi.sat" : "llvm.fptoui.sat", over, 2, &a, 1);
  }
  if (dtype_info[to].bits < dtype_info[from].bits && from != DT_BOOL) return LLVMBuildTrunc(e->b, a, type, "");
  if (dtype_info[to].bits == dtype_info[from].bits && from != DT_BOOL) return a;
  return is_signed ? LLVMBuildSExt(e->b, a, type, "") : LLVMBuildZExt(e->b, a, type, "");
}

static void find_fetch(const Expr *x, void *user) {
  if (x->op == EX_FETCH && x->u.tensor->scope != SCOPE_REG) *(bool *)user = true;
}

/* One side of a select: loads in it happen only where cond (or its negation) holds. */
static Val eval_side(Emit *e, const Expr *x, Val cond, bool negate) {
  bool loads = false;
  expr_visit(x, find_fetch, &loads);
  if (!loads) return eval(e, x);
  Ref saved_s = e->guard_s, saved_v = e->guard_v, ok = negate ? LLVMBuildNot(e->b, cond.v, "") : cond.v;
  if (cond.vec) e->guard_v = and_mask(e, e->guard_v, ok);
  else e->guard_s = and_mask(e, e->guard_s, ok);
  memo_open(e);
  Val v = eval(e, x);
  memo_close(e);
  e->guard_s = saved_s;
  e->guard_v = saved_v;
  return v;
}

static Val to_val(const Expr *x, Ref v, bool vec) {
  if (is_index(x) && !vec && LLVMIsAConstantInt(v)) return int_val(LLVMConstIntGetSExtValue(v));
  return (Val){v, 0, vec};
}

static Val eval_select(Emit *e, const Expr *x) {
  Val cond = eval(e, x->a[0]);
  if (LLVMIsAConstantInt(cond.v)) return eval(e, x->a[LLVMConstIntGetZExtValue(cond.v) ? 1 : 2]);
  Val a = eval_side(e, x->a[1], cond, false), b = eval_side(e, x->a[2], cond, true);
  bool vec = a.vec || b.vec || cond.vec;
  Ref va = vec ? as_vector(e, x->a[1], a) : value(e, x->a[1], a), vb = vec ? as_vector(e, x->a[2], b) : value(e, x->a[2], b);
  return to_val(x, LLVMBuildSelect(e->b, cond.v, va, vb, ""), vec);
}

static Val eval_sym(Emit *e, const Sym *s) {
  if (s != e->vsym) {
    Val *v = map_get(&e->syms, KEY(s));
    if (!v) diag_bug(e->c, "symbol %s is not bound in %s", s->name, e->kernel ? e->kernel->name : "main");
    return *v;
  }
  Ref lane[64];
  for (int i = 0; i < e->lanes; i++) lane[i] = int_const(e, i);
  return (Val){LLVMConstVector(lane, (unsigned)e->lanes), 0, true};
}

static Val eval_const(Emit *e, const Expr *x) {
  if (is_index(x)) return int_val(x->u.i);
  DType t = (DType)x->dtype;
  return (Val){dtype_is_float(t) ? float_const(e, t, x->u.f) : LLVMConstInt(scalar_type(e, t), (uint64_t)x->u.i, true), 0, false};
}

static Val eval_op(Emit *e, const Expr *x) {
  Val a[3];
  Ref v[3] = {NULL};
  bool vec = false;
  for (int i = 0; i < x->n; i++) a[i] = eval(e, x->a[i]), vec |= a[i].vec;
  if (is_index(x) && !vec && (x->op == EX_ADD || x->op == EX_SUB || x->op == EX_MUL) ) return int_arith(e, (ExprOp)x->op, a[0], a[1]);
  for (int i = 0; i < x->n; i++) v[i] = vec ? as_vector(e, x->a[i], a[i]) : value(e, x->a[i], a[i]);
  if (x->op == EX_CAST) return to_val(x, build_cast(e, (DType)x->dtype, (DType)x->a[0]->dtype, v[0], vec), vec);
  if (x->op == EX_BITCAST) return to_val(x, LLVMBuildBitCast(e->b, v[0], type_of(e, (DType)x->dtype, vec), ""), vec);
  if (x->op == EX_FMA) return to_val(x, build_fma(e, v[0], v[1], v[2]), vec);
  return to_val(x, x->n == 1 ? build_unary(e, x, v[0]) : build_binary(e, x, v[0], v[1]), vec);
}

static Val eval(Emit *e, const Expr *x) {
  if (x->op == EX_CONST) return eval_const(e, x);
  if (x->op == EX_SYM) return eval_sym(e, x->u.sym);
  Memo *m = map_get(&e->memo, KEY(x));
  for (int i = e->gens.n - 1; m && i >= 0; i--)
    if (m->gen == e->gens.v[i]) return m->val;
  Val v = x->op == EX_FETCH ? eval_fetch(e, x) : x->op == EX_SELECT ? eval_select(e, x) : eval_op(e, x);
  if (!m) map_set(&e->memo, KEY(x), m = NEW(e->c, Memo));
  *m = (Memo){e->gens.v[e->gens.n - 1], v};
  return v;
}

/* ---- stores ---- */
static Ref combine(Emit *e, int how, DType t, Ref a, Ref b) {
  bool fp = dtype_is_float(t);
  switch (how) {
    case RED_SUM: return fp ? LLVMBuildFAdd(e->b, a, b, "") : LLVMBuildAdd(e->b, a, b, "");
    case RED_PROD: return fp ? LLVMBuildFMul(e->b, a, b, "") : LLVMBuildMul(e->b, a, b, "");
    case RED_MIN: case RED_MAX: return build_minmax(e, how == RED_MAX, t, a, b);
    case RED_AND: return LLVMBuildAnd(e->b, a, b, "");
    default: return LLVMBuildOr(e->b, a, b, "");
  }
}

/* Halves until one lane is left: a fixed order. */
static Ref across_lanes(Emit *e, int how, DType t, Ref v) {
  for (int half = e->lanes / 2; half >= 1; half /= 2) v = combine(e, how, t, lanes_part(e, v, 0, half), lanes_part(e, v, half, half));
  return LLVMBuildExtractElement(e->b, v, LLVMConstInt(e->i32, 0, false), "");
}

static Ref masked_combine(Emit *e, const Stmt *s, Ref old, Ref now) {
  return e->vmask && !map_get(&e->facts->loose, KEY(s)) ? LLVMBuildSelect(e->b, e->vmask, now, old, "") : now;
}

static void store_reg(Emit *e, const Stmt *s) {
  Ref *place = reg_place(e, s->tensor, s->index), old = *place;
  DType t = s->tensor->dtype;
  bool moves = e->vsym && expr_uses(s->index, e->vsym);
  const Expr *x = s->value;
  if (s->combiner >= 0 && !old) diag_bug(e->c, "register tensor %s of %s is added to before it is set", s->tensor->name, e->kernel->name);
  if (s->combiner == RED_SUM && x->op == EX_MUL && dtype_is_float(t) && moves && old) {
    Ref a = as_vector(e, x->a[0], eval(e, x->a[0])), b = as_vector(e, x->a[1], eval(e, x->a[1]));
    *reg_place(e, s->tensor, s->index) = masked_combine(e, s, old, build_fma(e, a, b, old));
    return;
  }
  Val v = eval(e, x);
  if (!moves && v.vec) {
    if (s->combiner < 0) diag_bug(e->c, "lanes are stored to the one register %s of %s", s->tensor->name, e->kernel->name);
    v = (Val){across_lanes(e, s->combiner, t, v.v), 0, false};
  }
  Ref r = moves ? as_vector(e, x, v) : value(e, x, v);
  if (s->combiner >= 0) r = combine(e, s->combiner, t, old, r), r = moves ? masked_combine(e, s, old, r) : r;
  *reg_place(e, s->tensor, s->index) = r;
}

static Ref to_memory(Emit *e, DType t, Ref v, bool vec) {
  if (t != DT_BOOL) return v;
  return LLVMBuildZExt(e->b, v, vec ? LLVMVectorType(e->i8, (unsigned)e->lanes) : e->i8, "");
}

static void store_vector(Emit *e, const Tensor *t, Ref p, Ref v) {
  unsigned align = (unsigned)dtype_bytes(t->dtype);
  if (!e->vmask) { LLVMSetAlignment(LLVMBuildStore(e->b, v, p), align); return; }
  LLVMTypeRef over[] = {LLVMTypeOf(v), e->ptr};
  Ref args[] = {v, p, LLVMConstInt(e->i32, align, false), e->vmask};
  intrinsic(e, "llvm.masked.store", over, 2, args, 4);
}

static void scatter(Emit *e, const Stmt *s, Ref v) {
  LLVMTypeRef over[] = {LLVMTypeOf(v), LLVMVectorType(e->ptr, (unsigned)e->lanes)};
  Ref args[] = {v, lane_addresses(e, s->tensor, s->index),
                LLVMConstInt(e->i32, (unsigned)dtype_bytes(s->tensor->dtype), false),
                e->vmask ? e->vmask : all_lanes(e)};
  intrinsic(e, "llvm.masked.scatter", over, 2, args, 4);
}

static void store_memory(Emit *e, const Stmt *s) {
  const Tensor *t = s->tensor;
  bool moves = e->vsym && expr_uses(s->index, e->vsym);
  int64_t stride = moves ? lane_stride(e, s->index) : 0;
  Val v = eval(e, s->value);
  if (s->combiner >= 0 && !moves && v.vec) v = (Val){across_lanes(e, s->combiner, t->dtype, v.v), 0, false};
  bool vec = moves;
  Ref r = vec ? as_vector(e, s->value, v) : value(e, s->value, v);
  if (moves && stride != 1) {
    if (s->combiner >= 0) r = combine(e, s->combiner, t->dtype, from_memory(e, t->dtype, gather(e, t, s->index)), r);
    scatter(e, s, to_memory(e, t->dtype, r, true));
  } else {
    Ref p = address(e, t, eval_lane0(e, s->index));
    if (s->combiner >= 0) r = combine(e, s->combiner, t->dtype, from_memory(e, t->dtype, vec ? load_vector(e, t, p) : load_scalar(e, t, p)), r);
    r = to_memory(e, t->dtype, r, vec);
    if (vec) store_vector(e, t, p, r);
    else LLVMSetAlignment(LLVMBuildStore(e->b, r, p), (unsigned)dtype_bytes(t->dtype));
  }
  e->epoch++;
}

static void emit_prefetch(Emit *e, const Stmt *s) {
  enum { READ = 0, INTO_L2 = 2, DATA = 1 };
  memo_open(e);
  Ref args[] = {address(e, s->tensor, eval_lane0(e, s->index)), LLVMConstInt(e->i32, READ, false), LLVMConstInt(e->i32, INTO_L2, false),
                LLVMConstInt(e->i32, DATA, false)};
  LLVMTypeRef over[] = {e->ptr};
  intrinsic(e, "llvm.prefetch", over, 1, args, 4);
  memo_close(e);
}

/* ---- loops ---- */
static void emit_stmt(Emit *e, const Stmt *s);

static bool stores_to(const Stmt *s, const Tensor *t) {
  if (s->op == ST_STORE && s->tensor == t) return true;
  for (int i = 0; i < s->n; i++)
    if (s->body[i] && stores_to(s->body[i], t)) return true;
  return false;
}

typedef VEC(Ref *) RefPlaces;
static void carried_registers(Emit *e, const Stmt *body, RefPlaces *out) {
  for (int i = 0; i < e->regs.n; i++)
    if (stores_to(body, e->regs.v[i].t))
      for (int k = 0; k < e->regs.v[i].n; k++)
        if (e->regs.v[i].v[k]) vec_push(e->c, out, &e->regs.v[i].v[k]);
}

static LLVMBasicBlockRef new_block(Emit *e, const char *name) { return LLVMAppendBasicBlockInContext(e->lc, e->fn, name); }

static void no_unroll(Emit *e, Ref branch) {
  LLVMMetadataRef name = LLVMMDStringInContext2(e->lc, "llvm.loop.unroll.disable", 24), off = LLVMMDNodeInContext2(e->lc, &name, 1);
  LLVMMetadataRef self = LLVMTemporaryMDNode(e->lc, NULL, 0), parts[] = {self, off}, loop = LLVMMDNodeInContext2(e->lc, parts, 2);
  LLVMMetadataReplaceAllUsesWith(self, loop);
  LLVMSetMetadata(branch, LLVMGetMDKindIDInContext(e->lc, "llvm.loop", 9), LLVMMetadataAsValue(e->lc, loop));
}

/* for s in [from, to): registers that the body sets become phis. */
static void emit_loop(Emit *e, const Stmt *s, Ref from, Ref to, bool runs) {
  RefPlaces carried = {0};
  carried_registers(e, s->body[0], &carried);
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b), body = new_block(e, s->sym->name), after = new_block(e, "after");
  if (runs) LLVMBuildBr(e->b, body);
  else LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, from, to, ""), body, after);
  int mark = e->cse.n;
  e->epoch++;
  LLVMPositionBuilderAtEnd(e->b, body);
  Ref i = LLVMBuildPhi(e->b, e->i64, s->sym->name), *phi = NEW_ARRAY(e->c, Ref, carried.n + 1), *old = NEW_ARRAY(e->c, Ref, carried.n + 1);
  LLVMAddIncoming(i, &from, &before, 1);
  for (int k = 0; k < carried.n; k++) {
    old[k] = *carried.v[k];
    phi[k] = LLVMBuildPhi(e->b, LLVMTypeOf(old[k]), "");
    LLVMAddIncoming(phi[k], &old[k], &before, 1);
    *carried.v[k] = phi[k];
  }
  *sym_slot(e, s->sym) = (Val){i, 0, false};
  emit_stmt(e, s->body[0]);
  Ref next = LLVMBuildNSWAdd(e->b, i, int_const(e, 1), "");
  LLVMBasicBlockRef end = LLVMGetInsertBlock(e->b);
  no_unroll(e, LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, next, to, ""), body, after));
  LLVMAddIncoming(i, &next, &end, 1);
  for (int k = 0; k < carried.n; k++) LLVMAddIncoming(phi[k], carried.v[k], &end, 1);
  cse_cut(e, mark);
  e->epoch++;
  LLVMPositionBuilderAtEnd(e->b, after);
  for (int k = 0; k < carried.n && !runs; k++) {
    Ref last = *carried.v[k], merged = LLVMBuildPhi(e->b, LLVMTypeOf(last), "");
    LLVMAddIncoming(merged, &last, &end, 1);
    LLVMAddIncoming(merged, &old[k], &before, 1);
    *carried.v[k] = merged;
  }
}

static void emit_unrolled(Emit *e, const Stmt *s) {
  int64_t n;
  if (!ex_is_int(s->extent, &n)) diag_bug(e->c, "loop %s of unknown extent is unrolled", s->sym->name);
  for (int64_t i = 0; i < n; i++) {
    *sym_slot(e, s->sym) = int_val(i);
    emit_stmt(e, s->body[0]);
  }
}

static Ref lane_mask(Emit *e, const Stmt *s) {
  Val n = eval(e, s->extent);
  if (!n.v && n.c == e->lanes) return NULL;
  Ref lane[64];
  for (int i = 0; i < e->lanes; i++) lane[i] = int_const(e, i);
  return LLVMBuildICmp(e->b, LLVMIntSLT, LLVMConstVector(lane, (unsigned)e->lanes), splat(e, int_value(e, n)), "");
}

static void emit_vector(Emit *e, const Stmt *s) {
  if (e->vsym) diag_bug(e->c, "a vector loop inside another in %s", e->kernel->name);
  memo_open(e);
  e->lanes = s->lanes;
  e->vmask = lane_mask(e, s);
  memo_close(e);
  e->vsym = s->sym;
  emit_stmt(e, s->body[0]);
  e->vsym = NULL;
  e->vmask = NULL;
}

static void emit_for(Emit *e, const Stmt *s) {
  if (s->kind == LOOP_VECTOR) { emit_vector(e, s); return; }
  if (s->kind == LOOP_UNROLL) { emit_unrolled(e, s); return; }
  if (s->kind == LOOP_PARALLEL && e->kernel) { emit_loop(e, s, e->lo, e->hi, false); return; }
  memo_open(e);
  Val n = eval(e, s->extent);
  memo_close(e);
  if (!n.v && n.c <= 0) return;
  emit_loop(e, s, int_const(e, 0), int_value(e, n), !n.v);
}

/* Lanes of which some do and some do not. */
static void emit_masked(Emit *e, const Stmt *s, Ref lanes) {
  Ref outer = e->vmask;
  int mark = e->cse.n;
  if (s->n > 1 && s->body[1]) diag_bug(e->c, "lanes of %s part in two branches", e->kernel->name);
  e->vmask = and_mask(e, outer, lanes);
  e->epoch++;
  emit_stmt(e, s->body[0]);
  e->epoch++;
  cse_cut(e, mark);
  e->vmask = outer;
}

static void emit_if(Emit *e, const Stmt *s) {
  memo_open(e);
  Val when = eval(e, s->value);
  memo_close(e);
  if (when.vec) { emit_masked(e, s, when.v); return; }
  Ref cond = when.v;
  LLVMBasicBlockRef then = new_block(e, "then"), otherwise = new_block(e, "else"), after = new_block(e, "after");
  LLVMBuildCondBr(e->b, cond, then, otherwise);
  for (int k = 0; k < 2; k++) {                              /* registers are not set in branches */
    int mark = e->cse.n;
    e->epoch++;
    LLVMPositionBuilderAtEnd(e->b, k ? otherwise : then);
    if (k < s->n && s->body[k]) emit_stmt(e, s->body[k]);
    LLVMBuildBr(e->b, after);
    cse_cut(e, mark);
  }
  e->epoch++;
  LLVMPositionBuilderAtEnd(e->b, after);
}

static void emit_alloc(Emit *e, const Stmt *s) {
  const Tensor *t = s->tensor;
  if (t->scope == SCOPE_SCRATCH) {
    if (!t->offset) diag_bug(e->c, "scratch tensor %s of %s has no place", t->name, e->kernel->name);
    Ref at = int_value(e, eval(e, t->offset));
    map_set(&e->bases, KEY(t), LLVMBuildGEP2(e->b, e->i8, e->scratch, &at, 1, ""));
    emit_stmt(e, s->body[0]);
    return;
  }
  int64_t n = layout_elements(e->c, t)->u.i;
  vec_push(e->c, &e->regs, ((Reg){t, (int)n, NEW_ARRAY(e->c, Ref, n)}));
  emit_stmt(e, s->body[0]);
  e->regs.n--;
}

/* ---- the program's calls ---- */
static Ref tensor_address(Emit *e, const Tensor *t) {
  struct Main *h = &e->main;
  if (t->scope == SCOPE_INPUT || t->scope == SCOPE_OUTPUT) {
    Ref at = int_const(e, program_io_index(e->m, t)), p = LLVMBuildGEP2(e->b, e->ptr, h->io, &at, 1, "");
    return LLVMBuildLoad2(e->b, e->ptr, p, "");
  }
  if (!t->offset) diag_bug(e->c, "tensor %s has no place (scope %d, constant %d)", t->name, t->scope, t->data != NULL);
  memo_open(e);
  Ref offset = int_value(e, eval(e, t->offset));
  memo_close(e);
  return LLVMBuildGEP2(e->b, e->i8, t->scope == SCOPE_CONST ? h->weights : h->arena, &offset, 1, "");
}

static LLVMTypeRef kernel_type(Emit *e) {
  LLVMTypeRef args[] = {e->ptr, e->ptr, e->i64, e->i64, e->ptr};
  return LLVMFunctionType(LLVMVoidTypeInContext(e->lc), args, 5, false);
}

static Ref declare(Emit *e, const char *name, LLVMTypeRef type) {
  Ref f = LLVMGetNamedFunction(e->mod, name);
  if (f) return f;
  f = LLVMAddFunction(e->mod, name, type);
  LLVMSetVisibility(f, LLVMHiddenVisibility);
  return f;
}

static void store_at(Emit *e, Ref array, LLVMTypeRef type, int i, Ref v) {
  Ref at = int_const(e, i);
  LLVMBuildStore(e->b, v, LLVMBuildGEP2(e->b, type, array, &at, 1, ""));
}

static void emit_stop(Emit *e) {
  LLVMBuildRet(e->b, LLVMConstInt(e->i32, (uint64_t)-2, true));              /* DLC_E_SHAPE */
  LLVMPositionBuilderAtEnd(e->b, new_block(e, "unreachable"));
}

static void emit_call(Emit *e, const Stmt *s) {
  struct Main *h = &e->main;
  if (s->kernel == e->m->stop) { emit_stop(e); return; }
  const Stmt *loop = program_parallel_loop(s->kernel);
  for (int i = 0; i < s->kernel->nparams; i++) store_at(e, h->bufs, e->ptr, i, tensor_address(e, s->args[i]));
  for (int i = 0; i < s->kernel->dims.n; i++) store_at(e, h->dims, e->i64, i, int_value(e, eval_sym(e, s->dims[i])));
  Ref total = int_const(e, 1);
  if (loop) {                                                /* the extent in this call's symbols */
    for (int i = 0; i < s->kernel->dims.n; i++) *sym_slot(e, s->kernel->dims.v[i]) = eval_sym(e, s->dims[i]);
    memo_open(e);
    total = int_value(e, eval(e, loop->extent));
    memo_close(e);
  }
  LLVMTypeRef args[] = {e->ptr, e->ptr, e->ptr, e->ptr, e->i64}, type = LLVMFunctionType(LLVMVoidTypeInContext(e->lc), args, 5, false);
  Ref run = declare(e, program_is_small(s) ? "dlc_rt_serial" : "dlc_rt_parallel", type);
  Ref v[] = {h->rt, declare(e, s->kernel->name, kernel_type(e)), h->bufs, h->dims, total};
  LLVMBuildCall2(e->b, type, run, v, 5, "");
}

static void emit_stmt(Emit *e, const Stmt *s) {
  switch (s->op) {
    case ST_FOR: emit_for(e, s); break;
    case ST_STORE:
      memo_open(e);
      if (s->tensor->scope == SCOPE_REG) store_reg(e, s);
      else store_memory(e, s);
      memo_close(e);
      break;
    case ST_IF: emit_if(e, s); break;
    case ST_ALLOC: emit_alloc(e, s); break;
    case ST_SEQ:
      for (int i = 0; i < s->n; i++) emit_stmt(e, s->body[i]);
      break;
    case ST_CALL: emit_call(e, s); break;
    case ST_BARRIER: break;
    case ST_PREFETCH: emit_prefetch(e, s); break;
  }
}

/* ---- functions ---- */
static void begin_function(Emit *e, Ref fn) {
  e->fn = fn;
  function_target(e, fn);
  LLVMPositionBuilderAtEnd(e->b, LLVMAppendBasicBlockInContext(e->lc, fn, "entry"));
}

static Ref load_at(Emit *e, LLVMTypeRef type, Ref array, int i) {
  Ref at = int_const(e, i);
  return LLVMBuildLoad2(e->b, type, LLVMBuildGEP2(e->b, type, array, &at, 1, ""), "");
}

/* The body works on pointers that do not alias; the kernel that is called takes them out of the array. */
void emit_kernel(Emit *e, const Kernel *k) {
  int n = k->nparams;
  LLVMTypeRef types[n + 4], outer_type = kernel_type(e), inner_type;
  for (int i = 0; i < n; i++) types[i] = e->ptr;
  types[n] = e->ptr, types[n + 1] = types[n + 2] = e->i64, types[n + 3] = e->ptr;
  inner_type = LLVMFunctionType(LLVMVoidTypeInContext(e->lc), types, (unsigned)n + 4, false);
  Ref inner = LLVMAddFunction(e->mod, "body", inner_type), args[n + 4];
  LLVMSetLinkage(inner, LLVMInternalLinkage);
  function_attribute(e, inner, (unsigned)LLVMAttributeFunctionIndex, "alwaysinline");
  e->kernel = k;
  begin_function(e, inner);
  for (int i = 0; i < n; i++) {
    if (!k->shares || !k->shares[i]) function_attribute(e, inner, (unsigned)i + 1, "noalias");
    map_set(&e->bases, KEY(k->params[i]), LLVMGetParam(inner, (unsigned)i));
  }
  Ref syms = LLVMGetParam(inner, (unsigned)n);
  e->lo = LLVMGetParam(inner, (unsigned)n + 1);
  e->hi = LLVMGetParam(inner, (unsigned)n + 2);
  e->scratch = LLVMGetParam(inner, (unsigned)n + 3);
  for (int i = 0; i < k->dims.n; i++) *sym_slot(e, k->dims.v[i]) = (Val){load_at(e, e->i64, syms, i), 0, false};
  emit_stmt(e, k->body);
  LLVMBuildRetVoid(e->b);

  Ref outer = LLVMAddFunction(e->mod, k->name, outer_type);
  LLVMSetVisibility(outer, LLVMHiddenVisibility);
  begin_function(e, outer);
  for (int i = 0; i < n; i++) args[i] = load_at(e, e->ptr, LLVMGetParam(outer, 0), i);
  for (int i = 0; i < 4; i++) args[n + i] = LLVMGetParam(outer, (unsigned)i + 1);
  LLVMBuildCall2(e->b, inner_type, inner, args, (unsigned)n + 4, "");
  LLVMBuildRetVoid(e->b);
}

static void bind_model_dims(Emit *e) {
  for (int i = 0; i < e->m->graph->dims.n; i++)
    *sym_slot(e, e->m->graph->dims.v[i]) = (Val){load_at(e, e->i64, e->main.sym_array, i), 0, false};
}

static void most(const Stmt *s, int *params, int *dims) {
  if (s->op == ST_CALL) *params = MAX(*params, s->kernel->nparams), *dims = MAX(*dims, s->kernel->dims.n);
  for (int i = 0; i < s->n; i++)
    if (s->body[i]) most(s->body[i], params, dims);
}

void emit_main(Emit *e) {
  struct Main *h = &e->main;
  LLVMTypeRef args[] = {e->ptr, e->ptr, e->ptr, e->ptr, e->ptr};
  Ref fn = declare(e, "dlc_main", LLVMFunctionType(e->i32, args, 5, false));
  int params = 1, dims = 1;
  begin_function(e, fn);
  h->rt = LLVMGetParam(fn, 0);
  h->arena = LLVMGetParam(fn, 1);
  h->weights = LLVMGetParam(fn, 2);
  h->io = LLVMGetParam(fn, 3);
  h->sym_array = LLVMGetParam(fn, 4);
  most(e->m->program, &params, &dims);
  h->bufs = LLVMBuildArrayAlloca(e->b, e->ptr, int_const(e, params), "bufs");
  h->dims = LLVMBuildArrayAlloca(e->b, e->i64, int_const(e, dims), "dims");
  bind_model_dims(e);
  emit_stmt(e, e->m->program);
  LLVMBuildRet(e->b, LLVMConstInt(e->i32, 0, false));
}

void emit_plan(Emit *e) {
  LLVMTypeRef args[] = {e->ptr, e->ptr};
  Ref fn = declare(e, "dlc_plan", LLVMFunctionType(e->i32, args, 2, false));
  int at = 0;
  begin_function(e, fn);
  e->main.sym_array = LLVMGetParam(fn, 0);
  bind_model_dims(e);
  e->overflow = LLVMBuildAlloca(e->b, e->i1, "overflow");
  LLVMBuildStore(e->b, LLVMConstNull(e->i1), e->overflow);
  memo_open(e);
  Expr *bytes[] = {e->m->arena_bytes, e->m->zeroed_bytes, e->m->scratch_bytes};
  for (int i = 0; i < COUNT(bytes); i++) store_at(e, LLVMGetParam(fn, 1), e->i64, at++, int_value(e, eval(e, bytes[i])));
  for (int i = 0; i < e->m->graph->outputs.n; i++)
    for (int d = 0; d < e->m->graph->outputs.v[i]->rank; d++)
      store_at(e, LLVMGetParam(fn, 1), e->i64, at++, int_value(e, eval(e, e->m->graph->outputs.v[i]->shape[d])));
  memo_close(e);
  LLVMBuildRet(e->b, LLVMBuildZExt(e->b, LLVMBuildLoad2(e->b, e->i1, e->overflow, ""), e->i32, ""));
  e->overflow = NULL;
}
