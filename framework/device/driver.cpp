#include "device/driver.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <initializer_list>

namespace attune::device {
namespace {

struct Uuid {
  unsigned char bytes[16];
};

/// A function of the first of these libraries that the process has loaded; null where there is
/// none.
template <class Function>
Function* function_of(std::initializer_list<const char*> libraries, const char* name) {
  for (const char* library : libraries)
    if (void* const opened = ::dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD))
      return reinterpret_cast<Function*>(::dlsym(opened, name));
  return nullptr;
}

template <class... Arguments>
bool succeeds(int (*function)(Arguments...), std::type_identity_t<Arguments>... arguments) {
  return function && function(arguments...) == 0;
}

std::string text_of(char (&memory)[256], bool is_known) { return is_known ? memory : ""; }

/// NVIDIA's driver interface. _v2 gives a MIG instance its own UUID.
DeviceIdentity of_nvidia(int index) {
  static constexpr auto library = {"libcuda.so.1"};
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
  static constexpr auto library = {"libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6"};
  Uuid uuid{};
  const bool has_uuid =
      succeeds(function_of<int(Uuid*, int)>(library, "hipDeviceGetUuid"), &uuid, index);
  char model[256] = {};
  const bool has_model =
      succeeds(function_of<int(char*, int, int)>(library, "hipDeviceGetName"), model, 255, index);
  return {has_uuid ? uuid_text(uuid.bytes) : "", text_of(model, has_model)};
}

constexpr auto collective_libraries = {"libnccl.so.2", "librccl.so.1"};

void* opened_by_name(int mode) {
  for (const char* name : collective_libraries)
    if (void* const opened = ::dlopen(name, RTLD_NOW | RTLD_LOCAL | mode)) return opened;
  return nullptr;
}

/// LibTorch has opened the one that it was built with, or contains it; another one would be of a
/// version that it was not tried with.
void* library_of_collectives() {
  if (void* const opened = opened_by_name(RTLD_NOLOAD)) return opened;
  const bool is_in_libtorch = ::dlsym(RTLD_DEFAULT, "ncclGetVersion") != nullptr;
  void* const found = is_in_libtorch ? nullptr : opened_by_name(0);
  return found ? found : RTLD_DEFAULT;
}

}  // namespace

FindFunction collectives_by_maker(c10::DeviceType type) {
  if (type != c10::kCUDA) return {};
  return [library = library_of_collectives()](const char* name) { return ::dlsym(library, name); };
}

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
