#include <attune/linear.hpp>
#include <attune/strategy.hpp>
#include <torch/torch.h>

#include <unordered_set>

namespace attune {

std::vector<NamedTensor> trainable(Model& model) {
  std::vector<NamedTensor> found;
  std::unordered_set<const void*> seen;
  for (auto& parameter : model.module().named_parameters()) {
    if (parameter.value().requires_grad() && seen.insert(parameter.value().unsafeGetTensorImpl()).second) {
      found.emplace_back(parameter.key(), parameter.value());
    }
  }
  return found;
}

std::vector<ParameterGroup> Strategy::groups(Model& model) {
  ParameterGroup matrices, vectors;
  vectors.weight_decay_scale = 0;
  for (auto& parameter : trainable(model)) (parameter.second.dim() > 1 ? matrices : vectors).parameters.push_back(std::move(parameter));
  std::vector<ParameterGroup> groups;
  for (auto* group : {&matrices, &vectors}) {
    if (!group->parameters.empty()) groups.push_back(std::move(*group));
  }
  return groups;
}

Loss Strategy::loss(Model& model, const Batch& batch) { return supervised_loss(model.features(batch), model.projection(), batch.targets); }

void Strategy::on_epoch(Model&, std::int64_t) {}

std::vector<NamedTensor> Strategy::state(Model& model) { return trainable(model); }

std::optional<Adapter> Strategy::export_adapter(Model&) { return std::nullopt; }

void Strategy::merge(Model& model) {
  for (auto& [name, linear] : nn::linears(model.module())) linear->merge_deltas();
}

}  // namespace attune
