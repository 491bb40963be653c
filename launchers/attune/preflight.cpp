#include "preflight.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "core/files.hpp"
#include "core/host.hpp"
#include "core/names.hpp"
#include "core/stopwatch.hpp"
#include "device/device.hpp"
#include "option_table.hpp"
#include "parallel/backend.hpp"
#include "parallel/watchdog.hpp"
#include "placement/devices.hpp"
#include "placement/rates.hpp"
#include "train/session.hpp"

namespace attune::program {
namespace {

namespace fs = std::filesystem;
using placement::RankRate;

constexpr std::int64_t bytes_of_test = 64 << 20;
constexpr double patience = 300;  // seconds for each measurement

/// Multiplications and additions per second.
double compute(c10::Device device) {
  const auto n = 256;
  const at::Tensor ones = at::ones({n, n}, at::TensorOptions().device(device));
  if (!at::mm(ones, ones).eq(n).all().item<bool>())
    fail("{} on {} multiplies matrices wrongly: take the node out of the job (--exclude)",
         device.str(), host_name());
  return device::multiply_rate(device);
}

/// Bytes per second that a rank sends in a sum over all ranks, at best: of 2 (N - 1) / N times the
/// tensor (Thakur et al. 2005, doi:10.1177/1094342005051521).
double communicate(c10d::ProcessGroup& group, c10::Device device, const Comm& world) {
  const at::Tensor ones = at::ones({bytes_of_test / 4}, at::TensorOptions().device(device));
  double best = 1e9;
  for (int times = 0; times < 4; ++times) {
    std::vector<at::Tensor> sum{ones.clone()};
    device::synchronise(device);
    world.barrier();
    const Stopwatch watch;
    group.allreduce(sum)->wait();
    device::synchronise(device);
    best = std::min(best, watch.seconds());
    const bool is_right = sum[0].eq(world.size()).all().item<bool>();
    world.agree([&] {
      if (!is_right)
        fail("the sum over {} ranks is wrong on rank {} on {}: take the node out of the job",
             world.size(), world.rank(), host_name());
    });
  }
  const double ranks = world.size();
  return 2 * (ranks - 1) / ranks * static_cast<double>(bytes_of_test) / best;
}

/// A file that is removed again.
class TestFile {
 public:
  explicit TestFile(fs::path path)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600)) {
    if (file_ < 0) complain("cannot be created");
  }
  ~TestFile() {
    if (file_ >= 0) ::close(file_);
    ::unlink(path_.c_str());
  }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  void write(const std::vector<char>& bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const auto count = ::write(file_, bytes.data() + done, bytes.size() - done);
      if (count < 0 && errno != EINTR) complain("cannot be written");
      done += static_cast<std::size_t>(std::max<ssize_t>(0, count));
    }
    if (::fsync(file_) != 0) complain("cannot be written");
  }

 private:
  [[noreturn]] void complain(const char* what) const {
    const auto why = std::string(std::strerror(errno));
    fail("{}: {} on {} ({}): choose another output folder, or free space there", path_.string(),
         what, host_name(), why);
  }

  fs::path path_;
  int file_;
};

/// Bytes per second that reach the disk.
double write_out(const config::RunConfig& run, const Comm& world) {
  const fs::path folder = run.run.output;
  try {
    fs::create_directories(folder);
  } catch (const fs::filesystem_error& error) {
    fail("{}", sentence_of(error));
  }
  TestFile file(folder / fmt::format(".preflight-{}-{}", host_name(), world.rank()));
  const std::vector<char> bytes(bytes_of_test, 'x');
  const Stopwatch watch;
  file.write(bytes);
  return static_cast<double>(bytes_of_test) / watch.seconds();
}

std::vector<RankRate> of_all_ranks(double rate, const Comm& world) {
  std::vector<RankRate> ranks;
  for (const auto& text : world.gather(fmt::format("{:a} {}", rate, host_name()))) {
    const auto space = text.find(' ');
    ranks.push_back({text.substr(space + 1), std::strtod(text.c_str(), nullptr)});
  }
  return ranks;
}

/// "60.1 to 70.3 MB/s a rank, median 60.1"
std::string summary(const std::vector<RankRate>& ranks, double scale, const char* unit) {
  const auto [low, high] = std::ranges::minmax(ranks, {}, &RankRate::rate);
  if (ranks.size() == 1) return fmt::format("{:.3g} {}", low.rate / scale, unit);
  return fmt::format("{:.3g} to {:.3g} {} a rank, median {:.3g}", low.rate / scale,
                     high.rate / scale, unit, median(ranks) / scale);
}

}  // namespace

void preflight(const config::RunConfig& run, const Mesh& mesh) {
  const auto& world = mesh.world;
  const parallel::Watchdog watchdog(world, std::min(run.parallel.watchdog, patience));
  const auto device = placement::choose_device(run.parallel.device, mesh);
  parallel::report_phase("matrix products", 0);
  double computing = 0;
  double writing = 0;
  world.agree([&] { computing = compute(device); });
  parallel::report_phase("sum over ranks", 0);
  const auto group = parallel::make_process_group(world, device, train::transport_of(run));
  const auto sending = world.size() > 1 ? communicate(*group, device, world) : 0;
  parallel::report_phase("writes", 0);
  world.agree([&] { writing = write_out(run, world); });

  const auto products = of_all_ranks(computing, world);
  const auto writes = of_all_ranks(writing, world);
  if (!world.root()) return;
  std::vector<Row> table{
      {"PREFLIGHT", fmt::format("{} rank{}, device {}", world.size(), world.size() == 1 ? "" : "s",
                                device::name(device.type()))}};
  table.push_back({"matrix products", summary(products, 1e9, "GFLOP/s in float32")});
  if (sending > 0)
    table.push_back(
        {"sum over ranks", fmt::format("{:.3g} GB/s sent by each rank, of {}, by {}", sending / 1e9,
                                       human_bytes(bytes_of_test),
                                       group->getBackend(device.type())->getBackendName())});
  table.push_back({"writes to " + run.run.output, summary(writes, 1e6, "MB/s")});
  std::cout << text_table(table);
  for (const auto& sentence : placement::outliers("matrix products", products))
    std::cout << "slow: " << sentence << "\n";
  for (const auto& sentence : placement::outliers("writes", writes))
    std::cout << "slow: " << sentence << "\n";
}

}  // namespace attune::program
