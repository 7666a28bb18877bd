/* llvm_module.c - from LLVM modules to objects: target machines, the pass pipeline, one module a kernel on several threads. */
#include <pthread.h>
#include <stdlib.h>

#include "../passes/passes.h"
#include "../passes/stages.h"
#include "../passes/threads.h"
#include "llvm.h"

/* What runs before code generation: vectors, unrolling and tiles are already chosen, so only cleaning is left (and no vectoriser). */
static const char *const pipeline =
    "always-inline,function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm),gvn,"
    "instcombine<no-verify-fixpoint>,simplifycfg),globaldce";

static void start_llvm(void) {
  /* The machine scheduler's estimate of cyclic paths makes it hoist loads until registers spill in unrolled tiles. */
  static const char *const args[] = {"dlc", "-misched-cyclicpath=false", "-disable-lsr"};
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
  LLVMInitializeX86Disassembler();
  LLVMParseCommandLineOptions(COUNT(args), args, "");
}

static void start_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, start_llvm);
}

static const char *take_message(Ctx *c, char *message) {
  const char *copy = ctx_printf(c, "%s", message ? message : "?");
  LLVMDisposeMessage(message);
  return copy;
}

const char *emit_host_cpu(Ctx *c, const char **features) {
  start_once();
  *features = take_message(c, LLVMGetHostCPUFeatures());
  return take_message(c, LLVMGetHostCPUName());
}

static LLVMTargetMachineRef machine_new(Ctx *c, const Target *t) {
  LLVMTargetRef target;
  char *error = NULL;
  start_once();
  if (LLVMGetTargetFromTriple(t->triple, &target, &error)) diag_fail(c, E0701, NULL, NULL, "LLVM: %s", take_message(c, error));
  return LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features, LLVMCodeGenLevelAggressive, LLVMRelocPIC, LLVMCodeModelSmall);
}

void function_attribute(Emit *e, Ref fn, unsigned index, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(fn, index, LLVMCreateEnumAttribute(e->lc, kind, 0));
}

static void text_attribute(Emit *e, Ref fn, const char *key, const char *text) {
  LLVMAddAttributeAtIndex(fn, (unsigned)LLVMAttributeFunctionIndex, LLVMCreateStringAttribute(e->lc, key, (unsigned)strlen(key), text, (unsigned)strlen(text)));
}

void function_target(Emit *e, Ref fn) {
  const char *bits = ctx_printf(e->c, "%d", e->m->target->vector_bits);
  text_attribute(e, fn, "target-cpu", e->m->target->cpu);
  text_attribute(e, fn, "target-features", e->m->target->features);
  text_attribute(e, fn, "prefer-vector-width", bits);
  text_attribute(e, fn, "min-legal-vector-width", bits);
  function_attribute(e, fn, (unsigned)LLVMAttributeFunctionIndex, "nounwind");
}

static void emit_close(void *emit) {
  Emit *e = emit;
  LLVMDisposeBuilder(e->b);
  LLVMDisposeModule(e->mod);
  LLVMContextDispose(e->lc);
}

