// BERT encoders (Devlin et al. 2019, arXiv:1810.04805) with a classification head.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace {

using attune::Batch;
using attune::fail;
using attune::nn::config_size;
using attune::nn::config_value;
using nlohmann::json;

struct Config {
  std::int64_t width, inner, depth, heads, vocabulary, context, token_types, labels;
  double eps;
};

/// Two labels where neither data set nor config.json says, as in transformers.
std::int64_t count_labels(const json& config, const std::vector<std::string>& labels) {
  if (!labels.empty()) return static_cast<std::int64_t>(labels.size());
  const auto names = config.find("id2label");
  const std::int64_t named = names != config.end() && names->is_object() && !names->empty() ? static_cast<std::int64_t>(names->size()) : 2;
  return config_value<std::int64_t>(config, "num_labels", named);
}

Config read_config(const json& json, const std::vector<std::string>& labels) {
  attune::nn::require_model_type(json, "bert");
  const auto activation = config_value<std::string>(json, "hidden_act", "gelu");
  if (activation != "gelu") fail("config.json has hidden_act \"{}\", which plugin 'bert' does not support: only \"gelu\" is", activation);
  const auto positions = config_value<std::string>(json, "position_embedding_type", "absolute");
  if (positions != "absolute") fail("config.json has position_embedding_type \"{}\", which plugin 'bert' does not support: only \"absolute\" is", positions);
  Config c{};
  c.width = config_size(json, "hidden_size");
  c.inner = config_size(json, "intermediate_size");
  c.depth = config_size(json, "num_hidden_layers");
  c.heads = config_size(json, "num_attention_heads");
  c.vocabulary = config_size(json, "vocab_size");
  c.context = config_size(json, "max_position_embeddings");
  c.token_types = config_size(json, "type_vocab_size");
  c.labels = count_labels(json, labels);
  c.eps = config_value<double>(json, "layer_norm_eps", 1e-12);
  if (c.width % c.heads != 0) {
    fail("config.json has hidden_size {} for {} attention heads, which do not divide it: take the config.json that came with the weights", c.width, c.heads);
  }
  if (c.labels < 1) fail("config.json has num_labels {}: a classifier needs at least one", c.labels);
  return c;
}

struct Embeddings : torch::nn::Module {
  explicit Embeddings(const Config& c) {
    word_embeddings = register_module("word_embeddings", std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    position_embeddings = register_module("position_embeddings", std::make_shared<attune::nn::Embedding>(c.context, c.width));
    token_type_embeddings = register_module("token_type_embeddings", std::make_shared<attune::nn::Embedding>(c.token_types, c.width));
    norm = register_module("LayerNorm", std::make_shared<attune::nn::LayerNorm>(c.width, c.eps));
  }
  at::Tensor forward(const Batch& batch) {
    const at::Tensor type = token_type_embeddings->weight[0];  // a sample is one segment
    return norm->forward(word_embeddings->forward(batch.tokens) + position_embeddings->forward(batch.positions) + type);
  }

  std::shared_ptr<attune::nn::Embedding> word_embeddings, position_embeddings, token_type_embeddings;
  std::shared_ptr<attune::nn::LayerNorm> norm;
};

/// dense, dropout, residual, norm: how both halves of a block end.
struct Output : torch::nn::Module {
  Output(std::int64_t in, const Config& c, double dropout) : dropout(dropout) {
    dense = register_module("dense", std::make_shared<attune::nn::Linear>(in, c.width, true));
    norm = register_module("LayerNorm", std::make_shared<attune::nn::LayerNorm>(c.width, c.eps));
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual) {
    return norm->forward(at::dropout(dense->forward(x), dropout, is_training()) + residual);
  }

