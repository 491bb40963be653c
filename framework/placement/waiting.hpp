// How the threads of a rank wait for each other.
//
// libgomp's threads spin for milliseconds before they sleep, which is fast on dedicated cores. If
// other processes use the cores, spinning threads take time from computing ones: a run on two cores
// with one such process ran at a tenth of its speed. libgomp hardly spins if it manages more
// threads than there were processors at load time (libgomp manual, GOMP_SPINCOUNT), and checks that
// number on each wait. An additional team of sleeping threads therefore shortens the spinning, and
// ending the team restores it.
#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace attune::placement {

/// Contention for this process's processors.
class Contention {
 public:
  Contention() { share(); }
  /// Fraction of the runnable time of this process's threads since the last call that was spent
  /// waiting for a processor; 0 if the kernel does not report it (/proc/PID/task/*/schedstat).
  double share();

 private:
  using Times = std::pair<double, double>;  // on a processor, waiting for one
  std::map<int, Times> threads_;
};

/// A team of idle libgomp threads.
class SleepingTeam {
 public:
  /// Throws std::system_error if the threads cannot be started.
  explicit SleepingTeam(int threads);
  ~SleepingTeam();
  SleepingTeam(const SleepingTeam&) = delete;
  SleepingTeam& operator=(const SleepingTeam&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_up_ = false;
  bool is_over_ = false;
  std::thread thread_;
};

/// Decides when to shorten the spinning, with hysteresis.
class Patience {
 public:
  /// Takes a periodic contention measurement. Returns whether to shorten the spinning from now on.
  bool after(double share);

 private:
  // consecutive measurements
  int crowded_ = 0;
  int calm_ = 0;
  bool is_patient_ = false;
};

/// Monitors the process's contention during its lifetime and adapts the waiting of its threads.
/// Does nothing if the user chose a policy (OMP_WAIT_POLICY, GOMP_SPINCOUNT) or there is only one
/// thread.
class Waiting {
 public:
  /// threads: number of computing threads. tell: called once, from another thread, with the
  /// contention that first shortened the spinning.
  explicit Waiting(int threads, std::function<void(double share)> tell = {});
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  void watch();
  void be_patient(double share);

  const int threads_;
  std::function<void(double)> tell_;
  std::unique_ptr<SleepingTeam> team_;
  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace attune::placement
