// Step time estimates: measured passes, and a model of how their time grows with the sample
// lengths.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "train/session.hpp"

namespace attune::train {

/// A forward and backward pass over samples of n_i tokens takes fixed + rate * sum_i (n_i + n_i^2 /
/// even) seconds: weight products grow linearly in the tokens, attention grows quadratically. At
/// `even` tokens both need the same number of operations.
struct Cost {
  double fixed = 0;
  double rate = 0;
  double even = 0;    // 0: no attention over tokens
  double update = 0;  // seconds of the optimizer update, once per step

  double units(std::span<const std::int64_t> lengths) const;
};

/// Training rows that measure_cost uses.
std::vector<std::int64_t> cost_rows(const Session& session);

/// Fits the cost from passes over one sample and over a micro-batch of typical length, and an
/// update with learning rate zero, on all ranks at the same time. Allocates the optimizer's state
/// and leaves no gradients. Collective.
Cost measure_cost(Session& session);

/// Estimated seconds per step, averaged over the run's samples.
double step_seconds(const Cost& cost, const Session& session);

}  // namespace attune::train
