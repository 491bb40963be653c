// attune new: a folder with a working plugin, its test and an example, to be built anywhere with
// find_package(Attune).
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>

#include "command.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "registry/loader.hpp"
#include "templates.hpp"

namespace attune::program {
namespace {

namespace fs = std::filesystem;
namespace options = boost::program_options;

struct Scaffold {
  Kind kind;
  const char* source;
  const char* test;
  const char* example;
  const char* command;  // that uses the example
};
constexpr Scaffold scaffolds[] = {
    {Kind::strategy, templates::strategy, templates::strategy_test, templates::run_file,
     "attune train example.toml"},
    {Kind::callback, templates::callback, templates::callback_test, templates::run_file,
     "attune train example.toml"},
    {Kind::optimizer, templates::optimizer, templates::optimizer_test, templates::run_file,
     "attune train example.toml"},
    {Kind::schedule, templates::schedule, templates::schedule_test, templates::run_file,
     "attune train example.toml"},
    {Kind::dataset, templates::dataset, templates::dataset_test, templates::recipe,
     "ATTUNE_PLUGINS=build/plugins attune prepare example.toml"},
};

const Scaffold& scaffold_for(const std::string& kind) {
  std::vector<std::string> known;
  for (const auto& scaffold : scaffolds) {
    if (kind == name(scaffold.kind)) return scaffold;
    known.emplace_back(name(scaffold.kind));
  }
  fail("attune new: there is no scaffold for '{}'{} (there are: {})", kind,
       did_you_mean(kind, known), joined(known));
}

/// The name becomes a file, a CMake target and, in another spelling, a C++ type.
void check_name(const std::string& text) {
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto fits = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '_'; };
  if (text.empty() || !is_letter(text.front()) || !std::all_of(text.begin(), text.end(), fits))
    fail(
        "attune new: '{}' cannot be a plugin's name; take small letters, digits and '_', a letter "
        "first",
        text);
}

void check_free(Kind kind, const std::string& text) {
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto names = registry.names(kind);
  if (std::binary_search(names.begin(), names.end(), text))
    fail("attune new: the {} '{}' is there already, from {}; take another name", name(kind), text,
         registry.find(kind, text).file);
}

/// "low_rank" -> "LowRank"
std::string type_of(const std::string& text) {
  std::string type;
  bool capital = true;
  for (const char c : text) {
    if (c != '_')
      type += capital ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    capital = c == '_';
  }
  return type;
}

std::string filled(std::string text, const std::map<std::string, std::string>& values) {
  for (const auto& [mark, value] : values)
    for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += value.size())
      text.replace(at, mark.size(), value);
  return text;
}

/// All files or none: they are written beside the folder, which is then renamed.
void write_folder(const fs::path& folder, const std::map<std::string, std::string>& files) {
  auto partial = folder;
  partial += ".partial";
  try {
    for (const auto& [file, text] : files) write_text(partial / file, text);
    fs::rename(partial, folder);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw;
  }
}

int create(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()(
      "kind", options::value<std::string>()->required(),
      "kind of the plugin: strategy, optimizer, schedule, callback or dataset")(
      "name", options::value<std::string>()->required(), "name of the new plugin")(
      "to", options::value<std::string>(), "folder to create; default: ./NAME");
  const auto values = parse(new_command, arguments, description, {{"kind", 1}, {"name", 1}});
  if (!values) return static_cast<int>(ExitCode::done);

  const auto& scaffold = scaffold_for((*values)["kind"].as<std::string>());
  const auto plugin = (*values)["name"].as<std::string>();
  check_name(plugin);
  check_free(scaffold.kind, plugin);
  const fs::path folder =
      (values->count("to") ? fs::path((*values)["to"].as<std::string>()) : fs::path(plugin)) / "";
  if (fs::exists(folder))
    fail("attune new: {} is there already; name another folder with --to",
         folder.parent_path().string());

  const bool is_strategy = scaffold.kind == Kind::strategy;
  const bool is_callback = scaffold.kind == Kind::callback;
  const std::string kind = name(scaffold.kind);
  const std::string section = is_callback ? "[[" + kind + "]]" : "[" + kind + "]";
  const std::map<std::string, std::string> marks{
      {"@NAME@", plugin},
      {"@TYPE@", type_of(plugin)},
      {"@KIND@", name(scaffold.kind)},
      {"@COMMAND@", scaffold.command},
      {"@STRATEGY@", is_strategy ? plugin : "lora"},
      {"@SECTION@", is_strategy ? "" : "\n" + section + "\nplugin = \"" + plugin + "\"\n"},
  };
  write_folder(folder.parent_path(), {{"CMakeLists.txt", filled(templates::cmake, marks)},
                                      {plugin + ".cpp", filled(scaffold.source, marks)},
                                      {"test_" + plugin + ".cpp", filled(scaffold.test, marks)},
                                      {"example.toml", filled(scaffold.example, marks)},
                                      {"README.md", filled(templates::readme, marks)}});
  std::cout << fmt::format("{}: a {} that builds, and a test that passes; {} says how\n",
                           folder.parent_path().string(), name(scaffold.kind),
                           (folder / "README.md").string());
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command new_command{
    "new", "KIND NAME [--to DIR]",
    "creates a plugin project: a working strategy, optimizer, schedule, callback or dataset",
    create};

}  // namespace attune::program
