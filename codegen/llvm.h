/* llvm.h - what emit_llvm.c (IR) and llvm_module.c (targets, objects, threads) share; the one file that includes LLVM's headers. */
#ifndef DLC_LLVM_H
#define DLC_LLVM_H

#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <llvm-c/Disassembler.h>
#include <llvm-c/IRReader.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Object.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include "codegen.h"

typedef LLVMValueRef Ref;
typedef struct { Ref v; int64_t c; bool vec; } Val;          /* i64 scalars: v + c, v NULL for constants; others: v */
typedef struct { uint64_t gen; Val val; } Memo;
typedef struct { const Tensor *t; int n; Ref *v; } Reg;
typedef struct { uint64_t key[3]; Ref v; int next; } Cse;

/* What is found before the threads start: divisions of non-negative numbers; sums that need not keep masked lanes. */
typedef struct { Map nonneg, loose; } Facts;

typedef struct Emit {
  Ctx *c;                          /* this thread's own, for memory */
  Module *m;
  const Facts *facts;
  LLVMContextRef lc;
  LLVMModuleRef mod;
  LLVMBuilderRef b;
  Ref fn, zeros;
  LLVMTypeRef i1, i8, i32, i64, ptr;
  Map syms, memo, bases;           /* Sym* -> Val*; Expr* -> Memo*; Tensor* -> pointer */
  VEC(Reg) regs;
  VEC(uint64_t) gens;              /* memo generations that are valid here */
  uint64_t next_gen, epoch;        /* epoch: of memory, for cached loads */
  VEC(Cse) cse;
  int heads[1024];
  const Sym *vsym;                 /* of the vector loop that is open */
  int lanes;
  Ref vmask, guard_s, guard_v;     /* active lanes; condition under which loads may happen */
  Ref lo, hi, scratch;
  const Kernel *kernel;            /* NULL in the program's main */
  Ref overflow;                    /* checked arithmetic (the plan): where overflows are collected */
  struct Main { Ref rt, arena, weights, io, sym_array, bufs, dims; Map kernels; } main;
} Emit;

Ref lanes_part(Emit *e, Ref v, int first, int n);            /* n lanes of v as a vector of their own */
void lanes_transpose(Emit *e, Ref *row);                     /* e->lanes vectors of as many lanes: rows become columns (lanes.c) */
void function_attribute(Emit *e, Ref fn, unsigned index, const char *name);
void function_target(Emit *e, Ref fn);                       /* the CPU, its features and vectors */
void memo_start(Emit *e);
/* Each adds one function to e->mod. */
void emit_kernel(Emit *e, const Kernel *k);
void emit_main(Emit *e);
void emit_plan(Emit *e);

#endif
