// SentencePiece models ("tokenizer.model", "spiece.model"): a protobuf message with the pieces and
// training settings.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune::text {

/// The fields of sentencepiece_model.proto that affect ids, with that file's defaults.
struct SentencePieceModel {
  enum class Type { unigram = 1, bpe = 2, word = 3, character = 4 };
  enum class Kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Kind kind = Kind::normal;
  };

  std::vector<Piece> pieces;  // by id
  Type type = Type::unigram;
  bool byte_fallback = false;
  std::int64_t unknown_id = 0;
  std::int64_t bos_id = 1;
  std::int64_t eos_id = 2;
  std::string unknown_piece = "<unk>";
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  std::string precompiled_charsmap;  // "" if none
};

/// Error, prefixed by `file`, if the bytes are not such a model or are truncated.
SentencePieceModel read_sentencepiece(std::string_view bytes, std::string_view file);

}  // namespace attune::text
