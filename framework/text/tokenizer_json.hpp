// Writers for the components of a tokenizer.json.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace attune::text {

using NamedToken = std::pair<std::string, std::int64_t>;

nlohmann::json added_token(std::int64_t id, const std::string& content, bool special);
/// A post-processor that adds special tokens around a text.
nlohmann::json template_processing(const std::vector<NamedToken>& before,
                                   const std::vector<NamedToken>& after);
/// A BERT tokenizer (WordPiece) with this vocabulary. added: its special tokens.
nlohmann::json bert_tokenizer_json(nlohmann::json vocab, nlohmann::json added, bool lowercase);
nlohmann::json tokenizer_json(nlohmann::json added, nlohmann::json normalizer,
                              nlohmann::json pre_tokenizer, nlohmann::json post_processor,
                              nlohmann::json decoder, nlohmann::json model);

}  // namespace attune::text
