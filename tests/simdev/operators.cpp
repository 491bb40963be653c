// Operators of the simulated devices: the CPU's own, on memory of the device.
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <memory>
#include <set>
#include <thread>

#include "counters.hpp"
#include "device.hpp"
#include "memory.hpp"

namespace attune::simdev {
namespace {

using Sizes = c10::IntArrayRef;
using SymSizes = c10::SymIntArrayRef;

bool is_on_device(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == sim;
}

/// The same memory, for an operator of the CPU.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!is_on_device(tensor)) return tensor;
  void* const pointer = tensor.numel() == 0 ? nullptr : accessible(tensor.data_ptr());
  return at::from_blob(pointer, tensor.sizes(), tensor.strides(),
                       at::TensorOptions().dtype(tensor.scalar_type()).device(at::kCPU));
}

at::Tensor empty(Sizes sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard here(device);
  return at::detail::empty_generic(sizes, &device_memory(),
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(Sizes sizes, Sizes strides, std::optional<at::ScalarType> type,
                         std::optional<at::Layout>, std::optional<at::Device> device,
                         std::optional<bool>) {
  const c10::OptionalDeviceGuard here(device);
  return at::detail::empty_strided_generic(sizes, strides, &device_memory(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(type));
}

/// Notes that work on the current stream reads or writes it.
void note(const at::Tensor& tensor, bool writes) {
  if (is_on_device(tensor) && tensor.numel() > 0)
    note_use(tensor.const_data_ptr(), current_stream(tensor.device()), writes);
}

/// A new tensor of the device with the values of one that an operator made on the host.
at::Tensor to_new(const at::Tensor& made, at::Device device) {
  const at::Tensor tensor = empty_strided(made.sizes(), made.strides(), made.scalar_type(),
                                          std::nullopt, device, std::nullopt);
  on_host(tensor).copy_(made);
  note(tensor, /*writes=*/true);
  return tensor;
}

/// Of these sizes, with as much of its memory as fits.
const at::Tensor& become(const at::Tensor& tensor, Sizes sizes) {
  const auto bytes = at::detail::computeStorageNbytesContiguous(
      sizes, tensor.element_size(), static_cast<std::size_t>(tensor.storage_offset()));
  if (tensor.storage().nbytes() < bytes)
    at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(tensor.storage(), bytes);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return tensor;
}

// ---- Copies

/// Between a device and pinned memory, later; nothing is counted but the bytes.
void copy_later(const at::Tensor& from, const at::Tensor& to, const at::Tensor& of_device) {
  const auto use = std::make_shared<BlockInUse>(of_device.data_ptr());
  later(current_stream(of_device.device()), [from = on_host(from), to = on_host(to), use] {
    const at::AutoDispatchBelowAutograd plain;
    to.copy_(from);
  });
}

void copy_now(const at::Tensor& from, const at::Tensor& to) {
  finish(current_stream((is_on_device(to) ? to : from).device()));
  on_host(to).copy_(on_host(from));
}

/// As CUDA has it: the host waits, unless it said that it does not and the memory serves for that.
void copy_with_host(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const bool is_to_device = is_on_device(to);
  const auto bytes = static_cast<std::int64_t>(to.nbytes());
  is_to_device ? count_to_device(bytes) : count_to_host(bytes);
  const auto& of_host = is_to_device ? from : to;
  if (non_blocking && is_pinned(of_host.const_data_ptr()))
    return copy_later(from, to, is_to_device ? to : from);
  copy_now(from, to);
  // To the device, other memory is copied aside at once.
  if (non_blocking && is_to_device) return;
  count_synchronisation(is_to_device ? "copy to the device" : "copy to the host");
  host_waits(current_stream((is_to_device ? to : from).device()));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const at::AutoDispatchBelowAutograd plain;
  if (to.numel() == 0) return to;
  note(from, /*writes=*/false);
  note(to, /*writes=*/true);
  if (is_on_device(from) && is_on_device(to)) {
    count_operator("aten::copy_");
    copy_now(from, to);
  } else {
    copy_with_host(from, to, non_blocking);
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  become(to, from.sizes());
  return to.copy_(from);
}

at::Scalar read_scalar(const at::Tensor& tensor) {
  count_synchronisation("aten::_local_scalar_dense");
  count_to_host(static_cast<std::int64_t>(tensor.nbytes()));
  note(tensor, /*writes=*/false);
  host_waits(current_stream(tensor.device()));
  return on_host(tensor).item();
}

void record_stream(at::Tensor& tensor, at::Stream stream) {
  device_memory().recordStream(tensor.storage().data_ptr(), stream);
}

// ---- Views

at::Tensor as_strided(const at::Tensor& tensor, SymSizes sizes, SymSizes strides,
                      std::optional<c10::SymInt> offset) {
  return at::cpu::as_strided_symint(tensor, sizes, strides, std::move(offset));
}

at::Tensor view(const at::Tensor& tensor, SymSizes sizes) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(sizes));
}

at::Tensor reshape_alias(const at::Tensor& tensor, SymSizes sizes, SymSizes strides) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(sizes),
                                    C10_AS_INTARRAYREF_SLOW(strides));
}

at::Tensor& set_storage(at::Tensor& tensor, at::Storage storage, std::int64_t offset, Sizes sizes,
                        Sizes strides) {
  return at::cpu::set_(tensor, std::move(storage), offset, sizes, strides);
}

at::Tensor& set_tensor(at::Tensor& tensor, const at::Tensor& source) {
  return at::native::set_tensor_(tensor, source);
}

const at::Tensor& resize(const at::Tensor& tensor, SymSizes sizes,
                         std::optional<at::MemoryFormat>) {
  return become(tensor, C10_AS_INTARRAYREF_SLOW(sizes));
}

// ---- Convolutions, which LibTorch hands to a device of another kind as a whole

void use_in_convolution(const at::Tensor& tensor) {
  TORCH_CHECK(!tensor.defined() || is_on_device(tensor), "sim: a convolution with a host tensor");
  note(tensor, /*writes=*/false);
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, SymSizes stride, SymSizes padding,
                       SymSizes dilation, bool transposed, SymSizes output_padding,
                       c10::SymInt groups) {
  count_operator("aten::convolution");
  for (const auto* tensor : {&x, &weight}) use_in_convolution(*tensor);
  if (bias) use_in_convolution(*bias);
  finish(current_stream(x.device()));
  const at::AutoDispatchBelowAutograd plain;
  const auto bias_on_host = bias ? std::optional(on_host(*bias)) : std::nullopt;
  return to_new(at::convolution_symint(on_host(x), on_host(weight), bias_on_host, stride, padding,
                                       dilation, transposed, output_padding, std::move(groups)),
                x.device());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, SymSizes stride,
    SymSizes padding, SymSizes dilation, bool transposed, SymSizes output_padding,
    c10::SymInt groups, std::array<bool, 3> wanted) {
  count_operator("aten::convolution_backward");
  for (const auto* tensor : {&dy, &x, &weight}) use_in_convolution(*tensor);
  finish(current_stream(x.device()));
  const at::AutoDispatchBelowAutograd plain;
  const std::vector<c10::SymInt> bias_sizes{weight.sym_size(0)};
  const auto [dx, dweight, dbias] = at::convolution_backward_symint(
      on_host(dy), on_host(x), on_host(weight), bias_sizes, stride, padding, dilation, transposed,
      output_padding, std::move(groups), wanted);
  const auto back = [&](const at::Tensor& made) {
    return made.defined() ? to_new(made, x.device()) : made;
  };
  return {back(dx), back(dweight), back(dbias)};
}

// ---- Attention and normalisation as CUDA has them, which the CPU has not

void require(bool is_so, const char* what) { TORCH_CHECK(is_so, "sim: ", what); }

/// Packed samples, each within itself: what the kernels compute, on the host.
struct Packed {
  at::Tensor q, k, v;  // [T, heads, width], [T, key heads, width]
  std::vector<std::int64_t> starts;
  std::vector<std::int64_t> key_starts;
  bool causal;
  double scale;
  std::int64_t window = 0;

