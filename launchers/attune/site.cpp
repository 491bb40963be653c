#include "site.hpp"

#include <attune/error.hpp>
#include <dlfcn.h>

#include <algorithm>
#include <iostream>

#include "core/files.hpp"
#include "device/device.hpp"
#include "registry/loader.hpp"
#include "slurm/environment.hpp"
#include "slurm/launch.hpp"
#include "slurm/script.hpp"

namespace attune::program {

slurm::Site chosen_site(const boost::program_options::variables_map& values) {
  const auto name = values.count("site") ? values["site"].as<std::string>()
                                         : slurm::environment_variable("ATTUNE_SITE");
  return name.empty() ? slurm::Site{} : slurm::read_site(name, slurm::site_folders());
}

std::vector<std::string> options_of_environment(config::SlurmOptions& options) {
  auto notes = slurm::take_over(slurm::current_environment(), options);
  if (const auto objection = config::objection_to_time(options); !objection.empty())
    fail("[slurm]: {}", objection);
  return notes;
}

std::vector<std::string> small_memory(const config::SlurmOptions& options,
                                      const std::vector<train::HostMemory>& runs) {
  const auto of_node = static_cast<std::size_t>(options.tasks_per_node);
  const auto ranks = of_node * static_cast<std::size_t>(options.nodes);
  const auto most = std::ranges::max_element(
      runs, {}, [&](const train::HostMemory& memory) { return memory.of_node(of_node, ranks); });
  const double asked = config::memory_bytes(options.memory);
  if (asked == 0 || most == runs.end()) return {};
  const auto held = static_cast<double>(most->of_node(of_node, ranks));
  if (asked >= held) return {};
  const auto bytes = [](std::size_t n) { return human_bytes(static_cast<double>(n)); };
  const auto once = most->of_rank_shared(ranks);
  const auto shared =
      once > 0 && of_node > 1 ? fmt::format(", of which they share {}", bytes(once)) : "";
  return {
      fmt::format("slurm.memory is \"{}\", but the ranks of a node need {} before any activations "
                  "({} each{}): raise it; `attune check` estimates the total",
                  options.memory, human_bytes(held), bytes(most->of_rank(ranks)), shared)};
}

void check_gpus(const config::SlurmOptions& options, const config::ParallelOptions& parallel) {
  if (options.gpus_per_node > 0 && parallel.device == "cpu")
    fail(
        "slurm.gpus_per_node is {}, but parallel.device = \"cpu\" would leave the GPUs idle: set "
        "device to \"auto\" or \"cuda\", or gpus_per_node to 0",
        options.gpus_per_node);
}

std::vector<std::string> wrong_build(const config::SlurmOptions& options,
                                     const config::ParallelOptions& parallel) {
  const auto built = device::built_for();
  const bool serves = parallel.wants_accelerator()
                          ? std::ranges::find(built, parallel.device) != built.end()
                          : !built.empty();
  if (options.gpus_per_node == 0 || serves) return {};
  return {fmt::format(
      "the job requests GPUs{}, but this attune's LibTorch was built for {}, so the job would end "
      "at "
      "once: submit it with an attune that was built for them (`launchers/setup --cuda` makes "
      "build-cuda/attune)",
      parallel.wants_accelerator() ? fmt::format(" (parallel.device = \"{}\")", parallel.device)
                                   : "",
      device::build())};
}

void refuse_wrong_build(const config::SlurmOptions& options,
                        const config::ParallelOptions& parallel) {
  if (const auto wrong = wrong_build(options, parallel); !wrong.empty()) fail("{}", wrong.front());
}

std::vector<std::string> missing_gpus(const config::SlurmOptions& options,
                                      const config::ParallelOptions& parallel) {
  if (!parallel.wants_accelerator() || options.gpus_per_node > 0) return {};
  return {fmt::format(
      "parallel.device is \"{}\", but the job requests no GPU: set slurm.gpus_per_node = {}, "
      "unless the partition provides GPUs by default",
      parallel.device, options.tasks_per_node)};
}

void tell(const std::vector<std::string>& notes) {
  for (const auto& note : notes) std::cerr << "attune: note: " << note << "\n";
}

std::vector<std::filesystem::path> program_files() {
  namespace fs = std::filesystem;
  std::vector<fs::path> files{fs::read_symlink("/proc/self/exe")};
  Dl_info library{};
  ::dladdr(reinterpret_cast<void*>(&slurm::job_script), &library);
  files.emplace_back(library.dli_fname);
  if (const auto parquet = files.back().parent_path() / "libattune_parquet.so"; fs::exists(parquet))
    files.push_back(parquet);
  for (const auto& place : default_plugin_places())
    if (place.filename() == "plugins") files.push_back(place);
  return files;
}

std::string as_typed(const std::string& command, const std::vector<std::string>& arguments) {
  auto text = "attune " + command;
  for (const auto& argument : arguments)
    if (argument != "--print" && argument != "--wait") text += " " + slurm::shell_word(argument);
  return text;
}

}  // namespace attune::program
