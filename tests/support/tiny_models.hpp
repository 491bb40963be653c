// The tiny models, with random weights, that tests of plugins are made on.
#pragma once
#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/registry.hpp>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "strategy/strategies.hpp"
#include "registry/loader.hpp"

namespace attune::tiny {

/// Every plugin of the build.
inline const Registry& registry() {
  static const Registry loaded = [] {
    Registry registry;
    load_plugins(registry, {ATTUNE_BINARY_DIR "/plugins"});
    return registry;
  }();
  return loaded;
}

/// Small random tensors.
struct Random final : WeightSource {
  void add(const std::string& name, std::vector<std::int64_t> shape) {
    infos.push_back({name, shape, "F32", 0});
    values[name] = torch::randn(shape) * 0.3;
  }
  const std::vector<TensorInfo>& tensors() const override { return infos; }
  at::Tensor read(const std::string& name) override { return values.at(name); }
  std::vector<TensorInfo> infos;
  std::map<std::string, at::Tensor> values;
};

inline const nlohmann::json llama_config = {
    {"model_type", "llama"},      {"hidden_size", 16},
    {"intermediate_size", 24},    {"num_hidden_layers", 2},
    {"num_attention_heads", 4},   {"num_key_value_heads", 2},
    {"vocab_size", 31},           {"max_position_embeddings", 24},
    {"tie_word_embeddings", true}};
inline const nlohmann::json bert_config = {
    {"model_type", "bert"},          {"hidden_size", 16},        {"intermediate_size", 24},
    {"num_hidden_layers", 2},        {"num_attention_heads", 4}, {"vocab_size", 31},
    {"max_position_embeddings", 24}, {"type_vocab_size", 2}};

inline Random llama_weights() {
  torch::manual_seed(5);
  Random weights;
  weights.add("model.embed_tokens.weight", {31, 16});
  for (int layer = 0; layer < 2; ++layer) {
    const auto prefix = fmt::format("model.layers.{}.", layer);
    for (const auto& [name, rows] : {std::pair("q_proj", 16), std::pair("k_proj", 8),
                                     std::pair("v_proj", 8), std::pair("o_proj", 16)}) {
      weights.add(prefix + "self_attn." + name + ".weight", {rows, 16});
    }
    weights.add(prefix + "mlp.gate_proj.weight", {24, 16});
    weights.add(prefix + "mlp.up_proj.weight", {24, 16});
    weights.add(prefix + "mlp.down_proj.weight", {16, 24});
    weights.add(prefix + "input_layernorm.weight", {16});
    weights.add(prefix + "post_attention_layernorm.weight", {16});
  }
  weights.add("model.norm.weight", {16});
  return weights;
}

inline Random bert_weights() {
  torch::manual_seed(5);
  Random weights;
  const auto with_bias = [&](const std::string& name, std::vector<std::int64_t> shape) {
    weights.add(name + ".weight", shape);
    weights.add(name + ".bias", {shape[0]});
  };
  weights.add("embeddings.word_embeddings.weight", {31, 16});
  weights.add("embeddings.position_embeddings.weight", {24, 16});
  weights.add("embeddings.token_type_embeddings.weight", {2, 16});
  with_bias("embeddings.LayerNorm", {16});
  for (int layer = 0; layer < 2; ++layer) {
    const auto prefix = fmt::format("encoder.layer.{}.", layer);
    for (const char* name : {"query", "key", "value"})
      with_bias(prefix + "attention.self." + name, {16, 16});
    with_bias(prefix + "attention.output.dense", {16, 16});
    with_bias(prefix + "attention.output.LayerNorm", {16});
    with_bias(prefix + "intermediate.dense", {24, 16});
    with_bias(prefix + "output.dense", {16, 24});
    with_bias(prefix + "output.LayerNorm", {16});
  }
  return weights;
}

inline const nlohmann::json efficientnet_config = {{"model_type", "efficientnet"},
                                                   {"image_size", 8},
                                                   {"width_coefficient", 1.0},
                                                   {"depth_coefficient", 1.0},
                                                   {"kernel_sizes", {3}},
                                                   {"in_channels", {32}},
                                                   {"out_channels", {16}},
                                                   {"strides", {1}},
                                                   {"num_block_repeats", {1}},
                                                   {"expand_ratios", {1}},
                                                   {"squeeze_expansion_ratio", 0.0},
                                                   {"hidden_dim", 24}};

inline Random efficientnet_weights() {
  torch::manual_seed(5);
  Random weights;
  const auto norm = [&](const std::string& name, std::int64_t width) {
    for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"})
      weights.add(name + part, {width});
    weights.values[name + ".running_var"].abs_().add_(0.5);
  };
  weights.add("embeddings.convolution.weight", {32, 3, 3, 3});
  norm("embeddings.batchnorm", 32);
  weights.add("encoder.blocks.0.depthwise_conv.depthwise_conv.weight", {32, 1, 3, 3});
  norm("encoder.blocks.0.depthwise_conv.depthwise_norm", 32);
  weights.add("encoder.blocks.0.projection.project_conv.weight", {16, 32, 1, 1});
  norm("encoder.blocks.0.projection.project_bn", 16);
  weights.add("encoder.top_conv.weight", {24, 16, 1, 1});
  norm("encoder.top_bn", 24);
  return weights;
}

/// pixels uint8 [B, channels, height, width]
inline Batch pictures_of(const at::Tensor& pixels) {
  Batch batch;
  batch.columns["pixels"] = pixels;
  for (std::int64_t sample = 1; sample <= pixels.size(0); ++sample) batch.starts.push_back(sample);
  return batch;
}

inline std::shared_ptr<Model> build_model(const std::string& plugin, const nlohmann::json& config,
                                          Random weights, std::vector<std::string> labels = {}) {
  ModelContext context{config, weights, std::move(labels)};
  const auto& entry = registry().find(Kind::model, plugin);
  return std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context));
}

inline std::shared_ptr<Model> llama() {
  return build_model("llama", llama_config, llama_weights());
}
inline std::shared_ptr<Model> bert() {
  return build_model("bert", bert_config, bert_weights(), {"no", "perhaps", "yes"});
}

using Values = std::map<std::string, OptionValue>;
using Texts = std::vector<std::string>;

inline std::shared_ptr<Strategy> made(const std::string& plugin, const Values& values = {}) {
  const auto& entry = registry().find(Kind::strategy, plugin);
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options) {
    if (values.contains(option.name)) option.set(options.get(), values.at(option.name));
  }
  return std::static_pointer_cast<Strategy>(entry.build(options.get(), nullptr));
}

/// As a run has them; owner: where several are on one base.
inline std::shared_ptr<Strategies> listed(const std::vector<std::pair<std::string, Values>>& list,
                                          std::int64_t owner = 0) {
  std::vector<Strategies::Named> named;
  for (const auto& [plugin, values] : list) named.push_back({plugin, made(plugin, values)});
  return std::make_shared<Strategies>(std::move(named), owner);
}
inline std::shared_ptr<Strategies> strategy(const std::string& plugin, const Values& values = {}) {
  return listed({{plugin, values}});
}

inline Batch batch_of(std::vector<std::int64_t> lengths) {
  std::vector<at::Tensor> samples;
  for (const auto length : lengths) samples.push_back(torch::randint(31, {length}, at::kLong));
  return pack(samples);
}

inline Texts trained_names(Model& model) {
  Texts names;
  for (auto& [name, tensor] : trainable(model)) names.push_back(name);
  return names;
}

}  // namespace attune::tiny
