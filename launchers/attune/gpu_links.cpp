#include "gpu_links.hpp"

#include <attune/error.hpp>
#include <attune/mesh.hpp>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>

#include "core/host.hpp"
#include "core/stopwatch.hpp"
#include "device.hpp"
#include "device/device.hpp"
#include "option_table.hpp"
#include "parallel/backend.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "placement/devices.hpp"
#include "placement/rates.hpp"

namespace attune::program {
namespace {

constexpr std::int64_t bytes_of_message = 64 << 20;
constexpr int nobody = -1;

using placement::RankRate;

/// Of the ranks, by rank.
struct Places {
  std::vector<std::string> hosts;
  std::vector<int> first_of_host;  // rank
  std::vector<int> number;         // on its host
  bool is_first(int rank) const { return number[static_cast<std::size_t>(rank)] == 0; }
};

Places places_of(const Comm& world) {
  Places places{world.gather(host_name()), {}, {}};
  for (const auto& host : places.hosts) {
    const auto first = std::ranges::find(places.hosts, host) - places.hosts.begin();
    places.number.push_back(
        static_cast<int>(std::ranges::count(places.first_of_host, static_cast<int>(first))));
    places.first_of_host.push_back(static_cast<int>(first));
  }
  return places;
}

class Exchange {
 public:
  Exchange(c10::Device device, const Comm& world)
      : device_(device), world_(world), group_(parallel::make_process_group(world, device)) {}

  std::string carrier() const { return group_->getBackend(device_.type())->getBackendName(); }

  /// Bytes per second to `peer` while it sends as many here; 0 with nobody. Pairs exchange at the
  /// same time. Collective.
  double with(int peer) {
    double best = 1e9;
    for (int times = 0; times < 4; ++times) best = std::min(best, seconds_with(peer));
    return peer == nobody ? 0 : static_cast<double>(bytes_of_message) / best;
  }

 private:
  double seconds_with(int peer) {
    auto sent = messages(peer);
    auto received = messages(peer);
    device::synchronise(device_);
    world_.barrier();
    const Stopwatch watch;
    group_->alltoall(received, sent)->wait();
    device::synchronise(device_);
    return watch.seconds();
  }

  std::vector<at::Tensor> messages(int peer) const {
    std::vector<at::Tensor> all;
    for (int rank = 0; rank < world_.size(); ++rank)
      all.push_back(at::zeros({rank == peer ? bytes_of_message : 0},
                              at::TensorOptions().device(device_).dtype(at::kByte)));
    return all;
  }

  c10::Device device_;
  Comm world_;
  parallel::ProcessGroup group_;
};

/// With whom a rank exchanges when the first rank of each host does with number `other` of it.
int peer_within(const Places& places, int rank, int other) {
  const auto here = static_cast<std::size_t>(rank);
  if (places.number[here] == other) return places.first_of_host[here];
  if (!places.is_first(rank)) return nobody;
  for (std::size_t i = 0; i < places.number.size(); ++i)
    if (places.first_of_host[i] == rank && places.number[i] == other) return static_cast<int>(i);
  return nobody;
}

/// A link of every rank but those without one: to the first rank of its host or of the first host.
std::vector<RankRate> measure(const Places& places, Exchange& exchange, const Comm& world) {
  double mine = 0;
  const int most = *std::ranges::max_element(places.number);
  for (int other = 1; other <= most; ++other) {
    parallel::report_phase("links within nodes", other);
    const auto rate = exchange.with(peer_within(places, world.rank(), other));
    if (!places.is_first(world.rank()) && rate > 0) mine = rate;
  }
  for (int rank = 1; rank < world.size(); ++rank) {
    if (!places.is_first(rank)) continue;
    parallel::report_phase("links across nodes", rank);
    const auto rate = exchange.with(world.rank() == 0 ? rank : world.rank() == rank ? 0 : nobody);
    if (world.rank() == rank) mine = rate;
  }
  std::vector<RankRate> rates;
  for (const auto& text : world.gather(fmt::format("{:a}", mine)))
    rates.push_back({places.hosts[rates.size()], std::strtod(text.c_str(), nullptr)});
  return rates;
}

using Links = std::vector<RankRate>;

/// Of the ranks for which `is_wanted` holds.
template <class Wanted>
Links some(const Links& links, const Wanted& is_wanted) {
  Links found;
  for (std::size_t rank = 0; rank < links.size(); ++rank)
    if (is_wanted(static_cast<int>(rank))) found.push_back(links[rank]);
  return found;
}

std::string range_of(const Links& links) {
  const auto [low, high] = std::ranges::minmax(links, {}, &RankRate::rate);
  if (links.size() == 1) return fmt::format("{:.3g} GB/s", low.rate / 1e9);
  return fmt::format("{:.3g} to {:.3g} GB/s", low.rate / 1e9, high.rate / 1e9);
}

std::string table_of(const Places& places, const Links& links, const std::string& carrier) {
  std::vector<Row> within{{"GPUS", "BANDWIDTH, BY " + carrier}};
  std::vector<Row> across;
  for (int first = 0; first < std::ssize(links); ++first) {
    if (!places.is_first(first)) continue;
    const auto here = static_cast<std::size_t>(first);
    const auto others = some(links, [&](int rank) {
      return rank != first && places.first_of_host[static_cast<std::size_t>(rank)] == first;
    });
    if (!others.empty()) within.push_back({"within " + places.hosts[here], range_of(others)});
    if (first > 0)
      across.push_back(
          {fmt::format("{} to {}", places.hosts[0], places.hosts[here]), range_of({links[here]})});
  }
  within.insert(within.end(), across.begin(), across.end());
  return text_table(within);
}

std::vector<std::string> slow_ones(const Links& links) {
  const auto usual = placement::median(links);
  std::vector<std::string> sentences;
  for (const auto& link : links)
    if (link.rate < usual / 2)
      sentences.push_back(
          fmt::format("slow: a GPU of {} is reached at {:.3g} GB/s, others at {:.3g} GB/s",
                      link.host, link.rate / 1e9, usual / 1e9));
  return sentences;
}

}  // namespace

GpuLinks gpu_links(const Comm& world) {
  const bool has_gpu = device::accelerator().has_value();
  c10::Device device = c10::kCPU;
  try {
    refuse_idle_gpus(config::RunConfig(), world);
    if (world.size() == 1 || world.sum(std::int64_t{has_gpu}) < world.size()) return {};
    device = placement::choose_device("auto", Mesh::make(world));
  } catch (const AgreedError& why) {
    return {{}, fmt::format("A run would be refused: {}", why.what())};
  }
  const auto places = places_of(world);
  Exchange exchange(device, world);
  const auto links = measure(places, exchange, world);
  GpuLinks found{{table_of(places, links, exchange.carrier())}, ""};
  for (const bool is_across : {false, true})
    for (auto& line : slow_ones(
             some(links, [&](int rank) { return rank > 0 && places.is_first(rank) == is_across; })))
      found.lines.push_back(std::move(line));
  return found;
}

}  // namespace attune::program
