// Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306, equation 8). The reference is the base, with the adapters off.
#include <attune/preference.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class Kto final : public attune::Strategy {
 public:
  struct Options {
    double beta = 0.1, desirable = 1, undesirable = 1;
    static void describe(attune::Schema<Options>& s) {
      s.key("beta", &Options::beta, "how closely the model is held to its base; larger is closer").above(0);
      s.key("desirable", &Options::desirable, "weight of preferred answers").at_least(0);
      s.key("undesirable", &Options::undesirable, "weight of rejected answers").at_least(0);
    }
  };
  explicit Kto(Options options) : options_(options) {}

  void prepare(attune::Model&) override {}
  bool defines_loss() const override { return true; }

  attune::Loss loss(attune::Model& model, const attune::Batch& batch, const attune::LossFunction&) override {
    const auto base = attune::base_pair_log_probabilities(model, batch, "kto");
    const auto ours = attune::pair_log_probabilities(model, batch);
    const at::Tensor chosen = ours.chosen - base.chosen, rejected = ours.rejected - base.rejected;
    // The reference point: how far the model has moved from its base, estimated on the forward pass's own answers, and never below zero.
    const at::Tensor moved = at::cat({chosen, rejected}).detach().mean().clamp_min(0);
    const at::Tensor liked = options_.desirable * (1 - at::sigmoid(options_.beta * (chosen - moved)));
    const at::Tensor disliked = options_.undesirable * (1 - at::sigmoid(options_.beta * (moved - rejected)));
    return {liked.sum() + disliked.sum(), 2 * chosen.size(0), (chosen > 0).sum().item<std::int64_t>() + (rejected < 0).sum().item<std::int64_t>(), {}, false};
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("kto", "1.0.0", registry) { registry.strategy<Kto>("kto", "over an adapter: good answers become likelier, bad ones less, each by itself (KTO)"); }
