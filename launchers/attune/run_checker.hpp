// What `attune check` checks, for the commands that submit runs: what is wrong is told before anything waits in a queue.
#pragma once
#include <attune/registry.hpp>

#include <map>
#include <string>

#include "config/document.hpp"
#include "config/run_config.hpp"

namespace attune::program {

/// For one run file, or many that come of one and differ in values. In this process alone: a login node may have no MPI.
class RunChecker {
 public:
  /// Loads the plugins that the run file names.
  explicit RunChecker(const config::Document& run_file);

  /// Error when the run could not begin, or its batch not be shared among so many ranks. Model and data are opened once for all runs that
  /// have them in common.
  config::RunConfig check(const config::Document& run_file, std::int64_t ranks);

  /// The run as it takes effect. Error when the file is wrong; model and data are not opened.
  config::RunConfig read(const config::Document& run_file) const;

  /// Memory that a rank holds besides activations: the most of what was opened.
  double rank_bytes() const { return rank_bytes_; }

 private:
  /// Opens model and data. Returns the samples of the training split.
  std::size_t open(config::RunConfig run);

  Registry registry_;
  double rank_bytes_ = 0;
  std::map<std::string, std::size_t> samples_;  // of the training split, by what was opened
};

}  // namespace attune::program
