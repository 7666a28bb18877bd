/* llvm_module.c - from LLVM modules to objects: target machines, the pass pipeline, one module a kernel on several threads. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

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
typedef struct { char *bytes; size_t size; char *error; Ctx *failed; } Output;   /* failed: its diagnostics say why */
typedef struct { Module *m; Facts facts; OutputKind kind; Output *outputs; int next, count; } Jobs;

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
  if (setjmp(d->unwind)) {
    jobs->outputs[job].failed = c;
    return;
  }
  d->armed = true;
  d->reading = ctx_diags(jobs->m->c)->reading;
  Emit *e = emit_open(c, jobs->m, &jobs->facts, machine);
  add_functions(e, job);
  const char *error = optimise(e, machine);
  if (error) jobs->outputs[job].error = strdup(error);
  else write_output(e, machine, jobs->kind, &jobs->outputs[job]);
  ctx_free(c);
}

static void *worker(void *user) {
  Jobs *jobs = user;
  Ctx *c = ctx_new();
  LLVMTargetMachineRef machine = machine_new(c, jobs->m->target);
  for (int job; (job = __atomic_fetch_add(&jobs->next, 1, __ATOMIC_RELAXED)) < jobs->count;) run_job(jobs, job, machine);
  LLVMDisposeTargetMachine(machine);
  ctx_free(c);
  return NULL;
}

static void run_jobs(Module *m, Jobs *jobs) {
  pthread_t threads[64];
  int n = m->opt->jobs > 0 ? m->opt->jobs : (int)sysconf(_SC_NPROCESSORS_ONLN);
  n = MIN(MIN(n, jobs->count), COUNT(threads));
  start_once();
  for (int i = 1; i < n; i++)
    if (pthread_create(&threads[i], NULL, worker, jobs)) n = i;
  worker(jobs);
  for (int i = 1; i < n; i++) pthread_join(threads[i], NULL);
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

static Jobs prepare(Module *m, OutputKind kind) {
  Jobs jobs = {.m = m, .facts = {map_new(m->c), map_new(m->c)}, .kind = kind, .count = m->kernels.n + 1};
  Signs signs = {m->c, &jobs.facts.nonneg};
  for (int i = 0; i < m->kernels.n; i++) {
    m->kernels.v[i]->body = math_expand(m->c, m->kernels.v[i]->body);
    note_signs(&signs, m->kernels.v[i]->body);
    masks_note(m->c, &jobs.facts.loose, m->kernels.v[i]->body);
  }
  jobs.outputs = NEW_ARRAY(m->c, Output, jobs.count);
  return jobs;
}

static const char *job_name(Module *m, int job) { return job < m->kernels.n ? m->kernels.v[job]->name : "main"; }

static void free_bytes(void *p) { free(p); }
static void free_ctx(void *c) { ctx_free(c); }

static void check_outputs(Module *m, const Jobs *jobs) {
  for (int i = 0; i < jobs->count; i++)
    if (jobs->outputs[i].failed) ctx_defer(m->c, free_ctx, jobs->outputs[i].failed);
  for (int i = 0; i < jobs->count; i++) {
    if (jobs->outputs[i].failed) diag_pass_on(m->c, jobs->outputs[i].failed);
    if (jobs->outputs[i].error) diag_bug(m->c, "LLVM refuses %s: %s", job_name(m, i), jobs->outputs[i].error);
  }
}

static void finish(Module *m, Jobs *jobs) {
  run_jobs(m, jobs);
  for (int i = 0; i < jobs->count; i++)
    if (jobs->outputs[i].bytes) ctx_defer(m->c, free_bytes, jobs->outputs[i].bytes);
  check_outputs(m, jobs);
}

void emit_kernels(Module *m, ObjectList *out) {
  Jobs jobs = prepare(m, AS_OBJECT);
  finish(m, &jobs);
  for (int i = 0; i < jobs.count; i++) vec_push(m->c, out, ((Object){job_name(m, i), jobs.outputs[i].bytes, jobs.outputs[i].size}));
}

const char *emit_text(Module *m, const char *what) {
  Jobs jobs = prepare(m, strcmp(what, "ll") ? AS_ASSEMBLY : AS_IR);
  Str s = str_new(m->c);
  finish(m, &jobs);
  for (int i = 0; i < jobs.count; i++) str_add(&s, "%s\n", jobs.outputs[i].bytes);
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
  Jobs jobs = prepare(h, AS_OBJECT);
  LLVMTargetMachineRef machine = machine_new(h->c, h->target);
  LLVMOrcExecutorAddress address;
  jobs.count = 1;
  run_job(&jobs, 0, machine);
  LLVMDisposeTargetMachine(machine);
  check_outputs(h, &jobs);
  *n = (Native){.c = h->c, .jit = jit_of(h->c, &jobs.outputs[0])};
  must(h->c, LLVMOrcLLJITLookup(n->jit, &address, k->name));
  n->run = (NativeRun *)address;
  free(jobs.outputs[0].bytes);
  return n;
}

void native_run(const Native *n, void *const *params, const int64_t *dims, int64_t lo, int64_t hi, void *scratch) {
  n->run(params, dims, lo, hi, scratch);
}

void native_free(Native *n) { must(n->c, LLVMOrcDisposeLLJIT(n->jit)); }
