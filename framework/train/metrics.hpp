// The metrics of a run, and checks of the options that name one.
#pragma once
#include <attune/metric.hpp>

#include <vector>

#include "config/run_config.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Metrics of a run whose data declare `of_data`. Error: as check_declarations.
std::vector<Metric> declared_metrics(const config::RunConfig& config, std::vector<Metric> of_data);
/// The same for a session, based on its validation split.
std::vector<Metric> declared_metrics(const Session& session);

/// Error if a plugin option names a metric that is not in `metrics`. The message states where the
/// option was set and which metrics the run has.
void check_metric_options(const config::RunConfig& config, const std::vector<Metric>& metrics);

}  // namespace attune::train
