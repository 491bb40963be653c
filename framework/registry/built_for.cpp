#include "registry/built_for.hpp"

#include <attune/built_for.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace attune::registry {
namespace {

/// What is compared, by its key in the note. A library fits when it was built as Attune was.
///
/// LibTorch promises no ABI between versions. g++ and clang++ mean to have one ABI, but what each
/// has wrong changes from one major version to the next (-fabi-version, -fclang-abi-compat), as do
/// the parts of C++20 that libstdc++ calls experimental. A sanitizer's runtime must be there from
/// the start of the process.
constexpr std::pair<const char*, const char*> compared[] = {
    {"headers", "its Attune headers are"},  {"libtorch", "its LibTorch is"},
    {"compiler", "its compiler is"},        {"standard", "its C++ standard is"},
    {"library", "its standard library is"}, {"containers", "its containers are"},
    {"sanitizer", "its sanitizer is"},      {"json", "its nlohmann_json is"},
};

/// A note is somebody else's bytes: what is no plain text, or long, is not repeated in a message.
std::string shown(const std::string& value) {
  const auto is_plain = [](unsigned char letter) { return letter >= 0x20 && letter < 0x7f; };
  return value.size() <= 80 && std::ranges::all_of(value, is_plain) ? value : "unreadable";
}

std::map<std::string, std::string> facts(std::string_view note) {
  std::map<std::string, std::string> facts;
  std::istringstream lines{std::string(note)};
  for (std::string line; std::getline(lines, line);) {
    const auto equals = line.find('=');
    if (equals != std::string::npos) facts.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  return facts;
}

std::string value_of(const std::map<std::string, std::string>& facts, const std::string& key) {
  const auto found = facts.find(key);
  if (found == facts.end()) return "unknown";
  const auto release = facts.find("attune");
  const bool names_release = key == "headers" && release != facts.end();
  return names_release ? fmt::format("{} (Attune {})", shown(found->second), shown(release->second))
                       : shown(found->second);
}

}  // namespace

std::vector<std::string> mismatches(std::string_view note) {
  const auto theirs = facts(note);
  static const auto ours = facts(ATTUNE_BUILT_FOR("\n"));
  std::vector<std::string> differing;
  for (const auto& [key, said] : compared) {
    const auto found = theirs.find(key);
    if (found == theirs.end() || found->second != ours.at(key))
      differing.push_back(
          fmt::format("{} {}, here {}", said, value_of(theirs, key), value_of(ours, key)));
  }
  return differing;
}

}  // namespace attune::registry
