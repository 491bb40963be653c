// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
// algorithm 2).
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

/// With g the scaled gradient and m the one tensor that is kept:
///
///     c = beta1 m + (1 - beta1) g
///     p = p - rate (sign(c) + decay p)
///     m = beta2 m + (1 - beta2) g
class Lion final : public attune::Optimizer {
 public:
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.99;
    static void describe(attune::Schema<Options>& s) {
      s.key("beta1", &Options::beta1,
            "weight of the running mean, relative to the current gradient, in the update direction")
          .at_least(0)
          .below(1);
      s.key("beta2", &Options::beta2, "decay rate of the running mean of gradients")
          .at_least(0)
          .below(1);
    }
  };
  explicit Lion(Options options) : options_(options) {}

  bool is_elementwise() const override { return true; }
  std::vector<attune::StateSpec> state(const attune::ParameterSpec& parameter) const override {
    return {{"exp_avg", parameter.sizes, parameter.dtype}};
  }

  void update(std::vector<attune::ParameterUpdate>& parameters,
              const attune::UpdateRates& rates) override {
    attune::scaled_gradients(parameters, rates);
    for (auto& each : parameters) {
      auto& mean = each.state[0];
      const auto direction =
          (mean * options_.beta1).add_(each.gradient * (1 - options_.beta1)).sign_();
      each.parameter.mul_(1 - rates.learning_rate * rates.weight_decay)
          .add_(direction, -rates.learning_rate);
      mean.mul_(options_.beta2).add_(each.gradient, 1 - options_.beta2);
    }
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("lion", "1.0.0", registry) {
  registry.optimizer<Lion>(
      "lion",
      "Lion: updates by the sign of an interpolated momentum, with half the state of AdamW");
}
