// The job script that `attune submit` writes: readable, to be kept and edited, and able to go on by itself.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

struct Array {
  std::string elements;        // as sbatch has it: "0-11%3"
  std::size_t size = 0;        // how many they are
  std::filesystem::path list;  // element i trains in the directory on its line i + 1; empty: in the job's directory with "-i" behind it
};

struct Job {
  std::string name;
  std::string written_by;                  // the command that wrote it
  std::filesystem::path program;           // attune
  std::vector<std::filesystem::path> program_files;  // it, its library and its folder of plugins: what is copied when the site stages the program
  std::filesystem::path directory;         // of the run; of the sweep, for an array
  std::filesystem::path script, log;       // where they will be; log with Slurm's %j, %A, %a
  std::vector<std::string> train_options;  // further ones of `attune train`
  config::SlurmOptions options;
  Site site;
  std::optional<Array> array;
};

std::string job_script(const Job& job);

/// As one word of a shell command.
std::string shell_word(const std::string& text);

}  // namespace attune::slurm