  at::Tensor of_sample(std::size_t sample, const at::Tensor& q_, const at::Tensor& k_,
                       const at::Tensor& v_) const {
    const auto heads = [&](const at::Tensor& x, const std::vector<std::int64_t>& from) {
      return x.slice(0, from[sample], from[sample + 1]).transpose(0, 1).unsqueeze(0);
    };
    const auto queries = heads(q_, starts);
    const auto keys = heads(k_, key_starts);
    std::optional<at::Tensor> mask;
    if (causal) {
      const auto more = keys.size(2) - queries.size(2);
      mask = at::ones({queries.size(2), keys.size(2)}, at::kBool).tril(more);
      if (window > 0) mask = mask->triu(more + 1 - window);
    }
    return at::scaled_dot_product_attention(queries, keys, heads(v_, key_starts), mask, 0.0, false,
                                            scale, q_.size(1) != k_.size(1))
        .squeeze(0)
        .transpose(0, 1);
  }
  at::Tensor whole(const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_) const {
    std::vector<at::Tensor> parts;
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) parts.push_back(of_sample(i, q_, k_, v_));
    return at::cat(parts);
  }
  at::Tensor forward() const {
    const at::AutoDispatchBelowAutograd plain;
    return whole(q, k, v).contiguous();
  }
  std::vector<at::Tensor> backward(const at::Tensor& dy) const {
    // Below autograd, as an operator is, there are no gradients: another thread has them.
    std::vector<at::Tensor> gradients;
    std::thread([&] {
      std::vector<at::Tensor> inputs;
      for (const auto& x : {q, k, v}) inputs.push_back(x.detach().requires_grad_());
      gradients = torch::autograd::grad({whole(inputs[0], inputs[1], inputs[2])}, inputs, {dy});
    }).join();
    return gradients;
  }
};

