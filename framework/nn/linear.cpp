#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <ranges>

#include "nn/planned.hpp"
#include "nn/rounding.hpp"

// MKL's, in LibTorch for x86: c [m, n] = alpha a b + beta c in columns, sums in float32.
extern "C" [[gnu::weak]] void gemm_bf16bf16f32_(const char* transa, const char* transb,
                                                const int* m, const int* n, const int* k,
                                                const float* alpha, const at::BFloat16* a,
                                                const int* lda, const at::BFloat16* b,
                                                const int* ldb, const float* beta, float* c,
                                                const int* ldc);

namespace attune::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// float32: x weight^T + bias of rows, with x and weight rounded to bfloat16; gradients likewise.
struct RoundedProduct : torch::autograd::Function<RoundedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& operand) {
    const at::Tensor rounded = x.to(at::kBFloat16);
    context->save_for_backward({weight.requires_grad() ? rounded : at::Tensor(), operand});
    context->saved_data["trains_bias"] = bias && bias->requires_grad();
    at::Tensor y = product(rounded, operand.t());
    if (bias) y.add_(*bias);
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& dy = gradients[0];
    const at::Tensor rounded = dy.to(at::kBFloat16);
    at::Tensor dx;
    at::Tensor dweight;
    at::Tensor dbias;
    if (context->needs_input_grad(0)) dx = product(rounded, saved[1]);
    if (saved[0].defined()) dweight = product(rounded.t(), saved[0]);
    if (context->saved_data["trains_bias"].toBool()) dbias = dy.sum(0);
    return {dx, dweight, dbias, {}};
  }
};

/// The product with a weight that is unpacked for it, and once more for the gradient of x: it is
/// never kept.
struct PackedProduct : torch::autograd::Function<PackedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& bias,
                            const std::shared_ptr<PackedWeight>& packed, bool is_wide) {
    context->saved_data["packed"] = at::IValue::make_capsule(c10::make_intrusive<Holder>(packed));
    context->saved_data["trains_bias"] = bias && bias->requires_grad();
    if (!is_wide) return at::linear(x, packed->unpack(), bias);
    at::Tensor y = product(x, packed->unpack().t());
    if (bias) y.add_(*bias);
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto& packed = static_cast<Holder&>(*context->saved_data["packed"].toCapsule()).packed;
    at::Tensor dbias;
    if (context->saved_data["trains_bias"].toBool()) dbias = gradients[0].flatten(0, -2).sum(0);
    const at::Tensor weight = packed->unpack();
    return {at::matmul(gradients[0].to(weight.scalar_type()), weight), dbias, {}, {}};
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<PackedWeight> weight) : packed(std::move(weight)) {}
    std::shared_ptr<PackedWeight> packed;
  };
};

/// Rows one after the other, or the transposed view of such.
struct Matrix {
  explicit Matrix(const at::Tensor& given) : tensor(given) {
    if (!is_rows(tensor) && !is_rows(tensor.t())) tensor = tensor.contiguous();
    transposed = !is_rows(tensor);
    step = static_cast<int>(std::max<std::int64_t>(
        {1, tensor.stride(transposed ? 1 : 0), tensor.size(transposed ? 0 : 1)}));
  }
  static bool is_rows(const at::Tensor& t) {
    return (t.stride(1) == 1 || t.size(1) == 1) && t.stride(0) >= t.size(1);
  }
  at::Tensor tensor;
  bool transposed;
  int step;
};

void add_rounded_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b,
                         float scale, float keep) {
  // In columns it is sum^T = b^T a^T.
  const Matrix left(b);
  const Matrix right(a);
  const int m = static_cast<int>(b.size(1));
  const int n = static_cast<int>(a.size(0));
  const int k = static_cast<int>(a.size(1));
  const int step = static_cast<int>(sum.stride(0));
  gemm_bf16bf16f32_(left.transposed ? "T" : "N", right.transposed ? "T" : "N", &m, &n, &k, &scale,
                    left.tensor.data_ptr<at::BFloat16>(), &left.step,
                    right.tensor.data_ptr<at::BFloat16>(), &right.step, &keep,
                    sum.data_ptr<float>(), &step);
}

/// Where MKL does it: operands bfloat16, the sum float32 in rows.
bool is_rounded(const at::Tensor& sum, const at::Tensor& a) {
  return gemm_bf16bf16f32_ && sum.is_cpu() && sum.scalar_type() == at::kFloat &&
         a.scalar_type() == at::kBFloat16 && sum.stride(1) == 1 && sum.numel() > 0 && a.size(1) > 0;
}

/// Whether sums of products of bfloat16 come in float32, without being rounded in between.
bool sums_in_float(const at::Tensor& x) {
  return is_on_accelerator(x) ? x.is_cuda() || x.is_meta() : gemm_bf16bf16f32_ != nullptr;
}

at::Tensor multiplied(const at::Tensor& a, const at::Tensor& b, at::ScalarType type) {
  const bool is_wider = type == at::kFloat && a.scalar_type() == at::kBFloat16;
  return is_wider && a.is_cuda() ? at::mm(a, b, type) : at::mm(a, b);
}

/// work on [n, in], given and returned in the shape of x [..., in]. Rows stay what they are: a view
/// could not be written into by a delta.
template <class Work>
at::Tensor in_rows(const at::Tensor& x, Work&& work) {
  if (x.dim() == 2) return work(x);
  const at::Tensor y = work(x.flatten(0, -2));
  auto shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.view(shape);
}

}  // namespace

