#include "report/record.hpp"

#include <H5public.h>
#include <attune/plugin.hpp>
#include <fmt/format.h>

#include <ATen/Parallel.h>

#include <cstdlib>
#include <fstream>

#include "core/hash.hpp"
#include "core/host.hpp"
#include "device/device.hpp"
#include "parallel/mpi.hpp"
#include "run_directory/record.hpp"

namespace attune {
namespace {

/// "0-3,8" as Linux writes it: the processors this process may use.
std::string processors() {
  std::ifstream lines("/proc/self/status");
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("Cpus_allowed_list:"))
      return line.substr(line.find_first_not_of(" \t", 18));
  return "";
}

/// "cuda:0 NVIDIA H200"; empty for the host.
std::string text_of(c10::Device device) {
  if (device.is_cpu()) return "";
  const auto model = device::identity(device).model;
  return device.str() + (model.empty() ? "" : " " + model);
}

run_directory::RankPlace place_of_this_rank(c10::Device device) {
  run_directory::RankPlace place{host_name(), processors(), at::get_num_threads(), std::nullopt,
                                 text_of(device)};
  if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) place.gpus = gpus;
  return place;
}

run_directory::Named slurm_variables() {
  run_directory::Named job;
  for (const char* name : {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
                           "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT", "SLURM_JOB_NODELIST"})
    if (const char* value = std::getenv(name)) job.emplace_back(name, value);
  return job;
}

run_directory::Named versions() {
  const auto hdf5 = fmt::format("{}.{}.{}", H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
  return {{"libtorch", TORCH_VERSION},
          {"hdf5", hdf5},
          {"mpi", parallel::mpi_version()},
          {"compiler", __VERSION__}};
}

}  // namespace

std::string make_record(const RecordInput& input, const std::string& earlier, const Comm& world) {
  auto placement = world.gather(place_of_this_rank(input.device).text());
  if (!world.root()) return "";
  run_directory::RecordFacts facts;
  facts.name = input.name;
  facts.attune_version = ATTUNE_VERSION;
  facts.command_line = input.command_line;
  facts.working_directory = input.folder.string();
  facts.program_sha256 = sha256_of_file("/proc/self/exe");
  facts.base_model_path = input.base_model_path;
  facts.base_model_sha256 = input.base_model_sha256;
  facts.data_path = input.data_path;
  facts.data_sha256 = input.data_sha256;
  for (const auto& [name, file] : input.plugin_files)
    facts.plugins.push_back({name, file, sha256_of_file(file)});
  facts.versions = versions();
  facts.placement = std::move(placement);
  facts.slurm_job = slurm_job();
  facts.slurm_variables = slurm_variables();
  facts.run_file = input.run_file;
  return run_directory::record_text(facts, earlier);
}

}  // namespace attune