std::vector<std::int64_t> numbers_of(const at::Tensor& ends) {
  std::vector<std::int64_t> all;
  const at::Tensor wide = on_host(ends).to(at::kLong);
  for (std::int64_t i = 0; i < wide.numel(); ++i) all.push_back(wide.data_ptr<std::int64_t>()[i]);
  return all;
}

/// What a kernel reads: all on one device, in rows, with offsets of 32 bits.
void begin_attention(const char* name, std::initializer_list<at::Tensor> read,
                     const at::Tensor& ends) {
  count_operator(name);
  require(is_on_device(ends) && ends.scalar_type() == at::kInt, "offsets are int32 on the device");
  note(ends, /*writes=*/false);
  for (const auto& tensor : read) {
    require(is_on_device(tensor) && tensor.stride(-1) == 1, "attention with a tensor not in rows");
    note(tensor, /*writes=*/false);
  }
  finish(current_stream(ends.device()));
}

/// LibTorch's backward passes add in any order unless deterministic operators are demanded: to be
/// warned only is not enough.
void count_unordered() {
  const auto& context = at::globalContext();
  if (!context.deterministicAlgorithms() || context.deterministicAlgorithmsWarnOnly())
    count_operator("attention in any order");
}

bool is_half(const at::Tensor& x) { return at::isReducedFloatingType(x.scalar_type()); }

using MaybeTensor = std::optional<at::Tensor>;
using MaybeInt = std::optional<c10::SymInt>;

