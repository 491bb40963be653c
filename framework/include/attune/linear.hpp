// The framework's own linear layer, with a slot for deltas (LoRA, DoRA, IA3, adapters...).
#pragma once
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

namespace attune::nn {

class Linear;

/// A trained change to one linear layer. Its parameters are registered as those of a sub-module of that layer.
class Delta : public torch::nn::Module {
 public:
  /// x: the layer's input [..., in]; y: its output so far [..., out]. Returns the new output.
  virtual at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y) = 0;
  /// The change of the weight [out, in] that gives the same output in inference.
  virtual at::Tensor weight_delta(const Linear& base) const = 0;
};

/// y = x weight^T + bias, then each delta in turn. weight [out, in] and bias [out] (maybe undefined) are not initialised:
/// they are loaded, or set by whoever makes the layer.
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias);
  /// For a tied projection: shares the tensor, registers no parameter of its own.
  explicit Linear(at::Tensor shared_weight);
  at::Tensor forward(const at::Tensor& x);

  void add_delta(std::string name, std::shared_ptr<Delta> delta);
  const std::vector<std::shared_ptr<Delta>>& deltas() const { return deltas_; }
  /// Folds every delta into weight and removes them.
  void merge_deltas();
  /// While false, forward is that of the base alone (evaluation of the base, DPO's reference).
  static void enable_deltas(torch::nn::Module& root, bool enabled);

  std::int64_t in() const { return weight.size(1); }
  std::int64_t out() const { return weight.size(0); }

  at::Tensor weight;
  at::Tensor bias;

 private:
  std::vector<std::shared_ptr<Delta>> deltas_;
  bool deltas_enabled_ = true;
};

/// Every nn::Linear below root with its dotted name, in registration order.
std::vector<std::pair<std::string, std::shared_ptr<Linear>>> linears(torch::nn::Module& root);

}  // namespace attune::nn
