#include "train/step.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/stopwatch.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "strategy/seeding.hpp"
#include "train/memory.hpp"
#include "train/passes.hpp"
#include "train/scalars.hpp"

namespace attune::train {
namespace {

LoaderOptions loader_options(const config::RunConfig& config, std::int64_t micro_batch,
                             std::shared_ptr<const HiddenStates> hidden) {
  LoaderOptions options;
  options.global_batch = config.train.global_batch;
  options.seed = static_cast<std::uint64_t>(config.run.seed);
  options.shuffle_block = config.dataset.shuffle_block;
  options.plan = {micro_batch, config.train.micro_tokens, config.train.group_lengths};
  options.reproducible = config.parallel.reproducible;
  options.hidden = std::move(hidden);
  return options;
}

/// Of samples: added up over the data-parallel group, together with a loss for each micro-batch
/// (zero for those of others: adding zeros is exact).
struct Counts {
  double targets = 0;
  double tokens = 0;
  double without_target = 0;
  double scalars = 0;  // that strategies reported
};

/// How many ranks of the run are in these states.
struct RanksThat {
  double want_to_stop = 0;
  double write = 0;
};

/// counts, losses and ranks, in one collective where every rank has its own samples.
void sum_over_ranks(Counts& counts, std::vector<double>& losses, RanksThat& ranks,
                    const Mesh& mesh) {
  std::vector<double> all{counts.targets, counts.tokens,      counts.without_target,
                          counts.scalars, ranks.want_to_stop, ranks.write};
  all.insert(all.end(), losses.begin(), losses.end());
  parallel::sum_in_place(all, mesh.data);
  counts = {all[0], all[1], all[2], all[3]};
  std::copy(all.end() - std::ssize(losses), all.end(), losses.begin());
  std::vector<double> states{all[4], all[5]};
  parallel::sum_in_place(states, mesh.shard);
  ranks = {states[0], states[1]};
}

}  // namespace

Step::Step(Session& session, const std::vector<NamedTensor>& parameters,
           const parallel::ShardPlan& plan, const parallel::Sharing& sharing,
           std::int64_t micro_batch, std::shared_ptr<const HiddenStates> hidden,
           Interruption& interruption)
    : s_(session),
      interruption_(interruption),
      micro_batch_(micro_batch),
      batches_(batches_of(session, std::move(hidden))),
      gradients_(parameters, plan, sharing, session.config.parallel.reproducible,
                 /*in_one_piece=*/sharing.is_sharded() ? !session.config.train.recompute
                                                       : sums_during_pass(session)) {}

std::shared_ptr<BatchSource> Step::batches_of(Session& session,
                                              std::shared_ptr<const HiddenStates> hidden) const {
  auto loader =
      std::make_shared<Loader>(session.data->split("train"), *session.dataset,
                               loader_options(session.config, micro_batch_, std::move(hidden)),
                               session.mesh.data.rank(), session.mesh.data.size());
  return session.strategies->batches(*session.model, std::move(loader));
}

bool Step::forward_backward(std::int64_t step, device::Readings& readings) {
  parallel::report_phase("reading", step + 1);
  const auto& plan = batches_->begin_step(step);
  micro_batches_ = static_cast<std::int64_t>(plan.micro_batches.size());
  const auto passes = gradients_.begin(micro_batches_, plan.first, plan.end);
  parts_.clear();
  const bool goes_on = gradients_.meets_in_every_pass()
                           ? passes_together(step, plan, passes, readings)
                           : passes_alone(step, plan, readings);
  if (!goes_on) {
    gradients_.abandon();
    return false;
  }
  parallel::report_phase("gradients", step + 1);
  gradients_.finish();
  return true;
}

/// Ranks meet in their last backward pass. Before they wait for each other there, they agree to
/// make it. False when they do not.
bool Step::passes_alone(std::int64_t step, const StepPlan& plan, device::Readings& readings) {
  const bool several = micro_batches_ > s_.mesh.data.size();  // on some rank
  at::Tensor pending;  // a loss whose backward pass is still to come
  for (auto i = plan.first; i < plan.end; ++i) {
    if (pending.defined()) backward(pending, step);
    pending = at::Tensor();
    if (several && interruption_.wanted()) break;
    pending = forward(i, plan, step, readings);
  }
  if (several && interruption_.agree()) return false;
  if (pending.defined()) backward(pending, step);
  return true;
}

/// Ranks meet in every backward pass, and agree to make it.
bool Step::passes_together(std::int64_t step, const StepPlan& plan, std::int64_t passes,
                           device::Readings& readings) {
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    const auto i = plan.first + pass;
    const auto loss = i < plan.end ? forward(i, plan, step, readings) : at::Tensor();
    if (passes > 1 && interruption_.agree()) return false;
    backward(loss, step);
  }
  return true;
}

