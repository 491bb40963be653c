#include "device/device.hpp"

#include <ATen/DeviceAccelerator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "core/names.hpp"
#include "core/process.hpp"
#include "core/stopwatch.hpp"
#include "device/driver.hpp"

namespace attune {
namespace {

using Identify = std::function<DeviceIdentity(c10::DeviceIndex)>;

/// Of devices that a plugin brings.
std::map<c10::DeviceType, Identify>& identifiers() {
  static std::map<c10::DeviceType, Identify> all;
  return all;
}

std::map<c10::DeviceType, FindFunction>& declared_collectives() {
  static std::map<c10::DeviceType, FindFunction> all;
  return all;
}

}  // namespace

at::Tensor on_device(const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined() || tensor.device() == device) return tensor;
  const bool is_upload = tensor.is_cpu() && !device.is_cpu() && !device.is_meta();
  if (!is_upload || tensor.numel() == 0) return tensor.to(device);
  const at::Tensor pinned = at::empty(tensor.sizes(), tensor.options().pinned_memory(true));
  return pinned.copy_(tensor).to(device, /*non_blocking=*/true);
}

at::Tensor drawn_on_host(at::Tensor tensor, const std::function<void(at::Tensor&)>& draw) {
  const torch::NoGradGuard no_grad;
  if (tensor.is_meta()) return tensor;
  const bool is_narrow = at::isReducedFloatingType(tensor.scalar_type());
  if (tensor.is_cpu() && !is_narrow) {
    draw(tensor);
    return tensor;
  }
  const auto dtype = is_narrow ? at::kFloat : tensor.scalar_type();
  at::Tensor host = at::empty_like(tensor, at::TensorOptions(at::kCPU).dtype(dtype));
  draw(host);
  return tensor.copy_(host);
}

void identify_devices(c10::DeviceType type, Identify identify) {
  identifiers()[type] = std::move(identify);
}

void declare_collectives(c10::DeviceType type, FindFunction find) {
  declared_collectives()[type] = std::move(find);
}

namespace device {

std::optional<c10::DeviceType> accelerator() {
  return count() > 0 ? at::accelerator::getAccelerator() : std::nullopt;
}

int count() { return at::accelerator::deviceCount(); }

std::string name(c10::DeviceType type) { return c10::DeviceTypeName(type, /*lower_case=*/true); }

std::vector<std::string> kinds() {
  std::vector<std::string> all{"cpu", "cuda", "xpu"};
  // a plugin's, also where there is no such device
  if (c10::is_privateuse1_backend_registered()) all.push_back(name(c10::kPrivateUse1));
  return all;
}

std::vector<std::string> built_for() {
  std::vector<std::string> names;
  for (const auto type : {c10::kCUDA, c10::kXPU, c10::kPrivateUse1})
    if (c10::impl::hasDeviceGuardImpl(type)) names.push_back(name(type));
  return names;
}

std::string build() {
  const auto names = built_for();
  return names.empty() ? "CPUs" : joined(names);
}

DeviceIdentity identity(c10::Device device) {
  const auto found = identifiers().find(device.type());
  return found != identifiers().end() ? found->second(device.index()) : identity_by_driver(device);
}

FindFunction collective_functions(c10::DeviceType type) {
  const auto declared = declared_collectives().find(type);
  return declared != declared_collectives().end() ? declared->second : collectives_by_maker(type);
}

void make_current(c10::Device device) {
  if (device.is_cpu()) return;
  at::globalContext().lazyInitDevice(device.type());
  at::accelerator::setDeviceIndex(device.index());
}

Memory memory(c10::Device device) {
  ATTUNE_ASSERT(!device.is_cpu(), "memory of {}", device.str());
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  const auto bytes = at::accelerator::getDeviceStats(device.index()).allocated_bytes[0];
  return {free, total, static_cast<std::size_t>(bytes.current),
          static_cast<std::size_t>(bytes.peak)};
}

std::optional<std::size_t> peak(c10::Device device) {
  try {
    const auto bytes = at::accelerator::getDeviceStats(device.index()).allocated_bytes[0];
    return static_cast<std::size_t>(bytes.peak);
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

void reset_peak(c10::Device device) {
  if (!device.is_cpu()) at::accelerator::resetPeakStats(device.index());
}

void synchronise(c10::Device device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

double multiply_rate(c10::Device device) {
  constexpr std::int64_t size = 2048;
  constexpr int times = 10;
  const torch::NoGradGuard no_grad;
  const at::Tensor x = at::ones({size, size}, at::TensorOptions().device(device));
  at::mm(x, x);  // libraries and clocks start up
  synchronise(device);
  const Stopwatch watch;
  for (int i = 0; i < times; ++i) at::mm(x, x);
  synchronise(device);
  return 2.0 * times * std::pow(size, 3) / watch.seconds();
}

namespace {

/// LibTorch 2.13 asks no CUDA device for its types: it computes in bfloat16 on all of them.
bool computes_in_bfloat16(c10::Device device) {
  try {
    const auto all = at::accelerator::getDeviceCapability(device.index()).capability_data;
    return all.supported_scalar_types.has_BFloat16 == 1;
  } catch (const c10::Error&) {
    return true;
  }
}

}  // namespace

void choose_deterministic_libraries() {
  // LibTorch refuses products by cuBLAS without one of its two fixed work spaces.
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
}

void use_deterministic_operators() {
  // Not only a warning: the backward passes of attention take their form by this alone.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

bool is_not_deterministic(const std::exception& error) {
  const std::string_view text = error.what();
  const auto has = [&](const char* words) { return text.find(words) != std::string_view::npos; };
  return has("does not have a deterministic implementation") ||
         has("this operation is not deterministic");
}

void release_unused(c10::Device device) {
  if (device.is_cpu())
    release_freed_memory();
  else
    at::getDeviceAllocator(device.type())->emptyCache();
}

bool has_operator(c10::Device device, const char* name) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  const auto key = c10::computeDispatchKey(std::nullopt, std::nullopt, device);
  return found && found->hasKernelForDispatchKey(key);
}

Capabilities capabilities(c10::Device device) {
  if (device.is_cpu()) return {.bfloat16 = true, .flash_attention = false};
  return {.bfloat16 = computes_in_bfloat16(device),
          .flash_attention = has_operator(device, "aten::_flash_attention_forward")};
}

}  // namespace device
}  // namespace attune