  std::shared_ptr<attune::nn::Linear> dense;
  std::shared_ptr<attune::nn::LayerNorm> norm;
  double dropout;
};

struct SelfAttention : torch::nn::Module {
  explicit SelfAttention(const Config& c) : head_width(c.width / c.heads) {
    query = register_module("query", std::make_shared<attune::nn::Linear>(c.width, c.width, true));
    key = register_module("key", std::make_shared<attune::nn::Linear>(c.width, c.width, true));
    value = register_module("value", std::make_shared<attune::nn::Linear>(c.width, c.width, true));
  }
  at::Tensor forward(const at::Tensor& x, const Batch& batch, std::int64_t index) {
    const auto heads = [&](attune::nn::Linear& linear) { return linear.forward(x).unflatten(1, {-1, head_width}); };
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    return attune::nn::attention(index, heads(*query), heads(*key), heads(*value), batch, {.scale = scale, .causal = false}).flatten(1);
  }

  std::shared_ptr<attune::nn::Linear> query, key, value;
  std::int64_t head_width;
};

struct Attention : torch::nn::Module {
  Attention(const Config& c, double dropout) {
    self = register_module("self", std::make_shared<SelfAttention>(c));
    output = register_module("output", std::make_shared<Output>(c.width, c, dropout));
  }
  at::Tensor forward(const at::Tensor& h, const Batch& batch, std::int64_t index) { return output->forward(self->forward(h, batch, index), h); }

  std::shared_ptr<SelfAttention> self;
  std::shared_ptr<Output> output;
};

/// A module with one dense layer, as Hugging Face names them.
struct Dense : torch::nn::Module {
  Dense(std::int64_t in, std::int64_t out) { dense = register_module("dense", std::make_shared<attune::nn::Linear>(in, out, true)); }
  std::shared_ptr<attune::nn::Linear> dense;
};

struct Block : torch::nn::Module {
  Block(const Config& c, double dropout) {
    attention = register_module("attention", std::make_shared<Attention>(c, dropout));
    intermediate = register_module("intermediate", std::make_shared<Dense>(c.width, c.inner));
    output = register_module("output", std::make_shared<Output>(c.inner, c, dropout));
  }
  at::Tensor forward(const at::Tensor& h, const Batch& batch, std::int64_t index) {
    const at::Tensor attended = attention->forward(h, batch, index);
    return output->forward(at::gelu(intermediate->dense->forward(attended)), attended);
  }

  std::shared_ptr<Attention> attention;
  std::shared_ptr<Dense> intermediate;
  std::shared_ptr<Output> output;
};

struct Encoder : torch::nn::Module {
  Encoder(const Config& c, double dropout) {
    auto list = register_module("layer", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t index = 0; index < c.depth; ++index) list->push_back(layers.emplace_back(std::make_shared<Block>(c, dropout)));
  }
  std::vector<std::shared_ptr<Block>> layers;
};

struct Backbone : torch::nn::Module {
  Backbone(const Config& c, bool with_pooler, double dropout) {
    embeddings = register_module("embeddings", std::make_shared<Embeddings>(c));
    encoder = register_module("encoder", std::make_shared<Encoder>(c, dropout));
    if (with_pooler) pooler = register_module("pooler", std::make_shared<Dense>(c.width, c.width));
  }
  std::shared_ptr<Embeddings> embeddings;
  std::shared_ptr<Encoder> encoder;
  std::shared_ptr<Dense> pooler;  // null: mean pooling
};

struct Classifier : torch::nn::Module {
  Classifier(const Config& c, bool with_pooler, double dropout) {
    bert = register_module("bert", std::make_shared<Backbone>(c, with_pooler, dropout));
    classifier = register_module("classifier", std::make_shared<attune::nn::Linear>(c.width, c.labels, true));
  }
  std::shared_ptr<Backbone> bert;
  std::shared_ptr<attune::nn::Linear> classifier;
};

at::Tensor mean_pooled(const at::Tensor& h, const std::vector<std::int64_t>& starts) {
  const at::Tensor bounds = torch::tensor(starts, at::kLong).to(h.device());
  const at::Tensor lengths = bounds.diff(), samples = at::arange(lengths.size(0), bounds.options());
  const at::Tensor sums = at::zeros({lengths.size(0), h.size(1)}, h.options()).index_add(0, samples.repeat_interleave(lengths), h);
  return sums / lengths.clamp_min(1).unsqueeze(1);
}

at::Tensor first_rows(const at::Tensor& h, const std::vector<std::int64_t>& starts) {
  return h.index_select(0, torch::tensor(std::vector<std::int64_t>(starts.begin(), starts.end() - 1), at::kLong).to(h.device()));
}

/// The parameter's name in files of a bare encoder ("embeddings...") and in those first made for TensorFlow ("LayerNorm.gamma").
std::string stored_name(std::string name, const attune::WeightSource& weights) {
  if (!weights.contains(name) && name.starts_with("bert.")) {
    if (weights.contains("embeddings.word_embeddings.weight")) name.erase(0, 5);
  }
  if (weights.contains(name)) return name;
  for (const auto& [now, then] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"), std::pair("LayerNorm.bias", "LayerNorm.beta")}) {
    if (!name.ends_with(now)) continue;
    const auto older = name.substr(0, name.size() - std::string_view(now).size()) + then;
    if (weights.contains(older)) return older;
  }
  return name;
}

class Bert final : public attune::Model {
 public:
  struct Options {
    std::string pooling = "mean";
    double dropout = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("pooling", &Options::pooling, "what the classifier sees of a sample: the mean of its tokens, or BERT's pooler over the first").choices({"mean", "cls"});
      s.key("dropout", &Options::dropout, "dropout of hidden states while training").range(0, 0.9);
    }
  };
  Bert(const Options& options, attune::ModelContext& context) : Bert(options, context, read_config(context.config, context.labels)) {}

