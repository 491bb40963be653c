#include "prepare/augment.hpp"

#include <cmath>

namespace attune {
namespace {

/// SplitMix64 (Steele, Lea and Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  /// In [0, 1).
  double share() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  std::size_t below(std::size_t size) {
    return static_cast<std::size_t>(share() * static_cast<double>(size));
  }

 private:
  std::uint64_t state_;
};

constexpr std::string_view white_space = " \t\r\n";

/// A word and the white space after it.
struct Word {
  std::string word;
  std::string space;
};

std::vector<Word> words_of(const std::string& text) {
  std::vector<Word> words;
  for (std::size_t at = text.find_first_not_of(white_space); at < text.size();) {
    const auto end = std::min(text.find_first_of(white_space, at), text.size());
    const auto next = std::min(text.find_first_not_of(white_space, end), text.size());
    words.push_back({text.substr(at, end - at), text.substr(end, next - end)});
    at = next;
  }
  return words;
}

std::string augmented(const AugmentOptions& options, Random& random, const std::string& text) {
  auto words = words_of(text);
  if (words.size() < 2) return text;
  const auto kept = random.below(words.size());
  std::vector<Word> left;
  for (std::size_t i = 0; i < words.size(); ++i)
    if (const bool out = random.share() < options.drop; i == kept || !out)
      left.push_back(std::move(words[i]));
  for (auto swaps = std::lround(options.swap * static_cast<double>(left.size()) / 2); swaps > 0;
       --swaps)
    std::swap(left[random.below(left.size())].word, left[random.below(left.size())].word);
  std::string result;
  for (const auto& [word, space] : left) result += word + space;
  return result;
}

}  // namespace

void augment(const AugmentOptions& options, std::uint64_t seed, Record& record) {
  Random random(seed);
  for (const auto& name : options.fields)
    if (const auto field = record.fields.find(name); field != record.fields.end())
      field->second = augmented(options, random, field->second);
}

}  // namespace attune
