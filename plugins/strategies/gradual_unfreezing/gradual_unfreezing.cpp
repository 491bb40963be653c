// Gradual unfreezing (Howard and Ruder 2018, arXiv:1801.06146, section 3.3): the head first, then
// block after block, from the output down. Trains nothing itself: it holds back what the strategies
// before it train.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class GradualUnfreezing final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t every_steps = 0;
    std::int64_t every_epochs = 1;
    std::int64_t blocks = 1;
    std::int64_t first = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("every_epochs", &Options::every_epochs, "epochs between unfreezings").at_least(1);
      s.key("every_steps", &Options::every_steps,
            "optimizer steps between unfreezings, used instead of `every_epochs`; 0 disables it")
          .at_least(0);
      s.key("blocks", &Options::blocks, "number of blocks to unfreeze each time").at_least(1);
      s.key("first", &Options::first,
            "number of blocks to train from the start, in addition to the layers above the blocks")
          .at_least(0);
    }
  };
  explicit GradualUnfreezing(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}

  void begin(attune::Model& model, attune::RunContext& run) override {
    const auto depths = attune::nn::parameter_depths(model);
    for (const auto& parameter : run.trained)
      held_.emplace_back(parameter.second, depths.at(parameter.first));
    // Where nothing lies above the blocks, the first of them must begin.
    const auto top = std::max_element(held_.begin(), held_.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->second;
    if (top < model.spec().depth + 1)
      options_.first = std::max(options_.first, model.spec().depth + 1 - top);
  }

  void on_epoch(attune::Model& model, std::int64_t epoch) override {
    if (options_.every_steps == 0) unfreeze(model, epoch / options_.every_epochs);
  }

  void on_step(attune::Model& model, std::int64_t step) override {
    if (options_.every_steps > 0) unfreeze(model, step / options_.every_steps);
  }

 private:
  void unfreeze(attune::Model& model, std::int64_t times) const {
    const auto lowest = model.spec().depth + 1 - options_.first - times * options_.blocks;
    for (const auto& [parameter, depth] : held_) parameter.set_requires_grad(depth >= lowest);
  }

  Options options_;
  std::vector<std::pair<at::Tensor, std::int64_t>> held_;  // with their depths
};

}  // namespace

ATTUNE_PLUGIN("gradual_unfreezing", "1.0.0", registry) {
  registry.strategy<GradualUnfreezing>(
      "gradual_unfreezing",
      "unfreezes the head first, then block by block from the output down; combine it with a "
      "strategy that trains parameters");
}
