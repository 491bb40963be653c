// The Llama family of decoders (Touvron et al. 2023, arXiv:2302.13971): RMSNorm before each part,
// rotary positions, grouped-query attention, a gated feed-forward part. One implementation;
// config.hpp says what differs from member to member.
#include "config.hpp"

#include <attune/plugin.hpp>
#include <attune/tied.hpp>

namespace {

using attune::ForwardContext;
using attune::nn::config_value;
using attune::nn::Linear;
using attune::nn::RMSNorm;
using attune::nn::RotaryEmbedding;
using llama::Config;
using llama::Family;
using nlohmann::json;

std::shared_ptr<RMSNorm> make_norm(std::int64_t width, const Config& c, const Family& family) {
  return std::make_shared<RMSNorm>(width, c.eps, family.gemma ? 1 : 0);
}

struct Attention : torch::nn::Module {
  Attention(const Config& c, const Family& family, std::int64_t index)
      : head_width(c.head_width),
        options{.scale = c.scale,
                .window = c.windows.at(static_cast<std::size_t>(index)),
                .softcap = c.attention_softcap} {
    q_proj = register_module("q_proj",
                             std::make_shared<Linear>(c.width, c.heads * head_width, c.qkv_bias));
    k_proj = register_module(
        "k_proj", std::make_shared<Linear>(c.width, c.key_heads * head_width, c.qkv_bias));
    v_proj = register_module(
        "v_proj", std::make_shared<Linear>(c.width, c.key_heads * head_width, c.qkv_bias));
    o_proj = register_module(
        "o_proj", std::make_shared<Linear>(c.heads * head_width, c.width, c.output_bias));
    if (!family.qk_norm) return;
    q_norm = register_module("q_norm", make_norm(head_width, c, family));
    k_norm = register_module("k_norm", make_norm(head_width, c, family));
  }

  at::Tensor forward(const at::Tensor& x, RotaryEmbedding& rotary, ForwardContext& context) {
    const at::Tensor q = turned(*q_proj, q_norm.get(), x, rotary, context);
    const at::Tensor k = turned(*k_proj, k_norm.get(), x, rotary, context);
    const at::Tensor v = split(v_proj->forward(x, context));
    return o_proj->forward(attune::nn::attention(q, k, v, context, options).flatten(1), context);
  }

  std::shared_ptr<Linear> q_proj;
  std::shared_ptr<Linear> k_proj;
  std::shared_ptr<Linear> v_proj;
  std::shared_ptr<Linear> o_proj;
  // null: the family has none
  std::shared_ptr<RMSNorm> q_norm;
  std::shared_ptr<RMSNorm> k_norm;
  std::int64_t head_width;
  attune::nn::AttentionOptions options;

 private:
  // [T, heads, head_width]
  at::Tensor split(const at::Tensor& x) const { return x.unflatten(1, {-1, head_width}); }
  at::Tensor turned(Linear& linear, RMSNorm* norm, const at::Tensor& x, RotaryEmbedding& rotary,
                    ForwardContext& context) const {
    const at::Tensor heads = split(linear.forward(x, context));
    return rotate(norm ? norm->forward(heads) : heads, context.rotation(rotary));
  }
};

struct Mlp : torch::nn::Module {
  Mlp(const Config& c, const Family& family) : is_gelu(family.gemma) {
    gate_proj =
        register_module("gate_proj", std::make_shared<Linear>(c.width, c.inner, c.mlp_bias));
    up_proj = register_module("up_proj", std::make_shared<Linear>(c.width, c.inner, c.mlp_bias));
    down_proj =
        register_module("down_proj", std::make_shared<Linear>(c.inner, c.width, c.mlp_bias));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    const at::Tensor gate = gate_proj->forward(x, context);
    const at::Tensor up = up_proj->forward(x, context);
    return down_proj->forward(is_gelu ? at::gelu(gate, "tanh") * up : attune::nn::swiglu(gate, up),
                              context);
  }

