// Conversion of GGUF names, config and layout to Hugging Face's, for the supported architectures.
#pragma once
#include <attune/weights.hpp>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "weights/gguf.hpp"

namespace attune {

/// The equivalent config.json of a GGUF file. Error for an unsupported architecture or a missing
/// key.
nlohmann::json huggingface_config(const GgufFile& file);

/// The file's tensors under Hugging Face's names. Reverses the changes of llama.cpp's converter:
/// the interleaved rows of Llama's Q and K, the offset 1 of Gemma's norms, and the transposed
/// matrices of GPT-2.
std::unique_ptr<WeightSource> huggingface_weights(std::unique_ptr<GgufFile> file);

}  // namespace attune
