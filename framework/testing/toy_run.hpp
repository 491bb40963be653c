// A run in miniature, for checks of plugins: the toy model, strategies, an optimizer, and what a
// strategy may ask of its run.
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

/// "strategy: what is trained keeps its bits": an Error unless it holds.
void check(bool holds, const std::string& promise);

bool same_bits(const at::Tensor& a, const at::Tensor& b);
/// Within what float32 sums in another order differ by.
bool are_near(const at::Tensor& a, const at::Tensor& b);

class ToyRun {
 public:
  /// One of a strategy that trains nothing is listed after one that trains everything.
  ToyRun(const MakeStrategy& make, Task task);

  /// What a step of a run does, on the step's batch in so many equal parts. step: from 0.
  void step(std::int64_t step, std::int64_t parts = 1);
  /// All that a checkpoint holds, copied.
  struct State {
    std::vector<NamedTensor> weights;
    std::vector<NamedTensor> optimizer;
    std::vector<bool> trained;  // of each of strategies().trained(): not frozen for the time being
  };
  State state();
  /// Goes on from there, as a resumed run does.
  void restore(const State& state, std::int64_t step);

  Model& model() { return *model_; }
  Strategies& strategies() { return strategies_; }
  /// Of what is measured, on the batch that no step takes.
  at::Tensor outputs();

 private:
  struct Parts;
  std::shared_ptr<Model> model_;
  Strategies strategies_;
  std::shared_ptr<Parts> parts_;
  std::unique_ptr<train::Updater> updater_;
};

}  // namespace attune::testing
