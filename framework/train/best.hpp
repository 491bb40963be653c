// The best evaluation of a run so far, by the metric of checkpoint.keep_best.
#pragma once
#include <attune/callback.hpp>

#include <limits>
#include <string>

namespace attune::train {

class Best {
 public:
  /// metric: a name of the run's; "": nothing is the best.
  explicit Best(std::string metric) : metric_(std::move(metric)) {}

  /// Whether the newest evaluation of the run is the best. NaN never is.
  bool is_beaten_by(const Run& run) {
    if (metric_.empty()) return false;
    const double cost = run.metric(metric_).cost(run.metrics.at(metric_));
    if (!(cost < cost_)) return false;
    cost_ = cost;
    return true;
  }

  /// Metric::cost
  double cost() const { return cost_; }
  void restore(double cost) { cost_ = cost; }

 private:
  std::string metric_;
  double cost_ = std::numeric_limits<double>::infinity();
};

}  // namespace attune::train
