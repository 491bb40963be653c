// Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, equation 7). The
// reference is the base itself: with the adapters off, or as it was before the first step.
#include <attune/preference.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

enum class Form { sigmoid, ipo, hinge };

class Dpo final : public attune::Strategy {
 public:
  struct Options {
    double beta = 0.1;
    double label_smoothing = 0;
    Form form = Form::sigmoid;
    static void describe(attune::Schema<Options>& s) {
      s.key("beta", &Options::beta,
            "strength of the pull toward the base model; larger values keep the tuned model closer")
          .above(0);
      s.key("form", &Options::form,
            "loss function; sigmoid: DPO; ipo: squared loss of IPO (Azar et al. 2023, "
            "arXiv:2310.12036); hinge: hinge loss of SLiC (Zhao et al. 2023, arXiv:2305.10425)",
            {{"sigmoid", Form::sigmoid}, {"ipo", Form::ipo}, {"hinge", Form::hinge}});
      s.key("label_smoothing", &Options::label_smoothing,
            "assumed fraction of pairs with swapped preference, for form = \"sigmoid\" only")
          .range(0, 0.49);
    }
  };
  explicit Dpo(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView&) override {}
  bool defines_loss() const override { return true; }
  void begin(attune::Model& model, attune::RunContext& run) override { base_.begin(model, run); }

  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction&) override {
    const auto base = base_.of(model, context, "dpo");
    const auto ours = attune::pair_log_probabilities(model, context);
    at::Tensor chosen = ours.chosen - base.chosen;
    at::Tensor rejected = ours.rejected - base.rejected;
    if (options_.form == Form::ipo) {
      chosen = chosen / ours.chosen_tokens;
      rejected = rejected / ours.rejected_tokens;
    }
    const at::Tensor margin = chosen - rejected;
    attune::Loss loss{of(margin).sum(), margin.size(0), (margin > 0).sum()};
    attune::report_rewards(loss, options_.beta * chosen, options_.beta * rejected);
    return loss;
  }

  std::vector<attune::Metric> metrics(std::vector<attune::Metric> inner) const override {
    return attune::reward_metrics(std::move(inner), "mean loss of the pairs",
                                  "fraction of pairs with a positive margin");
  }

 private:
  at::Tensor of(const at::Tensor& margin) const {
    if (options_.form == Form::hinge) return at::relu(1 - options_.beta * margin);
    if (options_.form == Form::ipo) return (margin - 1 / (2 * options_.beta)).square();
    return -(1 - options_.label_smoothing) * at::log_sigmoid(options_.beta * margin) -
           options_.label_smoothing * at::log_sigmoid(-options_.beta * margin);
  }

  Options options_;
  attune::BaseLogProbabilities base_;
};

}  // namespace

ATTUNE_PLUGIN("dpo", "1.0.0", registry) {
  registry.strategy<Dpo>("dpo",
                         "direct preference optimization on chosen and rejected answers (DPO, IPO, "
                         "hinge); combine it with a strategy that trains parameters");
}
