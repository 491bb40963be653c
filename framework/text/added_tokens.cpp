#include "text/added_tokens.hpp"

#include <algorithm>

#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

bool ends_with_word(std::string_view text) {
  std::size_t at = text.size();
  return at > 0 && is_word(previous_code_point(text, at));
}

bool starts_with_word(std::string_view text) {
  std::size_t at = 0;
  return !text.empty() && is_word(next_code_point(text, at));
}

AddedToken read(const Json& json) {
  const auto content = json.at("content").get<std::string>();
  const bool special = value_or(json, "special", false);
  return {content,
          checked_id(json.at("id"), content),
          special,
          value_or(json, "single_word", false),
          value_or(json, "lstrip", false),
          value_or(json, "rstrip", false),
          value_or(json, "normalized", !special)};
}

}  // namespace

void AddedTokenFinder::add(std::string pattern, AddedToken token) {
  if (pattern.empty()) return;
  auto& entries = by_first_byte_[static_cast<unsigned char>(pattern[0])];
  if (entries.empty()) first_bytes_ += pattern[0];
  const auto place = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) {
    return e.pattern.size() < pattern.size();
  });
  entries.insert(place, {std::move(pattern), std::move(token)});
}

std::size_t AddedTokenFinder::next_candidate(std::string_view text, std::size_t at) const {
  if (first_bytes_.empty()) return text.size();
  if (first_bytes_.size() == 1) return std::min(text.find(first_bytes_[0], at), text.size());
  while (at < text.size() && by_first_byte_[static_cast<unsigned char>(text[at])].empty()) ++at;
  return at;
}

const AddedTokenFinder::Entry* AddedTokenFinder::at(std::string_view text) const {
  for (const auto& entry : by_first_byte_[static_cast<unsigned char>(text[0])])
    if (text.starts_with(entry.pattern)) return &entry;
  return nullptr;
}

std::vector<Segment> AddedTokenFinder::cut(std::string_view text) const {
  std::vector<Segment> segments;
  std::size_t done = 0;
  for (std::size_t at = 0; (at = next_candidate(text, at)) < text.size();) {
    const auto* entry = this->at(text.substr(at));
    if (!entry) {
      ++at;
      continue;
    }
    const auto& token = entry->token;
    std::size_t start = at;
    std::size_t end = at + entry->pattern.size();
    at = end;
    if (token.single_word &&
        (ends_with_word(text.substr(0, start)) || starts_with_word(text.substr(end))))
      continue;
    if (token.lstrip) start = std::max(trailing_whitespace(text.substr(0, start)), done);
    // in which the next token may begin nonetheless
    if (token.rstrip) end += leading_whitespace(text.substr(end));
    if (done < start) segments.push_back({{done, start}, std::nullopt});
    segments.push_back({{start, end}, token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({{done, text.size()}, std::nullopt});
  return segments;
}

AddedTokens::AddedTokens(const Json& json, const Normalizer& normalizer) {
  if (json.is_null()) return;
  for (const auto& entry : json) {
    const auto token = read(entry);
    AlignedText pattern(token.content);
    if (token.normalized) normalizer(pattern);
    vocabulary_.add(token.content, token.id);
    if (pattern.bytes() != token.content) normalized_contents_[token.id] = pattern.bytes();
    if (token.special) special_.push_back(token.id);
    (token.normalized ? normalized_ : raw_).add(pattern.bytes(), token);
  }
  std::sort(special_.begin(), special_.end());
}

const std::string* AddedTokens::decoded(std::int32_t id) const {
  const auto found = normalized_contents_.find(id);
  return found == normalized_contents_.end() ? vocabulary_.token(id) : &found->second;
}

bool AddedTokens::is_special(std::int32_t id) const {
  return std::binary_search(special_.begin(), special_.end(), id);
}

}  // namespace attune::text
