#include "nn/strategies.hpp"

#include <attune/error.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <map>
#include <ranges>
#include <set>

#include "core/names.hpp"

namespace attune {
namespace {

void set_trainable(const std::vector<NamedTensor>& parameters, bool is_trained) {
  for (const auto& [name, parameter] : parameters) parameter.set_requires_grad(is_trained);
}

std::vector<NamedTensor> all_parameters(Model& model) {
  std::vector<NamedTensor> all;
  for (auto& parameter : model.module().named_parameters()) all.emplace_back(parameter.key(), parameter.value());
  return all;
}

/// What decides about an adapter's meaning; the rest of adapter_config.json describes it, or shows in its tensors' names and shapes.
nlohmann::json decisive(const std::string& config) {
  auto json = nlohmann::json::parse(config);
  for (const char* key : {"base_model_name_or_path", "encoder_hidden_size", "inference_mode", "lora_dropout", "modules_to_save", "num_attention_heads", "num_layers", "projection_prng_key",
                          "prompt_tuning_init", "rank_pattern", "revision", "target_modules", "task_type", "vera_dropout"})
    json.erase(key);
  return json;
}

void check_options(const Adapter& ours, const Adapter& theirs, const std::string& from) {
  const auto mine = decisive(ours.config), other = decisive(theirs.config);
  std::vector<std::string> differ;
  for (const auto& [key, value] : mine.items())
    if (other.contains(key) && other[key] != value && !(value.is_null() && other[key].empty())) differ.push_back(fmt::format("{} is {} there and {} here", key, other[key].dump(), value.dump()));
  if (!differ.empty()) fail("{}: is an adapter with other options: {}; set [strategy] to match", from, joined(differ, "; "));
}

}  // namespace

void Strategies::check_losses() const {
  const Named* first = nullptr;
  for (const auto& named : list_) {
    if (!named.strategy->defines_loss()) continue;
    if (first) fail("strategies '{}' and '{}' both define the loss: keep one of them", first->name, named.name);
    first = &named;
  }
}

void Strategies::prepare(Model& model) {
  check_losses();
  std::map<std::string, std::string> owner;
  set_trainable(all_parameters(model), false);
  for (const auto& [name, strategy] : list_) {
    strategy->prepare(model);
    const auto own = trainable(model);
    for (const auto& [parameter, tensor] : own) {
      const auto [first, is_new] = owner.emplace(parameter, name);
      if (!is_new) fail("strategies '{}' and '{}' both train {}: take it out of one of them", first->second, name, parameter);
    }
    trains_.push_back(!own.empty());
    set_trainable(own, false);  // so that the next one shows what it adds
  }
  auto gone = owner;
  for (const auto& parameter : all_parameters(model))
    if (gone.erase(parameter.first) > 0) parameter.second.set_requires_grad(true);
  if (!gone.empty()) fail("strategy '{}' trains {}, which another strategy has put away: a packed weight cannot be trained", gone.begin()->second, gone.begin()->first);
  trained_ = trainable(model);
  if (!trained_.empty()) return;
  if (list_.size() == 1)
    fail("strategy '{}' leaves no parameter to train: check its options; if it only changes the loss or the learning rates, list it as [[strategy]] after one that trains, such as 'lora' or 'full'", list_[0].name);
  fail("the strategies leave no parameter to train: list one that trains, such as 'lora' or 'full'");
}

void Strategies::begin(Model& model, Surroundings& run) {
  for (const auto& [name, strategy] : list_) strategy->begin(model, run);
}

void Strategies::on_epoch(Model& model, std::int64_t epoch) {
  for (const auto& [name, strategy] : list_) strategy->on_epoch(model, epoch);
}

void Strategies::on_step(Model& model, std::int64_t step) {
  for (const auto& [name, strategy] : list_) strategy->on_step(model, step);
}

std::vector<ParameterGroup> Strategies::groups(Model& model) {
  ParameterGroup matrices, vectors;
  vectors.weight_decay_scale = 0;
  for (const auto& parameter : trained_) (parameter.second.dim() > 1 ? matrices : vectors).parameters.push_back(parameter);
  std::vector<ParameterGroup> groups;
  for (auto* group : {&matrices, &vectors})
    if (!group->parameters.empty()) groups.push_back(std::move(*group));
  for (const auto& [name, strategy] : list_) groups = strategy->groups(model, std::move(groups));
  return groups;
}

Loss Strategies::loss(Model& model, const Batch& batch) {
  LossFunction loss = [](Model& m, const Batch& b) { return supervised_loss(m.features(b), m.projection(), b.targets); };
  for (const auto& [name, strategy] : list_)
    loss = [inner = std::move(loss), &outer = *strategy](Model& m, const Batch& b) { return outer.loss(m, b, inner); };
  return loss(model, batch);
}

std::vector<NamedTensor> Strategies::state(Model& model) {
  auto state = trained_;
  for (const auto& [name, strategy] : list_)
    for (auto& [key, tensor] : strategy->state(model)) state.emplace_back(name + "/" + key, std::move(tensor));
  return state;
}

std::optional<Adapter> Strategies::export_adapter(Model& model) {
  if (std::ranges::count(trains_, true) != 1) return std::nullopt;
  const auto training = std::ranges::find(trains_, true) - trains_.begin();
  return list_[static_cast<std::size_t>(training)].strategy->export_adapter(model);
}

void Strategies::load_adapter(Model& model, const Adapter& adapter, const std::string& from) {
  const auto ours = export_adapter(model);
  if (!ours) fail("{}: is an adapter, but this run's strategies make a whole model: choose a strategy that makes an adapter", from);
  if (!ours->is_live) fail("{}: this run's adapter is written in another form than it is trained in, and cannot start from one: change its initialisation", from);
  check_options(*ours, adapter, from);
  const std::map<std::string, at::Tensor> theirs(adapter.tensors.begin(), adapter.tensors.end());
  std::set<std::string> left;
  for (const auto& name : theirs | std::views::keys) left.insert(name);
  std::map<const void*, std::string> copied;
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : ours->tensors) {
    const auto found = theirs.find(name);
    if (found == theirs.end()) fail("{}: holds no '{}', which this run's adapter has: it is for another model, or for other targets", from, name);
    if (found->second.sizes() != tensor.sizes()) fail("{}: '{}' is {}, and {} in this run: it is for another model, or has other options", from, name, c10::str(found->second.sizes()), c10::str(tensor.sizes()));
    const auto [first, is_new] = copied.emplace(tensor.unsafeGetTensorImpl(), name);
    if (!is_new && !at::equal(theirs.at(first->second), found->second))
      fail("{}: holds different '{}' and '{}', which are one tensor in this model: untie its head, or take an adapter trained with them tied", from,
           first->second, name);
    at::Tensor(tensor).copy_(found->second);
    left.erase(name);
  }
  if (!left.empty()) fail("{}: holds '{}', which this run's adapter does not have: it is for another model, or for other targets", from, *left.begin());
}

void Strategies::merge(Model& model) {
  for (const auto& [name, strategy] : list_) strategy->merge(model);
}

}  // namespace attune
