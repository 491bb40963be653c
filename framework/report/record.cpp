#include "report/record.hpp"

#include <H5public.h>
#include <attune/plugin.hpp>
#include <fmt/chrono.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/hash.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace {

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(length));
  return all.substr(0, all.find(','));
}

}  // namespace

std::string make_record(const RecordInput& input, const Comm& comm) {
  const auto hosts = comm.gather(host_name());
  nlohmann::ordered_json record{{"name", input.name}, {"attune", ATTUNE_VERSION}, {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))}};
  record["command_line"] = input.command_line;
  record["program_sha256"] = sha256_of_file("/proc/self/exe");
  record["base_model"] = {{"path", input.base_model_path}, {"sha256", input.base_model_sha256}};
  record["data"] = {{"path", input.data_path}};
  for (const auto& [split, hash] : input.data_sha256) record["data"][split + "_sha256"] = hash;
  for (const auto& [name, file] : input.plugin_files) record["plugins"].push_back({{"name", name}, {"file", file.string()}, {"sha256", sha256_of_file(file)}});
  record["versions"] = {{"libtorch", TORCH_VERSION}, {"hdf5", fmt::format("{}.{}.{}", H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE)}, {"mpi", mpi_version()}, {"compiler", __VERSION__}};
  record["ranks"] = comm.size();
  record["hosts"] = hosts;
  if (const char* job = std::getenv("SLURM_JOB_ID")) record["slurm_job"] = job;
  return record.dump(2) + "\n";
}

}  // namespace attune