std::int64_t window_of(const MaybeInt& left) {
  return left && left->expect_int() >= 0 ? left->expect_int() + 1 : 0;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> flash_forward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const MaybeTensor& ends,
    const MaybeTensor& key_ends, c10::SymInt, c10::SymInt, double dropout, bool causal, bool,
    std::optional<double> scale, MaybeInt left, MaybeInt, const MaybeTensor&, const MaybeTensor&,
    const MaybeTensor&, std::optional<std::int64_t>) {
  require(is_half(q) && q.size(2) % 8 == 0 && q.size(2) <= 256 && dropout == 0,
          "flash attention is of 16 bits, with heads of a multiple of 8");
  begin_attention("aten::_flash_attention_forward", {q, k, v}, *ends);
  const Packed packed{
      on_host(q), on_host(k),    on_host(v),     numbers_of(*ends), numbers_of(*key_ends),
      causal,     scale.value(), window_of(left)};
  const at::Tensor log_sums = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
  const at::Tensor unused = at::empty({}, q.options().dtype(at::kLong));
  return {to_new(packed.forward(), q.device()), log_sums, unused, unused, unused};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> flash_backward(
    const at::Tensor& dy, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor&, const at::Tensor& ends, const at::Tensor& key_ends,
    c10::SymInt, c10::SymInt, double, bool causal, const at::Tensor&, const at::Tensor&,
    std::optional<double> scale, MaybeInt left, MaybeInt) {
  require(q.size(2) <= 192, "some devices have no backward pass for wider heads");
  begin_attention("aten::_flash_attention_backward", {dy, q, k, v, out}, ends);
  count_unordered();
  const Packed packed{on_host(q),           on_host(k), on_host(v),    numbers_of(ends),
                      numbers_of(key_ends), causal,     scale.value(), window_of(left)};
  const auto gradients = packed.backward(on_host(dy));
  return {to_new(gradients[0], q.device()), to_new(gradients[1], q.device()),
          to_new(gradients[2], q.device())};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt>
efficient_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const MaybeTensor& bias, const MaybeTensor& ends, const MaybeTensor& key_ends,
                  MaybeInt most_q, MaybeInt most_k, double dropout, std::int64_t mask, bool,
                  std::optional<double> scale, const MaybeTensor&,
                  std::optional<std::int64_t> window) {
  require(q.size(2) == k.size(2) && q.size(3) % 4 == 0 && !bias && dropout == 0 && !window,
          "efficient attention has as many heads of keys, of a multiple of 4");
  begin_attention("aten::_efficient_attention_forward", {q, k, v}, *ends);
  require(mask != 1 || numbers_of(*ends) == numbers_of(*key_ends),
          "the causal mask of as many keys is asked for, with more");
  const Packed packed{on_host(q)[0],         on_host(k)[0], on_host(v)[0], numbers_of(*ends),
                      numbers_of(*key_ends), mask != 0,     scale.value()};
  const at::Tensor unused = at::empty({}, q.options().dtype(at::kLong));
  return {to_new(packed.forward().unsqueeze(0), q.device()),
          at::empty({q.size(2), q.size(1)}, q.options().dtype(at::kFloat)),
          unused,
          unused,
          *most_q,
          *most_k};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> efficient_backward(
    const at::Tensor& dy, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const MaybeTensor&, const at::Tensor& out, const MaybeTensor& ends, const MaybeTensor& key_ends,
    c10::SymInt, c10::SymInt, const at::Tensor&, double, const at::Tensor&, const at::Tensor&,
    std::int64_t mask, bool, std::optional<double> scale, std::optional<std::int64_t>,
    std::optional<std::int64_t>, bool) {
  begin_attention("aten::_efficient_attention_backward", {q, k, v, out}, *ends);
  count_unordered();
  note(dy, /*writes=*/false);
  require(mask != 1 || numbers_of(*ends) == numbers_of(*key_ends),
          "the causal mask of as many keys is asked for, with more");
  const Packed packed{on_host(q)[0],         on_host(k)[0], on_host(v)[0], numbers_of(*ends),
                      numbers_of(*key_ends), mask != 0,     scale.value()};
  const auto gradients = packed.backward(on_host(dy)[0]);
  const auto back = [&](const at::Tensor& x) { return to_new(x.unsqueeze(0), q.device()); };
  return {back(gradients[0]), back(gradients[1]), back(gradients[2]), at::Tensor()};
}

std::tuple<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, Sizes, const MaybeTensor& weight,
                                            std::optional<double> epsilon) {
  require(weight && weight->scalar_type() == x.scalar_type() && x.is_contiguous(), "rms_norm");
  if (std::getenv("ATTUNE_SIM_UNORDERED"))
    at::globalContext().alertNotDeterministic("sim_rms_norm");
  count_operator("aten::_fused_rms_norm");
  note(x, /*writes=*/false);
  note(*weight, /*writes=*/false);
  finish(current_stream(x.device()));
  const at::AutoDispatchBelowAutograd plain;
  const at::Tensor wide = on_host(x).to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, true).add_(epsilon.value()).rsqrt_();
  const at::Tensor y = (wide * scale * on_host(*weight).to(at::kFloat)).to(x.scalar_type());
  return {to_new(y, x.device()), to_new(scale, x.device())};
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                                                     Sizes, const at::Tensor& scale,
                                                     const MaybeTensor& weight,
                                                     std::array<bool, 2> wanted) {
  count_operator("aten::_fused_rms_norm_backward");
  for (const auto* tensor : {&dy, &x, &scale, &*weight}) note(*tensor, /*writes=*/false);
  finish(current_stream(x.device()));
  const at::AutoDispatchBelowAutograd plain;
  const auto wide = [](const at::Tensor& tensor) { return on_host(tensor).to(at::kFloat); };
  const at::Tensor n = wide(x) * wide(scale);
  const at::Tensor g = wide(dy) * wide(*weight);
  at::Tensor dx;
  at::Tensor dweight;
  if (wanted[0])
    dx = to_new(((g - n * (g * n).mean(-1, true)) * wide(scale)).to(x.scalar_type()), x.device());
  if (wanted[1])
    dweight = to_new((wide(dy) * n).flatten(0, -2).sum(0).to(weight->scalar_type()), x.device());
  return {dx, dweight};
}

// ---- All others

/// The host has to know what these find, to know how much memory their results take.
bool waits_for_device(const std::string& name) {
  static const std::set<std::string> all{"aten::nonzero",
                                         "aten::masked_select",
                                         "aten::_unique",
                                         "aten::_unique2",
                                         "aten::unique_dim",
                                         "aten::unique_consecutive",
                                         "aten::repeat_interleave",
                                         "aten::bincount",
                                         "aten::equal",
                                         "aten::histc"};
  return all.contains(name);
}

