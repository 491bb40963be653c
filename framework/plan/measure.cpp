#include "plan/measure.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <thread>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "core/files.hpp"
#include "core/host.hpp"
#include "core/process.hpp"
#include "core/stopwatch.hpp"
#include "device/device.hpp"
#include "parallel/backend.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "placement/devices.hpp"

namespace attune::plan {
namespace {

using Work = std::function<void()>;

constexpr std::int64_t large = 32 << 20;  // bytes: more than caches hold of them

/// Other ranks wait asleep: MPI's own barrier would keep their cores busy.
void wait_asleep(const Comm& comm) {
  const parallel::InCollective waiting;
  MPI_Request request = MPI_REQUEST_NULL;
  int is_done = 0;
  check_mpi(MPI_Ibarrier(mpi_handle(comm), &request), "MPI_Ibarrier");
  while (!is_done) {
    check_mpi(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), "MPI_Test");
    if (!is_done) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

/// How often something is measured: the quickest counts, as others may disturb.
constexpr int bursts = 5;
constexpr double burst_seconds = 0.1;

/// Seconds of one call, in so many bursts that last so long. The first call is not counted.
double seconds_of(c10::Device device, const Work& work, int times = bursts,
                  double seconds = burst_seconds) {
  work();
  device::synchronise(device);
  double best = INFINITY;
  for (int burst = 0; burst < times; ++burst) {
    const Stopwatch watch;
    int calls = 0;
    do {
      work();
      device::synchronise(device);
      ++calls;
    } while (watch.seconds() < seconds);
    best = std::min(best, watch.seconds() / calls);
  }
  return best;
}

/// The same of what ranks do together: all make as many calls.
double seconds_together(const Work& work) {
  constexpr int calls = 4;
  work();
  double best = INFINITY;
  for (int burst = 0; burst < bursts; ++burst) {
    const Stopwatch watch;
    for (int call = 0; call < calls; ++call) work();
    best = std::min(best, watch.seconds() / calls);
  }
  return best;
}

double seconds_of_sum(c10d::ProcessGroup& group, const at::Tensor& tensor) {
  return seconds_together([&] {
    std::vector<at::Tensor> tensors{tensor};
    group.allreduce(tensors)->wait();
    device::synchronise(tensor.device());
  });
}

class Ranks {
 public:
  explicit Ranks(const Mesh& mesh) : device_(placement::choose_device("auto", mesh)) {}

  c10::Device device() const { return device_; }

  /// Seconds of one call. together: other ranks do the same, and cores or memory may be shared by
  /// turns: a burst might fall into a rank's turn.
  double seconds(const Work& work, bool together) const {
    return together ? seconds_of(device_, work, 1, bursts * burst_seconds)
                    : seconds_of(device_, work);
  }
  double products(at::ScalarType type, bool together) const {
    const auto options = at::TensorOptions().device(device_).dtype(type);
    const auto a = at::ones({512, 1024}, options);
    const auto b = at::ones({1024, 1024}, options);
    return 2.0 * 512 * 1024 * 1024 / seconds([&] { at::mm(a, b); }, together);
  }
  double memory(bool together) const {
    const auto from = at::ones({2 * large}, at::TensorOptions().device(device_).dtype(at::kByte));
    const auto to = at::empty_like(from);
    return 2.0 * 2 * large / seconds([&] { to.copy_(from); }, together);
  }
  double operation() const {
    const auto one = at::ones({1}, at::TensorOptions().device(device_));
    constexpr int times = 1000;
    return seconds_of(device_,
                      [&] {
                        for (int i = 0; i < times; ++i) one.view({1}).add_(1);
                      }) /
           (2 * times);
  }
  Rates rates(bool together) const {
    return {products(at::kFloat, together), products(at::kBFloat16, together), memory(together), 0};
  }

  /// Bytes per second that each of these ranks sends, and seconds of a small message.
  struct Sums {
    double rate = 0;
    double message = 0;
  };
  Sums sums(const Comm& ranks) const {
    if (ranks.size() < 2) return {};
    const auto group = parallel::make_process_group(ranks, device_);
    const auto options = at::TensorOptions().device(device_);
    const auto many = at::zeros({large / 4}, options);
    const auto few = at::zeros({2}, options);
    const double n = ranks.size();
    return {2 * (n - 1) / n * large / seconds_of_sum(*group, many),
            seconds_of_sum(*group, few) / (2 * (n - 1))};
  }

  /// Share of the time of a sum that passes while the ranks compute.
  double hidden(const Comm& ranks) const {
    if (ranks.size() < 2) return 0;
    const auto group = parallel::make_process_group(ranks, device_);
    const auto options = at::TensorOptions().device(device_);
    const auto summed = at::zeros({large / 4}, options);
    const auto a = at::ones({512, 1024}, options);
    const auto b = at::ones({1024, 1024}, options);
    const double of_sum = seconds_of_sum(*group, summed);
    const double of_product = seconds_of(device_, [&] { at::mm(a, b); });
    const auto products = std::max(1, static_cast<int>(of_sum / of_product));
    const double both = seconds_together([&] {
      std::vector<at::Tensor> tensors{summed};
      const auto sum = group->allreduce(tensors);
      for (int i = 0; i < products; ++i) at::mm(a, b);
      sum->wait();
      device::synchronise(device_);
    });
    const double computing = products * of_product;
    return std::clamp((of_sum + computing - both) / std::min(of_sum, computing), 0.0, 1.0);
  }

 private:
  c10::Device device_;
};

/// Bytes per second that come from a disk, and not from the kernel's memory; 0 where none can be
/// written there.
double read_rate(const std::filesystem::path& folder) {
  const auto file = folder / fmt::format(".attune-doctor-{}-{}", host_name(), ::getpid());
  const std::vector<std::byte> bytes(2 * large);
  try {
    write_bytes(file, bytes);
  } catch (const Error&) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
    return 0;
  }
  const int descriptor = ::open(file.c_str(), O_RDONLY);
  double rate = 0;
  if (descriptor >= 0) {
    ::fsync(descriptor);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    std::vector<char> part(1 << 20);
    std::size_t read = 0;
    const Stopwatch watch;
    for (ssize_t count = 0; (count = ::read(descriptor, part.data(), part.size())) > 0;)
      read += static_cast<std::size_t>(count);
    rate = static_cast<double>(read) / watch.seconds();
    ::close(descriptor);
  }
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
  return rate;
}

}  // namespace

Machine measure_machine(const Mesh& mesh, const std::filesystem::path& folder) {
  const auto& world = mesh.world;
  const torch::NoGradGuard no_grad;
  const Ranks ranks(mesh);
  Machine machine;
  machine.node.ranks = world.max(mesh.node.size());
  machine.node.memory = static_cast<double>(bytes_in_line("/proc/meminfo", "MemTotal"));
  if (!ranks.device().is_cpu())
    machine.node.gpu_memory = static_cast<double>(device::memory(ranks.device()).total);

  parallel::report_phase("one rank alone", 0);
  if (world.root()) {
    machine.alone = ranks.rates(/*together=*/false);
    machine.training.operation = ranks.operation();
    machine.training.disk = read_rate(folder);
  }
  wait_asleep(world);

  parallel::report_phase("all ranks", 0);
  const auto rates = ranks.rates(/*together=*/true);
  const double nodes_of_world = world.sum(mesh.node.rank() == 0 ? 1.0 : 0.0);
  const auto of_node = [&](double rate) { return world.sum(rate) / nodes_of_world; };
  machine.together = {of_node(rates.float32), of_node(rates.bfloat16), of_node(rates.memory), 0};

  parallel::report_phase("sums", 0);
  const bool is_on_first_node = mesh.node.broadcast(world.root() ? "first" : "") == "first";
  const bool is_of_pair = is_on_first_node && mesh.node.rank() < 2;
  const auto pair = world.split(is_of_pair ? 0 : 1);
  if (is_of_pair) {
    const auto sums = ranks.sums(pair);
    machine.alone.sums = sums.rate;
    machine.training.message = sums.message;
  }
  wait_asleep(world);
  machine.together.sums = of_node(ranks.sums(mesh.node).rate);
  machine.training.hidden = ranks.hidden(mesh.node);
  const bool stands_for_node = mesh.node.rank() == 0;
  const auto nodes = world.split(stands_for_node ? 0 : 1);
  const auto two = world.split(stands_for_node && nodes.rank() < 2 ? 0 : 1);
  if (stands_for_node) machine.between.sums = ranks.sums(nodes).rate;
  if (stands_for_node && nodes.rank() < 2) machine.between.message = ranks.sums(two).message;
  wait_asleep(world);
  release_freed_memory();
  machine.node.program = static_cast<double>(bytes_in_line("/proc/self/status", "VmRSS"));
  return machine;
}

}  // namespace attune::plan
