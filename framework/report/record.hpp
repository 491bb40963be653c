// What a run is made of, gathered for its record.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <attune/comm.hpp>

namespace attune {

struct RecordInput {
  std::string name;
  // the effective one's text
  std::string run_file;
  std::string base_model_path;
  std::string base_model_sha256;
  std::string data_path;
  std::vector<std::pair<std::string, std::string>> data_sha256;  // split, hash
  // "name version", library
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files;
  std::vector<std::string> command_line;
};

/// The text of record.json, on rank 0: program, versions, ranks with their hosts and processors,
/// scheduler's job, hashes of data, base model, plugins and program, and the run file. Empty
/// elsewhere. `earlier`, the record of the run's earlier parts, hands on its history; rank 0 gives
/// it. Collective.
std::string make_record(const RecordInput& input, const std::string& earlier, const Comm& world);

}  // namespace attune
