/* t_runtime.c - the runtime around a model written by hand: a f32[N,M] and b i64[N] give y f32[N,M] = 2a + 1 (through
 * the arena) and k i64[K], the positive elements of b: K is decided by the data. */
#include <CUnit/Basic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../runtime/model.h"

enum { MAX_N = 1000, STEPS = 5 };

/* ---- the model ---- */
static float weights_data[2] = {2, 1};
static _Atomic int hold, held; /* the kernel waits while hold is set */

static void scale(void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, char *scratch) {
  const float *a = bufs[0], *w = bufs[1];
  float *t = bufs[2], *row = (float *)(void *)scratch;
  while (atomic_load(&hold)) atomic_store(&held, 1);
  for (int64_t i = lo; i < hi; i++) {
    for (int64_t j = 0; j < syms[1]; j++) row[j % 16] = a[i * syms[1] + j] * w[0], t[i * syms[1] + j] = row[j % 16];
  }
}

static void add(void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, char *scratch) {
  const float *t = bufs[2], *w = bufs[1];
  float *y = bufs[3];
  for (int64_t i = lo * syms[1]; i < hi * syms[1]; i++) y[i] = t[i] + w[1];
}

static void positive(void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, char *scratch) {
  const int64_t *b = bufs[0];
  int64_t *k = bufs[1], n = 0;
  for (int64_t i = 0; i < syms[0]; i++)
    if (b[i] > 0) k[n++] = b[i];
  *(int64_t *)bufs[2] = n;
}

enum { KEPT = 16 };                /* bytes of the arena that are to be zero before the first run */
static bool were_zero;             /* so they were when the last run began */

static int32_t plan(const int64_t *syms, int64_t *result) {
  int64_t n;
  if (__builtin_mul_overflow(syms[0], syms[1], &n) || __builtin_mul_overflow(n, 4, &result[DLC_PLAN_ARENA])) return 1;
  result[DLC_PLAN_ZEROED] = result[DLC_PLAN_ARENA] < KEPT ? 0 : KEPT;
  result[DLC_PLAN_SCRATCH] = 64;
  memcpy(&result[DLC_PLAN_DIMS], syms, 3 * sizeof *syms);
  return 0;
}

static int32_t program(dlc_rt *rt, char *arena, const unsigned char *weights, void *const *io, int64_t *syms) {
  void *bufs[] = {io[0], (void *)weights, arena, io[2]}, *last[] = {io[1], io[3], &syms[2]};
  were_zero = true;
  for (int i = 0; i < KEPT && syms[0] * syms[1] * 4 >= KEPT; i++) were_zero &= !arena[i];
  for (int i = 0; i < 2; i++) {
    dlc_rt_parallel(rt, scale, bufs, syms, syms[0]);
    dlc_rt_parallel(rt, add, bufs, syms, syms[0]);
  }
  if (((int64_t *)io[1])[0] == -77) return DLC_E_INTERNAL;
  dlc_rt_serial(rt, positive, last, syms, 1);
  return 0;
}

static char features[64] = "sse2,avx99,+fma4,-xop,amx-fp16";
static const int64_t a_dims[] = {-1, -1}, b_dims[] = {-1}, low[] = {1, 1}, high[] = {MAX_N, (int64_t)1 << 60},
                     k_low[] = {0};
static const char *const a_names[] = {"N", "M"}, *const k_names[] = {"K"};
static const dlc_io inputs[] = {{"a", {2, 32, 1}, 2, a_dims, a_names, low, high},
                                {"b", {0, 64, 1}, 1, b_dims, a_names, low, high}};
static const dlc_io outputs[] = {{"y", {2, 32, 1}, 2, a_dims, a_names, low, high},
                                 {"k", {0, 64, 1}, 1, b_dims, k_names, k_low, high}};
