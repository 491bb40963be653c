// Weights that rank 0 reads and broadcasts to all ranks.
#pragma once
#include <attune/comm.hpp>
#include <attune/weights.hpp>

#include <memory>

namespace attune {

class SharedWeights final : public WeightSource {
 public:
  /// source: on rank 0; null on other ranks. Collective.
  SharedWeights(std::unique_ptr<WeightSource> source, Comm comm);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  /// Collective: all ranks read the same names in the same order. Exceptions of rank 0 are rethrown
  /// on all ranks.
  at::Tensor read(const std::string& name) override;

 private:
  std::unique_ptr<WeightSource> source_;
  Comm comm_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace attune
