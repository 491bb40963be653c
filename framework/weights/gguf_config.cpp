#include "weights/gguf_config.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cmath>

#include "core/names.hpp"
#include "weights/name_map.hpp"
#include "weights/rope_scaling.hpp"

namespace attune::weights {
using nlohmann::json;

ArchitectureKeys::ArchitectureKeys(const GgufFile& file)
    : file_(file), prefix_(file.metadata().at("general.architecture").get<std::string>() + ".") {}

const json* ArchitectureKeys::find(const std::string& key) const {
  const auto found = file_.metadata().find(full(key));
  return found == file_.metadata().end() ? nullptr : &*found;
}

std::int64_t ArchitectureKeys::size(const std::string& key, std::int64_t fallback) const {
  const auto* found = find(key);
  if (found && found->is_array() && !found->empty()) {
    if (std::ranges::any_of(*found, [&](const json& value) { return value != found->front(); }))
      fail("{}: has another '{}' in each block, which is not supported; use another model",
           file_.path().string(), full(key));
    found = &found->front();
  }
  const auto value = !found                       ? fallback
                     : found->is_number_integer() ? found->get<std::int64_t>()
                                                  : 0;
  if (value <= 0 || value > INT32_MAX)
    fail(
        "{}: its metadata has no number from 1 to 2147483647 as '{}'; the file is damaged, fetch "
        "it again",
        file_.path().string(), full(key));
  return value;
}

double ArchitectureKeys::real(const std::string& key, std::optional<double> fallback) const {
  const auto* found = find(key);
  if (!found && fallback) return *fallback;
  const auto value = found && found->is_number() ? found->get<float>() : 0.0f;
  if (!(value > 0) || !std::isfinite(value))
    fail("{}: its metadata has no positive number as '{}'; the file is damaged, fetch it again",
         file_.path().string(), full(key));
  return shortest_decimal(value);
}

std::string ArchitectureKeys::text(const std::string& key, const std::string& fallback) const {
  const auto* found = find(key);
  return found && found->is_string() ? found->get<std::string>() : fallback;
}

bool ArchitectureKeys::flag(const std::string& key, bool fallback) const {
  const auto* found = find(key);
  return found && found->is_boolean() ? found->get<bool>() : fallback;
}

void ArchitectureKeys::require(const std::string& key, double value) const {
  const auto* found = find(key);
  if (!found) return;
  const bool is_boolean = found->is_boolean() && found->get<bool>() == (value != 0);
  const bool is_number =
      found->is_number() && std::abs(found->get<double>() - value) <= 1e-6 * std::abs(value);
  if (is_boolean || is_number) return;
  fail("{}: has {} = {}, which is not supported (only {} is); use another model",
       file_.path().string(), full(key),
       found->dump(-1, ' ', false, json::error_handler_t::replace), value);
}

namespace {

/// Rows of a tensor that every model of the architecture has.
std::int64_t rows_of(const GgufFile& file, const std::string& name) {
  for (const auto& info : file.tensors())
    if (info.name == name) return info.shape.front();
  fail("{}: has no tensor '{}', which every model needs; fetch the file again",
       file.path().string(), name);
}

void add_token_ids(const GgufFile& file, json& config) {
  for (const auto* token : {"bos", "eos"}) {
    const auto id = file.metadata().find(fmt::format("tokenizer.ggml.{}_token_id", token));
    if (id != file.metadata().end() && id->is_number_unsigned())
      config[fmt::format("{}_token_id", token)] = *id;
  }
}

/// What llama.cpp would compute in another way than the models here.
void refuse_other_decoders(const ArchitectureKeys& keys, std::int64_t head_dim) {
  for (const auto& [key, value] :
       {std::pair("expert_count", 0.0), std::pair("attention.clamp_kqv", 0.0),
        std::pair("attention.max_alibi_bias", 0.0), std::pair("attention.causal", 1.0),
        std::pair("use_parallel_residual", 0.0), std::pair("residual_scale", 1.0),
        std::pair("embedding_scale", 1.0), std::pair("logit_scale", 1.0),
        std::pair("attention.output_scale", 1.0), std::pair("attention.temperature_scale", 0.0)})
    keys.require(key, value);
  keys.require("attention.scale", 1 / std::sqrt(static_cast<double>(head_dim)));
  keys.require("attention.value_length", static_cast<double>(head_dim));
  keys.require("rope.dimension_count", static_cast<double>(head_dim));
}

/// Of the decoders with rotary positions and a gated feed-forward part.
json decoder_config(const ArchitectureKeys& keys, const char* type, const char* class_name) {
  const auto& file = keys.file();
  const auto hidden = keys.size("embedding_length");
  const auto heads = keys.size("attention.head_count");
  const auto head_dim =
      keys.size("attention.key_length",
                keys.size("rope.dimension_count", std::max<std::int64_t>(hidden / heads, 1)));
  refuse_other_decoders(keys, head_dim);
  json config = {
      {"model_type", type},
      {"architectures", {class_name}},
      {"hidden_size", hidden},
      {"intermediate_size", keys.size("feed_forward_length")},
      {"num_hidden_layers", keys.size("block_count")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", keys.size("attention.head_count_kv", heads)},
      {"head_dim", head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", keys.size("context_length")},
      {"rope_theta", keys.real("rope.freq_base", 10000.0)},
      {"rms_norm_eps", keys.real("attention.layer_norm_rms_epsilon")},
      {"vocab_size", rows_of(file, "token_embd.weight")},
      {"tie_word_embeddings", !file.contains("output.weight")},
      {"torch_dtype", "float32"},
  };
  add_rope_scaling(keys, head_dim, config);
  add_token_ids(file, config);
  return config;
}

/// Mistral's files are of this architecture, too; a sliding window, where the file has one, tells
/// them apart.
json llama_config(const ArchitectureKeys& keys) {
  const bool slides = keys.has("attention.sliding_window");
  auto config = decoder_config(keys, slides ? "mistral" : "llama",
                               slides ? "MistralForCausalLM" : "LlamaForCausalLM");
  config["attention_bias"] = keys.file().contains("blk.0.attn_q.bias");
  config["mlp_bias"] = keys.file().contains("blk.0.ffn_up.bias");
  if (slides) config["sliding_window"] = keys.size("attention.sliding_window");
  return config;
}

json qwen2_config(const ArchitectureKeys& keys) {
  keys.require("attention.sliding_window", 0);
  return decoder_config(keys, "qwen2", "Qwen2ForCausalLM");
}

json qwen3_config(const ArchitectureKeys& keys) {
  keys.require("attention.sliding_window", 0);
  auto config = decoder_config(keys, "qwen3", "Qwen3ForCausalLM");
  config["attention_bias"] = keys.file().contains("blk.0.attn_q.bias");
  return config;
}

json gemma2_config(const ArchitectureKeys& keys) {
  auto config = decoder_config(keys, "gemma2", "Gemma2ForCausalLM");
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["sliding_window"] = keys.size("attention.sliding_window", 4096);
  config["attn_logit_softcapping"] = keys.real("attn_logit_softcapping", 50.0);
  config["final_logit_softcapping"] = keys.real("final_logit_softcapping", 30.0);
  // Not in the file: 144 in the model of 27 billion parameters (4608 / 32), which llama.cpp, too,
  // knows by its 46 blocks; else a head's width.
  constexpr std::int64_t blocks_of_27b = 46;
  const bool is_27b = config["num_hidden_layers"] == blocks_of_27b;
  config["query_pre_attn_scalar"] =
      is_27b ? keys.size("embedding_length") / keys.size("attention.head_count")
             : config["head_dim"].get<std::int64_t>();
  return config;
}

json gpt2_config(const ArchitectureKeys& keys) {
  const auto& file = keys.file();
  json config = {
      {"model_type", "gpt2"},
      {"architectures", {"GPT2LMHeadModel"}},
      {"n_embd", keys.size("embedding_length")},
      {"n_inner", keys.size("feed_forward_length")},
      {"n_layer", keys.size("block_count")},
      {"n_head", keys.size("attention.head_count")},
      {"n_positions", rows_of(file, "position_embd.weight")},
      {"activation_function", "gelu_new"},
      {"layer_norm_epsilon", keys.real("attention.layer_norm_epsilon")},
      {"vocab_size", rows_of(file, "token_embd.weight")},
      {"tie_word_embeddings", !file.contains("output.weight")},
      {"torch_dtype", "float32"},
  };
  add_token_ids(file, config);
  return config;
}

void refuse_decoding(const ArchitectureKeys& keys) { keys.require("attention.causal", 0); }

json bert_config(const ArchitectureKeys& keys) {
  const auto& file = keys.file();
  refuse_decoding(keys);
  return {
      {"model_type", "bert"},
      {"architectures", {"BertModel"}},
      {"hidden_size", keys.size("embedding_length")},
      {"intermediate_size", keys.size("feed_forward_length")},
      {"num_hidden_layers", keys.size("block_count")},
      {"num_attention_heads", keys.size("attention.head_count")},
      {"max_position_embeddings", rows_of(file, "position_embd.weight")},
      {"type_vocab_size", rows_of(file, "token_types.weight")},
      {"hidden_act", "gelu"},
      {"layer_norm_eps", keys.real("attention.layer_norm_epsilon")},
      {"vocab_size", rows_of(file, "token_embd.weight")},
      {"torch_dtype", "float32"},
  };
}

json distilbert_config(const ArchitectureKeys& keys) {
  const auto& file = keys.file();
  refuse_decoding(keys);
  keys.require("attention.layer_norm_epsilon", 1e-12);  // config.json has no place for another
  return {
      {"model_type", "distilbert"},
      {"architectures", {"DistilBertModel"}},
      {"dim", keys.size("embedding_length")},
      {"hidden_dim", keys.size("feed_forward_length")},
      {"n_layers", keys.size("block_count")},
      {"n_heads", keys.size("attention.head_count")},
      {"max_position_embeddings", rows_of(file, "position_embd.weight")},
      {"activation", "gelu"},
      {"vocab_size", rows_of(file, "token_embd.weight")},
      {"torch_dtype", "float32"},
  };
}

struct Architecture {
  const char* model_type;
  json (*config)(const ArchitectureKeys& keys);
};
constexpr Architecture architectures[] = {
    {"llama", llama_config},          {"qwen2", qwen2_config}, {"qwen3", qwen3_config},
    {"gemma2", gemma2_config},        {"gpt2", gpt2_config},   {"bert", bert_config},
    {"distilbert", distilbert_config}};

}  // namespace

std::string model_type_of(const GgufFile& file) {
  const auto found = file.metadata().find("general.architecture");
  if (found == file.metadata().end() || !found->is_string())
    fail("{}: does not say its architecture (general.architecture)", file.path().string());
  auto name = found->get<std::string>();
  // DistilBERT's files are called bert's; it has no segments.
  if (name == "bert" && !file.tensors().empty() && !file.contains("token_types.weight"))
    name = "distilbert";
  else if (name == "distilbert")
    name = "";
  std::vector<std::string> names;
  for (const auto& architecture : architectures) {
    if (name == architecture.model_type) return name;
    if (std::string_view("distilbert") != architecture.model_type)
      names.emplace_back(architecture.model_type);
  }
  fail(
      "{}: is of the architecture '{}'; GGUF files are supported for: {} (other models: use a "
      "Hugging Face "
      "folder)",
      file.path().string(), found->get_ref<const std::string&>(), joined(names));
}

}  // namespace attune::weights

namespace attune {

nlohmann::json huggingface_config(const GgufFile& file) {
  using namespace weights;
  const auto type = model_type_of(file);
  const auto* found = std::ranges::find(architectures, type, [](const Architecture& architecture) {
    return std::string(architecture.model_type);
  });
  return found->config(ArchitectureKeys(file));
}

}  // namespace attune
