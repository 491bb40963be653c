// record.json: what a run was made of, so that it can be accounted for and repeated, and what happened to it.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include <attune/comm.hpp>

namespace attune {

struct RecordInput {
  std::string name;
  std::string run_file;                                                        // the effective one's text
  std::string base_model_path, base_model_sha256;
  std::string data_path;
  std::vector<std::pair<std::string, std::string>> data_sha256;                // split, hash
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files;     // "name version", library
  std::vector<std::string> command_line;
};

/// Program, versions, ranks with their hosts and processors, scheduler's job, hashes of data, base model, plugins and program, and the
/// run file. The text of record.json, on rank 0; empty elsewhere. `earlier`, the record of the run's earlier parts, hands on its
/// history. Collective.
std::string make_record(const RecordInput& input, const std::string& earlier, const Comm& comm);

/// The record with one more entry in its history: time, what happened ("started", "resumed", "interrupted", "finished", ...), step, and
/// what is said of it.
std::string with_event(const std::string& record, const std::string& what, std::int64_t step, const std::string& note = "");

/// What a record says of the things a run is repeated with.
struct RecordedRun {
  std::string run_file, base_model_sha256;
  std::map<std::string, std::string> data_sha256;  // by split
};
/// Error when the file is no record.
RecordedRun read_record(const std::filesystem::path& path);

}  // namespace attune
