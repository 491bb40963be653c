// Job states from Slurm: squeue for pending and running jobs, sacct for ended jobs if accounting is
// enabled.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::slurm {

/// Whether a Slurm job state is final.
bool has_ended(const std::string& state);

/// A job or array element in the queue.
struct QueuedJob {
  std::string id;         // job id; each array element has its own
  std::string array_id;   // id of the array; equal to the job id if it is none
  std::string element;    // index in the array; empty if it is none
  std::string state;      // PENDING, RUNNING, COMPLETING, ...
  std::string reason;     // why it is pending
  std::string time_left;  // remaining time if running, in squeue's format
  std::string nodes;
  /// Not completed, failed or cancelled.
  bool is_live() const;
  /// Name shown to users: "12", or "12_3" for an array element.
  std::string name() const { return element.empty() ? id : array_id + "_" + element; }
  /// Whether "12" (its own id) or "12_3" refers to this job.
  bool is_called(const std::string& given) const {
    return given == id || given == array_id + "_" + element;
  }
};

/// Parses the output of squeue as called by ask_queue().
std::vector<QueuedJob> read_queue(const std::string& text);

/// The jobs that Slurm still knows, from one squeue call; absent if squeue is missing or its
/// controller does not answer.
std::optional<std::vector<QueuedJob>> ask_queue(const std::vector<std::string>& ids);

/// Whether job "12" or "12_3" is in the list and pending or running.
bool has_live(const std::vector<QueuedJob>& queue, const std::string& id);

/// The same for Slurm's current queue; absent if it cannot be queried.
std::optional<bool> is_live(const std::string& id);

/// How a job ended.
struct Ending {
  std::string state;         // Slurm's: COMPLETED, FAILED, OUT_OF_MEMORY, ...
  std::string cancelled_by;  // user name; empty if unknown or not cancelled
  std::string nodes;
  // exit code and signal of the job script
  int code = 0;
  int signal = 0;
};

/// Resource use of a job over all its attempts: elapsed_seconds, cpu_seconds and gpu_seconds
/// (allocated), memory_bytes (maximum of any task), energy_joules. Unknown values are omitted.
/// Absent if the output contains no ended job.
std::optional<nlohmann::ordered_json> read_accounting(const std::string& text);

/// How the latest attempt ended; absent if it has not ended.
std::optional<Ending> read_ending(const std::string& text);

/// Splits sacct's output by job, "12" or "12_3": for each the lines of all its attempts and steps.
std::map<std::string, std::string> split_accounts(const std::string& text);

/// Calls sacct once for all jobs and splits its output. Empty if accounting is disabled or the jobs
/// are unknown.
std::map<std::string, std::string> ask_accounts(const std::vector<std::string>& ids);

/// Comma-separated lists, each short enough for a command line.
std::vector<std::string> comma_lists(const std::vector<std::string>& ids);

}  // namespace attune::slurm
