// Successive halving for trials that share only a folder. Each trial and comparison has a small
// file that is written and renamed, which is safe on NFS and Lustre without locks or a server.
#pragma once
#include <attune/callback.hpp>

#include <filesystem>
#include <map>
#include <memory>
#include <vector>

#include "config/run_config.hpp"
#include "sweep/plan.hpp"

namespace attune::sweep {

class Journal {
 public:
  explicit Journal(std::filesystem::path folder) : folder_(std::move(folder)) {}
  /// Records a value. Repetition with the same value is harmless.
  void note(const std::string& trial, std::int64_t step, double value) const;
  /// The values of all trials at that step, by trial.
  std::map<std::string, double> at(std::int64_t step) const;

 private:
  std::filesystem::path folder_;
};

/// Steps of the comparisons: first, first * factor, first * factor^2, ...
std::vector<std::int64_t> rungs(const HalvingOptions& options);
/// Whether the trial is among the best 1/factor of the recorded ones, or the best if they are
/// fewer.
bool goes_on(const std::map<std::string, double>& values, const std::string& trial,
             std::int64_t factor, Better direction);

/// Adds evaluations at the rungs to the run, and ends it at a rung if it loses. sweep: directory of
/// the sweep.
void add_halving(config::RunConfig& run, const std::filesystem::path& sweep);

}  // namespace attune::sweep