/* Until c goes. */
static Emit *emit_open(Ctx *c, Module *m, const Facts *facts, LLVMTargetMachineRef machine) {
  Emit *e = NEW(c, Emit);
  *e = (Emit){.c = c, .m = m, .facts = facts, .syms = map_new(c), .memo = map_new(c), .bases = map_new(c)};
  e->lc = LLVMContextCreate();
  e->mod = LLVMModuleCreateWithNameInContext("dlc", e->lc);
  e->b = LLVMCreateBuilderInContext(e->lc);
  ctx_defer(c, emit_close, e);
  LLVMSetTarget(e->mod, m->target->triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
  LLVMSetModuleDataLayout(e->mod, layout);
  LLVMDisposeTargetData(layout);
  e->i1 = LLVMInt1TypeInContext(e->lc);
  e->i8 = LLVMInt8TypeInContext(e->lc);
  e->i32 = LLVMInt32TypeInContext(e->lc);
  e->i64 = LLVMInt64TypeInContext(e->lc);
  e->ptr = LLVMPointerTypeInContext(e->lc, 0);
  LLVMTypeRef zeros = LLVMArrayType2(e->i8, 512);            /* where loads that must not happen read */
  e->zeros = LLVMAddGlobal(e->mod, zeros, "zeros");
  LLVMSetInitializer(e->zeros, LLVMConstNull(zeros));
  LLVMSetGlobalConstant(e->zeros, true);
  LLVMSetLinkage(e->zeros, LLVMInternalLinkage);
  LLVMSetAlignment(e->zeros, 64);
  memo_start(e);
  return e;
}

static const char *optimise(Emit *e, LLVMTargetMachineRef machine) {
  char *error = NULL;
  if (LLVMVerifyModule(e->mod, LLVMReturnStatusAction, &error)) return take_message(e->c, error);
  LLVMDisposeMessage(error);
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMErrorRef failed = LLVMRunPasses(e->mod, pipeline, machine, options);
  LLVMDisposePassBuilderOptions(options);
  return failed ? ctx_printf(e->c, "%s", LLVMGetErrorMessage(failed)) : NULL;
}

/* ---- jobs: one module each ---- */
typedef enum { AS_OBJECT, AS_ASSEMBLY, AS_IR } OutputKind;
/* failed: its diagnostics say why. stack: of objects, stack_share. */
typedef struct { char *bytes; size_t size; char *error; Ctx *failed; double stack; } Output;
typedef struct { Module *m; Facts facts; OutputKind kind; Output *outputs; int64_t next; int count; } Jobs;

static void add_functions(Emit *e, int job) {
  if (job < e->m->kernels.n) { emit_kernel(e, e->m->kernels.v[job]); return; }
  emit_main(e);
  emit_plan(e);
}

static void write_output(Emit *e, LLVMTargetMachineRef machine, OutputKind kind, Output *out) {
  if (kind == AS_IR) {
    char *text = LLVMPrintModuleToString(e->mod);
    out->bytes = strdup(text);
    out->size = strlen(text);
    LLVMDisposeMessage(text);
    return;
  }
  LLVMMemoryBufferRef buffer;
  char *error = NULL;
  if (LLVMTargetMachineEmitToMemoryBuffer(machine, e->mod, kind == AS_OBJECT ? LLVMObjectFile : LLVMAssemblyFile, &error, &buffer)) {
    out->error = strdup(error ? error : "?");
    return;
  }
  out->size = LLVMGetBufferSize(buffer);
  out->bytes = malloc(out->size + 1);
  memcpy(out->bytes, LLVMGetBufferStart(buffer), out->size);
  out->bytes[out->size] = 0;
  LLVMDisposeMemoryBuffer(buffer);
}

static void run_job(Jobs *jobs, int job, LLVMTargetMachineRef machine) {
  Ctx *c = ctx_new();
  Diags *d = ctx_diags(c);
  Output *out = &jobs->outputs[job];
  if (setjmp(d->unwind)) {
    out->failed = c;
    return;
  }
  d->armed = true;
  d->reading = ctx_diags(jobs->m->c)->reading;
  Emit *e = emit_open(c, jobs->m, &jobs->facts, machine);
  add_functions(e, job);
  const char *error = optimise(e, machine);
  if (error) out->error = strdup(error);
  else write_output(e, machine, jobs->kind, out);
  ctx_free(c);
}

static void measure_stack(Ctx *c, const Jobs *jobs, int64_t job) {
  Output *out = &jobs->outputs[job];
  if (out->bytes && jobs->kind == AS_OBJECT && job < jobs->m->kernels.n) out->stack = stack_share(c, jobs->m->target, out->bytes, out->size);
}

static void work(void *user) {
  Jobs *jobs = user;
  Ctx *c = ctx_new();
  LLVMTargetMachineRef machine = machine_new(c, jobs->m->target);
  for (int64_t job; (job = threads_take(&jobs->next)) < jobs->count;) run_job(jobs, (int)job, machine), measure_stack(c, jobs, job);
  LLVMDisposeTargetMachine(machine);
  ctx_free(c);
}

/* ---- before the threads: expressions may still be made ---- */
typedef struct { Ctx *c; Map *nonneg; } Signs;
static void note_sign(const Expr *e, void *user) {
  Signs *s = user;
  if ((e->op == EX_DIV || e->op == EX_MOD) && dtype_is_int((DType)e->dtype) && expr_range(s->c, e->a[0]).min >= 0 &&
      expr_range(s->c, e->a[1]).min > 0)
    map_set(s->nonneg, KEY(e), (void *)e);
}

static void note_signs(Signs *s, const Stmt *st) {
  if (st->extent) expr_visit(st->extent, note_sign, s);
  if (st->index) expr_visit(st->index, note_sign, s);
  if (st->value) expr_visit(st->value, note_sign, s);
  for (int i = 0; i < st->n; i++)
    if (st->body[i]) note_signs(s, st->body[i]);
}

static void prepare_kernel(Jobs *jobs, Kernel *k) {
  Ctx *c = jobs->m->c;
  Signs signs = {c, &jobs->facts.nonneg};
  k->body = math_expand(c, k->body);
  note_signs(&signs, k->body);
  masks_note(c, &jobs->facts.loose, k->body);
}

static void free_output(Output *out) {
  free(out->bytes);
  free(out->error);
  if (out->failed) ctx_free(out->failed);
  *out = (Output){0};
}

static void free_outputs(void *user) {
  Jobs *jobs = user;
  for (int i = 0; i < jobs->count; i++) free_output(&jobs->outputs[i]);
}

/* Until m->c goes. */
static Jobs *prepare(Module *m, OutputKind kind) {
  Jobs *jobs = NEW(m->c, Jobs);
  *jobs = (Jobs){.m = m, .facts = {map_new(m->c), map_new(m->c)}, .kind = kind, .count = m->kernels.n + 1};
  for (int i = 0; i < m->kernels.n; i++) prepare_kernel(jobs, m->kernels.v[i]);
  jobs->outputs = NEW_ARRAY(m->c, Output, jobs->count);
  ctx_defer(m->c, free_outputs, jobs);
  return jobs;
}

static const char *job_name(Module *m, int job) { return job < m->kernels.n ? m->kernels.v[job]->name : "main"; }

static void check_outputs(const Jobs *jobs) {
  Module *m = jobs->m;
  for (int i = 0; i < jobs->count; i++) {
    if (jobs->outputs[i].failed) diag_pass_on(m->c, jobs->outputs[i].failed);
    if (jobs->outputs[i].error) diag_bug(m->c, "LLVM refuses %s: %s", job_name(m, i), jobs->outputs[i].error);
  }
}

/* ---- tiles whose sums do not stay in registers ---- */
static bool same_param(const Tensor *a, const Tensor *b) {
  if (a == b) return true;
  return a->data && a->data == b->data && a->layout && b->layout && !memcmp(a->layout, b->layout, sizeof *a->layout);
}

static bool fits_scratch(Ctx *c, const Kernel *next, const Kernel *k) {
  if (next->scratch_bytes == k->scratch_bytes || !next->scratch_bytes) return true;
  return k->scratch_bytes && expr_proves(c, ex_le(c, next->scratch_bytes, k->scratch_bytes));
}

/* May next be called where k is, with the memory that was planned for k? */
static bool stands_for(const Module *m, const Kernel *next, const Kernel *k) {
  if (next->nparams != k->nparams || next->dims.n != k->dims.n || !fits_scratch(m->c, next, k)) return false;
  for (int i = 0; i < k->dims.n; i++)
    if (next->dims.v[i] != k->dims.v[i]) return false;
  for (int i = 0; i < k->nparams; i++)
    if (!same_param(next->params[i], k->params[i]) || next->writes[i] != k->writes[i]) return false;
  for (int o = 0; k->shares && o < k->nparams; o++)
    for (int i = 0; i < k->nparams; i++)
      if (k->shares[o] && k->shares[i] && k->writes[o] && !k->writes[i] && !memplan_reads_in_place(next->body, next->params[o], next->params[i])) return false;
  return true;
}

/* The kernel with the next smaller tile; NULL if there is none, or if the model finds it slower than it finds the stack. */
static Kernel *next_tile(Module *m, const Kernel *k, double stack) {
  if (!k->group) return NULL;
  k->group->tile++;
  Kernel *next = m->schedule(m, k->group, k->name);
  if (!(k->group->price > 0) || k->group->price > 1 + stack || !stands_for(m, next, k)) return NULL;
  next->shares = k->shares;
  return next;
}

/* Tries smaller tiles for a kernel whose code uses the stack. */
static bool settle(Jobs *jobs, int job, LLVMTargetMachineRef machine) {
  Module *m = jobs->m;
  Kernel *k = m->kernels.v[job], best = *k, *next;
  Output *out = &jobs->outputs[job];
  double before = out->stack;
  while (out->stack > 0 && (next = next_tile(m, k, out->stack))) {
    Output kept = *out;
    prepare_kernel(jobs, next);
    *k = *next;
    *out = (Output){0};
    run_job(jobs, job, machine);
    measure_stack(m->c, jobs, job);
    bool better = !out->failed && !out->error && out->stack < kept.stack;
    if (better) best = *k, free(kept.bytes);
    else free_output(out), *out = kept;
  }
  *k = best;
  if (before > 0 && m->opt->explain)
    str_add(&m->notes, "  %s: %.1f %% of an inner loop reach for vectors on the stack%s\n", k->name, 100 * before,
            out->stack < before ? ctx_printf(m->c, "; with a smaller tile %.1f %%", 100 * out->stack) : "");
  return out->stack < before;
}

static void run_jobs(Jobs *jobs) {
  start_once();
  jobs->next = 0;
  threads_run(threads_wanted(jobs->m, jobs->count), work, jobs);
  check_outputs(jobs);
}

/* Tiles are settled on objects, whatever is asked for. */
static void finish(Jobs *jobs) {
  OutputKind kind = jobs->kind;
  int main = jobs->count - 1;
  bool other = false;
  jobs->kind = AS_OBJECT;
  run_jobs(jobs);
  LLVMTargetMachineRef machine = machine_new(jobs->m->c, jobs->m->target);
  for (int i = 0; i < main; i++) other |= settle(jobs, i, machine);
  jobs->kind = kind;
  if (kind != AS_OBJECT) free_outputs(jobs), run_jobs(jobs);
  else if (other) free_output(&jobs->outputs[main]), run_job(jobs, main, machine);
  LLVMDisposeTargetMachine(machine);
  check_outputs(jobs);
}

void emit_kernels(Module *m, ObjectList *out) {
  Jobs *jobs = prepare(m, AS_OBJECT);
  finish(jobs);
  for (int i = 0; i < jobs->count; i++) vec_push(m->c, out, ((Object){job_name(m, i), jobs->outputs[i].bytes, jobs->outputs[i].size}));
}

const char *emit_text(Module *m, const char *what) {
  Jobs *jobs = prepare(m, strcmp(what, "ll") ? AS_ASSEMBLY : AS_IR);
  Str s = str_new(m->c);
  finish(jobs);
  for (int i = 0; i < jobs->count; i++) str_add(&s, "%s\n", jobs->outputs[i].bytes);
  return s.s;
}

void emit_ir_text(Module *m, const char *name, const char *llvm_ir, ObjectList *out) {
  LLVMTargetMachineRef machine = machine_new(m->c, m->target);
  LLVMContextRef lc = LLVMContextCreate();
  LLVMMemoryBufferRef text = LLVMCreateMemoryBufferWithMemoryRangeCopy(llvm_ir, strlen(llvm_ir), name), object;
  LLVMModuleRef mod;
  char *error = NULL;
  if (LLVMParseIRInContext(lc, text, &mod, &error)) diag_bug(m->c, "%s: %s", name, error);
  LLVMSetTarget(mod, m->target->triple);
  if (LLVMTargetMachineEmitToMemoryBuffer(machine, mod, LLVMObjectFile, &error, &object)) diag_bug(m->c, "%s: %s", name, error);
  size_t size = LLVMGetBufferSize(object);
  vec_push(m->c, out, ((Object){name, ctx_copy(m->c, LLVMGetBufferStart(object), size), size}));
  LLVMDisposeMemoryBuffer(object);
  LLVMDisposeModule(mod);
  LLVMContextDispose(lc);
  LLVMDisposeTargetMachine(machine);
}

/* ---- kernels run in this process ---- */
typedef void NativeRun(void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch);
struct Native { Ctx *c; LLVMOrcLLJITRef jit; NativeRun *run; };

static void must(Ctx *c, LLVMErrorRef error) {
  if (error) diag_bug(c, "LLVM cannot run a kernel here: %s", LLVMGetErrorMessage(error));
}

static LLVMOrcLLJITRef jit_of(Ctx *c, const Output *object) {
  LLVMOrcLLJITRef jit;
  LLVMOrcDefinitionGeneratorRef process;
  must(c, LLVMOrcCreateLLJIT(&jit, NULL));
  must(c, LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(&process, LLVMOrcLLJITGetGlobalPrefix(jit), NULL, NULL));
  LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(jit), process);
  must(c, LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit),
                                    LLVMCreateMemoryBufferWithMemoryRangeCopy(object->bytes, object->size, "kernel")));
  return jit;
}

Native *native_load(Module *h, Kernel *k) {
  Native *n = NEW(h->c, Native);
  VEC(Kernel *) one = {0};
  vec_push(h->c, &one, k);
  h->kernels.v = one.v;
  h->kernels.n = 1;
  Jobs *jobs = prepare(h, AS_OBJECT);
  LLVMTargetMachineRef machine = machine_new(h->c, h->target);
  LLVMOrcExecutorAddress address;
  jobs->count = 1;
  run_job(jobs, 0, machine);
  LLVMDisposeTargetMachine(machine);
  check_outputs(jobs);
  *n = (Native){.c = h->c, .jit = jit_of(h->c, &jobs->outputs[0])};
  must(h->c, LLVMOrcLLJITLookup(n->jit, &address, k->name));
  n->run = (NativeRun *)address;
  free_output(&jobs->outputs[0]);
  return n;
}

void native_run(const Native *n, void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch) {
  n->run(params, dims, lo, hi, scratch);
}

void native_free(Native *n) { must(n->c, LLVMOrcDisposeLLJIT(n->jit)); }
