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

/// So many training rows whose lengths are spread as those of the split are.
std::vector<std::int64_t> typical_rows(const Session& session, std::int64_t count);

/// A pass over these training rows.
struct TimedPass {
  std::vector<std::int64_t> rows;
  double seconds = 0;
};
/// The cost of which two passes tell, without the update.
Cost cost_through(const Session& session, const TimedPass& few, const TimedPass& many);

/// What ranks compute in a step, on average over the run's first steps.
struct StepLoad {
  double passes = 0;   // of the rank that has most
  double seconds = 0;  // of the ranks that the others wait for, without the update
};
/// How ranks pass a step.
struct Pace {
  bool together = false;  // they wait for each other in every pass, not only at the end of the step
  // how much slower each is when all compute: ranks that wait leave their share to the others
  double crowding = 1;
};
/// Error if so many ranks cannot share the step's samples.
StepLoad step_load(const Cost& cost, const Session& session, int ranks, const Pace& pace);

/// Estimated seconds per step, on average over the run's first steps.
double step_seconds(const Cost& cost, const Session& session);

}  // namespace attune::train
