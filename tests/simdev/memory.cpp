#include "memory.hpp"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <vector>

#include "device.hpp"

namespace attune::simdev {
namespace {

/// No user address has this bit set, with four or five levels of pages.
constexpr std::uintptr_t not_for_the_host = std::uintptr_t{1} << 54;
constexpr std::size_t alignment = 64;

struct Block {
  std::size_t bytes;
  c10::Stream stream;                    // on which it was made
  std::set<c10::StreamId> recorded;      // others that use it
  std::multiset<c10::StreamId> pending;  // where something that is still to come uses it
  bool is_freed = false;

  bool is_kept() const {
    return std::ranges::all_of(
        pending, [this](c10::StreamId id) { return id == stream.id() || recorded.contains(id); });
  }
};

struct Use {
  std::size_t now = 0;
  std::size_t peak = 0;
  std::size_t allocated = 0;  // ever
};

std::recursive_mutex mutex;
std::map<const void*, Block> blocks;  // by device pointer of their first byte
std::map<c10::DeviceIndex, Use> uses;
std::map<const char*, std::size_t> pinned;

std::size_t limit() {
  const char* given = std::getenv("ATTUNE_SIM_MEMORY");
  return given ? std::strtoull(given, nullptr, 10) : std::size_t{16} << 30;
}

void* as_device(void* pointer) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(pointer) | not_for_the_host);
}

std::map<const void*, Block>::iterator block_of(const void* pointer) {
  auto after = blocks.upper_bound(pointer);
  TORCH_CHECK(after != blocks.begin(), "sim: this is no memory of a device");
  return std::prev(after);
}

void give_back(std::map<const void*, Block>::iterator block) {
  uses[block->second.stream.device_index()].now -= block->second.bytes;
  std::free(accessible(block->first));
  blocks.erase(block);
}

/// Memory that work still to come on its own stream uses is kept until then, as it is where it was
/// recorded for another. Otherwise a real device would have given it away before that work.
void free_block(void* pointer) {
  if (!pointer) return;
  const std::lock_guard lock(mutex);
  const auto block = blocks.find(pointer);
  auto& held = block->second;
  if (held.pending.empty()) return give_back(block);
  if (!held.is_kept()) {
    std::cerr << "sim: memory was freed before another stream had used it" << std::endl;
    std::abort();
  }
  held.is_freed = true;
}

class Memory final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const auto device = current_device();
    if (bytes == 0) return {nullptr, nullptr, &free_block, device};
    const auto size = (bytes + alignment - 1) / alignment * alignment;
    const std::lock_guard lock(mutex);
    auto& use = uses[device.index()];
    TORCH_CHECK_WITH(OutOfMemoryError, use.now + size <= limit(),
                     fmt::format("sim:{} is out of memory: {} bytes asked for, {} of {} in use",
                                 static_cast<int>(device.index()), size, use.now, limit()));
    void* const memory = std::aligned_alloc(alignment, size);
    // What is not written yet is a NaN, not a zero by chance.
    std::memset(memory, 0xff, size);
    use.now += size;
    use.allocated += size;
    use.peak = std::max(use.peak, use.now);
    void* const pointer = as_device(memory);
    blocks.emplace(pointer, Block{size, current_stream(device), {}, {}});
    return {pointer, pointer, &free_block, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    finish_current_stream();
    std::memcpy(accessible(to), accessible(from), bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr& pointer, c10::Stream stream) override {
    if (!pointer.get()) return;
    const std::lock_guard lock(mutex);
    block_of(pointer.get())->second.recorded.insert(stream.id());
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(mutex);
    const auto& use = uses[device];
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* bytes : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes}) {
      auto& all = (*bytes)[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
      all.current = static_cast<std::int64_t>(use.now);
      all.peak = static_cast<std::int64_t>(use.peak);
      all.allocated = static_cast<std::int64_t>(use.allocated);
    }
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(mutex);
    uses[device].peak = uses[device].now;
  }
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const std::lock_guard lock(mutex);
    return {limit() - std::min(limit(), uses[device].now), limit()};
  }
};

void free_pinned(void* pointer) {
  if (!pointer) return;
  const std::lock_guard lock(mutex);
  pinned.erase(static_cast<const char*>(pointer));
  std::free(pointer);
}

class PinnedMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_pinned, c10::kCPU};
    const auto size = (bytes + alignment - 1) / alignment * alignment;
    void* const memory = std::aligned_alloc(alignment, size);
    const std::lock_guard lock(mutex);
    pinned[static_cast<const char*>(memory)] = size;
    return {memory, memory, &free_pinned, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

std::vector<int> visible_devices() {
  std::vector<int> all;
  if (const char* given = std::getenv("ATTUNE_SIM_VISIBLE")) {
    std::istringstream names(given);
    for (std::string name; std::getline(names, name, ',');) all.push_back(std::stoi(name));
    return all;
  }
  const char* count = std::getenv("ATTUNE_SIM_DEVICES");
  for (int i = 0; i < (count ? std::atoi(count) : 4); ++i) all.push_back(i);
  return all;
}

const std::vector<int>& visible() {
  static const auto all = visible_devices();
  return all;
}

}  // namespace

c10::DeviceIndex device_count() { return static_cast<c10::DeviceIndex>(visible().size()); }
int physical(c10::DeviceIndex device) { return visible().at(static_cast<std::size_t>(device)); }

c10::DeviceAllocator& device_memory() {
  static auto* const memory = new Memory;  // storages may outlive what is destroyed at exit
  return *memory;
}

c10::Allocator& pinned_memory() {
  static auto* const memory = new PinnedMemory;
  return *memory;
}

bool is_pinned(const void* pointer) {
  const std::lock_guard lock(mutex);
  const auto* const at = static_cast<const char*>(pointer);
  const auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return at < begin + bytes;
}

bool is_device_pointer(const void* pointer) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & not_for_the_host) != 0;
}

void* accessible(const void* device_pointer) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(device_pointer) &
                                 ~not_for_the_host);
}

BlockInUse::BlockInUse(const void* device_pointer, c10::Stream stream) : stream_(stream.id()) {
  const std::lock_guard lock(mutex);
  const auto block = block_of(device_pointer);
  block->second.pending.insert(stream_);
  block_ = block->first;
}

BlockInUse::~BlockInUse() {
  const std::lock_guard lock(mutex);
  const auto block = blocks.find(block_);
  auto& held = block->second;
  held.pending.erase(held.pending.find(stream_));
  if (held.pending.empty() && held.is_freed) give_back(block);
}

}  // namespace attune::simdev
