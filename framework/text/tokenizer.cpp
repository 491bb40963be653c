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
  bool always_aligned;  // the ids depend on where the normalised text came from

  explicit Parts(const nlohmann::json& json)
      : normalizer(text::make_normalizer(part(json, "normalizer"))),
        added(part(json, "added_tokens"), normalizer),
        pre_tokenizer(text::make_pre_tokenizer(part(json, "pre_tokenizer"))),
        model(text::make_model(json.at("model"))),
        post_processor(text::make_post_processor(part(json, "post_processor"))),
        decoder(text::make_decoder(part(json, "decoder"))),
        always_aligned(!part(json, "normalizer").is_null() &&
                       text::depends_on_start(part(json, "pre_tokenizer"))) {
    for (const auto& token : part(json, "added_tokens")) {
      const auto content = token.at("content").get<std::string>();
      const auto id = model.vocabulary().id(content);
      if (id && *id != token.at("id"))
        fail(
            "tokenizer.json: the added token '{}' has the id {}, but {} in the model's vocab; "
            "correct one of them",
            content, token.at("id").dump(), *id);
    }
  }

  static nlohmann::json part(const nlohmann::json& json, const char* name) {
    return json.value(name, nlohmann::json());
  }

  void add(std::int32_t id, std::string_view token, const text::AlignedText& text, Span span,
           text::Draft& draft) const {
    draft.encoding.ids.push_back(id);
    if (!text.aligned()) return;
    draft.encoding.spans.push_back(text.origin(span));
    draft.tokens.emplace_back(token);
  }

  /// Text without added tokens, normalised. at_start: it begins where the original does.
  void encode_plain(text::AlignedText plain, bool at_start, text::Draft& draft) const {
    const std::size_t size = plain.bytes().size();
    text::Words words{std::move(plain), {{0, size}}, at_start};
    pre_tokenizer(words);
    auto& ids = draft.encoding.ids;
    for (std::size_t i = 0; i < words.spans.size(); ++i)
      model.encode(words[i], [&](const text::Pieces& pieces, std::size_t begin) {
        if (!words.text.aligned())
          return void(ids.insert(ids.end(), pieces.ids.begin(), pieces.ids.end()));
        begin += words.spans[i].begin;
        for (std::size_t k = 0; k < pieces.ids.size(); ++k) {
          const Span span{begin + pieces.spans[k].begin, begin + pieces.spans[k].end};
          add(pieces.ids[k], *model.vocabulary().token(pieces.ids[k]), words.text, span, draft);
        }
      });
  }

  void encode_normalized(const text::AlignedText& normalized, bool at_start,
                         text::Draft& draft) const {
    const std::string_view bytes = normalized.bytes();
    for (const auto& [span, id] : added.cut_normalized(bytes)) {
      if (id)
        add(*id, bytes.substr(span.begin, span.end - span.begin), normalized, span, draft);
      else
        encode_plain(normalized.slice(span.begin, span.end), at_start && span.begin == 0, draft);
    }
  }

  text::Draft encode(const text::AlignedText& text) const {
    text::Draft draft;
    const std::string_view bytes = text.bytes();
    for (const auto& [span, id] : added.cut_raw(bytes)) {
      if (id) {
        add(*id, bytes.substr(span.begin, span.end - span.begin), text, span, draft);
        continue;
      }
      auto part = text.slice(span.begin, span.end);
      normalizer(part);
      encode_normalized(part, span.begin == 0, draft);
    }
    return draft;
  }

  Encoding surrounded(Encoding encoding) const {
    const auto& [before, after, trim] = post_processor;
    encoding.ids.insert(encoding.ids.begin(), before.begin(), before.end());
    encoding.ids.insert(encoding.ids.end(), after.begin(), after.end());
    if (!encoding.spans.empty() || encoding.ids.size() == before.size() + after.size()) {
      encoding.spans.insert(encoding.spans.begin(), before.size(), Span{});
      encoding.spans.insert(encoding.spans.end(), after.size(), Span{});
    }
    return encoding;
  }

  const std::string* token(std::int32_t id) const {
    const auto* token = added.vocabulary().token(id);
    return token ? token : model.vocabulary().token(id);
  }
};

Tokenizer::Tokenizer(const nlohmann::json& json) {
  try {
    parts_ = std::make_unique<Parts>(json);
  } catch (const nlohmann::json::exception& error) {
    fail(
        "tokenizer.json does not have the form that `tokenizers` writes ({}); save it again, or "
        "use the one that came with the model",
        error.what());
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool special) const {
  if (parts_->always_aligned) return encode_with_spans(text, special).ids;
  auto encoding =
      parts_
          ->encode(text::is_valid_utf8(text) ? text::AlignedText(text)
                                             : text::AlignedText(text::valid_utf8(text)))
          .encoding;
  return special ? parts_->surrounded(std::move(encoding)).ids : std::move(encoding.ids);
}

Encoding Tokenizer::encode_with_spans(std::string_view text, bool special) const {
  auto draft = parts_->encode(text::aligned_valid_utf8(text));
  parts_->post_processor.trim(draft, text);
  return special ? parts_->surrounded(std::move(draft.encoding)) : std::move(draft.encoding);
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (const auto id : ids) {
    if (skip_special && parts_->added.is_special(id)) continue;
    const auto* token = parts_->added.decoded(id);
    if (!token) token = parts_->model.vocabulary().token(id);
    if (token) tokens.push_back(*token);
  }
  parts_->decoder(tokens);
  return joined(tokens, "");
}

std::int64_t Tokenizer::size() const {
  return std::int64_t{std::max(parts_->added.vocabulary().largest_id(),
                               parts_->model.vocabulary().largest_id())} +
         1;
}

std::optional<std::int32_t> Tokenizer::id(std::string_view token) const {
  const auto id = parts_->added.vocabulary().id(token);
  return id ? id : parts_->model.vocabulary().id(token);
}

std::string Tokenizer::token(std::int32_t id) const {
  const auto* token = parts_->token(id);
  if (!token) fail("no token has the id {}; ids run from 0 to {}", id, size() - 1);
  return *token;
}

}  // namespace attune
