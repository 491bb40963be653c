// The run file, typed and checked. Every section declares its options once; plugins declare theirs.
#pragma once
#include <attune/registry.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/setting.hpp"

namespace attune::config {

struct Document;

/// A plugin chosen by name, with its options bound.
struct Chosen {
  const Registry::Entry* entry = nullptr;
  std::shared_ptr<void> options;

  template <class Interface>
  std::shared_ptr<Interface> build(void* context = nullptr) const {
    return std::static_pointer_cast<Interface>(entry->build(options.get(), context));
  }
};

enum class FloatType { float32, bfloat16 };
/// What becomes of the hidden states after the frozen blocks.
enum class HiddenCache { off, float32, bfloat16 };
/// What to do when a loss or a gradient is not finite.
enum class NotFinite { stop, skip };
enum class DeviceChoice { automatic, cpu, cuda };
enum class Binding { automatic, keep };

struct RunOptions {
  std::string name;
  std::int64_t seed = 0;
  std::string output = "runs";
  std::vector<std::string> plugins;
  static void describe(Schema<RunOptions>& s);
};

struct ModelOptions {
  std::string path;
  FloatType dtype = FloatType::float32;
  std::vector<std::string> allowed_licences;
  static void describe(Schema<ModelOptions>& s);
};

struct DatasetOptions {
  std::string path;
  std::int64_t shuffle_block = 1;
  static void describe(Schema<DatasetOptions>& s);
};

struct StrategyOptions {
  std::string adapter;
  static void describe(Schema<StrategyOptions>& s);
};

struct TrainOptions {
  std::int64_t steps = 0;
  double epochs = 0;
  std::int64_t global_batch = 16;
  std::int64_t micro_batch = 4;  // 0: found at the start of the run
  std::int64_t micro_tokens = 0;
  bool group_lengths = false;
  bool recompute = false;
  FloatType precision = FloatType::float32;
  HiddenCache prefix_cache = HiddenCache::off;
  std::string prefix_folder;
  // by name alone; see RunConfig for those with their options
  std::string optimizer = "adamw";
  std::string schedule = "cosine";
  double learning_rate = 2e-4;
  double weight_decay = 0;
  double warmup = 0;
  double clip = 1.0;
  NotFinite on_not_finite = NotFinite::stop;
  std::string time_limit;
  static void describe(Schema<TrainOptions>& s);
};

struct EvaluateOptions {
  std::int64_t every = 0;
  std::int64_t samples = 0;
  std::int64_t micro_batch = 8;
  // further steps, of the sweep that the run is a trial of; no option
  std::vector<std::int64_t> also_at;
  static void describe(Schema<EvaluateOptions>& s);
};

struct ParallelOptions {
  std::string mode = "data";
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;
  Binding binding = Binding::automatic;
  bool reproducible = false;
  double watchdog = 1800;
  static void describe(Schema<ParallelOptions>& s);
};

/// When checkpoints are begun, and which stay.
struct CheckpointOptions {
  std::int64_t every = 0;
  std::int64_t keep = 2;
  std::string keep_best;
  bool staged = true;
  static void describe(Schema<CheckpointOptions>& s);
};

/// What [slurm] of a run file says of the ranks; no value: nothing.
struct AskedRanks {
  std::optional<std::int64_t> nodes;
  std::optional<std::int64_t> tasks_per_node;
  std::optional<std::int64_t> gpus_per_node;
  std::optional<std::int64_t> cpus_per_task;
};

struct RunConfig {
  std::filesystem::path file;
  RunOptions run;
  ModelOptions model;
  DatasetOptions dataset;
  TrainOptions train;
  EvaluateOptions evaluate;
  CheckpointOptions checkpoint;
  ParallelOptions parallel;
  AskedRanks asked;
  Chosen model_plugin;
  Chosen dataset_plugin;
  Chosen optimizer;
  Chosen schedule;
  // outlives this: the plugins there are; a model's bears the name of the model_type that it runs
  const Registry* registry = nullptr;
  std::vector<Chosen> strategies;  // in the order they build on each other
  // the adapter folder that the training starts from; "": a new one
  std::string adapter;
  // in the order they are called; progress and jsonl are always among them
  std::vector<Chosen> callbacks;

  /// Every section with its effective values and their origins, in the run file's order.
  std::vector<std::pair<std::string, std::vector<Setting>>> effective;

  std::filesystem::path directory() const { return std::filesystem::path(run.output) / run.name; }
  /// The libraries of its plugins, each once: "name version" and file.
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files() const;
  /// The effective run file: reading it back gives the same RunConfig.
  std::string to_toml() const;
};

/// The folders and files named by the run file's `plugins`: needed before the rest can be checked.
/// Mistakes elsewhere are not looked at.
std::vector<std::filesystem::path> plugin_places(const Document& document);
/// The plugins that a run of this file is made of, likewise.
std::vector<std::string> plugin_names(const Document& document);

/// Checks the whole file against the declared options of the framework and of the plugins it names;
/// all mistakes in one Error.
RunConfig read_run(const Document& document, const Registry& registry);

/// Seconds of a time as sbatch writes it: minutes, minutes:seconds, hours:minutes:seconds,
/// days-hours[:minutes[:seconds]].
std::optional<double> seconds_of(const std::string& text);

/// The sections that the framework itself declares, for the reference page: name and options.
std::vector<std::pair<std::string, OptionSet>> framework_sections();

}  // namespace attune::config
