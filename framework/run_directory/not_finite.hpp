// not_finite.jsonl: steps with a non-finite loss or gradient, with their samples, so that such a
// step can be reproduced.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace attune::run_directory {

struct NotFiniteStep {
  std::int64_t step = 0;  // from 1
  std::string what;       // "the loss is nan"
  std::string split;
  std::vector<std::int64_t> samples;
};

/// Error if the file cannot be written.
void note_not_finite(const std::filesystem::path& run, const NotFiniteStep& step);

struct NewestNotFinite {
  std::int64_t step = 0;  // of the last line; 0 if there is none
  std::string damage;     // a sentence about skipped lines; "" if there are none
};
NewestNotFinite newest_not_finite(const std::filesystem::path& run);

}  // namespace attune::run_directory
