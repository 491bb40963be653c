#include "train/updater.hpp"

#include <sys/mman.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <new>
#include <numeric>

#include "kernels/rows.hpp"
#include "train/stretches.hpp"

namespace attune {

std::vector<at::Tensor> scaled_gradients(const std::vector<ParameterUpdate>& parameters,
                                         const UpdateRates& rates) {
  std::vector<at::Tensor> gradients;
  for (const auto& each : parameters) gradients.push_back(each.gradient);
  if (rates.gradient_scale != 1 && !gradients.empty())
    at::_foreach_mul_(gradients, rates.gradient_scale);
  return gradients;
}

namespace train {
namespace {

/// In memory as the parameter; one of zeros where no loss depends on it.
at::Tensor gradient_of(at::Tensor parameter) {
  if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
  const auto& gradient = parameter.grad();
  return gradient.strides() == parameter.strides() ? gradient
                                                   : torch::empty_like(parameter).copy_(gradient);
}

/// Zeros that take memory only where they are written to: before the first step there are none that
/// need any.
at::Tensor untouched_zeros(const at::Tensor& parameter) {
  const auto bytes = parameter.nbytes();
  constexpr std::size_t worth_a_mapping = 1 << 20;
  if (!serves_kernels(parameter) || bytes < worth_a_mapping) return torch::zeros_like(parameter);
  void* zeros = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zeros == MAP_FAILED) throw std::bad_alloc();
  ::madvise(zeros, bytes, MADV_HUGEPAGE);
  const auto unmap = [bytes](void* begin) { ::munmap(begin, bytes); };
  return at::from_blob(zeros, parameter.sizes(), unmap, parameter.options().requires_grad(false));
}

at::Tensor make_state(const StateSpec& spec, const at::Tensor& parameter) {
  if (parameter.sizes() == at::IntArrayRef(spec.sizes) && parameter.scalar_type() == spec.dtype)
    return untouched_zeros(parameter.detach());
  return torch::zeros(spec.sizes, parameter.options().dtype(spec.dtype).requires_grad(false));
}

double sum_of_squares(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<double>> parts;
  std::vector<std::int64_t> sizes;
  for (const auto& tensor : tensors) {
    parts.emplace_back(stretches_of(tensor.numel()));
    sizes.push_back(tensor.numel());
  }
  for_each_stretch(
      sizes, [&](std::size_t tensor, std::size_t part, std::int64_t first, std::size_t count) {
        const float* x = tensors[tensor].const_data_ptr<float>() + first;
        parts[tensor][part] = kernels::dot(x, x, count);
      });
  double sum = 0;
  for (const auto& each : parts) sum = std::accumulate(each.begin(), each.end(), sum);
  return sum;
}

ParameterSpec spec_of(const NamedTensor& parameter,
                      const std::vector<std::string>& block_prefixes) {
  const auto& [name, tensor] = parameter;
  const bool in_block = std::ranges::any_of(
      block_prefixes, [&](const std::string& prefix) { return name.starts_with(prefix); });
  return {name, tensor.sizes().vec(), tensor.scalar_type(), in_block};
}

}  // namespace

std::vector<std::string> block_prefixes(const Model& model) {
  std::vector<std::string> prefixes;
  for (std::int64_t block = 0; block < model.spec().depth; ++block)
    prefixes.push_back(model.block_name(block));
  return prefixes;
}

std::vector<ParameterSpec> trained_specs(Model& model) {
  const auto prefixes = block_prefixes(model);
  std::vector<ParameterSpec> specs;
  for (const auto& parameter : trainable(model)) specs.push_back(spec_of(parameter, prefixes));
  return specs;
}

std::size_t state_bytes(const Optimizer& optimizer, const std::vector<ParameterSpec>& parameters) {
  std::size_t bytes = 0;
  for (const auto& parameter : parameters)
    for (const auto& kept : optimizer.state(parameter)) {
      const auto numbers = std::accumulate(kept.sizes.begin(), kept.sizes.end(), std::int64_t{1},
                                           std::multiplies<>());
      bytes += static_cast<std::size_t>(numbers) * c10::elementSize(kept.dtype);
    }
  return bytes;
}

double clipped(double scale, double norm, double clip) {
  return clip > 0 && norm > clip ? scale * clip / norm : scale;
}

Updater make_updater(const Session& session) {
  const auto& config = session.config;
  return {config.optimizer.build<Optimizer>(), session.strategies->groups(*session.model),
          config.train.weight_decay, block_prefixes(*session.model)};
}

Updater::Updater(std::shared_ptr<Optimizer> optimizer, std::vector<ParameterGroup> groups,
                 double weight_decay, const std::vector<std::string>& block_prefixes)
    : optimizer_(std::move(optimizer)) {
  for (auto& given : groups) {
    Group group{{}, given.learning_rate_scale, given.weight_decay_scale * weight_decay};
    for (const auto& parameter : given.parameters) {
      parameters_.push_back(parameter);
      Slot slot{spec_of(parameter, block_prefixes), parameter.second, {}, {}};
      for (const auto& kept : optimizer_->state(slot.spec)) {
        slot.state.push_back(make_state(kept, parameter.second));
        slot.state_names.push_back(parameter.first + "." + kept.name);
      }
      group.slots.push_back(std::move(slot));
    }
    groups_.push_back(std::move(group));
  }
}

double Updater::gradient_norm() const {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  std::vector<at::Tensor> elsewhere;
  for (const auto& [name, parameter] : parameters_) {
    auto gradient = gradient_of(parameter);
    (serves_kernels(gradient) ? rows : elsewhere).push_back(std::move(gradient));
  }
  double squares = sum_of_squares(rows);
  if (!elsewhere.empty())
    squares += std::pow(
        torch::stack(at::_foreach_norm(elsewhere, 2, torch::kFloat32)).norm().item<double>(), 2);
  return std::sqrt(squares);
}

void Updater::step(double learning_rate, double gradient_scale) {
  torch::NoGradGuard no_grad;
  for (auto& group : groups_) {
    std::vector<ParameterUpdate> updates;
    for (const auto& slot : group.slots)
      if (slot.parameter.requires_grad())  // others a strategy has frozen for now
        updates.push_back({slot.spec, slot.parameter, gradient_of(slot.parameter), slot.state});
    if (!updates.empty())
      optimizer_->update(
          updates, {learning_rate * group.learning_rate_scale, group.weight_decay, gradient_scale});
  }
}

std::vector<NamedTensor> Updater::state() const {
  std::vector<NamedTensor> all;
  for (const auto& group : groups_)
    for (const auto& slot : group.slots)
      for (std::size_t i = 0; i < slot.state.size(); ++i)
        all.emplace_back(slot.state_names[i], slot.state[i]);
  return all;
}

}  // namespace train
}  // namespace attune
