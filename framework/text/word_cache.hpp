// Per-thread cache of fixed size for the ids of repeated words.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

/// Token ids of a word, with the bytes of the word that each represents.
struct Pieces {
  std::vector<std::int32_t> ids;
  std::vector<Span> spans;

  void add(std::int32_t id, std::size_t begin, std::size_t end) {
    ids.push_back(id);
    spans.push_back({begin, end});
  }
  void clear() {
    ids.clear();
    spans.clear();
  }
};

/// Direct-mapped: a word replaces the previous one in its entry. One table serves all tokenizers of
/// a thread, which are distinguished by `owner`.
class WordCache {
 public:
  static WordCache& of_this_thread();

  struct Entry {
    std::uint64_t owner = 0;  // 0: empty
    std::string word;
    Pieces pieces;

    bool holds(std::uint64_t whose, std::string_view what) const {
      return owner == whose && word == what;
    }
  };
  /// The entry for this word, which may hold another word.
  Entry& entry(std::uint64_t owner, std::string_view word);

  static constexpr std::size_t longest_word = 64;  // bytes; longer words rarely repeat

 private:
  static constexpr std::size_t entries = 1 << 15;
  std::vector<Entry> entries_ = std::vector<Entry>(entries);
};

/// A number, from 1, that is unique among the tokenizers of this process.
std::uint64_t new_cache_owner();

}  // namespace attune::text
