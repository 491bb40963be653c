// Weights read once in all: rank 0 reads, every rank receives.
#pragma once
#include <attune/comm.hpp>
#include <attune/weights.hpp>

#include <memory>

namespace attune {

class SharedWeights final : public WeightSource {
 public:
  /// source: on rank 0; null elsewhere. Collective.
  SharedWeights(std::unique_ptr<WeightSource> source, Comm comm);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  /// Collective: all ranks read the same names in the same order. What rank 0 throws, all throw.
  at::Tensor read(const std::string& name) override;

 private:
  std::unique_ptr<WeightSource> source_;
  Comm comm_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace attune
