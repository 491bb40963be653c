#include "train/cost.hpp"

#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/stopwatch.hpp"
#include "data/loader.hpp"
#include "parallel/wide_gradients.hpp"
#include "train/memory.hpp"
#include "train/updater.hpp"
#include "device/device.hpp"

namespace attune::train {
namespace {

/// Causal attention over n tokens has 2 n^2 width operations in a block, where its weights have 2 n
/// each.
double even_length(Model& model) {
  const auto& spec = model.spec();
  double weights = 0;
  for (const auto& [name, linear] : nn::linears(model.module()))
    for (std::int64_t block = 0; block < spec.depth; ++block)
      if (name.starts_with(model.block_name(block)))
        weights += static_cast<double>(linear->in() * linear->out());
  return spec.key_heads > 0 ? weights / static_cast<double>(spec.width * spec.depth) : 0;
}

/// So many rows whose lengths are spread as those of the split are.
std::vector<std::int64_t> typical_rows(const std::vector<std::int64_t>& longest_first,
                                       std::int64_t count) {
  std::vector<std::int64_t> rows;
  const auto size = std::ssize(longest_first);
  for (std::int64_t i = 0; i < std::min(count, size); ++i)
    rows.push_back(
        longest_first[static_cast<std::size_t>((2 * i + 1) * size / (2 * std::min(count, size)))]);
  return rows;
}

double pass_seconds(Session& session, std::span<const std::int64_t> rows) {
  double best = INFINITY;
  for (int times = 0; times < 2; ++times) {
    best = std::min(best, rehearse(session, rows).seconds);
    drop_gradients(trainable(*session.model));
  }
  return best;
}

/// Of what one rank of the run updates.
Updater updater_of_shard(const Session& session) {
  const auto optimizer = session.config.optimizer.build<Optimizer>();
  const auto& trained = session.strategies->trained();
  const auto plan = shard_plan(*optimizer, trained, ranks_of_copy(session));
  ParameterGroup shard;
  for (const auto& range : plan.of_rank(plan.fullest())) {
    const auto& [name, parameter] = trained[range.tensor];
    const auto whole = parameter.detach();
    const auto part = parallel::Shard::of(name, whole, range.first, range.count).tensor;
    part.requires_grad_();
    if (parallel::has_wide_gradient(parameter)) parallel::widen_gradient(part);
    shard.parameters.emplace_back(name, part);
  }
  return {optimizer,
          {shard},
          session.config.train.weight_decay,
          block_prefixes(*session.model),
          state_on(session)};
}

double update_seconds(const Session& session) {
  auto updater = updater_of_shard(session);
  double seconds = 0;
  // zeros would be less work
  for (const auto& [name, parameter] : updater.parameters())
    parameter.mutable_grad() = parallel::zero_gradient(parameter).fill_(1);
  for (int times = 0; times < 2; ++times) {  // the first one gets the memory
    device::synchronise(session.device);
    const Stopwatch watch;
    const auto gradients = updater.gradients();
    updater.step(gradients, 0, clipped(1, updater.norm_of(gradients), session.config.train.clip));
    device::synchronise(session.device);
    seconds = watch.seconds();
  }
  drop_gradients(updater.parameters());
  return seconds;
}

std::int64_t micro_batch_of(const Session& session) {
  return std::max<std::int64_t>(1, session.config.train.micro_batch);
}

}  // namespace

std::vector<std::int64_t> cost_rows(const Session& session) {
  const auto longest = longest_first(session);
  auto rows = typical_rows(longest, micro_batch_of(session));
  rows.push_back(typical_rows(longest, 1).front());
  return rows;
}

double Cost::units(std::span<const std::int64_t> lengths) const {
  return std::accumulate(lengths.begin(), lengths.end(), 0.0, [&](double sum, std::int64_t length) {
    const auto n = static_cast<double>(length);
    return sum + n + (even > 0 ? n * n / even : 0);
  });
}

Cost measure_cost(Session& session) {
  const auto lengths = sample_lengths(session.data->split("train"));
  const auto units_of = [&](const Cost& cost, const std::vector<std::int64_t>& rows) {
    std::vector<std::int64_t> own;
    for (const auto row : rows) own.push_back(lengths[static_cast<std::size_t>(row)]);
    return cost.units(own);
  };
  const auto longest = longest_first(session);
  const auto one = typical_rows(longest, 1);
  const auto several = typical_rows(longest, micro_batch_of(session));
  Cost cost;
  cost.even = even_length(*session.model);
  const double few = units_of(cost, one);
  const double many = units_of(cost, several);
  const auto slowest = [&](double seconds) {
    return 1e-9 *
           static_cast<double>(session.mesh.world.max(static_cast<std::int64_t>(1e9 * seconds)));
  };
  const double of_one = slowest(pass_seconds(session, one));
  const double of_several = slowest(pass_seconds(session, several));
  // The line through both; through the larger alone where they are too near each other to tell.
  cost.fixed = many > 1.5 * few
                   ? std::clamp((of_one * many - of_several * few) / (many - few), 0.0, of_one)
                   : 0;
  cost.rate = (of_several - cost.fixed) / many;
  cost.update = slowest(update_seconds(session));
  return cost;
}

double step_seconds(const Cost& cost, const Session& session) {
  const auto& options = session.config.train;
  const auto lengths = sample_lengths(session.data->split("train"));
  const double mine = static_cast<double>(options.global_batch) / session.mesh.data.size();
  const double samples = static_cast<double>(lengths.size());
  const double tokens = std::accumulate(lengths.begin(), lengths.end(), 0.0) / samples;
  const double passes =
      std::ceil(options.micro_tokens > 0 ? mine * tokens / static_cast<double>(options.micro_tokens)
                                         : mine / static_cast<double>(micro_batch_of(session)));
  return passes * cost.fixed + mine * cost.rate * cost.units(lengths) / samples + cost.update;
}

}  // namespace attune::train
