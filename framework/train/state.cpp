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

/// Copies what two pieces of a tensor have in common. live: in any layout if it is whole.
void copy_common(const Shard& live, const Shard& stored) {
  const auto first = std::max(live.offset, stored.offset);
  const auto count = std::min(live.end(), stored.end()) - first;
  if (count <= 0 && live.tensor.numel() > 0) return;
  if (stored.is_whole() && live.is_whole()) {
    live.tensor.detach().copy_(stored.tensor);
    return;
  }
  const auto values = stored.tensor.reshape({-1}).narrow(0, first - stored.offset, count);
  const auto row = live.tensor.detach().contiguous().view({-1});
  row.narrow(0, first - live.offset, count).copy_(values);
  if (!live.tensor.is_contiguous()) live.tensor.detach().copy_(row.view(live.tensor.sizes()));
}

/// The live pieces that a stored state is copied into, by the names it has there.
class Restoration {
 public:
  explicit Restoration(const StoredState& stored) : stored_(stored) {}

  /// Error if the state has no such tensor.
  void add(const std::vector<Shard>& live, const std::string& prefix) {
    for (const auto& shard : live) {
      const auto& name = shard.name;
      const auto found = stored_.tensors().find(prefix + name);
      if (found == stored_.tensors().end())
        fail(
            "the checkpoint has no '{}{}': it belongs to a run with a different model, strategy or "
            "optimizer; start a new run under another name",
            prefix, name);
      if (found->second.sizes() != at::IntArrayRef(shard.shape))
        fail(
            "the checkpoint's '{}{}' has a different shape: it belongs to a run with different "
            "options; start a new run under another name",
            prefix, name);
      live_[prefix + name].push_back(shard);
    }
    prefixes_.push_back(prefix);
  }

  /// Collective. Every rank has added the same prefixes.
  void run() const {
    const torch::NoGradGuard no_grad;
    stored_.read(
        [&](const std::string& name) {
          return std::ranges::any_of(
              prefixes_, [&](const std::string& prefix) { return name.starts_with(prefix); });
        },
        [&](const Shard& stored) {
          const auto found = live_.find(stored.name);
          if (found == live_.end()) return;  // another rank's
          for (const auto& live : found->second) copy_common(live, stored);
        });
  }

 private:
  const StoredState& stored_;
  std::vector<std::string> prefixes_;
  std::map<std::string, std::vector<Shard>> live_;
};

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

namespace {

constexpr const char* of_weights = "weights/";
constexpr const char* of_optimizer = "optimizer/";

/// Checkpoints of earlier versions have no masters, which then take the parameters' values.
void leave_out_unknown_masters(std::vector<Shard>& live, const StoredState& stored) {
  std::erase_if(live, [&](const Shard& shard) {
    return shard.name.ends_with(std::string(".") + master_name) &&
           !stored.tensors().contains(of_optimizer + shard.name);
  });
}

const std::string* text_of(const StoredState& stored, const std::string& name) {
  const auto found = stored.texts().find(name);
  return found == stored.texts().end() ? nullptr : &found->second;
}

/// Zero where an earlier version did not save it.
std::int64_t number_of(const StoredState& stored, const std::string& name) {
  const auto found = stored.numbers().find(name);
  return found == stored.numbers().end() ? 0 : found->second;
}

LoopState parsed_loop_state(const StoredState& stored) {
  const auto loop = nlohmann::json::parse(stored.texts().at("loop"));
  LoopState state;
  state.step = stored.numbers().at("step");
  state.seconds = loop.at("seconds").get<double>();
  state.base = metrics_of(loop.at("base"));
  state.newest = metrics_of(loop.at("newest"));
  state.micro_batch = stored.numbers().at("micro_batch");
  state.skipped_steps = stored.numbers().at("skipped_steps");
  state.samples_without_target = number_of(stored, "samples_without_target");
  state.step_is_open = stored.numbers().at("step_is_open") != 0;
  state.step_has_begun = number_of(stored, "step_has_begun") != 0;
  // Earlier versions had a callback for it.
  for (const char* key : {"callback/checkpoint", "least_cost"})
    if (const auto* cost = text_of(stored, key)) state.least_cost = std::stod(*cost);
  if (const auto* frozen = text_of(stored, "frozen"))
    state.frozen = nlohmann::json::parse(*frozen).get<std::set<std::string>>();
  return state;
}

LoopState loop_state_of(const StoredState& stored) {
  try {
    return parsed_loop_state(stored);
  } catch (const std::exception& error) {  // a missing entry, or what is no JSON or number
    fail("the checkpoint is damaged ({}): remove it, or resume from another", error.what());
  }
}

const std::string& identity_of(const StoredState& stored) {
  const auto* text = text_of(stored, "identity");
  if (!text || !nlohmann::json::accept(*text))
    fail("the checkpoint is damaged (it does not say of which run it is): resume from another");
  return *text;
}

}  // namespace

void restore_weights(Session& session, const StoredState& stored) {
  Restoration restoration(stored);
  session.mesh.world.agree(
      [&] { restoration.add(as_shards(session.strategies->state(*session.model)), of_weights); });
  restoration.run();
}

LoopState restore(Session& session, Updater& updater, const StoredState& stored, bool anyway) {
  Restoration restoration(stored);
  LoopState state;
  session.mesh.world.agree([&] {
    check_identity(session, nlohmann::json::parse(identity_of(stored)), anyway);
    state = loop_state_of(stored);
    restoration.add(as_shards(session.strategies->state(*session.model)), of_weights);
    auto optimizer = updater.state();
    leave_out_unknown_masters(optimizer, stored);
    restoration.add(optimizer, of_optimizer);
  });
  restoration.run();
  session.mesh.world.agree([&] {
    for (std::size_t i = 0; i < session.callbacks.size(); ++i)
      if (const auto* text = text_of(stored, callback_key(session.config, i)))
        session.callbacks[i]->restore(*text);
  });
  return state;
}

}  // namespace attune::train
