// Successive halving over trials that know nothing of each other but a folder: one small file for each trial and comparison, made whole and
// renamed, so that it is safe on NFS and Lustre, without locks and without a server.
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

/// Whether step is one where trials are compared.
bool is_rung(const HalvingOptions& options, std::int64_t step);
/// Whether the trial is among the best 1/factor of those noted, or the best of fewer.
bool goes_on(const std::map<std::string, double>& values, const std::string& trial, std::int64_t factor, bool rises);

/// The callback that ends losing trials, to be added to those of a trial's run. sweep: its directory.
config::Chosen halving_callback(const std::filesystem::path& sweep);

}  // namespace attune::sweep
