// Trains every parameter.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class Full final : public attune::Strategy {
 public:
  using Options = attune::NoOptions;
  explicit Full(const Options&) {}
  void prepare(attune::ModelView& view) override { view.train(view.model().module()); }
};

}  // namespace

ATTUNE_PLUGIN("full", "1.0.0", registry) {
  registry.strategy<Full>("full", "trains all parameters");
}
