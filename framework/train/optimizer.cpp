#include "train/optimizer.hpp"

#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <numeric>

#include "kernels/rows.hpp"

namespace attune::train {
namespace {

/// Numbers that are looked at together: a few rows of an embedding, most of which no batch touches.
constexpr std::int64_t stretch = 1024;

/// The parameter's gradient as it lies in memory; one of zeros where no loss depends on it.
at::Tensor gradient_of(at::Tensor parameter) {
  if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
  return parameter.grad().contiguous();
}

bool serves_kernels(const at::Tensor& tensor) { return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous(); }

/// Zeros that take memory only where they are written to: before the first step there are none that need any.
at::Tensor untouched_zeros(const at::Tensor& parameter) {
  const auto bytes = parameter.nbytes();
  constexpr std::size_t worth_a_mapping = 1 << 20;
  if (!serves_kernels(parameter) || bytes < worth_a_mapping) return torch::zeros_like(parameter);
  void* zeros = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zeros == MAP_FAILED) throw std::bad_alloc();
  ::madvise(zeros, bytes, MADV_HUGEPAGE);
  return at::from_blob(zeros, parameter.sizes(), [bytes](void* begin) { ::munmap(begin, bytes); }, parameter.options().requires_grad(false));
}

/// work(index of the tensor, index of the stretch, first number, how many) for every stretch of tensors of such sizes, on all threads.
template <class Work>
void for_each_stretch(const std::vector<std::int64_t>& sizes, const Work& work) {
  std::vector<std::int64_t> ends;  // stretches up to and with each tensor
  for (const auto size : sizes) ends.push_back((ends.empty() ? 0 : ends.back()) + (size + stretch - 1) / stretch);
  at::parallel_for(0, ends.empty() ? 0 : ends.back(), 16, [&](std::int64_t at, std::int64_t end) {
    for (auto tensor = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin(); at < end; ++tensor) {
      const auto index = static_cast<std::size_t>(tensor);
      const auto begin = tensor == 0 ? 0 : ends[index - 1];
      for (; at < std::min(end, ends[index]); ++at) {
        const auto first = (at - begin) * stretch;
        work(index, static_cast<std::size_t>(at - begin), first, static_cast<std::size_t>(std::min(stretch, sizes[index] - first)));
      }
    }
  });
}

std::vector<std::int64_t> sizes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> sizes;
  for (const auto& tensor : tensors) sizes.push_back(tensor.numel());
  return sizes;
}

double sum_of_squares(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<double>> parts;
  for (const auto& tensor : tensors) parts.emplace_back(static_cast<std::size_t>((tensor.numel() + stretch - 1) / stretch));
  for_each_stretch(sizes_of(tensors), [&](std::size_t tensor, std::size_t part, std::int64_t first, std::size_t count) {
    const float* x = tensors[tensor].const_data_ptr<float>() + first;
    parts[tensor][part] = kernels::dot(x, x, count);
  });
  double sum = 0;
  for (const auto& each : parts) sum = std::accumulate(each.begin(), each.end(), sum);
  return sum;
}

}  // namespace

Optimizer::Optimizer(std::vector<ParameterGroup> groups, const config::TrainOptions& options) : options_(options), is_adamw_(options.optimizer == "adamw") {
  const auto float32 = torch::TensorOptions().dtype(torch::kFloat32);
  for (auto& given : groups) {
    Group group{{}, given.learning_rate_scale, given.weight_decay_scale * options.weight_decay};
    for (auto& [name, parameter] : given.parameters) {
      parameters_.emplace_back(name, parameter);
      Slot slot{parameter, {}, {}, {}, std::vector<Moments>(static_cast<std::size_t>((parameter.numel() + stretch - 1) / stretch))};
      if (is_adamw_ || options.momentum > 0) slot.first = untouched_zeros(parameter);
      if (is_adamw_) slot.second = untouched_zeros(parameter), slot.updates = torch::zeros({}, float32.device(parameter.device()));
      group.slots.push_back(std::move(slot));
    }
    groups_.push_back(std::move(group));
  }
}

double Optimizer::scale_and_clip(double scale, double clip) {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> here, elsewhere;
  for (const auto& [name, parameter] : parameters_) {
    auto gradient = gradient_of(parameter);
    (serves_kernels(gradient) ? here : elsewhere).push_back(std::move(gradient));
  }
  double squares = sum_of_squares(here);
  if (!elsewhere.empty()) squares += std::pow(torch::stack(at::_foreach_norm(elsewhere, 2, torch::kFloat32)).norm().item<double>(), 2);
  const double norm = scale * std::sqrt(squares);
  scale_ = clip > 0 && norm > clip ? scale * clip / norm : scale;
  return norm;
}

