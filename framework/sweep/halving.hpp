// Successive halving over trials that know nothing of each other but a folder: one small file for
// each trial and comparison, made whole and renamed, so that it is safe on NFS and Lustre, without
// locks and without a server.
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
  /// Notes the value; the same again is no harm.
  void note(const std::string& trial, std::int64_t step, double value) const;
  /// The values that trials had at that step, by trial.
  std::map<std::string, double> at(std::int64_t step) const;

 private:
  std::filesystem::path folder_;
};

/// The steps where trials are compared: first, first * factor, first * factor^2, ...
std::vector<std::int64_t> rungs(const HalvingOptions& options);
/// Whether the trial is among the best 1/factor of those noted, or the best of fewer.
bool goes_on(const std::map<std::string, double>& values, const std::string& trial,
             std::int64_t factor, Better direction);

/// Makes the run one that is evaluated at the rungs, and ends there when it loses. sweep: its
/// directory.
void add_halving(config::RunConfig& run, const std::filesystem::path& sweep);

}  // namespace attune::sweep
