// lld.cc - the linker as a function: lld's only interface is C++.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include "lld/Common/Driver.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/raw_ostream.h"

LLD_HAS_DRIVER(elf)

extern "C" int lld_link(int argc, const char *const *argv, char **messages);

int lld_link(int argc, const char *const *argv, char **messages) {
  static std::mutex one;             // lld keeps its state in globals
  static bool broken = false;        // after a crash it cannot run again
  std::lock_guard<std::mutex> hold(one);
  std::string text;
  llvm::raw_string_ostream out(text);
  int code = 1;
  if (broken) {
    out << "the linker stopped in an earlier link";
  } else {
    lld::Result result = lld::lldMain(llvm::ArrayRef(argv, argc), out, out, {{lld::Gnu, &lld::elf::link}});
    code = result.retCode;
    broken = !result.canRunAgain;
  }
  out.flush();
  *messages = code ? strdup(text.c_str()) : nullptr;
  return code;
}
