// Communication volume of a run's ranks, by kind of collective.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace attune::parallel {

enum class Collective {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  send,
  barrier
};

/// "all_reduce", "reduce_scatter", ...
const char* name(Collective kind);

struct Calls {
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
  bool operator==(const Calls&) const = default;
};

/// By name of the collective; kinds without calls are omitted.
using TrafficByKind = std::map<std::string, Calls>;

/// Counters of one rank. A call counts once, even if it is sent in pieces. The bytes are the rank's
/// input, in the dtype that is sent (bfloat16 and float16 are reduced as float32):
///
///   all_reduce, reduce_scatter,
///   all_to_all      the whole input, including the part that stays on the rank
///   all_gather      the rank's own part
///   broadcast       the tensor or text on the source rank, 0 elsewhere
///   send            the message on the sender, 0 on the receiver
///   barrier         0
///
/// The network traffic depends on MPI's algorithm and is unknown: a ring all_reduce over n ranks
/// moves 2 (n - 1) / n of the input. Groups of one rank count nothing, and neither do the
/// watchdog's heartbeats.
class Traffic {
 public:
  static constexpr std::size_t kinds = static_cast<std::size_t>(Collective::barrier) + 1;

  /// Thread-safe.
  void add(Collective kind, std::size_t bytes);

  /// Calls and bytes of each kind, in the order of `Collective`.
  std::vector<double> numbers() const;
  static TrafficByKind by_kind(const std::vector<double>& numbers);

 private:
  struct Count {
    std::atomic<std::int64_t> calls{0};
    std::atomic<std::int64_t> bytes{0};
  };
  std::array<Count, kinds> counts_;
};

}  // namespace attune::parallel
