#include "train/updater.hpp"

#include <sys/mman.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <map>
#include <new>
#include <numeric>

#include "device/device.hpp"
#include "device/stream.hpp"
#include "kernels/rows.hpp"
#include "nn/rounding.hpp"
#include "parallel/mpi.hpp"
#include "parallel/wide_gradients.hpp"
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

/// Zeros that take memory only where they are written to: before the first step there are none that
/// need any.
at::Tensor untouched_zeros(const at::Tensor& like, at::ScalarType dtype) {
  const auto bytes = static_cast<std::size_t>(like.numel()) * c10::elementSize(dtype);
  const auto options = like.options().dtype(dtype).requires_grad(false);
  constexpr std::size_t worth_a_mapping = 1 << 20;
  if (!like.is_cpu() || !like.is_contiguous() || bytes < worth_a_mapping)
    return torch::zeros_like(like, options);
  void* zeros = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zeros == MAP_FAILED) throw std::bad_alloc();
  ::madvise(zeros, bytes, MADV_HUGEPAGE);
  const auto unmap = [bytes](void* begin) { ::munmap(begin, bytes); };
  return at::from_blob(zeros, like.sizes(), unmap, options);
}

/// parameter: or the part of it that is updated.
at::Tensor make_state(const StateSpec& spec, const at::Tensor& parameter) {
  if (parameter.sizes() == at::IntArrayRef(spec.sizes))
    return untouched_zeros(parameter.detach(), spec.dtype);
  const bool is_number = spec.sizes.empty() && parameter.dim() > 0;
  const auto device = is_number ? c10::Device(c10::kCPU) : parameter.device();
  return torch::zeros(spec.sizes, at::TensorOptions().dtype(spec.dtype).device(device));
}

/// Sums of squares of each tensor's stretches.
std::vector<std::vector<double>> squares_by_stretch(const std::vector<at::Tensor>& tensors) {
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
  return parts;
}

/// As an optimizer sees the parameter: of its master, if it has one.
ParameterSpec spec_of(const std::string& name, const at::Tensor& tensor, at::ScalarType dtype,
                      const std::vector<std::string>& block_prefixes) {
  const bool in_block = std::ranges::any_of(
      block_prefixes, [&](const std::string& prefix) { return name.starts_with(prefix); });
  return {name, tensor.sizes().vec(), dtype, in_block};
}

std::vector<NamedTensor> parameters_of(const std::vector<ParameterGroup>& groups) {
  std::vector<NamedTensor> all;
  for (const auto& group : groups)
    all.insert(all.end(), group.parameters.begin(), group.parameters.end());
  return all;
}

/// The group of each parameter.
std::vector<std::size_t> groups_by_parameter(const std::vector<NamedTensor>& parameters,
                                             const std::vector<ParameterGroup>& groups) {
  std::map<const void*, std::size_t> by_tensor;
  for (std::size_t group = 0; group < groups.size(); ++group)
    for (const auto& [name, tensor] : groups[group].parameters)
      by_tensor[tensor.unsafeGetTensorImpl()] = group;
  std::vector<std::size_t> found;
  for (const auto& [name, tensor] : parameters)
    found.push_back(by_tensor.at(tensor.unsafeGetTensorImpl()));
  return found;
}

parallel::ShardPlan::Cut cut_for(const Optimizer& optimizer) {
  return optimizer.is_elementwise() ? parallel::ShardPlan::Cut::anywhere
                                    : parallel::ShardPlan::Cut::between_tensors;
}

}  // namespace

