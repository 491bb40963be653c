// A text that is rewritten step by step and, where somebody asked, still knows which bytes of the
// original each of its bytes stands for.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

class AlignedText {
 public:
  AlignedText() = default;
  /// Without origins: rewriting costs no more than the text itself.
  explicit AlignedText(std::string_view bytes) : bytes_(bytes) {}
  /// origins: one for each byte.
  AlignedText(std::string_view bytes, std::vector<Span> origins)
      : bytes_(bytes), origins_(std::move(origins)), aligned_(true) {}

  const std::string& bytes() const { return bytes_; }
  bool aligned() const { return aligned_; }
  const Span& origin(std::size_t byte) const { return origins_[byte]; }
  /// Where these bytes came from; for aligned texts alone.
  Span origin(Span bytes) const {
    return {origins_[bytes.begin].begin, origins_[bytes.end - 1].end};
  }
  AlignedText slice(std::size_t begin, std::size_t end) const;

 private:
  friend class Rewriting;
  std::string bytes_;
  std::vector<Span> origins_;
  bool aligned_ = false;
};

/// Builds a text anew from its old form, from left to right.
class Rewriting {
 public:
  explicit Rewriting(AlignedText& text);
  /// Old bytes as they are.
  void keep(std::size_t begin, std::size_t end);
  /// New bytes; they stand for what the old byte `from` stands for.
  void put(std::string_view bytes, std::size_t from);
  void put(char32_t c, std::size_t from);
  std::size_t size() const { return result_.bytes_.size(); }
  /// The text becomes what was kept and put.
  void finish() { text_ = std::move(result_); }

 private:
  void add_origins(std::size_t count, std::size_t from);
  AlignedText& text_;
  AlignedText result_;
};

/// One code point of a rewritten text: 0 takes the place of the next old one, 1 is put in after it,
/// -n takes the place of the next and of n more. The code points of `tokenizers`'
/// NormalizedString::transform, whose offsets we must give.
struct Change {
  char32_t c;
  int change;
};
void transform(AlignedText& text, const std::vector<Change>& changes);

}  // namespace attune::text
