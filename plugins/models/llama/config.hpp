// What config.json says of a decoder of the Llama family, and what differs from one member to the
// next.
#pragma once
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>
#include <numbers>

namespace llama {

using attune::fail;
using attune::nn::config_size;
using attune::nn::config_value;
using nlohmann::json;

/// Which blocks see a sliding window.
enum class Windows { none, every_block, listed, every_other };

/// A member of the family: what its config.json does not say, or takes for granted.
struct Family {
  const char* type;          // model_type
  const char* architecture;  // transformers' class
  const char* doc;
  bool qkv_bias = false;  // of queries, keys and values alone
  bool qk_norm = false;   // RMSNorm of each head's query and key, before they are turned
  Windows windows = Windows::none;
  std::int64_t head_width = 0;  // where config.json has no head_dim; 0: hidden_size / heads
  bool tied = false;            // where config.json has no tie_word_embeddings
  // RMSNorm by 1 + weight, also after both parts of a block; GELU for SiLU; scaled embeddings; soft
  // caps
  bool gemma = false;
};

inline constexpr Family families[] = {
    {.type = "llama",
     .architecture = "LlamaForCausalLM",
     .doc = "Llama 1 to 3, SmolLM, TinyLlama and related decoders"},
    {.type = "mistral",
     .architecture = "MistralForCausalLM",
     .doc = "Mistral: Llama with sliding-window attention",
     .windows = Windows::every_block},
    {.type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .doc = "Qwen 2 and 2.5: Llama with biases on queries, keys and values",
     .qkv_bias = true,
     .windows = Windows::listed},
    {.type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .doc = "Qwen 3: Llama with normalised queries and keys",
     .qk_norm = true,
     .windows = Windows::listed,
     .head_width = 128},
    {.type = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .doc = "Gemma 2: norms before and after attention and MLP, logit soft-capping, sliding-window "
            "attention in every other block",
     .windows = Windows::every_other,
     .head_width = 256,
     .tied = true,
     .gemma = true},
};

struct Config {
  std::int64_t width;
  std::int64_t inner;
  std::int64_t depth;
  std::int64_t heads;
  std::int64_t key_heads;
  std::int64_t head_width;
  std::int64_t vocabulary;
  std::int64_t context;
  // scale: of the attention scores
  double eps;
  double scale;
  // 0: none
  double attention_softcap;
  double logit_softcap;
  bool tied;
  bool qkv_bias;
  bool output_bias;
  bool mlp_bias;
  std::vector<std::int64_t> windows;  // of each block; 0: all of the sample
  at::Tensor frequencies;             // of the rotary embedding, float32 [head_width / 2]
  double rotary_factor = 1;
};

/// Rotary embeddings as they are, or stretched to contexts longer than the one they were trained
/// on.
class Rotary {
 public:
  /// Newer files hold the settings in rope_parameters, older ones in rope_theta and rope_scaling.
  /// Of both transformers takes rope_scaling, unless it is empty.
  explicit Rotary(const json& config) : context_(config_size(config, "max_position_embeddings")) {
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
      const auto found = config.find(key);
      if (found == config.end() || !found->is_object() || found->empty()) continue;
      settings_ = *found;
      key_ = key;
    }
    type_ = config_value<std::string>(
        settings_, settings_.contains("rope_type") ? "rope_type" : "type", "default");
    base_ = config_value<double>(settings_, "rope_theta",
                                 config_value<double>(config, "rope_theta", 10000.0));
    if (base_ <= 1)
      fail(
          "config.json has rope_theta = {}, which no model has: take the config.json that came "
          "with the weights",
          base_);
    if (number("partial_rotary_factor", config_value<double>(config, "partial_rotary_factor", 1)) !=
        1)
      fail(
          "config.json asks for a partial_rotary_factor other than 1, which plugin 'llama' does "
          "not support");
  }

