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

/// Where the white space that ends the text begins.
std::size_t trailing_space(std::string_view text) {
  for (std::size_t at = text.size(); at > 0;) {
    const std::size_t end = at;
    if (!is_whitespace(previous_code_point(text, at))) return end;
  }
  return 0;
}

/// Where the white space that begins the text ends.
std::size_t leading_space(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    if (!is_whitespace(next_code_point(text, at))) return start;
  }
  return text.size();
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
  const auto place = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.pattern.size() < pattern.size(); });
  entries.insert(place, {std::move(pattern), std::move(token)});
}

const AddedTokenFinder::Entry* AddedTokenFinder::at(std::string_view text) const {
  for (const auto& entry : by_first_byte_[static_cast<unsigned char>(text[0])])
    if (text.starts_with(entry.pattern)) return &entry;
  return nullptr;
}

std::vector<Segment> AddedTokenFinder::cut(std::string_view text) const {
  std::vector<Segment> segments;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto* entry = this->at(text.substr(at));
    if (!entry) {
      ++at;
      continue;
    }
    const auto& token = entry->token;
    std::size_t start = at, end = at + entry->pattern.size();
    at = end;
    if (token.single_word && (ends_with_word(text.substr(0, start)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) start = std::max(trailing_space(text.substr(0, start)), done);
    if (token.rstrip) at = end = end + leading_space(text.substr(end));
    if (done < start) segments.push_back({text.substr(done, start - done), std::nullopt});
    segments.push_back({text.substr(start, end - start), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), std::nullopt});
  return segments;
}

AddedTokens::AddedTokens(const Json& json, const Normalizer& normalizer) {
  if (json.is_null()) return;
  for (const auto& entry : json) {
    const auto token = read(entry);
    vocabulary_.add(token.content, token.id);
    if (token.special) special_.push_back(token.id);
    auto pattern = token.content;
    if (token.normalized) normalizer(pattern);
    (token.normalized ? normalized_ : raw_).add(std::move(pattern), token);
  }
  std::sort(special_.begin(), special_.end());
}

bool AddedTokens::is_special(std::int32_t id) const { return std::binary_search(special_.begin(), special_.end(), id); }

}  // namespace attune::text
