// transformers' tokenizer classes: the stages that each builds for a vocabulary, regardless of the
// normalizer and pre-tokenizer in tokenizer.json.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "text/added_token_list.hpp"
#include "text/sentencepiece.hpp"
#include "text/tokenizer_settings.hpp"

namespace attune::text {

/// The stages of a tokenizer.json.
struct TokenizerParts {
  nlohmann::json normalizer;
  nlohmann::json pre_tokenizer;
  nlohmann::json post_processor;
  nlohmann::json decoder;
  nlohmann::json model;
};

/// A vocabulary as input of a tokenizer class.
struct TokenizerVocabulary {
  // tokens and ids as an object; for a Unigram model a list of pieces and scores
  nlohmann::json vocab;
  nlohmann::json merges;                   // for a BPE model
  nlohmann::json charsmap;                 // SentencePiece's normalisation in base64; null if none
  std::vector<nlohmann::json> added = {};  // pieces that are matched before all other processing
  std::int64_t unknown_id = -1;            // of a Unigram model; -1: decided by the class
};

struct TokenizerClass {
  std::string name;
  std::string model;  // "BPE", "Unigram", "WordPiece"; "": uses tokenizer.json unchanged
  // used if there is no tokenizer.json; vocab.json is accompanied by merges.txt
  std::string vocab_file;
  // default special tokens
  std::vector<std::pair<std::string, std::string>> tokens;
  TokenizerParts (*build)(const TokenizerVocabulary& vocabulary,
                          TokenizerSettings& settings) = nullptr;
  /// Reorders a SentencePiece vocabulary to the ids of the class.
  void (*reorder)(TokenizerVocabulary& vocabulary, TokenizerSettings& settings) = nullptr;
  /// Settings applied after special tokens are added.
  void (*finish)(TokenizerParts& parts, AddedTokenList& added,
                 const TokenizerSettings& settings) = nullptr;
  bool keeps_stages = false;  // uses the stages of tokenizer.json; `finish` still applies
};

/// The class that AutoTokenizer selects. config: config.json, or null. Error for a class that is
/// not supported.
const TokenizerClass& tokenizer_class(const nlohmann::json& config,
                                      const OrderedJson& tokenizer_config, bool json_is_byte_level);

/// The class with this name; nullptr if it is not supported.
const TokenizerClass* find_tokenizer_class(const std::string& name);

}  // namespace attune::text
