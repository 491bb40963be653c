// transformers' tokenizer classes: what each makes of a vocabulary, whatever the normalizer and
// pre-tokenizer in tokenizer.json are.
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

/// A vocabulary as a class takes it.
struct TokenizerVocabulary {
  // an object of tokens and ids; of a Unigram model a list of pieces and scores
  nlohmann::json vocab;
  nlohmann::json merges;                   // of a BPE model
  nlohmann::json charsmap;                 // SentencePiece's normalisation in base64; null: none
  std::vector<nlohmann::json> added = {};  // pieces that are found in the text before anything else
  std::int64_t unknown_id = -1;            // of a Unigram model that says so; -1: the class decides
};

struct TokenizerClass {
  std::string name;
  std::string model;  // "BPE", "Unigram", "WordPiece"; "": the class takes tokenizer.json as it is
  // read where there is no tokenizer.json; beside a vocab.json comes merges.txt
  std::string vocab_file;
  // special tokens that the files need not name
  std::vector<std::pair<std::string, std::string>> tokens;
  TokenizerParts (*build)(const TokenizerVocabulary& vocabulary,
                          TokenizerSettings& settings) = nullptr;
  /// Changes a SentencePiece vocabulary to the order of ids that the class uses.
  void (*reorder)(TokenizerVocabulary& vocabulary, TokenizerSettings& settings) = nullptr;
  /// What the class sets after special tokens are added.
  void (*finish)(TokenizerParts& parts, AddedTokenList& added,
                 const TokenizerSettings& settings) = nullptr;
  bool keeps_stages = false;  // a tokenizer.json is taken as it is; `finish` comes nonetheless
};

/// The class that AutoTokenizer chooses. config: config.json; null: there is none. Error for a
/// class whose rules are not known here.
const TokenizerClass& tokenizer_class(const nlohmann::json& config,
                                      const OrderedJson& tokenizer_config, bool json_is_byte_level);

/// The class with this name; null: its rules are not known here.
const TokenizerClass* find_tokenizer_class(const std::string& name);

}  // namespace attune::text
