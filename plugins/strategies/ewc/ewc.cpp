// Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796, equation 3): parameters
// that an earlier task needs are held near their start, the more the more it needs them.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class Ewc final : public attune::Strategy {
 public:
  struct Options {
    std::string data;
    std::int64_t samples = 200;
    double lambda = 100;
    static void describe(attune::Schema<Options>& s) {
      s.key("data", &Options::data,
            "data file of the earlier task, made by the same dataset plugin as the run's data")
          .path()
          .required();
      s.key("samples", &Options::samples,
            "number of samples of the earlier task that estimate each parameter's importance; 0: "
            "all")
          .at_least(0);
      s.key("lambda", &Options::lambda, "weight of the penalty that protects the earlier task")
          .above(0);
    }
  };
  explicit Ewc(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView&) override {}

  /// The diagonal of the empirical Fisher information: mean squared gradients of the batches' mean
  /// losses.
  void begin(attune::Model& model, attune::RunContext& run) override {
    if (!run.trains) return;
    for (const auto& [name, parameter] : run.trained)
      held_.push_back({name, parameter, parameter.detach().clone(), at::zeros_like(parameter)});
    std::int64_t batches = 0;
    run.data.for_each_batch(
        options_.data, options_.samples, [&](const attune::ForwardContext& context) {
          auto pass = context;
          pass.recompute = false;  // it gives no gradients of parameters to autograd::grad
          const auto loss = attune::supervised_loss(model, pass);
          if (loss.count == 0) return;
          std::vector<at::Tensor> parameters;
          for (const auto& held : held_) parameters.push_back(held.parameter);
          const auto gradients = torch::autograd::grad({loss.sum / static_cast<double>(loss.count)},
                                                       parameters, {}, {}, false, true);
          const torch::NoGradGuard no_grad;
          for (std::size_t i = 0; i < held_.size(); ++i)
            if (gradients[i].defined()) held_[i].importance.addcmul_(gradients[i], gradients[i]);
          ++batches;
        });
    if (batches == 0)
      attune::fail("strategy.data: {} has no training targets: prepare it with targets",
                   options_.data);
    for (auto& held : held_) held.importance.div_(static_cast<double>(batches));
  }

  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction& inner) override {
    auto loss = inner(model, context);
    if (!context.is_training()) return loss;
    at::Tensor penalty = at::zeros({}, loss.sum.options());
    for (const auto& held : held_)
      penalty = penalty + (held.importance * (held.parameter - held.start).square()).sum();
    loss.report("ewc/penalty", 0.5 * options_.lambda * penalty);
    loss.sum = loss.sum + 0.5 * options_.lambda * static_cast<double>(loss.count) * penalty;
    return loss;
  }

 private:
  struct Held {
    std::string name;
    at::Tensor parameter;
    at::Tensor start;
    at::Tensor importance;
  };
  Options options_;
  std::vector<Held> held_;
};

}  // namespace

ATTUNE_PLUGIN("ewc", "1.0.0", registry) {
  registry.strategy<Ewc>("ewc",
                         "elastic weight consolidation: penalizes changes that an earlier task "
                         "depends on; combine it with a strategy that trains parameters");
}
