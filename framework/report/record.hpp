// Collects the facts for a run's record.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <attune/comm.hpp>
#include <c10/core/Device.h>

namespace attune {

struct RecordInput {
  std::string name;
  // text of the effective run file
  std::string run_file;
  std::string base_model_path;
  std::string base_model_sha256;
  std::string data_path;
  std::vector<std::pair<std::string, std::string>> data_sha256;  // split, hash
  // "name version", library
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files;
  std::vector<std::string> command_line;
  std::filesystem::path folder;    // to which relative paths of the run file refer
  c10::Device device = c10::kCPU;  // of this rank
};

/// Returns the text of record.json on rank 0, and an empty text on other ranks. It contains
/// program, versions, ranks with hosts and processors, the scheduler's job, hashes of data, base
/// model, plugins and program, and the run file. `earlier`: on rank 0, the record of earlier
/// attempts; its history is kept. Collective.
std::string make_record(const RecordInput& input, const std::string& earlier, const Comm& world);

}  // namespace attune
