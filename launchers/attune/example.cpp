#include "example.hpp"

#include <fmt/format.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "text/byte_level.hpp"
#include "weights/safetensors.hpp"

namespace attune::program {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int64_t width = 32;
constexpr std::int64_t inner = 64;
constexpr std::int64_t heads = 4;
constexpr std::int64_t key_heads = 2;
constexpr std::int64_t depth = 2;
constexpr std::int64_t end_token = 256;
constexpr std::int64_t vocabulary = 257;
constexpr const char* end_of_text = "<|end|>";

json config_of(const std::string& model_type) {
  const bool is_llama = model_type == "llama";
  return {{"model_type", model_type},
          {"architectures", {is_llama ? "LlamaForCausalLM" : model_type}},
          {"hidden_size", width},
          {"intermediate_size", inner},
          {"num_hidden_layers", depth},
          {"num_attention_heads", heads},
          {"num_key_value_heads", key_heads},
          {"hidden_act", "silu"},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"vocab_size", vocabulary},
          {"tie_word_embeddings", true},
          {"bos_token_id", end_token},
          {"eos_token_id", end_token},
          {"dtype", "float32"}};
}

std::vector<std::pair<std::string, at::Tensor>> weights() {
  torch::manual_seed(0);
  std::vector<std::pair<std::string, at::Tensor>> all;
  const auto matrix = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    all.emplace_back(name + ".weight", torch::randn({out, in}) * 0.1);
  };
  const auto norm = [&](const std::string& name) {
    all.emplace_back(name + ".weight", torch::ones({width}));
  };
  matrix("model.embed_tokens", vocabulary, width);
  for (std::int64_t i = 0; i < depth; ++i) {
    const auto block = fmt::format("model.layers.{}.", i);
    norm(block + "input_layernorm");
    matrix(block + "self_attn.q_proj", width, width);
    matrix(block + "self_attn.k_proj", width / heads * key_heads, width);
    matrix(block + "self_attn.v_proj", width / heads * key_heads, width);
    matrix(block + "self_attn.o_proj", width, width);
    norm(block + "post_attention_layernorm");
    matrix(block + "mlp.gate_proj", inner, width);
    matrix(block + "mlp.up_proj", inner, width);
    matrix(block + "mlp.down_proj", width, inner);
  }
  norm("model.norm");
  return all;
}

/// A token for each byte, and one that ends a text.
json tokenizer() {
  json vocabulary = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    text::append_byte_characters(character, std::string(1, static_cast<char>(byte)));
    vocabulary[character] = byte;
  }
  const json bytes{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  const json end{{"id", end_token}, {"content", end_of_text}, {"single_word", false},
                 {"lstrip", false}, {"rstrip", false},        {"normalized", false},
                 {"special", true}};
  return {{"version", "1.0"},
          {"added_tokens", json::array({end})},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
}

std::string texts() {
  std::string lines;
  for (int i = 0; i < 80; ++i) {
    const auto sum = fmt::format("{} and {} make {}.", i % 9, i % 7, i % 9 + i % 7);
    lines += json{{"text", sum}}.dump() + "\n";
  }
  return lines;
}

std::string recipe(const std::string& kind) {
  return fmt::format(R"(# attune prepare example/texts.toml
name = "texts"
kind = "{}"
licence = "CC0-1.0"
output = "texts.h5"
tokenizer = "model"

[[source]]
path = "texts.jsonl"

[split]
validation = 0.1
)",
                     kind);
}

}  // namespace

void write_example(const fs::path& folder, const Example& example) {
  const auto model = folder / "model";
  fs::create_directories(model);
  write_text(model / "config.json", config_of(example.model_type).dump(2) + "\n");
  write_safetensors(model / "model.safetensors", weights());
  write_text(model / "tokenizer.json", tokenizer().dump(2) + "\n");
  write_text(model / "tokenizer_config.json", json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                                   {"bos_token", end_of_text},
                                                   {"eos_token", end_of_text}}
                                                      .dump(2) +
                                                  "\n");
  write_text(folder / "texts.jsonl", texts());
  write_text(folder / "texts.toml", recipe(example.kind));
}

}  // namespace attune::program
