// Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): a picture's patches as the tokens
// of an encoder.
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

using attune::Batch;
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
  std::int64_t patch;
  std::int64_t labels;
  double eps;
  bool qkv_bias;
  attune::nn::PictureScale scale;

  std::int64_t patches() const { return (scale.size / patch) * (scale.size / patch); }
};

Config read_config(const json& json, const std::vector<std::string>& labels) {
  attune::nn::require_model_type(json, "vit");
  const auto activation = config_value<std::string>(json, "hidden_act", "gelu");
  if (activation != "gelu")
    fail("config.json has hidden_act \"{}\", which plugin 'vit' does not support: only \"gelu\" is",
         activation);
  Config c{};
  c.width = config_size(json, "hidden_size");
  c.inner = config_size(json, "intermediate_size");
  c.depth = config_size(json, "num_hidden_layers");
  c.heads = config_size(json, "num_attention_heads");
  c.patch = config_size(json, "patch_size");
  c.labels = attune::nn::count_labels(json, labels);
  c.eps = config_value<double>(json, "layer_norm_eps", 1e-12);
  c.qkv_bias = config_value<bool>(json, "qkv_bias", true);
  c.scale = attune::nn::picture_scale(json, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5});
  if (c.width % c.heads != 0)
    fail(
        "config.json has hidden_size {}, which is not divisible by its {} attention heads: take "
        "the config.json that came with the weights",
        c.width, c.heads);
  if (c.scale.size % c.patch != 0 || c.scale.size > (1 << 14))
    fail(
        "config.json has image_size {}, which is not divisible by the patch size {}: take the "
        "config.json that came with the weights",
        c.scale.size, c.patch);
  return c;
}

struct PatchEmbeddings : torch::nn::Module {
  explicit PatchEmbeddings(const Config& c) {
    projection = register_module("projection",
                                 std::make_shared<attune::nn::Conv2d>(
                                     c.scale.channels, c.width,
                                     attune::nn::ConvolutionOptions{
                                         .kernel = c.patch, .stride = c.patch, .with_bias = true}));
  }
  std::shared_ptr<attune::nn::Conv2d> projection;
};

struct Embeddings : torch::nn::Module {
  explicit Embeddings(const Config& c) {
    cls_token = register_parameter("cls_token", attune::nn::new_parameter({1, 1, c.width}));
    position_embeddings = register_parameter(
        "position_embeddings", attune::nn::new_parameter({1, c.patches() + 1, c.width}));
    patch_embeddings = register_module("patch_embeddings", std::make_shared<PatchEmbeddings>(c));
  }
  /// [B, channels, size, size] -> [B (patches + 1), width]
  at::Tensor forward(const at::Tensor& pixels, ForwardContext& context) {
    const at::Tensor patches =
        patch_embeddings->projection->forward(pixels, context).flatten(2).transpose(1, 2);
    return (at::cat({cls_token.expand({patches.size(0), -1, -1}), patches}, 1) +
            position_embeddings)
        .flatten(0, 1);
  }
  at::Tensor cls_token;
  at::Tensor position_embeddings;
  std::shared_ptr<PatchEmbeddings> patch_embeddings;
};

/// The rows of h as samples of so many patches each.
Batch patches_of(const at::Tensor& h, const Batch& batch) {
  const auto each = h.size(0) / batch.samples();
  Batch patches;
  for (std::int64_t sample = 1; sample <= batch.samples(); ++sample)
    patches.starts.push_back(sample * each);
  return patches;
}

struct Attention : torch::nn::Module {
  explicit Attention(const Config& c) : head_width(c.width / c.heads) {
    q_proj = register_module("q_proj", std::make_shared<Linear>(c.width, c.width, c.qkv_bias));
    k_proj = register_module("k_proj", std::make_shared<Linear>(c.width, c.width, c.qkv_bias));
    v_proj = register_module("v_proj", std::make_shared<Linear>(c.width, c.width, c.qkv_bias));
    o_proj = register_module("o_proj", std::make_shared<Linear>(c.width, c.width, true));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    const auto heads = [&](Linear& linear) {
      return linear.forward(x, context).unflatten(1, {-1, head_width});
    };
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    const at::Tensor q = heads(*q_proj);
    const at::Tensor k = heads(*k_proj);
    const at::Tensor v = heads(*v_proj);
    const auto patches = context.with_batch(patches_of(x, context.batch()));
    return o_proj->forward(
        attune::nn::attention(q, k, v, patches, {.scale = scale, .causal = false}).flatten(1),
        context);
  }
  std::shared_ptr<Linear> q_proj;
  std::shared_ptr<Linear> k_proj;
  std::shared_ptr<Linear> v_proj;
  std::shared_ptr<Linear> o_proj;
  std::int64_t head_width;
};

struct Mlp : torch::nn::Module {
  explicit Mlp(const Config& c) {
    fc1 = register_module("fc1", std::make_shared<Linear>(c.width, c.inner, true));
    fc2 = register_module("fc2", std::make_shared<Linear>(c.inner, c.width, true));
  }
  std::shared_ptr<Linear> fc1;
  std::shared_ptr<Linear> fc2;
};

