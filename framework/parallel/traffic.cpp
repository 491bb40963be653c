#include "parallel/traffic.hpp"

namespace attune::parallel {

const char* name(Collective kind) {
  switch (kind) {
    case Collective::all_reduce: return "all_reduce";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_gather: return "all_gather";
    case Collective::all_to_all: return "all_to_all";
    case Collective::broadcast: return "broadcast";
    case Collective::send: return "send";
    case Collective::barrier: return "barrier";
  }
  return "";
}

void Traffic::add(Collective kind, std::size_t bytes) {
  auto& count = counts_[static_cast<std::size_t>(kind)];
  ++count.calls;
  count.bytes += static_cast<std::int64_t>(bytes);
}

std::vector<double> Traffic::numbers() const {
  std::vector<double> all;
  for (const auto& count : counts_) {
    all.push_back(static_cast<double>(count.calls));
    all.push_back(static_cast<double>(count.bytes));
  }
  return all;
}

TrafficByKind Traffic::by_kind(const std::vector<double>& numbers) {
  TrafficByKind traffic;
  for (std::size_t i = 0; i < kinds; ++i) {
    const Calls calls{static_cast<std::int64_t>(numbers[2 * i]),
                      static_cast<std::int64_t>(numbers[2 * i + 1])};
    if (calls.calls > 0) traffic[name(static_cast<Collective>(i))] = calls;
  }
  return traffic;
}

}  // namespace attune::parallel
