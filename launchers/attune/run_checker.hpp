// What `attune check` checks, for the commands that submit runs: what is wrong is told before
// anything waits in a queue.
#pragma once
#include <attune/metric.hpp>
#include <attune/registry.hpp>

#include <map>
#include <string>
#include <vector>

#include "config/document.hpp"
#include "config/run_config.hpp"
#include "train/memory.hpp"

namespace attune::program {

/// For one run file, or many that come of one and differ in values. In this process alone, for a
/// login node may have no MPI; and without reading weights, which it may have no room for.
class RunChecker {
 public:
  /// Loads the plugins that the run file names.
  explicit RunChecker(const config::Document& run_file);

  /// Error when the run could not begin, or its batch not be shared among so many ranks. Runs that
  /// differ in what a plan does not depend on, such as the learning rate, are planned once.
  config::RunConfig check(const config::Document& run_file, std::int64_t ranks);

  /// The run as it takes effect. Error when the file is wrong; model and data are not opened.
  config::RunConfig read(const config::Document& run_file) const;

  /// What an evaluation of the run that was checked last measures.
  const std::vector<Metric>& metrics() const { return metrics_; }

  /// Memory that ranks hold besides activations, of each run that was planned.
  const std::vector<train::HostMemory>& memory() const { return memory_; }

 private:
  struct Opened {
    std::int64_t samples = 0;  // of the training split
    std::vector<Metric> data_metrics;
  };
  /// Plans the run.
  Opened open(const config::RunConfig& run);

  Registry registry_;
  std::vector<train::HostMemory> memory_;
  std::map<std::string, Opened> opened_;  // by the settings that a plan depends on
  std::vector<Metric> metrics_;
};

}  // namespace attune::program
