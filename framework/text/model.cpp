#include "text/model.hpp"

#include "text/part.hpp"

namespace attune::text {

Model::Model(std::shared_ptr<const Vocabulary> vocabulary, Cut cut, std::string parts_at)
    : vocabulary_(std::move(vocabulary)),
      cut_(std::move(cut)),
      parts_at_(std::move(parts_at)),
      owner_(new_cache_owner()) {}

std::size_t Model::end_of_part(std::string_view word, std::size_t begin) const {
  if (parts_at_.empty() || word.size() <= WordCache::longest_word) return word.size();
  // Several in a row stay together: their run is one piece.
  std::size_t at = begin;
  while (word.substr(at).starts_with(parts_at_)) at += parts_at_.size();
  return std::min(word.find(parts_at_, at), word.size());
}

const Pieces& Model::pieces(std::string_view word) const {
  thread_local Pieces uncached;
  if (word.size() > WordCache::longest_word) {
    uncached.clear();
    cut_(word, uncached);
    return uncached;
  }
  auto& entry = WordCache::of_this_thread().entry(owner_, word);
  if (!entry.holds(owner_, word)) {
    entry.owner = 0;  // should cutting fail
    entry.pieces.clear();
    cut_(word, entry.pieces);
    entry.owner = owner_;
    entry.word = word;
  }
  return entry.pieces;
}

Model make_model(const Json& json) {
  static const Makers<Model> makers = {{"BPE", make_bpe},
                                       {"Unigram", make_unigram},
                                       {"WordLevel", make_word_level},
                                       {"WordPiece", make_word_piece}};
  if (json.contains("type")) return make_part("model", json, makers);
  // Old files do not say; `tokenizers` too tells a BPE by its merges.
  if (json.contains("merges")) return make_bpe(json);
  fail(
      "tokenizer.json: the model has no type; save the file again with a current version of "
      "`tokenizers`");
}

}  // namespace attune::text