  at::Tensor embed(const Batch& batch) override { return dropped(net_->bert->embeddings->forward(batch)); }

  at::Tensor block(std::int64_t index, const at::Tensor& h, const Batch& batch) override {
    return net_->bert->encoder->layers.at(index)->forward(h, batch, index);
  }

  at::Tensor finish(const at::Tensor& h, const Batch& batch) override {
    auto& pooler = net_->bert->pooler;
    return dropped(pooler ? pooler->dense->forward(first_rows(h, batch.starts)).tanh() : mean_pooled(h, batch.starts));
  }

  attune::nn::Linear& projection() override { return *net_->classifier; }
  torch::nn::Module& module() override { return *net_; }
  std::string block_prefix(std::int64_t index) const override { return fmt::format("bert.encoder.layer.{}.", index); }

  json config() const override {
    json config = config_;
    config["architectures"] = {"BertForSequenceClassification"};
    if (labels_.empty()) return config;
    json names = json::object(), numbers = json::object();
    for (std::size_t label = 0; label < labels_.size(); ++label) {
      names[std::to_string(label)] = labels_[label];
      numbers[labels_[label]] = label;
    }
    config["id2label"] = names;
    config["label2id"] = numbers;
    config.erase("num_labels");
    return config;
  }

 private:
  Bert(const Options& options, attune::ModelContext& context, const Config& c)
      : Model({.family = "bert", .task = attune::Task::classification, .width = c.width, .depth = c.depth, .vocabulary = c.vocabulary,
               .context = c.context, .outputs = c.labels, .key_heads = c.heads, .head_width = c.width / c.heads}),
        config_(context.config),
        labels_(context.labels),
        dropout_(options.dropout),
        net_(std::make_shared<Classifier>(c, options.pooling == "cls", options.dropout)) {
    const bool has_head = fits(context.weights, "classifier.weight", {c.labels, c.width});
    if (!has_head) attune::nn::initialise_head(*net_->classifier);
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      return name.starts_with("classifier.") && !has_head ? std::string() : stored_name(name, context.weights);
    });
  }

  static bool fits(const attune::WeightSource& weights, const std::string& name, const std::vector<std::int64_t>& shape) {
    return std::ranges::any_of(weights.tensors(), [&](const attune::TensorInfo& info) { return info.name == name && info.shape == shape; });
  }

  at::Tensor dropped(const at::Tensor& h) const { return at::dropout(h, dropout_, net_->is_training()); }

  json config_;
  std::vector<std::string> labels_;
  double dropout_;
  std::shared_ptr<Classifier> net_;
};

}  // namespace

ATTUNE_PLUGIN("bert", "1.0.0", registry) { registry.model<Bert>("bert", "BERT encoders with a classification head: BERT, MiniLM, bge, e5 and their kin"); }