static const int32_t in_sym[] = {0, 1, 0}, out_sym[] = {0, 1, 2};
static const int64_t sym_min[] = {1, 1, 0}, sym_max[] = {MAX_N, (int64_t)1 << 60, MAX_N};
static const char *const sym_names[] = {"N", "M", "K"};
static dlc_rt_kernel *const kernels[] = {scale, add, positive};
static const char *const kernel_names[] = {"scale", "add", "positive"};
const dlc_rt_desc dlc_rt_this = {
    .name = "toy", .info_json = "{}", .cpu_features = features, .n_inputs = 2, .n_outputs = 2, .n_syms = 3, .default_threads = 2,
    .inputs = inputs, .outputs = outputs, .in_sym = in_sym, .out_sym = out_sym, .sym_min = sym_min, .sym_max = sym_max,
    .sym_names = sym_names, .weights = (const unsigned char *)weights_data, .weights_bytes = 8, .plan = plan,
    .main = program, .n_kernels = 3, .kernels = kernels, .kernel_names = kernel_names};

/* ---- a call ---- */
typedef struct {
  float *a, *y;
  int64_t *b, *k, a_shape[2], b_shape[1], y_shape[2], k_shape[1];
  DLTensor ta, tb, ty, tk;
} Call;

static DLTensor tensor(void *data, int code, int bits, int rank, int64_t *shape) {
  return (DLTensor){
      .data = data, .device = {1, 0}, .ndim = rank, .dtype = {(uint8_t)code, (uint8_t)bits, 1}, .shape = shape};
}

static Call call_new(int64_t n, int64_t m) {
  size_t elements = (size_t)(n * m);
  Call c = {malloc(elements * 4),
            malloc(elements * 4),
            malloc((size_t)n * 8),
            malloc(MAX_N * 8),
            {n, m},
            {n},
            {n, m},
            {MAX_N},
            {0},
            {0},
            {0},
            {0}};
  for (size_t i = 0; i < elements; i++) c.a[i] = (float)i * 0.37f - 5;
  for (int64_t i = 0; i < n; i++) c.b[i] = i % 3 - 1;
  memset(c.y, 0, elements * 4);
  return c;
}

static void call_free(Call *c) { free(c->a), free(c->y), free(c->b), free(c->k); }

static int run(dlc_ctx *ctx, Call *c) {
  c->k_shape[0] = MAX_N;
  c->ta = tensor(c->a, 2, 32, 2, c->a_shape), c->tb = tensor(c->b, 0, 64, 1, c->b_shape);
  c->ty = tensor(c->y, 2, 32, 2, c->y_shape), c->tk = tensor(c->k, 0, 64, 1, c->k_shape);
  return dlc_rt_run(ctx, (const DLTensor *[]){&c->ta, &c->tb}, 2, (DLTensor *[]){&c->ty, &c->tk}, 2);
}

static int wrong(const Call *c) {
  int bad = 0;
  for (int64_t i = 0; i < c->a_shape[0] * c->a_shape[1]; i++) bad += c->y[i] != c->a[i] * 2 + 1;
  return bad + (c->k_shape[0] != c->a_shape[0] / 3) + (c->k_shape[0] && c->k[c->k_shape[0] - 1] != 1);
}

static dlc_ctx *context(dlc_opts opts) {
  opts.struct_size = sizeof opts;
  dlc_ctx *ctx = NULL;
  CU_ASSERT_EQUAL_FATAL(dlc_rt_ctx_new(&opts, &ctx), DLC_OK);
  return ctx;
}

/* ---- tests ---- */
static void test_host(void) { /* first: a good answer is remembered */
  char why[64], tiny[12];
  dlc_ctx *ctx = (dlc_ctx *)features;
  CU_ASSERT_EQUAL(dlc_rt_check_host(why, sizeof why), DLC_E_CPU);
  CU_ASSERT_PTR_NOT_NULL(strstr(why, "this CPU lacks fma4"));
  CU_ASSERT_PTR_NULL(strstr(why, "sse2"));
  CU_ASSERT_PTR_NULL(strstr(why, "xop"));
  CU_ASSERT_EQUAL(dlc_rt_check_host(tiny, sizeof tiny), DLC_E_CPU);
  CU_ASSERT_STRING_EQUAL(tiny, "this CPU la");
  CU_ASSERT_EQUAL(dlc_rt_ctx_new(NULL, &ctx), DLC_E_CPU);
  CU_ASSERT_PTR_NULL(ctx);
  strcpy(features, "sse2,64bit,cx8,fast-15bytenop");
  CU_ASSERT_EQUAL(dlc_rt_check_host(why, sizeof why), DLC_OK);
}

