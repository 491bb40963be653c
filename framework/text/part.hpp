// Construction of tokenizer.json components by their "type".
#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attune/error.hpp"
#include "core/names.hpp"

namespace attune::text {

using Json = nlohmann::json;

template <class Part>
using Makers = std::map<std::string, Part (*)(const Json&)>;

/// Error for an unsupported type; it lists the supported ones. stage: "normalizer", "decoder", ...
template <class Part>
Part make_part(std::string_view stage, const Json& json, const Makers<Part>& makers) {
  const auto type = json.at("type").get<std::string>();
  if (const auto maker = makers.find(type); maker != makers.end()) return maker->second(json);
  std::vector<std::string> names;
  for (const auto& [name, maker] : makers) names.push_back(name);
  fail("tokenizer.json: the {} '{}' is not supported; supported are {}", stage, type,
       joined(names));
}

/// The components of a Sequence, which may be nested. The depth is limited, so that a forged file
/// cannot exhaust the stack.
template <class Part>
std::vector<Part> make_parts(const Json& list, Part (*make)(const Json&)) {
  constexpr int deepest = 32;
  thread_local int depth = 0;
  if (depth == deepest)
    fail("tokenizer.json: more than {} nested Sequences; use the file that came with the model",
         deepest);
  struct Level {
    Level() { ++depth; }
    ~Level() { --depth; }
  } level;
  std::vector<Part> parts;
  for (const auto& json : list) parts.push_back(make(json));
  return parts;
}

/// The value under `key`, or `otherwise` if it is absent or null.
template <class T>
T value_or(const Json& json, const char* key, T otherwise) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? otherwise : found->template get<T>();
}

}  // namespace attune::text
