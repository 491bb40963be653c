// Which metrics a run measures, and the options that name one. Nothing here computes: plugins say
// it of themselves.
#pragma once
#include <attune/metric.hpp>

#include <vector>

#include "config/run_config.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Of a run on data that declare these (data_metrics). Error: check_declarations.
std::vector<Metric> declared_metrics(const config::RunConfig& config, std::vector<Metric> of_data);
/// The same of a session, by its validation split.
std::vector<Metric> declared_metrics(const Session& session);

/// Error when an option of a plugin of the run names a metric that is not among these: where it was
/// set, and what the run measures.
void check_metric_options(const config::RunConfig& config, const std::vector<Metric>& metrics);

}  // namespace attune::train
