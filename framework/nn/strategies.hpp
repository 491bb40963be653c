// The strategies of a run as one: each builds on what those before it made.
#pragma once
#include <attune/strategy.hpp>

namespace attune {

/// In the run file's order. Decision record: docs/design/0009-strategies-in-a-list.md.
class Strategies {
 public:
  struct Named {
    std::string name;
    std::shared_ptr<Strategy> strategy;
  };
  explicit Strategies(std::vector<Named> list) : list_(std::move(list)) {}

  /// Freezes every parameter, then lets each strategy inject and choose. Errors: two of them train the same parameter,
  /// or define the loss; none trains any.
  void prepare(Model& model);
  void begin(Model& model, Surroundings& run);
  void on_epoch(Model& model, std::int64_t epoch);
  void on_step(Model& model, std::int64_t step);

  std::vector<ParameterGroup> groups(Model& model);
  Loss loss(Model& model, const Batch& batch);
  /// What is trained, as it was when prepared, and what else the strategies keep.
  std::vector<NamedTensor> state(Model& model);
  /// The adapter of the one strategy that trains and has one; absent: the result is a whole model.
  std::optional<Adapter> export_adapter(Model& model);
  /// Copies an adapter into the one that this run trains. Error naming what differs: options, names, shapes. `from` names it in messages.
  void load_adapter(Model& model, const Adapter& adapter, const std::string& from);
  void merge(Model& model);

 private:
  /// Null unless there is exactly one.
  Strategy* only_one_that_trains() const;
  std::optional<Adapter> adapter_to_start(Model& model);
  void check_losses() const;

  std::vector<Named> list_;
  std::vector<NamedTensor> trained_;
  std::vector<bool> trains_;  // by strategy
};

}  // namespace attune
