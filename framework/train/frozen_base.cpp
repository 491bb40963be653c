#include "train/frozen_base.hpp"

#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <unordered_set>

#include "nn/rounding.hpp"

namespace attune::train {
namespace {

using parallel::NodeMemory;

void hold_once(at::Tensor& frozen, NodeMemory& memory) {
  frozen.set_data(memory.place(frozen.detach(), frozen.scalar_type()));
}

/// Whether the layer computes with a copy of its frozen weight in bfloat16.
bool keeps_operand(const nn::Linear& linear) {
  return linear.rounds_operands && !linear.packed() && !linear.weight.requires_grad();
}

/// Calls use(tensor) for every tensor that is frozen and no parameter.
template <class Use>
void for_each_other(Model& model, const Use& use) {
  for (auto& buffer : model.module().buffers()) use(buffer);
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear->packed()) linear->packed()->for_each_tensor(use);
}

}  // namespace

BaseValues::BaseValues(Model& model) {
  for (const auto& item : model.module().named_parameters())
    versions_[item.key()] = parallel::version_of(item.value());
}

bool BaseValues::are_those_of(const std::string& name, const at::Tensor& parameter) const {
  const auto found = versions_.find(name);
  return found != versions_.end() && found->second == parallel::version_of(parameter);
}

bool BaseValues::are_those_of(Model& model) const {
  const auto parameters = model.module().named_parameters();
  return std::ranges::all_of(versions_, [&](const auto& version) {
    const auto* parameter = parameters.find(version.first);
    return parameter && are_those_of(version.first, *parameter);
  });
}

void hold_frozen_once(Model& model, const BaseValues& base, NodeMemory& memory) {
  const torch::NoGradGuard no_grad;
  for (auto& item : model.module().named_parameters()) {
    auto& parameter = item.value();
    if (parameter.requires_grad()) continue;
    if (!NodeMemory::holds(parameter) || !base.are_those_of(item.key(), parameter))
      hold_once(parameter, memory);
  }
  for_each_other(model, [&](at::Tensor& tensor) {
    if (!NodeMemory::holds(tensor)) hold_once(tensor, memory);
  });
  if (memory.node().size() == 1) return;  // which rounds a weight when it needs it
  for (const auto& [name, linear] : nn::linears(model.module())) {
    if (!keeps_operand(*linear)) continue;
    const auto rounded =
        memory.node().root() ? nn::rounded_evenly(linear->weight.detach()) : at::Tensor();
    linear->keep_operand(memory.place(rounded, at::kBFloat16));
  }
}

void hold_trained_apart(Model& model) {
  for (auto& parameter : model.module().parameters())
    if (parameter.requires_grad() && NodeMemory::holds(parameter))
      parameter.set_data(parameter.detach().clone());
}

namespace {

/// Bytes of the weights that `is_held` says so of; tied ones count once.
template <class IsHeld>
std::size_t bytes_of_weights(Model& model, const IsHeld& is_held) {
  std::size_t bytes = 0;
  std::unordered_set<const void*> seen;
  const auto add = [&](const at::Tensor& tensor) {
    if (is_held(tensor) && seen.insert(tensor.unsafeGetTensorImpl()).second)
      bytes += tensor.nbytes();
  };
  for (const auto& parameter : model.module().parameters()) add(parameter);
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear->packed()) linear->packed()->for_each_tensor(add);
  return bytes;
}

}  // namespace

std::size_t bytes_held_once(Model& model) {
  auto bytes = bytes_of_weights(model, &NodeMemory::holds);
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (keeps_operand(*linear) && NodeMemory::holds(linear->operand()))
      bytes += linear->operand().nbytes();
  return bytes;
}

std::size_t bytes_to_hold_once(Model& model) {
  return bytes_of_weights(model, [](const at::Tensor& weight) {
    return !weight.requires_grad() && NodeMemory::is_worth_sharing(weight.nbytes());
  });
}

}  // namespace attune::train
