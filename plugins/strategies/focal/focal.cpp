// Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 4): what the model already gets right counts less.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <limits>

namespace {

class Focal final : public attune::Strategy {
 public:
  struct Options {
    double gamma = 2;
    static void describe(attune::Schema<Options>& s) { s.key("gamma", &Options::gamma, "-(1 - p)^gamma log p for a target of probability p; 0: cross-entropy").range(0, 10); }
  };
  explicit Focal(Options options) : options_(options) {}

  void prepare(attune::Model&) override {}
  bool defines_loss() const override { return true; }

  attune::Loss loss(attune::Model& model, const attune::Batch& batch, const attune::LossFunction& inner) override {
    if (!model.module().is_training()) return inner(model, batch);
    const auto losses = attune::row_losses(model.features(batch), model.projection(), batch.targets);
    // 1 - p; never zero, where a power below 1 has no finite slope.
    const at::Tensor wrong = (-at::expm1(-losses.nll)).clamp_min(std::numeric_limits<float>::min());
    return {(wrong.pow(options_.gamma) * losses.nll).sum(), losses.rows.size(0), losses.correct, {}};
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("focal", "1.0.0", registry) { registry.strategy<Focal>("focal", "over another strategy: what is already right counts less (focal loss)"); }