static void host_pool(void *user, int32_t n, void (*task)(void *, int32_t), void *arg) {
  ++*(int *)user;
  for (int32_t i = n; i-- > 0;) task(arg, i);
}

static void test_threads(void) {
  int jobs = 0;
  for (int threads = 1; threads <= 8; threads++)
    for (int kind = 0; kind < 3; kind++) {
      dlc_opts o = {.threads = threads, .spin_us = kind == 1 ? -1 : 0};
      if (kind == 2) o.parallel_for = host_pool, o.parallel_user = &jobs;
      dlc_ctx *ctx = context(o);
      int64_t sizes[][2] = {{7, 300}, {1, 5}, {MAX_N, 33}, {3, 1}};
      for (int s = 0; s < 4; s++) {
        Call c = call_new(sizes[s][0], sizes[s][1]);
        for (int again = 0; again < (s ? 20 : 3); again++) {
          memset(c.y, 0xff, (size_t)(sizes[s][0] * sizes[s][1]) * 4);
          CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
          CU_ASSERT_EQUAL(wrong(&c), 0);
        }
        call_free(&c);
      }
      dlc_rt_ctx_free(ctx);
    }
  CU_ASSERT_EQUAL(jobs, 7 * 4 * (3 + 20 + 20)); /* not for one thread, not for N = 1 */
}

static void test_many_joins(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 4, .spin_us = 5});
  Call c = call_new(8, 16);
  int bad = 0;
  for (int i = 0; i < 5000; i++) {
    c.a[i % 128] += 1;
    bad += run(ctx, &c) != DLC_OK || wrong(&c);
    if (i % 1000 == 999) usleep(1000); /* long enough that workers sleep */
  }
  CU_ASSERT_EQUAL(bad, 0);
  call_free(&c);
  dlc_rt_ctx_free(ctx);
}

static void test_errors(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 1});
  Call c = call_new(4, 8);
  const DLTensor *in[] = {&c.ta, &c.tb};
  DLTensor *out[] = {&c.ty, &c.tk};
  int64_t strides[] = {1, 4};