std::vector<std::string> block_prefixes(const Model& model) {
  std::vector<std::string> prefixes;
  for (std::int64_t block = 0; block < model.spec().depth; ++block)
    prefixes.push_back(model.block_name(block));
  return prefixes;
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

std::size_t state_bytes(const Optimizer& optimizer, Model& model) {
  const auto prefixes = block_prefixes(model);
  std::vector<ParameterSpec> specs;
  std::size_t masters = 0;
  for (const auto& [name, tensor] : trainable(model)) {
    specs.push_back(spec_of(name, tensor, parallel::gradient_dtype(tensor), prefixes));
    if (parallel::has_wide_gradient(tensor)) masters += parallel::gradient_bytes(tensor);
  }
  return masters + state_bytes(optimizer, specs);
}

parallel::ShardPlan shard_plan(const Optimizer& optimizer,
                               const std::vector<NamedTensor>& parameters, int ranks) {
  return {parameters, ranks, cut_for(optimizer), parallel::buckets_of(parameters)};
}

ShardBytes shard_bytes(const Optimizer& optimizer, const std::vector<NamedTensor>& parameters,
                       const std::vector<std::string>& block_prefixes,
                       const parallel::ShardPlan& plan) {
  ShardBytes most;
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    ShardBytes bytes;
    for (const auto& range : plan.of_rank(rank)) {
      const auto& [name, parameter] = parameters[range.tensor];
      const auto dtype = parallel::gradient_dtype(parameter);
      auto spec = spec_of(name, parameter, dtype, block_prefixes);
      if (range.count < parameter.numel()) spec.sizes = {range.count};
      const auto gradient = static_cast<std::size_t>(range.count) * c10::elementSize(dtype);
      bytes.gradients += gradient;
      bytes.state += state_bytes(optimizer, {spec});
      if (parallel::has_wide_gradient(parameter)) bytes.state += gradient;  // the master
    }
    most.state = std::max(most.state, bytes.state);
    most.gradients = std::max(most.gradients, bytes.gradients);
  }
  return most;
}

double clipped(double scale, double norm, double clip) {
  return clip > 0 && norm > clip ? scale * clip / norm : scale;
}

Updater::StateOn state_on(const Session& session) {
  return offloads_optimizer(session) ? Updater::StateOn::host : Updater::StateOn::same_device;
}

Updater make_updater(const Session& session, const parallel::RankGroup& sharing) {
  const auto& config = session.config;
  return {config.optimizer.build<Optimizer>(),
          session.strategies->trained(),
          session.strategies->groups(*session.model),
          config.train.weight_decay,
          block_prefixes(*session.model),
          sharing,
          state_on(session)};
}

Updater::Updater(std::shared_ptr<Optimizer> optimizer, std::vector<NamedTensor> parameters,
                 const std::vector<ParameterGroup>& groups, double weight_decay,
                 const std::vector<std::string>& block_prefixes, parallel::RankGroup sharing,
                 StateOn state_on)
    : optimizer_(std::move(optimizer)),
      state_on_(state_on),
      sharing_(std::move(sharing)),
      parameters_(std::move(parameters)),
      plan_(shard_plan(*optimizer_, parameters_, sharing_.comm.size())) {
  for (const auto& group : groups)
    groups_.push_back({group.learning_rate_scale, group.weight_decay_scale * weight_decay});
  const auto group_of = groups_by_parameter(parameters_, groups);
  for (const auto& range : plan_.of_rank(sharing_.comm.rank()))
    slots_.push_back(make_slot(range, group_of[range.tensor], block_prefixes));
}

Updater::Updater(std::shared_ptr<Optimizer> optimizer, const std::vector<ParameterGroup>& groups,
                 double weight_decay, const std::vector<std::string>& block_prefixes,
                 StateOn state_on)
    : Updater(std::move(optimizer), parameters_of(groups), groups, weight_decay, block_prefixes, {},
              state_on) {}

Updater::Slot Updater::make_slot(const parallel::ShardPlan::Range& range, std::size_t group,
                                 const std::vector<std::string>& block_prefixes) const {
  const auto& [name, parameter] = parameters_[range.tensor];
  const auto part = part_of(range);
  const auto dtype = parallel::gradient_dtype(parameter);
  const auto spec = spec_of(name, part.tensor, dtype, block_prefixes);
  Slot slot{spec, range, group, {}, {}, {}};
  if (state_on_ == StateOn::host)
    slot.on_host = {device::pinned_like(part.tensor), device::pinned_like(part.tensor, dtype)};
  const at::Tensor& like = slot.on_host ? slot.on_host->part : part.tensor;
  const auto kept_state = [&](const StateSpec& kept) {
    parallel::Shard state(name + "." + kept.name, make_state(kept, like));
    if (!part.is_whole() && kept.sizes == slot.spec.sizes) {
      state.shape = part.shape;
      state.offset = part.offset;
    }
    return state;
  };
  if (parallel::has_wide_gradient(parameter))
    slot.master = kept_state({master_name, slot.spec.sizes, dtype});
  for (const auto& kept : optimizer_->state(slot.spec)) {
    if (kept.name == master_name)
      fail("an optimizer's state may not be named '{}', as masters are in checkpoints", kept.name);
    slot.state.push_back(kept_state(kept));
  }
  return slot;
}

