// record.json: what a run was made of, so that it can be accounted for and repeated.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include <attune/comm.hpp>

namespace attune {

struct RecordInput {
  std::string name;
  std::string base_model_path, base_model_sha256;
  std::string data_path;
  std::vector<std::pair<std::string, std::string>> data_sha256;                // split, hash
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files;     // "name version", library
  std::vector<std::string> command_line;
};

/// Collective (the hosts of all ranks are gathered): program, versions, ranks, hosts, scheduler's job id, hashes of data, base model,
/// plugins and program, start time. The text of record.json, on every rank.
std::string make_record(const RecordInput& input, const Comm& comm);

}  // namespace attune
