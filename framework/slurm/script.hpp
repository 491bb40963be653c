// The job script of `attune submit`. It is readable, editable, and independent of the submitter.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

struct Array {
  std::string elements;  // in sbatch's syntax: "0-11%3"
  std::size_t size = 0;  // number of elements
  // file with the run directories: element i trains in the one on line i + 1; empty: the job's
  // directory plus "-i"
  std::filesystem::path list;
};

struct Job {
  std::string name;
  std::string written_by;  // command that wrote the script
  // directory of submission, to which relative paths in the run file refer
  std::filesystem::path from;
  std::filesystem::path program;  // path of the attune program
  // program, library and plugin folder: copied if the site stages the program
  std::vector<std::filesystem::path> program_files;
  // directory of the run, or of the sweep for an array; absolute, as are all paths here
  std::filesystem::path directory;
  std::filesystem::path script;  // future path of the script
  // future path of the log from log_pattern(), with Slurm's %j, %A, %a
  std::string log;
  std::vector<std::string> train_options;  // additional options of `attune train`
  config::SlurmOptions options;
  Site site;
  std::optional<Array> array;
};

std::string job_script(const Job& job);

/// Escapes a path for #SBATCH --output, in which a percent sign starts a pattern. Error if Slurm
/// could not write there.
std::string log_pattern(const std::filesystem::path& path);

/// Quotes a text as a single shell word on one line.
std::string shell_word(const std::string& text);

}  // namespace attune::slurm
