// Trains some of the model's own parameters, chosen by name or by depth.
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <unordered_set>

namespace {

class Freeze final : public attune::Strategy {
 public:
  struct Options {
    std::vector<std::string> train;
    std::vector<std::string> freeze;
    std::int64_t last_blocks = 0;
    bool head = true;
    static void describe(attune::Schema<Options>& s) {
      s.key(
          "train", &Options::train,
          "names of parameters to train, in addition to `last_blocks`; '*' matches any characters");
      s.key("freeze", &Options::freeze,
            "names of parameters to freeze; overrides `train` and `last_blocks`");
      s.key("last_blocks", &Options::last_blocks,
            "number of blocks to train, counted from the output")
          .at_least(0);
      s.key("head", &Options::head, "train a classifier's head regardless of `train` and `freeze`");
    }
  };
  explicit Freeze(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    auto parameters = model.module().named_parameters();
    const auto names = parameters.keys();
    const auto trained = trained_names(model, names);
    for (auto& parameter : parameters)
      if (trained.contains(parameter.key())) view.train(parameter.value());
    if (options_.head) attune::nn::train_head(view);
  }

 private:
  std::unordered_set<std::string> trained_names(attune::Model& model,
                                                const std::vector<std::string>& names) const {
    std::unordered_set<std::string> trained;
    if (options_.train.empty() && options_.last_blocks == 0)
      trained.insert(names.begin(), names.end());
    for (const auto& name : attune::nn::select_names(options_.train, names, "strategy.train"))
      trained.insert(name);
    for (const auto& prefix : last_blocks(model)) {
      for (const auto& name : names) {
        if (name.starts_with(prefix)) trained.insert(name);
      }
    }
    for (const auto& name : attune::nn::select_names(options_.freeze, names, "strategy.freeze"))
      trained.erase(name);
    return trained;
  }

  std::vector<std::string> last_blocks(const attune::Model& model) const {
    const auto depth = model.spec().depth;
    if (options_.last_blocks > depth)
      attune::fail("strategy.last_blocks is {}, but the model has {} blocks: set it to at most {}",
                   options_.last_blocks, depth, depth);
    std::vector<std::string> prefixes;
    for (auto index = depth - options_.last_blocks; index < depth; ++index)
      prefixes.push_back(model.block_name(index));
    return prefixes;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("freeze", "1.0.0", registry) {
  registry.strategy<Freeze>("freeze",
                            "trains a subset of the parameters, chosen by name or by depth");
}