  /// Sets frequencies and rotary_factor.
  void set(Config& c) const {
    const at::Tensor plain = at::pow(base_, at::arange(0, c.head_width, 2, at::kFloat) /
                                                static_cast<double>(c.head_width))
                                 .reciprocal_();
    if (type_ == "default" || type_ == "dynamic") {
      // "dynamic" stretches beyond the trained context, where no sample reaches
      c.frequencies = plain;
    } else if (type_ == "linear") {
      c.frequencies = plain / factor();
    } else if (type_ == "llama3") {
      c.frequencies = by_wavelength(plain);
    } else if (type_ == "yarn") {
      c.frequencies = yarn(plain, c.head_width);
      c.rotary_factor = yarn_factor();
    } else {
      fail(
          "config.json asks for {} of type \"{}\", which plugin 'llama' does not support: default, "
          "linear, dynamic, llama3 and yarn are",
          key_, type_);
    }
  }

 private:
  double number(const char* key, double fallback) const {
    return config_value<double>(settings_, key, fallback);
  }

  double factor() const {
    const auto value = config_value<double>(settings_, "factor");
    if (value < 1)
      fail(
          "config.json has {}.factor = {}, where 1 or more is needed: take the config.json that "
          "came with the weights",
          key_, value);
    return value;
  }

  double trained_context() const {
    return number("original_max_position_embeddings", static_cast<double>(context_));
  }

  /// Llama 3.1: long waves are stretched by the factor, short ones stay, those between are mixed.
  /// Grattafiori et al. 2024 (arXiv:2407.21783).
  at::Tensor by_wavelength(const at::Tensor& plain) const {
    const double low = config_value<double>(settings_, "low_freq_factor");
    const double high = config_value<double>(settings_, "high_freq_factor");
    if (high <= low)
      fail(
          "config.json has {}.high_freq_factor = {}, which is not above low_freq_factor = {}: take "
          "the config.json that came with the weights",
          key_, high, low);
    // in the trained context
    const at::Tensor turns = trained_context() * plain / (2 * std::numbers::pi);
    const at::Tensor share = ((turns - low) / (high - low)).clamp(0, 1);
    return share * plain + (1 - share) * plain / factor();
  }

  /// Peng et al. 2023 (arXiv:2309.00071), section 3.2: a ramp over the dimensions, from those that
  /// stay to those that are stretched.
  at::Tensor yarn(const at::Tensor& plain, std::int64_t head_width) const {
    const auto width = static_cast<double>(head_width);
    const auto dimension_of = [&](double turns) {
      return width * std::log(trained_context() / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(base_));
    };
    double first = dimension_of(number("beta_fast", 32));
    double last = dimension_of(number("beta_slow", 1));
    if (config_value<bool>(settings_, "truncate", true)) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, width - 1);
    if (first == last) last += 0.001;
    const at::Tensor stretched =
        ((at::arange(head_width / 2, at::kFloat) - first) / (last - first)).clamp(0, 1);
    return stretched * plain / factor() + (1 - stretched) * plain;
  }

  /// The same paper, section 3.4, equation 22.
  double yarn_factor() const {
    const auto scaled = [&](double by) { return 0.1 * by * std::log(factor()) + 1; };
    const double numerator = number("mscale", 0);
    const double denominator = number("mscale_all_dim", 0);
    return number("attention_factor", numerator != 0 && denominator != 0
                                          ? scaled(numerator) / scaled(denominator)
                                          : scaled(1));
  }

  json settings_ = json::object();
  std::string key_ = "rope_scaling";
  std::string type_;
  double base_;
  std::int64_t context_;
};

