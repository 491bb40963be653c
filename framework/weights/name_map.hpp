// GGUF's names, config and layout turned into Hugging Face's, for the architectures we know.
#pragma once
#include <attune/weights.hpp>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "weights/gguf.hpp"

namespace attune {

/// The config.json that transformers would have for this file. Error for an architecture that is
/// not supported, or a missing key.
nlohmann::json huggingface_config(const GgufFile& file);

/// The file's tensors under Hugging Face's names, with what llama.cpp's converter did to them
/// undone: rows of Q and K of Llama, which its RoPE wants interleaved; Gemma's norms, which it
/// keeps around 1; GPT-2's matrices, which it transposes.
std::unique_ptr<WeightSource> huggingface_weights(std::unique_ptr<GgufFile> file);

}  // namespace attune
