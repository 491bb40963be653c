// libFuzzer's two entry points: fuzz READER [options of libFuzzer] [folders with inputs]
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "readers.hpp"

namespace {
attune::fuzz::Reader reader = nullptr;
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const auto found = attune::fuzz::readers().find(*argc > 1 ? (*argv)[1] : "");
  if (found == attune::fuzz::readers().end()) {
    std::fprintf(stderr, "the first argument must name a reader; there are:");
    for (const auto& [name, read] : attune::fuzz::readers())
      std::fprintf(stderr, " %s", name.c_str());
    std::fprintf(stderr, "\n");
    std::exit(2);
  }
  reader = found->second;
  (*argv)[1] = (*argv)[0];  // libFuzzer sees the rest
  ++*argv;
  --*argc;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  reader({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