#define EXPECT(change, code, text)                                                                                     \
  do {                                                                                                                 \
    run(ctx, &c);                                                                                                      \
    c.k_shape[0] = MAX_N;                                                                                              \
    change;                                                                                                            \
    CU_ASSERT_EQUAL(dlc_rt_run(ctx, in, 2, out, 2), code);                                                             \
    CU_ASSERT_STRING_EQUAL(dlc_rt_last_error(ctx), text);                                                              \
    in[1] = &c.tb, c.a_shape[0] = c.b_shape[0] = c.y_shape[0] = 4, c.a_shape[1] = c.y_shape[1] = 8, c.b[0] = -1;       \
  } while (0)
  EXPECT(c.ta.ndim = 1, DLC_E_SHAPE, "input 'a' has shape [4], wanted is [N,M]");
  EXPECT(c.a_shape[0] = 5, DLC_E_SHAPE, "input 'b' has shape [4], wanted is [N] with N = 5 as before");
  EXPECT(c.a_shape[0] = 0, DLC_E_SHAPE, "input 'a' has shape [0,8], wanted is [N,M] with 1 <= N <= 1000");
  EXPECT(c.y_shape[1] = 9, DLC_E_SHAPE, "output 'y' has shape [4,9], wanted is [4,8]");
  EXPECT((c.a_shape[1] = (int64_t)1 << 40), DLC_E_SHAPE, "output 'y' has shape [4,8], wanted is [4,1099511627776]");
  EXPECT(c.ta.dtype.bits = 64, DLC_E_DTYPE, "input 'a' has element type f64, wanted is f32");
  EXPECT(c.tk.dtype = ((DLDataType){6, 8, 1}), DLC_E_DTYPE, "output 'k' has element type bool, wanted is i64");
  EXPECT(c.ta.strides = strides, DLC_E_LAYOUT,
         "input 'a' has shape [4,8] and strides [1,4]; only row-major data without gaps is taken");
  EXPECT(c.ta.byte_offset = 2, DLC_E_LAYOUT, "input 'a' is not aligned to its elements");
  EXPECT(c.ta.device.device_type = 2, DLC_E_DEVICE, "input 'a' is on DLPack device 2, host memory (1) is wanted");
  EXPECT(in[1] = NULL, DLC_E_ARG, "input 'b' is NULL");
  EXPECT(c.ta.data = NULL, DLC_E_ARG, "input 'a' has no data");
  EXPECT(c.ty.data = c.a, DLC_E_ARG, "output 'y' overlaps 'a'");
  EXPECT(c.b[0] = -77, DLC_E_INTERNAL, "the model's program failed with code -99");
  EXPECT((void)0, DLC_OK, "");
  CU_ASSERT_EQUAL(wrong(&c), 0);
  CU_ASSERT_EQUAL(dlc_rt_run(ctx, in, 1, out, 2), DLC_E_ARG);
  CU_ASSERT_STRING_EQUAL(dlc_rt_last_error(ctx), "the model has 2 inputs and 2 outputs, the call gives 1 and 2");
  CU_ASSERT_EQUAL(dlc_rt_run(NULL, in, 2, out, 2), DLC_E_ARG);
  dlc_ctx *none;
  CU_ASSERT_EQUAL(dlc_rt_ctx_new(&(dlc_opts){0}, &none), DLC_E_ABI);
  CU_ASSERT_EQUAL(dlc_rt_ctx_new(&(dlc_opts){.struct_size = sizeof(dlc_opts), .threads = -1}, &none), DLC_E_ARG);
  call_free(&c);
  dlc_rt_ctx_free(ctx);
}

static void test_sizes_overflow(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 1});
  int64_t huge[] = {1000, (int64_t)1 << 60}, shape[2];
  DLTensor in[] = {tensor(NULL, 2, 32, 2, huge), tensor(NULL, 0, 64, 1, huge)};
  DLTensor out[] = {tensor(NULL, 2, 32, 0, shape), tensor(NULL, 0, 64, 0, shape)};
  CU_ASSERT_EQUAL(dlc_rt_infer_shapes(ctx, in, 2, out, 2), DLC_E_SHAPE);
  CU_ASSERT_STRING_EQUAL(dlc_rt_last_error(ctx),
                         "no valid sizes follow from N = 1000, M = 1152921504606846976, K = 1000");
  huge[1] = 3;
  CU_ASSERT_EQUAL(dlc_rt_infer_shapes(ctx, in, 2, out, 2), DLC_OK);
  CU_ASSERT(out[0].ndim == 2 && out[0].dtype.bits == 32 && out[1].ndim == 1 && shape[0] == MAX_N);
  dlc_rt_ctx_free(ctx);
}

static void test_shapes(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 1});
  Call c = call_new(6, 5);
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  CU_ASSERT_EQUAL(c.k_shape[0], 2); /* decided by the data */
  c.k_shape[0] = MAX_N;
  memset(c.y, 0, 4);
  c.ty.data = NULL, c.ty.ndim = 0, c.y_shape[0] = 99;
  const DLTensor *in[] = {&c.ta, &c.tb};
  DLTensor *out[] = {&c.ty, &c.tk};
  CU_ASSERT_EQUAL(dlc_rt_run(ctx, in, 2, out, 2), DLC_E_SHAPE_READY);
  CU_ASSERT(c.ty.ndim == 2 && c.y_shape[0] == 6 && c.y_shape[1] == 5);
  CU_ASSERT_EQUAL(c.y[0], 0);
  c.ty.shape = NULL;
  CU_ASSERT_EQUAL(dlc_rt_run(ctx, in, 2, out, 2), DLC_E_ARG);
  c.ta.strides = (int64_t[]){5, 1}; /* row-major, said aloud */
  c.ty.data = c.y, c.ty.shape = c.y_shape;
  CU_ASSERT_EQUAL(dlc_rt_run(ctx, in, 2, out, 2), DLC_OK);
  CU_ASSERT_EQUAL(wrong(&c), 0);
  call_free(&c);
  dlc_rt_ctx_free(ctx);
}

