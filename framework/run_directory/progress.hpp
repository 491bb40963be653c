// Progress of a run, from the files in its directory.
#pragma once
#include <attune/metric.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "run_directory/lock.hpp"

namespace attune::run_directory {

struct Progress {
  std::filesystem::path directory;
  // last history entry: started, resumed, interrupted or finished; empty if the run never began
  std::string last;
  std::string note;
  std::int64_t starts = 0;
  // steps is 0 if unknown
  std::int64_t step = 0;
  std::int64_t steps = 0;
  double seconds = 0;          // training time, over all attempts
  std::optional<double> loss;  // latest step; NaN if not finite
  std::optional<double> tokens_per_second;
  std::optional<double> seconds_per_step;
  std::int64_t trainable_parameters = 0;  // 0 if unknown
  std::int64_t memory = 0;  // bytes that its ranks hold together on their hosts; 0 if unknown
  // latest evaluation of the tuned model, without non-finite values
  std::map<std::string, double> evaluation;
  std::vector<std::string> not_finite;  // metrics of that evaluation that are NaN or infinite
  // metrics of its evaluations; empty if unknown, as for runs of an earlier Attune
  std::vector<Metric> declared;
  // strategies' reported values in the latest step, without non-finite values
  std::map<std::string, double> scalars;
  std::optional<std::int64_t> evaluated_step;  // step of that evaluation; absent if there was none
  // the current step has a non-finite loss or gradient
  bool diverged = false;
  std::string run_file;           // run file of the latest attempt
  std::vector<std::string> jobs;  // Slurm job ids, newest last
  std::optional<Holder> holder;
  // a sentence about damaged or unreadable files; empty if there are none
  std::string problem;

  bool is_finished() const { return last == "finished"; }
};

/// Never throws and writes nothing: unreadable values stay unknown, and `problem` describes them.
/// Searches only the end of the log for the evaluation.
Progress read_progress(const std::filesystem::path& run);
/// The same, but searches the whole log for the evaluation.
Progress read_whole_progress(const std::filesystem::path& run);

/// Whether the run is finished. Error if the record exists and cannot be read.
bool is_finished(const std::filesystem::path& run);

/// Error if the run cannot be resumed: a file is of a newer version, or the record is damaged.
void check_can_go_on(const std::filesystem::path& run);

}  // namespace attune::run_directory
