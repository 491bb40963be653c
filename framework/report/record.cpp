#include "report/record.hpp"

#include <H5public.h>
#include <attune/plugin.hpp>
#include <fmt/chrono.h>
#include <unistd.h>

#include <ATen/Parallel.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/host.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace {

std::string now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

/// "0-3,8" as Linux writes it: the processors this process may use.
std::string processors() {
  std::ifstream lines("/proc/self/status");
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("Cpus_allowed_list:")) return line.substr(line.find_first_not_of(" \t", 18));
  return "";
}

nlohmann::ordered_json describe_rank() {
  nlohmann::ordered_json rank{{"host", host_name()}, {"processors", processors()}, {"threads", at::get_num_threads()}};
  if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) rank["gpus"] = gpus;
  return rank;
}

nlohmann::ordered_json slurm_variables() {
  nlohmann::ordered_json job;
  for (const char* name : {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT", "SLURM_JOB_NODELIST"})
    if (const char* value = std::getenv(name)) job[name] = value;
  return job;
}

}  // namespace

std::string make_record(const RecordInput& input, const std::string& earlier, const Comm& comm) {
  const auto ranks = comm.gather(describe_rank().dump());
  if (!comm.root()) return "";
  nlohmann::ordered_json record{{"format", "attune-record"}, {"version", 1}, {"name", input.name}, {"attune", ATTUNE_VERSION}};
  record["command_line"] = input.command_line;
  record["working_directory"] = std::filesystem::current_path().string();
  record["program_sha256"] = sha256_of_file("/proc/self/exe");
  record["base_model"] = {{"path", input.base_model_path}, {"sha256", input.base_model_sha256}};
  record["data"] = {{"path", input.data_path}};
  for (const auto& [split, hash] : input.data_sha256) record["data"]["sha256"][split] = hash;
  for (const auto& [name, file] : input.plugin_files) record["plugins"].push_back({{"name", name}, {"file", file.string()}, {"sha256", sha256_of_file(file)}});
  record["versions"] = {{"libtorch", TORCH_VERSION}, {"hdf5", fmt::format("{}.{}.{}", H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE)}, {"mpi", parallel::mpi_version()}, {"compiler", __VERSION__}};
  record["ranks"] = comm.size();
  for (const auto& rank : ranks) record["placement"].push_back(nlohmann::ordered_json::parse(rank));
  for (const auto& rank : record["placement"]) record["hosts"].push_back(rank["host"]);
  if (const auto job = slurm_job(); !job.empty()) record["slurm_job"] = job;
  if (auto job = slurm_variables(); !job.empty()) record["slurm"] = job;
  record["run_file"] = input.run_file;
  const auto before = nlohmann::ordered_json::parse(earlier, nullptr, /*allow_exceptions=*/false);
  record["history"] = before.is_object() && before.contains("history") ? before["history"] : nlohmann::ordered_json::array();
  return record.dump(2) + "\n";
}

std::string with_event(const std::string& record, const std::string& what, std::int64_t step, const std::string& note) {
  auto json = nlohmann::ordered_json::parse(record);
  nlohmann::ordered_json entry{{"time", now()}, {"what", what}, {"step", step}, {"ranks", json["ranks"]}};
  if (!note.empty()) entry["note"] = note;
  if (json.contains("slurm_job")) entry["job"] = json["slurm_job"];
  json["history"].push_back(entry);
  return json.dump(2) + "\n";
}

RecordedRun read_record(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_text(path), nullptr, /*allow_exceptions=*/false);
  try {
    if (json.is_object() && json.value("format", "") == "attune-record")
      return {json.at("run_file"), json.at("base_model").at("sha256"), json.at("data").at("sha256").get<std::map<std::string, std::string>>()};
  } catch (const nlohmann::json::exception&) {
  }
  fail("{}: is not the record of a run; give a run file, or the record.json of a run directory", path.string());
}

}  // namespace attune
