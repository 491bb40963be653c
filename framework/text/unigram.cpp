#include <cmath>
#include <limits>

#include "text/model.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// The pieces by their bytes. The children of a node lie side by side, in the order of their
/// labels.
class Trie {
 public:
  /// pieces: sorted, all different, none empty; ids beside them.
  Trie(const std::vector<std::string_view>& pieces, const std::vector<std::int32_t>& ids) {
    struct Range {
      // of pieces that agree in `depth` bytes
      std::size_t begin;
      std::size_t end;
      std::size_t depth;
    };
    // one for each node, in the order of nodes: level by level
    std::vector<Range> ranges = {{0, pieces.size(), 0}};
    nodes_.push_back({});
    labels_.push_back('\0');
    for (std::size_t node = 0; node < nodes_.size(); ++node) {
      auto [begin, end, depth] = ranges[node];
      if (depth > 0 && pieces[begin].size() == depth) nodes_[node].id = ids[begin++];
      nodes_[node].first = static_cast<std::uint32_t>(nodes_.size());
      while (begin < end) {
        const char label = pieces[begin][depth];
        std::size_t same = begin + 1;
        while (same < end && pieces[same][depth] == label) ++same;
        nodes_.push_back({});
        labels_.push_back(label);
        ranges.push_back({begin, same, depth + 1});
        begin = same;
      }
      nodes_[node].last = static_cast<std::uint32_t>(nodes_.size());
    }
  }

  /// `use(id, size)` for each piece that `text` begins with, from the shortest.
  template <class Use>
  void prefixes(std::string_view text, Use use) const {
    const Node* node = &nodes_[0];
    for (std::size_t at = 0; at < text.size(); ++at) {
      const auto first = labels_.begin() + node->first;
      const auto last = labels_.begin() + node->last;
      const auto found = std::lower_bound(first, last, text[at], [](char a, char b) {
        return static_cast<unsigned char>(a) < static_cast<unsigned char>(b);
      });
      if (found == last || *found != text[at]) return;
      node = &nodes_[found - labels_.begin()];
      if (node->id >= 0) use(node->id, at + 1);
    }
  }

 private:
  struct Node {
    // children
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::int32_t id = -1;
  };
  std::vector<Node> nodes_;
  std::vector<char> labels_;  // of the edge to each node
};

struct Unigram {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<const Trie> trie;
  // by id: the logarithm of a piece's probability
  std::shared_ptr<const std::vector<double>> scores;
  double unknown_score;
  std::optional<std::int32_t> unknown;
  std::optional<ByteTokens> bytes;

  void operator()(std::string_view word, Pieces& pieces) const {
    thread_local std::vector<Step> steps;
    find_best_path(word, steps);
    thread_local std::vector<Span> path;
    path.clear();
    // Neighbours that are unknown are one piece.
    for (std::size_t end = word.size(); end > 0; end = steps[end].begin) {
      const bool fused =
          end < word.size() && is_unknown(steps[end]) && is_unknown(steps[path.back().end]);
      fused ? void(path.back().begin = steps[end].begin) : path.push_back({steps[end].begin, end});
    }
    std::for_each(path.rbegin(), path.rend(), [&](Span span) {
      append(word.substr(span.begin, span.end - span.begin), span, pieces);
    });
  }

 private:
  /// The last piece of the best way to cut the word's first bytes.
  struct Step {
    double score = 0;
    std::size_t begin = none;
    std::int32_t id = 0;
    static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  };

  bool is_unknown(const Step& step) const { return unknown && step.id == *unknown; }

  /// Viterbi's algorithm. A character that is no piece is unknown, at ten below the worst score.
  void find_best_path(std::string_view word, std::vector<Step>& steps) const {
    steps.assign(word.size() + 1, {});
    for (std::size_t begin = 0, next = 0; begin < word.size(); begin = next) {
      next_code_point(word, next);
      const auto offer = [&, so_far = steps[begin].score](std::size_t end, double score,
                                                          std::int32_t id) {
        auto& step = steps[end];
        if (step.begin == Step::none || so_far + score > step.score)
          step = {so_far + score, begin, id};
      };
      bool single = false;
      trie->prefixes(word.substr(begin), [&](std::int32_t id, std::size_t size) {
        offer(begin + size, (*scores)[id], id);
        single |= begin + size == next;
      });
      if (single) continue;
      if (!unknown)
        fail(
            "the tokenizer's vocabulary lacks '{}' and has no unknown token; set unk_id in "
            "tokenizer.json",
            word.substr(begin, next - begin));
      offer(next, unknown_score, *unknown);
    }
  }

  void append(std::string_view piece, Span span, Pieces& pieces) const {
    if (const auto id = vocabulary->id(piece)) return pieces.add(*id, span.begin, span.end);
    if (!bytes || !bytes->cover(piece)) return pieces.add(*unknown, span.begin, span.end);
    for (const char byte : piece) pieces.add((*bytes)[byte], span.begin, span.end);
  }
};

}  // namespace

/// "vocab": [[piece, score], ...], ids by place.
Model make_unigram(const Json& json) {
  const auto& list = json.at("vocab");
  if (!list.is_array())
    fail(
        "tokenizer.json: a Unigram model's vocab must be a list of pieces with scores, but is of "
        "type {}",
        list.type_name());
  auto vocabulary = std::make_shared<Vocabulary>();
  auto scores = std::make_shared<std::vector<double>>();
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& entry : list) {
    vocabulary->add(entry.at(0).get<std::string>(), static_cast<std::int32_t>(scores->size()));
    scores->push_back(entry.at(1).get<double>());
    lowest = std::min(lowest, scores->back());
  }
  std::optional<std::int32_t> unknown;
  if (const auto id = value_or<std::int64_t>(json, "unk_id", -1); id >= 0) {
    if (id >= static_cast<std::int64_t>(scores->size()))
      fail("tokenizer.json: unk_id is {}, but the Unigram vocab has {} pieces", id, scores->size());
    unknown = static_cast<std::int32_t>(id);
  }
  const auto sorted = vocabulary->sorted();
  std::vector<std::string_view> pieces;
  std::vector<std::int32_t> ids;
  for (const auto& [piece, id] : sorted) {
    if (piece.empty()) continue;
    pieces.push_back(piece);
    ids.push_back(id);
  }
  std::optional<ByteTokens> bytes;
  if (value_or(json, "byte_fallback", false)) bytes.emplace(*vocabulary);
  constexpr double penalty = 10;
  return {vocabulary, Unigram{vocabulary, std::make_shared<const Trie>(pieces, ids), scores,
                              lowest - penalty, unknown, bytes}};
}

}  // namespace attune::text
