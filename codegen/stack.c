/* stack.c - do the inner loops of a kernel keep vectors on the stack? Asked of the finished code, since only the register allocator knows. */
#include <stdlib.h>

#include "llvm.h"

typedef struct { uint64_t at, back; bool stack, fused, adds, multiplies, subtracts; } Instruction;   /* back: where a jump backwards goes; else UINT64_MAX */
typedef VEC(Instruction) Code;

static bool has_any(const char *text, const char *const *words) {
  for (; *words; words++)
    if (strstr(text, *words)) return true;
  return false;
}

/* In AT&T's syntax: "\tvmovups\t64(%rsp), %zmm3", "\tjne\t-204" (from the end of the instruction). */
static Instruction instruction(const char *text, uint64_t at, size_t size) {
  static const char *const vectors[] = {"%xmm", "%ymm", "%zmm", NULL};
  Instruction i = {at, UINT64_MAX, strstr(text, "(%rsp") && has_any(text, vectors), strstr(text, "fmadd"), strstr(text, "addps"), strstr(text, "mulps"),
                   strstr(text, "subps")};
  const char *operand = text[0] == '\t' && text[1] == 'j' ? strchr(text + 1, '\t') : NULL;
  if (operand && operand[1] == '-') i.back = at + size - strtoull(operand + 2, NULL, 10);
  return i;
}

static void read_code(Ctx *c, LLVMDisasmContextRef d, const uint8_t *bytes, uint64_t size, Code *out) {
  char text[256];
  for (uint64_t at = 0; at < size;) {
    size_t n = LLVMDisasmInstruction(d, (uint8_t *)bytes + at, size - at, at, text, sizeof text);
    if (n) vec_push(c, out, instruction(text, at, n));
    at += n ? n : 1;                                         /* between functions */
  }
}

static bool jumps_inside(const Code *code, int first, int last) {
  for (int i = first; i < last; i++)
    if (code->v[i].back >= code->v[first].at && code->v[i].back <= code->v[i].at) return true;
  return false;
}

static int index_of(const Code *code, int last, uint64_t at) {
  while (last > 0 && code->v[last].at > at) last--;
  return last;
}

/* Does the loop do nothing but add products up? Others (transforms, functions) have no smaller tile to take. */
static bool adds_products(const Code *code, int first, int last) {
  int fused = 0, adds = 0, multiplies = 0, subtracts = 0;
  for (int i = first; i <= last; i++) {
    const Instruction *in = &code->v[i];
    fused += in->fused, adds += in->adds, multiplies += in->multiplies, subtracts += in->subtracts;
  }
  return !subtracts && (fused ? !adds && !multiplies : adds && adds == multiplies);
}

/* The largest share of such an innermost loop's instructions that reach for vectors on the stack. */
static double worst_share(const Code *code) {
  double worst = 0;
  for (int last = 0; last < code->n; last++) {
    if (code->v[last].back == UINT64_MAX) continue;
    int first = index_of(code, last, code->v[last].back), stack = 0;
    if (jumps_inside(code, first, last) || !adds_products(code, first, last)) continue;
    for (int i = first; i <= last; i++) stack += code->v[i].stack;
    worst = MAX(worst, (double)stack / (last + 1 - first));
  }
  return worst;
}

double stack_share(Ctx *c, const Target *t, const char *object, size_t size) {
  LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRange(object, size, "kernel", false);
  LLVMBinaryRef file = LLVMCreateBinary(buffer, NULL, NULL);
  LLVMDisasmContextRef d = LLVMCreateDisasmCPUFeatures(t->triple, t->cpu, t->features, NULL, 0, NULL, NULL);
  double worst = 0;
  if (file && d) {
    LLVMSectionIteratorRef s = LLVMObjectFileCopySectionIterator(file);
    for (; !LLVMObjectFileIsSectionIteratorAtEnd(file, s); LLVMMoveToNextSection(s)) {
      const char *name = LLVMGetSectionName(s);
      Code code = {0};
      if (!name || strncmp(name, ".text", 5) != 0) continue;
      read_code(c, d, (const uint8_t *)LLVMGetSectionContents(s), LLVMGetSectionSize(s), &code);
      worst = MAX(worst, worst_share(&code));
    }
    LLVMDisposeSectionIterator(s);
  }
  if (d) LLVMDisasmDispose(d);
  if (file) LLVMDisposeBinary(file);
  LLVMDisposeMemoryBuffer(buffer);
  return worst;
}
