// Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 4): what the model already gets right
// counts less.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <limits>

namespace {

class Focal final : public attune::Strategy {
 public:
  struct Options {
    double gamma = 2;
    static void describe(attune::Schema<Options>& s) {
      s.key("gamma", &Options::gamma,
            "focusing exponent: the loss is -(1 - p)^gamma log p for a target of probability p; 0: "
            "cross-entropy")
          .range(0, 10);
    }
  };
  explicit Focal(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}
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
    // 1 - p; never zero, where a power below 1 has no finite slope.
    const at::Tensor wrong = (-at::expm1(-losses.nll)).clamp_min(std::numeric_limits<float>::min());
    attune::Loss loss{(wrong.pow(options_.gamma) * losses.nll).sum(), losses.rows.size(0),
                      losses.correct};
    loss.report("cross_entropy", losses.nll);
    return loss;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("focal", "1.0.0", registry) {
  registry.strategy<Focal>("focal",
                           "focal loss, which down-weights well-predicted targets; combine it with "
                           "a strategy that trains parameters");
}
