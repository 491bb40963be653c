#include "device.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "counters.hpp"
#include "memory.hpp"

namespace attune::simdev {
namespace {

using Key = std::pair<c10::DeviceIndex, c10::StreamId>;
Key key_of(c10::Stream stream) { return {stream.device_index(), stream.id()}; }

/// Up to which piece of work each stream is known to be done.
using Clock = std::map<Key, std::int64_t>;

void merge(const Clock& from, Clock& into) {
  for (const auto& [key, number] : from) into[key] = std::max(into[key], number);
}

struct Queue {
  std::deque<std::function<void()>> work;
  std::int64_t done = 0;   // of what was put on `work`
  std::int64_t given = 0;  // operators, too
  Clock known;             // what comes next is known to come after
  std::int64_t put() const { return done + std::ssize(work); }
};

/// What a stream had been given when it was recorded.
struct Event {
  Key stream;
  std::int64_t put = 0;
  Clock known;
};

// Recursive, and held while work is done: work may wait for another stream. Never destroyed, as
// other threads may still come here at the end.
auto& mutex = *new std::recursive_mutex;
auto& queues = *new std::map<Key, Queue>;
auto& known_to_host = *new Clock;

thread_local c10::DeviceIndex device_now = 0;
thread_local std::map<c10::DeviceIndex, c10::StreamId> streams_now;

void finish_until(const Key& key, std::int64_t put) {
  const std::lock_guard lock(mutex);
  auto& queue = queues[key];
  while (queue.done < put && !queue.work.empty()) {
    const auto work = std::move(queue.work.front());
    queue.work.pop_front();
    work();
    ++queue.done;
  }
}

void finish_all(const Key& key) {
  const std::lock_guard lock(mutex);
  finish_until(key, queues[key].put());
}

/// All that the stream has been given, and what that comes after.
Clock clock_of(const Key& key) {
  auto clock = queues[key].known;
  clock[key] = queues[key].given;
  return clock;
}

void host_waits_for(const Key& key) {
  const std::lock_guard lock(mutex);
  merge(clock_of(key), known_to_host);
  finish_all(key);
}

void host_waits_for(const Event& event) {
  const std::lock_guard lock(mutex);
  merge(event.known, known_to_host);
  finish_until(event.stream, event.put);
}

void host_waits_for_device(c10::DeviceIndex device) {
  const std::lock_guard lock(mutex);
  for (auto& [key, queue] : queues)
    if (key.first == device) host_waits_for(key);
}

bool is_done(const Event& event) {
  const std::lock_guard lock(mutex);
  return queues[event.stream].done >= event.put;
}

constexpr c10::StreamId streams_in_the_pool = 8;

c10::Stream next_of_pool(c10::Device device) {
  static std::map<c10::DeviceIndex, c10::StreamId> last;
  const std::lock_guard lock(mutex);
  auto& id = last[device.index()];
  id = id % streams_in_the_pool + 1;
  return c10::Stream(c10::Stream::UNSAFE, device, id);
}

constexpr std::uintptr_t handles_of_a_device = 1024;

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  static constexpr c10::DeviceType static_type = sim;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return sim; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {sim, std::exchange(device_now, device.index())};
  }
  c10::Device getDevice() const override { return {sim, device_now}; }
  void setDevice(c10::Device device) const override { device_now = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    device_now = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device device) const override { return current_stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return next_of_pool(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return next_of_pool(device); }
  void* getStreamNativeHandle(c10::Stream stream) const override { return handle_of(stream); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const auto before = current_stream(stream.device());
    streams_now[stream.device_index()] = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream& stream) const override {
    finish(stream);  // the next question is answered with yes
    return true;
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    count_synchronisation("stream");
    host_waits_for(key_of(stream));
  }
  void synchronizeDevice(c10::DeviceIndex device) const override {
    count_synchronisation("device");
    host_waits_for_device(device);
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag) const override {
    const std::lock_guard lock(mutex);
    if (!*event) *event = new Event;
    const auto key = key_of(stream);
    *static_cast<Event*>(*event) = {key, queues[key].put(), clock_of(key)};
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (!event) return;
    const std::lock_guard lock(mutex);
    const auto& wanted = *static_cast<Event*>(event);
    merge(wanted.known, queues[key_of(stream)].known);
    later(stream, [first = wanted.stream, put = wanted.put] { finish_until(first, put); });
  }
  bool queryEvent(void* event) const override {
    if (!event) return true;
    const auto& wanted = *static_cast<Event*>(event);
    const bool done = is_done(wanted);
    finish_until(wanted.stream, wanted.put);  // by the next question
    return done;
  }
  void synchronizeEvent(void* event) const override {
    count_synchronisation("event");
    if (!event) return;
    host_waits_for(*static_cast<Event*>(event));
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void recordDataPtrOnStream(const c10::DataPtr& pointer,
                             const c10::Stream& stream) const override {
    device_memory().recordStream(pointer, stream);
  }
};

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  c10::DeviceIndex getCurrentDevice() const override { return device_now; }
  void setCurrentDevice(c10::DeviceIndex device) const override { device_now = device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(device_now, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return device < 0 ? device_now : exchangeDevice(device);
  }
  // Other numbers than the CPU's, as a GPU's are.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const auto& generator = *new at::Generator(at::detail::createCPUGenerator(4711));
    return generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::detail::createCPUGenerator();
  }
  bool isPinnedPtr(const void* pointer) const override { return is_pinned(pointer); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory(); }
  at::Device getDeviceFromPtr(void*) const override { return current_device(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, std::size_t bytes) const override {
    const c10::DeviceGuard here(storage.device());
    auto memory = device_memory().allocate(bytes);
    if (const auto kept = std::min(bytes, storage.nbytes()); kept > 0)
      device_memory().copy_data(memory.get(), storage.data(), kept);
    storage.set_data_ptr_noswap(std::move(memory));
    storage.set_nbytes(bytes);
  }
};

}  // namespace

std::recursive_mutex& simulation() { return mutex; }

Moment next_moment(c10::Stream stream) {
  const std::lock_guard lock(mutex);
  auto& queue = queues[key_of(stream)];
  merge(known_to_host, queue.known);
  return {key_of(stream), ++queue.given};
}

bool comes_after(const Moment& moment, c10::Stream stream) {
  const std::lock_guard lock(mutex);
  if (moment.stream == key_of(stream)) return true;
  const auto covers = [&](const Clock& clock) {
    const auto found = clock.find(moment.stream);
    return found != clock.end() && found->second >= moment.number;
  };
  return covers(queues[key_of(stream)].known) || covers(known_to_host);
}

c10::Device current_device() { return {sim, device_now}; }

c10::Stream current_stream(c10::Device device) {
  const auto found = streams_now.find(device.index());
  return c10::Stream(c10::Stream::UNSAFE, device, found == streams_now.end() ? 0 : found->second);
}

void later(c10::Stream stream, std::function<void()> work) {
  const std::lock_guard lock(mutex);
  queues[key_of(stream)].work.push_back(std::move(work));
}

void finish(c10::Stream stream) { finish_all(key_of(stream)); }
void host_waits(c10::Stream stream) { host_waits_for(key_of(stream)); }
void finish_current_stream() { finish(current_stream(current_device())); }

void* handle_of(c10::Stream stream) {
  const auto device = static_cast<std::uintptr_t>(stream.device_index());
  const auto number = device * handles_of_a_device + static_cast<std::uintptr_t>(stream.id());
  return reinterpret_cast<void*>(number + 1);
}

c10::Stream stream_of(void* handle) {
  const auto number = reinterpret_cast<std::uintptr_t>(handle) - 1;
  const c10::Device device(sim, static_cast<c10::DeviceIndex>(number / handles_of_a_device));
  return c10::Stream(c10::Stream::UNSAFE, device,
                     static_cast<c10::StreamId>(number % handles_of_a_device));
}

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

void register_devices() {
  static const bool is_registered = [] {
    c10::SetAllocator(sim, &device_memory());
    at::RegisterPrivateUse1HooksInterface(new Hooks);
    c10::register_privateuse1_backend("sim");
    return true;
  }();
  static_cast<void>(is_registered);
}

}  // namespace attune::simdev
