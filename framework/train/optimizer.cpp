#include "train/optimizer.hpp"

#include <torch/torch.h>

#include <algorithm>

namespace attune::train {

Optimizer::Optimizer(std::vector<ParameterGroup> groups, const config::TrainOptions& options)
    : options_(options), adamw_(options.optimizer == "adamw") {
  const auto float32 = torch::TensorOptions().dtype(torch::kFloat32);
  for (auto& given : groups) {
    Group group{{}, {}, {}, {}, given.learning_rate_scale, given.weight_decay_scale * options.weight_decay};
    for (auto& [name, parameter] : given.parameters) {
      parameters_.emplace_back(name, parameter);
      group.parameters.push_back(parameter);
      if (adamw_ || options.momentum > 0) group.first.push_back(torch::zeros_like(parameter));
      if (adamw_) {
        group.second.push_back(torch::zeros_like(parameter));
        group.steps.push_back(torch::zeros({}, float32.device(parameter.device())));
      }
    }
    if (!group.parameters.empty()) groups_.push_back(std::move(group));
  }
}

std::vector<at::Tensor> Optimizer::gradients(const std::vector<at::Tensor>& parameters) const {
  std::vector<at::Tensor> all;
  for (auto parameter : parameters) {
    if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
    all.push_back(parameter.grad());
  }
  return all;
}

double Optimizer::scale_and_clip(double scale, double clip) {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> all;
  for (const auto& group : groups_)
    for (auto& gradient : gradients(group.parameters)) all.push_back(gradient);
  const double norm = scale * torch::stack(at::_foreach_norm(all, 2, torch::kFloat32)).norm().item<double>();
  at::_foreach_mul_(all, clip > 0 && norm > clip ? scale * clip / norm : scale);
  return norm;
}

/// The group without what a strategy has frozen for now.
Optimizer::Group Optimizer::active(const Group& group) {
  if (std::all_of(group.parameters.begin(), group.parameters.end(), [](const auto& p) { return p.requires_grad(); })) return group;
  Group part{{}, {}, {}, {}, group.learning_rate_scale, group.weight_decay};
  for (std::size_t i = 0; i < group.parameters.size(); ++i) {
    if (!group.parameters[i].requires_grad()) continue;
    part.parameters.push_back(group.parameters[i]);
    if (!group.first.empty()) part.first.push_back(group.first[i]);
    if (!group.second.empty()) part.second.push_back(group.second[i]), part.steps.push_back(group.steps[i]);
  }
  return part;
}

void Optimizer::step(double learning_rate) {
  torch::NoGradGuard no_grad;
  for (const auto& whole : groups_) {
    auto group = active(whole);
    if (group.parameters.empty()) continue;
    const auto grads = gradients(group.parameters);
    const double rate = learning_rate * group.learning_rate_scale;
    if (adamw_) {
      at::_foreach_add_(group.steps, 1);
      at::_fused_adamw_(group.parameters, grads, group.first, group.second, {}, group.steps, rate, options_.beta1, options_.beta2,
                        group.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
    } else {
      if (group.weight_decay > 0) at::_foreach_mul_(group.parameters, 1 - rate * group.weight_decay);
      if (options_.momentum > 0) {
        at::_foreach_mul_(group.first, options_.momentum);
        at::_foreach_add_(group.first, grads);
      }
      at::_foreach_add_(group.parameters, options_.momentum > 0 ? at::TensorList(group.first) : at::TensorList(grads), -rate);
    }
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all;
  auto name = parameters_.begin();
  for (const auto& group : groups_)
    for (std::size_t i = 0; i < group.parameters.size(); ++i, ++name) {
      if (!group.first.empty()) all.emplace_back(name->first + (adamw_ ? ".exp_avg" : ".momentum"), group.first[i]);
      if (!adamw_) continue;
      all.emplace_back(name->first + ".exp_avg_sq", group.second[i]);
      all.emplace_back(name->first + ".step", group.steps[i]);
    }
  return all;
}

}  // namespace attune::train
