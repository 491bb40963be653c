#include "train/state.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

namespace attune::train {
namespace {

std::map<std::string, at::Tensor> by_name(const Snapshot& snapshot) { return {snapshot.tensors.begin(), snapshot.tensors.end()}; }

void copy_into(const std::vector<NamedTensor>& live, const std::string& prefix, const std::map<std::string, at::Tensor>& saved) {
  torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : live) {
    const auto found = saved.find(prefix + name);
    if (found == saved.end()) fail("the checkpoint holds no '{}{}': it is of a run with another model, strategy or optimizer; start a new run under another name", prefix, name);
    if (found->second.sizes() != tensor.sizes())
      fail("the checkpoint's '{}{}' has another shape: it is of a run with other options; start a new run under another name", prefix, name);
    at::Tensor(tensor).copy_(found->second);
  }
}

/// What must be the same for a checkpoint to be gone on from.
std::string identity(const Session& session) {
  const auto& c = session.config;
  return nlohmann::json{{"model", c.model_plugin.entry->name},
                        {"strategy", c.strategy_plugin.entry->name},
                        {"optimizer", c.train.optimizer},
                        {"seed", c.run.seed},
                        {"global_batch", c.train.global_batch},
                        {"data", session.data->split("train").sha256()}}
      .dump();
}

}  // namespace

std::filesystem::path checkpoint_folder(const config::RunConfig& config) { return config.directory() / "checkpoints"; }

Snapshot take_snapshot(Session& session, const Optimizer& optimizer, const LoopState& state) {
  Snapshot snapshot;
  for (const auto& [name, tensor] : session.strategy->state(*session.model)) snapshot.tensors.emplace_back("weights/" + name, tensor.detach());
  for (const auto& [name, tensor] : optimizer.state()) snapshot.tensors.emplace_back("optimizer/" + name, tensor);
  snapshot.numbers["step"] = state.step;
  snapshot.texts["identity"] = identity(session);
  snapshot.texts["loop"] = nlohmann::json{{"seconds", state.seconds}, {"base", state.base}, {"newest", state.newest}}.dump();
  for (std::size_t i = 0; i < session.callbacks.size(); ++i)
    snapshot.texts["callback/" + session.config.callbacks[i].entry->name] = session.callbacks[i]->state();
  return snapshot;
}

void restore_weights(Session& session, const Snapshot& snapshot) { copy_into(session.strategy->state(*session.model), "weights/", by_name(snapshot)); }

LoopState restore(Session& session, Optimizer& optimizer, const Snapshot& snapshot) {
  const auto saved = nlohmann::json::parse(snapshot.texts.at("identity")), ours = nlohmann::json::parse(identity(session));
  for (const auto& [key, value] : ours.items())
    if (saved.value(key, nlohmann::json()) != value)
      fail("the checkpoint was made with another {} ({} instead of {}): set it back, or start a new run under another name", key, saved.value(key, nlohmann::json()).dump(), value.dump());
  restore_weights(session, snapshot);
  copy_into(optimizer.state(), "optimizer/", by_name(snapshot));
  for (std::size_t i = 0; i < session.callbacks.size(); ++i) {
    const auto found = snapshot.texts.find("callback/" + session.config.callbacks[i].entry->name);
    if (found != snapshot.texts.end()) session.callbacks[i]->restore(found->second);
  }
  const auto loop = nlohmann::json::parse(snapshot.texts.at("loop"));
  return {snapshot.numbers.at("step"), loop.at("seconds").get<double>(), loop.at("base").get<Metrics>(), loop.at("newest").get<Metrics>()};
}

}  // namespace attune::train
