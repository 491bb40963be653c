// Every input that fuzzing begins with or has found, read by the ordinary build.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/files.hpp"
#include "readers.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

TEST(Fuzz, EveryInputOfTheCorpusIsReadOrRefused) {
  for (const auto& [name, read] : fuzz::readers()) {
    int inputs = 0;
    for (const auto& entry :
         fs::directory_iterator(fs::path(ATTUNE_SOURCE_DIR) / "tests/fuzz/corpus" / name)) {
      SCOPED_TRACE(entry.path().string());
      std::printf("%s\n", entry.path().c_str());  // a crash is of the last one named
      std::fflush(stdout);
      read(read_text(entry.path()));
      ++inputs;
    }
    EXPECT_GT(inputs, 0) << name;
  }
}

}  // namespace
}  // namespace attune
