// GPT-2 (Radford et al. 2019): a decoder with learned positions and LayerNorm before each part.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <attune/tied.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

using attune::fail;
using attune::ForwardContext;
using attune::nn::config_size;
using attune::nn::config_value;
using attune::nn::LayerNorm;
using attune::nn::Linear;
using nlohmann::json;

struct Config {
  std::int64_t width;
  std::int64_t inner;
  std::int64_t depth;
  std::int64_t heads;
  std::int64_t vocabulary;
  std::int64_t context;
  double eps;
  // of the attention scores
  bool tied;
  bool scaled;
  bool scaled_by_depth;
  bool exact_gelu;
};

bool is_exact_gelu(const json& config) {
  const auto name = config_value<std::string>(config, "activation_function", "gelu_new");
  if (name != "gelu_new" && name != "gelu_pytorch_tanh" && name != "gelu")
    fail(
        "config.json has activation_function \"{}\", which plugin 'gpt2' does not support: "
        "gelu_new, gelu_pytorch_tanh and gelu are",
        name);
  return name == "gelu";
}

Config read_config(const json& json) {
  attune::nn::require_model_type(json, "gpt2");
  if (config_value<bool>(json, "add_cross_attention", false))
    fail(
        "config.json asks for add_cross_attention, which plugin 'gpt2' does not support: it "
        "supports only decoders");
  Config c{};
  c.width = config_size(json, "n_embd");
  c.inner = json.contains("n_inner") && !json["n_inner"].is_null() ? config_size(json, "n_inner")
                                                                   : 4 * c.width;
  c.depth = config_size(json, "n_layer");
  c.heads = config_size(json, "n_head");
  c.vocabulary = config_size(json, "vocab_size");
  c.context = config_size(json, "n_positions");
  c.eps = config_value<double>(json, "layer_norm_epsilon", 1e-5);
  c.tied = config_value<bool>(json, "tie_word_embeddings", true);
  c.scaled = config_value<bool>(json, "scale_attn_weights", true);
  c.scaled_by_depth = config_value<bool>(json, "scale_attn_by_inverse_layer_idx", false);
  c.exact_gelu = is_exact_gelu(json);
  if (c.width % c.heads != 0)
    fail(
        "config.json has n_embd {}, which is not divisible by its {} attention heads: take the "
        "config.json that came with the weights",
        c.width, c.heads);
  return c;
}

/// What transformers calls Conv1D.
std::shared_ptr<Linear> make_linear(std::int64_t in, std::int64_t out) {
  auto linear = std::make_shared<Linear>(in, out, true);
  linear->is_stored_transposed = true;
  return linear;
}

struct Attention : torch::nn::Module {
  Attention(const Config& c, std::int64_t index) : heads(c.heads) {
    c_attn = register_module("c_attn", make_linear(c.width, 3 * c.width));
    c_proj = register_module("c_proj", make_linear(c.width, c.width));
    if (c.scaled) scale /= std::sqrt(static_cast<double>(c.width) / static_cast<double>(c.heads));
    if (c.scaled_by_depth) scale /= static_cast<double>(index + 1);
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    const auto parts = c_attn->forward(x, context).chunk(3, 1);
    const auto split = [&](const at::Tensor& part) { return part.unflatten(1, {heads, -1}); };
    const at::Tensor seen = attune::nn::attention(split(parts[0]), split(parts[1]), split(parts[2]),
                                                  context, {.scale = scale});
    return c_proj->forward(seen.flatten(1), context);
  }

  std::shared_ptr<Linear> c_attn;
  std::shared_ptr<Linear> c_proj;
  std::int64_t heads;
  double scale = 1;
};

struct Mlp : torch::nn::Module {
  explicit Mlp(const Config& c) : approximation(c.exact_gelu ? "none" : "tanh") {
    c_fc = register_module("c_fc", make_linear(c.width, c.inner));
    c_proj = register_module("c_proj", make_linear(c.inner, c.width));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    return c_proj->forward(at::gelu(c_fc->forward(x, context), approximation), context);
  }

  std::shared_ptr<Linear> c_fc;
  std::shared_ptr<Linear> c_proj;
  const char* approximation;
};

struct Block : torch::nn::Module {
  Block(const Config& c, std::int64_t index) {
    ln_1 = register_module("ln_1", std::make_shared<LayerNorm>(c.width, c.eps));
    attn = register_module("attn", std::make_shared<Attention>(c, index));
    ln_2 = register_module("ln_2", std::make_shared<LayerNorm>(c.width, c.eps));
    mlp = register_module("mlp", std::make_shared<Mlp>(c));
  }
  std::shared_ptr<LayerNorm> ln_1;
  std::shared_ptr<LayerNorm> ln_2;
  std::shared_ptr<Attention> attn;
  std::shared_ptr<Mlp> mlp;
};