void Optimizer::step(double learning_rate) {
  torch::NoGradGuard no_grad;
  for (auto& group : groups_) {
    std::vector<Slot*> here, elsewhere;
    for (auto& slot : group.slots)
      if (slot.parameter.requires_grad()) (is_adamw_ && serves_kernels(slot.parameter) ? here : elsewhere).push_back(&slot);  // others a strategy has frozen for now
    const double rate = learning_rate * group.learning_rate_scale;
    if (!here.empty()) adamw(here, rate, group.weight_decay);
    if (!elsewhere.empty()) is_adamw_ ? adamw_elsewhere(elsewhere, rate, group.weight_decay) : sgd(elsewhere, rate, group.weight_decay);
  }
  scale_ = 1;
}

/// Where gradient and moments are zero, as in most rows of an embedding, nothing but the decay is left to do: exactly what the formula gives.
void Optimizer::adamw(const std::vector<Slot*>& slots, double rate, double weight_decay) const {
  std::vector<at::Tensor> gradients;
  std::vector<kernels::AdamW> updates;
  for (auto* slot : slots) {
    gradients.push_back(gradient_of(slot->parameter));
    const double count = slot->updates.add_(1).item<double>(), root = std::sqrt(1 - std::pow(options_.beta2, count));
    const auto in_float = [](double value) { return static_cast<float>(value); };
    updates.push_back({.scale = in_float(scale_), .keep = in_float(1 - rate * weight_decay), .beta1 = in_float(options_.beta1), .beta2 = in_float(options_.beta2),
                       .rest1 = in_float(1 - options_.beta1), .rest2 = in_float(1 - options_.beta2), .rate = in_float(rate / (1 - std::pow(options_.beta1, count))),
                       .root = in_float(1 / root), .epsilon = in_float(options_.epsilon)});
  }
  for_each_stretch(sizes_of(gradients), [&](std::size_t index, std::size_t part, std::int64_t from, std::size_t count) {
    auto& slot = *slots[index];
    const float* gradient = gradients[index].const_data_ptr<float>() + from;
    float *parameter = slot.parameter.data_ptr<float>() + from, *first = slot.first.data_ptr<float>() + from, *second = slot.second.data_ptr<float>() + from;
    auto& moments = slot.moments[part];
    if (moments != Moments::moving && kernels::is_zero(gradient, count)) {
      if (moments == Moments::unknown) moments = kernels::is_zero(first, count) && kernels::is_zero(second, count) ? Moments::zero : Moments::moving;
      if (moments == Moments::zero) return kernels::scale(parameter, updates[index].keep, count);
    }
    moments = Moments::moving;
    kernels::adamw(updates[index], gradient, parameter, first, second, count);
  });
}

namespace {

struct Lists {
  std::vector<at::Tensor> parameters, gradients, first, second, updates;
};

template <class Slots>
Lists lists_of(const Slots& slots, double scale) {
  Lists lists;
  for (auto* slot : slots) {
    lists.parameters.push_back(slot->parameter);
    lists.gradients.push_back(gradient_of(slot->parameter));
    if (slot->first.defined()) lists.first.push_back(slot->first);
    if (slot->second.defined()) lists.second.push_back(slot->second), lists.updates.push_back(slot->updates);
  }
  if (scale != 1) at::_foreach_mul_(lists.gradients, scale);
  return lists;
}

}  // namespace

void Optimizer::adamw_elsewhere(const std::vector<Slot*>& slots, double rate, double weight_decay) const {
  const auto lists = lists_of(slots, scale_);
  at::_foreach_add_(lists.updates, 1);
  at::_fused_adamw_(lists.parameters, lists.gradients, lists.first, lists.second, {}, lists.updates, rate, options_.beta1, options_.beta2, weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
}

void Optimizer::sgd(const std::vector<Slot*>& slots, double rate, double weight_decay) const {
  const auto lists = lists_of(slots, scale_);
  if (weight_decay > 0) at::_foreach_mul_(lists.parameters, 1 - rate * weight_decay);
  if (options_.momentum > 0) {
    at::_foreach_mul_(lists.first, options_.momentum);
    at::_foreach_add_(lists.first, lists.gradients);
  }
  at::_foreach_add_(lists.parameters, options_.momentum > 0 ? lists.first : lists.gradients, -rate);
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all;
  auto name = parameters_.begin();
  for (const auto& group : groups_)
    for (const auto& slot : group.slots) {
      const auto& of = name++->first;
      if (slot.first.defined()) all.emplace_back(of + (is_adamw_ ? ".exp_avg" : ".momentum"), slot.first);
      if (!is_adamw_) continue;
      all.emplace_back(of + ".exp_avg_sq", slot.second);
      all.emplace_back(of + ".step", slot.updates);
    }
  return all;
}

}  // namespace attune::train
