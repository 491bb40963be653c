// What LibTorch's device-neutral interfaces do not tell: which physical device an index is. Asked
// of the driver's library, which LibTorch has loaded where it has such a device.
#pragma once
#include <attune/device.hpp>

namespace attune::device {

/// Empty where no known driver serves the device.
DeviceIdentity identity_by_driver(c10::Device device);

/// NCCL's or RCCL's functions; empty where neither serves the devices.
FindFunction collectives_by_maker(c10::DeviceType type);

/// Sixteen bytes as "GPU-01234567-89ab-cdef-0123-456789abcdef".
std::string uuid_text(const unsigned char* bytes);

}  // namespace attune::device
