#include "weights/name_map.hpp"

#include <attune/error.hpp>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

namespace attune {
using nlohmann::json;
using weights::shape_text;
using weights::TensorTable;
namespace {

struct Names {
  const char* gguf;
  const char* huggingface;
};
constexpr Names outside_blocks[] = {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Names in_block[] = {
    {"attn_norm", "input_layernorm"},      {"attn_q", "self_attn.q_proj"},       {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},        {"attn_output", "self_attn.o_proj"},  {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},         {"ffn_up", "mlp.up_proj"},            {"ffn_down", "mlp.down_proj"},
};

void check_architecture(const GgufFile& file) {
  const auto found = file.metadata().find("general.architecture");
  if (found == file.metadata().end() || !found->is_string()) fail("{}: does not say its architecture (general.architecture)", file.path().string());
  if (const auto& name = found->get_ref<const std::string&>(); name != "llama")
    fail("{}: is of the architecture '{}'; GGUF files are supported for: llama (other models: use a Hugging Face folder)", file.path().string(), name);
}

template <std::size_t n>
std::optional<std::string> find_name(const Names (&names)[n], std::string_view gguf) {
  for (const auto& pair : names)
    if (pair.gguf == gguf) return pair.huggingface;
  return std::nullopt;
}

/// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"
std::optional<std::string> huggingface_name(std::string_view gguf) {
  const auto dot = gguf.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const auto suffix = gguf.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
  auto stem = gguf.substr(0, dot);
  std::string prefix;
  constexpr std::string_view block = "blk.";
  std::optional<std::string> name;
  if (stem.starts_with(block)) {
    const auto end = stem.find('.', block.size());
    if (end == std::string_view::npos) return std::nullopt;
    prefix = "model.layers." + std::string(stem.substr(block.size(), end - block.size())) + ".";
    name = find_name(in_block, stem.substr(end + 1));
  } else {
    name = find_name(outside_blocks, stem);
  }
  if (!name) return std::nullopt;
  return prefix + *name + std::string(suffix);
}

std::int64_t positive(const GgufFile& file, const std::string& key, std::int64_t fallback = 0) {
  const auto found = file.metadata().find(key);
  const auto value = found == file.metadata().end() ? fallback : found->is_number_integer() ? found->get<std::int64_t>() : 0;
  if (value <= 0 || value > INT32_MAX) fail("{}: its metadata has no number from 1 to 2147483647 as '{}'; the file is damaged, fetch it again", file.path().string(), key);
  return value;
}

/// GGUF holds float32: the shortest decimal that reads back as the same float is what its author wrote (1e-05, not 9.99999974e-06).
double positive_real(const GgufFile& file, const std::string& key, float fallback = 0) {
  const auto found = file.metadata().find(key);
  const auto value = found == file.metadata().end() ? fallback : found->is_number() ? found->get<float>() : 0.0f;
  if (!(value > 0) || !std::isfinite(value)) fail("{}: its metadata has no positive number as '{}'; the file is damaged, fetch it again", file.path().string(), key);
  const auto text = fmt::format("{}", value);
  double written = value;
  std::from_chars(text.data(), text.data() + text.size(), written);
  return written;
}

/// Scaled RoPE changes every rotation; a file that asks for it must not be read as one that does not.
void refuse_scaled_rope(const GgufFile& file) {
  const auto type = file.metadata().find("llama.rope.scaling.type");
  const bool scaled = type != file.metadata().end() && *type != "none";
  if (scaled || file.contains("rope_freqs.weight"))
    fail("{}: uses scaled rotary embeddings, which are not supported for GGUF files; use the model's Hugging Face folder", file.path().string());
}

class HuggingFaceNames final : public WeightSource {
 public:
  explicit HuggingFaceNames(std::unique_ptr<GgufFile> file) : file_(std::move(file)), table_(file_->path()) {
    heads_ = positive(*file_, "llama.attention.head_count");
    kv_heads_ = positive(*file_, "llama.attention.head_count_kv", heads_);
    for (auto info : file_->tensors()) {
      const auto name = huggingface_name(info.name);
      if (!name) fail("{}: tensor '{}' has no place in a llama model as it is known here; use the model's Hugging Face folder", file_->path().string(), info.name);
      info.name = *name;
      table_.add(std::move(info));
    }
  }
  const std::vector<TensorInfo>& tensors() const override { return table_.all(); }
  at::Tensor read(const std::string& name) override {
    const auto& stored = file_->tensors()[table_.find(name)].name;
    const auto tensor = file_->read(stored);
    if (stored.find(".attn_q.") != std::string::npos) return unpermuted(stored, tensor, heads_);
    if (stored.find(".attn_k.") != std::string::npos) return unpermuted(stored, tensor, kv_heads_);
    return tensor;
  }

 private:
  /// Rows [heads, head_dim / 2, 2] -> [heads, 2, head_dim / 2]: the inverse of permute() in llama.cpp's convert_hf_to_gguf.py.
  at::Tensor unpermuted(const std::string& name, const at::Tensor& tensor, std::int64_t heads) const {
    const auto rows = tensor.size(0);
    if (rows % (heads * 2) != 0)
      fail("{}: tensor '{}' of shape {} cannot be divided among {} heads; the file is damaged, fetch it again", file_->path().string(), name,
           shape_text(tensor.sizes().vec()), heads);
    return tensor.view({heads, rows / heads / 2, 2, -1}).transpose(1, 2).reshape(tensor.sizes());
  }

  std::unique_ptr<GgufFile> file_;
  TensorTable table_;
  std::int64_t heads_ = 0, kv_heads_ = 0;
};

std::int64_t vocabulary_rows(const GgufFile& file) {
  for (const auto& info : file.tensors())
    if (info.name == "token_embd.weight") return info.shape.front();
  fail("{}: has no tensor 'token_embd.weight'; a llama model needs one, fetch the file again", file.path().string());
}

}  // namespace

json huggingface_config(const GgufFile& file) {
  check_architecture(file);
  refuse_scaled_rope(file);
  const auto hidden = positive(file, "llama.embedding_length");
  const auto heads = positive(file, "llama.attention.head_count");
  const auto head_dim = positive(file, "llama.attention.key_length", positive(file, "llama.rope.dimension_count", hidden / heads));
  json config = {
      {"model_type", "llama"},
      {"architectures", {"LlamaForCausalLM"}},
      {"hidden_size", hidden},
      {"intermediate_size", positive(file, "llama.feed_forward_length")},
      {"num_hidden_layers", positive(file, "llama.block_count")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", positive(file, "llama.attention.head_count_kv", heads)},
      {"head_dim", head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", positive(file, "llama.context_length")},
      {"rope_theta", positive_real(file, "llama.rope.freq_base", 10000.0f)},
      {"rms_norm_eps", positive_real(file, "llama.attention.layer_norm_rms_epsilon")},
      {"vocab_size", vocabulary_rows(file)},
      {"attention_bias", file.contains("blk.0.attn_q.bias")},
      {"mlp_bias", file.contains("blk.0.ffn_up.bias")},
      {"tie_word_embeddings", !file.contains("output.weight")},
      {"torch_dtype", "float32"},
  };
  for (const auto* token : {"bos", "eos"}) {
    const auto id = file.metadata().find(fmt::format("tokenizer.ggml.{}_token_id", token));
    if (id != file.metadata().end() && id->is_number_unsigned()) config[fmt::format("{}_token_id", token)] = *id;
  }
  return config;
}

std::unique_ptr<WeightSource> huggingface_weights(std::unique_ptr<GgufFile> file) {
  check_architecture(*file);
  refuse_scaled_rope(*file);
  return std::make_unique<HuggingFaceNames>(std::move(file));
}

}  // namespace attune
