#include "text/sentencepiece.hpp"

#include <cmath>
#include <cstring>

#include "attune/error.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// One field of a message. Numbers are in `number`, strings and messages in `bytes`.
struct Field {
  std::uint64_t id = 0;
  std::uint64_t number = 0;
  std::string_view bytes;
};

/// Protobuf's wire format: a tag (field number and type) before each value.
/// https://protobuf.dev/programming-guides/encoding
class Message {
 public:
  Message(std::string_view bytes, std::string_view file) : rest_(bytes), file_(file) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const auto tag = varint();
    field = {tag >> 3, 0, {}};
    switch (tag & 7) {
      case 0: field.number = varint(); break;
      case 1: field.bytes = take(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.bytes = take(4); break;
      default: damaged();
    }
    if (field.id == 0) damaged();
    return true;
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }

  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) damaged();
    const auto taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  [[noreturn]] void damaged() const {
    fail("{}: is not a SentencePiece model, or is damaged; fetch it again", file_);
  }

  std::string_view rest_;
  std::string_view file_;
};

float as_float(std::string_view bytes) {
  float value = 0;
  if (bytes.size() == sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

/// Protobuf writes a negative int32 as a 64-bit number.
std::int64_t as_id(const Field& field) { return static_cast<std::int64_t>(field.number); }

SentencePieceModel::Piece read_piece(std::string_view bytes, std::string_view file) {
  SentencePieceModel::Piece piece;
  Message message(bytes, file);
  for (Field field; message.next(field);) {
    if (field.id == 1) piece.text = field.bytes;
    if (field.id == 2) piece.score = as_float(field.bytes);
    if (field.id == 3) piece.kind = static_cast<SentencePieceModel::Kind>(field.number);
  }
  if (!is_valid_utf8(piece.text))
    fail("{}: contains a piece that is not UTF-8; it is damaged, fetch it again", file);
  if (std::isnan(piece.score))
    fail("{}: the score of the piece '{}' is not a number; it is damaged, fetch it again", file,
         piece.text);
  return piece;
}

void read_training(std::string_view bytes, std::string_view file, SentencePieceModel& model) {
  Message message(bytes, file);
  for (Field field; message.next(field);) switch (field.id) {
      case 3: model.type = static_cast<SentencePieceModel::Type>(field.number); break;
      case 35: model.byte_fallback = field.number != 0; break;
      case 40: model.unknown_id = as_id(field); break;
      case 41: model.bos_id = as_id(field); break;
      case 42: model.eos_id = as_id(field); break;
      case 45: model.unknown_piece = field.bytes; break;
      case 46: model.bos_piece = field.bytes; break;
      case 47: model.eos_piece = field.bytes; break;
      default: break;
    }
}

void read_normalizer(std::string_view bytes, std::string_view file, SentencePieceModel& model) {
  Message message(bytes, file);
  for (Field field; message.next(field);)
    if (field.id == 2) model.precompiled_charsmap = field.bytes;
}

void check(const SentencePieceModel& model, std::string_view file) {
  using Type = SentencePieceModel::Type;
  if (model.pieces.empty())
    fail("{}: is not a SentencePiece model, or is damaged; fetch it again", file);
  if (model.type != Type::unigram && model.type != Type::bpe)
    fail(
        "{}: is a SentencePiece model of the type {} (trainer_spec.model_type); supported are 1 "
        "(Unigram) and 2 (BPE)",
        file, static_cast<int>(model.type));
  if (model.unknown_id < 0 || model.unknown_id >= static_cast<std::int64_t>(model.pieces.size()))
    fail(
        "{}: its unknown piece has the id {}, but there are {} pieces; it is damaged, fetch it "
        "again",
        file, model.unknown_id, model.pieces.size());
}

}  // namespace

SentencePieceModel read_sentencepiece(std::string_view bytes, std::string_view file) {
  SentencePieceModel model;
  Message message(bytes, file);
  for (Field field; message.next(field);) {
    if (field.id == 1) model.pieces.push_back(read_piece(field.bytes, file));
    if (field.id == 2) read_training(field.bytes, file, model);
    if (field.id == 3) read_normalizer(field.bytes, file, model);
  }
  check(model, file);
  return model;
}

}  // namespace attune::text
