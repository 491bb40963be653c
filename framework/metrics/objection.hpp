// Error text for unknown metrics.
#pragma once
#include <attune/metric.hpp>

#include <string>
#include <vector>

namespace attune {

/// "this run has no metric 'f2'; it measures accuracy, f1, loss; did you mean 'f1'?"; "" if
/// `metrics` contains the name.
std::string objection_to_metric(const std::string& name, const std::vector<Metric>& metrics);

}  // namespace attune
