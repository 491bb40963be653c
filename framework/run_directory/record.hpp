// record.json: what a run was made of, so that it can be accounted for and repeated, and what
// happened to it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace attune::run_directory {

using Named = std::vector<std::pair<std::string, std::string>>;

/// Where a rank computes.
struct RankPlace {
  std::string host;
  std::string processors;  // that the process may use, as Linux lists them: "0-3,8"
  std::int64_t threads = 0;
  std::optional<std::string> gpus;  // CUDA_VISIBLE_DEVICES, when it is set

  /// As a text, to send it to another rank.
  std::string text() const;
};

struct RecordedPlugin {
  std::string name;  // "lora 1.0.0"
  std::filesystem::path file;
  std::string sha256;
};

struct RecordFacts {
  std::string name;
  std::string attune_version;
  std::vector<std::string> command_line;
  std::string working_directory;
  std::string program_sha256;
  std::string base_model_path;
  std::string base_model_sha256;
  std::string data_path;
  Named data_sha256;  // by split
  std::vector<RecordedPlugin> plugins;
  Named versions;                      // of libraries and compiler
  std::vector<std::string> placement;  // RankPlace::text() of every rank
  std::string slurm_job;               // empty: none
  Named slurm_variables;
  std::string run_file;  // the effective one's text
};

/// The text of record.json. `earlier`, the record of the run's earlier parts or "", hands on its
/// history.
std::string record_text(const RecordFacts& facts, const std::string& earlier);

/// The record with one more entry in its history: time, what happened ("started", "resumed",
/// "interrupted", "finished"), step, and what is said of it.
std::string with_event(const std::string& record, const std::string& what, std::int64_t step,
                       const std::string& note = "");

/// Calls of a collective, and the bytes that the ranks handed to it, both summed over the ranks.
struct Collective {
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
};

/// The record with what its newest attempt's ranks have sent each other, by name of the collective.
std::string with_communication(const std::string& record,
                               const std::map<std::string, Collective>& communication);

void write_record(const std::filesystem::path& run, const std::string& record);

/// The text of the directory's record, "" where there is none. Error when it is damaged or of a
/// newer version.
std::string earlier_record(const std::filesystem::path& run);

/// Whether two records are of one run, whatever was added to them beside its history.
bool have_one_history(const std::string& one, const std::string& other);

struct HistoryEntry {
  std::string what;
  std::string note;
};

/// What a record says of how its run went. Keys that are missing are empty: records of earlier
/// versions have fewer.
struct RecordedRun {
  std::vector<HistoryEntry> history;
  std::string run_file;
  std::string slurm_job;
};

/// Absent when there is no record. Error naming the file when it is damaged or of a newer version.
std::optional<RecordedRun> read_record(const std::filesystem::path& run);

/// What a run is repeated with.
struct RecordedInputs {
  std::string run_file;
  std::string base_model_sha256;
  std::map<std::string, std::string> data_sha256;  // by split
};

/// Of a file that the user names. Error when it is no record.
RecordedInputs read_recorded_inputs(const std::filesystem::path& file);

}  // namespace attune::run_directory
