// What Slurm says of jobs: squeue while they live, sacct afterwards where the cluster keeps accounts.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::slurm {

/// A job, or one element of an array, in the queue.
struct QueuedJob {
  std::string id;         // of its own, also for an element
  std::string array_id;   // of the array; of the job itself when it is none
  std::string element;    // number in the array; empty when it is none
  std::string state;      // PENDING, RUNNING, COMPLETING, ...
  std::string reason;     // why it is pending
  std::string time_left;  // of a running one, as squeue writes it
  std::string nodes;
  /// Neither done nor failed nor cancelled.
  bool is_live() const;
};

/// Of squeue's answer to queue_command.
std::vector<QueuedJob> read_queue(const std::string& text);

/// Those of the jobs that Slurm still knows, in one call; no value when squeue is missing or its controller does not answer.
std::optional<std::vector<QueuedJob>> ask_queue(const std::vector<std::string>& ids);

/// What a job took, over all of its attempts: elapsed_seconds, cpu_seconds and gpu_seconds (of what was allocated), memory_bytes (largest of
/// a task), energy_joules; what is not known is left out. No value for an answer without a job that is over.
std::optional<nlohmann::ordered_json> read_accounting(const std::string& text);
/// The same of sacct itself; no value when there is no accounting, or it does not know the job.
std::optional<nlohmann::ordered_json> ask_accounting(const std::string& id);

}  // namespace attune::slurm
