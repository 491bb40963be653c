#include <algorithm>

#include "text/model.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"
#include "text/word_cache.hpp"

namespace attune::text {
namespace {

struct Merge {
  std::uint32_t rank;
  std::int32_t id;
};

class Merges {
 public:
  Merges(const Json& json, const Vocabulary& vocabulary) {
    merges_.reserve(json.size());
    std::uint32_t rank = 0;
    for (const auto& merge : json) {
      const auto [left, right] = parts(merge, rank);
      const auto joined = left + right;
      const auto id_of = [&](const std::string& token) {
        const auto id = vocabulary.id(token);
        if (!id) fail("tokenizer.json: merge {} ('{}' with '{}') needs the token '{}', which is not in the vocab", rank, left, right, token);
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
    if (merge.is_array() && merge.size() == 2) return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const auto space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) return {text.substr(0, space), text.substr(space + 1)};
    }
    fail("tokenizer.json: merge {} must be two tokens with a space between them or a list of two, but is {}", rank, merge.dump());
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
  std::int32_t previous, next;  // -1: none
};

/// A pair of neighbours that may be merged. Stale once one of them has changed: then the pair has another merge.
struct Candidate {
  Merge merge;
  std::int32_t left;

  bool operator<(const Candidate& other) const {  // the queue's top is the lowest rank, and of these the leftmost
    return merge.rank != other.merge.rank ? merge.rank > other.merge.rank : left > other.left;
  }
};

/// Merges neighbours in the order of rank until none is left to merge.
void merge_all(std::vector<Symbol>& symbols, const Merges& merges) {
  thread_local std::vector<Candidate> heap;
  heap.clear();
  const auto merge_at = [&](std::int32_t left) -> const Merge* {
    const auto& symbol = symbols[left];
    return symbol.id < 0 || symbol.next < 0 ? nullptr : merges.find(symbol.id, symbols[symbol.next].id);
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
  bool fuse_unknown;
  bool ignore_merges;  // a word that is a token is taken as it is
  std::uint64_t owner;

  void operator()(std::string_view word, std::vector<std::int32_t>& ids) const {
    if (word.size() > WordCache::longest_word) return append_ids(word, ids);
    auto& entry = WordCache::of_this_thread().entry(owner, word);
    if (!entry.holds(owner, word)) {
      entry.ids.clear();
      append_ids(word, entry.ids);
      entry.owner = owner;
      entry.word = word;
    }
    ids.insert(ids.end(), entry.ids.begin(), entry.ids.end());
  }

  void append_ids(std::string_view word, std::vector<std::int32_t>& ids) const {
    if (ignore_merges)
      if (const auto id = vocabulary->id(word)) return ids.push_back(*id);
    thread_local std::vector<Symbol> symbols;
    read_symbols(word, symbols);
    merge_all(symbols, *merges);
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
  }

  /// One symbol for each character; one that is unknown is dropped when there is no unknown token.
  void read_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.clear();
    bool after_unknown = false;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t start = at;
      next_code_point(word, at);
      const auto known = vocabulary->id(word.substr(start, at - start));
      const auto id = known ? known : unknown;
      if (!id || (!known && fuse_unknown && after_unknown)) continue;
      after_unknown = !known;
      const auto place = static_cast<std::int32_t>(symbols.size());
      symbols.push_back({*id, place - 1, place + 1});
    }
    if (!symbols.empty()) symbols.back().next = -1;
  }
};

/// Error for what this model does not do, rather than ids that are slightly wrong.
void refuse_unsupported(const Json& json) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!value_or<std::string>(json, key, "").empty()) fail("tokenizer.json: a BPE model with {} is not supported; only byte-level BPE is", key);
  if (value_or(json, "byte_fallback", false)) fail("tokenizer.json: a BPE model with byte_fallback is not supported; only byte-level BPE is");
  if (value_or(json, "dropout", 0.0) != 0.0) fail("tokenizer.json: a BPE model with dropout is not supported; set dropout to null");
}

}  // namespace

Model make_bpe(const Json& json) {
  refuse_unsupported(json);
  const auto vocabulary = std::make_shared<const Vocabulary>(json.at("vocab"));
  std::optional<std::int32_t> unknown;
  if (const auto token = value_or<std::string>(json, "unk_token", ""); !token.empty()) {
    unknown = vocabulary->id(token);
    if (!unknown) fail("tokenizer.json: the unknown token '{}' is not in the BPE vocab; add it, or set unk_token to null", token);
  }
  return {vocabulary, Bpe{vocabulary, std::make_shared<const Merges>(json.at("merges"), *vocabulary), unknown, value_or(json, "fuse_unk", false),
                          value_or(json, "ignore_merges", false), new_cache_owner()}};
}

}  // namespace attune::text
