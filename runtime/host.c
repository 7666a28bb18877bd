/* host.c - has this machine the instructions that the model was compiled for? */
#include "rt.h"

#if defined(__x86_64__)

enum { AVX = 0x6, AVX512 = 0xe6, AMX = 0x60000 }; /* bits of XCR0 */
typedef struct {
  char name[20];
  uint32_t leaf;
  uint8_t subleaf, reg, bit;
  uint32_t state;
} Feature;
static const Feature features[] = {
#define X86(name, leaf, subleaf, reg, bit, state) {name, leaf, subleaf, reg, bit, state},
#include "x86_features.def"
#undef X86
};

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
}

static uint32_t saved_state(void) {
  uint32_t r[4], low, high;
  cpuid(1, 0, r);
  if (!(r[2] >> 27 & 1)) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static bool has(const Feature *f) {
  uint32_t r[4];
  cpuid(f->leaf & 0x80000000, 0, r);
  if (r[0] < f->leaf) return false;
  if (f->subleaf && f->leaf == 7) {
    cpuid(7, 0, r);
    if (r[0] < f->subleaf) return false;
  }
  cpuid(f->leaf, f->subleaf, r);
  return r[f->reg] >> f->bit & 1 && (saved_state() & f->state) == f->state;
}

#else
#error "no table of CPU features for this machine"
#endif

static bool same(const char *name, const char *text, size_t n) {
  size_t i = 0;
  while (i < n && name[i] == text[i]) i++;
  return i == n && !name[i];
}

static bool is_missing(const char *text, size_t n) {
  for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
    if (same(features[i].name, text, n)) return !has(&features[i]);
  return false;
}

int dlc_rt_check_host(char *why, size_t n) {
  static _Atomic uint8_t good; /* CPUID is slow in virtual machines */
  if (why && n) *why = 0;
  if (atomic_load_explicit(&good, memory_order_relaxed)) return DLC_OK;
  Text text = text_new(why ? why : (char *)"", why ? n : 0);
  int missing = 0;
  for (const char *at = dlc_rt_this.cpu_features; at && *at;) {
    size_t length = 0;
    while (at[length] && at[length] != ',') length++;
    size_t sign = *at == '+' || *at == '-';
    if (*at != '-' && is_missing(at + sign, length - sign)) {
      text_add(&text, missing++ ? ", " : "this CPU lacks ");
      for (size_t i = sign; i < length; i++) text_add(&text, (char[]){at[i], 0});
    }
    at += length + (at[length] == ',');
  }
  if (missing) return DLC_E_CPU;
  atomic_store_explicit(&good, 1, memory_order_relaxed);
  return DLC_OK;
}
