/* link_model.c - what the compiler would emit for a small model, by hand: y = x * w0 + w1 with w in the weights object,
 * over x f32[N,4] (N in 1..64), and h, x rounded to half precision and back. */
#include "../runtime/model.h"

static void affine(void *const *bufs, const int64_t *syms, int64_t lo, int64_t hi, char *scratch) {
  const float *x = bufs[0], *w = bufs[1];
  float *y = bufs[2], *h = bufs[3], *line = (float *)(void *)scratch;
  for (int64_t i = lo; i < hi; i++)
    for (int64_t j = 0; j < 4; j++) {
      line[j] = x[i * 4 + j] * w[0];
      y[i * 4 + j] = line[j] + w[1];
      h[i * 4 + j] = (float)(_Float16)x[i * 4 + j];
    }
}

static int32_t plan(const int64_t *syms, int64_t *result) {
  result[DLC_PLAN_ARENA] = 256;
  result[DLC_PLAN_ZEROED] = 0;
  result[DLC_PLAN_SCRATCH] = 16;
  result[DLC_PLAN_DIMS] = result[DLC_PLAN_DIMS + 2] = syms[0];
  result[DLC_PLAN_DIMS + 1] = result[DLC_PLAN_DIMS + 3] = 4;
  return 0;
}

static int32_t program(dlc_rt *rt, char *arena, const unsigned char *weights, void *const *io, int64_t *syms) {
  void *bufs[] = {io[0], (void *)weights, io[1], io[2]};
  dlc_rt_parallel(rt, affine, bufs, syms, syms[0]);
  return 0;
}

enum { FIRST = 1, LAST = 64 };
static const int64_t dims[] = {-1, 4};
static const char *const dim_names[] = {"N", 0};
static const int64_t min[] = {FIRST, 4}, max[] = {LAST, 4}, sym_min[] = {FIRST}, sym_max[] = {LAST};
static const dlc_io inputs[] = {{"x", {2, 32, 1}, 2, dims, dim_names, min, max}};
static const dlc_io outputs[] = {{"y", {2, 32, 1}, 2, dims, dim_names, min, max},
                                 {"h.out", {2, 32, 1}, 2, dims, dim_names, min, max}};
static const int32_t in_sym[] = {0, -1}, out_sym[] = {0, -1, 0, -1};
static const char *const sym_names[] = {"N"};

#define INFO "{\"model\":\"affine\"}"

const dlc_rt_desc dlc_rt_this = {
    .name = "affine", .info_json = INFO, .cpu_features = "sse2,+64bit,-avx512f,fast-imaginary",
    .n_inputs = 1, .n_outputs = 2, .n_syms = 1, .inputs = inputs, .outputs = outputs, .in_sym = in_sym, .out_sym = out_sym,
    .sym_min = sym_min, .sym_max = sym_max, .sym_names = sym_names,
    .weights = dlc_weights, .weights_bytes = 8, .plan = plan, .main = program};

extern const dlc_model affine_model;
__attribute__((visibility("default"))) const dlc_model affine_model = {
    .struct_size = sizeof(dlc_model), .abi_major = DLC_ABI_MAJOR, .abi_minor = DLC_ABI_MINOR, .name = "affine", .info_json = INFO,
    .n_inputs = 1, .n_outputs = 2, .inputs = inputs, .outputs = outputs, .check_host = dlc_rt_check_host,
    .workspace_size = dlc_rt_workspace_size, .ctx_init = dlc_rt_ctx_init, .ctx_new = dlc_rt_ctx_new, .ctx_free = dlc_rt_ctx_free,
    .infer_shapes = dlc_rt_infer_shapes, .run = dlc_rt_run, .last_error = dlc_rt_last_error, .profile = dlc_rt_profile,
    .trim = dlc_rt_trim, .n_dims = 1, .dim_names = sym_names, .dim_min = sym_min, .dim_max = sym_max};

int affine_run(const float *x, float *y, float *h_out, int64_t N, void *workspace);
__attribute__((visibility("default"))) int affine_run(const float *x, float *y, float *h_out, int64_t N,
                                                      void *workspace) {
  void *io[] = {(void *)x, y, h_out};
  int64_t syms[] = {N};
  return dlc_rt_run_static(io, syms, workspace);
}

__attribute__((section(".note.dlc"), used, aligned(4))) static const struct {
  uint32_t name, size, type;
  char owner[4], info[20];
} note = {4, sizeof INFO, 1, "dlc", INFO};
