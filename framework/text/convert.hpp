// Other forms of vocabulary, as the tokenizer.json they stand for.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace attune::text {

/// metadata: the keys of a GGUF file ("tokenizer.ggml.tokens": [...], ...), whose vocabulary is byte-level BPE ("gpt2"), SentencePiece's BPE
/// ("llama") or Unigram ("t5"), or WordPiece ("bert"). Error for another model, and for a "tokenizer.ggml.pre" whose patterns are not known.
nlohmann::json tokenizer_json_from_gguf(const nlohmann::json& metadata);

/// vocab_txt: the text of a BERT vocab.txt, one token a line, the first with id 0. lowercase: an uncased model.
/// Error when [UNK], [CLS] or [SEP] is missing.
nlohmann::json tokenizer_json_from_vocab(std::string_view vocab_txt, bool lowercase);

}  // namespace attune::text
