// How the trials of a sweep do, and what came out.
#pragma once
#include <optional>

#include "run_directory/progress.hpp"
#include "slurm/run_state.hpp"
#include "sweep/plan.hpp"

namespace attune::sweep {

struct Result {
  const Trial* trial;
  run_directory::Progress progress;
  std::string state;  // as slurm::state_of, and "pruned"
  // of the newest evaluation; no value when the trial's loss is NaN or infinite
  std::optional<double> metric;
  // keys whose values are others than in the run file of now
  std::vector<std::string> changed = {};

  bool is_over() const { return state == "done" || state == "pruned"; }
  /// Waits or runs: not to be started now.
  bool is_under_way() const { return slurm::is_under_way(state); }
};

/// Of all trials, in the plan's order; one call of squeue for all of them.
std::vector<Result> read_results(const Sweep& sweep);

/// The declaration of the metric that ranks the trials, as they wrote it; trials of an earlier
/// Attune declare none, and mean the one that comes with Attune. Error when neither has one of that
/// name.
Metric ranking_metric(const Sweep& sweep, const std::vector<Result>& results);

/// The best first; then those that failed after an evaluation, then those without a value.
void sort_by_metric(std::vector<Result>& results, const Metric& metric);

/// Notes where trials ran with other values than their effective run files have now, one for each
/// trial of the sweep. [slurm] does not count.
void note_changes(std::vector<Result>& results, const Sweep& sweep,
                  const std::vector<std::string>& run_files);
/// "3 of 9 trials were run with another run file ..."; nothing when none was.
std::vector<std::string> told_changes(const std::vector<Result>& results, const Sweep& sweep);

/// What of the trials' files is damaged, a sentence for each trial, the first few of them; nothing
/// when none is.
std::vector<std::string> told_problems(const std::vector<Result>& results);

using Table = std::vector<std::vector<std::string>>;
/// A head and one row for each, for the terminal: the values it differs in, state, steps, seconds,
/// metric.
Table result_table(const Sweep& sweep, const std::vector<Result>& results);
/// For results.csv: the same with the seed and every metric, numbers in full, and empty cells for
/// what is not known.
Table full_table(const Sweep& sweep, const std::vector<Result>& results);
/// A head and one row for each setting with several seeds: mean, smallest and largest metric of
/// those that are done. A setting with a seed that failed comes after those without.
Table setting_table(const Sweep& sweep, const std::vector<Result>& results);
/// As RFC 4180 has it.
std::string csv(const Table& table);

/// "12 trials: 8 done, 3 pruned, 1 training"
std::string summary(const std::vector<Result>& results);

/// Whether its trials have used up the hours that it gives them.
bool hours_are_spent(const Sweep& sweep);

}  // namespace attune::sweep
