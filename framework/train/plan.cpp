#include "train/plan.hpp"

#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "evaluate/evaluate.hpp"
#include "nn/planned.hpp"
#include "train/memory.hpp"
#include "train/metrics.hpp"
#include "train/passes.hpp"
#include "train/run_context.hpp"

namespace attune::train {
namespace {

/// Of the model's own tensors, on the meta device. A shared one counts once.
std::int64_t model_bytes(Model& model) {
  std::set<const void*> seen;
  std::int64_t bytes = 0;
  for (const auto& tensors : {model.module().parameters(), model.module().buffers()})
    for (const auto& tensor : tensors)
      if (seen.insert(tensor.storage().unsafeGetStorageImpl()).second)
        bytes += static_cast<std::int64_t>(tensor.storage().nbytes());
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear->packed()) bytes += static_cast<std::int64_t>(linear->packed()->bytes());
  return bytes;
}

nn::PassMemory plan_step(Session& s, std::span<const std::int64_t> rows) {
  const auto context = training_pass(s, load_batch(s.data->split("train"), *s.dataset, rows), 0);
  std::shared_ptr<parallel::ScatterRehearsal> scatter;
  const auto loss = [&] {
    scatter = rehearse_scatter(s);
    return s.strategies->loss(*s.model, context).sum;
  };
  return nn::pass_memory(*s.model, loss,
                         holds_gradients(s) ? nn::Gradients::held : nn::Gradients::none);
}

/// Returns the bytes it needs.
std::size_t plan_evaluation(Session& s) {
  const nn::TensorMeter meter;
  try_evaluation(s);
  return static_cast<std::size_t>(meter.peak());
}

}  // namespace

std::vector<std::int64_t> evaluated_rows(const Session& s) {
  const auto samples = samples_to_evaluate(s.data->split("validation"), s.config.evaluate.samples);
  return first_rows(std::min(samples, s.config.evaluate.micro_batch));
}

void try_evaluation(Session& s) {
  const torch::NoGradGuard no_grad;
  auto batch = load_batch(s.data->split("validation"), *s.dataset, evaluated_rows(s));
  if (!s.is_planned) move_to(batch, s.device);
  ForwardContext context(std::move(batch));
  const auto metrics = declared_metrics(s);
  context.wants_outputs = needs_outputs(metrics) != nullptr;
  const auto loss = s.strategies->loss(*s.model, context);
  if (context.wants_outputs && !loss.outputs.defined()) refuse_without_outputs(metrics);
}

std::int64_t samples_of_pass(const Session& s) {
  auto samples = std::max<std::int64_t>(1, s.config.train.micro_batch);
  if (s.config.parallel.reproducible) return samples;  // nothing is cut
  // As share_out() cuts micro-batches until every rank has one.
  auto batches = (s.config.train.global_batch + samples - 1) / samples;
  for (; batches * 2 <= ranks_of_run(s) && samples > 1; batches *= 2) samples = (samples + 1) / 2;
  return samples;
}

void plan_pass(Session& s) {
  const nn::PlannedOnAccelerator where(computes_on_accelerator(s));
  s.planned.pass.reset();
  auto rows = longest_first(s);
  rows.resize(static_cast<std::size_t>(std::min(samples_of_pass(s), std::ssize(rows))));
  as_far_as_planned(s, [&] { s.planned.pass = plan_step(s, rows); });
}

std::optional<nn::Operations> operations_of_pass(Session& s, std::span<const std::int64_t> rows) {
  const nn::PlannedOnAccelerator where(computes_on_accelerator(s));
  std::optional<nn::Operations> operations;
  as_far_as_planned(s, [&] {
    const auto context = training_pass(s, load_batch(s.data->split("train"), *s.dataset, rows), 0);
    operations =
        nn::count_operations([&] { s.strategies->loss(*s.model, context).sum.backward(); });
  });
  drop_gradients(trainable(*s.model));
  return operations;
}

void plan_steps(Session& s, const nn::TensorMeter& meter) {
  auto rows = longest_first(s);
  rows.resize(static_cast<std::size_t>(std::min(samples_of_pass(s), std::ssize(rows))));
  const auto evaluated = evaluated_rows(s);
  auto context = SessionContext::rehearsal(s, {{"train", rows}, {"validation", evaluated}});
  const bool has_begun =
      as_far_as_planned(s, [&] { s.strategies->begin(*s.model, context.run()); });
  s.planned.other =
      static_cast<std::size_t>(std::max<std::int64_t>(0, meter.live() - model_bytes(*s.model)));
  s.planned.before_first_step = static_cast<std::size_t>(meter.peak());
  if (!has_begun) return;
  // the base is evaluated before the first step
  as_far_as_planned(s, [&] { s.planned.evaluation = plan_evaluation(s); });
  plan_pass(s);
}

}  // namespace attune::train
