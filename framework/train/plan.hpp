// A step and an evaluation of a planned run, without values.
#pragma once
#include <cstdint>

#include "nn/unknown_values.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Work of strategies, which in a plan goes as far as it does without the weights' values. Whether
/// it went to its end. An error that may follow from a number that no one knows is none.
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

/// So many of the longest training samples are the pass of a plan.
std::int64_t samples_of_pass(const Session& session);

/// The strategies begin, and the run's loss is computed of its longest training samples, forward
/// and back, and of its first validation samples: refused is what the run would be refused for in
/// its first step. Sets what the session knows of its memory.
void plan_steps(Session& session, const nn::TensorMeter& meter);

}  // namespace attune::train
