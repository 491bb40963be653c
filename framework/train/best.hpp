// Tracks the best evaluation of a run, by the metric of checkpoint.keep_best.
#pragma once
#include <attune/callback.hpp>

#include <limits>
#include <string>

namespace attune::train {

class Best {
 public:
  /// metric: name of a metric of the run; "" disables tracking.
  explicit Best(std::string metric) : metric_(std::move(metric)) {}

  /// Whether the latest evaluation of the run is the best so far; if so, records it. NaN never is.
  bool is_beaten_by(const Run& run) {
    if (metric_.empty()) return false;
    const double cost = run.metric(metric_).cost(run.metrics.at(metric_));
    if (!(cost < cost_)) return false;
    cost_ = cost;
    return true;
  }

  /// Metric::cost of the best evaluation.
  double cost() const { return cost_; }
  void restore(double cost) { cost_ = cost; }

 private:
  std::string metric_;
  double cost_ = std::numeric_limits<double>::infinity();
};

}  // namespace attune::train
