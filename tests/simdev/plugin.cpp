// A plugin that brings the simulated devices, and a callback that writes what each step cost them.
#include <attune/device.hpp>
#include <attune/plugin.hpp>
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "collectives.hpp"
#include "counters.hpp"
#include "device.hpp"
#include "memory.hpp"

namespace {

using attune::simdev::Counters;

using Counts = std::map<std::string, std::int64_t>;

/// What came after an earlier count.
Counts since(const Counts& earlier, const Counts& now) {
  Counts more;
  for (const auto& [name, count] : now) {
    const auto found = earlier.find(name);
    const auto before = found == earlier.end() ? 0 : found->second;
    if (count > before) more[name] = count - before;
  }
  return more;
}

/// One line for each step in DIRECTORY/device.RANK.jsonl.
class DeviceCounts final : public attune::Callback {
 public:
  struct Options {
    static void describe(attune::Schema<Options>&) {}
  };
  explicit DeviceCounts(Options) {}
  void on(attune::Event event, const attune::Run& run, attune::Requests&) override {
    if (event == attune::Event::step_begin) before_ = attune::simdev::counted();
    if (event == attune::Event::step_end) write(run);
  }

 private:
  void write(const attune::Run& run) const {
    const auto now = attune::simdev::counted();
    const nlohmann::json line{
        {"step", run.step},
        {"synchronisations", since(before_.synchronisations, now.synchronisations)},
        {"elsewhere", since(before_.elsewhere, now.elsewhere)},
        {"operators", since(before_.operators, now.operators)},
        {"bytes_to_device", now.bytes_to_device - before_.bytes_to_device},
        {"bytes_to_host", now.bytes_to_host - before_.bytes_to_host},
        {"bytes_to_ranks", now.bytes_to_ranks - before_.bytes_to_ranks},
    };
    const auto file = run.directory / fmt::format("device.{}.jsonl", run.comm.rank());
    std::ofstream(file, std::ios::app) << line.dump() << "\n";
  }

  Counters before_;
};

attune::DeviceIdentity identity(c10::DeviceIndex device) {
  const auto physical = attune::simdev::physical(device);
  return {fmt::format("SIM-{}", physical), physical < 64 ? "Simulated" : "Simulated, another"};
}

void register_devices() {
  attune::simdev::register_devices();
  attune::identify_devices(attune::simdev::sim, &identity);
  const char* collectives = std::getenv("ATTUNE_SIM_COLLECTIVES");
  if (!collectives || collectives != std::string("none"))
    attune::declare_collectives(attune::simdev::sim, &attune::simdev::find_collective);
}

}  // namespace

ATTUNE_PLUGIN("sim", "1.0.0", registry) {
  [[maybe_unused]] static const bool once = (register_devices(), true);
  registry.callback<DeviceCounts>("device_counts",
                                  "writes what each step cost the simulated device");
}
