// The Llama family of decoders (Touvron et al. 2023, arXiv:2302.13971): RMSNorm before each part, rotary positions, grouped-query attention, SwiGLU.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

namespace {

using attune::Batch;
using attune::fail;
using attune::nn::config_size;
using attune::nn::config_value;
using nlohmann::json;

struct Config {
  std::int64_t width, inner, depth, heads, key_heads, head_width, vocabulary, context;
  double rope_base, eps;
  bool tied, attention_bias, mlp_bias;
};

/// Newer files hold the rotary settings in rope_parameters, older ones in rope_theta and rope_scaling.
double read_rope_base(const json& config) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_object()) continue;
    const auto type = config_value<std::string>(*found, found->contains("rope_type") ? "rope_type" : "type", "default");
    if (type != "default") fail("config.json asks for {} \"{}\", which plugin 'llama' does not support: only the default rotary embedding is", key, type);
  }
  const auto base = config_value<double>(config, "rope_theta", 10000.0);
  const auto parameters = config.find("rope_parameters");
  return parameters != config.end() && parameters->is_object() ? config_value<double>(*parameters, "rope_theta", base) : base;
}

Config read_config(const json& json) {
  attune::nn::require_model_type(json, "llama");
  const auto activation = config_value<std::string>(json, "hidden_act", "silu");
  if (activation != "silu") fail("config.json has hidden_act \"{}\", which plugin 'llama' does not support: only \"silu\" is", activation);
  Config c{};
  c.width = config_size(json, "hidden_size");
  c.inner = config_size(json, "intermediate_size");
  c.depth = config_size(json, "num_hidden_layers");
  c.heads = config_size(json, "num_attention_heads");
  c.key_heads = config_value<std::int64_t>(json, "num_key_value_heads", c.heads);
  c.head_width = config_value<std::int64_t>(json, "head_dim", c.width / c.heads);
  c.vocabulary = config_size(json, "vocab_size");
  c.context = config_size(json, "max_position_embeddings");
  c.rope_base = read_rope_base(json);
  c.eps = config_value<double>(json, "rms_norm_eps", 1e-6);
  c.tied = config_value<bool>(json, "tie_word_embeddings", false);
  c.attention_bias = config_value<bool>(json, "attention_bias", false);
  c.mlp_bias = config_value<bool>(json, "mlp_bias", false);
  if (c.key_heads < 1 || c.heads % c.key_heads != 0) {
    fail("config.json has {} attention heads for {} key-value heads, which do not divide them: take the config.json that came with the weights", c.heads, c.key_heads);
  }
  if (c.head_width < 2 || c.head_width % 2 != 0 || c.head_width > c.width) {
    fail("config.json gives heads of width {}, which cannot be rotated: take the config.json that came with the weights", c.head_width);
  }
  return c;
}

struct Attention : torch::nn::Module {
  explicit Attention(const Config& c) : head_width(c.head_width) {
    q_proj = linear("q_proj", c.width, c.heads * head_width, c.attention_bias);
    k_proj = linear("k_proj", c.width, c.key_heads * head_width, c.attention_bias);
    v_proj = linear("v_proj", c.width, c.key_heads * head_width, c.attention_bias);
    o_proj = linear("o_proj", c.heads * head_width, c.width, c.attention_bias);
  }

  at::Tensor forward(const at::Tensor& x, const Batch& batch, const attune::nn::Rotation& rotation, std::int64_t index) {
    const at::Tensor q = rotate(split(q_proj->forward(x)), rotation);
    const at::Tensor k = rotate(split(k_proj->forward(x)), rotation), v = split(v_proj->forward(x));
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    return o_proj->forward(attune::nn::attention(index, q, k, v, batch, {.scale = scale}).flatten(1));
  }

  std::shared_ptr<attune::nn::Linear> q_proj, k_proj, v_proj, o_proj;
  std::int64_t head_width;

 private:
  std::shared_ptr<attune::nn::Linear> linear(const char* name, std::int64_t in, std::int64_t out, bool bias) {
    return register_module(name, std::make_shared<attune::nn::Linear>(in, out, bias));
  }
  at::Tensor split(const at::Tensor& x) const { return x.unflatten(1, {-1, head_width}); }  // [T, heads, head_width]
};

