// Detects a rank that makes no progress while all others wait for it.
#pragma once
#include <attune/comm.hpp>

#include <cstdint>
#include <memory>

namespace attune::parallel {

/// Reports this rank's phase and step (from 1). Each call counts as progress. phase: a string
/// literal.
void report_phase(const char* phase, std::int64_t step);

/// Runs a thread on every rank; the threads use a communicator of their own. A signal received by
/// one rank is forwarded to all ranks. If a rank outside a collective call makes no progress for
/// `limit` seconds, or its process is silent for that time, all ranks exit with code 3. Rank 0
/// reports the late rank, its phase and step, and the stack of its thread.
class Watchdog {
 public:
  /// world: all ranks of the run; a smaller group cannot detect that it waits for a rank outside.
  /// Watches the calling thread. limit: seconds; 0 only forwards signals. Collective.
  Watchdog(const Comm& world, double limit);
  ~Watchdog();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace attune::parallel