void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double scale,
                 double keep) {
  if (is_rounded(sum, a)) {
    add_rounded_product(sum, a, b, static_cast<float>(scale), static_cast<float>(keep));
  } else if (sum.scalar_type() == a.scalar_type()) {
    sum.addmm_(a, b, keep, scale);
  } else {
    const at::Tensor added = multiplied(a, b, sum.scalar_type());
    keep == 0 ? sum.copy_(added).mul_(scale) : sum.mul_(keep).add_(added, scale);
  }
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor result =
      at::empty({a.size(0), b.size(1)},
                a.options().dtype(a.scalar_type() == at::kBFloat16 ? at::kFloat : a.scalar_type()));
  add_product(result, a, b, 1, 0);
  return result;
}

at::Tensor Delta::forward(const Linear&, const at::Tensor&, const at::Tensor& y, ForwardContext&) {
  return y;
}
at::Tensor Delta::forward_fused(const Linear&, const at::Tensor&, ForwardContext&) { return {}; }
std::optional<Delta::Rows> Delta::rows() const { return std::nullopt; }
at::Tensor Delta::base_output(const Linear&, const at::Tensor&, const at::Tensor& y) { return y; }

void PackedWeight::for_each_tensor(const std::function<void(at::Tensor&)>&) {}

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias) : in_(in), out_(out) {
  weight = register_parameter("weight", new_parameter({out, in}));
  if (with_bias) bias = register_parameter("bias", new_parameter({out}));
}

Linear::Linear(at::Tensor shared_weight)
    : weight(std::move(shared_weight)), in_(weight.size(1)), out_(weight.size(0)) {}

at::Tensor Linear::forward(const at::Tensor& x, ForwardContext& context) {
  const at::Tensor y = deltas_.empty()
                           ? product_of(x)
                           : context.by_owner(x, [&](const at::Tensor& rows, ForwardContext& own) {
                               return uncapped(rows, own);
                             });
  return softcap > 0 ? softcap * (y / softcap).tanh() : y;
}

at::Tensor Linear::product_of(const at::Tensor& x) const {
  const auto maybe_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  if (rounds_operands && !packed_)
    return in_rows(x, [&](const at::Tensor& rows) {
      return RoundedProduct::apply(rows, weight, maybe_bias, operand());
    });
  return packed_ ? PackedProduct::apply(x, maybe_bias, packed_, false)
                 : at::linear(x, weight, bias);
}

at::Tensor Linear::wide_product_of(const at::Tensor& x) const {
  const auto maybe_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  return in_rows(x, [&](const at::Tensor& rows) {
    return packed_ ? PackedProduct::apply(rows, maybe_bias, packed_, true)
                   : RoundedProduct::apply(rows, weight, maybe_bias, weight.detach());
  });
}

at::Tensor Linear::uncapped(const at::Tensor& x, ForwardContext& context) {
  const auto acts = [&](const auto& delta) { return context.acts(delta->owner); };
  if (deltas_.size() == 1 && acts(deltas_.front()) && is_frozen())
    if (at::Tensor y = deltas_.front()->forward_fused(*this, x, context); y.defined()) return y;
  at::Tensor input = x;
  for (auto& delta : deltas_)
    if (acts(delta)) input = delta->input(input);
  // Added to numbers that are rounded to bfloat16, a small change would be lost in every element,
  // and not be right on average.
  const bool is_wide =
      x.scalar_type() == at::kBFloat16 && sums_in_float(x) && std::ranges::any_of(deltas_, acts);
  at::Tensor y = is_wide ? wide_product_of(input) : product_of(input);
  for (auto& delta : std::views::reverse(deltas_))
    if (!acts(delta)) y = delta->base_output(*this, input, y);
  for (auto& delta : deltas_)
    if (acts(delta)) y = delta->forward(*this, x, y, context);
  return y.to(x.scalar_type());
}

/// Frozen and trained weights are rounded alike, so that the base does not depend on what is
/// trained.
at::Tensor Linear::operand() const {
  const at::Tensor now = dense_weight().detach();
  if (!rounds_operands || packed_) return now;
  if (weight.requires_grad()) {
    rounded_ = at::Tensor();
    return rounded_evenly(now);
  }
  if (!rounded_.defined() || rounded_version_ != weight._version())
    keep_operand(rounded_evenly(now));
  return rounded_;
}

void Linear::keep_operand(at::Tensor rounded) const {
  rounded_ = std::move(rounded);
  rounded_version_ = weight._version();
}

bool Linear::is_frozen() const {
  return (packed_ || !weight.requires_grad()) && !(bias.defined() && bias.requires_grad());
}

void Linear::add_delta(std::string name, std::shared_ptr<Delta> delta) {
  if (named_children().contains(name))
    fail(
        "two strategies change the same layers under the name '{}': list each strategy once, or "
        "give them different targets",
        name);
  deltas_.push_back(register_module(std::move(name), std::move(delta)));
}

void Linear::merge_deltas() {
  if (deltas_.empty()) return;
  if (packed_)
    fail(
        "the adapter cannot be merged into quantized base weights: export the adapter, and merge "
        "it in a run without quantization");
  const torch::NoGradGuard no_grad;
  // A delta's output comes from the layer's own input, so that what changes the input changes the
  // weight alone, and first.
  const at::Tensor probe = at::zeros({1, in_}, weight.options());
  auto in_order = deltas_;
  std::ranges::stable_partition(
      in_order, [&](const auto& delta) { return !delta->input(probe).is_same(probe); });
  for (auto& delta : in_order) delta->merge(*this);
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
  return layers_of<Linear>(root);
}

}  // namespace attune::nn
