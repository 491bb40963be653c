// Collectives over tensors in host memory, of any length: MPI counts in int, so what is longer is
// cut into pieces.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <vector>

namespace attune::parallel {

using Reduction = c10d::ReduceOp::RedOpType;

/// The type in which tensors of a type are reduced: MPI knows no half precision, so bfloat16 and
/// float16 are reduced as float32.
at::ScalarType reduced_as(at::ScalarType type);

/// All tensors are contiguous, and no input shares memory with an output. Fault: a type or a
/// reduction that MPI does not have.
class Collectives {
 public:
  /// largest: bytes that one call of MPI may move.
  Collectives(Comm comm, std::size_t largest)
      : comm_(std::move(comm)), largest_(static_cast<std::int64_t>(largest)) {}

  const Comm& comm() const { return comm_; }

  void all_reduce(const at::Tensor& tensor, Reduction op) const;
  /// input: every rank's block one behind another, of these sizes (elements); output: the sum of
  /// this rank's blocks.
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      const std::vector<std::int64_t>& sizes, Reduction op) const;
  /// output: every rank's input one behind another, of these sizes (elements). Any type.
  void all_gather(const at::Tensor& output, const at::Tensor& input,
                  const std::vector<std::int64_t>& sizes) const;
  /// outputs[r] becomes what rank r has in inputs[this rank]. Any type.
  void all_to_all(const std::vector<at::Tensor>& outputs,
                  const std::vector<at::Tensor>& inputs) const;

 private:
  Comm comm_;
  std::int64_t largest_;
};

}  // namespace attune::parallel
