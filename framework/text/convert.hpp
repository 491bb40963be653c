// Conversion of other vocabulary formats to tokenizer.json.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/merges.hpp"

namespace attune::text {

/// metadata: the keys of a GGUF file ("tokenizer.ggml.tokens": [...], ...). Supported vocabularies:
/// byte-level BPE ("gpt2"), SentencePiece BPE ("llama") and Unigram ("t5"), and WordPiece ("bert").
/// Error for another model, or for an unknown "tokenizer.ggml.pre".
nlohmann::json tokenizer_json_from_gguf(const nlohmann::json& metadata);

/// tekken.json, Mistral's vocabulary format.
nlohmann::json tokenizer_json_from_tekken(const nlohmann::json& tekken);

/// Whether the text is in tiktoken's format: lines with a base64-encoded token and its rank. Its
/// file name is tokenizer.model or tiktoken.model.
bool is_tiktoken(std::string_view text);
RankedBytes read_tiktoken(std::string_view text, const std::string& file);
/// Uses Llama 3's pre-tokenization pattern, as transformers does. special: tokens with ids after
/// the ranks, in order.
nlohmann::json tokenizer_json_from_tiktoken(const RankedBytes& ranks,
                                            const std::vector<std::string>& special,
                                            const std::string& file);

/// Lines without their ends ("\n", "\r\n"). The last line may lack one.
std::vector<std::string> lines(std::string_view text);

}  // namespace attune::text
