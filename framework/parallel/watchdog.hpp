// Finds the rank that does not get on, while all others wait for it.
#pragma once
#include <attune/comm.hpp>

#include <cstdint>
#include <memory>

namespace attune::parallel {

/// Where this rank is: what it does, in which step (from 1). Each call is a sign of life. phase: a
/// literal.
void report_phase(const char* phase, std::int64_t step);

/// A thread on every rank, which talk among themselves on a communicator of their own. A signal
/// that one rank got reaches all ranks. When a rank that no collective call holds up shows no
/// progress for `limit` seconds (or its process is silent for as long), every rank ends with exit
/// code 3, and rank 0 says which one was late, in which phase and step, and shows that thread's
/// stack.
class Watchdog {
 public:
  /// world: every rank of the run, for a group that waits for one of its own is found only among
  /// all of them. Watches the calling thread. limit = 0: only signals are passed on. Collective.
  Watchdog(const Comm& world, double limit);
  ~Watchdog();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace attune::parallel
