// Progress and results of a sweep's trials.
#pragma once
#include <optional>

#include "run_directory/progress.hpp"
#include "slurm/run_state.hpp"
#include "sweep/plan.hpp"

namespace attune::sweep {

struct Result {
  const Trial* trial;
  run_directory::Progress progress;
  std::string state;  // as from slurm::state_of, or "pruned"
  // of the latest evaluation; absent if the trial's loss is NaN or infinite
  std::optional<double> metric;
  // keys whose values differ from the current run file
  std::vector<std::string> changed = {};

  bool is_over() const { return state == "done" || state == "pruned"; }
  /// Pending or running, so it must not be started now.
  bool is_under_way() const { return slurm::is_under_way(state); }
};

/// Results of all trials, in the order of the plan. Calls squeue once.
std::vector<Result> read_results(const Sweep& sweep);

/// Declaration of the ranking metric, as recorded by the trials. Trials of an earlier Attune record
/// none; for them the built-in metric of that name applies. Error if neither exists.
Metric ranking_metric(const Sweep& sweep, const std::vector<Result>& results);

/// Sorts best first, then trials that failed after an evaluation, then those without a value.
void sort_by_metric(std::vector<Result>& results, const Metric& metric);

/// Sets Result::changed for trials that ran with other values than their current effective run
/// files, one per trial of the sweep. Ignores [slurm].
void note_changes(std::vector<Result>& results, const Sweep& sweep,
                  const std::vector<std::string>& run_files);
/// "3 of 9 trials were run with another run file ..."; empty if there are none.
std::vector<std::string> told_changes(const std::vector<Result>& results, const Sweep& sweep);

/// Sentences about damaged trial files, one per trial, for the first few; empty if there are none.
std::vector<std::string> told_problems(const std::vector<Result>& results);

using Table = std::vector<std::vector<std::string>>;
/// Header and one row per trial, for the terminal: differing values, state, steps, seconds, metric.
Table result_table(const Sweep& sweep, const std::vector<Result>& results);
/// Table for results.csv: additionally the seed and all metrics, with full precision; unknown
/// values are empty.
Table full_table(const Sweep& sweep, const std::vector<Result>& results);
/// Header and one row per setting with several seeds: mean, minimum and maximum metric of completed
/// trials. Settings with a failed seed come last.
Table setting_table(const Sweep& sweep, const std::vector<Result>& results);
/// CSV text (RFC 4180).
std::string csv(const Table& table);

/// "12 trials: 8 done, 3 pruned, 1 training"
std::string summary(const std::vector<Result>& results);

/// Whether the trials have used up the sweep's `hours`.
bool hours_are_spent(const Sweep& sweep);

}  // namespace attune::sweep
