// A session: all components of a run, built from its run file.
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
#include "parallel/backend.hpp"
#include "parallel/sharing.hpp"
#include "parallel/node_memory.hpp"
#include "strategy/strategies.hpp"

namespace attune {

struct ModelFiles;

namespace train {

/// Bytes per rank that a planned run needs in addition to its parameters (train/memory.hpp).
struct PlannedMemory {
  // other tensors of strategies and layers: a teacher, copies of initial values, tables
  std::size_t other = 0;
  std::size_t before_first_step = 0;  // peak while strategies began
  std::size_t evaluation = 0;         // peak of a pass over validation samples
  // pass over the longest samples; absent if a strategy or model needed values
  std::optional<nn::PassMemory> pass;
};

struct Session {
  config::RunConfig config;
  Mesh mesh;
  c10::Device device = c10::kCPU;
  // the model has shapes but no values, on the meta device
  bool is_planned = false;
  // planned session: a strategy needed values, so its memory is unknown
  bool needs_values = false;
  PlannedMemory planned;
  std::shared_ptr<ModelFiles> files;  // weights and tokenizer on rank 0 only
  std::string base_sha256;            // of the base model's weights; set by identify_base
  // SHA-256 by name, of libraries that are not part of Attune
  std::map<std::string, std::string> plugin_files;
  std::shared_ptr<DataFile> data;
  std::shared_ptr<Dataset> dataset;
  /// Where the ranks of a node hold what is frozen, on the host; null on devices and in plans.
  std::shared_ptr<parallel::NodeMemory> memory;
  std::shared_ptr<Model> model;
  std::shared_ptr<Strategies> strategies;  // already applied to the model
  // strategies replaced weights of the base or changed their representation
  bool base_is_changed = false;
  /// Base parameters for which the initial adapter has other values, with the base's own values.
  /// Kept until the base is evaluated.
  std::vector<std::pair<at::Tensor, at::Tensor>> base_values;
  std::vector<std::shared_ptr<Callback>> callbacks;
  /// Called on rank 0 before each checkpoint. Returns whether the run's directory was lost and has
  /// been recreated. Error if another run owns it.
  std::function<bool()> restore_directory;
  /// Called on rank 0 after all checks passed. Only then is the run recorded in its directory.
  std::function<void()> begins;

  /// Collective. Errors: those of all components; a tokenizer that does not fit the model or the
  /// data; data of another kind; samples longer than the model's context; no trainable parameter.
  static Session open(const config::RunConfig& config, const Mesh& mesh);
  /// Performs the checks of open(), and those of the first step and evaluation that need no values.
  /// Reads only the headers of the model's files, and allocates memory only for data and tokenizer,
  /// so it also works on machines that are too small for the run.
  static Session plan(const config::RunConfig& config, const Mesh& mesh);
};

/// A run file (or the run.toml or record.json of a run directory), read with its plugins, and the
/// groups of ranks. Collective: rank 0 reads, all ranks validate.
struct OpenedRun {
  config::RunConfig config;
  std::shared_ptr<Registry> registry;
  Mesh mesh;
};
/// Reads the run file, or the one in a record.json. Relative paths in a run directory's file refer
/// to the folder where the run was started; in a copy of the directory, to the current folder.
config::Document run_document(const std::filesystem::path& file,
                              const std::vector<std::string>& overrides = {});
OpenedRun open_run(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const Comm& world);

/// Rank 0 opens the model and sends its config to the other ranks. Collective.
std::shared_ptr<ModelFiles> open_model_files(const std::string& path, const Comm& world);
/// A second, planned copy of the run's model and strategies, without weights, in this process
/// alone. Error: those of the strategies.
Session planned_copy(const Session& session);

/// Whether it computes on an accelerator, or is the plan of a run that would.
bool computes_on_accelerator(const Session& session);

/// Builds the model on the session's device and in its dtype, from the files' weights or, for a
/// plan, their shapes. Collective.
std::shared_ptr<Model> build_model(const Session& session, const config::Chosen& plugin,
                                   ModelFiles& files);

/// Sets base_sha256 if it is unset. Rank 0 reads all weights unless the hash is cached. Collective.
void identify_base(Session& session);

/// Whether the optimizer's state of a run on an accelerator is on the host.
bool offloads_optimizer(const Session& session);

/// What sums over the ranks of a run.
parallel::Transport transport_of(const config::RunConfig& config);
/// What they share out.
parallel::Sharded sharded_of(const config::RunConfig& config);
/// How many ranks share out the samples: those that run, or, planned by a process alone, those that
/// [slurm] requests.
int ranks_of_run(const Session& session);
/// Error if it shares out weights of an accelerator.
void check_shard(const Session& session);
/// Prints a note on rank 0 if ranks of a node hold copies of something that they could share. mine:
/// why, on this rank's node; empty if they share it. Collective.
void tell_obstacle(const Session& session, const char* of_what, const std::string& mine);
/// Error if so many ranks cannot be divided into parallel.replicas.
void check_copies(const config::ParallelOptions& parallel, std::int64_t ranks);
/// How many ranks hold one copy of it.
int ranks_of_copy(const Session& session);
/// How many ranks are on a node, counted like those of the run.
int ranks_of_node(const Session& session);
/// Whether the ranks of a copy hold what is trained once on each of their nodes.
bool holds_trained_once(const Session& session);

}  // namespace train
}  // namespace attune
