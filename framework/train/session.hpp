// Everything a run is made of, built from its run file in the order of the data's way.
#pragma once
#include <attune/callback.hpp>
#include <attune/dataset.hpp>
#include <attune/mesh.hpp>
#include <c10/core/Device.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "config/run_config.hpp"
#include "data/store.hpp"
#include "nn/activations.hpp"
#include "strategy/strategies.hpp"

namespace attune {

struct ModelFiles;

namespace train {

/// Bytes that a planned run takes on a rank besides what its parameters tell (train/memory.hpp).
struct PlannedMemory {
  // that strategies and layers keep: a teacher, copies of the start, tables
  std::size_t other = 0;
  std::size_t before_first_step = 0;  // the most that was held while strategies began
  // over the longest samples; absent where a strategy or model asked for values
  std::optional<nn::PassMemory> pass;
};

struct Session {
  config::RunConfig config;
  Mesh mesh;
  c10::Device device = c10::kCPU;
  // the model has shapes and no values: its device is the meta device
  bool is_planned = false;
  // of a plan: a strategy asked for values, and nothing is known of what it prepares
  bool needs_values = false;
  PlannedMemory planned;
  std::shared_ptr<ModelFiles> files;  // weights and tokenizer on rank 0 alone
  std::string base_sha256;            // of the base model's weights; see identify_base
  // sha256 by name, of the libraries that do not come with Attune
  std::map<std::string, std::string> plugin_files;
  std::shared_ptr<DataFile> data;
  std::shared_ptr<Dataset> dataset;
  std::shared_ptr<Model> model;
  std::shared_ptr<Strategies> strategies;  // have prepared the model
  // by them: weights of the base are others, or are held otherwise
  bool base_is_changed = false;
  /// Parameters of the base that the adapter to start from has other values for, with their own;
  /// until the base is evaluated.
  std::vector<std::pair<at::Tensor, at::Tensor>> base_values;
  std::vector<std::shared_ptr<Callback>> callbacks;
  /// Called on rank 0 before a checkpoint: whether the run's directory was lost, and has been made
  /// again. Error when another run has it.
  std::function<bool()> restore_directory;
  /// Called on rank 0 once nothing is refused any more: what the directory says of the run is
  /// written then, and not before.
  std::function<void()> begins;

  /// Collective. Errors: whatever the parts refuse; a tokenizer that does not fit model or data;
  /// data of another kind; samples longer than the model's context; a strategy that leaves nothing
  /// trainable.
  static Session open(const config::RunConfig& config, const Mesh& mesh);
  /// The same refusals, and those of the first step and evaluation, but for those that take values,
  /// from the headers of the model's files: no weights are read, and memory is taken for data and
  /// tokenizer alone. For a machine on which the run need not fit.
  static Session plan(const config::RunConfig& config, const Mesh& mesh);
};

/// A run file (or the run.toml or record.json of a run directory) read with the plugins it names,
/// and the groups that its ranks form. Collective: rank 0 reads, all check.
struct OpenedRun {
  config::RunConfig config;
  std::shared_ptr<Registry> registry;
  Mesh mesh;
};
OpenedRun open_run(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const Comm& world);

/// Rank 0 opens the model; the others learn its config. Collective.
std::shared_ptr<ModelFiles> open_model_files(const std::string& path, const Comm& world);
/// Model and strategies of the run once more, prepared without weights, in this process alone.
/// Error: what the strategies refuse.
Session planned_copy(const Session& session);

/// On the session's device and in its dtype; takes the files' weights, of a plan their shapes.
/// Collective.
std::shared_ptr<Model> build_model(const Session& session, const config::Chosen& plugin,
                                   ModelFiles& files);

/// Sets base_sha256, unless it is: reads all weights on rank 0, where it is not known from before.
/// Collective.
void identify_base(Session& session);

}  // namespace train
}  // namespace attune
