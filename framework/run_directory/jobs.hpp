// Job files of a run: submitted jobs (`jobs`), and counts kept by job scripts (`attempts`,
// `failures`, `launches`). The scripts append to these files in bash: slurm/script.cpp.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace attune::run_directory {

/// The file `jobs` of a run or sweep: one job id per line, "12" or "12_3", newest last.
struct JobList {
  std::vector<std::string> ids;
  // a sentence about invalid lines, which are skipped; "" if there are none
  std::string problem;
};

/// Error if the file exists and cannot be read.
JobList read_jobs(const std::filesystem::path& directory);

/// Ids of all submitted jobs. Error for an invalid line.
std::vector<std::string> submitted_jobs(const std::filesystem::path& directory);

/// Appends a job id. Error if the file cannot be written.
void note_submitted(const std::filesystem::path& directory, const std::string& id);

/// Creates a run's directory with its run file, and resets the counts of earlier jobs.
void prepare_directory(const std::filesystem::path& directory, const std::string& run_file);

/// "the launch failed 2 times in a row on n2" if the run's latest launches failed; otherwise "".
std::string failed_launches(const std::filesystem::path& directory);

}  // namespace attune::run_directory
