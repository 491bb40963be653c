#include "nn/strategies.hpp"

#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <map>
#include <ranges>
#include <set>

#include "nn/peft_config.hpp"

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

/// The names that PEFT reads too: of its older versions, and of an adapter that was saved with its name.
std::string current_name(std::string name) {
  for (const auto& [old, now] : {std::pair(".lora_A.default.weight", ".lora_A.weight"), std::pair(".lora_B.default.weight", ".lora_B.weight"),
                                 std::pair(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector"), std::pair(".lora_magnitude_vector.weight", ".lora_magnitude_vector")})
    if (name.ends_with(old)) name.replace(name.size() - std::string_view(old).size(), std::string::npos, now);
  return name;
}

/// VeRA's projection, which an adapter may leave to its seed.
bool is_drawn_again(const std::string& name) { return name == "base_model.vera_A" || name == "base_model.vera_B"; }

/// Two names of one parameter (tied embeddings) have one value here, as they have to have there.
void check_tied(const std::vector<NamedTensor>& ours, const std::map<std::string, at::Tensor>& theirs, const std::string& from) {
  std::map<const void*, std::string> first;
  for (const auto& [name, tensor] : ours) {
    const auto [other, is_new] = first.emplace(tensor.unsafeGetTensorImpl(), name);
    if (is_new || at::equal(theirs.at(name), theirs.at(other->second))) continue;
    fail("{}: '{}' and '{}' differ, and are one tensor in this model, whose embeddings are tied: merge the adapter in PEFT, and start from the merged model", from, other->second, name);
  }
}

/// PEFT copies an embedding that modules_to_save names, and a head that is tied to it keeps the old values: here both are one tensor.
[[noreturn]] void refuse_without(const NamedTensor& missing, const std::vector<NamedTensor>& ours, const std::map<std::string, at::Tensor>& theirs, const std::string& from) {
  for (const auto& [name, tensor] : ours)
    if (theirs.contains(name) && tensor.is_same(missing.second))
      fail("{}: modules_to_save holds '{}' without '{}', which is tied to it in this model and stays as it was in PEFT: save both in PEFT, or merge the adapter and start from the merged model",
           from, name, missing.first);
  fail("{}: holds no '{}', which this run's adapter has: it is for another model, or for other targets", from, missing.first);
}

/// A tensor that the run's adapter does not have.
[[noreturn]] void refuse_tensor(const std::string& name, const std::string& from) {
  const auto holds = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (holds("lora_embedding_"))
    fail("{}: holds '{}', a low-rank change of an embedding, which 'lora' does not train: merge the adapter in PEFT, and start from the merged model", from, name);
  if (!holds("lora_") && name.ends_with(".weight") && (holds("embed") || holds("head") || holds(".wte.")))
    fail("{}: holds '{}' whole (save_embedding_layers, a larger vocabulary, or modules_to_save), which this run's adapter does not have: name its module in strategy.save if "
         "modules_to_save does, or else merge the adapter in PEFT, and start from the merged model",
         from, name);
  fail("{}: holds '{}', which this run's adapter does not have: it is for another model, or for other targets", from, name);
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

Strategy* Strategies::only_one_that_trains() const {
  if (std::ranges::count(trains_, true) != 1) return nullptr;
  return list_[static_cast<std::size_t>(std::ranges::find(trains_, true) - trains_.begin())].strategy.get();
}

std::optional<Adapter> Strategies::export_adapter(Model& model) {
  auto* strategy = only_one_that_trains();
  return strategy ? strategy->export_adapter(model) : std::nullopt;
}

std::optional<Adapter> Strategies::adapter_to_start(Model& model) {
  auto* strategy = only_one_that_trains();
  return strategy ? strategy->adapter_to_start(model) : std::nullopt;
}

void Strategies::load_adapter(Model& model, const Adapter& adapter, const std::string& from) {
  const auto ours = adapter_to_start(model);
  if (!ours) fail("{}: is an adapter, but this run's strategies make a whole model: choose a strategy that makes an adapter", from);
  if (!ours->is_live) fail("{}: this run's adapter is written in another form than it is trained in, and cannot start from one: change its initialisation", from);
  check_peft_config(*ours, adapter, from);
  std::map<std::string, at::Tensor> theirs;
  for (const auto& [name, tensor] : adapter.tensors) theirs[current_name(name)] = tensor;
  std::set<std::string> left;
  for (const auto& name : theirs | std::views::keys) left.insert(name);
  std::vector<NamedTensor> wanted = ours->tensors;
  std::erase_if(wanted, [&](const NamedTensor& tensor) { return is_drawn_again(tensor.first) && !theirs.contains(tensor.first); });
  for (const auto& [name, tensor] : wanted) {
    const auto found = theirs.find(name);
    if (found == theirs.end()) refuse_without({name, tensor}, wanted, theirs, from);
    if (found->second.sizes() != tensor.sizes()) fail("{}: '{}' is {}, and {} in this run: it is for another model, or has other options", from, name, c10::str(found->second.sizes()), c10::str(tensor.sizes()));
    left.erase(name);
  }
  if (!left.empty()) refuse_tensor(*left.begin(), from);
  check_tied(wanted, theirs, from);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : wanted) at::Tensor(tensor).copy_(theirs.at(name));
}

void Strategies::merge(Model& model) {
  for (const auto& [name, strategy] : list_) strategy->merge(model);
}

}  // namespace attune
