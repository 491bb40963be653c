#include "run_directory/record.hpp"

#include <attune/error.hpp>
#include <fmt/chrono.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "run_directory/places.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

ordered_json object_of(const Named& named) {
  auto object = ordered_json::object();
  for (const auto& [name, value] : named) object[name] = value;
  return object;
}

ordered_json plugins_of(const RecordFacts& facts) {
  ordered_json list;
  for (const auto& plugin : facts.plugins)
    list.push_back(
        {{"name", plugin.name}, {"file", plugin.file.string()}, {"sha256", plugin.sha256}});
  return list;
}

ordered_json history_of(const std::string& record) {
  const auto json = ordered_json::parse(record, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("history") ? json["history"] : ordered_json::array();
}

std::string dumped(const ordered_json& record) {
  // paths may be no UTF-8
  return record.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string RankPlace::text() const {
  ordered_json rank{{"host", host}, {"processors", processors}, {"threads", threads}};
  if (gpus) rank["gpus"] = *gpus;
  if (!device.empty()) rank["device"] = device;
  return rank.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string record_text(const RecordFacts& facts, const std::string& earlier) {
  ordered_json record;
  add_format(record, record_format);
  record["name"] = facts.name;
  record["attune"] = facts.attune_version;
  record["command_line"] = facts.command_line;
  record["working_directory"] = facts.working_directory;
  record["program_sha256"] = facts.program_sha256;
  record["base_model"] = {{"path", facts.base_model_path}, {"sha256", facts.base_model_sha256}};
  record["data"] = {{"path", facts.data_path}};
  for (const auto& [split, hash] : facts.data_sha256) record["data"]["sha256"][split] = hash;
  if (!facts.plugins.empty()) record["plugins"] = plugins_of(facts);
  record["versions"] = object_of(facts.versions);
  record["ranks"] = facts.placement.size();
  for (const auto& rank : facts.placement) record["placement"].push_back(ordered_json::parse(rank));
  for (const auto& rank : record["placement"]) record["hosts"].push_back(rank["host"]);
  if (!facts.slurm_job.empty()) record["slurm_job"] = facts.slurm_job;
  if (!facts.slurm_variables.empty()) record["slurm"] = object_of(facts.slurm_variables);
  record["run_file"] = facts.run_file;
  record["history"] = history_of(earlier);
  return dumped(record);
}

std::string with_event(const std::string& record, const std::string& what, std::int64_t step,
                       const std::string& note) {
  auto json = ordered_json::parse(record);
  const auto now = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  ordered_json entry{{"time", now}, {"what", what}, {"step", step}, {"ranks", json["ranks"]}};
  if (!note.empty()) entry["note"] = note;
  if (json.contains("slurm_job")) entry["job"] = json["slurm_job"];
  json["history"].push_back(entry);
  return dumped(json);
}

std::string with_communication(const std::string& record,
                               const std::map<std::string, Collective>& communication) {
  auto json = ordered_json::parse(record);
  for (const auto& [name, sent] : communication)
    json["communication"][name] = {{"calls", sent.calls}, {"bytes", sent.bytes}};
  return dumped(json);
}

std::string with_device_memory(const std::string& record, const std::vector<std::int64_t>& bytes) {
  auto json = ordered_json::parse(record);
  for (std::size_t rank = 0; rank < bytes.size(); ++rank)
    json["placement"][rank]["device_memory"] = bytes[rank];
  return dumped(json);
}

std::string with_memory(const std::string& record, const std::vector<NodeMemory>& nodes) {
  auto json = ordered_json::parse(record);
  auto& memory = json["memory"] = ordered_json::array();
  for (const auto& node : nodes)
    memory.push_back({{"host", node.host},
                      {"ranks", node.ranks},
                      {"bytes", node.bytes},
                      {"shared", node.shared}});
  return dumped(json);
}

void write_record(const fs::path& run, const std::string& record) {
  write_text(record_file(run), record);
}

std::string earlier_record(const fs::path& run) {
  const auto file = record_file(run);
  if (!fs::exists(file)) return "";
  auto text = read_text(file);
  try {
    parse_object(text, record_format, file.string());
  } catch (const Error& error) {
    fail("{}; remove it to continue without the run's history", error.what());
  }
  return text;
}

bool have_one_history(const std::string& one, const std::string& other) {
  const auto history = [](const std::string& record) {
    const auto json = nlohmann::json::parse(record, nullptr, /*allow_exceptions=*/false);
    return json.is_object() ? json.value("history", nlohmann::json()) : nlohmann::json();
  };
  return history(one) == history(other);
}

std::optional<RecordedRun> read_record(const fs::path& run) {
  const auto file = record_file(run);
  if (!fs::exists(file)) return std::nullopt;
  const auto json = parse_object(read_text(file), record_format, names::record);
  try {
    RecordedRun record;
    for (const auto& entry : json.value("history", nlohmann::json::array()))
      record.history.push_back({entry.value("what", ""), entry.value("note", "")});
    record.run_file = json.value("run_file", "");
    record.slurm_job = json.value("slurm_job", "");
    for (const auto& node : json.value("memory", nlohmann::json::array()))
      record.memory += node.at("bytes").get<std::int64_t>();
    return record;
  } catch (const nlohmann::json::exception& error) {
    fail("{} is damaged ({})", names::record, error.what());
  }
}

fs::path folder_of_paths(const fs::path& file) {
  const bool is_record = file.extension() == ".json";
  if (!is_record && file.filename() != names::run_file) return {};
  const auto record = is_record ? file : record_file(file.parent_path());
  std::error_code problem;
  if (!fs::exists(record, problem)) return {};
  const auto json = nlohmann::json::parse(read_text(record), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("format", nlohmann::json()) != record_format.name) return {};
  const auto folder = json.value("working_directory", nlohmann::json());
  if (!folder.is_string() || !fs::is_directory(folder.get<std::string>(), problem)) return {};
  const fs::path started = folder.get<std::string>();
  return fs::equivalent(started, fs::current_path(), problem) ? fs::path() : started;
}

RecordedInputs read_recorded_inputs(const fs::path& file) {
  const auto json = nlohmann::json::parse(read_text(file), nullptr, /*allow_exceptions=*/false);
  const bool is_record =
      json.is_object() && json.contains("format") && json["format"] == record_format.name;
  if (is_record) check_format(json, record_format, file.string());
  try {
    if (is_record)
      return {json.at("run_file"), json.at("base_model").at("sha256"),
              json.at("data").at("sha256")};
  } catch (const nlohmann::json::exception&) {
  }
  fail("{}: is not a run record; give a run file, or the record.json of a run directory",
       file.string());
}

}  // namespace attune::run_directory
