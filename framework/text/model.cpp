#include "text/model.hpp"

#include "text/part.hpp"

namespace attune::text {

Model make_model(const Json& json) {
  static const Makers<Model> makers = {{"BPE", make_bpe}, {"WordPiece", make_word_piece}};
  if (json.contains("type")) return make_part("model", json, makers);
  // Old files do not say; `tokenizers` too tells a BPE by its merges.
  if (json.contains("merges")) return make_bpe(json);
  fail("tokenizer.json: the model has no type; write the file anew with a current version of `tokenizers`");
}

}  // namespace attune::text