StepSums Step::sums(const device::Readings& readings, bool is_writing) const {
  Counts counts;
  std::vector<double> losses(static_cast<std::size_t>(micro_batches_), 0.0);
  ScalarSums scalars;
  StepSums result;
  for (const auto& part : parts_) {
    const double loss = readings[part.loss];
    losses[static_cast<std::size_t>(part.index)] = loss;
    counts.targets += static_cast<double>(part.targets);
    counts.tokens += static_cast<double>(part.tokens);
    counts.without_target += static_cast<double>(part.without_target.size());
    std::map<std::string, ScalarSum> reported;
    for (const auto& [name, scalar] : part.scalars)
      reported[name] = {readings[scalar.sum], scalar.count};
    scalars.add(part.index, reported);
    if (!part.without_target.empty()) result.row_without_target = part.without_target.front();
    if (!std::isfinite(loss))
      result.bad_rows.insert(result.bad_rows.end(), part.rows.begin(), part.rows.end());
  }
  counts.scalars = static_cast<double>(scalars.size());
  RanksThat ranks{static_cast<double>(interruption_.wanted()), static_cast<double>(is_writing)};
  sum_over_ranks(counts, losses, ranks, s_.mesh);
  result.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  result.targets = static_cast<std::int64_t>(counts.targets);
  result.tokens = static_cast<std::int64_t>(counts.tokens);
  result.samples_without_target = static_cast<std::int64_t>(counts.without_target);
  result.interruption_wanted = ranks.want_to_stop > 0;
  result.all_written = ranks.write == 0;
  // most runs have none, and need no collective for them
  if (counts.scalars > 0) result.scalars = scalars.means(s_.mesh.data);
  return result;
}

at::Tensor Step::forward(std::int64_t micro_batch, const StepPlan& plan, std::int64_t step,
                         device::Readings& readings) {
  auto batch = batches_->next();
  const Stopwatch watch;
  parallel::report_phase("forward", step + 1);
  Part part;
  part.index = micro_batch;
  part.rows = plan.micro_batches[static_cast<std::size_t>(micro_batch)].rows;
  part.without_target = rows_without_target(batch);
  part.tokens = batch.length();
  return with_memory_told(s_, micro_batch_, step, [&] {
    // For what draws from LibTorch's own generator, and not from its context.
    seed_call(s_.config.run.seed, step, batch.ids.front());
    const auto context = training_pass(s_, std::move(batch), step);
    const auto loss = s_.strategies->loss(*s_.model, context);
    part.targets = loss.count;
    part.loss = readings.add(loss.sum);
    for (const auto& [name, scalar] : loss.scalars)
      part.scalars[name] = {readings.add(scalar.sum), scalar.count};
    parts_.push_back(std::move(part));
    interruption_.worked(watch.seconds());
    return loss.sum;
  });
}

void Step::backward(const at::Tensor& loss, std::int64_t step) {
  const Stopwatch watch;
  parallel::report_phase("backward", step + 1);
  with_memory_told(s_, micro_batch_, step, [&] { gradients_.backward(loss); });
  interruption_.worked(watch.seconds());
}

}  // namespace attune::train
