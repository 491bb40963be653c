#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <torch/torch.h>

#include <ranges>

namespace attune::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The product with a weight that is unpacked for it, and once more for the gradient of x: it is never kept.
struct PackedProduct : torch::autograd::Function<PackedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& bias, const std::shared_ptr<PackedWeight>& packed) {
    context->saved_data["packed"] = at::IValue::make_capsule(c10::make_intrusive<Holder>(packed));
    context->saved_data["trains_bias"] = bias && bias->requires_grad();
    return at::linear(x, packed->unpack(), bias);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto& packed = static_cast<Holder&>(*context->saved_data["packed"].toCapsule()).packed;
    at::Tensor dbias;
    if (context->saved_data["trains_bias"].toBool()) dbias = gradients[0].flatten(0, -2).sum(0);
    return {at::matmul(gradients[0], packed->unpack()), dbias, {}};
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<PackedWeight> weight) : packed(std::move(weight)) {}
    std::shared_ptr<PackedWeight> packed;
  };
};

}  // namespace

at::Tensor Delta::forward(const Linear&, const at::Tensor&, const at::Tensor& y) { return y; }
at::Tensor Delta::undone(const Linear&, const at::Tensor&, const at::Tensor& y) { return y; }

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias) : in_(in), out_(out) {
  weight = register_parameter("weight", torch::empty({out, in}));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}));
}

Linear::Linear(at::Tensor shared_weight) : weight(std::move(shared_weight)), in_(weight.size(1)), out_(weight.size(0)) {}

at::Tensor Linear::forward(const at::Tensor& x) {
  const at::Tensor y = uncapped(x);
  return softcap > 0 ? softcap * (y / softcap).tanh() : y;
}

at::Tensor Linear::uncapped(const at::Tensor& x) {
  const auto product = [&](const at::Tensor& input) {
    return packed_ ? PackedProduct::apply(input, bias.defined() ? std::optional(bias) : std::nullopt, packed_) : at::linear(input, weight, bias);
  };
  if (!deltas_enabled_) {
    at::Tensor y = product(x);
    for (auto& delta : std::views::reverse(deltas_)) y = delta->undone(*this, x, y);
    return y;
  }
  at::Tensor input = x;
  for (auto& delta : deltas_) input = delta->input(input);
  at::Tensor y = product(input);
  for (auto& delta : deltas_) y = delta->forward(*this, x, y);
  return y;
}

void Linear::add_delta(std::string name, std::shared_ptr<Delta> delta) {
  deltas_.push_back(register_module(std::move(name), std::move(delta)));
}

void Linear::merge_deltas() {
  if (deltas_.empty()) return;
  if (packed_) fail("the adapter cannot be folded into the base, whose weights are held packed: export the adapter, and merge it in a run without quantization");
  const torch::NoGradGuard no_grad;
  for (auto& delta : deltas_) delta->merge(*this);
  for (auto& child : named_children()) {
    if (std::dynamic_pointer_cast<Delta>(child.value())) unregister_module(child.key());
  }
  deltas_.clear();
}

void Linear::pack(std::shared_ptr<PackedWeight> packed) {
  packed_options_ = weight.options().requires_grad(false);
  packed_ = std::move(packed);
  if (parameters_.contains("weight")) parameters_.erase("weight");
  weight = at::Tensor();
}

std::vector<std::pair<std::string, std::shared_ptr<Linear>>> linears(torch::nn::Module& root) {
  std::vector<std::pair<std::string, std::shared_ptr<Linear>>> found;
  for (auto& item : root.named_modules("", false)) {
    if (auto linear = std::dynamic_pointer_cast<Linear>(item.value())) found.emplace_back(item.key(), std::move(linear));
  }
  return found;
}

}  // namespace attune::nn
