// Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7): a share of every target is
// spread over all outputs.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class LabelSmoothing final : public attune::Strategy {
 public:
  struct Options {
    double share = 0.1;
    static void describe(attune::Schema<Options>& s) {
      s.key("share", &Options::share,
            "fraction of the target probability that is spread over all outputs")
          .range(0, 0.99);
    }
  };
  explicit LabelSmoothing(Options options) : options_(options) {}

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
    attune::Loss loss{
        (1 - options_.share) * losses.nll.sum() + options_.share * losses.uniform.sum(),
        losses.rows.size(0), losses.correct};
    loss.report("cross_entropy", losses.nll);
    return loss;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("label_smoothing", "1.0.0", registry) {
  registry.strategy<LabelSmoothing>(
      "label_smoothing",
      "cross-entropy with smoothed targets; combine it with a strategy that trains parameters");
}
