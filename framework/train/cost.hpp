// How long a step takes: passes measured here and now, and a model of how they grow.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "train/session.hpp"

namespace attune::train {

/// A forward and backward pass over samples of n_i tokens takes fixed + rate * sum_i (n_i + n_i^2 /
/// even) seconds: products with weights grow with the tokens, attention with their square. Of a
/// sample of `even` tokens both have as many operations.
struct Cost {
  double fixed = 0;
  double rate = 0;
  double even = 0;    // 0: no attention over tokens
  double update = 0;  // seconds of the optimizer, once a step

  double units(std::span<const std::int64_t> lengths) const;
};

/// The rows of the training split that measure_cost goes over.
std::vector<std::int64_t> cost_rows(const Session& session);

/// From passes over one sample and over a micro-batch of the training split, as long as samples are
/// on the whole, and an update with a learning rate of zero, all ranks at a time. Takes the
/// optimizer's memory; leaves no gradients. Collective.
Cost measure_cost(Session& session);

/// Seconds of a step of the run, in the mean over its samples.
double step_seconds(const Cost& cost, const Session& session);

}  // namespace attune::train
