// Odds-ratio preference optimization (Hong et al. 2024, arXiv:2403.07691, equations 6 and 7):
// supervised learning of the preferred answer, with a term that keeps it likelier than the rejected
// one. Needs no reference.
#include <attune/preference.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <limits>

namespace {

/// log(p / (1 - p)) of log p; of p = 1, which has none, that of the largest float below it.
at::Tensor log_odds(const at::Tensor& log_p) {
  const at::Tensor bounded = log_p.clamp_max(-std::numeric_limits<float>::epsilon());
  return bounded - at::log(-at::expm1(bounded));
}

class Orpo final : public attune::Strategy {
 public:
  struct Options {
    double lambda = 0.1;
    static void describe(attune::Schema<Options>& s) {
      s.key("lambda", &Options::lambda, "weight of the odds-ratio term").at_least(0);
    }
  };
  explicit Orpo(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}
  bool defines_loss() const override { return true; }

  /// Log-probabilities are means over the answer's tokens.
  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction&) override {
    const auto pairs = attune::pair_log_probabilities(model, context);
    const at::Tensor chosen = pairs.chosen / pairs.chosen_tokens;
    const at::Tensor rejected = pairs.rejected / pairs.rejected_tokens;
    const at::Tensor ratio = log_odds(chosen) - log_odds(rejected);
    const at::Tensor term = at::log_sigmoid(ratio);
    attune::Loss loss{(-chosen - options_.lambda * term).sum(), ratio.size(0), (ratio > 0).sum()};
    attune::report_rewards(loss, options_.lambda * chosen, options_.lambda * rejected);
    loss.report("nll_loss", -chosen);
    loss.report("log_odds_ratio", term);
    loss.report("log_odds_chosen", ratio);
    return loss;
  }

  std::vector<attune::Metric> metrics(std::vector<attune::Metric> inner) const override {
    return attune::reward_metrics(std::move(inner), "mean loss of the pairs",
                                  "fraction of pairs whose chosen answer is more likely");
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("orpo", "1.0.0", registry) {
  registry.strategy<Orpo>("orpo",
                          "odds-ratio preference optimization without a reference model (ORPO); "
                          "combine it with a strategy that trains parameters");
}
