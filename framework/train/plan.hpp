// A step and an evaluation of a planned run, on tensors without values.
#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "nn/operations.hpp"
#include "nn/unknown_values.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Runs `work`, which in a plan may stop early because it needs tensor values. Returns whether it
/// completed. In a plan, an Error is ignored if `work` had read unknown numbers.
template <class Work>
bool as_far_as_planned(const Session& session, Work&& work) {
  if (!session.is_planned) {
    work();
    return true;
  }
  const nn::UnknownValues unknown;
  try {
    work();
    return true;
  } catch (const Error&) {
    if (unknown.numbers_read() == 0) throw;
  } catch (const std::exception& error) {
    if (!nn::asks_for_values(error)) throw;
  }
  return false;
}

/// Number of longest training samples in a plan's pass: the most that a rank takes at once.
std::int64_t samples_of_pass(const Session& session);

/// The validation rows that an evaluation takes first.
std::vector<std::int64_t> evaluated_rows(const Session& session);

/// Runs a forward pass over the validation samples that an evaluation takes first, on the session's
/// device. Error: a metric that the model does not serve.
void try_evaluation(Session& session);

/// Plans the pass of plan_steps() again, after another parallel.shard or other ranks were set.
void plan_pass(Session& session);

/// What a forward and backward pass of a planned run over these training rows computes. Absent if a
/// strategy or model needs values.
std::optional<nn::Operations> operations_of_pass(Session& session,
                                                 std::span<const std::int64_t> rows);

/// Calls the strategies' `begin`, a forward and backward pass over the longest training samples,
/// and a forward pass over the first validation samples. Reports the errors that would end the run
/// in its first step. Sets session.planned.
void plan_steps(Session& session, const nn::TensorMeter& meter);

}  // namespace attune::train
