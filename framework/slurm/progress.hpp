// How a run does, from the files in its directory.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "slurm/queue.hpp"
#include "slurm/run_lock.hpp"

namespace attune::slurm {

struct Progress {
  std::filesystem::path directory;
  std::string last, note;                   // entry of the record's history: started, resumed, interrupted, finished; empty: it never began
  std::int64_t starts = 0;
  std::int64_t step = 0, steps = 0;         // steps 0: not known yet
  double seconds = 0;                       // of training, over all its attempts
  std::optional<double> loss, tokens_per_second, seconds_per_step;
  std::int64_t trainable_parameters = 0;    // 0: not known yet
  std::map<std::string, double> evaluation;  // the newest of what was trained, never the base's; without what is NaN or infinite
  std::vector<std::string> not_finite;       // metrics of that evaluation that are NaN or infinite
  std::optional<std::int64_t> evaluated_step;  // of that evaluation; no value: there was none
  bool diverged = false;                     // it is at a step whose loss or gradient is NaN or infinite
  std::string run_file;                      // that the newest attempt ran with
  std::vector<std::string> jobs;            // Slurm's, the newest last
  std::optional<Holder> holder;
  std::string problem;                      // why a file of the run cannot be read; empty: all can

  bool is_finished() const { return last == "finished"; }
};

/// Never an error, and nothing is written: what cannot be read is not known, and is told in `problem`. The evaluation is looked for at
/// the end of the log.
Progress read_progress(const std::filesystem::path& directory);
/// The same, with the evaluation looked for in the whole log.
Progress read_whole_progress(const std::filesystem::path& directory);

bool is_finished(const std::filesystem::path& directory);

/// "new", "queued", "starting", "training", "requeued", "interrupted", "failed", "done", "unstarted" when its jobs are gone and it never began,
/// and "unreadable" when nothing is known of it.
/// queue: the jobs that Slurm still knows.
std::string state_of(const Progress& progress, const std::vector<QueuedJob>& queue);

/// The newest job of the run in the queue; nullptr when it is not there.
const QueuedJob* job_of(const Progress& progress, const std::vector<QueuedJob>& queue);

/// Of a state_of: it waits or runs.
bool is_under_way(const std::string& state);

}  // namespace attune::slurm
