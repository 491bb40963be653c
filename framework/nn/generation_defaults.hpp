// Generation defaults from a model's files.
#pragma once
#include <attune/tokenizer.hpp>

#include <string>
#include <vector>

#include "nn/generate.hpp"

namespace attune {
struct ModelFiles;
}

namespace attune::nn {

/// All end-of-text tokens, without duplicates: eos_token_id (an integer or a list) of config.json,
/// its text_config and generation_config.json, and the tokenizer's eos_token.
std::vector<std::int32_t> end_tokens(const ModelFiles& files, const Tokenizer& tokenizer);

struct GenerationDefaults {
  GenerateOptions options;           // including stop
  std::vector<std::string> ignored;  // keys with an effect that `generate` does not support
  bool has_length = false;           // whether the files limit the answer's length
};

/// Reads generation_config.json or, if it does not exist, config.json, where transformers before
/// 4.26 stored these keys. Missing values get transformers' defaults. Error for a value of another
/// type or out of range.
GenerationDefaults generation_defaults(const ModelFiles& files, const Tokenizer& tokenizer);

}  // namespace attune::nn
