// Other forms of vocabulary, as the tokenizer.json they stand for.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/merges.hpp"

namespace attune::text {

/// metadata: the keys of a GGUF file ("tokenizer.ggml.tokens": [...], ...), whose vocabulary is
/// byte-level BPE ("gpt2"), SentencePiece's BPE
/// ("llama") or Unigram ("t5"), or WordPiece ("bert"). Error for another model, and for a
/// "tokenizer.ggml.pre" whose patterns are not known.
nlohmann::json tokenizer_json_from_gguf(const nlohmann::json& metadata);

/// tekken.json, Mistral's form of a vocabulary.
nlohmann::json tokenizer_json_from_tekken(const nlohmann::json& tekken);

/// Lines of a token in base64 and its rank: the form of tiktoken, under the name tokenizer.model or
/// tiktoken.model.
bool is_tiktoken(std::string_view text);
RankedBytes read_tiktoken(std::string_view text, const std::string& file);
/// Cut by Llama 3's pattern, as transformers cuts it. special: tokens behind the ranks, in the
/// order of their ids.
nlohmann::json tokenizer_json_from_tiktoken(const RankedBytes& ranks,
                                            const std::vector<std::string>& special,
                                            const std::string& file);

/// Lines without their ends ("\n", "\r\n"); the last may have none.
std::vector<std::string> lines(std::string_view text);

}  // namespace attune::text
