/* libc_names.c - names and versions of libc without the functions: enough to link against. */
#if defined(__x86_64__)
#define VERSION(x86, a64, arm) x86
#elif defined(__aarch64__)
#define VERSION(x86, a64, arm) a64
#else
#define VERSION(x86, a64, arm) arm
#endif

#define LIBC(name, x86, a64, arm) \
  void name##_stub(void); \
  void name##_stub(void) {} \
  __asm__(".symver " #name "_stub, " #name "@@GLIBC_" VERSION(x86, a64, arm) ", remove");
#include "libc.def"
