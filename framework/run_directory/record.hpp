// record.json: the inputs and environment of a run, for provenance and repetition, and its history.
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

/// Placement of a rank.
struct RankPlace {
  std::string host;
  std::string processors;  // allowed processors in Linux list format: "0-3,8"
  std::int64_t threads = 0;
  std::optional<std::string> gpus;  // CUDA_VISIBLE_DEVICES, if set
  std::string device;               // "cuda:0 NVIDIA H200"; empty for the host

  /// Text form, for transfer to another rank.
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
  std::string slurm_job;               // empty if none
  Named slurm_variables;
  std::string run_file;  // text of the effective run file
};

/// The text of record.json. `earlier`: the record of the run's earlier attempts, or ""; its history
/// is kept.
std::string record_text(const RecordFacts& facts, const std::string& earlier);

/// Appends an entry to the record's history: time, event ("started", "resumed", "interrupted",
/// "finished"), step and note.
std::string with_event(const std::string& record, const std::string& what, std::int64_t step,
                       const std::string& note = "");

/// Calls and input bytes of a collective, both summed over the ranks.
struct Collective {
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
};

/// Adds the communication of the latest attempt to the record, by name of the collective.
std::string with_communication(const std::string& record,
                               const std::map<std::string, Collective>& communication);

/// Adds to each rank's placement the most bytes that its tensors held on its device.
std::string with_device_memory(const std::string& record, const std::vector<std::int64_t>& bytes);

/// What the ranks of a node hold in the host's memory, in bytes.
struct NodeMemory {
  std::string host;
  std::int64_t ranks = 0;
  std::int64_t bytes = 0;   // together
  std::int64_t shared = 0;  // of them, of weights that they hold once
};

/// Adds what each node's ranks hold now.
std::string with_memory(const std::string& record, const std::vector<NodeMemory>& nodes);

void write_record(const std::filesystem::path& run, const std::string& record);

/// The text of the directory's record; "" if there is none. Error if it is damaged or of a newer
/// version.
std::string earlier_record(const std::filesystem::path& run);

/// Whether two records belong to the same run, ignoring additions other than the history.
bool have_one_history(const std::string& one, const std::string& other);

struct HistoryEntry {
  std::string what;
  std::string note;
};

/// History and job of a run from its record. Missing keys are empty: records of earlier versions
/// have fewer.
struct RecordedRun {
  std::vector<HistoryEntry> history;
  std::string run_file;
  std::string slurm_job;
  std::int64_t memory = 0;  // bytes that all ranks held together on their hosts
};

/// The folder where the run was started, if `file` is the run file or the record of a run directory
/// and the folder is another than the current one; else "". Relative paths of the run refer to it.
std::filesystem::path folder_of_paths(const std::filesystem::path& file);

/// Absent if there is no record. Error naming the file if it is damaged or of a newer version.
std::optional<RecordedRun> read_record(const std::filesystem::path& run);

/// Inputs for repeating a run.
struct RecordedInputs {
  std::string run_file;
  std::string base_model_sha256;
  std::map<std::string, std::string> data_sha256;  // by split
};

/// Reads them from a file given by the user. Error if it is not a record.
RecordedInputs read_recorded_inputs(const std::filesystem::path& file);

}  // namespace attune::run_directory
