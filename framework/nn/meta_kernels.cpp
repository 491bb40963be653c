// Operators that LibTorch's C++ has no shape function for on its meta device (those are in Python):
// a model that is planned runs them too. They give tensors of the right shape and dtype, and no
// values.
#include "nn/meta_kernels.hpp"

#include <ATen/OpMathType.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <array>
#include <deque>

#include "nn/activations.hpp"

namespace attune::nn {
namespace {

// ---- Operators whose arguments are too large to be copied, or whose work is

at::Tensor selected(const at::Tensor& x, std::int64_t dimension, const at::Tensor& index) {
  auto sizes = x.sizes().vec();
  if (!sizes.empty())
    sizes[static_cast<std::size_t>(at::maybe_wrap_dim(dimension, x.dim()))] = index.numel();
  return at::empty(sizes, x.options());
}

at::Tensor bucketed(const at::Tensor& x, const at::Tensor&, bool in_int32, bool) {
  return at::empty(x.sizes(), x.options().dtype(in_int32 ? at::kInt : at::kLong));
}

using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// The output, and the mean and the reciprocal deviation of every row.
ThreeTensors layer_normed(const at::Tensor& x, at::IntArrayRef normalized,
                          const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                          double) {
  auto rows = x.sizes().vec();
  std::fill(rows.end() - std::ssize(normalized), rows.end(), 1);
  return {at::empty_like(x), at::empty(rows, x.options()), at::empty(rows, x.options())};
}

/// In inference, which is all that BatchNorm2d does: no statistics come of it.
ThreeTensors batch_normed(const at::Tensor& x, const std::optional<at::Tensor>&,
                          const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                          const std::optional<at::Tensor>&, bool, double, double) {
  return {at::empty_like(x), at::empty({0}, x.options()), at::empty({0}, x.options())};
}

/// x [B, in, ...], weight [out, in / groups, ...]. Dumoulin and Visin 2016 (arXiv:1603.07285),
/// relationship 6, with the kernel spread by the dilation (relationship 14).
at::Tensor convolved(const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>&, at::IntArrayRef stride,
                     at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                     at::IntArrayRef, std::int64_t) {
  TORCH_CHECK_NOT_IMPLEMENTED(!transposed, "a transposed convolution without values");
  std::vector<std::int64_t> sizes{x.size(0), weight.size(0)};
  for (std::int64_t i = 0; i + 2 < x.dim(); ++i) {
    const auto at = [&](at::IntArrayRef values) {
      return values[values.size() == 1 ? 0 : static_cast<std::size_t>(i)];
    };
    const auto spread = at(dilation) * (weight.size(i + 2) - 1) + 1;
    sizes.push_back((x.size(i + 2) + 2 * at(padding) - spread) / at(stride) + 1);
  }
  return at::empty(sizes, x.options());
}

/// q [B, heads, rows, width]. The output, and for each row and head the logarithm of its scores'
/// sum [B, rows, heads].
std::tuple<at::Tensor, at::Tensor> attended(const at::Tensor& q, const at::Tensor&,
                                            const at::Tensor&, double, bool,
                                            const std::optional<at::Tensor>&,
                                            std::optional<double>) {
  return {at::empty_like(q), at::empty({q.size(0), q.size(2), q.size(1)},
                                       q.options().dtype(at::toOpMathType(q.scalar_type())))};
}

// ---- Their gradients: of the shape of what they are for, where they are asked for

at::Tensor gradient_of(const at::Tensor& x, bool is_wanted) {
  return is_wanted ? at::empty_like(x) : at::Tensor();
}

at::Tensor gradient_of(const std::optional<at::Tensor>& x, bool is_wanted) {
  return is_wanted && x ? at::empty_like(*x) : at::Tensor();
}

ThreeTensors layer_norm_gradients(const at::Tensor&, const at::Tensor& x, at::IntArrayRef,
                                  const at::Tensor&, const at::Tensor&,
                                  const std::optional<at::Tensor>& weight,
                                  const std::optional<at::Tensor>& bias,
                                  std::array<bool, 3> wanted) {
  return {gradient_of(x, wanted[0]), gradient_of(weight, wanted[1]), gradient_of(bias, wanted[2])};
}

ThreeTensors batch_norm_gradients(const at::Tensor&, const at::Tensor& x,
                                  const std::optional<at::Tensor>& weight,
                                  const std::optional<at::Tensor>&,
                                  const std::optional<at::Tensor>&,
                                  const std::optional<at::Tensor>&,
                                  const std::optional<at::Tensor>&, bool, double,
                                  std::array<bool, 3> wanted) {
  return {gradient_of(x, wanted[0]), gradient_of(weight, wanted[1]),
          gradient_of(weight, wanted[2])};
}

ThreeTensors convolution_gradients(const at::Tensor& dy, const at::Tensor& x,
                                   const at::Tensor& weight, at::IntArrayRef, at::IntArrayRef,
                                   at::IntArrayRef, bool, at::IntArrayRef, std::int64_t,
                                   std::array<bool, 3> wanted) {
  return {gradient_of(x, wanted[0]), gradient_of(weight, wanted[1]),
          wanted[2] ? at::empty({dy.size(1)}, dy.options()) : at::Tensor()};
}

ThreeTensors attention_gradients(const at::Tensor&, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor&, const at::Tensor&, double,
                                 bool, const std::optional<at::Tensor>&, std::optional<double>) {
  return {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
}

at::Tensor embedding_gradient(const at::Tensor& dy, const at::Tensor&, std::int64_t rows,
                              std::int64_t, bool) {
  return at::empty({rows, dy.size(-1)}, dy.options());
}

// ---- Any operator, by running it on the host

constexpr std::int64_t most_numbers = 1 << 24;  // what stands in for an argument is real memory

bool is_elementwise(const c10::OperatorHandle& op) { return op.hasTag(at::Tag::pointwise); }

/// What an operator is given on the host instead of tensors without values.
class StandIns {
 public:
  explicit StandIns(bool are_single) : are_single_(are_single) {}

  /// The value with every tensor in it replaced.
  at::IValue replace(const at::IValue& value) {
    if (value.isTensor()) return replace(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(replace(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional(replace(*tensor)) : std::nullopt);
      return list;
    }
    return value;
  }

  /// What all arguments broadcast to.
  const std::vector<std::int64_t>& sizes() const { return sizes_; }

 private:
  at::Tensor replace(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_meta()) return tensor;
    auto sizes = tensor.sizes().vec();
    if (are_single_) {
      if (tensor.numel() > 0) sizes_ = at::infer_size(sizes_, sizes);
      std::ranges::for_each(sizes,
                            [](std::int64_t& size) { size = std::min<std::int64_t>(size, 1); });
    }
    numbers_ += tensor.numel();
    const bool is_small = are_single_ || numbers_ <= most_numbers;
    TORCH_CHECK_NOT_IMPLEMENTED(is_small, "an operator on so large a tensor without values");
    return at::zeros(sizes, tensor.options().device(at::kCPU));
  }

  bool are_single_;
  std::int64_t numbers_ = 0;
  std::vector<std::int64_t> sizes_;
};

/// The result as it is on the meta device. `written`: the argument that the operator returns, if it
/// does.
at::Tensor without_values(const at::Tensor& result, const StandIns& given, bool is_single,
                          const at::Tensor* written) {
  if (!result.defined()) return result;
  const auto sizes = is_single ? at::IntArrayRef(given.sizes()) : result.sizes();
  if (!written) return at::empty(sizes, result.options().device(at::kMeta));
  if (written->sizes() != sizes) written->resize_(sizes);
  return *written;
}

/// The argument that result `index` of the operator is, where it writes into one.
const at::Tensor* written_by(const c10::FunctionSchema& schema, std::size_t index,
                             at::ArrayRef<at::IValue> arguments) {
  const auto* alias = schema.returns()[index].alias_info();
  if (!alias || !alias->isWrite()) return nullptr;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto* other = schema.arguments()[i].alias_info();
    if (other && other->isWrite() && other->beforeSets() == alias->beforeSets())
      return &arguments[i].toTensor();
  }
  return nullptr;
}

/// Runs the operator on zeros of the host, which for an elementwise one are single numbers.
void run_on_stand_ins(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const HostUncounted stand_ins;  // first: until they are gone
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  const std::vector<at::IValue> arguments(stack->end() - static_cast<std::ptrdiff_t>(count),
                                          stack->end());
  torch::jit::drop(*stack, count);
  const bool is_single = is_elementwise(op);
  StandIns given(is_single);
  torch::jit::Stack on_host;
  for (const auto& argument : arguments) on_host.push_back(given.replace(argument));
  op.callBoxed(&on_host);
  for (std::size_t i = 0; i < on_host.size(); ++i) {
    const auto& result = on_host[i];
    TORCH_CHECK_NOT_IMPLEMENTED(result.isTensor(), op.schema().name(), " without values");
    stack->push_back(
        without_values(result.toTensor(), given, is_single, written_by(schema, i, arguments)));
  }
}

/// It has a kernel for the host and none that serves the meta device, and the shape of what it
/// gives does not depend on values.
bool can_stand_in(const c10::OperatorHandle& op) {
  using c10::DispatchKey;
  const auto has = [&](DispatchKey key) { return op.hasKernelForDispatchKey(key); };
  if (!op.hasSchema() || !has(DispatchKey::CPU) || has(DispatchKey::Meta)) return false;
  for (const auto key :
       {DispatchKey::CompositeExplicitAutograd, DispatchKey::CompositeImplicitAutograd,
        DispatchKey::CompositeExplicitAutogradNonFunctional})
    if (has(key)) return false;
  if (op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output))
    return false;
  const auto& returns = op.schema().returns();
  return !returns.empty() && std::ranges::all_of(returns, [](const c10::Argument& result) {
    return result.type()->kind() == c10::TypeKind::TensorType;
  });
}

void register_stand_ins() {
  static std::deque<c10::RegistrationHandleRAII> registered;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    if (!name.name.starts_with("aten::") || !op || !can_stand_in(*op)) continue;
    registered.push_back(
        dispatcher.registerImpl(name, c10::DispatchKey::Meta,
                                c10::KernelFunction::makeFromBoxedFunction<&run_on_stand_ins>(),
                                std::nullopt, nullptr, "attune"));
  }
}

void register_shapes() {
  static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__,
                                __LINE__);
  library.impl("index_select", &selected);
  library.impl("native_layer_norm", &layer_normed);
  library.impl("native_batch_norm", &batch_normed);
  library.impl("convolution_overrideable", &convolved);
  library.impl("embedding_dense_backward", &embedding_gradient);
  library.impl("native_layer_norm_backward", &layer_norm_gradients);
  library.impl("native_batch_norm_backward", &batch_norm_gradients);
  library.impl("convolution_backward_overrideable", &convolution_gradients);
  library.impl("_scaled_dot_product_flash_attention_for_cpu_backward", &attention_gradients);
  library.impl("bucketize.Tensor", &bucketed);
  library.impl("_scaled_dot_product_flash_attention_for_cpu", &attended);
}

}  // namespace

void serve_meta_device() {
  static const bool is_served = [] {
    register_shapes();
    register_stand_ins();
    return true;
  }();
  (void)is_served;
}

}  // namespace attune::nn
