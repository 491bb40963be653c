#include <attune/error.hpp>
#include <torch/torch.h>

#include <set>

#include "testing/toy_run.hpp"

namespace attune::testing {
namespace {

std::vector<NamedTensor> parameters_of(Model& model) {
  std::vector<NamedTensor> all;
  for (auto& parameter : model.module().named_parameters())
    all.emplace_back(parameter.key(), parameter.value());
  return all;
}

std::set<std::string> names_of(const std::vector<NamedTensor>& tensors) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) names.insert(name);
  return names;
}

void check_what_is_trained(const ToyPlan& plan) {
  ToyRun run(plan);
  std::vector<NamedTensor> before;
  for (const auto& [name, tensor] : parameters_of(run.model()))
    before.emplace_back(name, tensor.detach().clone());
  for (int step = 0; step < 3; ++step) run.step(step);
  const auto trained = names_of(run.strategies().trained());
  bool moves = false;
  const auto after = parameters_of(run.model());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const bool is_same = same_bits(after[i].second, before[i].second);
    if (trained.contains(after[i].first))
      moves = moves || !is_same;
    else
      check(is_same, fmt::format("'{}', which is not trained, keeps its bits", after[i].first));
  }
  check(moves, "three steps change what is trained");
}

/// Of a pass of the phase, over the batch in so many parts.
std::pair<double, std::int64_t> loss_in_parts(ToyRun& run, Phase phase, std::int64_t parts) {
  const torch::NoGradGuard no_grad;
  const auto batch = toy_batch(run.model());
  const auto count = batch.samples() / parts;
  double sum = 0;
  std::int64_t targets = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    torch::manual_seed(1);
    const auto key = phase == Phase::training ? RandomKey{.seed = 1, .step = 1} : RandomKey{};
    const ForwardContext context(part_of(batch, part * count, count), phase, key);
    const auto loss = run.strategies().loss(run.model(), context);
    sum += loss.sum.item<double>();
    targets += loss.count;
  }
  return {sum, targets};
}

void check_sums(const ToyPlan& plan) {
  ToyRun run(plan);
  run.step(0);
  for (const auto phase : {Phase::evaluation, Phase::training}) {
    const auto [whole, targets] = loss_in_parts(run, phase, 1);
    const auto [sum, counted] = loss_in_parts(run, phase, 2);
    const char* when = phase == Phase::training ? "in training" : "in evaluation";
    check(targets == counted,
          fmt::format("Loss::count of a batch is the sum over its samples {} ({}, and {} in parts)",
                      when, targets, counted));
    check(std::abs(whole - sum) <= 1e-4 * std::max(1.0, std::abs(whole)),
          fmt::format("Loss::sum of a batch is the sum over its samples {} ({}, and {} in parts), "
                      "so that it is the same on any number of ranks",
                      when, whole, sum));
  }
}

void check_same(const ToyRun::State& ours, const ToyRun::State& theirs, const std::string& when) {
  check(ours.weights.size() == theirs.weights.size(), "state() gives as many tensors as before");
  for (std::size_t i = 0; i < ours.weights.size(); ++i)
    check(same_bits(ours.weights[i].second, theirs.weights[i].second),
          fmt::format("'{}' has the same bits {}", ours.weights[i].first, when));
}

void check_repetition(const ToyPlan& plan) {
  ToyRun first(plan);
  ToyRun again(plan);
  for (int step = 0; step < 3; ++step) {
    first.step(step);
    again.step(step);
  }
  check_same(first.state(), again.state(), "in two runs with one seed");
}

void check_resume(const ToyPlan& plan) {
  ToyRun whole(plan);
  whole.step(0);
  whole.step(1);
  ToyRun resumed(plan);
  resumed.restore(whole.state(), 2);
  for (int step = 2; step < 4; ++step) {
    whole.step(step);
    resumed.step(step);
  }
  check_same(whole.state(), resumed.state(),
             "after a resume: what it depends on is given by state()");
}

void check_adapter(const ToyPlan& plan) {
  ToyRun run(plan);
  for (int step = 0; step < 2; ++step) run.step(step);
  auto adapter = run.strategies().export_adapter(run.model());
  if (!adapter) return;
  check(!adapter->tensors.empty(), "an exported adapter holds tensors");
  for (auto& [name, tensor] : adapter->tensors) tensor = tensor.detach().clone();
  ToyRun fresh(plan);
  const auto own = fresh.strategies().export_adapter(fresh.model());
  if (!own || !own->is_live) return;  // which says so: it is not for starting from
  fresh.strategies().load_adapter(fresh.model(), *adapter, "the exported adapter");
  check(are_near(fresh.outputs(), run.outputs()),
        "an exported adapter, loaded into a new run, gives the same outputs");
}

void check_merge(const ToyPlan& plan) {
  ToyRun run(plan);
  for (int step = 0; step < 2; ++step) run.step(step);
  const auto before = run.outputs();
  try {
    run.strategies().merge(run.model());
  } catch (const Error&) {
    return;
  }
  check(are_near(run.outputs(), before), "merge() leaves the outputs as they are");
}

}  // namespace

void check_strategy(const MakeStrategy& make, Task task, const MakeStrategy& over) {
  for (const auto& check : {check_what_is_trained, check_sums, check_repetition, check_resume,
                            check_adapter, check_merge})
    check(ToyPlan{make, task, over});
}

}  // namespace attune::testing
