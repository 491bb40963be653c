#include "parallel/under_way.hpp"

#include <deque>
#include <map>
#include <mutex>

#include "device/device.hpp"

namespace attune::parallel {
namespace {

struct OnDevice {
  std::shared_ptr<c10::Event> begin, end;
};

// Never destroyed: events must not outlive the device's library, which may end first.
auto& mutex = *new std::mutex;
auto& noted = *new std::deque<OnDevice>;
auto& sources = *new std::map<const ErrorSource*, std::function<std::string()>>;

/// Of those whose begin the device has come to, forgets the ended and counts the others. A device
/// that failed throws, and all stay noted.
int count_begun() {
  int begun = 0;
  std::deque<OnDevice> left;
  for (const auto& one : noted) {
    // of the watchdog's thread, which would otherwise use memory of the first device
    device::make_current(one.end->device());
    const bool has_begun = one.begin->query();
    if (has_begun && one.end->query()) continue;
    begun += has_begun;
    left.push_back(one);
  }
  noted = std::move(left);
  return begun;
}

}  // namespace

void note_on_device(std::shared_ptr<c10::Event> begin, std::shared_ptr<c10::Event> end) {
  const std::lock_guard lock(mutex);
  while (!noted.empty() && noted.front().end->query()) noted.pop_front();
  noted.push_back({std::move(begin), std::move(end)});
}

int waiting_on_devices() {
  const std::lock_guard lock(mutex);
  return count_begun();
}

ErrorSource::ErrorSource(std::function<std::string()> error) {
  const std::lock_guard lock(mutex);
  sources.emplace(this, std::move(error));
}

ErrorSource::~ErrorSource() {
  const std::lock_guard lock(mutex);
  sources.erase(this);
}

std::string error_on_devices() {
  const std::lock_guard lock(mutex);
  for (const auto& [source, error] : sources)
    if (auto text = error(); !text.empty()) return text;
  return {};
}

}  // namespace attune::parallel
