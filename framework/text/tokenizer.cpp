#include "attune/tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "core/names.hpp"
#include "text/added_tokens.hpp"
#include "text/decoder.hpp"
#include "text/model.hpp"
#include "text/normalizer.hpp"
#include "text/post_processor.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/unicode.hpp"

namespace attune {

struct Tokenizer::Parts {
  text::Normalizer normalizer;
  text::AddedTokens added;
  text::PreTokenizer pre_tokenizer;
  text::Model model;
  text::PostProcessor post_processor;
  text::Decoder decoder;

  explicit Parts(const nlohmann::json& json)
      : normalizer(text::make_normalizer(part(json, "normalizer"))),
        added(part(json, "added_tokens"), normalizer),
        pre_tokenizer(text::make_pre_tokenizer(part(json, "pre_tokenizer"))),
        model(text::make_model(json.at("model"))),
        post_processor(text::make_post_processor(part(json, "post_processor"))),
        decoder(text::make_decoder(part(json, "decoder"))) {
    for (const auto& token : part(json, "added_tokens")) {
      const auto content = token.at("content").get<std::string>();
      const auto id = model.vocabulary->id(content);
      if (id && *id != token.at("id"))
        fail("tokenizer.json: the added token '{}' has the id {}, but {} in the model's vocab; correct one of them", content, token.at("id").dump(), *id);
    }
  }

  static nlohmann::json part(const nlohmann::json& json, const char* name) { return json.value(name, nlohmann::json()); }

  /// Text without added tokens, normalised.
  void encode_plain(std::string_view plain, std::vector<std::int32_t>& ids) const {
    text::Words words{std::string(plain), {{0, plain.size()}}};
    pre_tokenizer(words);
    for (std::size_t i = 0; i < words.spans.size(); ++i) model.encode(words[i], ids);
  }

  const std::string* token(std::int32_t id) const {
    const auto* token = added.vocabulary().token(id);
    return token ? token : model.vocabulary->token(id);
  }
};

Tokenizer::Tokenizer(const nlohmann::json& json) {
  try {
    parts_ = std::make_unique<Parts>(json);
  } catch (const nlohmann::json::exception& error) {
    fail("tokenizer.json is not as `tokenizers` writes it ({}); save it anew, or take the one that came with the model", error.what());
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view input, bool special) const {
  const auto valid = text::valid_utf8(input);
  std::vector<std::int32_t> ids;
  for (const auto& raw : parts_->added.cut_raw(valid)) {
    if (raw.id) {
      ids.push_back(*raw.id);
      continue;
    }
    std::string normalized(raw.text);
    parts_->normalizer(normalized);
    for (const auto& segment : parts_->added.cut_normalized(normalized)) {
      if (segment.id)
        ids.push_back(*segment.id);
      else
        parts_->encode_plain(segment.text, ids);
    }
  }
  if (special) parts_->post_processor(ids);
  return ids;
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (const auto id : ids) {
    const auto* token = parts_->token(id);
    if (token && !(skip_special && parts_->added.is_special(id))) tokens.push_back(*token);
  }
  parts_->decoder(tokens);
  return joined(tokens, "");
}

std::int64_t Tokenizer::size() const {
  return std::int64_t{std::max(parts_->added.vocabulary().largest_id(), parts_->model.vocabulary->largest_id())} + 1;
}

std::optional<std::int32_t> Tokenizer::id(std::string_view token) const {
  const auto id = parts_->added.vocabulary().id(token);
  return id ? id : parts_->model.vocabulary->id(token);
}

std::string Tokenizer::token(std::int32_t id) const {
  const auto* token = parts_->token(id);
  if (!token) fail("no token has the id {}; ids run from 0 to {}", id, size() - 1);
  return *token;
}

}  // namespace attune
