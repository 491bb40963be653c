// Weights that rank 0 reads for all ranks.
#pragma once
#include <attune/comm.hpp>
#include <attune/weights.hpp>

#include <memory>

#include "parallel/node_memory.hpp"

namespace attune {

class SharedWeights final : public WeightSource {
 public:
  /// source: on rank 0 of comm; null on other ranks. memory: of this rank's node, for parameters;
  /// if null, each rank holds its own. Collective.
  SharedWeights(std::unique_ptr<WeightSource> source, Comm comm,
                std::shared_ptr<parallel::NodeMemory> memory = nullptr);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  /// Collective: all ranks read the same names in the same order. Exceptions of rank 0 are rethrown
  /// on all ranks.
  at::Tensor read(const std::string& name) override;
  /// Likewise. Each byte travels to a node once.
  at::Tensor read_as(const std::string& name, at::ScalarType dtype, bool is_transposed) override;

 private:
  std::unique_ptr<WeightSource> source_;
  Comm comm_;
  std::shared_ptr<parallel::NodeMemory> memory_;
  Comm firsts_;  // of the nodes
  std::vector<TensorInfo> tensors_;
};

}  // namespace attune
