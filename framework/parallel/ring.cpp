#include "parallel/ring.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>
#include <memory>
#include <utility>

#include "parallel/mpi.hpp"

namespace attune::parallel {
namespace {

/// Windows of blocks that lie one behind another: of each, the elements from `done` on.
struct BlockList {
  std::vector<std::int64_t> begins;
  std::vector<std::int64_t> sizes;

  explicit BlockList(std::vector<std::int64_t> all) : sizes(std::move(all)) {
    std::int64_t begin = 0;
    for (const auto size : sizes) {
      begins.push_back(begin);
      begin += size;
    }
  }
  std::int64_t longest() const { return *std::max_element(sizes.begin(), sizes.end()); }
};

/// One window of every block on its way around the ring. Two are under way at a time, so that one
/// is sent while the other is added.
class RingWindow {
 public:
  RingWindow(const Comm& comm, const Reduced& what, const BlockList& blocks, std::int64_t most,
             int tag)
      : comm_(comm),
        what_(what),
        blocks_(blocks),
        most_(most),
        tag_(tag),
        sums_(new std::byte[static_cast<std::size_t>(2 * most * what.bytes)]) {}

  /// MPI may go on writing to what an error left under way.
  ~RingWindow() {
    if (std::ranges::any_of(requests_, [](auto request) { return request != MPI_REQUEST_NULL; }))
      (void)sums_.release();
  }
  RingWindow(const RingWindow&) = delete;
  RingWindow& operator=(const RingWindow&) = delete;

  void move_to(std::int64_t done) { done_ = done; }
  bool is_empty() const { return done_ >= blocks_.longest(); }

  /// Sends the sum of so many ranks + 1 to the right, and receives that of as many from the left.
  void send_sum(int hop, const std::byte* input) {
    const auto sent = block(-1 - hop);
    exchange(hop == 0 ? at(input, sent) : sum(hop - 1), sent, sum(hop), block(-2 - hop));
  }
  /// Adds what this rank has of it.
  void add(int hop, const std::byte* input) {
    wait();
    const auto received = block(-2 - hop);
    check_mpi(
        MPI_Reduce_local(at(input, received), sum(hop), count(received), what_.type, what_.op),
        "MPI_Reduce_local");
  }
  /// The finished sum, which is of this rank's block.
  void put(std::byte* to) const {
    const auto mine = static_cast<std::size_t>(comm_.rank());
    std::memcpy(to + done_ * what_.bytes, sum(comm_.size() - 2),
                static_cast<std::size_t>(count(mine) * what_.bytes));
  }
  /// Sends a finished sum on.
  void pass_on(int hop, std::byte* data) {
    const auto sent = block(-hop);
    const auto received = block(-1 - hop);
    exchange(at(data, sent), sent, at(data, received), received);
  }
  /// Asleep, when it takes long: MPI's own waiting would keep a core busy on which a rank may
  /// compute, perhaps the one that is waited for.
  void wait() {
    using Clock = std::chrono::steady_clock;
    constexpr auto awake = std::chrono::microseconds(50);
    constexpr auto longest = std::chrono::microseconds(400);
    const auto began = Clock::now();
    for (int is_done = 0; !is_done;) {
      check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &is_done,
                            MPI_STATUSES_IGNORE),
                "MPI_Testall");
      const auto waited = Clock::now() - began;
      if (!is_done && waited > awake)
        std::this_thread::sleep_for(std::min<Clock::duration>(waited / 4, longest));
    }
  }

 private:
  /// Of the rank so many places to the right of this one.
  std::size_t block(int places) const {
    const int ranks = comm_.size();
    return static_cast<std::size_t>((comm_.rank() + places + 2 * ranks) % ranks);
  }
  int count(std::size_t block) const {
    return static_cast<int>(std::clamp<std::int64_t>(blocks_.sizes[block] - done_, 0, most_));
  }
  template <class Byte>
  Byte* at(Byte* data, std::size_t block) const {
    const auto within = std::min(done_, blocks_.sizes[block]);
    return data + (blocks_.begins[block] + within) * what_.bytes;
  }
  /// Received in turns: the last one is still being sent.
  std::byte* sum(int hop) const { return sums_.get() + (hop % 2) * most_ * what_.bytes; }