  std::shared_ptr<Linear> gate_proj;
  std::shared_ptr<Linear> up_proj;
  std::shared_ptr<Linear> down_proj;
  bool is_gelu;
};

struct Block : torch::nn::Module {
  Block(const Config& c, const Family& family, std::int64_t index) {
    self_attn = register_module("self_attn", std::make_shared<Attention>(c, family, index));
    mlp = register_module("mlp", std::make_shared<Mlp>(c, family));
    before_attention = register_module("input_layernorm", make_norm(c.width, c, family));
    const auto second = register_module("post_attention_layernorm", make_norm(c.width, c, family));
    if (!family.gemma) {
      before_mlp = second;
      return;
    }
    after_attention = second;
    before_mlp = register_module("pre_feedforward_layernorm", make_norm(c.width, c, family));
    after_mlp = register_module("post_feedforward_layernorm", make_norm(c.width, c, family));
  }
  at::Tensor forward(const at::Tensor& h, RotaryEmbedding& rotary, ForwardContext& context) {
    const auto normed = [](const std::shared_ptr<RMSNorm>& norm, const at::Tensor& x) {
      return norm ? norm->forward(x) : x;
    };
    const at::Tensor attended =
        h +
        normed(after_attention, self_attn->forward(before_attention->forward(h), rotary, context));
    return attended + normed(after_mlp, mlp->forward(before_mlp->forward(attended), context));
  }

  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Mlp> mlp;
  // those after a part: Gemma 2's alone
  std::shared_ptr<RMSNorm> before_attention;
  std::shared_ptr<RMSNorm> after_attention;
  std::shared_ptr<RMSNorm> before_mlp;
  std::shared_ptr<RMSNorm> after_mlp;
};

struct Decoder : torch::nn::Module {
  Decoder(const Config& c, const Family& family) {
    embed_tokens = register_module("embed_tokens",
                                   std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    auto list = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t index = 0; index < c.depth; ++index)
      list->push_back(layers.emplace_back(std::make_shared<Block>(c, family, index)));
    norm = register_module("norm", make_norm(c.width, c, family));
  }

  std::shared_ptr<attune::nn::Embedding> embed_tokens;
  std::vector<std::shared_ptr<Block>> layers;
  std::shared_ptr<RMSNorm> norm;
};

struct CausalModel : torch::nn::Module {
  CausalModel(const Config& c, const Family& family) {
    model = register_module("model", std::make_shared<Decoder>(c, family));
    lm_head =
        register_module("lm_head", c.tied ? std::make_shared<Linear>(model->embed_tokens->weight)
                                          : std::make_shared<Linear>(c.width, c.vocabulary, false));
    lm_head->softcap = c.logit_softcap;
  }

  std::shared_ptr<Decoder> model;
  std::shared_ptr<Linear> lm_head;
};

class Llama : public attune::Model {
 public:
  using Options = attune::NoOptions;
  Llama(const Family& family, attune::ModelContext& context)
      : Llama(family, context, read_config(family, context)) {}

  at::Tensor embed(ForwardContext& context) override {
    const at::Tensor h = net_->model->embed_tokens->forward(context.batch().tokens, context);
    // rounded to h's dtype, as in transformers
    return family_.gemma
               ? h * at::scalar_tensor(std::sqrt(static_cast<double>(spec().width)), h.options())
               : h;
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    return net_->model->layers.at(static_cast<std::size_t>(index))->forward(h, rotary_, context);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override {
    return net_->model->norm->forward(h);
  }
  Linear& projection() override { return *net_->lm_head; }
  attune::LayerRoles layer_roles() const override {
    return {{"k_proj", "v_proj"}, "self_attn.o_proj", "mlp.down_proj"};
  }
  torch::nn::Module& module() override { return *net_; }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("model.layers.{}.", index);
  }

  json config() const override {
    json config = config_;
    config["architectures"] = {family_.architecture};
    // The weights may hold another head, whatever config.json says.
    if (!is_tied_ && config_value<bool>(config, "tie_word_embeddings", family_.tied))
      config["tie_word_embeddings"] = false;
    return config;
  }

 private:
  static Config read_config(const Family& family, attune::ModelContext& context) {
    auto c = llama::read_config(context.config, family);
    c.tied = c.tied &&
             attune::nn::is_tied(context.weights, "model.embed_tokens.weight", "lm_head.weight");
    return c;
  }

  Llama(const Family& family, attune::ModelContext& context, const Config& c)
      : Model({.family = family.type,
               .width = c.width,
               .depth = c.depth,
               .vocabulary = c.vocabulary,
               .context = c.context,
               .outputs = c.vocabulary,
               .key_heads = c.key_heads,
               .head_width = c.head_width}),
        family_(family),
        config_(context.config),
        is_tied_(c.tied),
        net_(std::make_shared<CausalModel>(c, family)),
        rotary_(c.frequencies, c.context, c.rotary_factor) {
    // Files of a bare decoder (transformers' LlamaModel) have no prefix.
    const bool is_bare = context.weights.contains("embed_tokens.weight");
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      constexpr std::string_view prefix = "model.";
      return is_bare && name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    });
  }

  const Family& family_;
  json config_;
  bool is_tied_;
  std::shared_ptr<CausalModel> net_;
  RotaryEmbedding rotary_;
};

template <std::size_t index>
struct Member final : Llama {
  Member(const Options&, attune::ModelContext& context) : Llama(llama::families[index], context) {}
};

template <std::size_t... indices>
void register_all(attune::Registry& registry, std::index_sequence<indices...>) {
  (registry.model<Member<indices>>(llama::families[indices].type, llama::families[indices].doc),
   ...);
}

}  // namespace

ATTUNE_PLUGIN("llama", "2.0.0", registry) {
  register_all(registry, std::make_index_sequence<std::size(llama::families)>());
}
