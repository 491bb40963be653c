#include "weights/chat_template_files.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/tokenizer_files.hpp"
#include "weights/weight_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

using Templates = std::map<std::string, std::string>;  // "default", "tool_use", "rag", ...

std::string text_under(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

json read_if_present(const fs::path& path) {
  return fs::exists(path) ? weights::read_json(path) : json::object();
}

/// A text, a list of {"name", "template"}, or an object of texts.
Templates templates_in(const json& value) {
  Templates templates;
  if (value.is_string()) templates["default"] = value.get<std::string>();
  if (value.is_array())
    for (const auto& named : value)
      templates[text_under(named, "name")] = text_under(named, "template");
  if (value.is_object())
    for (const auto& [name, text] : value.items())
      templates[name] = text.is_string() ? text.get<std::string>() : "";
  return templates;
}

/// Files go before what tokenizer_config.json says; chat_template.json, of models that also see,
/// comes last.
Templates templates_of_folder(const fs::path& folder, const json& tokenizer_config) {
  Templates templates;
  if (const auto path = folder / "chat_template.jinja"; fs::exists(path))
    templates["default"] = read_lines(path);
  if (const auto more = folder / "additional_chat_templates"; fs::is_directory(more))
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja")
        templates[entry.path().stem().string()] = read_lines(entry.path());
  if (templates.empty() && tokenizer_config.contains("chat_template"))
    templates = templates_in(tokenizer_config["chat_template"]);
  if (templates.empty())
    if (const auto alone = read_if_present(folder / "chat_template.json");
        alone.contains("chat_template"))
      templates = templates_in(alone["chat_template"]);
  return templates;
}

/// The .gguf file that a place is, or that lies in it where nothing else does.
fs::path gguf_in(const fs::path& place) {
  if (!fs::is_directory(place)) return place.extension() == ".gguf" ? place : fs::path();
  if (fs::exists(place / "config.json") || fs::exists(place / "tokenizer_config.json")) return {};
  return weights::holds_gguf(place) ? weights::only_gguf(place) : fs::path();
}

ChatSource source_of(const fs::path& place, Templates templates) {
  std::string names;
  for (const auto& [name, text] : templates) names += (names.empty() ? "" : ", ") + name;
  if (!templates.empty() && !templates.contains("default"))
    fail(
        "{}: has several chat templates ({}), none named \"default\"; choose one with template = "
        "\"FILE.jinja\"",
        place.string(), names);
  return {templates["default"], templates["tool_use"], {}};
}

ChatSource of_gguf(const fs::path& path) {
  const auto metadata = gguf_metadata(path);
  Templates templates;
  if (const auto text = text_under(metadata, "tokenizer.chat_template"); !text.empty())
    templates["default"] = text;
  if (const auto text = text_under(metadata, "tokenizer.chat_template.tool_use"); !text.empty())
    templates["tool_use"] = text;
  return source_of(path, std::move(templates));
}

}  // namespace

ChatSource chat_templates_in(const fs::path& place) {
  if (const auto gguf = gguf_in(place); !gguf.empty()) return of_gguf(gguf);
  if (!fs::is_directory(place)) return {};
  return source_of(place,
                   templates_of_folder(place, read_if_present(place / "tokenizer_config.json")));
}

ChatSource chat_template_of(const fs::path& place) {
  auto source = chat_templates_in(place);
  if (!source.jinja.empty()) source.tokens = special_tokens_of(place);
  return source;
}

std::string other_chat_template(const ChatSource& trained, const ChatSource& own) {
  if (trained.jinja.empty()) return "";
  std::set<std::string> names;  // a model's own among them: image_token
  for (const auto* source : {&trained, &own})
    for (const auto& [name, text] : source->tokens) names.insert(name);
  std::string settings;
  for (const auto& name : names) {
    const auto text_in = [&](const ChatSource& source) {
      return source.tokens.contains(name) ? source.tokens.at(name) : "";
    };
    const bool is_named = (trained.jinja + trained.tool_use).find(name) != std::string::npos;
    if (is_named && text_in(trained) != text_in(own))
      settings += fmt::format("{{% set {} = {} %}}\n", name, json(text_in(trained)).dump());
  }
  const bool is_same =
      settings.empty() && trained.jinja == own.jinja && trained.tool_use == own.tool_use;
  return is_same ? "" : settings + trained.jinja;
}

ChatSource chat_template_in(const fs::path& file, const fs::path& place) {
  if (!fs::exists(file))
    fail("{}: there is no such file; set template to a Jinja chat template file or a built-in one",
         file.string());
  return {read_lines(file), "",
          place.empty() ? std::map<std::string, std::string>() : special_tokens_of(place)};
}

}  // namespace attune
