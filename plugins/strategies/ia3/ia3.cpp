// IA3 (Liu et al. 2022, arXiv:2205.05638, section 3.3): keys, values and the inner activations of
// the MLP are scaled by trained vectors.
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace {

using attune::nn::Linear;

/// Scales the layer's output [out], or its input [in] in a feed-forward layer; starts at 1.
class Scale final : public attune::nn::Delta {
 public:
  Scale(const Linear& base, bool of_input) : of_input_(of_input) {
    const auto shape = of_input ? std::vector<std::int64_t>{1, base.in()}
                                : std::vector<std::int64_t>{base.out(), 1};
    factors = register_parameter("l", at::ones(shape, base.options().dtype(at::kFloat)));
  }

  at::Tensor input(const at::Tensor& x) override { return of_input_ ? x * flat(x) : x; }
  at::Tensor forward(const Linear&, const at::Tensor& x, const at::Tensor& y,
                     attune::ForwardContext&) override {
    if (of_input_) return y;
    if (x.scalar_type() == y.scalar_type()) return y * flat(y);
    return y + y.to(x.scalar_type()) * (flat(y) - 1);  // of y, what is kept is as narrow as x
  }

  void merge(Linear& base) const override {
    base.weight.mul_(factors);
    if (!of_input_ && base.bias.defined()) base.bias.mul_(factors.flatten());
  }

  at::Tensor factors;  // as PEFT shapes them

 private:
  at::Tensor flat(const at::Tensor& like) const {
    return attune::nn::rounded(factors.flatten(), like.scalar_type());
  }
  bool of_input_;
};

class Ia3 final : public attune::Strategy {
 public:
  struct Options {
    std::vector<std::string> targets;
    std::vector<std::string> feedforward;
    static void describe(attune::Schema<Options>& s) {
      s.key("targets", &Options::targets,
            "names of the linear layers to scale; empty: keys, values and the second MLP layer of "
            "the model family");
      s.key("feedforward", &Options::feedforward,
            "those of the `targets` whose input is scaled instead of the output");
    }
  };
  explicit Ia3(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    if (options_.targets.empty()) choose_family(model);
    layers_ = attune::nn::choose_targets(model, options_.targets);
    const auto inner = attune::nn::select_names(options_.feedforward, attune::nn::names_of(layers_),
                                                "strategy.feedforward");
    for (const auto& [name, linear] : layers_) {
      const bool of_input = std::ranges::find(inner, name) != inner.end();
      const auto scale = std::make_shared<Scale>(*linear, of_input);
      view.add_delta(*linear, "ia3", scale);
      scales_.push_back(scale);
      if (of_input) feedforward_.emplace_back(name, linear);
    }
    attune::nn::train_head(view);
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    std::vector<attune::NamedTensor> tensors;
    for (std::size_t i = 0; i < layers_.size(); ++i)
      tensors.emplace_back(attune::nn::peft_prefix(layers_[i].first) + "ia3_l",
                           scales_[i]->factors);
    return attune::nn::peft_adapter(
        model,
        {{"peft_type", "IA3"},
         {"target_modules", attune::nn::peft_names(model, attune::nn::names_of(layers_))},
         {"feedforward_modules", attune::nn::peft_names(model, attune::nn::names_of(feedforward_))},
         {"fan_in_fan_out", attune::nn::stored_transposed(layers_)},
         {"init_ia3_weights", true}},
        std::move(tensors));
  }

 private:
  /// Keys, values and the second layer of the MLP, as PEFT chooses them.
  void choose_family(attune::Model& model) {
    const auto roles = model.layer_roles();
    if (roles.keys_values.empty() || roles.mlp_end.empty())
      attune::fail(
          "strategy 'ia3' has no default layers for a {} model: list its key, value and MLP layers "
          "in strategy.targets and strategy.feedforward",
          model.spec().family);
    options_.targets = roles.keys_values;
    options_.targets.push_back(roles.mlp_end);
    options_.feedforward = {roles.mlp_end};
  }

  Options options_;
  std::vector<attune::nn::NamedLinear> layers_;
  std::vector<attune::nn::NamedLinear> feedforward_;
  std::vector<std::shared_ptr<Scale>> scales_;  // by layer
};

}  // namespace

ATTUNE_PLUGIN("ia3", "1.0.0", registry) {
  registry.strategy<Ia3>(
      "ia3",
      "learned vectors that scale keys, values and inner MLP activations, saved for PEFT (IA3)");
}
