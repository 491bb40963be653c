#include "train/state.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/names.hpp"
#include "run_directory/places.hpp"

namespace attune::train {
namespace {

using parallel::Shard;

std::map<std::string, at::Tensor> by_name(const Snapshot& snapshot) {
  std::map<std::string, at::Tensor> all;
  for (const auto& whole : snapshot.tensors) all.emplace(whole.name, whole.tensor);
  return all;
}

/// Of what is saved whole, each its part.
void copy_into(const std::vector<Shard>& live, const std::string& prefix,
               const std::map<std::string, at::Tensor>& saved) {
  torch::NoGradGuard no_grad;
  for (const auto& shard : live) {
    const auto& name = shard.name;
    const auto found = saved.find(prefix + name);
    if (found == saved.end())
      fail(
          "the checkpoint has no '{}{}': it belongs to a run with a different model, strategy or "
          "optimizer; start a new run under another name",
          prefix, name);
    if (found->second.sizes() != at::IntArrayRef(shard.shape))
      fail(
          "the checkpoint's '{}{}' has a different shape: it belongs to a run with different "
          "options; start a new run under another name",
          prefix, name);
    at::Tensor(shard.tensor).copy_(shard.of_whole(found->second));
  }
}

std::vector<Shard> as_shards(const std::vector<NamedTensor>& tensors) {
  std::vector<Shard> shards;
  for (const auto& [name, tensor] : tensors) shards.emplace_back(name, tensor);
  return shards;
}

/// What a run is made of: the settings of its file by their roles, and the plugins. Another
/// "essence" makes a saved state meaningless; other "settings" make it another run.
nlohmann::json identity(const config::RunConfig& c) {
  nlohmann::json essence = nlohmann::json::object();
  nlohmann::json settings = nlohmann::json::object();
  for (const auto* chosen : {&c.model_plugin, &c.dataset_plugin, &c.optimizer, &c.schedule})
    settings["plugin of '" + chosen->entry->name + "'"] = chosen->entry->plugin;
  for (const auto& chosen : c.strategies)
    settings["plugin of '" + chosen.entry->name + "'"] = chosen.entry->plugin;
  // of the section, without those that checkpoints of earlier versions do not count
  std::size_t index = 0;
  for (const auto& [section, all] : c.effective) {
    const auto i = section == "optimizer" || section == "schedule" ? index : index++;
    const bool is_listed = section.starts_with('[');  // [[strategy]], [[callback]]: one of several
    const auto prefix = section.empty() ? ""
                        : is_listed     ? fmt::format("{} {}.", section, i)
                                        : section + ".";
    for (const auto& setting : all)
      if (setting.role != OptionRole::location)
        (setting.role == OptionRole::identity ? essence : settings)[prefix + setting.name] =
            setting.value;
  }
  return {{"essence", essence}, {"settings", settings}};
}

nlohmann::json identity(const Session& session) {
  auto whole = identity(session.config);
  whole["essence"]["base model (sha256)"] = session.base_sha256;
  whole["essence"]["training data (sha256)"] = session.data->split("train").sha256();
  whole["settings"]["validation data (sha256)"] = session.data->split("validation").sha256();
  for (const auto& [name, sha256] : session.plugin_files)
    whole["settings"]["library of '" + name + "' (sha256)"] = sha256;
  if (session.config.parallel.reproducible)
    whole["settings"]["threads per rank"] = at::get_num_threads();
  return whole;
}

/// Under which a callback's state is saved; a run may have several of one plugin.
std::string callback_key(const config::RunConfig& config, std::size_t index) {
  const auto& name = config.callbacks[index].entry->name;
  const auto earlier = std::count_if(config.callbacks.begin(),
                                     config.callbacks.begin() + static_cast<std::ptrdiff_t>(index),
                                     [&](const auto& other) { return other.entry->name == name; });
  return earlier == 0 ? "callback/" + name : fmt::format("callback/{}#{}", name, earlier + 1);
}

/// Values that JSON does not have, NaN and infinity, are null there.
Metrics metrics_of(const nlohmann::json& json) {
  Metrics metrics;
  for (const auto& [name, value] : json.items())
    metrics[name] =
        value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
  return metrics;
}

/// "train.learning_rate is 0.1 and was 0.2; ..."
std::string differences(const nlohmann::json& ours, const nlohmann::json& theirs) {
  const auto text = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  std::vector<std::string> all;
  for (const auto& [key, value] : ours.items())
    if (!theirs.contains(key))
      all.push_back(fmt::format("{} is {} and was not there", key, text(value)));
    else if (theirs[key] != value)
      all.push_back(fmt::format("{} is {} and was {}", key, text(value), text(theirs[key])));
  for (const auto& [key, value] : theirs.items())
    if (!ours.contains(key))
      all.push_back(fmt::format("{} was {} and is not there", key, text(value)));
  return joined(all, "; ");
}

/// [optimizer] or [schedule] of the identity of a checkpoint from the time when [train] held them:
/// what is not written there was as it is by default now.
void add_section(nlohmann::json& saved, const std::string& section, const Registry::Entry& entry) {
  auto& settings = saved["settings"];
  for (const auto& option : entry.schema.options) {
    const auto found = settings.find("train." + option.name);
    settings[section + "." + option.name] =
        found != settings.end() ? *found : nlohmann::json(to_toml(option, option.fallback));
  }
  settings["plugin of '" + entry.name + "'"] = entry.plugin;
}

nlohmann::json with_sections(nlohmann::json saved, const config::RunConfig& config) {
  auto& settings = saved["settings"];
  if (!settings.contains("train.optimizer")) return saved;
  saved["essence"]["optimizer.plugin"] = settings["train.optimizer"];
  settings["schedule.plugin"] = settings["train.schedule"];
  add_section(saved, "optimizer", *config.optimizer.entry);
  add_section(saved, "schedule", *config.schedule.entry);
  saved["essence"].erase("train.optimizer");
  for (const char* moved : {"optimizer", "schedule", "beta1", "beta2", "epsilon", "momentum"})
    settings.erase(fmt::format("train.{}", moved));
  return saved;
}

/// Checkpoints of earlier versions do not know the libraries.
void leave_out_unknown_libraries(nlohmann::json& ours, const nlohmann::json& saved) {
  for (auto at = ours.begin(); at != ours.end();)
    if (at.key().starts_with("library of ") && !saved.contains(at.key()))
      at = ours.erase(at);
    else
      ++at;
}

void check_identity(const Session& session, const nlohmann::json& as_saved, bool anyway) {
  auto ours = identity(session);
  const auto saved = with_sections(as_saved, session.config);
  leave_out_unknown_libraries(ours["settings"], saved.at("settings"));
  if (const auto other = differences(ours["essence"], saved.at("essence")); !other.empty())
    fail(
        "the checkpoint belongs to a run that trains something else: {}; restore these settings, "
        "or start a new run under another name",
        other);
  if (const auto other = differences(ours["settings"], saved.at("settings"));
      !other.empty() && !anyway)
    fail(
        "the checkpoint belongs to a run with different settings: {}; restore them, or give "
        "--resume-anyway to continue with the new ones",
        other);
}

}  // namespace

std::string differences_of_settings(const config::RunConfig& now, const config::RunConfig& then) {
  const auto ours = identity(now);
  const auto theirs = identity(then);
  std::vector<std::string> all;
  for (const char* part : {"essence", "settings"})
    if (auto text = differences(ours[part], theirs[part]); !text.empty())
      all.push_back(std::move(text));
  return joined(all, "; ");
}

std::filesystem::path checkpoint_folder(const config::RunConfig& config) {
  return run_directory::checkpoints(config.directory());
}

Snapshot take_snapshot(Session& session, const Updater& updater, const parallel::Sharing& sharing,
                       const LoopState& state) {
  Snapshot snapshot;
  for (const auto& [name, tensor] : session.strategies->state(*session.model))
    snapshot.tensors.emplace_back("weights/" + name, tensor.detach());
  auto& of_optimizer = updater.is_shared() ? snapshot.own : snapshot.tensors;
  if (!updater.is_shared() || sharing.is_first_copy())
    for (auto shard : updater.state()) {
      shard.name = "optimizer/" + shard.name;
      of_optimizer.push_back(std::move(shard));
    }
  snapshot.numbers["step"] = state.step;
  snapshot.numbers["micro_batch"] = state.micro_batch;
  snapshot.numbers["skipped_steps"] = state.skipped_steps;
  snapshot.numbers["samples_without_target"] = state.samples_without_target;
  snapshot.numbers["step_is_open"] = state.step_is_open;
  snapshot.numbers["step_has_begun"] = state.step_has_begun;
  snapshot.texts["least_cost"] = fmt::format("{}", state.least_cost);
  snapshot.texts["frozen"] = nlohmann::json(state.frozen).dump();
  snapshot.texts["identity"] = identity(session).dump();
  snapshot.texts["loop"] = nlohmann::json{
      {"seconds", state.seconds},
      {"base", state.base},
      {"newest", state.newest}}.dump();
  for (std::size_t i = 0; i < session.callbacks.size(); ++i)
    snapshot.texts[callback_key(session.config, i)] = session.callbacks[i]->state();
  return snapshot;
}

void restore_weights(Session& session, const Snapshot& snapshot) {
  copy_into(as_shards(session.strategies->state(*session.model)), "weights/", by_name(snapshot));
}

LoopState restore(Session& session, Updater& updater, const Snapshot& snapshot, bool anyway) {
  check_identity(session, nlohmann::json::parse(snapshot.texts.at("identity")), anyway);
  restore_weights(session, snapshot);
  const auto saved = by_name(snapshot);
  auto of_optimizer = updater.state();
  // Checkpoints of earlier versions have no masters, which then take the parameters' values.
  std::erase_if(of_optimizer, [&](const Shard& shard) {
    return shard.name.ends_with(std::string(".") + master_name) &&
           !saved.contains("optimizer/" + shard.name);
  });
  copy_into(of_optimizer, "optimizer/", saved);
  for (std::size_t i = 0; i < session.callbacks.size(); ++i) {
    const auto found = snapshot.texts.find(callback_key(session.config, i));
    if (found != snapshot.texts.end()) session.callbacks[i]->restore(found->second);
  }
  const auto loop = nlohmann::json::parse(snapshot.texts.at("loop"));
  const auto number = [&](const char* name) { return snapshot.numbers.at(name); };
  // which older checkpoints lack
  const auto without_target = snapshot.numbers.find("samples_without_target");
  LoopState state;
  state.step = number("step");
  state.seconds = loop.at("seconds").get<double>();
  state.base = metrics_of(loop.at("base"));
  state.newest = metrics_of(loop.at("newest"));
  state.micro_batch = number("micro_batch");
  state.skipped_steps = number("skipped_steps");
  state.samples_without_target =
      without_target == snapshot.numbers.end() ? 0 : without_target->second;
  state.step_is_open = number("step_is_open") != 0;
  const auto has_begun = snapshot.numbers.find("step_has_begun");  // which older checkpoints lack
  // Earlier versions had a callback for it.
  for (const char* key : {"callback/checkpoint", "least_cost"})
    if (const auto cost = snapshot.texts.find(key); cost != snapshot.texts.end())
      state.least_cost = std::stod(cost->second);
  if (const auto frozen = snapshot.texts.find("frozen"); frozen != snapshot.texts.end())
    state.frozen = nlohmann::json::parse(frozen->second).get<std::set<std::string>>();
  state.step_has_begun = has_begun != snapshot.numbers.end() && has_begun->second != 0;
  return state;
}

}  // namespace attune::train
