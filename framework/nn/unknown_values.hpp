// Operators on tensors of the meta device, which have no values, together with tensors of the host,
// which have.
#pragma once
#include <cstdint>
#include <exception>

namespace attune::nn {

/// While it lives, a planned model computes with batches of the host in this thread. Token ids,
/// targets and masks keep their values: how many rows a loss takes, and whether a target is one of
/// the model's outputs, is what it will be in the run.
///
/// - An operator on tensors of both has a result without values; a tensor of the host that it
/// writes to loses its values.
/// - A tensor without values stays so when it is moved to the host.
/// - A single number read from one is 0, and `numbers_read` counts it: what follows from it does
/// not hold for the run.
///
/// What needs more than a number throws: asks_for_values() tells.
class UnknownValues {
 public:
  UnknownValues();
  ~UnknownValues();
  UnknownValues(const UnknownValues&) = delete;
  UnknownValues& operator=(const UnknownValues&) = delete;

  /// How many numbers were read since it began.
  std::int64_t numbers_read() const;

 private:
  std::int64_t before_;
  bool was_included_;
};

/// Whether the exception says that a tensor has no values, or that an operator cannot do without
/// them.
bool asks_for_values(const std::exception& error);

}  // namespace attune::nn
