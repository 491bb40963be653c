#include <attune/nn.hpp>
#include <attune/strategy.hpp>
#include <torch/torch.h>

#include <unordered_set>

#include "nn/rounding.hpp"

namespace attune {

std::vector<NamedTensor> trainable(Model& model) {
  std::vector<NamedTensor> found;
  std::unordered_set<const void*> seen;
  for (auto& parameter : model.module().named_parameters()) {
    if (parameter.value().requires_grad() &&
        seen.insert(parameter.value().unsafeGetTensorImpl()).second) {
      found.emplace_back(parameter.key(), parameter.value());
    }
  }
  return found;
}

std::vector<ParameterGroup> Strategy::groups(Model&, std::vector<ParameterGroup> groups) {
  return groups;
}

Loss Strategy::loss(Model& model, const ForwardContext& context, const LossFunction& inner) {
  return inner(model, context);
}

std::vector<Metric> Strategy::metrics(std::vector<Metric> inner) const {
  if (!defines_loss()) return inner;
  std::erase_if(inner, [](const Metric& metric) { return metric.needs != Needs::sums; });
  for (auto& metric : inner) {
    if (metric.name != "loss") continue;
    metric.unit = "";
    metric.doc = "mean of the strategy's loss over the targets";
  }
  return inner;
}

void Strategy::begin(Model&, RunContext&) {}

void Strategy::on_epoch(Model&, std::int64_t) {}

void Strategy::on_step(Model&, std::int64_t) {}

std::shared_ptr<BatchSource> Strategy::batches(Model&, std::shared_ptr<BatchSource> inner) {
  return inner;
}

GradientHook::~GradientHook() = default;

void Strategy::after_step(Model&, std::int64_t) {}

std::vector<NamedTensor> Strategy::state(Model&) { return {}; }

std::optional<Adapter> Strategy::export_adapter(Model&) { return std::nullopt; }

std::optional<Adapter> Strategy::adapter_to_start(Model& model) { return export_adapter(model); }

namespace {

template <class Layer>
void merge_in_float32(Layer& layer) {
  at::Tensor none;
  at::Tensor* bias = &none;
  if constexpr (requires { layer.bias; }) bias = &layer.bias;
  nn::in_float32(layer.weight, [&] { nn::in_float32(*bias, [&] { layer.merge_deltas(); }); });
}

}  // namespace

void Strategy::merge(Model& model) {
  const torch::NoGradGuard no_grad;
  const auto merge_all = [](const auto& layers) {
    for (const auto& [name, layer] : layers)
      if (!layer->deltas().empty()) merge_in_float32(*layer);
  };
  merge_all(nn::linears(model.module()));
  merge_all(nn::layers_of<nn::Conv2d>(model.module()));
  merge_all(nn::layers_of<nn::Embedding>(model.module()));
}

}  // namespace attune
