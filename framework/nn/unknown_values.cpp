// The mode is a boxed fallback for every operator, under the dispatch key that LibTorch keeps for
// such modes outside of it.
#include "nn/unknown_values.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <algorithm>
#include <string_view>

namespace attune::nn {
namespace {

constexpr auto mode = c10::DispatchKey::DeferredInit;

thread_local std::int64_t numbers_read = 0;

// ---- A tensor of the host as one without values

/// The same shape and dtype on the meta device. What keeps it keeps the host's memory, and takes no
/// other.
at::Tensor without_values(const at::Tensor& tensor) {
  auto* held = new at::Tensor(tensor);
  const auto forget = [](void* other) { delete static_cast<at::Tensor*>(other); };
  c10::Storage storage(c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
                       c10::DataPtr(nullptr, held, forget, c10::kMeta));
  at::Tensor twin = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::Meta), tensor.dtype());
  twin.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                    tensor.storage_offset());
  return twin;
}

/// A tensor of the host that is written to loses its values. Through a view those of its base stay,
/// and are not what they seem.
void forget_values(const at::Tensor& tensor) {
  if (tensor.is_view()) ++numbers_read;
  const at::Tensor twin = without_values(tensor);
  tensor.unsafeGetTensorImpl()->shallow_copy_from(twin.getIntrusivePtr());
}

bool is_on_host(const at::Tensor& tensor) { return tensor.defined() && tensor.is_cpu(); }

bool is_unknown(const at::Tensor& tensor) { return tensor.defined() && tensor.is_meta(); }

/// A single number of the host goes with tensors of any device.
bool is_moved(const at::Tensor& tensor) {
  return is_on_host(tensor) && !tensor.requires_grad() && !(tensor.dim() == 0);
}

template <class Test>
bool any_tensor(const at::IValue& value, const Test& test) {
  if (value.isTensor()) return test(value.toTensor());
  if (value.isTensorList()) return std::ranges::any_of(value.toTensorVector(), test);
  if (!value.isOptionalTensorList()) return false;
  return std::ranges::any_of(value.toOptionalTensorVector(),
                             [&](const auto& tensor) { return tensor && test(*tensor); });
}

/// Every number of a mask chooses: as ids of the rows that it chooses it has the same meaning and a
/// known shape.
void add_index(c10::List<std::optional<at::Tensor>>& list, const std::optional<at::Tensor>& index) {
  if (!index || !is_on_host(*index)) return list.push_back(index);
  if (index->scalar_type() != at::kBool && index->scalar_type() != at::kByte)
    return list.push_back(without_values(*index));
  for (const auto& ids : index->nonzero().unbind(1)) list.push_back(without_values(ids));
}

at::IValue moved(const at::IValue& value) {
  if (value.isTensor())
    return is_moved(value.toTensor()) ? at::IValue(without_values(value.toTensor())) : value;
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector())
      list.push_back(is_moved(tensor) ? without_values(tensor) : tensor);
    return list;
  }
  if (!value.isOptionalTensorList()) return value;
  c10::List<std::optional<at::Tensor>> list;
  for (const auto& index : value.toOptionalTensorVector()) add_index(list, index);
  return list;
}

// ---- Operators that are something else without values

/// Whether the operator reads one number of a tensor that has none; then the stack holds it.
bool gave_number(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  const std::string_view name = op.operator_name().name;
  if (name != "aten::item" && name != "aten::_local_scalar_dense") return false;
  const at::Tensor tensor = stack.back().toTensor();
  if (!is_unknown(tensor)) return false;
  TORCH_CHECK(tensor.numel() == 1, "a Tensor with ", tensor.numel(),
              " elements cannot be converted to Scalar");
  stack.pop_back();
  ++numbers_read;
  stack.emplace_back(c10::isFloatingType(tensor.scalar_type()) ? at::Scalar(0.0) : at::Scalar(0));
  return true;
}

/// The numbers of x that a mask of the host chooses.
bool gave_selected(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  if (op.operator_name().name != "aten::masked_select") return false;
  const at::Tensor x = stack[stack.size() - 2].toTensor();
  const at::Tensor mask = stack.back().toTensor();
  if (!is_unknown(x) || !is_on_host(mask)) return false;
  const auto sizes = at::infer_size(x.sizes(), mask.sizes());
  const auto chosen = mask.expand(sizes).count_nonzero().item<std::int64_t>();
  torch::jit::drop(stack, 2);
  stack.emplace_back(at::empty({chosen}, x.options()));
  return true;
}

/// A tensor without values is not moved to the host.
void keep_where_it_is(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  const std::string_view name = op.operator_name().name;
  if (name != "aten::to" && name != "aten::_to_copy") return;
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  if (!is_unknown(stack[stack.size() - count].toTensor())) return;
  for (std::size_t i = 0; i < count; ++i)
    if (schema.arguments()[i].name() == "device")
      stack[stack.size() - count + i] = c10::Device(c10::kMeta);
}

/// Tensors of the host become such without values where the operator also has one of those.
void mix(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  const auto& schema = op.schema();
  const auto first = stack.size() - schema.arguments().size();
  const auto is_without = [](const at::IValue& value) { return any_tensor(value, &is_unknown); };
  if (std::none_of(stack.begin() + static_cast<std::ptrdiff_t>(first), stack.end(), is_without))
    return;
  for (std::size_t i = 0; i < schema.arguments().size(); ++i) {
    auto& value = stack[first + i];
    const auto* alias = schema.arguments()[i].alias_info();
    const bool is_written = alias && alias->isWrite();
    if (!is_written)
      value = moved(value);
    else if (value.isTensor() && is_on_host(value.toTensor()))
      forget_values(value.toTensor());
  }
}

void run_without_values(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard outside(mode);
  if (gave_number(op, *stack) || gave_selected(op, *stack)) return;
  keep_where_it_is(op, *stack);
  mix(op, *stack);
  op.callBoxed(stack);
}

void register_mode() {
  static torch::Library library(torch::Library::IMPL, "_", mode, __FILE__, __LINE__);
  static const bool is_registered = [] {
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_without_values>());
    return true;
  }();
  (void)is_registered;
}

}  // namespace

UnknownValues::UnknownValues()
    : before_(nn::numbers_read), was_included_(c10::impl::tls_is_dispatch_key_included(mode)) {
  register_mode();
  c10::impl::tls_set_dispatch_key_included(mode, true);
}

UnknownValues::~UnknownValues() { c10::impl::tls_set_dispatch_key_included(mode, was_included_); }

std::int64_t UnknownValues::numbers_read() const { return nn::numbers_read - before_; }

bool asks_for_values(const std::exception& error) {
  if (dynamic_cast<const c10::NotImplementedError*>(&error)) return true;
  return dynamic_cast<const c10::Error*>(&error) &&
         std::string_view(error.what()).find("data is not allocated") != std::string_view::npos;
}

}  // namespace attune::nn
