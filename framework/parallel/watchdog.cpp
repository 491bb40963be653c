#include "parallel/watchdog.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/stacktrace.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "core/signals.hpp"
#include "parallel/mpi.hpp"
#include "parallel/under_way.hpp"

namespace attune::parallel {

/// A rank to rank 0.
struct RankStatus {
  std::uint64_t beats = 0;
  std::int64_t step = 0;
  std::int32_t waiting = 0;
  std::int32_t signal = 0;
  char phase[32] = {};
  char host[64] = {};
  bool operator==(const RankStatus&) const = default;
};

/// Rank 0 to a rank.
struct RankOrder {
  std::int32_t signal = 0;
  std::int32_t show_stack = 0;
};

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto tick = std::chrono::milliseconds(100);
constexpr auto heartbeat = std::chrono::seconds(1);
constexpr auto patience_for_stack = std::chrono::seconds(5);
// rank 0 names the late one first, if it can
constexpr auto grace_of_root = std::chrono::seconds(30);

std::atomic<const char*> current_phase{"start"};
std::atomic<std::int64_t> current_step{0};
std::atomic<std::uint64_t> beats{0};

enum Tag : int { status_tag = 1, order_tag, stack_tag };

// ---- The stack of a thread, taken by that thread in a signal handler

std::array<char, 1 << 14> stack_dump;
std::atomic<bool> stack_taken{false};

int stack_signal() { return SIGRTMIN + 1; }

void take_stack(int) {
  boost::stacktrace::safe_dump_to(stack_dump.data(), stack_dump.size());
  stack_taken = true;
}

std::string stack_of(pthread_t thread) {
  stack_taken = false;
  if (pthread_kill(thread, stack_signal()) != 0) return "(that thread has ended)\n";
  const auto start = Clock::now();
  while (!stack_taken && Clock::now() - start < patience_for_stack)
    std::this_thread::sleep_for(tick);
  if (!stack_taken) return "(the thread does not answer: it hangs in the operating system)\n";
  return boost::stacktrace::to_string(
      boost::stacktrace::stacktrace::from_dump(stack_dump.data(), stack_dump.size()));
}

/// Sends the newest value again and again, never more than one at a time: a process that is stopped
/// takes nothing in.
template <class T>
class Sender {
 public:
  bool idle() {
    int done = 1;
    if (request_ != MPI_REQUEST_NULL) MPI_Test(&request_, &done, MPI_STATUS_IGNORE);
    return done != 0;
  }
  void send(const T& value, int to, int tag, MPI_Comm comm) {
    value_ = value;
    MPI_Isend(&value_, sizeof value_, MPI_BYTE, to, tag, comm, &request_);
  }

 private:
  T value_;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

template <class T>
bool receive(T& value, int from, int tag, MPI_Comm comm) {
  int there = 0;
  MPI_Iprobe(from, tag, comm, &there, MPI_STATUS_IGNORE);
  if (there) MPI_Recv(&value, sizeof value, MPI_BYTE, from, tag, comm, MPI_STATUS_IGNORE);
  return there != 0;
}

}  // namespace

void report_phase(const char* phase, std::int64_t step) {
  current_phase = phase;
  current_step = step;
  ++beats;
}

struct Watchdog::Parts {
  /// What rank 0 knows of a rank.
  struct Seen {
    RankStatus status;
    Clock::time_point heard = Clock::now();
    Clock::time_point changed = Clock::now();
    void note(const RankStatus& newest) {
      heard = Clock::now();
      if (!(newest == status)) changed = heard;
      status = newest;
    }
  };

  Comm comm;
  std::chrono::duration<double> limit;
  pthread_t watched = pthread_self();
  std::vector<Seen> seen;                 // on rank 0
  std::vector<Sender<RankOrder>> orders;  // on rank 0, by rank
  Sender<RankStatus> status;              // on the others
  Clock::time_point last_sent{};
  Clock::time_point heard_root = Clock::now();
  std::atomic<bool> ending{false};
  std::thread thread;

  MPI_Comm handle() const { return mpi_handle(comm); }

  RankStatus mine() const {
    RankStatus s;
    s.beats = beats;
    s.step = current_step;
    s.waiting = collectives_entered();
    s.signal = signal_received();
    std::strncpy(s.phase, current_phase, sizeof s.phase - 1);
    gethostname(s.host, sizeof s.host - 1);
    return s;
  }

  void loop() {
    while (!ending) {
      try {
        look();
      } catch (const std::exception& error) {  // of a device, whose events are asked
        const std::string text = error.what();
        abort_all(ExitCode::fault, "the device failed: " + text.substr(0, text.find('\n')));
      }
      std::this_thread::sleep_for(tick);
    }
  }

