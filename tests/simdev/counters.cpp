#include "counters.hpp"

#include <c10/util/Backtrace.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <mutex>
#include <numeric>
#include <string_view>

namespace attune::simdev {
namespace {

auto& mutex = *new std::mutex;
auto& counters = *new Counters;

/// The main thread, or one of autograd's.
bool is_computing() {
  if (::getpid() == ::gettid()) return true;
  char name[16] = {};
  ::pthread_getname_np(::pthread_self(), name, sizeof name);
  return std::string_view(name).starts_with("pt_autograd");
}

}  // namespace

std::int64_t Counters::waited() const {
  return std::accumulate(synchronisations.begin(), synchronisations.end(), std::int64_t{0},
                         [](std::int64_t sum, const auto& each) { return sum + each.second; });
}

Counters counted() {
  const std::lock_guard lock(mutex);
  return counters;
}

void count_synchronisation(const std::string& cause) {
  static const bool is_traced = std::getenv("ATTUNE_SIM_TRACE") != nullptr;
  if (is_traced) std::cerr << "waits for the device: " << cause << "\n" << c10::get_backtrace();
  const std::lock_guard lock(mutex);
  ++(is_computing() ? counters.synchronisations : counters.elsewhere)[cause];
}

void count_operator(const std::string& name) {
  const std::lock_guard lock(mutex);
  ++counters.operators[name];
}

void count_to_device(std::int64_t bytes) {
  const std::lock_guard lock(mutex);
  counters.bytes_to_device += bytes;
}

void count_to_host(std::int64_t bytes) {
  const std::lock_guard lock(mutex);
  counters.bytes_to_host += bytes;
}

void count_to_ranks(std::int64_t bytes) {
  const std::lock_guard lock(mutex);
  counters.bytes_to_ranks += bytes;
}

}  // namespace attune::simdev