inline std::vector<std::int64_t> read_windows(const json& config, const Family& family,
                                              std::int64_t depth) {
  std::vector<std::int64_t> windows(static_cast<std::size_t>(depth), 0);
  const bool is_listed = family.windows == Windows::listed;
  if (family.windows == Windows::none ||
      (is_listed && !config_value<bool>(config, "use_sliding_window", false)))
    return windows;
  if (config.contains("sliding_window") && config["sliding_window"].is_null()) return windows;
  const auto window = config_value<std::int64_t>(config, "sliding_window", 4096);
  if (window < 1)
    fail(
        "config.json has sliding_window = {}, but 1 or more is needed: take the config.json that "
        "came with the weights",
        window);

  const auto types = config.find("layer_types");
  const bool has_types =
      family.windows != Windows::every_block && types != config.end() && types->is_array();
  if (has_types && std::ssize(*types) != depth)
    fail(
        "config.json lists {} layer_types for {} blocks: take the config.json that came with the "
        "weights",
        types->size(), depth);
  const auto first = config_value<std::int64_t>(config, "max_window_layers", 28);
  for (std::int64_t block = 0; block < depth; ++block) {
    const bool slides = has_types ? (*types)[static_cast<std::size_t>(block)] == "sliding_attention"
                        : is_listed                              ? block >= first
                        : family.windows == Windows::every_other ? block % 2 == 0
                                                                 : true;
    if (slides) windows[static_cast<std::size_t>(block)] = window;
  }
  return windows;
}

inline void check_activation(const json& config, const Family& family) {
  const std::string wanted = family.gemma ? "gelu_pytorch_tanh" : "silu";
  const std::string key = config.contains("hidden_activation") ? "hidden_activation" : "hidden_act";
  const auto activation = config_value<std::string>(config, key, wanted);
  if (activation != wanted)
    fail("config.json has {} \"{}\", which plugin '{}' does not support: only \"{}\" is", key,
         activation, family.type, wanted);
}

inline Config read_config(const json& json, const Family& family) {
  attune::nn::require_model_type(json, family.type);
  check_activation(json, family);
  if (config_value<bool>(json, "use_bidirectional_attention", false))
    fail(
        "config.json asks for use_bidirectional_attention, which plugin '{}' does not support: its "
        "attention is causal",
        family.type);
  Config c{};
  c.width = config_size(json, "hidden_size");
  c.inner = config_size(json, "intermediate_size");
  c.depth = config_size(json, "num_hidden_layers");
  c.heads = config_size(json, "num_attention_heads");
  c.key_heads = config_value<std::int64_t>(json, "num_key_value_heads", c.heads);
  c.head_width = config_value<std::int64_t>(
      json, "head_dim", family.head_width > 0 ? family.head_width : c.width / c.heads);
  c.vocabulary = config_size(json, "vocab_size");
  c.context = config_size(json, "max_position_embeddings");
  c.eps = config_value<double>(json, "rms_norm_eps", 1e-6);
  c.tied = config_value<bool>(json, "tie_word_embeddings", family.tied);
  c.output_bias = config_value<bool>(json, "attention_bias", false);
  c.qkv_bias = family.qkv_bias || c.output_bias;
  c.mlp_bias = config_value<bool>(json, "mlp_bias", false);
  if (c.key_heads < 1 || c.heads % c.key_heads != 0)
    fail(
        "config.json has {} attention heads, which are not divisible by its {} key-value heads: "
        "take the config.json that came with the weights",
        c.heads, c.key_heads);
  if (c.head_width < 2 || c.head_width % 2 != 0 || c.head_width > (1 << 16))
    fail(
        "config.json gives heads of width {}, which rotary embeddings do not support: take the "
        "config.json that came with the weights",
        c.head_width);
  c.scale = 1 / std::sqrt(family.gemma ? config_value<double>(json, "query_pre_attn_scalar", 256)
                                       : static_cast<double>(c.head_width));
  c.attention_softcap = family.gemma ? config_value<double>(json, "attn_logit_softcapping", 0) : 0;
  c.logit_softcap = family.gemma ? config_value<double>(json, "final_logit_softcapping", 0) : 0;
  c.windows = read_windows(json, family, c.depth);
  Rotary(json).set(c);
  return c;
}

}  // namespace llama
