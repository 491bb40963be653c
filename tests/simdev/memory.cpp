#include "memory.hpp"

#include <c10/util/Backtrace.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
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
  std::optional<Moment> written;         // last
  std::map<c10::StreamId, Moment> read;  // last, by each stream
  int pending = 0;                       // copies that are still to come
  bool is_freed = false;

  std::vector<Moment> uses() const {
    std::vector<Moment> all;
    if (written) all.push_back(*written);
    for (const auto& [stream, moment] : read) all.push_back(moment);
    return all;
  }
};

struct Use {
  std::size_t now = 0;
  std::size_t peak = 0;
  std::size_t allocated = 0;  // ever
};

// Never destroyed: tensors may outlive what is destroyed at exit.
auto& blocks = *new std::map<const void*, Block>;  // by device pointer of their first byte
auto& uses = *new std::map<c10::DeviceIndex, Use>;
auto& pinned = *new std::map<const char*, std::size_t>;

[[noreturn]] void end_process(const std::string& why) {
  std::cerr << "sim: " << why << "\n" << c10::get_backtrace() << std::endl;
  std::abort();
}

std::string name_of(const Moment& moment) {
  return fmt::format("stream {} of device {}", moment.stream.second,
                     static_cast<int>(moment.stream.first));
}

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

/// Freed memory is given to whoever comes next on its own stream. So what other streams do with it
/// must come before that, or be recorded.
void free_block(void* pointer) {
  if (!pointer) return;
  const std::lock_guard lock(simulation());
  const auto block = blocks.find(pointer);
  auto& held = block->second;
  for (const auto& use : held.uses())
    if (!held.recorded.contains(use.stream.second) && !comes_after(use, held.stream))
      end_process(fmt::format("memory of stream {} of device {} is freed that {} still uses",
                              held.stream.id(), static_cast<int>(held.stream.device_index()),
                              name_of(use)));
  held.is_freed = true;
  if (held.pending == 0) give_back(block);
}

class Memory final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const auto device = current_device();
    if (bytes == 0) return {nullptr, nullptr, &free_block, device};
    const auto size = (bytes + alignment - 1) / alignment * alignment;
    const std::lock_guard lock(simulation());
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
    blocks.emplace(pointer, Block{size, current_stream(device), {}, {}, {}});
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
    const std::lock_guard lock(simulation());
    block_of(pointer.get())->second.recorded.insert(stream.id());
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(simulation());
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
    const std::lock_guard lock(simulation());
    uses[device].peak = uses[device].now;
  }
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const std::lock_guard lock(simulation());
    return {limit() - std::min(limit(), uses[device].now), limit()};
  }
};

void free_pinned(void* pointer) {
  if (!pointer) return;
  const std::lock_guard lock(simulation());
  pinned.erase(static_cast<const char*>(pointer));
  std::free(pointer);
}

class PinnedMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_pinned, c10::kCPU};
    const auto size = (bytes + alignment - 1) / alignment * alignment;
    void* const memory = std::aligned_alloc(alignment, size);
    const std::lock_guard lock(simulation());
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
  const std::lock_guard lock(simulation());
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

void note_use(const void* device_pointer, c10::Stream stream, bool writes) {
  const std::lock_guard lock(simulation());
  auto& held = block_of(device_pointer)->second;
  const auto now = next_moment(stream);
  if (held.written && !comes_after(*held.written, stream))
    end_process(fmt::format("{} uses memory that {} may still write", name_of(now),
                            name_of(*held.written)));
  if (!writes) {
    held.read[stream.id()] = now;
    return;
  }
  for (const auto& [id, moment] : held.read)
    if (!comes_after(moment, stream))
      end_process(
          fmt::format("{} writes memory that {} may still read", name_of(now), name_of(moment)));
  held.read.clear();
  held.written = now;
}

BlockInUse::BlockInUse(const void* device_pointer) {
  const std::lock_guard lock(simulation());
  const auto block = block_of(device_pointer);
  ++block->second.pending;
  block_ = block->first;
}

BlockInUse::~BlockInUse() {
  const std::lock_guard lock(simulation());
  const auto block = blocks.find(block_);
  auto& held = block->second;
  --held.pending;
  if (held.pending == 0 && held.is_freed) give_back(block);
}

}  // namespace attune::simdev
