// How a model's own files want text to be generated.
#pragma once
#include <attune/tokenizer.hpp>

#include <string>
#include <vector>

#include "nn/generate.hpp"

namespace attune {
struct ModelFiles;
}

namespace attune::nn {

/// Every token that ends a text: eos_token_id of config.json (also in its text_config) and of
/// generation_config.json, an integer or a list each, and the tokenizer's eos_token. Without
/// duplicates.
std::vector<std::int32_t> end_tokens(const ModelFiles& files, const Tokenizer& tokenizer);

struct GenerationDefaults {
  GenerateOptions options;           // stop included
  std::vector<std::string> ignored;  // keys with an effect that `generate` does not have
  bool has_length = false;           // the files say how long an answer may become
};

/// From generation_config.json; from config.json, where models of transformers before its
/// version 4.26 have these keys, when there is none. A value that is not there is transformers'
/// default. Error for a value of another type, or out of its range.
GenerationDefaults generation_defaults(const ModelFiles& files, const Tokenizer& tokenizer);

}  // namespace attune::nn
