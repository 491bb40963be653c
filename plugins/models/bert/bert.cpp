// BERT encoders (Devlin et al. 2019, arXiv:1810.04805), RoBERTa (Liu et al. 2019, arXiv:1907.11692)
// and DistilBERT (Sanh et al. 2019, arXiv:1910.01108): one implementation, and a table of what each
// calls its parts.
#include <attune/device.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace {

enum class Pooling { mean, cls };

using attune::fail;
using attune::ForwardContext;
using attune::Task;
using attune::nn::config_size;
using attune::nn::config_value;
using attune::nn::LayerNorm;
using attune::nn::Linear;
using nlohmann::json;

/// A member of the family: where its parts are, and what config.json calls its sizes.
struct Family {
  const char* type;        // model_type
  const char* class_name;  // transformers' classes begin with it
  const char* doc;
  const char* base;    // module that holds the encoder
  const char* layers;  // module that holds the blocks
  struct {
    const char* query;
    const char* key;
    const char* value;
    const char* attended;
    const char* attention_norm;
    const char* inner;
    const char* outer;
    const char* output_norm;
  } block;
  struct {
    const char* width;
    const char* inner;
    const char* depth;
    const char* heads;
    const char* activation;
  } key;
  bool has_token_types;
  bool after_padding;  // positions count from pad_token_id + 1
  struct {
    // of the head that classifies a sample
    const char* dense;
    const char* classifier;
    // dense is part of the encoder, and serves pooling = "cls" alone
    bool is_pooler;
    bool is_relu;                      // what follows dense; otherwise tanh
    std::vector<std::string> modules;  // Model::head_modules
  } head;
};

