// NEFTune (Jain et al. 2024, arXiv:2310.05914, algorithm 1): noise on the embeddings while
// training.
#include <attune/device.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

class NefTune final : public attune::Strategy {
 public:
  struct Options {
    double alpha = 5;
    static void describe(attune::Schema<Options>& s) {
      s.key("alpha", &Options::alpha,
            "noise scale: the noise is uniform in +-alpha / sqrt(tokens of the sample * width)")
          .above(0);
    }
  };
  explicit NefTune(Options options) : options_(options) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    model.change_embeddings(
        [alpha = options_.alpha](const at::Tensor& h, attune::ForwardContext& context) {
          const auto& batch = context.batch();
          std::vector<double> bounds;
          for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
            const auto length = batch.starts[sample + 1] - batch.starts[sample];
            bounds.insert(bounds.end(), static_cast<std::size_t>(length),
                          alpha / std::sqrt(static_cast<double>(length * h.size(1))));
          }
          const at::Tensor bound = attune::on_device(torch::tensor(bounds, at::kFloat), h.device())
                                       .to(h.scalar_type())
                                       .unsqueeze(1);
          return h + (2 * context.random(h) - 1).to(h.scalar_type()) * bound;
        });
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("neftune", "1.0.0", registry) {
  registry.strategy<NefTune>("neftune",
                             "uniform noise on the embeddings during training (NEFTune); combine "
                             "it with a strategy that trains parameters");
}