  void look() {
    if (const auto error = error_on_devices(); !error.empty()) abort_all(ExitCode::fault, error);
    comm.root() ? lead() : follow();
  }

  // ---- Every other rank

  void follow() {
    RankOrder order;
    while (receive(order, 0, order_tag, handle())) {
      heard_root = Clock::now();
      if (order.signal) note_signal(order.signal);
      if (order.show_stack) {
        const auto stack = stack_of(watched);
        MPI_Send(stack.data(), static_cast<int>(stack.size()), MPI_BYTE, 0, stack_tag, handle());
      }
    }
    if (Clock::now() - last_sent >= heartbeat && status.idle()) {
      status.send(mine(), 0, status_tag, handle());
      last_sent = Clock::now();
    }
    if (limit.count() > 0 && Clock::now() - heard_root > limit + grace_of_root)
      abort_all(ExitCode::fault,
                fmt::format(
                    "rank 0 has not responded for {:.0f} s; this rank is in phase '{}' of step {}",
                    (limit + grace_of_root).count(), current_phase.load(), current_step.load()));
  }

  // ---- Rank 0

  void lead() {
    seen[0].note(mine());
    for (int rank = 1; rank < comm.size(); ++rank)
      for (RankStatus newest; receive(newest, rank, status_tag, handle());) {
        seen[rank].note(newest);
        if (newest.signal && !signal_received()) note_signal(newest.signal);
      }
    if (Clock::now() - last_sent >= heartbeat) {
      for (int rank = 1; rank < comm.size(); ++rank)
        if (orders[rank].idle())
          orders[rank].send({signal_received(), 0}, rank, order_tag, handle());
      last_sent = Clock::now();
    }
    if (limit.count() > 0) judge();
  }

  bool is_silent(int rank) const { return Clock::now() - seen[rank].heard > limit; }
  bool stands_still(int rank) const { return Clock::now() - seen[rank].changed > limit; }

  /// Late is who neither moves nor waits for others; when all wait, no one in particular.
  void judge() {
    std::vector<int> late;
    bool all_stand = true;
    for (int rank = 0; rank < comm.size(); ++rank) {
      if (is_silent(rank) || (stands_still(rank) && !seen[rank].status.waiting))
        late.push_back(rank);
      all_stand = all_stand && stands_still(rank);
    }
    if (late.empty() && !all_stand) return;
    auto text = fmt::format("no progress for {:.0f} s", limit.count());
    if (late.empty()) {
      text += ": all ranks wait for each other";
      for (int rank = 0; rank < comm.size(); ++rank) late.push_back(rank);
    }
    for (const int rank : late) text += "\n" + describe(rank);
    abort_all(ExitCode::fault, text);
  }

  std::string describe(int rank) {
    const auto& status = seen[rank].status;
    auto text = fmt::format(
        "rank {} on {} is late: {} phase '{}' of step {}", rank,
        status.host[0] ? status.host : "an unknown host",
        is_silent(rank) ? "its process is stopped, dead or unreachable; its last known state is"
                        : "it is in",
        status.phase, status.step);
    if (!is_silent(rank))
      text += ". Its stack:\n" + (rank == 0 ? stack_of(watched) : remote_stack(rank));
    return text;
  }

  std::string remote_stack(int rank) {
    RankOrder order{0, 1};
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(&order, sizeof order, MPI_BYTE, rank, order_tag, handle(), &request);
    const auto start = Clock::now();
    while (Clock::now() - start < 2 * patience_for_stack) {
      int there = 0;
      MPI_Status found;
      MPI_Iprobe(rank, stack_tag, handle(), &there, &found);
      if (there) {
        int length = 0;
        MPI_Get_count(&found, MPI_BYTE, &length);
        std::string text(static_cast<std::size_t>(length), '\0');
        MPI_Recv(text.data(), length, MPI_BYTE, rank, stack_tag, handle(), MPI_STATUS_IGNORE);
        return text;
      }
      std::this_thread::sleep_for(tick);
    }
    return "(the rank did not answer)\n";
  }
};

Watchdog::Watchdog(const Comm& world, double limit) : parts_(std::make_unique<Parts>()) {
  if (world.size() > 1) parts_->comm = duplicate(world);
  parts_->limit = std::chrono::duration<double>(limit);
  parts_->seen.resize(world.root() ? world.size() : 0);
  parts_->orders.resize(parts_->seen.size());
  // loads what unwinding needs, which a signal handler may not
  boost::stacktrace::stacktrace().size();
  std::signal(stack_signal(), take_stack);
  report_phase("start", 0);
  parts_->thread = std::thread([parts = parts_.get()] { parts->loop(); });
}

Watchdog::~Watchdog() {
  parts_->ending = true;
  parts_->thread.join();
}

}  // namespace attune::parallel
