// GGUF's names, config and layout turned into Hugging Face's, for the architectures we know.
#pragma once
#include <attune/weights.hpp>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "weights/gguf.hpp"

namespace attune {

/// The config.json that transformers would have for this file. Error for an architecture that is not supported, or a missing key.
nlohmann::json huggingface_config(const GgufFile& file);

/// The file's tensors under Hugging Face's names. Rows of Q and K come in the order transformers has them: llama.cpp keeps the two
/// halves that RoPE rotates interleaved, transformers one after the other.
std::unique_ptr<WeightSource> huggingface_weights(std::unique_ptr<GgufFile> file);

}  // namespace attune
