// A text that is rewritten step by step and optionally tracks, for each byte, the range of the
// original text that it represents.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

class AlignedText {
 public:
  AlignedText() = default;
  /// Without tracking, so that rewriting is cheaper.
  explicit AlignedText(std::string_view bytes) : bytes_(bytes) {}
  /// origins: one per byte.
  AlignedText(std::string_view bytes, std::vector<Span> origins)
      : bytes_(bytes), origins_(std::move(origins)), aligned_(true) {}

  const std::string& bytes() const { return bytes_; }
  bool aligned() const { return aligned_; }
  const Span& origin(std::size_t byte) const { return origins_[byte]; }
  /// Original range of these bytes; only for aligned texts.
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

/// Builds a new version of a text, from left to right.
class Rewriting {
 public:
  explicit Rewriting(AlignedText& text);
  /// Copies bytes of the old text.
  void keep(std::size_t begin, std::size_t end);
  /// Inserts new bytes, which get the origin of the old byte `from`.
  void put(std::string_view bytes, std::size_t from);
  void put(char32_t c, std::size_t from);
  std::size_t size() const { return result_.bytes_.size(); }
  /// Replaces the text by the new version.
  void finish() { text_ = std::move(result_); }

 private:
  void add_origins(std::size_t count, std::size_t from);
  AlignedText& text_;
  AlignedText result_;
};

/// A code point of a rewritten text. change = 0: replaces the next old code point; 1: is inserted
/// after it; -n: replaces the next and n more. These are the arguments of
/// NormalizedString::transform in `tokenizers`, whose offsets must be reproduced.
struct Change {
  char32_t c;
  int change;
};
void transform(AlignedText& text, const std::vector<Change>& changes);

}  // namespace attune::text
