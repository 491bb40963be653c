// What Slurm says of jobs: squeue while they live, sacct afterwards where the cluster keeps
// accounts.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::slurm {

/// Of a state of Slurm's.
bool has_ended(const std::string& state);

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
  /// As users name it: "12", or "12_3" for an element.
  std::string name() const { return element.empty() ? id : array_id + "_" + element; }
  /// Whether "12", its own number, or "12_3" means this one.
  bool is_called(const std::string& given) const {
    return given == id || given == array_id + "_" + element;
  }
};

/// Of squeue's answer to the call of ask_queue.
std::vector<QueuedJob> read_queue(const std::string& text);

/// Those of the jobs that Slurm still knows, in one call; no value when squeue is missing or its
/// controller does not answer.
std::optional<std::vector<QueuedJob>> ask_queue(const std::vector<std::string>& ids);

/// Whether the job "12" or "12_3" is among them, and still waits or runs.
bool has_live(const std::vector<QueuedJob>& queue, const std::string& id);

/// The same of Slurm's queue now; no value when it cannot be asked.
std::optional<bool> is_live(const std::string& id);

/// How a job ended.
struct Ending {
  std::string state;         // Slurm's: COMPLETED, FAILED, OUT_OF_MEMORY, ...
  std::string cancelled_by;  // a user's name; empty: not known, or not cancelled
  std::string nodes;
  // of the job script
  int code = 0;
  int signal = 0;
};

/// What a job took, over all of its attempts: elapsed_seconds, cpu_seconds and gpu_seconds (of what
/// was allocated), memory_bytes (largest of a task), energy_joules; what is not known is left out.
/// No value for an answer without a job that is over.
std::optional<nlohmann::ordered_json> read_accounting(const std::string& text);

/// How the newest attempt in such an answer ended; no value when it is not over.
std::optional<Ending> read_ending(const std::string& text);

/// sacct's answer by job, "12" or "12_3": for each job the lines of all its attempts and steps.
std::map<std::string, std::string> split_accounts(const std::string& text);

/// The same of sacct itself, for all jobs in one call; empty when there is no accounting, or it
/// does not know the jobs.
std::map<std::string, std::string> ask_accounts(const std::vector<std::string>& ids);

/// Lists with commas between, each short enough for a command line.
std::vector<std::string> comma_lists(const std::vector<std::string>& ids);

}  // namespace attune::slurm