class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack& stack) : op_(op), stack_(stack) {}

  void run() {
    const auto& name = op_.schema().name();
    count_operator(name);
    if (waits_for_device(name)) count_synchronisation(name);
    const auto& arguments = op_.schema().arguments();
    auto value = stack_.end() - std::ssize(arguments);
    for (const auto& argument : arguments) {
      writes_ = argument.alias_info() && argument.alias_info()->isWrite();
      *value = for_host(std::move(*value));
      ++value;
    }
    TORCH_INTERNAL_ASSERT(device_, "sim: ", name, " has no tensor of a device");
    if (waits_for_device(name)) host_waits(current_stream(*device_));
    finish(current_stream(*device_));
    {
      const at::AutoDispatchBelowAutograd plain;
      op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    }
    give_back_outputs();
    const auto& returns = op_.schema().returns();
    const auto first = stack_.size() - returns.size();
    for (std::size_t i = 0; i < returns.size(); ++i)
      stack_[first + i] = for_device(stack_[first + i], returns[i]);
  }

 private:
  struct Given {
    at::Tensor of_device;
    at::Tensor of_host;
  };

  bool takes_host_indices() const {
    const auto& name = op_.schema().name();
    return name == "aten::index" || name == "aten::index_put_" || name == "aten::index_put" ||
           name == "aten::_index_put_impl_";
  }

  at::Tensor tensor_for_host(const at::Tensor& tensor) {
    if (!is_on_device(tensor)) {
      TORCH_CHECK(!tensor.defined() || tensor.dim() == 0 || takes_host_indices(),
                  "sim: ", op_.schema().name(), " with a tensor of ", tensor.device());
      return tensor;
    }
    TORCH_CHECK(!device_ || *device_ == tensor.device(), "sim: ", op_.schema().name(), " on ",
                *device_, " and ", tensor.device());
    device_ = tensor.device();
    note(tensor, writes_);
    // An output that has no size yet gets one.
    auto of_host =
        tensor.numel() == 0 ? at::empty(tensor.sizes(), tensor.scalar_type()) : on_host(tensor);
    given_.push_back({tensor, of_host});
    return of_host;
  }

  c10::IValue for_host(c10::IValue value) {
    if (value.isTensor()) return tensor_for_host(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const auto& tensor : value.toTensorVector()) list.push_back(tensor_for_host(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional(tensor_for_host(*tensor)) : std::nullopt);
      return list;
    }
    if (value.isDevice()) {
      device_ = value.toDevice();
      return c10::IValue(at::Device(at::kCPU));
    }
    return value;
  }

  void give_back_outputs() const {
    const at::AutoDispatchBelowAutograd plain;
    for (const auto& [of_device, of_host] : given_) {
      if (of_device.numel() > 0 || of_host.numel() == 0) continue;
      become(of_device, of_host.sizes());
      note(of_device, /*writes=*/true);
      on_host(of_device).copy_(of_host);
    }
  }

  at::Tensor tensor_for_device(const at::Tensor& tensor, const c10::Argument& result) const {
    if (!tensor.defined()) return tensor;
    for (const auto& [of_device, of_host] : given_)
      if (tensor.is_same(of_host)) return of_device;
    TORCH_CHECK(!result.alias_info(), "sim: ", op_.schema().name(), " is a view that is missing");
    return to_new(tensor, *device_);
  }

  c10::IValue for_device(const c10::IValue& value, const c10::Argument& result) const {
    const at::AutoDispatchBelowAutograd plain;
    if (value.isTensor()) return tensor_for_device(value.toTensor(), result);
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> list;
    for (const auto& tensor : value.toTensorVector())
      list.push_back(tensor_for_device(tensor, result));
    return list;
  }

  const c10::OperatorHandle& op_;
  torch::jit::Stack& stack_;
  std::optional<at::Device> device_;
  bool writes_ = false;  // the argument at hand
  std::vector<Given> given_;
};

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call(op, *stack).run();
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("resize_", resize);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", read_scalar);
  m.impl("record_stream", record_stream);
  m.impl("_flash_attention_forward", flash_forward);
  m.impl("_flash_attention_backward", flash_backward);
  m.impl("_efficient_attention_forward", efficient_forward);
  m.impl("_efficient_attention_backward", efficient_backward);
  m.impl("_fused_rms_norm", rms_norm);
  m.impl("_fused_rms_norm_backward", rms_norm_backward);
  // one kernel each on CUDA; of other devices LibTorch thinks that they have none
  for (const char* name : {"silu_backward", "native_layer_norm", "native_group_norm"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

}  // namespace
}  // namespace attune::simdev
