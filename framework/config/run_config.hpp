// The run file, typed and validated. Every section and plugin declares its options once.
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

/// A plugin selected by name, with its options.
struct Chosen {
  const Registry::Entry* entry = nullptr;
  std::shared_ptr<void> options;

  template <class Interface>
  std::shared_ptr<Interface> build(void* context = nullptr) const {
    return std::static_pointer_cast<Interface>(entry->build(options.get(), context));
  }
};

enum class FloatType { float32, bfloat16 };
/// Whether and in which dtype the outputs of frozen blocks are cached.
enum class HiddenCache { off, float32, bfloat16 };
/// Reaction to a non-finite loss or gradient.
enum class NotFinite { stop, skip };
enum class Binding { automatic, keep };
enum class Collectives { automatic, mpi };
enum class Offload { none, optimizer };
enum class Shard { none, optimizer, gradients, weights };

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
  std::int64_t micro_batch = 4;  // 0: determined at the start of the run
  std::int64_t micro_tokens = 0;
  bool group_lengths = false;
  bool recompute = false;
  FloatType precision = FloatType::float32;
  HiddenCache prefix_cache = HiddenCache::off;
  std::string prefix_folder;
  // names only; RunConfig has the plugins with their options
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
  // further evaluation steps, set by the sweep of this trial; not an option
  std::vector<std::int64_t> also_at;
  static void describe(Schema<EvaluateOptions>& s);
};

struct ParallelOptions {
  std::string mode = "data";
  std::string device = "auto";  // or a kind: device::kinds()
  bool wants_accelerator() const { return device != "auto" && device != "cpu"; }
  std::int64_t threads = 0;
  Binding binding = Binding::automatic;
  Collectives collectives = Collectives::automatic;
  Shard shard = Shard::none;
  std::int64_t replicas = 1;
  Offload offload = Offload::none;
  bool reproducible = false;
  double watchdog = 1800;
  static void describe(Schema<ParallelOptions>& s);
};

/// When checkpoints are saved, and which are kept.
struct CheckpointOptions {
  std::int64_t every = 0;
  std::int64_t keep = 2;
  std::string keep_best;
  bool staged = true;
  static void describe(Schema<CheckpointOptions>& s);
};

/// Ranks requested in [slurm] of a run file; absent if not specified.
struct AskedRanks {
  std::optional<std::int64_t> nodes;
  std::optional<std::int64_t> tasks_per_node;
  std::optional<std::int64_t> gpus_per_node;
  std::optional<std::int64_t> cpus_per_task;
};

struct RunConfig {
  std::filesystem::path file;
  // to which relative paths of the file refer; empty: the current folder
  std::filesystem::path folder = {};
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
  // available plugins, must outlive this; a model plugin has the name of its model_type
  const Registry* registry = nullptr;
  std::vector<Chosen> strategies;  // in the order in which they extend each other
  // initial adapter folder; "": train a new adapter
  std::string adapter;
  // in call order; always includes progress and jsonl
  std::vector<Chosen> callbacks;

  /// All sections with effective values and their origins, in the order of the run file.
  std::vector<std::pair<std::string, std::vector<Setting>>> effective;

  std::filesystem::path directory() const { return std::filesystem::path(run.output) / run.name; }
  /// The libraries of the run's plugins, without duplicates: "name version" and file.
  std::vector<std::pair<std::string, std::filesystem::path>> plugin_files() const;
  /// The effective run file. Parsing it gives the same RunConfig.
  std::string to_toml() const;
};

/// The plugin folders and files named in `plugins`, needed before the rest can be validated.
/// Ignores mistakes elsewhere.
std::vector<std::filesystem::path> plugin_places(const Document& document);
/// The names of the plugins that the run uses. Ignores mistakes elsewhere.
std::vector<std::string> plugin_names(const Document& document);

/// Validates the whole file against the options of the framework and of the plugins it names.
/// Reports all mistakes in one Error.
RunConfig read_run(const Document& document, const Registry& registry);

/// Seconds of a time in sbatch's format: minutes, minutes:seconds, hours:minutes:seconds,
/// days-hours[:minutes[:seconds]]. Absent if invalid.
std::optional<double> seconds_of(const std::string& text);

/// The sections declared by the framework, with their options, for the reference page.
std::vector<std::pair<std::string, OptionSet>> framework_sections();

}  // namespace attune::config
