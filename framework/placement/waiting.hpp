// How the threads of a rank wait for each other.
//
// libgomp's threads spin for milliseconds before they sleep, which is fast where the cores are
// theirs alone. Beside another process a thread that spins takes the time of one that computes: a
// run on two cores with one such neighbour fell to a tenth of its speed. libgomp hardly spins where
// it manages more threads than there were processors when it was loaded (libgomp's manual,
// GOMP_SPINCOUNT), and looks at that number anew each time it waits. So a team of threads that
// sleep makes the others patient, and their end makes them spin again.
#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace attune::placement {

/// How crowded this process's processors are.
class Contention {
 public:
  Contention() { share(); }
  /// Of the time since the last call in which a thread of this process could have run, the share
  /// for which it waited for a processor; 0 where the kernel does not tell
  /// (/proc/PID/task/*/schedstat).
  double share();

 private:
  using Times = std::pair<double, double>;  // on a processor, waiting for one
  std::map<int, Times> threads_;
};

/// Threads of libgomp that do nothing.
class SleepingTeam {
 public:
  /// Throws std::system_error where so many threads cannot be started.
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

/// When to be patient: not for a moment's sake, and for a while.
class Patience {
 public:
  /// A look at the contention, every so often. Returns whether to be patient from now on.
  bool after(double share);

 private:
  // looks in a row
  int crowded_ = 0;
  int calm_ = 0;
  bool is_patient_ = false;
};

/// Watches the process's contention, and has its threads wait accordingly for as long as it lives.
/// Where the user has chosen (OMP_WAIT_POLICY, GOMP_SPINCOUNT), or one thread computes alone, it
/// does nothing.
class Waiting {
 public:
  /// threads: that compute together. tell: called once, from another thread, with the share that
  /// made them patient.
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
