// Operators that mix meta tensors, which have no values, with host tensors, which have.
#pragma once
#include <cstdint>
#include <exception>

namespace attune::nn {

/// During its lifetime, a planned model in this thread can compute with host batches. Token ids,
/// targets and masks keep their values. The number of rows in a loss, and the check of targets
/// against the model's outputs, are therefore those of the real run.
///
/// - An operator with both kinds of input has a result without values. A host tensor that it writes
/// to loses its values.
/// - A tensor without values keeps none when it is moved to the host.
/// - Reading a scalar without a value gives 0 and is counted by `numbers_read`. Results that depend
/// on it do not hold for the run.
///
/// Operators that need more than a scalar throw an exception that asks_for_values() recognises.
class UnknownValues {
 public:
  UnknownValues();
  ~UnknownValues();
  UnknownValues(const UnknownValues&) = delete;
  UnknownValues& operator=(const UnknownValues&) = delete;

  /// Number of scalars read since construction.
  std::int64_t numbers_read() const;

 private:
  std::int64_t before_;
  bool was_included_;
};

/// Whether the exception says that a tensor has no values, or that an operator requires values.
bool asks_for_values(const std::exception& error);

}  // namespace attune::nn
