// The collectives of a group of ranks, over tensors of one place: of the host by MPI, of devices by
// a library of theirs.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <utility>
#include <vector>

namespace attune::parallel {

using Reduction = c10d::ReduceOp::RedOpType;

/// The dtype in which tensors of a dtype are reduced: float32 for bfloat16 and float16, which MPI
/// does not support, and in which a sum over many ranks loses digits.
at::ScalarType reduced_as(at::ScalarType type);

/// All tensors must be contiguous, and inputs must not share memory with outputs. Fault: a dtype or
/// reduction that is not supported. All ranks make the same calls in the same order.
class Collectives {
 public:
  explicit Collectives(Comm comm) : comm_(std::move(comm)) {}
  virtual ~Collectives() = default;
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  const Comm& comm() const { return comm_; }

  virtual void all_reduce(const at::Tensor& tensor, Reduction op) const = 0;
  /// input: one block for each rank, concatenated, with these sizes in elements. output: the
  /// reduction of this rank's blocks.
  virtual void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                              const std::vector<std::int64_t>& sizes, Reduction op) const = 0;
  /// output: the inputs of all ranks, concatenated, with these sizes in elements. Any dtype.
  virtual void all_gather(const at::Tensor& output, const at::Tensor& input,
                          const std::vector<std::int64_t>& sizes) const = 0;
  /// outputs[r] = inputs[this rank] of rank r. Any dtype.
  virtual void all_to_all(const std::vector<at::Tensor>& outputs,
                          const std::vector<at::Tensor>& inputs) const = 0;
  /// The tensor of rank `from`, on every rank. Any dtype.
  virtual void broadcast(const at::Tensor& tensor, int from) const = 0;

 private:
  Comm comm_;
};

}  // namespace attune::parallel
