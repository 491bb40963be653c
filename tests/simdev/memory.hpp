// Memory of the simulated devices: the host has no access by a tensor's pointer. A device pointer
// is the pointer of host memory with a bit set that makes it invalid, so whoever follows it faults,
// in every thread and also while an operator runs.
#pragma once
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <cstddef>

namespace attune::simdev {

inline constexpr c10::DeviceType sim = c10::DeviceType::PrivateUse1;

/// How many devices there are (ATTUNE_SIM_DEVICES, 4 if it is not set; ATTUNE_SIM_VISIBLE names
/// those of them that this process sees, such as "2,3").
c10::DeviceIndex device_count();
/// Which of all devices one that is visible is.
int physical(c10::DeviceIndex device);

c10::DeviceAllocator& device_memory();
/// Memory of the host that copies may be made from and to while the host goes on.
c10::Allocator& pinned_memory();
bool is_pinned(const void* pointer);

bool is_device_pointer(const void* pointer);
/// Where the device finds it.
void* accessible(const void* device_pointer);

/// Notes that work which `stream` is given now reads or writes the memory of a block. The process
/// is ended if another stream may still be writing it, or, for writing, reading it: if no event and
/// no wait of the host lies between.
void note_use(const void* device_pointer, c10::Stream stream, bool writes);

/// While it lives, a copy that is still to come uses a block, which is kept until then.
class BlockInUse {
 public:
  explicit BlockInUse(const void* device_pointer);
  ~BlockInUse();
  BlockInUse(const BlockInUse&) = delete;
  BlockInUse& operator=(const BlockInUse&) = delete;

 private:
  const void* block_ = nullptr;
};

}  // namespace attune::simdev