  void exchange(const std::byte* from, std::size_t sent, std::byte* to, std::size_t received) {
    const int left = static_cast<int>(block(-1));
    const int right = static_cast<int>(block(1));
    auto* const handle = mpi_handle(comm_);
    check_mpi(MPI_Irecv(to, count(received), what_.type, left, tag_, handle, &requests_[0]),
              "MPI_Irecv");
    check_mpi(MPI_Isend(from, count(sent), what_.type, right, tag_, handle, &requests_[1]),
              "MPI_Isend");
  }

  const Comm& comm_;
  const Reduced& what_;
  const BlockList& blocks_;
  std::int64_t most_;
  int tag_;
  std::int64_t done_ = 0;
  std::unique_ptr<std::byte[]> sums_;  // not std::vector: without zeros
  std::array<MPI_Request, 2> requests_{MPI_REQUEST_NULL, MPI_REQUEST_NULL};
};

/// Sums every window of the blocks, two at a time; finish(windows) is told when those are.
template <class Finish>
void sum_windows(const Comm& comm, const Reduced& what, const BlockList& blocks,
                 std::int64_t segment, const std::byte* input, Finish finish) {
  const auto most = std::max<std::int64_t>(1, std::min(segment / what.bytes, blocks.longest()));
  std::array<RingWindow, 2> pair{RingWindow(comm, what, blocks, most, 0),
                                 RingWindow(comm, what, blocks, most, 1)};
  const int hops = comm.size() - 1;
  for (std::int64_t done = 0; done < blocks.longest(); done += 2 * most) {
    pair[0].move_to(done);
    pair[1].move_to(done + most);
    const auto windows = std::span(pair).first(pair[1].is_empty() ? 1 : 2);
    for (auto& window : windows) window.send_sum(0, input);
    for (int hop = 0; hop < hops; ++hop)
      for (auto& window : windows) {
        window.add(hop, input);
        if (hop + 1 < hops) window.send_sum(hop + 1, input);
      }
    finish(windows);
  }
}

std::vector<std::int64_t> even_sizes(std::int64_t count, int parts) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t i = 0; i < parts; ++i)
    sizes.push_back(count * (i + 1) / parts - count * i / parts);
  return sizes;
}

}  // namespace

bool ring_pays(std::int64_t bytes, int ranks) {
  constexpr std::int64_t least = 64 << 10;  // in a message
  return ranks > 1 && bytes / ranks >= least;
}

void ring_reduce_scatter(const Comm& comm, const Reduced& what, std::byte* output,
                         const std::byte* input, const std::vector<std::int64_t>& sizes,
                         std::int64_t segment) {
  const BlockList blocks(sizes);
  sum_windows(comm, what, blocks, segment, input, [&](std::span<RingWindow> windows) {
    for (const auto& window : windows) window.put(output);
  });
}

void ring_all_reduce(const Comm& comm, const Reduced& what, std::byte* data, std::int64_t count,
                     std::int64_t segment) {
  const BlockList blocks(even_sizes(count, comm.size()));
  auto* const mine = data + blocks.begins[static_cast<std::size_t>(comm.rank())] * what.bytes;
  sum_windows(comm, what, blocks, segment, data, [&](std::span<RingWindow> windows) {
    for (const auto& window : windows) window.put(mine);
    for (int hop = 0; hop < comm.size() - 1; ++hop) {
      for (auto& window : windows) window.pass_on(hop, data);
      for (auto& window : windows) window.wait();
    }
  });
}

}  // namespace attune::parallel
