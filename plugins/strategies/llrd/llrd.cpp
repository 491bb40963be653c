// Layer-wise learning-rate decay ("discriminative fine-tuning", Howard and Ruder 2018,
// arXiv:1801.06146, section 3.2): the deeper towards the input, the slower. Trains nothing itself:
// it slows what the strategies before it train.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>

#include <cmath>

namespace {

class LayerwiseDecay final : public attune::Strategy {
 public:
  struct Options {
    double decay = 0.9;
    static void describe(attune::Schema<Options>& s) {
      s.key("decay", &Options::decay, "learning-rate factor from each block to the block below")
          .range(0.01, 1);
    }
  };
  explicit LayerwiseDecay(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}

  std::vector<attune::ParameterGroup> groups(attune::Model& model,
                                             std::vector<attune::ParameterGroup> groups) override {
    const auto depths = attune::nn::parameter_depths(model);
    const auto top = model.spec().depth + 1;
    std::vector<attune::ParameterGroup> layered;
    for (const auto& group : groups) {
      std::map<std::int64_t, attune::ParameterGroup> by_depth;
      for (const auto& parameter : group.parameters) {
        const auto depth = depths.at(parameter.first);
        auto& part = by_depth[depth];
        part.learning_rate_scale =
            group.learning_rate_scale * std::pow(options_.decay, static_cast<double>(top - depth));
        part.weight_decay_scale = group.weight_decay_scale;
        part.parameters.push_back(parameter);
      }
      for (auto& [depth, part] : by_depth) layered.push_back(std::move(part));
    }
    return layered;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("llrd", "1.0.0", registry) {
  registry.strategy<LayerwiseDecay>("llrd",
                                    "layer-wise learning-rate decay: lower rates for lower blocks; "
                                    "combine it with a strategy that trains parameters");
}
