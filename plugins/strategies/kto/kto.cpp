// Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306, equation 8). The
// reference is the base, with the adapters off.
#include <attune/preference.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class Kto final : public attune::Strategy {
 public:
  struct Options {
    double beta = 0.1;
    double desirable = 1;
    double undesirable = 1;
    static void describe(attune::Schema<Options>& s) {
      s.key("beta", &Options::beta,
            "strength of the pull toward the base model; larger values keep the tuned model closer")
          .above(0);
      s.key("desirable", &Options::desirable, "loss weight of chosen answers").at_least(0);
      s.key("undesirable", &Options::undesirable, "loss weight of rejected answers").at_least(0);
    }
  };
  explicit Kto(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}
  bool defines_loss() const override { return true; }

  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction&) override {
    const auto base = attune::base_pair_log_probabilities(model, context, "kto");
    const auto ours = attune::pair_log_probabilities(model, context);
    const at::Tensor chosen = ours.chosen - base.chosen;
    const at::Tensor rejected = ours.rejected - base.rejected;
    const at::Tensor moved = reference_point(model, context, chosen.options());
    const at::Tensor liked =
        options_.desirable * (1 - at::sigmoid(options_.beta * (chosen - moved)));
    const at::Tensor disliked =
        options_.undesirable * (1 - at::sigmoid(options_.beta * (moved - rejected)));
    const at::Tensor correct = (chosen > 0).sum() + (rejected < 0).sum();
    attune::Loss loss{liked.sum() + disliked.sum(), 2 * chosen.size(0), correct};
    attune::report_rewards(loss, options_.beta * chosen, options_.beta * rejected);
    loss.report("kl", moved);
    return loss;
  }

  std::vector<attune::Metric> metrics(std::vector<attune::Metric> inner) const override {
    return attune::reward_metrics(
        std::move(inner), "mean loss of the answers",
        "fraction of answers whose likelihood has moved in the right direction");
  }

 private:
  /// KL(model || base), estimated on prompts with the answers to other prompts, and never below
  /// zero: zero where there is no other prompt.
  static at::Tensor reference_point(attune::Model& model, const attune::ForwardContext& context,
                                    const at::TensorOptions& like) {
    const auto& batch = context.batch();
    const at::Tensor nothing = at::zeros({}, like.requires_grad(false));
    if (batch.samples() <= 2) return nothing;
    const torch::NoGradGuard no_grad;
    const auto others = context.with_batch(mismatched(batch, model.spec().context));
    const auto ours = attune::pair_log_probabilities(model, others);
    const auto base = attune::base_pair_log_probabilities(model, others, "kto");
    if (ours.chosen.size(0) == 0) return nothing;
    return at::cat({ours.chosen - base.chosen, ours.rejected - base.rejected}).mean().clamp_min(0);
  }

  /// Each prompt with the two answers of the next pair, the last with those of the first; as much
  /// of them as the context holds.
  static attune::Batch mismatched(const attune::Batch& batch, std::int64_t context) {
    const at::Tensor all_tokens = batch.on_host(batch.tokens);
    const at::Tensor all_targets = batch.on_host(batch.targets);
    std::vector<at::Tensor> prompts;
    std::vector<at::Tensor> answers;
    std::vector<at::Tensor> tokens;
    std::vector<at::Tensor> targets;
    for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
      const auto first = batch.starts[sample];
      const auto length = batch.starts[sample + 1] - first;
      const at::Tensor own = all_tokens.narrow(0, first, length);
      const at::Tensor trained =
          at::nonzero(all_targets.narrow(0, first, length) != attune::ignored_target);
      // a row is to predict the next token
      const auto begin = trained.size(0) == 0 ? length : trained[0].item<std::int64_t>() + 1;
      prompts.push_back(own.narrow(0, 0, begin));
      answers.push_back(own.narrow(0, begin, length - begin));
    }
    for (std::size_t sample = 0; sample < prompts.size(); ++sample) {
      const auto prompt = prompts[sample].size(0);
      at::Tensor both = at::cat({prompts[sample], answers[(sample + 2) % answers.size()]});
      both = both.narrow(0, 0, std::min(both.size(0), context));
      at::Tensor mask = at::ones({both.size(0)}, at::kByte);
      mask.narrow(0, 0, prompt).zero_();
      tokens.push_back(both);
      targets.push_back(attune::next_token_targets(both, mask));
    }
    attune::Batch made = attune::pack(tokens);
    made.targets = at::cat(targets);
    for (auto* tensor : {&made.tokens, &made.positions, &made.targets})
      *tensor = made.put(*tensor, batch.tokens.device());
    made.columns["chosen"] = batch.columns.at("chosen");
    made.ids = batch.ids;
    return made;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("kto", "1.0.0", registry) {
  registry.strategy<Kto>("kto",
                         "Kahneman-Tversky optimization, which rates each answer by itself (KTO); "
                         "combine it with an adapter");
}
