// Bottleneck adapters: a small two-layer network after each half of a block (Houlsby et al. 2019,
// arXiv:1902.00751, section 2.1), or after the MLP alone (Pfeiffer et al. 2021, arXiv:2005.00247).
#include <attune/device.hpp>
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

namespace {

enum class Kind { houlsby, pfeiffer };
enum class Activation { relu, gelu };
const attune::Choices<Activation> activations{{"relu", Activation::relu},
                                              {"gelu", Activation::gelu}};

using attune::nn::Linear;

/// y + up(act(down(y))) after a layer of `out` outputs; up starts at zero.
class Bottleneck final : public attune::nn::Delta {
 public:
  Bottleneck(const Linear& base, std::int64_t width, bool gelu) : gelu_(gelu) {
    const auto options = base.options().dtype(at::kFloat).requires_grad(false);
    down = register_parameter(
        "down", attune::drawn_on_host(at::empty({width, base.out()}, options),
                                      [](at::Tensor& values) { values.normal_(0, 0.01); }));
    down_bias = register_parameter("down_bias", at::zeros({width}, options));
    up = register_parameter("up", at::zeros({base.out(), width}, options));
    up_bias = register_parameter("up_bias", at::zeros({base.out()}, options));
  }

  at::Tensor forward(const Linear&, const at::Tensor& x, const at::Tensor& y,
                     attune::ForwardContext&) override {
    const auto as = [&](const at::Tensor& tensor) { return tensor.to(x.scalar_type()); };
    const at::Tensor inner = at::linear(as(y), as(down), as(down_bias));
    return y + at::linear(gelu_ ? at::gelu(inner) : at::relu(inner), as(up), as(up_bias));
  }

  void merge(Linear&) const override {
    attune::fail(
        "a bottleneck adapter is not linear and cannot be merged into the weights: export without "
        "--merge, or train with 'lora'");
  }

  at::Tensor down;
  at::Tensor down_bias;
  at::Tensor up;
  at::Tensor up_bias;

 private:
  bool gelu_;
};

class BottleneckAdapter final : public attune::Strategy {
 public:
  struct Options {
    Kind kind = Kind::houlsby;
    Activation activation = Activation::relu;
    std::int64_t width = 64;
    std::vector<std::string> after;
    static void describe(attune::Schema<Options>& s) {
      s.key("kind", &Options::kind,
            "placement of the adapters; houlsby: after attention and after the MLP; pfeiffer: only "
            "after the MLP",
            {{"houlsby", Kind::houlsby}, {"pfeiffer", Kind::pfeiffer}});
      s.key("width", &Options::width, "width of the bottleneck").range(1, 65536);
      s.key("activation", &Options::activation,
            "activation function between the adapter's two layers", activations);
      s.key("after", &Options::after,
            "names of the last linear layers of attention and MLP, after which adapters are "
            "inserted; empty: the standard layers of the model family");
    }
  };
  explicit BottleneckAdapter(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    if (options_.after.empty()) choose_family(model);
    layers_ = attune::nn::choose_targets(model, options_.after, "strategy.after");
    for (const auto& [name, linear] : layers_)
      view.add_delta(*linear, "adapter",
                     std::make_shared<Bottleneck>(*linear, options_.width,
                                                  options_.activation == Activation::gelu));
    attune::nn::train_head(view);
  }

  /// PEFT has no such adapter: the folder has the same form, and Attune reads it.
  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    std::vector<attune::NamedTensor> tensors;
    std::vector<std::string> names;
    for (const auto& [name, linear] : layers_) {
      names.push_back(name);
      for (auto& parameter : linear->named_children()["adapter"]->named_parameters())
        tensors.emplace_back(attune::nn::peft_prefix(name) + "adapter." + parameter.key(),
                             parameter.value());
    }
    return attune::nn::peft_adapter(
        model,
        {{"adapter_type", "BOTTLENECK"},
         {"width", options_.width},
         {"activation", attune::name_of(options_.activation, activations)},
         {"after", names}},
        std::move(tensors));
  }

 private:
  void choose_family(attune::Model& model) {
    const auto roles = model.layer_roles();
    if (roles.attention_end.empty() || roles.mlp_end.empty())
      attune::fail(
          "strategy 'adapter' has no default layers for a {} model: list the last layers of "
          "attention and MLP in strategy.after",
          model.spec().family);
    for (const auto& [name, linear] : attune::nn::linears(model.module())) {
      const bool ends_attention = attune::nn::name_matches(roles.attention_end, name);
      // A pattern for the end of the MLP may fit the end of attention too, as BERT's does.
      if (ends_attention ? options_.kind == Kind::houlsby
                         : attune::nn::name_matches(roles.mlp_end, name))
        options_.after.push_back(name);
    }
  }

  Options options_;
  std::vector<attune::nn::NamedLinear> layers_;
};

}  // namespace

ATTUNE_PLUGIN("adapter", "1.0.0", registry) {
  registry.strategy<BottleneckAdapter>(
      "adapter", "bottleneck adapters after attention and MLP (Houlsby, Pfeiffer)");
}
