// Third stage: encoding of single words into ids.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "text/vocabulary.hpp"
#include "text/word_cache.hpp"

namespace attune::text {

class Model {
 public:
  /// Appends the pieces of one word. Must be thread-safe.
  using Cut = std::function<void(std::string_view word, Pieces& pieces)>;

  /// parts_at: words may be cut before each occurrence of this text without changing the pieces;
  /// "": never.
  Model(std::shared_ptr<const Vocabulary> vocabulary, Cut cut, std::string parts_at = "");

  /// Calls `use(pieces, begin)` for each part of the word, in order. Spans are relative to `begin`.
  template <class Use>
  void encode(std::string_view word, Use use) const {
    for (std::size_t begin = 0; begin < word.size();) {
      const std::size_t end = end_of_part(word, begin);
      use(pieces(word.substr(begin, end - begin)), begin);
      begin = end;
    }
  }

  const Vocabulary& vocabulary() const { return *vocabulary_; }

 private:
  std::size_t end_of_part(std::string_view word, std::size_t begin) const;
  /// The result is valid until this thread's next call.
  const Pieces& pieces(std::string_view word) const;

  std::shared_ptr<const Vocabulary> vocabulary_;
  Cut cut_;
  std::string parts_at_;
  std::uint64_t owner_;  // key of its words in the cache
};

Model make_model(const nlohmann::json& json);

/// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).
Model make_bpe(const nlohmann::json& json);
/// Most likely segmentation under a unigram language model (Kudo 2018, arXiv:1804.10959).
Model make_unigram(const nlohmann::json& json);
/// WordPiece: longest match first (Wu et al. 2016, arXiv:1609.08144).
Model make_word_piece(const nlohmann::json& json);
/// Each word is one token, or the unknown token.
Model make_word_level(const nlohmann::json& json);

}  // namespace attune::text
