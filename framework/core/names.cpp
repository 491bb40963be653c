#include "core/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>

namespace attune {
namespace {

/// Large and small letters, and the two dashes, are easily taken for each other.
bool is_alike(char a, char b) {
  const auto plain = [](char c) {
    return c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  };
  return plain(a) == plain(b);
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + !is_alike(a[i - 1], b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

/// training and train.
bool is_longer_form(std::string_view longer, std::string_view shorter) {
  return shorter.size() >= 4 && longer.size() <= shorter.size() + 4 && longer.starts_with(shorter);
}

bool has_control(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

}  // namespace

std::string nearest(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const auto& candidate : names) {
    if (const auto distance = edit_distance(name, candidate); distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (!best.empty()) return best;
  const auto extends = [&](const std::string& candidate) {
    return is_longer_form(name, candidate) || is_longer_form(candidate, name);
  };
  const auto found = std::find_if(names.begin(), names.end(), extends);
  return found == names.end() ? "" : *found;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& names) {
  const auto near = nearest(name, names);
  return near.empty() ? "" : "; did you mean '" + near + "'?";
}

bool is_key(const std::string& text) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("_/.-").find(c) != std::string_view::npos;
  };
  return !text.empty() && std::ranges::all_of(text, is_plain);
}

bool natural_less(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto number_at = [&](std::string_view text, std::size_t at) {  // without leading zeros
    auto end = at;
    while (end < text.size() && is_digit(text[end])) ++end;
    auto begin = at;
    while (begin + 1 < end && text[begin] == '0') ++begin;
    return std::pair(text.substr(begin, end - begin), end);
  };
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const auto [first, after_first] = number_at(a, i);
      const auto [second, after_second] = number_at(b, j);
      if (first.size() != second.size()) return first.size() < second.size();
      if (first != second) return first < second;
      i = after_first;
      j = after_second;
    } else if (a[i] != b[j]) {
      return a[i] < b[j];
    } else {
      ++i;
      ++j;
    }
  }
  const auto left_of_a = a.size() - i;
  const auto left_of_b = b.size() - j;
  return left_of_a != left_of_b ? left_of_a < left_of_b : a < b;  // 01 and 1: an order all the same
}

std::string objection_to_folder(const std::string& output) {
  if (output.empty()) return "'output' is empty: name a folder, or \".\" for this one";
  return has_control(output) ? "'output' must be a single line without control characters" : "";
}

std::string objection_to_name(const std::string& name) {
  // bytes; file systems take 255, and some files have more behind the name
  constexpr std::size_t longest = 200;
  if (name.empty())
    return "'name' is empty, but it names a directory: set it (is a shell variable unset?)";
  if (name.find('/') != std::string::npos || name.starts_with('.'))
    return "'name' becomes a directory's name: it must not contain '/' or start with '.'";
  if (has_control(name))
    return "'name' becomes a directory's name: it must be a single line without control characters";
  if (name.size() > longest)
    return fmt::format("'name' has {} bytes, but as a directory's name it may have at most {}",
                       name.size(), longest);
  return "";
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : std::string(separator)) + part;
  return text;
}

}  // namespace attune
