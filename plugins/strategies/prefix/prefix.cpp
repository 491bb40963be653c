// Prefix tuning (Li and Liang 2021, arXiv:2101.00190): trained keys and values that every sample
// attends to, in every block.
#include <attune/device.hpp>
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

/// Keys and values of every block, as PEFT lays them out: [length, blocks * 2 * key heads * head
/// width], for every block its keys, then its values.
class Prefix : public torch::nn::Module, public attune::VirtualTokens {
 public:
  explicit Prefix(const attune::ModelSpec& spec)
      : spec(spec), width(spec.key_heads * spec.head_width) {}

  std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t block) override {
    const at::Tensor both =
        columns(2 * block * width, 2 * width).view({length(), 2, spec.key_heads, spec.head_width});
    return {both.select(1, 0), both.select(1, 1)};
  }

  /// [length, count]
  virtual at::Tensor columns(std::int64_t first, std::int64_t count) = 0;
  at::Tensor all() { return columns(0, spec.depth * 2 * width); }

  const attune::ModelSpec spec;
  const std::int64_t width;
};

class Plain final : public Prefix {
 public:
  Plain(std::int64_t length, const attune::ModelSpec& spec, const at::TensorOptions& options,
        double deviation)
      : Prefix(spec) {
    weight = register_parameter(
        "weight", attune::drawn_on_host(at::empty({length, spec.depth * 2 * width}, options),
                                        [&](at::Tensor& values) { values.normal_(0, deviation); }));
  }
  std::int64_t length() const override { return weight.size(0); }
  at::Tensor columns(std::int64_t first, std::int64_t count) override {
    return weight.narrow(1, first, count);
  }

  at::Tensor weight;
};

/// The paper's section 4.3: W_2 tanh(W_1 e + b_1) + b_2 of a vector e for each token. Only the rows
/// of W_2 that a block needs are used for it.
class Projected final : public Prefix {
 public:
  /// e ~ N(0, 1), W and b ~ U(-1/sqrt(in), 1/sqrt(in)), as in PEFT.
  Projected(std::int64_t length, const attune::ModelSpec& spec, const at::TensorOptions& options,
            std::int64_t hidden)
      : Prefix(spec) {
    const auto uniform = [&](at::IntArrayRef sizes, std::int64_t in) {
      return attune::drawn_on_host(at::empty(sizes, options), [&](at::Tensor& values) {
        values.uniform_(-1 / std::sqrt(in), 1 / std::sqrt(in));
      });
    };
    const auto out = spec.depth * 2 * width;
    embedding = register_parameter(
        "embedding", attune::drawn_on_host(at::empty({length, width}, options),
                                           [](at::Tensor& values) { values.normal_(); }));
    inner_weight = register_parameter("inner_weight", uniform({hidden, width}, width));
    inner_bias = register_parameter("inner_bias", uniform({hidden}, width));
    outer_weight = register_parameter("outer_weight", uniform({out, hidden}, hidden));
    outer_bias = register_parameter("outer_bias", uniform({out}, hidden));
  }
  std::int64_t length() const override { return embedding.size(0); }
  at::Tensor columns(std::int64_t first, std::int64_t count) override {
    const at::Tensor inner = at::linear(embedding, inner_weight, inner_bias).tanh();
    return at::linear(inner, outer_weight.narrow(0, first, count),
                      outer_bias.narrow(0, first, count));
  }

  at::Tensor embedding;
  at::Tensor inner_weight;
  at::Tensor inner_bias;
  at::Tensor outer_weight;
  at::Tensor outer_bias;
};

class PrefixTuning final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t tokens = 20;
    std::int64_t projection = 0;
    double deviation = 0.02;
    static void describe(attune::Schema<Options>& s) {
      s.key("tokens", &Options::tokens, "length of the prefix in tokens").range(1, 4096);
      s.key("projection", &Options::projection,
            "width of a network that produces keys and values during training; 0: keys and values "
            "are trained directly")
          .range(0, 65536);
      s.key("deviation", &Options::deviation,
            "standard deviation of the initial keys and values, without `projection`")
          .above(0);
    }
  };
  explicit PrefixTuning(Options options) : options_(options) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    const auto& spec = model.spec();
    if (spec.key_heads == 0)
      attune::fail(
          "strategy 'prefix' adds keys and values to attention, which a {} model does not support: "
          "choose another strategy",
          spec.family);
    if (options_.tokens >= spec.context)
      attune::fail("strategy.tokens is {}, which uses up the model's context of {}: lower it",
                   options_.tokens, spec.context);
    const auto like = model.projection().options().dtype(at::kFloat);
    if (options_.projection > 0)
      prefix_ = std::make_shared<Projected>(options_.tokens, spec, like, options_.projection);
    else
      prefix_ = std::make_shared<Plain>(options_.tokens, spec, like, options_.deviation);
    view.add_virtual_tokens(prefix_);
    attune::nn::train_head(view);
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    const auto& spec = model.spec();
    const bool projects = options_.projection > 0;
    // PEFT too saves what the network gives, without the network.
    auto adapter = attune::nn::peft_adapter(
        model,
        {{"peft_type", "PREFIX_TUNING"},
         {"num_virtual_tokens", options_.tokens},
         {"token_dim", prefix_->width},
         {"num_transformer_submodules", 1},
         {"num_attention_heads", spec.key_heads},
         {"num_layers", spec.depth},
         {"encoder_hidden_size", projects ? options_.projection : prefix_->width},
         {"prefix_projection", projects}},
        {{"prompt_embeddings", projects ? prefix_->all().detach() : prefix_->all()}});
    adapter.is_live = !projects;
    return adapter;
  }

  void merge(attune::Model&) override {
    attune::fail(
        "a prefix does not change the weights and cannot be merged into them: export without "
        "--merge");
  }

 private:
  Options options_;
  std::shared_ptr<Prefix> prefix_;
};

}  // namespace

ATTUNE_PLUGIN("prefix", "1.0.0", registry) {
  registry.strategy<PrefixTuning>(
      "prefix",
      "prefix tuning: learned keys and values before each sample in every block, saved for PEFT");
}