struct Mlp : torch::nn::Module {
  explicit Mlp(const Config& c) {
    gate_proj = register_module("gate_proj", std::make_shared<attune::nn::Linear>(c.width, c.inner, c.mlp_bias));
    up_proj = register_module("up_proj", std::make_shared<attune::nn::Linear>(c.width, c.inner, c.mlp_bias));
    down_proj = register_module("down_proj", std::make_shared<attune::nn::Linear>(c.inner, c.width, c.mlp_bias));
  }
  at::Tensor forward(const at::Tensor& x) { return down_proj->forward(attune::nn::swiglu(gate_proj->forward(x), up_proj->forward(x))); }

  std::shared_ptr<attune::nn::Linear> gate_proj, up_proj, down_proj;
};

struct Block : torch::nn::Module {
  explicit Block(const Config& c) {
    self_attn = register_module("self_attn", std::make_shared<Attention>(c));
    mlp = register_module("mlp", std::make_shared<Mlp>(c));
    input_layernorm = register_module("input_layernorm", std::make_shared<attune::nn::RMSNorm>(c.width, c.eps));
    post_attention_layernorm = register_module("post_attention_layernorm", std::make_shared<attune::nn::RMSNorm>(c.width, c.eps));
  }

  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Mlp> mlp;
  std::shared_ptr<attune::nn::RMSNorm> input_layernorm, post_attention_layernorm;
};

struct Decoder : torch::nn::Module {
  explicit Decoder(const Config& c) {
    embed_tokens = register_module("embed_tokens", std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    auto list = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t index = 0; index < c.depth; ++index) list->push_back(layers.emplace_back(std::make_shared<Block>(c)));
    norm = register_module("norm", std::make_shared<attune::nn::RMSNorm>(c.width, c.eps));
  }

  std::shared_ptr<attune::nn::Embedding> embed_tokens;
  std::vector<std::shared_ptr<Block>> layers;
  std::shared_ptr<attune::nn::RMSNorm> norm;
};

struct CausalModel : torch::nn::Module {
  explicit CausalModel(const Config& c) {
    model = register_module("model", std::make_shared<Decoder>(c));
    lm_head = register_module("lm_head", c.tied ? std::make_shared<attune::nn::Linear>(model->embed_tokens->weight)
                                                : std::make_shared<attune::nn::Linear>(c.width, c.vocabulary, false));
  }

  std::shared_ptr<Decoder> model;
  std::shared_ptr<attune::nn::Linear> lm_head;
};

class Llama final : public attune::Model {
 public:
  using Options = attune::NoOptions;
  Llama(const Options&, attune::ModelContext& context) : Llama(context, read_config(context.config)) {}

  at::Tensor embed(const Batch& batch) override { return net_->model->embed_tokens->forward(batch.tokens); }

  at::Tensor block(std::int64_t index, const at::Tensor& h, const Batch& batch) override {
    auto& layer = *net_->model->layers.at(index);
    const at::Tensor attended = h + layer.self_attn->forward(layer.input_layernorm->forward(h), batch, rotary_.at(batch.positions), index);
    return attended + layer.mlp->forward(layer.post_attention_layernorm->forward(attended));
  }

  at::Tensor finish(const at::Tensor& h, const Batch&) override { return net_->model->norm->forward(h); }
  attune::nn::Linear& projection() override { return *net_->lm_head; }
  torch::nn::Module& module() override { return *net_; }
  std::string block_prefix(std::int64_t index) const override { return fmt::format("model.layers.{}.", index); }

  json config() const override {
    json config = config_;
    config["architectures"] = {"LlamaForCausalLM"};
    return config;
  }

 private:
  Llama(attune::ModelContext& context, const Config& c)
      : Model({.family = "llama", .width = c.width, .depth = c.depth, .vocabulary = c.vocabulary, .context = c.context, .outputs = c.vocabulary,
               .key_heads = c.key_heads, .head_width = c.head_width}),
        config_(context.config),
        net_(std::make_shared<CausalModel>(c)),
        rotary_(c.head_width, c.context, c.rope_base) {
    attune::nn::load_parameters(*net_, context.weights);
  }

  json config_;
  std::shared_ptr<CausalModel> net_;
  attune::nn::RotaryEmbedding rotary_;
};

}  // namespace

ATTUNE_PLUGIN("llama", "1.0.0", registry) { registry.model<Llama>("llama", "Llama family decoders: Llama 1-3, SmolLM, TinyLlama and their kin"); }