struct Block : torch::nn::Module {
  explicit Block(const Config& c) {
    attention = register_module("attention", std::make_shared<Attention>(c));
    layernorm_before =
        register_module("layernorm_before", std::make_shared<LayerNorm>(c.width, c.eps));
    layernorm_after =
        register_module("layernorm_after", std::make_shared<LayerNorm>(c.width, c.eps));
    mlp = register_module("mlp", std::make_shared<Mlp>(c));
  }
  std::shared_ptr<Attention> attention;
  std::shared_ptr<LayerNorm> layernorm_before;
  std::shared_ptr<LayerNorm> layernorm_after;
  std::shared_ptr<Mlp> mlp;
};

struct Encoder : torch::nn::Module {
  explicit Encoder(const Config& c) {
    embeddings = register_module("embeddings", std::make_shared<Embeddings>(c));
    auto list = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t index = 0; index < c.depth; ++index)
      list->push_back(layers.emplace_back(std::make_shared<Block>(c)));
    layernorm = register_module("layernorm", std::make_shared<LayerNorm>(c.width, c.eps));
  }
  std::shared_ptr<Embeddings> embeddings;
  std::vector<std::shared_ptr<Block>> layers;
  std::shared_ptr<LayerNorm> layernorm;
};

struct Classifier : torch::nn::Module {
  explicit Classifier(const Config& c) {
    vit = register_module("vit", std::make_shared<Encoder>(c));
    classifier = register_module("classifier", std::make_shared<Linear>(c.width, c.labels, true));
  }
  std::shared_ptr<Encoder> vit;
  std::shared_ptr<Linear> classifier;
};

/// The parameter's name in files, which keep the names of transformers before its version 5, and in
/// those of a bare encoder.
std::string stored_name(std::string name, const attune::WeightSource& weights) {
  if (weights.contains(name)) return name;
  constexpr std::pair<std::string_view, std::string_view> renamed[] = {
      {"vit.layers.", "vit.encoder.layer."},
      {".attention.q_proj.", ".attention.attention.query."},
      {".attention.k_proj.", ".attention.attention.key."},
      {".attention.v_proj.", ".attention.attention.value."},
      {".attention.o_proj.", ".attention.output.dense."},
      {".mlp.fc1.", ".intermediate.dense."},
      {".mlp.fc2.", ".output.dense."}};
  for (const auto& [now, then] : renamed)
    if (const auto at = name.find(now); at != std::string::npos) name.replace(at, now.size(), then);
  return weights.contains(name) || !name.starts_with("vit.") ? name : name.substr(4);
}

class Vit final : public attune::Model {
 public:
  struct Options {
    double dropout = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("dropout", &Options::dropout,
            "dropout probability of embeddings and residual branches during training")
          .range(0, 0.9);
    }
  };
  Vit(const Options& options, attune::ModelContext& context)
      : Vit(options, context, read_config(context.config, context.labels)) {}

  at::Tensor embed(ForwardContext& context) override {
    const at::Tensor pixels =
        attune::nn::pictures(context.batch(), scale_, net_->classifier->options());
    return context.dropout(net_->vit->embeddings->forward(pixels, context), dropout_);
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    auto& layer = *net_->vit->layers.at(static_cast<std::size_t>(index));
    const at::Tensor attended =
        h + context.dropout(layer.attention->forward(layer.layernorm_before->forward(h), context),
                            dropout_);
    const at::Tensor inner =
        at::gelu(layer.mlp->fc1->forward(layer.layernorm_after->forward(attended), context));
    return attended + context.dropout(layer.mlp->fc2->forward(inner, context), dropout_);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext& context) override {
    return net_->vit->layernorm->forward(
        h.unflatten(0, {context.batch().samples(), -1}).select(1, 0));
  }
  Linear& projection() override { return *net_->classifier; }
  std::vector<std::string> head_modules() const override { return {"classifier"}; }
  torch::nn::Module& module() override { return *net_; }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("vit.layers.{}.", index);
  }

  json config() const override {
    json config = config_;
    config["architectures"] = {"ViTForImageClassification"};
    config["image_mean"] = scale_.mean;
    config["image_std"] = scale_.deviation;
    attune::nn::set_labels(config, labels_);
    return config;
  }

 private:
  Vit(const Options& options, attune::ModelContext& context, const Config& c)
      : Model({.family = "vit",
               .task = attune::Task::classification,
               .width = c.width,
               .depth = c.depth,
               .context = 1,
               .outputs = c.labels}),
        config_(context.config),
        labels_(context.labels),
        dropout_(options.dropout),
        scale_(c.scale),
        net_(std::make_shared<Classifier>(c)) {
    const bool has_head =
        attune::nn::has_tensor(context.weights, "classifier.weight", {c.labels, c.width});
    if (!has_head) attune::nn::initialise_head(*net_->classifier);
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      return name.starts_with("classifier.") && !has_head ? std::string()
                                                          : stored_name(name, context.weights);
    });
  }

  json config_;
  std::vector<std::string> labels_;
  double dropout_;
  attune::nn::PictureScale scale_;
  std::shared_ptr<Classifier> net_;
};

}  // namespace

ATTUNE_PLUGIN("vit", "1.0.0", registry) {
  registry.model<Vit>("vit", "Vision Transformer image classifiers: ViT, DeiT and related models");
}
