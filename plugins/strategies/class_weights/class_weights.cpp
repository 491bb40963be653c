// Cross-entropy in which every class counts as much as its weight.
#include <attune/linear.hpp>
#include <attune/device.hpp>
#include <attune/plugin.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <charconv>

namespace {

class ClassWeights final : public attune::Strategy {
 public:
  struct Options {
    attune::NumberMap weights;
    static void describe(attune::Schema<Options>& s) {
      s.key("weights", &Options::weights,
            "weight of each class by label index: { \"0\" = 0.5, \"1\" = 2.0 }; empty: the weights "
            "in the data file, which a recipe with [balance] method = \"weights\" stores there");
    }
  };
  explicit ClassWeights(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    if (model.spec().task == attune::Task::next_token)
      attune::fail(
          "strategy 'class_weights' is for classifiers, but this {} model predicts tokens: remove "
          "the strategy",
          model.spec().family);
    std::vector<double> weights(static_cast<std::size_t>(model.spec().outputs), 1.0);
    for (const auto& [label, weight] : options_.weights) {
      std::size_t number = weights.size();
      std::from_chars(label.data(), label.data() + label.size(), number);
      if (number >= weights.size() || weight < 0)
        attune::fail(
            "strategy.weights has \"{}\" = {}: the model has labels 0 to {}, and a weight must be "
            "at least 0",
            label, weight, weights.size() - 1);
      weights[number] = weight;
    }
    set(weights, model);
  }

  void begin(attune::Model& model, attune::RunContext& run) override {
    if (!options_.weights.empty()) return;
    const auto weights = run.data.class_weights();
    if (weights.empty())
      attune::fail(
          "strategy 'class_weights': the data file has no class weights: prepare it with [balance] "
          "method = \"weights\", or set strategy.weights");
    if (std::ssize(weights) != model.spec().outputs)
      attune::fail(
          "the data file has weights for {} labels, but the model has {}: prepare it again",
          weights.size(), model.spec().outputs);
    set(weights, model);
  }

  bool defines_loss() const override { return true; }
  /// What is measured is the plain loss.
  std::vector<attune::Metric> metrics(std::vector<attune::Metric> inner) const override {
    return inner;
  }

  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction& inner) override {
    if (!context.is_training()) return inner(model, context);
    const auto losses = attune::row_losses(model.features(context), model.projection(),
                                           context.batch().targets, context);
    attune::Loss loss{(weights_.index_select(0, losses.targets) * losses.nll).sum(),
                      losses.rows.size(0), losses.correct};
    loss.report("cross_entropy", losses.nll);
    return loss;
  }

 private:
  void set(const std::vector<double>& weights, attune::Model& model) {
    weights_ = attune::on_device(torch::tensor(weights, at::kFloat),
                                 model.projection().options().device());
  }

  Options options_;
  at::Tensor weights_;  // [outputs]
};

}  // namespace

ATTUNE_PLUGIN("class_weights", "1.0.0", registry) {
  registry.strategy<ClassWeights>(
      "class_weights",
      "class-weighted cross-entropy; combine it with a strategy that trains parameters");
}
