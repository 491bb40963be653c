// Devices, for strategies that bring tensors to one, and for plugins that bring devices of a kind
// of their own (LibTorch's PrivateUse1).
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

ATTUNE_API_BEGIN
namespace attune {

/// `tensor` on `device`; `tensor` itself if it is there. A tensor of the host is copied through
/// pinned memory: this thread does not wait, and later work on the current stream comes after the
/// copy. `tensor` may be changed or freed at once.
at::Tensor on_device(const at::Tensor& tensor, c10::Device device);

/// Fills `tensor` with what `draw` writes into a tensor of the host like it, and returns it. The
/// same seed then gives the same values on every device, and in bfloat16 and float16 the rounded
/// ones of float32. On the meta device nothing is drawn.
at::Tensor drawn_on_host(at::Tensor tensor, const std::function<void(at::Tensor&)>& draw);

/// What a physical device is recognised by.
struct DeviceIdentity {
  std::string uuid;   // unique among all devices: "GPU-..."; empty if unknown
  std::string model;  // "NVIDIA H200"; empty if unknown
};

/// Declares how the devices of a plugin's own kind are identified, so that two ranks on one device
/// are recognised. The argument is the index among the devices that this process sees. CUDA and
/// ROCm need no declaration.
void identify_devices(c10::DeviceType type,
                      std::function<DeviceIdentity(c10::DeviceIndex)> identify);

/// Returns the function of that name, or null.
using FindFunction = std::function<void*(const char* name)>;

/// Declares that devices of a plugin's own kind have collectives with the functions of NCCL 2
/// ("ncclAllReduce"), whose streams are the native handles of LibTorch's. Without this declaration
/// their tensors travel through the host. CUDA and ROCm need no declaration.
void declare_collectives(c10::DeviceType type, FindFunction find);

}  // namespace attune
ATTUNE_API_END
