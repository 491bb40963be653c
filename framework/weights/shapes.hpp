// A model's weights without values, from the headers of its files.
#pragma once
#include <attune/weights.hpp>

namespace attune {

/// The tensors of another source without values. read() returns meta tensors in the dtype of the
/// other source's read() and performs no I/O.
class Shapes final : public WeightSource {
 public:
  explicit Shapes(const WeightSource& of) : tensors_(of.tensors()) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  at::Tensor read(const std::string& name) override;

 private:
  std::vector<TensorInfo> tensors_;
};

}  // namespace attune
