// BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): trains the biases, and a classifier's head.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class BitFit final : public attune::Strategy {
 public:
  struct Options {
    bool norms = false;
    static void describe(attune::Schema<Options>& s) {
      s.key(
          "norms", &Options::norms,
          "also train the weights of the norms; required for models without biases, such as Llama");
    }
  };
  explicit BitFit(Options options) : options_(options) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    bool any = false;
    for (auto& parameter : model.module().named_parameters()) {
      const auto& name = parameter.key();
      const bool of_norm = parameter.value().dim() == 1 && name.ends_with("weight");
      if (!name.ends_with("bias") && !(options_.norms && of_norm)) continue;
      view.train(parameter.value());
      any = true;
    }
    if (!any)
      attune::fail(
          "strategy 'bitfit' trains biases, but this {} model has none: set norms = true to train "
          "the weights of its norms",
          model.spec().family);
    attune::nn::train_head(view);
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("bitfit", "1.0.0", registry) {
  registry.strategy<BitFit>("bitfit", "trains only the biases, and a classifier's head (BitFit)");
}
