// A model's weights as far as their files' headers tell.
#pragma once
#include <attune/weights.hpp>

namespace attune {

/// The tensors of another source without their values: read() gives them on the meta device, in the
/// dtype in which the other source would give them, and reads nothing.
class Shapes final : public WeightSource {
 public:
  explicit Shapes(const WeightSource& of) : tensors_(of.tensors()) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  at::Tensor read(const std::string& name) override;

 private:
  std::vector<TensorInfo> tensors_;
};

}  // namespace attune
