#include <algorithm>

#include "text/model.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

struct Merge {
  std::uint32_t rank;
  std::int32_t id;
};

class Merges {
 public:
  Merges(const Json& json, const Vocabulary& vocabulary, std::size_t prefix_size) {
    merges_.reserve(json.size());
    std::uint32_t rank = 0;
    for (const auto& merge : json) {
      const auto [left, right] = parts(merge, rank);
      const auto joined = left + (right.size() > prefix_size ? right.substr(prefix_size) : "");
      const auto id_of = [&](const std::string& token) {
        const auto id = vocabulary.id(token);
        if (!id)
          fail(
              "tokenizer.json: merge {} ('{}' with '{}') needs the token '{}', which is not in the "
              "vocab",
              rank, left, right, token);
        return *id;
      };
      merges_.insert_or_assign(key(id_of(left), id_of(right)), Merge{rank, id_of(joined)});
      ++rank;
    }
  }

  const Merge* find(std::int32_t left, std::int32_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

 private:
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }

  /// "a b" or ["a", "b"].
  static std::pair<std::string, std::string> parts(const Json& merge, std::uint32_t rank) {
    if (merge.is_array() && merge.size() == 2)
      return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const auto space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
        return {text.substr(0, space), text.substr(space + 1)};
    }
    fail(
        "tokenizer.json: merge {} must be two tokens with a space between them or a list of two, "
        "but is {}",
        rank, merge.dump());
  }

  struct Hash {
    std::size_t operator()(std::uint64_t key) const {
      key *= 0x9E3779B97F4A7C15;  // Fibonacci hashing
      return key ^ key >> 32;
    }
  };
  std::unordered_map<std::uint64_t, Merge, Hash> merges_;
};

struct Symbol {
  std::int32_t id;  // -1: merged into the one before
  // -1: none
  std::int32_t previous;
  std::int32_t next;
  std::size_t size;  // bytes of the word
};

/// A pair of neighbours that may be merged. Stale once one of them has changed: then the pair has
/// another merge.
struct Candidate {
  Merge merge;
  std::int32_t left;

  // the queue's top is the lowest rank, and of these the leftmost
  bool operator<(const Candidate& other) const {
    return merge.rank != other.merge.rank ? merge.rank > other.merge.rank : left > other.left;
  }
};

/// Merges neighbours in the order of rank until none is left to merge.
void merge_all(std::vector<Symbol>& symbols, const Merges& merges) {
  thread_local std::vector<Candidate> heap;
  heap.clear();
  const auto merge_at = [&](std::int32_t left) -> const Merge* {
    const auto& symbol = symbols[left];
    return symbol.id < 0 || symbol.next < 0 ? nullptr
                                            : merges.find(symbol.id, symbols[symbol.next].id);
  };
  const auto consider = [&](std::int32_t left) {
    if (left < 0) return;
    if (const auto* merge = merge_at(left)) {
      heap.push_back({*merge, left});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) consider(static_cast<std::int32_t>(i));
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const auto candidate = heap.back();
    heap.pop_back();
    const auto* merge = merge_at(candidate.left);
    if (!merge || merge->rank != candidate.merge.rank) continue;
    auto& left = symbols[candidate.left];
    auto& right = symbols[left.next];
    left.id = merge->id;
    left.size += right.size;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = candidate.left;
    consider(left.previous);
    consider(candidate.left);
  }
}

struct Bpe {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<const Merges> merges;
  std::optional<std::int32_t> unknown;
  std::optional<ByteTokens> bytes;  // for characters that are no token
  bool fuse_unknown;
  bool ignore_merges;  // a word that is a token is taken as it is
  std::string prefix;  // of a character inside a word
  std::string suffix;  // of a word's last character

  void operator()(std::string_view word, Pieces& pieces) const {
    if (ignore_merges)
      if (const auto id = vocabulary->id(word)) return pieces.add(*id, 0, word.size());
    thread_local std::vector<Symbol> symbols;
    read_symbols(word, symbols);
    merge_all(symbols, *merges);
    std::size_t begin = 0;
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
      pieces.add(symbols[i].id, begin, begin + symbols[i].size);
      begin += symbols[i].size;
    }
  }

  /// One symbol for each character, or for each byte of one that is no token. A character that has
  /// neither is dropped when there is no unknown token; as `tokenizers` does it, the unknown one
  /// stands before the next character that is a token.
  void read_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.clear();
    const auto add = [&](std::int32_t id, std::size_t size) {
      const auto place = static_cast<std::int32_t>(symbols.size());
      symbols.push_back({id, place - 1, place + 1, size});
    };
    std::size_t unknown_size = 0;
    const auto add_unknown = [&] {
      if (unknown_size > 0) add(*unknown, unknown_size);
      unknown_size = 0;
    };
    std::string affixed;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t start = at;
      next_code_point(word, at);
      auto character = word.substr(start, at - start);
      if ((start > 0 && !prefix.empty()) || (at == word.size() && !suffix.empty())) {
        affixed = start > 0 ? prefix : "";
        affixed += character;
        if (at == word.size()) affixed += suffix;
        character = affixed;
      }
      if (const auto id = vocabulary->id(character)) {
        add_unknown();
        add(*id, at - start);
      } else if (bytes && bytes->cover(character)) {
        for (const char byte : character) add((*bytes)[byte], 1);
      } else if (unknown) {
        if (!fuse_unknown) add_unknown();
        unknown_size += at - start;
      }
    }
    add_unknown();
    if (!symbols.empty()) symbols.back().next = -1;
  }
};

/// SentencePiece's mark of a space, when no token holds one after another character: then nothing
/// is merged across the start of a word.
std::string word_mark(const Vocabulary& vocabulary) {
  static const std::string mark = "\u2581";
  if (!vocabulary.id(mark)) return "";
  return vocabulary.all_of([](std::string_view token) {
    while (token.starts_with(mark)) token.remove_prefix(mark.size());
    return token.find(mark) == std::string_view::npos;
  })
             ? mark
             : "";
}

}  // namespace

Model make_bpe(const Json& json) {
  if (value_or(json, "dropout", 0.0) != 0.0)
    fail("tokenizer.json: a BPE model with dropout is not supported; set dropout to null");
  const auto vocabulary = std::make_shared<const Vocabulary>(json.at("vocab"));
  const auto unknown = unknown_id(*vocabulary, value_or<std::string>(json, "unk_token", ""), "BPE");
  const auto prefix = value_or<std::string>(json, "continuing_subword_prefix", "");
  const auto suffix = value_or<std::string>(json, "end_of_word_suffix", "");
  std::optional<ByteTokens> bytes;
  if (value_or(json, "byte_fallback", false)) bytes.emplace(*vocabulary);
  const bool ignore_merges = value_or(json, "ignore_merges", false);
  const bool affixes = !prefix.empty() || !suffix.empty();
  return {
      vocabulary,
      Bpe{vocabulary, std::make_shared<const Merges>(json.at("merges"), *vocabulary, prefix.size()),
          unknown, bytes, value_or(json, "fuse_unk", false), ignore_merges, prefix, suffix},
      ignore_merges || affixes ? "" : word_mark(*vocabulary)};
}

}  // namespace attune::text
