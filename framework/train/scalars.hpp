// Accumulates the values that strategies report (Loss::scalars) over the micro-batches of a step
// and the data-parallel group.
#pragma once
#include <attune/comm.hpp>

#include <map>
#include <string>
#include <vector>

namespace attune::train {

/// A reported value that the host has read.
struct ScalarSum {
  double sum = 0;
  double count = 0;
};

class ScalarSums {
 public:
  /// Adds the scalars of one of this rank's micro-batches; micro_batch: its index in the step.
  /// Error for a name that is not a valid key of metrics.jsonl.
  void add(std::int64_t micro_batch, const std::map<std::string, ScalarSum>& scalars);
  /// Number of scalars added on this rank.
  std::size_t size() const { return reported_.size(); }
  /// Means, sum / count, by name. Values are summed in micro-batch order, so the result is the same
  /// on every rank, whichever rank reported a name. Collective.
  std::map<std::string, double> means(const Comm& data) const;

 private:
  struct Reported {
    std::int64_t micro_batch;
    std::string name;
    ScalarSum scalar;
  };
  static std::string text_of(const std::vector<Reported>& all);
  static void read(const std::string& text, std::vector<Reported>& all);

  std::vector<Reported> reported_;
};

}  // namespace attune::train
