// How a run does, from the files in its directory.
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
  // entry of the record's history: started, resumed, interrupted, finished; empty: it never began
  std::string last;
  std::string note;
  std::int64_t starts = 0;
  // steps 0: not known yet
  std::int64_t step = 0;
  std::int64_t steps = 0;
  double seconds = 0;          // of training, over all its attempts
  std::optional<double> loss;  // of the newest step; NaN: not finite
  std::optional<double> tokens_per_second;
  std::optional<double> seconds_per_step;
  std::int64_t trainable_parameters = 0;  // 0: not known yet
  // the newest of what was trained, never the base's; without what is not finite
  std::map<std::string, double> evaluation;
  std::vector<std::string> not_finite;  // metrics of that evaluation that are NaN or infinite
  // what its evaluations measure; empty: not known, as of runs of an earlier Attune
  std::vector<Metric> declared;
  // of the newest step: what its strategies report; without what is not finite
  std::map<std::string, double> scalars;
  std::optional<std::int64_t> evaluated_step;  // of that evaluation; no value: there was none
  // it is at a step whose loss or gradient is NaN or infinite
  bool diverged = false;
  std::string run_file;           // that the newest attempt ran with
  std::vector<std::string> jobs;  // Slurm's, the newest last
  std::optional<Holder> holder;
  // what of its files is damaged or cannot be read, in a sentence; empty: nothing
  std::string problem;

  bool is_finished() const { return last == "finished"; }
};

/// Never an error, and nothing is written: what cannot be read is not known, and is told in
/// `problem`. The evaluation is looked for at the end of the log.
Progress read_progress(const std::filesystem::path& run);
/// The same, with the evaluation looked for in the whole log.
Progress read_whole_progress(const std::filesystem::path& run);

/// Error when the record is there and cannot be read.
bool is_finished(const std::filesystem::path& run);

/// Error when a run cannot be gone on with: a file is of a newer version, or the record is damaged.
void check_can_go_on(const std::filesystem::path& run);

}  // namespace attune::run_directory
