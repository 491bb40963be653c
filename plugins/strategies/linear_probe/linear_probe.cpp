// Trains the head alone: what the frozen model already knows of the task.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class LinearProbe final : public attune::Strategy {
 public:
  using Options = attune::NoOptions;
  explicit LinearProbe(const Options&) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    attune::nn::train_head(view);
    if (!model.head_modules().empty()) return;
    auto& head = model.projection();
    if (head.parameters().empty())
      attune::fail(
          "strategy 'linear_probe' trains the head, but the head of this {} model is its token "
          "embedding: choose 'freeze' with train = [\"*norm*\"], 'bitfit' or 'lora'",
          model.spec().family);
    view.train(head);
  }
};

}  // namespace

ATTUNE_PLUGIN("linear_probe", "1.0.0", registry) {
  registry.strategy<LinearProbe>("linear_probe", "trains only the head");
}
