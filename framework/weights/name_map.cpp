#include "weights/name_map.hpp"

#include <ATen/TensorOperators.h>
#include <attune/error.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "weights/gguf_config.hpp"

namespace attune {
using weights::shape_text;
using weights::TensorTable;
namespace {

/// What llama.cpp's converter does to a tensor, and is undone here.
enum class Layout {
  as_it_is,
  query_rows,  // rows of each head interleaved for its RoPE
  key_rows,
  plus_one,    // RMSNorm's weight around 1, which transformers holds around 0
  transposed,  // transformers' Conv1D
};

struct Names {
  const char* gguf;
  const char* huggingface;
  Layout layout = Layout::as_it_is;
};

constexpr Names decoder_parts[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Names llama_block[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj", Layout::query_rows},
    {"attn_k", "self_attn.k_proj", Layout::key_rows},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr Names qwen_block[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr Names gemma_parts[] = {{"token_embd", "model.embed_tokens"},
                                 {"output_norm", "model.norm", Layout::plus_one},
                                 {"output", "lm_head"}};
constexpr Names gemma_block[] = {
    {"attn_norm", "input_layernorm", Layout::plus_one},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"post_attention_norm", "post_attention_layernorm", Layout::plus_one},
    {"ffn_norm", "pre_feedforward_layernorm", Layout::plus_one},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm", Layout::plus_one},
};
constexpr Names gpt2_parts[] = {{"token_embd", "transformer.wte"},
                                {"position_embd", "transformer.wpe"},
                                {"output_norm", "transformer.ln_f"},
                                {"output", "lm_head"}};
constexpr Names gpt2_block[] = {
    {"attn_norm", "ln_1"},
    {"attn_qkv", "attn.c_attn", Layout::transposed},
    {"attn_output", "attn.c_proj", Layout::transposed},
    {"ffn_norm", "ln_2"},
    {"ffn_up", "mlp.c_fc", Layout::transposed},
    {"ffn_down", "mlp.c_proj", Layout::transposed},
};
constexpr Names bert_parts[] = {
    {"token_embd", "embeddings.word_embeddings"},
    {"position_embd", "embeddings.position_embeddings"},
    {"token_types", "embeddings.token_type_embeddings"},
    {"token_embd_norm", "embeddings.LayerNorm"},
};
constexpr Names bert_block[] = {
    {"attn_q", "attention.self.query"},
    {"attn_k", "attention.self.key"},
    {"attn_v", "attention.self.value"},
    {"attn_output", "attention.output.dense"},
    {"attn_output_norm", "attention.output.LayerNorm"},
    {"ffn_up", "intermediate.dense"},
    {"ffn_down", "output.dense"},
    {"layer_output_norm", "output.LayerNorm"},
};
constexpr Names distilbert_block[] = {
    {"attn_q", "attention.q_lin"},
    {"attn_k", "attention.k_lin"},
    {"attn_v", "attention.v_lin"},
    {"attn_output", "attention.out_lin"},
    {"attn_output_norm", "sa_layer_norm"},
    {"ffn_up", "ffn.lin1"},
    {"ffn_down", "ffn.lin2"},
    {"layer_output_norm", "output_layer_norm"},
};

struct Architecture {
  const char* model_type;
  std::span<const Names> parts;
  std::span<const Names> block;
  const char* blocks;  // what the blocks' names begin with
};
constexpr Architecture architectures[] = {
    {"llama", decoder_parts, llama_block, "model.layers."},
    {"qwen2", decoder_parts, qwen_block, "model.layers."},
    {"qwen3", decoder_parts, qwen_block, "model.layers."},
    {"gemma2", gemma_parts, gemma_block, "model.layers."},
    {"gpt2", gpt2_parts, gpt2_block, "transformer.h."},
    {"bert", bert_parts, bert_block, "encoder.layer."},
    {"distilbert", bert_parts, distilbert_block, "transformer.layer."},
};

/// Frequencies of the rotary embedding: the config says them.
bool is_rotary(const std::string& gguf) {
  return gguf == "rope_freqs.weight" || gguf.find(".attn_rot_embd.") != std::string::npos;
}

const Names* find_names(std::span<const Names> all, std::string_view gguf) {
  const auto found =
      std::ranges::find(all, gguf, [](const Names& names) { return std::string_view(names.gguf); });
  return found == all.end() ? nullptr : &*found;
}

struct Place {
  std::string name;
  Layout layout;
};

/// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"
std::optional<Place> huggingface_place(const Architecture& architecture, std::string_view gguf) {
  const auto dot = gguf.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const auto suffix = gguf.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
  const auto stem = gguf.substr(0, dot);
  constexpr std::string_view block = "blk.";
  if (!stem.starts_with(block)) {
    const auto* names = find_names(architecture.parts, stem);
    return names ? std::optional<Place>({names->huggingface + std::string(suffix), names->layout})
                 : std::nullopt;
  }
  const auto end = stem.find('.', block.size());
  if (end == std::string_view::npos) return std::nullopt;
  const auto* names = find_names(architecture.block, stem.substr(end + 1));
  if (!names) return std::nullopt;
  const auto index = stem.substr(block.size(), end - block.size());
  return Place{fmt::format("{}{}.{}{}", architecture.blocks, index, names->huggingface, suffix),
               names->layout};
}

class HuggingFaceNames final : public WeightSource {
 public:
  explicit HuggingFaceNames(std::unique_ptr<GgufFile> file)
      : file_(std::move(file)), table_(file_->path()) {
    const auto type = weights::model_type_of(*file_);
    const auto& architecture = *std::ranges::find(
        architectures, type, [](const Architecture& each) { return std::string(each.model_type); });
    const weights::ArchitectureKeys keys(*file_);
    heads_ = keys.size("attention.head_count");
    key_heads_ = keys.size("attention.head_count_kv", heads_);
    for (const auto& info : file_->tensors())
      if (!is_rotary(info.name)) add(architecture, info);
  }
  const std::vector<TensorInfo>& tensors() const override { return table_.all(); }
  at::Tensor read(const std::string& name) override {
    const auto& source = sources_[table_.find(name)];
    const auto tensor = file_->read(source.name);
    switch (source.layout) {
      case Layout::as_it_is: return tensor;
      case Layout::query_rows: return unpermuted(source.name, tensor, heads_);
      case Layout::key_rows: return unpermuted(source.name, tensor, key_heads_);
      case Layout::plus_one: return tensor - 1;
      case Layout::transposed: return tensor.t();
    }
    ATTUNE_ASSERT(false, "layout {}", static_cast<int>(source.layout));
  }

 private:
  void add(const Architecture& architecture, TensorInfo info) {
    auto place = huggingface_place(architecture, info.name);
    if (!place)
      fail("{}: tensor '{}' is unknown in a {} model; use the model's Hugging Face folder",
           file_->path().string(), info.name, architecture.model_type);
    if (info.shape.size() != 2 && place->layout == Layout::transposed)
      place->layout = Layout::as_it_is;  // a bias
    if (place->layout == Layout::transposed) std::swap(info.shape[0], info.shape[1]);
    sources_.push_back({info.name, place->layout});
    info.name = place->name;
    table_.add(std::move(info));
  }

  /// Rows [heads, head_dim / 2, 2] -> [heads, 2, head_dim / 2]: the inverse of permute() in
  /// llama.cpp's convert_hf_to_gguf.py.
  at::Tensor unpermuted(const std::string& name, const at::Tensor& tensor,
                        std::int64_t heads) const {
    const auto rows = tensor.size(0);
    if (rows % (heads * 2) != 0)
      fail(
          "{}: tensor '{}' of shape {} cannot be divided among {} heads; the file is damaged, "
          "fetch it again",
          file_->path().string(), name, shape_text(tensor.sizes().vec()), heads);
    return tensor.view({heads, rows / heads / 2, 2, -1}).transpose(1, 2).reshape(tensor.sizes());
  }

  struct Source {
    std::string name;  // in the file
    Layout layout;
  };
  std::unique_ptr<GgufFile> file_;
  TensorTable table_;
  std::vector<Source> sources_;  // in the table's order
  std::int64_t heads_ = 0;
  std::int64_t key_heads_ = 0;
};

}  // namespace

std::unique_ptr<WeightSource> huggingface_weights(std::unique_ptr<GgufFile> file) {
  return std::make_unique<HuggingFaceNames>(std::move(file));
}

}  // namespace attune
