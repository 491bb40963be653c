#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <torch/torch.h>

#include "testing/toy_run.hpp"

namespace attune::testing {
namespace {

void check_samples(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto whole = model.logits(batch);
  std::vector<at::Tensor> one_by_one;
  for (std::int64_t i = 0; i < batch.samples(); ++i)
    one_by_one.push_back(model.logits(part_of(batch, i, 1)));
  check(are_near(whole, torch::cat(one_by_one)), "a batch gives what its samples give one by one");
}

void check_hidden(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto whole = model.features(batch);
  for (std::int64_t parts = 1; parts <= model.spec().depth; ++parts) {
    Batch from = batch;
    from.hidden = model.hidden_after(parts, batch);
    from.hidden_parts = parts;
    from.hidden_of = &model;
    check(are_near(model.features(from), whole),
          fmt::format("a pass that goes on from the hidden state after block {} gives the same",
                      parts));
  }
}

void check_gradients(Model& model, const Batch& batch) {
  std::vector<std::pair<at::Tensor, bool>> before;
  for (auto& parameter : model.module().parameters()) {
    before.emplace_back(parameter, parameter.requires_grad());
    parameter.set_requires_grad(true);
  }
  supervised_loss(model, batch).sum.backward();
  std::string unreached;
  for (std::int64_t block = 0; block < model.spec().depth; ++block) {
    std::int64_t found = 0;
    for (auto& parameter : model.module().named_parameters()) {
      if (!parameter.key().starts_with(model.block_name(block))) continue;
      ++found;
      if (!parameter.value().grad().defined()) unreached = parameter.key();
    }
    check(found > 0, fmt::format("parameters of block {} begin with its block_name, '{}'", block,
                                 model.block_name(block)));
  }
  for (auto& [parameter, was_trained] : before) {
    parameter.mutable_grad() = at::Tensor();
    parameter.set_requires_grad(was_trained);
  }
  check(unreached.empty(), fmt::format("the gradient reaches '{}'", unreached));
}

/// The last token of every sample becomes another.
void check_causality(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  Batch other = batch;
  other.tokens = batch.tokens.clone();
  std::vector<std::int64_t> earlier;
  for (std::int64_t i = 0; i < batch.samples(); ++i) {
    const auto begin = batch.starts[static_cast<std::size_t>(i)];
    const auto last = batch.starts[static_cast<std::size_t>(i + 1)] - 1;
    other.tokens[last] = (batch.tokens[last] + 1).remainder(model.spec().vocabulary);
    for (auto row = begin; row < last; ++row) earlier.push_back(row);
  }
  const auto rows = torch::tensor(earlier, at::kLong);
  check(are_near(model.logits(other).index_select(0, rows),
                 model.logits(batch).index_select(0, rows)),
        "a token sees nothing that comes after it");
}

/// Token by token.
void check_generation(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto sample = part_of(batch, 0, 1);
  KeyValueCache cache(model.spec().depth);
  std::vector<at::Tensor> steps;
  for (std::int64_t i = 0; i < sample.length(); ++i) {
    Batch next;
    next.tokens = sample.tokens.slice(0, i, i + 1);
    next.positions = sample.positions.slice(0, i, i + 1);
    next.starts = {0, 1};
    ForwardContext context(std::move(next), Phase::generation);
    context.cache = &cache;
    steps.push_back(model.logits(context));
  }
  check(are_near(torch::cat(steps), model.logits(sample)),
        "generation token by token, with a cache, gives what a whole pass gives");
}

}  // namespace

void check_model(Model& model, const Batch& batch) {
  check_samples(model, batch);
  check_hidden(model, batch);
  check_gradients(model, batch);
  if (model.spec().task != Task::next_token) return;
  check_causality(model, batch);
  check_generation(model, batch);
}

}  // namespace attune::testing