parallel::Shard Updater::part_of(const parallel::ShardPlan::Range& range) const {
  const auto& [name, parameter] = parameters_[range.tensor];
  return parallel::Shard::of(name, parameter, range.first, range.count);
}

std::string Updater::hold_once_per_node(const Comm& node) {
  memory_ = std::make_unique<parallel::NodeParameters>(parameters_, sharing_.comm, node);
  return memory_->obstacle();
}

void Updater::check_unchanged() const {
  if (memory_) memory_->check_unchanged();
}

void Updater::accept_values() {
  if (memory_) memory_->accept();
}

std::vector<parallel::Shard> Updater::gradients() const {
  return parallel::gradient_shards(parameters_, plan_, sharing_.comm.rank());
}

void Updater::spread(const std::vector<parallel::Shard>& gradients) {
  if (!is_shared()) return;  // they are the whole ones
  const torch::NoGradGuard no_grad;
  std::vector<NamedTensor> whole;
  for (const auto& [name, parameter] : parameters_)
    whole.emplace_back(name, parallel::zero_gradient(parameter));
  for (std::size_t i = 0; i < gradients.size(); ++i)
    gradients[i].of_whole(whole[slots_[i].range.tensor].second).copy_(gradients[i].tensor);
  parallel::gather_shards(whole, plan_, sharing_);
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    at::Tensor(parameters_[i].second).mutable_grad() = whole[i].second;
}

double Updater::norm_of(const std::vector<parallel::Shard>& gradients) const {
  device::Readings readings;
  auto squares = start_norm(gradients, readings);
  readings.read();
  return finish_norm(std::move(squares), readings);
}

Updater::Squares Updater::start_norm(const std::vector<parallel::Shard>& gradients,
                                     device::Readings& readings) {
  const torch::NoGradGuard no_grad;
  Squares squares{std::vector<std::vector<double>>(gradients.size()), {}};
  std::vector<at::Tensor> near;
  std::vector<at::Tensor> far;
  std::vector<std::size_t> near_places;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const auto& gradient = gradients[i].tensor;
    if (serves_kernels(gradient)) {
      near_places.push_back(i);
      near.push_back(gradient);
    } else {
      squares.norms.emplace_back(i, far.size());
      far.push_back(gradient);
    }
  }
  auto of_near = squares_by_stretch(near);
  for (std::size_t i = 0; i < near.size(); ++i)
    squares.on_host[near_places[i]] = std::move(of_near[i]);
  if (far.empty()) return squares;
  const auto first = readings.add(torch::stack(at::_foreach_norm(far, 2, torch::kFloat32)));
  for (auto& [tensor, place] : squares.norms) place += first;
  return squares;
}

/// Pieces on devices are one number each.
bool Updater::has_stretches(std::size_t parameter) const {
  return plan_.is_cut(parameter) && parameters_[parameter].second.is_cpu();
}

