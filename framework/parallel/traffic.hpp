// What a run's ranks hand to each other, counted by kind of collective.
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

/// By name of the collective; kinds that were never called are left out.
using TrafficByKind = std::map<std::string, Calls>;

/// Of one rank. A call counts once, however many messages it is cut into. Its bytes are the rank's
/// input, in the type that travels (bfloat16 and float16 are reduced as float32):
///   all_reduce, reduce_scatter, all_to_all   the whole input, with the part that stays on the rank
///   all_gather                               the rank's own part
///   broadcast                                the tensor or text on the rank it comes from, else 0
///   send                                     the message on the sender; receiving counts nothing
///   barrier                                  0
/// What the network carries depends on MPI's algorithm and is not known: a ring moves 2 (n - 1) / n
/// of the input in an all_reduce over n ranks. Groups of one rank send nothing and count nothing.
/// The watchdog's heartbeats are not counted.
class Traffic {
 public:
  static constexpr std::size_t kinds = static_cast<std::size_t>(Collective::barrier) + 1;

  /// May be called from any thread.
  void add(Collective kind, std::size_t bytes);

  /// Calls and bytes of every kind, in the order of `Collective`.
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
