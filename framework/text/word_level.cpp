#include "text/model.hpp"
#include "text/part.hpp"

namespace attune::text {

Model make_word_level(const Json& json) {
  const auto vocabulary = std::make_shared<const Vocabulary>(json.at("vocab"));
  const auto unknown = vocabulary->id(value_or<std::string>(json, "unk_token", "<unk>"));
  return {vocabulary, [vocabulary, unknown](std::string_view word, Pieces& pieces) {
            const auto id = vocabulary->id(word);
            if (!id && !unknown)
              fail(
                  "the tokenizer's vocabulary lacks the word '{}' and has no unknown token; add "
                  "its unk_token to the vocab",
                  word);
            pieces.add(id ? *id : *unknown, 0, word.size());
          }};
}

}  // namespace attune::text
