#include "train/cost.hpp"

#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/stopwatch.hpp"
#include "data/loader.hpp"
#include "data/sampler.hpp"
#include "parallel/wide_gradients.hpp"
#include "train/memory.hpp"
#include "train/schedule.hpp"
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
std::vector<std::int64_t> spread(const std::vector<std::int64_t>& longest_first,
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
  auto rows = typical_rows(session, micro_batch_of(session));
  rows.push_back(typical_rows(session, 1).front());
  return rows;
}

double Cost::units(std::span<const std::int64_t> lengths) const {
  return std::accumulate(lengths.begin(), lengths.end(), 0.0, [&](double sum, std::int64_t length) {
    const auto n = static_cast<double>(length);
    return sum + n + (even > 0 ? n * n / even : 0);
  });
}

std::vector<std::int64_t> typical_rows(const Session& session, std::int64_t count) {
  return spread(longest_first(session), count);
}

Cost cost_through(const Session& session, const TimedPass& few, const TimedPass& many) {
  const auto lengths = sample_lengths(session.data->split("train"));
  Cost cost;
  cost.even = even_length(*session.model);
  const auto units_of = [&](const TimedPass& pass) {
    std::vector<std::int64_t> own;
    for (const auto row : pass.rows) own.push_back(lengths[static_cast<std::size_t>(row)]);
    return cost.units(own);
  };
  const double of_few = units_of(few);
  const double of_many = units_of(many);
  // The line through both; through the larger alone where they are too near each other to tell.
  if (of_many > 1.5 * of_few)
    cost.fixed = std::clamp((few.seconds * of_many - many.seconds * of_few) / (of_many - of_few),
                            0.0, few.seconds);
  cost.rate = (many.seconds - cost.fixed) / of_many;
  return cost;
}

Cost measure_cost(Session& session) {
  const auto slowest = [&](double seconds) {
    return 1e-9 *
           static_cast<double>(session.mesh.world.max(static_cast<std::int64_t>(1e9 * seconds)));
  };
  const auto timed = [&](std::int64_t samples) {
    auto rows = typical_rows(session, samples);
    const double seconds = slowest(pass_seconds(session, rows));
    return TimedPass{std::move(rows), seconds};
  };
  const auto few = timed(1);
  auto cost = cost_through(session, few, timed(micro_batch_of(session)));
  cost.update = slowest(update_seconds(session));
  return cost;
}

namespace {

/// Seconds of each rank's passes in a step, if it were alone.
std::vector<std::vector<double>> seconds_of_ranks(const Cost& cost,
                                                  const std::vector<MicroBatch>& micro_batches,
                                                  const std::vector<std::int64_t>& bounds) {
  std::vector<std::vector<double>> seconds;
  for (std::size_t rank = 0; rank + 1 < bounds.size(); ++rank) {
    auto& own = seconds.emplace_back();
    for (auto i = bounds[rank]; i < bounds[rank + 1]; ++i)
      own.push_back(cost.fixed +
                    cost.rate * cost.units(micro_batches[static_cast<std::size_t>(i)].lengths));
  }
  return seconds;
}

/// Until the last of them is done: no earlier than the slowest alone, and than all by turns.
double until_done(const std::vector<double>& ranks, double crowding) {
  const auto all = std::accumulate(ranks.begin(), ranks.end(), 0.0);
  return std::max(*std::ranges::max_element(ranks),
                  crowding * all / static_cast<double>(ranks.size()));
}

double seconds_of_step(const std::vector<std::vector<double>>& ranks, const Pace& pace) {
  std::vector<double> stretch(ranks.size());
  if (!pace.together) {
    for (std::size_t rank = 0; rank < ranks.size(); ++rank)
      stretch[rank] = std::accumulate(ranks[rank].begin(), ranks[rank].end(), 0.0);
    return until_done(stretch, pace.crowding);
  }
  double seconds = 0;
  for (std::size_t pass = 0;; ++pass) {
    bool any = false;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      const bool has_one = pass < ranks[rank].size();
      stretch[rank] = has_one ? ranks[rank][pass] : 0;
      any = any || has_one;
    }
    if (!any) return seconds;
    seconds += until_done(stretch, pace.crowding);
  }
}

}  // namespace

StepLoad step_load(const Cost& cost, const Session& session, int ranks, const Pace& pace) {
  constexpr std::int64_t most_steps = 64;
  const auto& options = session.config.train;
  const auto lengths = sample_lengths(session.data->split("train"));
  const auto samples = std::ssize(lengths);
  Sampler sampler(samples, options.global_batch,
                  static_cast<std::uint64_t>(session.config.run.seed), ranks,
                  session.config.dataset.shuffle_block);
  const PlanOptions plan{micro_batch_of(session), options.micro_tokens, options.group_lengths};
  const auto steps = std::min(most_steps, steps_of(options, samples));
  StepLoad load;
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto rows = sampler.step_rows(step);
    std::vector<std::int64_t> of_rows;
    for (const auto row : rows) of_rows.push_back(lengths[static_cast<std::size_t>(row)]);
    auto micro_batches = plan_step(rows, of_rows, plan);
    const auto bounds = share_out(micro_batches, ranks, session.config.parallel.reproducible);
    const auto seconds = seconds_of_ranks(cost, micro_batches, bounds);
    const auto most = std::ranges::max(seconds, {}, &std::vector<double>::size).size();
    load.passes += static_cast<double>(most) / static_cast<double>(steps);
    load.seconds += seconds_of_step(seconds, pace) / static_cast<double>(steps);
  }
  return load;
}

double step_seconds(const Cost& cost, const Session& session) {
  const bool together = sharded_of(session.config) >= parallel::Sharded::gradients &&
                        !session.config.parallel.reproducible;
  return step_load(cost, session, session.mesh.data.size(), {together}).seconds + cost.update;
}

}  // namespace attune::train
