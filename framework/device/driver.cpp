#include "device/driver.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

namespace attune::device {
namespace {

struct Uuid {
  unsigned char bytes[16];
};

/// A function of a library; null where there is none.
template <class Function>
Function* function_of(const char* library, const char* name) {
  void* const opened = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  return opened ? reinterpret_cast<Function*>(::dlsym(opened, name)) : nullptr;
}

template <class... Arguments>
bool succeeds(int (*function)(Arguments...), std::type_identity_t<Arguments>... arguments) {
  return function && function(arguments...) == 0;
}

std::string text_of(char (&memory)[256], bool is_known) { return is_known ? memory : ""; }

/// NVIDIA's driver interface. _v2 gives the UUID of a MIG instance where the device is one.
DeviceIdentity of_nvidia(int index) {
  constexpr auto library = "libcuda.so.1";
  int device = 0;
  if (!succeeds(function_of<int(int*, int)>(library, "cuDeviceGet"), &device, index)) return {};
  Uuid uuid{};
  const auto* get = "cuDeviceGetUuid_v2";
  const bool has_uuid = succeeds(function_of<int(Uuid*, int)>(library, get), &uuid, device);
  char model[256] = {};
  const bool has_model =
      succeeds(function_of<int(char*, int, int)>(library, "cuDeviceGetName"), model, 255, device);
  return {has_uuid ? uuid_text(uuid.bytes) : "", text_of(model, has_model)};
}

/// ROCm's HIP runtime, whose devices LibTorch calls "cuda" as well.
DeviceIdentity of_amd(int index) {
  constexpr auto library = "libamdhip64.so";
  Uuid uuid{};
  const bool has_uuid =
      succeeds(function_of<int(Uuid*, int)>(library, "hipDeviceGetUuid"), &uuid, index);
  char model[256] = {};
  const bool has_model =
      succeeds(function_of<int(char*, int, int)>(library, "hipDeviceGetName"), model, 255, index);
  return {has_uuid ? uuid_text(uuid.bytes) : "", text_of(model, has_model)};
}

}  // namespace

std::string uuid_text(const unsigned char* bytes) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += "-";
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

DeviceIdentity identity_by_driver(c10::Device device) {
  if (!device.is_cuda()) return {};
  const auto found = of_nvidia(device.index());
  return found.uuid.empty() && found.model.empty() ? of_amd(device.index()) : found;
}

}  // namespace attune::device
