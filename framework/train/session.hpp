// Everything a run is made of, built from its run file in the order of the data's way.
#pragma once
#include <attune/callback.hpp>
#include <attune/comm.hpp>
#include <attune/dataset.hpp>
#include <c10/core/Device.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <vector>

#include "config/run_config.hpp"
#include "data/store.hpp"
#include "nn/strategies.hpp"

namespace attune {

struct ModelFiles;

namespace train {

struct Session {
  config::RunConfig config;
  Comm comm;
  c10::Device device = c10::kCPU;
  std::shared_ptr<ModelFiles> files;     // weights and tokenizer on rank 0 alone
  std::string base_sha256;               // of the base model's weights; see identify_base
  std::shared_ptr<DataFile> data;
  std::shared_ptr<Dataset> dataset;
  std::shared_ptr<Model> model;
  std::shared_ptr<Strategies> strategies;  // have prepared the model
  std::vector<std::shared_ptr<Callback>> callbacks;
  /// Called on rank 0 before a checkpoint: whether the run's directory was lost, and has been made again. Error when another run has it.
  std::function<bool()> restore_directory;
  /// Called on rank 0 once nothing is refused any more: what the directory says of the run is written then, and not before.
  std::function<void()> begins;

  /// Collective. Errors: whatever the parts refuse; a tokenizer that does not fit model or data; data of another kind; samples longer
  /// than the model's context; a strategy that leaves nothing trainable.
  static Session open(const config::RunConfig& config, const Comm& comm);
};

/// A run file (or the run.toml or record.json of a run directory) read with the plugins it names. Collective: rank 0 reads, all check.
struct OpenedRun {
  config::RunConfig config;
  std::shared_ptr<Registry> registry;
};
OpenedRun open_run(const std::filesystem::path& file, const std::vector<std::string>& overrides, const Comm& comm);

/// Rank 0 opens the model; the others learn its config. Collective.
std::shared_ptr<ModelFiles> open_model_files(const std::string& path, const Comm& comm);
/// On the session's device and in its dtype; takes the files' weights. Collective.
std::shared_ptr<Model> build_model(const Session& session, const config::Chosen& plugin, ModelFiles& files);

/// Sets base_sha256, unless it is: reads all weights on rank 0. Collective.
void identify_base(Session& session);

}  // namespace train
}  // namespace attune
