// A miniature run for plugin checks: the toy model, strategies, an optimizer, and a RunContext.
#pragma once
#include <attune/testing.hpp>

#include <memory>
#include <string>
#include <vector>

#include "strategy/strategies.hpp"
#include "train/updater.hpp"

namespace attune::testing {

/// Samples first .. first + count - 1 of a batch.
Batch part_of(const Batch& batch, std::int64_t first, std::int64_t count);

/// Throws an Error unless `holds`. promise: the requirement, "strategy: what is trained keeps its
/// bits".
void check(bool holds, const std::string& promise);

bool same_bits(const at::Tensor& a, const at::Tensor& b);
/// Whether the difference is within float32 rounding of a reordered sum.
bool are_near(const at::Tensor& a, const at::Tensor& b);

/// What is run: see check_strategy().
struct ToyPlan {
  MakeStrategy make;
  Task task = Task::next_token;
  MakeStrategy over = {};
};

class ToyRun {
 public:
  explicit ToyRun(const ToyPlan& plan);

  /// Runs one training step on the step's batch, divided into `parts` equal parts. step: from 0.
  void step(std::int64_t step, std::int64_t parts = 1);
  /// A copy of everything in a checkpoint.
  struct State {
    std::vector<NamedTensor> weights;
    std::vector<NamedTensor> optimizer;
    std::vector<bool> trained;  // for each of strategies().trained(): not frozen at the moment
  };
  State state();
  /// Continues from a state, as a resumed run does.
  void restore(const State& state, std::int64_t step);

  Model& model() { return *model_; }
  Strategies& strategies() { return strategies_; }
  /// Outputs in evaluation, on a batch that is not used for training.
  at::Tensor outputs();

 private:
  struct Parts;
  std::shared_ptr<Model> model_;
  Strategies strategies_;
  std::shared_ptr<Parts> parts_;
  std::unique_ptr<train::Updater> updater_;
};

}  // namespace attune::testing