struct Decoder : torch::nn::Module {
  explicit Decoder(const Config& c) {
    wte = register_module("wte", std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    wpe = register_module("wpe", std::make_shared<attune::nn::Embedding>(c.context, c.width));
    auto list = register_module("h", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t index = 0; index < c.depth; ++index)
      list->push_back(blocks.emplace_back(std::make_shared<Block>(c, index)));
    ln_f = register_module("ln_f", std::make_shared<LayerNorm>(c.width, c.eps));
  }
  std::shared_ptr<attune::nn::Embedding> wte;
  std::shared_ptr<attune::nn::Embedding> wpe;
  std::vector<std::shared_ptr<Block>> blocks;
  std::shared_ptr<LayerNorm> ln_f;
};

struct CausalModel : torch::nn::Module {
  explicit CausalModel(const Config& c) {
    transformer = register_module("transformer", std::make_shared<Decoder>(c));
    lm_head =
        register_module("lm_head", c.tied ? std::make_shared<Linear>(transformer->wte->weight)
                                          : std::make_shared<Linear>(c.width, c.vocabulary, false));
  }
  std::shared_ptr<Decoder> transformer;
  std::shared_ptr<Linear> lm_head;
};

class Gpt2 final : public attune::Model {
 public:
  struct Options {
    double dropout = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("dropout", &Options::dropout,
            "dropout probability of embeddings and residual branches during training")
          .range(0, 0.9);
    }
  };
  Gpt2(const Options& options, attune::ModelContext& context)
      : Gpt2(options, context, config_of(context)) {}

  at::Tensor embed(ForwardContext& context) override {
    const auto& batch = context.batch();
    auto& net = *net_->transformer;
    return context.dropout(
        net.wte->forward(batch.tokens, context) + net.wpe->forward(batch.positions, context),
        dropout_);
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    auto& layer = *net_->transformer->blocks.at(static_cast<std::size_t>(index));
    const at::Tensor attended =
        h + context.dropout(layer.attn->forward(layer.ln_1->forward(h), context), dropout_);
    return attended +
           context.dropout(layer.mlp->forward(layer.ln_2->forward(attended), context), dropout_);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override {
    return net_->transformer->ln_f->forward(h);
  }
  Linear& projection() override { return *net_->lm_head; }
  attune::LayerRoles layer_roles() const override {
    return {{"c_attn"}, "attn.c_proj", "mlp.c_proj"};
  }
  torch::nn::Module& module() override { return *net_; }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("transformer.h.{}.", index);
  }

  json config() const override {
    json config = config_;
    config["architectures"] = {"GPT2LMHeadModel"};
    // the weights may hold another head, whatever config.json says
    if (!is_tied_) config["tie_word_embeddings"] = false;
    return config;
  }

 private:
  /// OpenAI's own files hold the bare decoder.
  static bool is_bare(const attune::WeightSource& weights) {
    return weights.contains("wte.weight");
  }

  static Config config_of(attune::ModelContext& context) {
    auto c = read_config(context.config);
    const auto* embedding = is_bare(context.weights) ? "wte.weight" : "transformer.wte.weight";
    c.tied = c.tied && attune::nn::is_tied(context.weights, embedding, "lm_head.weight");
    return c;
  }

  Gpt2(const Options& options, attune::ModelContext& context, const Config& c)
      : Model({.family = "gpt2",
               .width = c.width,
               .depth = c.depth,
               .vocabulary = c.vocabulary,
               .context = c.context,
               .outputs = c.vocabulary,
               .key_heads = c.heads,
               .head_width = c.width / c.heads,
               .embeds_positions = true}),
        config_(context.config),
        dropout_(options.dropout),
        is_tied_(c.tied),
        net_(std::make_shared<CausalModel>(c)) {
    const bool has_bare_names = is_bare(context.weights);
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      constexpr std::string_view prefix = "transformer.";
      return has_bare_names && name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    });
  }

  json config_;
  double dropout_;
  bool is_tied_;
  std::shared_ptr<CausalModel> net_;
};

}  // namespace

ATTUNE_PLUGIN("gpt2", "1.0.0", registry) {
  registry.model<Gpt2>("gpt2", "GPT-2, DistilGPT-2 and related decoders");
}