/// Each parameter's squares are summed in the order of its numbers, and the sums in the order of
/// the parameters. Of a parameter in host memory that is cut, every rank gives the stretches it
/// has; adding zeros for those of others is exact.
double Updater::finish_norm(Squares given, const device::Readings& readings) const {
  auto& mine = given.on_host;
  for (const auto& [tensor, place] : given.norms) mine[tensor] = {std::pow(readings[place], 2)};
  std::vector<std::vector<double>> squares;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    squares.emplace_back(has_stretches(i) ? stretches_of(parameters_[i].second.numel()) : 1, 0.0);
  const auto& ranges = plan_.of_rank(sharing_.comm.rank());
  ATTUNE_ASSERT(ranges.size() == mine.size(), "{} gradients of {}", mine.size(), ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    auto& sums = squares[ranges[i].tensor];
    if (has_stretches(ranges[i].tensor))
      std::ranges::copy(mine[i], sums.begin() + ranges[i].first / stretch);
    else
      sums[0] = std::accumulate(mine[i].begin(), mine[i].end(), 0.0);
  }
  if (is_shared()) {
    std::vector<double> flat;
    for (const auto& each : squares) flat.insert(flat.end(), each.begin(), each.end());
    parallel::sum_in_place(flat, sharing_.comm);
    auto from = flat.begin();
    for (auto& each : squares) {
      std::copy_n(from, each.size(), each.begin());
      from += std::ssize(each);
    }
  }
  double sum = 0;
  for (const auto& each : squares) sum += std::accumulate(each.begin(), each.end(), 0.0);
  return std::sqrt(sum);
}

void Updater::bring(const Slot& slot, const parallel::Shard& gradient) const {
  if (!slot.on_host) return;
  slot.on_host->part.copy_(part_of(slot.range).tensor, /*non_blocking=*/true);
  slot.on_host->gradient.copy_(gradient.tensor, /*non_blocking=*/true);
}

void Updater::wait_for_host() const {
  if (state_on_ == StateOn::host && !parameters_.empty())
    device::synchronise(parameters_.front().second.device());
}

parallel::Shard Updater::updated_part(const Slot& slot) const {
  auto part = part_of(slot.range);
  if (slot.on_host) part.tensor = slot.on_host->part;
  return part;
}

void Updater::take_back(const Slot& slot) const {
  if (slot.on_host) part_of(slot.range).tensor.copy_(slot.on_host->part, /*non_blocking=*/true);
}

/// By a strategy, for now.
bool Updater::is_frozen(const Slot& slot) const {
  return !parameters_[slot.range.tensor].second.requires_grad();
}

void Updater::step(const std::vector<parallel::Shard>& gradients, double learning_rate,
                   double gradient_scale) {
  torch::NoGradGuard no_grad;
  ATTUNE_ASSERT(gradients.size() == slots_.size(), "{} gradients of {}", gradients.size(),
                slots_.size());
  if (memory_) memory_->begin_update();
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (!is_frozen(slots_[i])) bring(slots_[i], gradients[i]);
  wait_for_host();
  std::vector<std::vector<ParameterUpdate>> by_group(groups_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto& slot = slots_[i];
    if (is_frozen(slot)) continue;
    const auto part = updated_part(slot);
    // it was just loaded, or a strategy has changed it
    if (slot.master) nn::follow_rounded(slot.master->tensor, part.tensor, part.offset);
    const auto& values = slot.master ? slot.master->tensor : part.tensor;
    const auto& gradient = slot.on_host ? slot.on_host->gradient : gradients[i].tensor;
    auto& update =
        by_group[slot.group].emplace_back(ParameterUpdate{slot.spec, values, gradient, {}});
    for (const auto& kept : slot.state) update.state.push_back(kept.tensor);
  }
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    if (by_group[group].empty()) continue;
    const auto& rates = groups_[group];
    optimizer_->update(by_group[group], {learning_rate * rates.learning_rate_scale,
                                         rates.weight_decay, gradient_scale});
  }
  for (const auto& slot : slots_) {
    if (is_frozen(slot)) continue;
    const auto part = updated_part(slot);
    if (slot.master) nn::round_evenly_into(part.tensor, slot.master->tensor, part.offset);
    take_back(slot);
  }
  if (memory_)
    memory_->finish_update(plan_);
  else if (is_shared())
    parallel::gather_shards(parameters_, plan_, sharing_);
}

std::vector<parallel::Shard> Updater::state() const {
  std::vector<parallel::Shard> all;
  for (const auto& slot : slots_) {
    if (slot.master) all.push_back(*slot.master);
    all.insert(all.end(), slot.state.begin(), slot.state.end());
  }
  return all;
}

}  // namespace train
}  // namespace attune
