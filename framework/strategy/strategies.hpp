// Combines the strategies of a run. Each extends the result of the preceding ones.
#pragma once
#include <attune/strategy.hpp>

namespace attune {

/// Checks metric declarations. Error for a duplicate or invalid name, a metric without an
/// accumulator, or a missing "loss". by: the declarer in the message, such as "strategy 'dpo'".
void check_declarations(const std::vector<Metric>& metrics, const std::string& by);

/// A list in the order of the run file. Decision record: docs/design/0009-strategies-in-a-list.md.
class Strategies {
 public:
  struct Named {
    std::string name;
    std::shared_ptr<Strategy> strategy;
  };
  /// owner: owner of all changes, if several runs share a base (ForwardContext::shared_by).
  explicit Strategies(std::vector<Named> list, std::int64_t owner = 0)
      : list_(std::move(list)), owner_(owner) {}

  /// Calls each strategy's `prepare` with its own view. Error if two strategies train the same
  /// parameter or define the loss, or if no parameter is trained.
  void prepare(Model& model);
  /// Sets run.trained and calls each strategy's `begin`. Later calls use the run's seed.
  void begin(Model& model, RunContext& run);
  /// step: first step of the epoch, or the step at which a resumed run starts.
  void on_epoch(Model& model, std::int64_t epoch, std::int64_t step);
  void on_step(Model& model, std::int64_t step);
  /// Source of training batches; of_data: the data file's source. Call after begin().
  std::shared_ptr<BatchSource> batches(Model& model, std::shared_ptr<BatchSource> of_data);
  /// Whether on_gradients() inspects or changes gradients.
  bool need_gradients() const;
  /// Returns whether any strategy changed the gradients.
  bool on_gradients(Model& model, std::int64_t step, double scale);
  void after_step(Model& model, std::int64_t step);

  std::vector<ParameterGroup> groups(Model& model);
  Loss loss(Model& model, const ForwardContext& context);
  /// Metrics of an evaluation; of_data: those of the dataset plugin. Error: as check_declarations.
  /// May be called before prepare().
  std::vector<Metric> metrics(std::vector<Metric> of_data) const;
  /// Trainable parameters as of prepare().
  const std::vector<NamedTensor>& trained() const { return trained_; }
  /// trained(), and the strategies' further state.
  std::vector<NamedTensor> state(Model& model);
  /// Adapter of the only strategy that trains, if it has one; absent if the result is a whole
  /// model.
  std::optional<Adapter> export_adapter(Model& model);
  /// Copies an adapter into the parameters of this run's adapter. Error if options, names or shapes
  /// differ; it lists the differences. `from` names the source in messages.
  void load_adapter(Model& model, const Adapter& adapter, const std::string& from);
  void merge(Model& model);
  /// Index of the strategy that defines the loss; absent if none does.
  std::optional<std::size_t> defining_loss() const;

 private:
  void for_each(const char* function, std::optional<std::int64_t> step,
                const std::function<void(const Named&)>& work) const;
  /// Null unless exactly one strategy trains.
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
