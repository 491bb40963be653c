#include "train/step.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/stopwatch.hpp"
#include "evaluate/evaluate.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "train/memory.hpp"

namespace attune::train {
namespace {

LoaderOptions loader_options(const config::RunConfig& config, std::int64_t micro_batch, std::shared_ptr<const HiddenStates> hidden) {
  LoaderOptions options;
  options.global_batch = config.train.global_batch;
  options.seed = static_cast<std::uint64_t>(config.run.seed);
  options.shuffle_block = config.dataset.shuffle_block;
  options.plan = {micro_batch, config.train.micro_tokens, config.train.group_lengths};
  options.reproducible = config.parallel.reproducible;
  options.hidden = std::move(hidden);
  return options;
}

/// Dropout depends on seed, step and samples, never on what was computed before or on which rank.
void seed_micro_batch(std::int64_t seed, std::int64_t step, std::int64_t first_row) {
  torch::manual_seed(mixed({static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(first_row)}));
}

}  // namespace

/// What one micro-batch adds.
struct Step::Part {
  at::Tensor loss;  // to go back from
  double value = 0, targets = 0, tokens = 0;
  std::vector<std::int64_t> without_target;  // rows
};

Step::Step(Session& session, const std::vector<NamedTensor>& parameters, std::int64_t micro_batch, std::shared_ptr<const HiddenStates> hidden, Interruption& interruption)
    : s_(session), interruption_(interruption), micro_batch_(micro_batch),
      loader_(session.data->split("train"), *session.dataset, loader_options(session.config, micro_batch, std::move(hidden)), session.comm.rank(), session.comm.size()),
      gradients_(parameters, session.comm, session.config.parallel.reproducible) {}

std::optional<StepSums> Step::forward_backward(std::int64_t step, bool is_writing) {
  parallel::report_phase("reading", step + 1);
  const auto& plan = loader_.begin_step(step);
  const auto all = static_cast<std::int64_t>(plan.micro_batches.size());
  const bool several = all > s_.comm.size();  // on some rank
  gradients_.begin(all, plan.first, plan.end);

  // What is summed over the ranks, with a loss for each micro-batch (zero for those of others: adding zeros is exact).
  enum { targets, tokens, without_target, stops, writing, losses };
  std::vector<double> sums(losses + all, 0.0);
  StepSums result;
  at::Tensor pending;  // a loss whose backward pass is still to come
  for (auto i = plan.first; i < plan.end; ++i) {
    if (pending.defined()) backward(pending, step);
    pending = at::Tensor();
    if (several && interruption_.wanted()) break;
    const auto part = forward(loader_.next(), step);
    pending = part.loss;
    sums[losses + i] = part.value;
    sums[targets] += part.targets;
    sums[tokens] += part.tokens;
    sums[without_target] += static_cast<double>(part.without_target.size());
    if (!part.without_target.empty()) result.row_without_target = part.without_target.front();
    const auto& rows = plan.micro_batches[i].rows;
    if (!std::isfinite(part.value)) result.bad_rows.insert(result.bad_rows.end(), rows.begin(), rows.end());
  }
  // Before the ranks wait for each other in their last backward pass they agree to make it.
  if (several && interruption_.agree()) return gradients_.abandon(), std::nullopt;
  if (pending.defined()) backward(pending, step);
  parallel::report_phase("gradients", step + 1);
  gradients_.finish();

  sums[stops] = interruption_.wanted();
  sums[writing] = is_writing;
  parallel::sum_in_place(sums, s_.comm);
  result.loss = std::accumulate(sums.begin() + losses, sums.end(), 0.0);
  result.targets = static_cast<std::int64_t>(sums[targets]);
  result.tokens = static_cast<std::int64_t>(sums[tokens]);
  result.samples_without_target = static_cast<std::int64_t>(sums[without_target]);
  result.interruption_wanted = sums[stops] > 0;
  result.all_written = sums[writing] == 0;
  return result;
}

Step::Part Step::forward(Batch batch, std::int64_t step) {
  const Stopwatch watch;
  parallel::report_phase("forward", step + 1);
  s_.model->module().train();
  auto without_target = rows_without_target(batch);
  return with_memory_told(s_, micro_batch_, step, [&]() -> Part {
    move_to(batch, s_.device);
    seed_micro_batch(s_.config.run.seed, step, batch.ids.front());
    const auto loss = s_.strategies->loss(*s_.model, batch);
    const Part part{loss.sum, loss.sum.item<double>(), static_cast<double>(loss.count), static_cast<double>(batch.length()), std::move(without_target)};
    interruption_.worked(watch.seconds());
    return part;
  });
}

void Step::backward(const at::Tensor& loss, std::int64_t step) {
  const Stopwatch watch;
  parallel::report_phase("backward", step + 1);
  with_memory_told(s_, micro_batch_, step, [&] { gradients_.backward(loss); });
  interruption_.worked(watch.seconds());
}

}  // namespace attune::train
