// The devices that this process sees, by LibTorch's device-neutral interfaces: the same code serves
// CUDA, ROCm, XPU and what a plugin brings. A process sees accelerators of one kind at most.
#pragma once
#include <attune/device.hpp>
#include <c10/core/Device.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace attune::device {

/// The kind of the accelerators that this process sees; none if it sees no accelerator.
std::optional<c10::DeviceType> accelerator();

/// Number of accelerators that this process sees.
int count();

/// "cuda" (also of ROCm), "xpu", or the name under which a plugin registered its devices.
std::string name(c10::DeviceType type);

/// The kinds of devices that a run file may name: those LibTorch knows, and a plugin's.
std::vector<std::string> kinds();

/// The accelerators that this LibTorch was built for, or that a plugin brought: {"cuda"}. Empty for
/// a build for CPUs. Whether the machine has one is another question.
std::vector<std::string> built_for();
/// For messages: "CPUs" or "cuda".
std::string build();

/// By the driver, or as the plugin that brings the device declares (attune/device.hpp).
DeviceIdentity identity(c10::Device device);

/// Finds a function of NCCL 2 by its name, in the library that serves devices of this kind: NCCL,
/// RCCL, or what a plugin declares (attune/device.hpp). Empty without such a library.
FindFunction collective_functions(c10::DeviceType type);

/// Makes it the device of this thread, for code that names a kind only.
void make_current(c10::Device device);

/// In bytes.
struct Memory {
  std::size_t free = 0;       // of the device, for all processes
  std::size_t total = 0;      // of the device
  std::size_t allocated = 0;  // by this process's tensors
  std::size_t peak = 0;       // of `allocated`, since reset_peak()
};
/// Not for the CPU.
Memory memory(c10::Device device);
/// Memory::peak; absent where a device does not count.
std::optional<std::size_t> peak(c10::Device device);
void reset_peak(c10::Device device);

/// Waits until the device has done all work of this process. Does nothing for the CPU.
void synchronise(c10::Device device);

/// Additions and multiplications per second in a product of float32 matrices. Takes some
/// milliseconds on a GPU.
double multiply_rate(c10::Device device);

/// From now on, operators of devices add in one order, however their threads run. One that has no
/// such form fails, and names itself. Before it: choose_deterministic_libraries().
void use_deterministic_operators();
/// Sets what the makers' libraries read when they start, at the first product of matrices.
void choose_deterministic_libraries();
/// Whether the exception is that of such an operator.
bool is_not_deterministic(const std::exception& error);

/// Gives memory that no tensor uses back, to the device or to the host, for what is allocated next.
void release_unused(c10::Device device);

/// Whether LibTorch was built with an operator ("aten::_fused_rms_norm") for devices of this kind.
bool has_operator(c10::Device device, const char* name);

/// What determines which operators serve.
struct Capabilities {
  bool bfloat16 = false;
  bool flash_attention = false;  // aten::_flash_attention_forward
};
Capabilities capabilities(c10::Device device);

}  // namespace attune::device
