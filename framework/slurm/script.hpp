// The job script that `attune submit` writes: readable, to be kept and edited, and able to go on by itself.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "slurm/site.hpp"

namespace attune::slurm {

/// A job array: element i trains in the directory that stands on line i + 1 of the list.
struct Array {
  std::filesystem::path list;
  std::int64_t size = 0;
  std::int64_t throttle = 0;  // side by side; 0: as many as Slurm will run
};

struct Job {
  std::string name;
  std::string written_by;                  // the command that wrote it
  std::filesystem::path program;           // attune
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
