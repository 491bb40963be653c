// What is said of a metric that a run does not measure.
#pragma once
#include <attune/metric.hpp>

#include <string>
#include <vector>

namespace attune {

/// "this run has no metric 'f2'; it measures accuracy, f1, loss; did you mean 'f1'?"; "" when
/// `metrics` has one of that name.
std::string objection_to_metric(const std::string& name, const std::vector<Metric>& metrics);

}  // namespace attune
