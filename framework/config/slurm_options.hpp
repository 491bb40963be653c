// [slurm]: what `attune submit` asks of the scheduler. Every key is an option of sbatch, or says
// how the job goes on.
#pragma once
#include "config/document.hpp"

namespace attune::config {

enum class JobLauncher { srun, mpirun };

struct SlurmOptions {
  std::int64_t nodes = 1;
  std::int64_t tasks_per_node = 1;
  std::int64_t gpus_per_node = 0;
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
  /// What the element of that number sets, as on the command line of `attune train`.
  std::vector<std::string> overrides_of(std::int64_t element) const;
};

/// The numbers of a job array as sbatch writes it, "0-9%3" or "1,3,5-20:5", in order; empty when it
/// is none.
std::vector<std::int64_t> array_elements(const std::string& text);

/// The numbers as sbatch writes them: "1,3-5".
std::string array_text(const std::vector<std::int64_t>& elements);

/// Why a job of that time could only save and stop, and never train; "" when it can.
std::string objection_to_time(const SlurmOptions& options);

/// Of a memory such as "64G", as sbatch reads it; 0 when it says nothing.
double memory_bytes(const std::string& text);

/// [slurm] of a run file over what `options` holds already, such as a site's; lists and tables of
/// both add up. Mistakes become problems.
void bind_slurm(const toml::table& slurm, SlurmOptions& options, Problems& problems);

}  // namespace attune::config
