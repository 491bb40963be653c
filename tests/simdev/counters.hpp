// What a simulated device counts.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace attune::simdev {

struct Counters {
  // Times that a thread of the computation waited for the device, by cause: an operator's name,
  // "copy to the device", "copy to the host", "stream", "event" or "device".
  std::map<std::string, std::int64_t> synchronisations;
  // the same for other threads, such as one that sends gradients
  std::map<std::string, std::int64_t> elsewhere;
  std::map<std::string, std::int64_t> operators;  // that ran on a device, by name
  std::int64_t bytes_to_device = 0;
  std::int64_t bytes_to_host = 0;
  std::int64_t bytes_to_ranks = 0;  // that devices sent to those of other ranks

  std::int64_t waited() const;
};

/// Of all devices of this process, from its start.
Counters counted();

void count_synchronisation(const std::string& cause);
void count_operator(const std::string& name);
void count_to_device(std::int64_t bytes);
void count_to_host(std::int64_t bytes);
void count_to_ranks(std::int64_t bytes);

}  // namespace attune::simdev