static int allocated;
static void *count_allocate(void *user, size_t bytes, size_t align) {
  if (*(int *)user) return NULL;
  allocated++;
  void *memory = aligned_alloc(align, (bytes + align - 1) / align * align);
  return memory ? memset(memory, 0x55, bytes) : NULL;
}
static void count_release(void *user, void *memory, size_t bytes) { allocated--, free(memory); }

static void test_memory(void) {
  int refuse = 0;
  dlc_opts o = {.struct_size = sizeof o,
                .threads = 3,
                .allocate = count_allocate,
                .release = count_release,
                .memory_user = &refuse};
  dlc_ctx *ctx = context(o);
  Call small = call_new(4, 8), large = call_new(500, 2000); /* 4 MB of arena */
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_OK);
  CU_ASSERT(were_zero);
  int before = allocated;
  CU_ASSERT_EQUAL(run(ctx, &large), DLC_OK);
  CU_ASSERT(were_zero);                                      /* in memory that is new */
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_OK);
  CU_ASSERT(!were_zero);                                     /* as the run before left them */
  CU_ASSERT_EQUAL(wrong(&large) + wrong(&small), 0);
  CU_ASSERT_EQUAL(allocated, before);
  CU_ASSERT_EQUAL(dlc_rt_trim(ctx), DLC_OK);
  CU_ASSERT_EQUAL(allocated, before - 1);
  refuse = 1;
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_E_NOMEM);
  refuse = 0;
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_OK);
  CU_ASSERT(were_zero);
  dlc_rt_ctx_free(ctx);
  CU_ASSERT_EQUAL(allocated, 0);
  refuse = 1;
  CU_ASSERT_EQUAL(dlc_rt_ctx_new(&o, &ctx), DLC_E_NOMEM);
  CU_ASSERT_EQUAL(allocated, 0);

  size_t bytes = 0;
  o = (dlc_opts){.struct_size = sizeof o, .threads = 3};
  CU_ASSERT_EQUAL(dlc_rt_workspace_size(&o, (int64_t[]){500, 2000, 0}, &bytes), DLC_OK);
  CU_ASSERT(bytes >= 4000000 && bytes < 4010000);
  CU_ASSERT_EQUAL(dlc_rt_workspace_size(&o, (int64_t[]){1001, 1, 0}, &bytes), DLC_E_SHAPE);
  CU_ASSERT_EQUAL(dlc_rt_workspace_size(&o, (int64_t[]){4, 8, 0}, &bytes), DLC_OK);
  char *memory = aligned_alloc(64, bytes / 64 * 64 + 64);
  CU_ASSERT_EQUAL(dlc_rt_ctx_init(memory, 100, &o, &ctx), DLC_E_NOMEM);
  CU_ASSERT_EQUAL(dlc_rt_ctx_init(memory + 8, bytes, &o, &ctx), DLC_E_ARG);
  CU_ASSERT_EQUAL(dlc_rt_ctx_init(memory, bytes, &o, &ctx), DLC_OK);
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_OK);
  CU_ASSERT_EQUAL(wrong(&small), 0);
  CU_ASSERT_EQUAL(run(ctx, &large), DLC_E_NOMEM);
  CU_ASSERT_EQUAL(dlc_rt_trim(ctx), DLC_OK);
  CU_ASSERT_EQUAL(run(ctx, &small), DLC_OK);
  dlc_rt_ctx_free(ctx);
  free(memory);
  call_free(&small), call_free(&large);
}

typedef struct {
  dlc_ctx *ctx;
  Call call;
  int code, bad;
} Job;

static void *job(void *arg) {
  Job *j = arg;
  for (int i = 0; i < 300 && !j->bad; i++) {
    j->code = run(j->ctx, &j->call);
    j->bad = j->code || wrong(&j->call);
  }
  return NULL;
}

static void *run_once(void *arg) {
  Job *j = arg;
  j->code = run(j->ctx, &j->call);
  return NULL;
}

