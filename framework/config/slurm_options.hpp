// [slurm]: resources that `attune submit` requests. Each key is an sbatch option or controls how
// the job restarts.
#pragma once
#include "config/document.hpp"

namespace attune::config {

enum class JobLauncher { srun, mpirun };

struct SlurmOptions {
  std::int64_t nodes = 1;
  std::int64_t tasks_per_node = 1;
  std::int64_t gpus_per_node = 0;
  std::string gpu_type;
  std::int64_t cpus_per_task = 1;
  std::string memory;
  std::string time;
  std::string partition;
  std::string account;
  std::string qos;
  std::string constraint;
  std::string reservation;
  std::string dependency;
  std::string mail_type;
  std::string mail_user;
  std::string array;
  OptionMap each{{"seed", "$SLURM_ARRAY_TASK_ID"}};
  OptionMap options;
  OptionMap srun_options;
  JobLauncher launcher = JobLauncher::srun;
  std::string mpi = "pmix";
  std::vector<std::string> modules;
  std::vector<std::string> lines;
  OptionMap environment;
  std::int64_t signal = 120;
  std::int64_t restarts = 100;
  std::int64_t stalled = 2;
  std::int64_t retries = 0;
  static void describe(Schema<SlurmOptions>& s);

  std::int64_t ranks() const { return nodes * tasks_per_node; }
  /// Overrides for an array element, in the syntax of the command line of `attune train`.
  std::vector<std::string> overrides_of(std::int64_t element) const;
};

/// Indices of a job array in sbatch's syntax, "0-9%3" or "1,3,5-20:5", in order; empty if invalid.
std::vector<std::int64_t> array_elements(const std::string& text);

/// Indices in sbatch's syntax: "1,3-5".
std::string array_text(const std::vector<std::int64_t>& elements);

/// Why the time limit is too short for any training besides saving; "" if it is sufficient.
std::string objection_to_time(const SlurmOptions& options);

/// Bytes of a memory size in sbatch's syntax, such as "64G"; 0 if it is empty.
double memory_bytes(const std::string& text);

/// Applies [slurm] of a run file to `options`, which may contain a site's defaults. Lists and
/// tables are merged. Mistakes become problems.
void bind_slurm(const toml::table& slurm, SlurmOptions& options, Problems& problems);

}  // namespace attune::config
