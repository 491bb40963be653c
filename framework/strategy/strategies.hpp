// The strategies of a run as one: each builds on what those before it made.
#pragma once
#include <attune/strategy.hpp>

namespace attune {

/// Error when two have one name, a name holds other characters than a key of ours may, one cannot
/// be measured, or "loss" is missing. by: "strategy 'dpo'", who declares them.
void check_declarations(const std::vector<Metric>& metrics, const std::string& by);

/// In the run file's order. Decision record: docs/design/0009-strategies-in-a-list.md.
class Strategies {
 public:
  struct Named {
    std::string name;
    std::shared_ptr<Strategy> strategy;
  };
  /// owner: of their changes, where several runs share a base.
  explicit Strategies(std::vector<Named> list, std::int64_t owner = 0)
      : list_(std::move(list)), owner_(owner) {}

  /// Each strategy adds and chooses, through a view of its own. Errors: two of them train the same
  /// parameter, or define the loss; none trains any.
  void prepare(Model& model);
  /// Gives the run what is trained, and takes its seed for all that follows.
  void begin(Model& model, RunContext& run);
  /// step: the first of the epoch, or where a resumed run begins.
  void on_epoch(Model& model, std::int64_t epoch, std::int64_t step);
  void on_step(Model& model, std::int64_t step);
  /// What the steps train on; of_data: what the data file gives. After begin.
  std::shared_ptr<BatchSource> batches(Model& model, std::shared_ptr<BatchSource> of_data);
  /// Whether a strategy has changed the gradients.
  bool on_gradients(Model& model, std::int64_t step, double scale);
  void after_step(Model& model, std::int64_t step);

  std::vector<ParameterGroup> groups(Model& model);
  Loss loss(Model& model, const ForwardContext& context);
  /// What an evaluation measures; of_data: what the dataset plugin declares. Error:
  /// check_declarations. May be called before prepare.
  std::vector<Metric> metrics(std::vector<Metric> of_data) const;
  /// What is trained, as it was when prepared.
  const std::vector<NamedTensor>& trained() const { return trained_; }
  /// trained(), and what else the strategies keep.
  std::vector<NamedTensor> state(Model& model);
  /// The adapter of the one strategy that trains and has one; absent: the result is a whole model.
  std::optional<Adapter> export_adapter(Model& model);
  /// Copies an adapter into the one that this run trains. Error naming what differs: options,
  /// names, shapes. `from` names it in messages.
  void load_adapter(Model& model, const Adapter& adapter, const std::string& from);
  void merge(Model& model);
  /// Which of the list defines the loss, from 0; absent when none does.
  std::optional<std::size_t> defining_loss() const;

 private:
  void for_each(const char* function, std::optional<std::int64_t> step,
                const std::function<void(const Named&)>& work) const;
  /// Null unless there is exactly one.
  const Named* only_one_that_trains() const;
  std::optional<Adapter> adapter_to_start(Model& model);
  void check_losses() const;

  std::vector<Named> list_;
  std::int64_t owner_;
  std::int64_t seed_ = 0;
  std::vector<NamedTensor> trained_;
  std::vector<bool> trains_;  // by strategy
};

}  // namespace attune
