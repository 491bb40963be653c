// The runs that a command is about: a run directory, an array, a sweep, a folder of runs.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace attune::program {

struct RunPlace {
  enum class Kind { run, array, sweep, folder };
  Kind kind = Kind::run;
  std::filesystem::path path;  // of a sweep given as a file: its directory
  // by name, numbers in their order; one that cannot be looked into is among them
  std::vector<std::filesystem::path> runs;

  bool is_one() const { return kind == Kind::run; }
};

/// given: a run directory; an array's name, such as runs/seeds for runs/seeds-0, runs/seeds-1, ...;
/// a sweep's directory or file; a folder of runs. Error when it is none of these.
RunPlace find_runs(const std::filesystem::path& given);

}  // namespace attune::program