static void test_two_contexts(void) {
  enum { N = 3 };                                            /* two share a copy of the weights, one has the library's */
  pthread_t t[N];
  Job jobs[N];
  for (int i = 0; i < N; i++) {
    jobs[i] = (Job){context((dlc_opts){.threads = 2, .flags = i < 2 ? DLC_COPY_WEIGHTS : DLC_SHARE_WEIGHTS}), call_new(40 + i, 30), 0, 0};
    pthread_create(&t[i], NULL, job, &jobs[i]);
  }
  for (int i = 0; i < N; i++) {
    pthread_join(t[i], NULL);
    CU_ASSERT_EQUAL(jobs[i].bad, 0);
    dlc_rt_ctx_free(jobs[i].ctx);
    call_free(&jobs[i].call);
  }
}

static void test_busy(void) {
  Job j = {context((dlc_opts){.threads = 2}), call_new(4, 4), 0, 0};
  Call other = call_new(4, 4);
  pthread_t t;
  atomic_store(&held, 0);
  atomic_store(&hold, 1);
  pthread_create(&t, NULL, run_once, &j);
  while (!atomic_load(&held)) usleep(100);
  CU_ASSERT_EQUAL(run(j.ctx, &other), DLC_E_BUSY);
  CU_ASSERT_EQUAL(dlc_rt_trim(j.ctx), DLC_E_BUSY);
  CU_ASSERT_EQUAL(dlc_rt_profile(j.ctx, NULL, 0), DLC_E_BUSY);
  atomic_store(&hold, 0);
  pthread_join(t, NULL);
  CU_ASSERT_EQUAL(j.code, DLC_OK);
  CU_ASSERT_EQUAL(wrong(&j.call), 0);
  CU_ASSERT_EQUAL(run(j.ctx, &other), DLC_OK);
  dlc_rt_ctx_free(j.ctx);
  call_free(&j.call), call_free(&other);
}

static void test_fork(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 3});
  Call c = call_new(30, 30);
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  fflush(NULL);
  pid_t child = fork();
  if (!child) {
    memset(c.y, 0, 3600);
    int bad = run(ctx, &c) || wrong(&c);
    dlc_rt_ctx_free(ctx);
    _exit(bad);
  }
  int status = 1;
  waitpid(child, &status, 0);
  CU_ASSERT_EQUAL(status, 0);
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  CU_ASSERT_EQUAL(wrong(&c), 0);
  dlc_rt_ctx_free(ctx);
  call_free(&c);
}

/* Denormal results by every thread, whatever mode the caller is in; and none where they are not wanted. */
static void test_denormals(void) {
  enum { FLUSH = 0x8040 }; /* of MXCSR */
  weights_data[1] = 0;
  for (int flush = 0; flush < 2; flush++) {
    dlc_ctx *ctx = context((dlc_opts){.threads = 2, .flags = flush ? DLC_FLUSH_DENORMALS : 0});
    Call c = call_new(2, 4);
    for (int i = 0; i < 8; i++) c.a[i] = 0x1p-140f;
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(flush ? mode : mode | FLUSH);
    int code = run(ctx, &c);
    unsigned after = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode);
    CU_ASSERT_EQUAL(code, DLC_OK);
    CU_ASSERT_EQUAL(after & FLUSH, flush ? 0 : FLUSH);
    float want = flush ? 0 : 0x1p-139f;
    for (int i = 0; i < 8; i++) CU_ASSERT_EQUAL(memcmp(&c.y[i], &want, 4), 0);
    dlc_rt_ctx_free(ctx);
    call_free(&c);
  }
  weights_data[1] = 1;
}

