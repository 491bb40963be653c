#include "text/model.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

struct WordPiece {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::int32_t unknown;
  std::string prefix;  // of a piece inside a word: "##"
  std::size_t max_code_points;

  void operator()(std::string_view word, Pieces& pieces) const {
    if (count_code_points(word) > max_code_points || !append_pieces(word, pieces)) {
      pieces.clear();
      pieces.add(unknown, 0, word.size());
    }
  }

  /// false: some part of the word is in no piece.
  bool append_pieces(std::string_view word, Pieces& pieces) const {
    std::string piece;
    for (std::size_t start = 0; start < word.size();) {
      piece = start == 0 ? "" : prefix;
      const std::size_t prefix_size = piece.size();
      piece += word.substr(start);
      std::size_t end = word.size();
      auto id = vocabulary->id(piece);
      while (!id) {
        previous_code_point(word, end);
        if (end == start) return false;
        piece.resize(prefix_size + end - start);
        id = vocabulary->id(piece);
      }
      pieces.add(*id, start, end);
      start = end;
    }
    return true;
  }
};

}  // namespace

Model make_word_piece(const Json& json) {
  const auto vocabulary = std::make_shared<const Vocabulary>(json.at("vocab"));
  const auto unknown =
      unknown_id(*vocabulary, value_or<std::string>(json, "unk_token", "[UNK]"), "WordPiece");
  if (!unknown) fail("tokenizer.json: a WordPiece model needs an unk_token");
  return {vocabulary, WordPiece{vocabulary, *unknown,
                                value_or<std::string>(json, "continuing_subword_prefix", "##"),
                                value_or<std::size_t>(json, "max_input_chars_per_word", 100)}};
}

}  // namespace attune::text
