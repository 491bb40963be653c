#include "nn/operations.hpp"

#include <ATen/record_function.h>
#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "nn/activations.hpp"

namespace attune::nn {
namespace {

thread_local Operations* counted = nullptr;

using Inputs = c10::ArrayRef<const c10::IValue>;

at::Tensor tensor(const Inputs& inputs, std::size_t index) { return inputs[index].toTensor(); }

double size(const at::Tensor& tensor) { return static_cast<double>(tensor.numel()); }

/// a: [..., rows, inner], b: [..., inner, columns].
double multiplied(const at::Tensor& a, const at::Tensor& b) {
  return 2 * size(a) * static_cast<double>(b.size(-1));
}

/// q: [batch, heads, rows, size], k alike: scores, and the sum of values by them. Half of it where
/// no row sees a later one.
double attended(const Inputs& inputs, std::size_t first, std::size_t causal) {
  const auto all =
      4 * size(tensor(inputs, first)) * static_cast<double>(tensor(inputs, first + 1).size(2));
  return inputs[causal].toBool() ? all / 2 : all;
}

/// Of each row of a result: the weights of its channels.
double convolved(const at::Tensor& result, const at::Tensor& weight) {
  return 2 * size(result) * size(weight) / static_cast<double>(weight.size(0));
}

/// x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
double convolution(const Inputs& inputs) {
  const auto x = tensor(inputs, 0);
  const auto steps = inputs[3].toIntVector();  // one of them may stand for all dimensions
  double positions = size(x) / static_cast<double>(x.size(1));
  const bool is_transposed = inputs[6].toBool();  // every element of x meets every weight
  for (std::size_t i = 0; !is_transposed && static_cast<std::int64_t>(i) + 2 < x.dim(); ++i)
    positions /= static_cast<double>(steps[std::min(i, steps.size() - 1)]);
  return 2 * positions * size(tensor(inputs, 1));
}

const std::map<std::string_view, double (*)(const Inputs&)>& products_of_operators() {
  static const std::map<std::string_view, double (*)(const Inputs&)> all{
      {"aten::mm", [](const Inputs& i) { return multiplied(tensor(i, 0), tensor(i, 1)); }},
      {"aten::bmm", [](const Inputs& i) { return multiplied(tensor(i, 0), tensor(i, 1)); }},
      {"aten::addmm", [](const Inputs& i) { return multiplied(tensor(i, 1), tensor(i, 2)); }},
      {"aten::addmm_", [](const Inputs& i) { return multiplied(tensor(i, 1), tensor(i, 2)); }},
      {"aten::baddbmm", [](const Inputs& i) { return multiplied(tensor(i, 1), tensor(i, 2)); }},
      {"aten::baddbmm_", [](const Inputs& i) { return multiplied(tensor(i, 1), tensor(i, 2)); }},
      // queries, keys, values, dropout, causal
      {"aten::_scaled_dot_product_flash_attention_for_cpu",
       [](const Inputs& i) { return attended(i, 0, 4); }},
      // gradient, queries, keys, values, result, log-sums, dropout, causal: five products to two
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward",
       [](const Inputs& i) { return 2.5 * attended(i, 1, 7); }},
      {"aten::convolution", convolution},
      // gradient, x, weight: by the input and by the weight
      {"aten::convolution_backward",
       [](const Inputs& i) { return 2 * convolved(tensor(i, 0), tensor(i, 2)); }}};
  return all;
}

/// Operators in the table may call others in it, and themselves on the meta device.
struct InProduct final : at::ObserverContext {
  InProduct() { ++depth; }
  ~InProduct() override { --depth; }
  static thread_local int depth;
};
thread_local int InProduct::depth = 0;

std::unique_ptr<at::ObserverContext> begins(const at::RecordFunction& operation) {
  if (!counted) return nullptr;
  ++counted->calls;
  const auto& all = products_of_operators();
  const auto found = all.find(operation.name());
  if (found == all.end()) return nullptr;
  if (InProduct::depth == 0) counted->products += found->second(operation.inputs());
  return std::make_unique<InProduct>();
}

void ends(const at::RecordFunction&, at::ObserverContext*) {}

/// While it lives, operators of this thread are counted.
class Counting {
 public:
  explicit Counting(Operations& operations) {
    ATTUNE_ASSERT(!counted, "operations are being counted already");
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&begins, &ends)
                                             .needsInputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
    counted = &operations;
  }
  ~Counting() {
    counted = nullptr;
    at::removeCallback(handle_);
  }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

 private:
  at::CallbackHandle handle_ = at::INVALID_CALLBACK_HANDLE;
};

}  // namespace

void add_products(double count) {
  if (counted) counted->products += count;
}

Operations count_operations(const std::function<void()>& work) {
  Operations operations;
  const TensorMeter meter;
  {
    const Counting counting(operations);
    work();
  }
  operations.made = static_cast<double>(meter.allocated());
  return operations;
}

}  // namespace attune::nn
