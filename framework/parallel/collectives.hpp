// Collectives over host tensors of any length. MPI counts are int, so longer messages are sent in
// pieces.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <vector>

namespace attune::parallel {

using Reduction = c10d::ReduceOp::RedOpType;

/// The dtype in which tensors of a dtype are reduced: float32 for bfloat16 and float16, which MPI
/// does not support.
at::ScalarType reduced_as(at::ScalarType type);

/// All tensors must be contiguous, and inputs must not share memory with outputs. Fault: a dtype or
/// reduction that MPI does not support.
class Collectives {
 public:
  /// largest: maximum bytes per MPI call.
  Collectives(Comm comm, std::size_t largest)
      : comm_(std::move(comm)), largest_(static_cast<std::int64_t>(largest)) {}

  const Comm& comm() const { return comm_; }

  void all_reduce(const at::Tensor& tensor, Reduction op) const;
  /// input: one block for each rank, concatenated, with these sizes in elements. output: the
  /// reduction of this rank's blocks.
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      const std::vector<std::int64_t>& sizes, Reduction op) const;
  /// output: the inputs of all ranks, concatenated, with these sizes in elements. Any dtype.
  void all_gather(const at::Tensor& output, const at::Tensor& input,
                  const std::vector<std::int64_t>& sizes) const;
  /// outputs[r] = inputs[this rank] of rank r. Any dtype.
  void all_to_all(const std::vector<at::Tensor>& outputs,
                  const std::vector<at::Tensor>& inputs) const;

 private:
  Comm comm_;
  std::int64_t largest_;
};

}  // namespace attune::parallel
