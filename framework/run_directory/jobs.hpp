// What is noted of a run's jobs: those that were submitted (`jobs`), and what their scripts count
// (`attempts`, `failures`, `launches`). Job scripts append to these files in bash:
// slurm/script.cpp.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace attune::run_directory {

/// The file `jobs` of a run or sweep: one id a line, "12" or "12_3", the newest last.
struct JobList {
  std::vector<std::string> ids;
  // a sentence on lines that are no ids, which are left out; "": there are none
  std::string problem;
};

/// Error when the file is there and cannot be read.
JobList read_jobs(const std::filesystem::path& directory);

/// Its ids. Error for a line that is none.
std::vector<std::string> submitted_jobs(const std::filesystem::path& directory);

/// Error when it cannot be noted.
void note_submitted(const std::filesystem::path& directory, const std::string& id);

/// Makes a run's directory with its run file. What was counted of jobs that were submitted before
/// no longer counts.
void prepare_directory(const std::filesystem::path& directory, const std::string& run_file);

/// "the launch failed 2 times in a row on n2", of a run whose last launches failed; "" when they
/// did not.
std::string failed_launches(const std::filesystem::path& directory);

}  // namespace attune::run_directory
