#include <array>
#include <cstdint>
#include <cstring>
#include <optional>

#include "text/base64.hpp"
#include "text/normalizer.hpp"
#include "text/part.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// A double-array trie (Aoe 1989) as Darts-clone writes it, over the ends of replacements in one
/// text: [size of the trie in bytes, trie, text].
class Charsmap {
 public:
  explicit Charsmap(const std::string& bytes) {
    std::uint32_t size = 0;
    if (bytes.size() < sizeof size)
      fail(
          "tokenizer.json: the precompiled_charsmap is truncated; use the file that came with the "
          "model");
    std::memcpy(&size, bytes.data(), sizeof size);
    if (size % 4 != 0 || size > bytes.size() - sizeof size)
      fail(
          "tokenizer.json: the precompiled_charsmap's trie should have {} bytes, but has {}; use "
          "the file that came with the model",
          size, bytes.size() - sizeof size);
    units_.resize(size / 4);
    std::memcpy(units_.data(), bytes.data() + sizeof size, size);
    texts_ = bytes.substr(sizeof size + size);
  }

  /// What the shortest key that `text` begins with becomes; nothing when there is none.
  std::optional<std::string_view> replacement(std::string_view text) const {
    std::size_t node = 0;
    if (!to_children(node)) return std::nullopt;
    for (const char c : text) {
      const auto label = static_cast<unsigned char>(c);
      if (label == 0) return std::nullopt;
      node ^= label;
      if (node >= units_.size() || (units_[node] & 0x800000FF) != label) return std::nullopt;
      const bool has_value = units_[node] >> 8 & 1;
      if (!to_children(node)) return std::nullopt;
      if (has_value) return text_at(units_[node] & 0x7FFFFFFF);
    }
    return std::nullopt;
  }

 private:
  /// From a node to where its children begin; false: outside the array.
  bool to_children(std::size_t& node) const {
    if (node >= units_.size()) return false;
    const auto unit = units_[node];
    node ^= static_cast<std::size_t>(unit >> 10) << ((unit & 1u << 9) >> 6);
    return node < units_.size();
  }

  std::string_view text_at(std::size_t begin) const {
    if (begin >= texts_.size()) return "";
    return std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin);
  }

  std::vector<std::uint32_t> units_;
  std::string texts_;
};

/// Takes the place of `old_count` code points, as `tokenizers` accounts for them.
void replace(std::vector<Change>& changes, std::size_t old_count, std::string_view text) {
  const std::size_t new_count = count_code_points(text);
  for (std::size_t at = 0, i = 0; at < text.size(); ++i)
    changes.push_back({next_code_point(text, at), i >= old_count});
  if (new_count < old_count && !changes.empty())
    changes.back().change -= static_cast<int>(old_count - new_count);
}

}  // namespace

Normalizer make_precompiled(const Json& json) {
  const auto encoded = json.at("precompiled_charsmap").get<std::string>();
  const auto bytes = from_base64(encoded);
  if (!bytes)
    fail(
        "tokenizer.json: the precompiled_charsmap is not base64; take the file that came with the "
        "model");
  return [map = Charsmap(*bytes), graphemes = Pattern(R"(\X)")](AlignedText& text) {
    constexpr std::size_t longest = 5;  // longer graphemes are looked up by code point alone
    std::vector<Span> clusters;
    std::vector<Change> changes;
    graphemes.find_all(text.bytes(), clusters);
    changes.reserve(text.bytes().size());
    bool changed = false;
    const auto look_up = [&](std::string_view part) {
      const auto replacement = map.replacement(part);
      if (replacement) replace(changes, count_code_points(part), *replacement);
      changed |= replacement.has_value();
      return replacement.has_value();
    };
    for (const auto& cluster : clusters) {
      const auto grapheme =
          std::string_view(text.bytes()).substr(cluster.begin, cluster.end - cluster.begin);
      if (grapheme.size() <= longest && look_up(grapheme)) continue;
      for (std::size_t next = 0; next < grapheme.size();) {
        const std::size_t at = next;
        const char32_t c = next_code_point(grapheme, next);
        if (!look_up(grapheme.substr(at, next - at))) changes.push_back({c, 0});
      }
    }
    if (changed) transform(text, changes);
  };
}

}  // namespace attune::text