const Family families[] = {
    {"bert",
     "Bert",
     "BERT, MiniLM, bge, e5 and related encoders for sample classification, token classification "
     "or embeddings",
     "bert",
     "bert.encoder.layer",
     {"attention.self.query", "attention.self.key", "attention.self.value",
      "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
      "output.LayerNorm"},
     {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"},
     true,
     false,
     {"bert.pooler.dense", "classifier", true, false, {"classifier"}}},
    {"roberta",
     "Roberta",
     "RoBERTa and related encoders for sample classification, token classification or embeddings",
     "roberta",
     "roberta.encoder.layer",
     {"attention.self.query", "attention.self.key", "attention.self.value",
      "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
      "output.LayerNorm"},
     {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"},
     true,
     true,
     {"classifier.dense", "classifier.out_proj", false, false, {"classifier"}}},
    {"distilbert",
     "DistilBert",
     "DistilBERT and related encoders for sample classification, token classification or "
     "embeddings",
     "distilbert",
     "distilbert.transformer.layer",
     {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm",
      "ffn.lin1", "ffn.lin2", "output_layer_norm"},
     {"dim", "hidden_dim", "n_layers", "n_heads", "activation"},
     false,
     false,
     {"pre_classifier", "classifier", false, true, {"pre_classifier", "classifier"}}},
};

struct Options {
  std::string head = "classification";
  Pooling pooling = Pooling::mean;
  double dropout = 0;
  static void describe(attune::Schema<Options>& s) {
    s.key("head", &Options::head,
          "task head; classification: a class or value per sample; token_classification: a class "
          "per token; embedding: a unit-length vector per sample")
        .choices({"classification", "token_classification", "embedding"});
    s.key("pooling", &Options::pooling,
          "pooling of token vectors into a sample vector; mean: mean over the tokens; cls: first "
          "token (through the pooler in BERT classifiers), as in transformers' classifiers",
          {{"mean", Pooling::mean}, {"cls", Pooling::cls}});
    s.key("dropout", &Options::dropout, "dropout probability of hidden states during training")
        .range(0, 0.9);
  }
};

Task task_of(const Options& options) {
  return options.head == "embedding"        ? Task::embedding
         : options.head == "classification" ? Task::classification
                                            : Task::token_classification;
}

struct Config {
  std::int64_t width;
  std::int64_t inner;
  std::int64_t depth;
  std::int64_t heads;
  std::int64_t vocabulary;
  std::int64_t positions;
  std::int64_t first_position;
  std::int64_t token_types;
  std::int64_t outputs;
  double eps;
};

Config read_config(const json& json, const Family& family, const Options& options,
                   const std::vector<std::string>& labels) {
  attune::nn::require_model_type(json, family.type);
  const auto activation = config_value<std::string>(json, family.key.activation, "gelu");
  if (activation != "gelu")
    fail("config.json has {} \"{}\", which plugin '{}' does not support: only \"gelu\" is",
         family.key.activation, activation, family.type);
  const auto positions = config_value<std::string>(json, "position_embedding_type", "absolute");
  if (positions != "absolute")
    fail(
        "config.json has position_embedding_type \"{}\", which plugin '{}' does not support: only "
        "\"absolute\" is",
        positions, family.type);
  for (const char* key : {"is_decoder", "add_cross_attention"})
    if (config_value<bool>(json, key, false))
      fail(
          "config.json has {} = true, which plugin '{}' does not support: it supports only "
          "encoders",
          key, family.type);
  Config c{};
  c.width = config_size(json, family.key.width);
  c.inner = config_size(json, family.key.inner);
  c.depth = config_size(json, family.key.depth);
  c.heads = config_size(json, family.key.heads);
  c.vocabulary = config_size(json, "vocab_size");
  c.positions = config_size(json, "max_position_embeddings");
  c.first_position =
      family.after_padding ? config_value<std::int64_t>(json, "pad_token_id", 1) + 1 : 0;
  c.token_types = family.has_token_types ? config_size(json, "type_vocab_size") : 0;
  c.outputs =
      task_of(options) == Task::embedding ? c.width : attune::nn::count_labels(json, labels);
  c.eps = config_value<double>(json, "layer_norm_eps", 1e-12);
  if (c.width % c.heads != 0)
    fail(
        "config.json has {} {}, which is not divisible by its {} attention heads: take the "
        "config.json that came with the weights",
        family.key.width, c.width, c.heads);
  if (c.first_position < 0 || c.first_position >= c.positions)
    fail(
        "config.json has pad_token_id {} for {} positions: take the config.json that came with the "
        "weights",
        c.first_position - 1, c.positions);
  return c;
}

struct Embeddings {
  Embeddings(torch::nn::Module& net, const Config& c, const Family& family)
      : first_position(c.first_position) {
    const auto name = [&](const char* part) {
      return fmt::format("{}.embeddings.{}", family.base, part);
    };
    words = attune::nn::register_at(net, name("word_embeddings"),
                                    std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    positions =
        attune::nn::register_at(net, name("position_embeddings"),
                                std::make_shared<attune::nn::Embedding>(c.positions, c.width));
    if (c.token_types > 0)
      types =
          attune::nn::register_at(net, name("token_type_embeddings"),
                                  std::make_shared<attune::nn::Embedding>(c.token_types, c.width));
    norm = attune::nn::register_at(net, name("LayerNorm"),
                                   std::make_shared<LayerNorm>(c.width, c.eps));
  }
  at::Tensor forward(ForwardContext& context) {
    const auto& batch = context.batch();
    const at::Tensor moved =
        first_position == 0 ? batch.positions : batch.positions + first_position;
    at::Tensor h = words->forward(batch.tokens, context) + positions->forward(moved, context);
    if (types) h = h + types->weight[0];  // a sample is one segment
    return norm->forward(h);
  }

  // types null: the family has none
  std::shared_ptr<attune::nn::Embedding> words;
  std::shared_ptr<attune::nn::Embedding> positions;
  std::shared_ptr<attune::nn::Embedding> types;
  std::shared_ptr<LayerNorm> norm;
  std::int64_t first_position;
};

struct Block {
  Block(torch::nn::Module& net, const Config& c, const Family& family, std::int64_t index)
      : head_width(c.width / c.heads) {
    const auto name = [&](const char* part) {
      return fmt::format("{}.{}.{}", family.layers, index, part);
    };
    const auto linear = [&](const char* part, std::int64_t in, std::int64_t out) {
      return attune::nn::register_at(net, name(part), std::make_shared<Linear>(in, out, true));
    };
    query = linear(family.block.query, c.width, c.width);
    key = linear(family.block.key, c.width, c.width);
    value = linear(family.block.value, c.width, c.width);
    attended = linear(family.block.attended, c.width, c.width);
    attention_norm = attune::nn::register_at(net, name(family.block.attention_norm),
                                             std::make_shared<LayerNorm>(c.width, c.eps));
    inner = linear(family.block.inner, c.width, c.inner);
    outer = linear(family.block.outer, c.inner, c.width);
    output_norm = attune::nn::register_at(net, name(family.block.output_norm),
                                          std::make_shared<LayerNorm>(c.width, c.eps));
  }
  at::Tensor forward(const at::Tensor& h, double dropout, ForwardContext& context) {
    const auto heads = [&](Linear& linear) {
      return linear.forward(h, context).unflatten(1, {-1, head_width});
    };
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    const at::Tensor q = heads(*query);
    const at::Tensor k = heads(*key);
    const at::Tensor v = heads(*value);
    const at::Tensor seen =
        attune::nn::attention(q, k, v, context, {.scale = scale, .causal = false}).flatten(1);
    const at::Tensor a =
        attention_norm->forward(context.dropout(attended->forward(seen, context), dropout) + h);
    const at::Tensor added = outer->forward(at::gelu(inner->forward(a, context)), context);
    return output_norm->forward(context.dropout(added, dropout) + a);
  }

  std::int64_t head_width;
  std::shared_ptr<Linear> query;
  std::shared_ptr<Linear> key;
  std::shared_ptr<Linear> value;
  std::shared_ptr<Linear> attended;
  std::shared_ptr<Linear> inner;
  std::shared_ptr<Linear> outer;
  std::shared_ptr<LayerNorm> attention_norm;
  std::shared_ptr<LayerNorm> output_norm;
};

at::Tensor mean_pooled(const at::Tensor& h, const std::vector<std::int64_t>& starts) {
  const at::Tensor bounds = torch::tensor(starts, at::kLong);
  const at::Tensor on_host = bounds.diff();
  const at::Tensor samples =
      attune::on_device(at::arange(on_host.size(0)).repeat_interleave(on_host), h.device());
  const at::Tensor lengths = attune::on_device(on_host, h.device());
  const at::Tensor sums =
      at::zeros({lengths.size(0), h.size(1)}, h.options()).index_add(0, samples, h);
  return sums / lengths.clamp_min(1).unsqueeze(1);
}

at::Tensor first_rows(const at::Tensor& h, const std::vector<std::int64_t>& starts) {
  const std::vector<std::int64_t> first(starts.begin(), starts.end() - 1);
  return h.index_select(0, attune::on_device(torch::tensor(first, at::kLong), h.device()));
}

/// The parameter's name in files of a bare encoder ("embeddings...") and in those first made for
/// TensorFlow ("LayerNorm.gamma").
std::string stored_name(std::string name, const Family& family,
                        const attune::WeightSource& weights) {
  const std::string base = family.base + std::string(".");
  if (!weights.contains(name) && name.starts_with(base) &&
      weights.contains("embeddings.word_embeddings.weight"))
    name.erase(0, base.size());
  if (weights.contains(name)) return name;
  for (const auto& [now, then] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"),
                                  std::pair("LayerNorm.bias", "LayerNorm.beta")}) {
    if (!name.ends_with(now)) continue;
    const auto older = name.substr(0, name.size() - std::string_view(now).size()) + then;
    if (weights.contains(older)) return older;
  }
  return name;
}

class Encoder : public attune::Model {
 public:
  using Options = ::Options;
  Encoder(const Family& family, const Options& options, attune::ModelContext& context)
      : Encoder(family, options, context,
                read_config(context.config, family, options, context.labels)) {}

  at::Tensor embed(ForwardContext& context) override {
    return context.dropout(embeddings_.forward(context), dropout_);
  }

  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    return blocks_.at(static_cast<std::size_t>(index)).forward(h, dropout_, context);
  }

  at::Tensor finish(const at::Tensor& h, ForwardContext& context) override {
    if (spec().task == Task::token_classification) return context.dropout(h, dropout_);
    const auto& starts = context.batch().starts;
    at::Tensor pooled = pools_first_ ? first_rows(h, starts) : mean_pooled(h, starts);
    if (spec().task == Task::embedding) return pooled / pooled.norm(2, -1, true).clamp_min(1e-12);
    if (dense_) pooled = dense_->forward(pooled, context);
    if (dense_) pooled = family_.head.is_relu ? pooled.relu() : pooled.tanh();
    return context.dropout(pooled, dropout_);
  }

  Linear& projection() override {
    if (spec().task == Task::embedding)
      projection_->weight = projection_->weight.to(embeddings_.words->weight.options());
    return *projection_;
  }
  std::vector<std::string> head_modules() const override {
    if (spec().task == Task::embedding) return {};
    return spec().task == Task::classification ? family_.head.modules
                                               : std::vector<std::string>{"classifier"};
  }
  attune::LayerRoles layer_roles() const override {
    const auto& part = family_.block;
    return {{part.key, part.value}, part.attended, part.outer};
  }
  torch::nn::Module& module() override { return *net_; }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("{}.{}.", family_.layers, index);
  }

  json config() const override {
    json config = config_;
    const char* ending = spec().task == Task::embedding        ? "Model"
                         : spec().task == Task::classification ? "ForSequenceClassification"
                                                               : "ForTokenClassification";
    config["architectures"] = {family_.class_name + std::string(ending)};
    attune::nn::set_labels(config, labels_);
    config.erase("classifier_pooling");
    // ModernBERT's key
    if (spec().task == Task::classification && !pools_first_) config["classifier_pooling"] = "mean";
    return config;
  }

 private:
  Encoder(const Family& family, const Options& options, attune::ModelContext& context,
          const Config& c)
      : Model({.family = family.type,
               .task = task_of(options),
               .width = c.width,
               .depth = c.depth,
               .vocabulary = c.vocabulary,
               .context = c.positions - c.first_position,
               .outputs = c.outputs,
               .key_heads = c.heads,
               .head_width = c.width / c.heads,
               .embeds_positions = true}),
        family_(family),
        config_(context.config),
        labels_(context.labels),
        dropout_(options.dropout),
        pools_first_(options.pooling == Pooling::cls),
        net_(std::make_shared<torch::nn::Module>()),
        embeddings_(*net_, c, family) {
    for (std::int64_t index = 0; index < c.depth; ++index)
      blocks_.emplace_back(*net_, c, family, index);
    const auto new_layers = add_head(c, context.weights);
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      const bool is_new = std::ranges::any_of(
          new_layers, [&](const std::string& layer) { return name.starts_with(layer + "."); });
      return is_new ? std::string() : stored_name(name, family_, context.weights);
    });
  }

  /// Returns the names of the layers that the weights do not hold for so many outputs: they are
  /// new.
  std::vector<std::string> add_head(const Config& c, const attune::WeightSource& weights) {
    std::vector<std::string> new_layers;
    const auto added = [&](const std::string& name, std::int64_t out, bool may_be_new) {
      const auto layer =
          attune::nn::register_at(*net_, name, std::make_shared<Linear>(c.width, out, true));
      if (!may_be_new || attune::nn::has_tensor(weights, name + ".weight", {out, c.width}))
        return layer;
      attune::nn::initialise_head(*layer);
      new_layers.push_back(name);
      return layer;
    };
    const auto& head = family_.head;
    if (spec().task == Task::embedding) {
      projection_ = std::make_shared<Linear>(at::eye(c.width));
    } else if (spec().task == Task::token_classification) {
      projection_ = added("classifier", c.outputs, true);
    } else {
      if (!head.is_pooler || pools_first_) dense_ = added(head.dense, c.width, !head.is_pooler);
      projection_ = added(head.classifier, c.outputs, true);
    }
    return new_layers;
  }

  const Family& family_;
  json config_;
  std::vector<std::string> labels_;
  double dropout_;
  bool pools_first_;
  std::shared_ptr<torch::nn::Module> net_;
  Embeddings embeddings_;
  std::vector<Block> blocks_;
  std::shared_ptr<Linear> dense_;       // between pooling and projection; null: none
  std::shared_ptr<Linear> projection_;  // of an embedding: the identity, no parameter
};

template <std::size_t index>
struct Member final : Encoder {
  Member(const Options& options, attune::ModelContext& context)
      : Encoder(families[index], options, context) {}
};

template <std::size_t... indices>
void register_all(attune::Registry& registry, std::index_sequence<indices...>) {
  (registry.model<Member<indices>>(families[indices].type, families[indices].doc), ...);
}

}  // namespace

ATTUNE_PLUGIN("bert", "2.0.0", registry) {
  register_all(registry, std::make_index_sequence<std::size(families)>());
}
