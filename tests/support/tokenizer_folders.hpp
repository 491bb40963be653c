// Model folders that exist in memory only.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/tokenizer_folder.hpp"

namespace fixtures {

/// The tokenizer of a folder with these files: names and contents.
inline nlohmann::json tokenizer_of(const std::map<std::string, std::string>& files) {
  const auto has = [&](const char* name) { return files.contains(name); };
  const auto json = [&](const char* name) {
    return has(name) ? nlohmann::json::parse(files.at(name)) : nlohmann::json();
  };
  const auto ordered = [&](const char* name) {
    return has(name) ? nlohmann::ordered_json::parse(files.at(name)) : nlohmann::ordered_json();
  };
  attune::text::TokenizerFolder folder;
  folder.config = json("config.json");
  folder.tokenizer_json = json("tokenizer.json");
  folder.settings = {ordered("tokenizer_config.json"), ordered("special_tokens_map.json"),
                     ordered("added_tokens.json")};
  folder.read = [&](const std::string& name) {
    return files.contains(name) ? std::optional(files.at(name)) : std::nullopt;
  };
  return attune::text::read_tokenizer_folder(std::move(folder)).json;
}

/// A vocab.txt alone.
inline nlohmann::json tokenizer_of_vocab(const std::string& vocab, bool lowercase) {
  return tokenizer_of(
      {{"vocab.txt", vocab},
       {"tokenizer_config.json", lowercase ? "{}" : R"({"do_lower_case": false})"}});
}

}  // namespace fixtures
