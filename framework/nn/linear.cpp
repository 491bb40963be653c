#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <torch/torch.h>

namespace attune::nn {

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias) {
  weight = register_parameter("weight", torch::empty({out, in}));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}));
}

Linear::Linear(at::Tensor shared_weight) : weight(std::move(shared_weight)) {}

at::Tensor Linear::forward(const at::Tensor& x) {
  at::Tensor y = at::linear(x, weight, bias);
  if (!deltas_enabled_) return y;
  for (auto& delta : deltas_) y = delta->forward(*this, x, y);
  return y;
}

void Linear::add_delta(std::string name, std::shared_ptr<Delta> delta) {
  deltas_.push_back(register_module(std::move(name), std::move(delta)));
}

void Linear::merge_deltas() {
  const torch::NoGradGuard no_grad;
  for (auto& delta : deltas_) weight.add_(delta->weight_delta(*this));
  for (auto& child : named_children()) {
    if (std::dynamic_pointer_cast<Delta>(child.value())) unregister_module(child.key());
  }
  deltas_.clear();
}

void Linear::enable_deltas(torch::nn::Module& root, bool enabled) {
  for (auto& [name, linear] : linears(root)) linear->deltas_enabled_ = enabled;
}

std::vector<std::pair<std::string, std::shared_ptr<Linear>>> linears(torch::nn::Module& root) {
  std::vector<std::pair<std::string, std::shared_ptr<Linear>>> found;
  for (auto& item : root.named_modules("", false)) {
    if (auto linear = std::dynamic_pointer_cast<Linear>(item.value())) found.emplace_back(item.key(), std::move(linear));
  }
  return found;
}

}  // namespace attune::nn
