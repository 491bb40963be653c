#include "weights/json_file.hpp"

#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "core/files.hpp"

namespace attune::weights {
namespace {

/// Whoever copies or writes JSON goes down the stack by a frame or two a level.
bool is_too_deep(std::string_view text) {
  constexpr int deepest = 500;
  int depth = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string && c == '\\')
      ++at;
    else if (c == '"')
      in_string = !in_string;
    else if (!in_string && (c == '[' || c == '{') && ++depth > deepest)
      return true;
    else if (!in_string && (c == ']' || c == '}'))
      --depth;
  }
  return false;
}

}  // namespace

nlohmann::json read_json(const std::filesystem::path& path) {
  const auto text = read_text(path);
  if (is_too_deep(text))
    fail("{}: has lists nested too deeply for a model file; it is damaged, fetch it again",
         path.string());
  try {
    auto value = nlohmann::json::parse(text);
    if (!value.is_object())
      fail("{}: must hold a JSON object ({{...}}), but holds {}", path.string(), value.type_name());
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: is not valid JSON from byte {} on; fetch the file again", path.string(), error.byte);
  } catch (const nlohmann::json::out_of_range&) {
    fail("{}: contains a number that is too large; fetch the file again", path.string());
  }
}

}  // namespace attune::weights