static void test_profile(void) {
  dlc_ctx *ctx = context((dlc_opts){.threads = 2});
  Call c = call_new(50, 50);
  dlc_op_time steps[STEPS + 1] = {{0}};
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  CU_ASSERT_EQUAL(dlc_rt_profile(ctx, steps, STEPS), STEPS);
  for (int i = 0; i < 3; i++) run(ctx, &c);
  CU_ASSERT_EQUAL(dlc_rt_profile(ctx, NULL, 0), STEPS);
  run(ctx, &c);
  static const char *const names[STEPS] = {"scale", "add", "scale", "add", "positive"};
  for (int i = 0; i < STEPS; i++) {
    CU_ASSERT_STRING_EQUAL(steps[i].name, names[i]);
    CU_ASSERT_EQUAL(steps[i].calls, 3);
  }
  CU_ASSERT(steps[0].ns > 0);
  CU_ASSERT_PTR_NULL(steps[STEPS].name);
  dlc_rt_ctx_free(ctx);
  call_free(&c);
}

/* Every step has a part of the caller; some have one of the worker; a step starts when the one before is over. */
static void test_trace(void) {
  enum { THREADS = 2 };
  dlc_ctx *ctx = context((dlc_opts){.threads = THREADS});
  Call c = call_new(50, 50);
  dlc_span spans[STEPS * THREADS] = {{0}}, short_one[3] = {{0}};
  CU_ASSERT_EQUAL(dlc_rt_trace(ctx, spans, STEPS * THREADS), THREADS);
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  CU_ASSERT_EQUAL(dlc_rt_trace(ctx, short_one, 2), THREADS);
  CU_ASSERT_EQUAL(run(ctx, &c), DLC_OK);
  CU_ASSERT_EQUAL(dlc_rt_trace(ctx, NULL, 0), THREADS);
  uint64_t end = 0;
  int parts = 0;
  for (int i = 0; i < STEPS; i++) {
    uint64_t last = end;
    CU_ASSERT_PTR_NOT_NULL(spans[i * THREADS].name);
    for (int t = 0; t < THREADS; t++) {
      const dlc_span *s = &spans[i * THREADS + t];
      if (!s->name) continue;
      parts++;
      CU_ASSERT_STRING_EQUAL(s->name, spans[i * THREADS].name);
      CU_ASSERT(s->start_ns >= last && s->end_ns >= s->start_ns);
      if (s->end_ns > end) end = s->end_ns;
    }
  }
  CU_ASSERT(parts > STEPS);
  CU_ASSERT_PTR_NOT_NULL(short_one[0].name);
  CU_ASSERT_PTR_NULL(short_one[2].name);
  dlc_rt_ctx_free(ctx);
  call_free(&c);
}

static void test_no_context(void) {
  Call c = call_new(5, 9);
  void *io[] = {c.a, c.b, c.y, c.k};
  int64_t syms[] = {5, 9, MAX_N};
  char *workspace = aligned_alloc(64, 192 + 64); /* 180 of arena, 64 of scratch */
  CU_ASSERT_EQUAL(dlc_rt_run_static(io, syms, workspace), DLC_OK);
  c.k_shape[0] = syms[2];
  CU_ASSERT_EQUAL(wrong(&c), 0);
  CU_ASSERT_EQUAL(dlc_rt_run_static(io, (int64_t[]){5, 0, 1}, workspace), DLC_E_SHAPE);
  CU_ASSERT_EQUAL(dlc_rt_run_static(io, (int64_t[]){5, 9, 1}, NULL), DLC_E_ARG);
  free(workspace);
  call_free(&c);
}

int main(void) {
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("runtime", NULL, NULL);
  CU_add_test(s, "host", test_host);
  CU_add_test(s, "threads", test_threads);
  CU_add_test(s, "many joins", test_many_joins);
  CU_add_test(s, "errors", test_errors);
  CU_add_test(s, "sizes overflow", test_sizes_overflow);
  CU_add_test(s, "shapes", test_shapes);
  CU_add_test(s, "memory", test_memory);
  CU_add_test(s, "two contexts", test_two_contexts);
  CU_add_test(s, "busy", test_busy);
  CU_add_test(s, "fork", test_fork);
  CU_add_test(s, "denormals", test_denormals);
  CU_add_test(s, "profile", test_profile);
  CU_add_test(s, "trace", test_trace);
  CU_add_test(s, "no context", test_no_context);
  CU_basic_run_tests();
  return CU_get_number_of_failures() != 0 || CU_get_error() != CUE_SUCCESS;
}
