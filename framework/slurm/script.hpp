// The job script that `attune submit` writes: readable, to be kept and edited, and able to go on by
// itself.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

struct Array {
  std::string elements;  // as sbatch has it: "0-11%3"
  std::size_t size = 0;  // how many they are
  // element i trains in the directory on its line i + 1; empty: in the job's directory with "-i"
  // behind it
  std::filesystem::path list;
};

struct Job {
  std::string name;
  std::string written_by;  // the command that wrote it
  // where it was written: relative paths of the run file are meant from there
  std::filesystem::path from;
  std::filesystem::path program;  // attune
  // it, its library and its folder of plugins: what is copied when the site stages the program
  std::vector<std::filesystem::path> program_files;
  // of the run; of the sweep, for an array; absolute, as all paths here
  std::filesystem::path directory;
  std::filesystem::path script;  // where it will be
  // where that will be, as log_pattern has it, with Slurm's %j, %A, %a
  std::string log;
  std::vector<std::string> train_options;  // further ones of `attune train`
  config::SlurmOptions options;
  Site site;
  std::optional<Array> array;
};

std::string job_script(const Job& job);

/// A path for #SBATCH --output, where a percent sign begins a pattern of Slurm's. Error when Slurm
/// could not write there.
std::string log_pattern(const std::filesystem::path& path);

/// As one word of a shell command, on one line.
std::string shell_word(const std::string& text);

}  // namespace attune::slurm
