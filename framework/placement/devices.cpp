#include "placement/devices.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/host.hpp"
#include "core/names.hpp"
#include "device/device.hpp"
#include "placement/gpus.hpp"

namespace attune::placement {
namespace {

/// The physical device, as far as it is known: by its UUID, else by host and index.
std::string physical_device(const Seat& seat) {
  return seat.uuid.empty() ? fmt::format("{} {}", seat.host, seat.device()) : seat.uuid;
}

std::string here(const Seat& seat, std::size_t rank) {
  return fmt::format("rank {} on {}", rank, seat.host);
}

std::string objection_to_kinds(const std::vector<Seat>& seats) {
  for (std::size_t rank = 1; rank < seats.size(); ++rank)
    if (seats[rank].kind != seats[0].kind)
      return fmt::format(
          "parallel.device is \"auto\": {} finds {}, but {} finds {}: use nodes that are alike, or "
          "set it to \"cpu\"",
          here(seats[0], 0), seats[0].device(), here(seats[rank], rank), seats[rank].device());
  return "";
}

std::string objection_to_sharing(const std::vector<Seat>& seats) {
  std::map<std::string, std::size_t> owners;
  for (std::size_t rank = 0; rank < seats.size(); ++rank) {
    const auto& seat = seats[rank];
    if (seat.uuid.empty() && seat.visible == 1) continue;  // it may be its own, and nobody can tell
    const auto [found, is_new] = owners.emplace(physical_device(seat), rank);
    if (is_new) continue;
    const auto uuid = seat.uuid.empty() ? "" : ", " + seat.uuid;
    return fmt::format(
        "ranks {} and {} on {} would share one device ({}{}), as {} {} visible: start one rank per "
        "device, request more devices, or set parallel.device to \"cpu\"",
        found->second, rank, seat.host, seat.device(), uuid, seat.visible,
        seat.visible == 1 ? "is" : "are");
  }
  return "";
}

std::string model_of(const Seat& seat) {
  return seat.model.empty() ? "a device without a name" : seat.model;
}

Seat seat_of(c10::Device device, int visible) {
  Seat seat{host_name(), device::name(device.type()), std::max<int>(0, device.index()), visible, "",
            ""};
  if (device.is_cpu()) return seat;
  const auto identity = device::identity(device);
  seat.uuid = identity.uuid;
  seat.model = identity.model;
  return seat;
}

/// Of those that this rank sees.
c10::Device choose_here(const std::string& wanted, int rank_on_node) {
  const auto kind = device::accelerator();
  if (wanted == "cpu" || (wanted == "auto" && !kind)) return c10::kCPU;
  if (wanted != "auto" && !std::ranges::count(device::built_for(), wanted))
    fail(
        "parallel.device is '{}', but this attune's LibTorch was built for {}: use one that was "
        "built "
        "for it (`launchers/setup --cuda` makes build-cuda/attune), or set it to 'cpu' or 'auto'",
        wanted, device::build());
  if (!kind || (wanted != "auto" && wanted != device::name(*kind)))
    fail(
        "parallel.device is '{}', but this LibTorch finds no such device: set it to 'cpu' or "
        "'auto', or look whether the driver sees one, or CUDA_VISIBLE_DEVICES hides it",
        wanted);
  return {*kind, static_cast<c10::DeviceIndex>(rank_on_node % device::count())};
}

/// A build of LibTorch for CPUs on a machine with GPUs is most often a mistake.
void tell_of_idle_gpus() {
  const auto host = HostGpus::of();
  const auto count = std::max(host.nvidia.size(), host.amd.size());
  if (count > 0)
    fmt::print(stderr,
               "note: this machine has GPUs ({}), but this LibTorch finds none: the run uses the "
               "CPU; build Attune with LibTorch for GPUs, or set parallel.device to \"cpu\"\n",
               count);
}

void warn_of_difference(const std::vector<Seat>& seats, c10::Device device, const Comm& world) {
  std::vector<double> rates;
  for (const auto& text : world.gather(std::to_string(device::multiply_rate(device))))
    rates.push_back(std::stod(text));
  if (world.root()) fmt::print(stderr, "warning: {}\n", difference(seats, rates));
}

}  // namespace

std::string Seat::text() const {
  return nlohmann::json{host, kind, index, visible, uuid, model}.dump();
}

Seat Seat::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json[0], json[1], json[2], json[3], json[4], json[5]};
}

std::string Seat::device() const {
  return kind == "cpu" ? "no accelerator" : fmt::format("{}:{}", kind, index);
}

std::string objection(const std::vector<Seat>& seats) {
  if (auto wrong = objection_to_kinds(seats); !wrong.empty()) return wrong;
  return seats[0].kind == "cpu" ? "" : objection_to_sharing(seats);
}

bool differ(const std::vector<Seat>& seats) {
  return std::ranges::any_of(seats,
                             [&](const Seat& seat) { return seat.model != seats.front().model; });
}

std::string difference(const std::vector<Seat>& seats, const std::vector<double>& rates) {
  std::map<std::string, std::size_t> counts;
  for (const auto& seat : seats) ++counts[model_of(seat)];
  std::vector<std::string> models;
  for (const auto& [model, count] : counts) models.push_back(fmt::format("{} x {}", count, model));
  const auto slowest = static_cast<std::size_t>(std::ranges::min_element(rates) - rates.begin());
  return fmt::format(
      "the ranks compute on different devices ({}): {} ({}) is the slowest, and the others wait "
      "for it",
      joined(models), here(seats[slowest], slowest), model_of(seats[slowest]));
}

c10::Device choose_device(const std::string& wanted, const Mesh& mesh) {
  c10::Device device = c10::kCPU;
  mesh.world.agree([&] { device = choose_here(wanted, mesh.node.rank()); });
  if (wanted == "auto" && device.is_cpu() && mesh.world.root()) tell_of_idle_gpus();
  std::vector<Seat> seats;
  for (const auto& text : mesh.world.gather(seat_of(device, device::count()).text()))
    seats.push_back(Seat::parse(text));
  mesh.world.agree([&] {
    if (const auto wrong = objection(seats); !wrong.empty()) fail("{}", wrong);
  });
  device::make_current(device);
  if (differ(seats)) warn_of_difference(seats, device, mesh.world);
  return device;
}

}  // namespace attune::placement
