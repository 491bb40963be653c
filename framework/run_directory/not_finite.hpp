// not_finite.jsonl: steps whose loss or gradient was NaN or infinite, with their samples, so that
// such a step can be computed again by itself.
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

/// Error when it cannot be written.
void note_not_finite(const std::filesystem::path& run, const NotFiniteStep& step);

struct NewestNotFinite {
  std::int64_t step = 0;  // of the newest line; 0: there is none
  std::string damage;     // a sentence on lines that are left out; "": there are none
};
NewestNotFinite newest_not_finite(const std::filesystem::path& run);

}  // namespace attune::run_directory
