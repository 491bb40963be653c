// attune new: a folder with a working plugin, its test and an example, to be built anywhere with
// find_package(Attune).
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>

#include "command.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "example.hpp"
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
};
constexpr Scaffold scaffolds[] = {
    {Kind::strategy, templates::strategy, templates::strategy_test},
    {Kind::callback, templates::callback, templates::callback_test},
    {Kind::optimizer, templates::optimizer, templates::optimizer_test},
    {Kind::schedule, templates::schedule, templates::schedule_test},
    {Kind::dataset, templates::dataset, templates::dataset_test},
    {Kind::model, templates::model, templates::model_test},
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
        "attune new: '{}' is not a valid plugin name; use lowercase letters, digits and '_', "
        "starting with a letter",
        text);
}

void check_free(Kind kind, const std::string& text) {
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto names = registry.names(kind);
  if (std::binary_search(names.begin(), names.end(), text))
    fail("attune new: the {} '{}' already exists, from {}; choose another name", name(kind), text,
         registry.find(kind, text).file);
}

/// Types of the scaffolds themselves, and names that LibTorch and Attune bring.
bool is_taken_type(const std::string& type) {
  constexpr const char* taken[] = {
      "Options", "Config",  "Attention", "Mlp",    "Block",    "Decoder",  "Net",      "Linear",
      "Model",   "RMSNorm", "Batch",     "Loss",   "Run",      "Schema",   "Strategy", "Optimizer",
      "Error",   "Dataset", "Record",    "Sample", "Callback", "Schedule", "Kind",     "Mesh"};
  return std::ranges::find(taken, type) != std::end(taken);
}

/// "low_rank" -> "LowRank"; for a strategy named "options", "OptionsStrategy".
std::string type_of(const std::string& text, Kind kind) {
  std::string type;
  bool capital = true;
  for (const char c : text) {
    if (c != '_')
      type += capital ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    capital = c == '_';
  }
  if (!is_taken_type(type)) return type;
  std::string suffix = name(kind);
  suffix.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(suffix.front())));
  return type + (type == suffix ? "Plugin" : suffix);
}

std::string filled(std::string text, const std::map<std::string, std::string>& values) {
  for (const auto& [mark, value] : values)
    for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += value.size())
      text.replace(at, mark.size(), value);
  return text;
}

/// All files or none: they are written beside the folder, which is then renamed.
void write_folder(const fs::path& folder, const std::map<std::string, std::string>& files,
                  const Example& example) {
  auto partial = folder;
  partial += ".partial";
  try {
    for (const auto& [file, text] : files) write_text(partial / file, text);
    write_example(partial / "example", example);
    fs::rename(partial, folder);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw;
  }
}

std::string with_article(Kind kind) {
  return fmt::format("{} {}", kind == Kind::optimizer ? "an" : "a", name(kind));
}

/// A run file has a section of its own for these.
std::string section_of(Kind kind, const std::string& plugin) {
  if (kind != Kind::callback && kind != Kind::optimizer && kind != Kind::schedule) return "";
  const std::string key = name(kind);
  const auto section = kind == Kind::callback ? "[[" + key + "]]" : "[" + key + "]";
  return "\n" + section + "\nplugin = \"" + plugin + "\"\n";
}

/// A recipe does not name folders of plugins.
std::string prepare_command(Kind kind) {
  const std::string command = "attune prepare example/texts.toml";
  return kind == Kind::dataset ? "ATTUNE_PLUGINS=build/plugins " + command : command;
}

int create(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()(
      "kind", options::value<std::string>()->required(),
      "kind of the plugin: strategy, optimizer, schedule, callback, dataset or model")(
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
    fail("attune new: {} already exists; choose another folder with --to",
         folder.parent_path().string());

  const auto named = [&](Kind kind, const char* otherwise) {
    return scaffold.kind == kind ? plugin : otherwise;
  };
  const std::map<std::string, std::string> marks{
      {"@NAME@", plugin},
      {"@TYPE@", type_of(plugin, scaffold.kind)},
      {"@KIND@", with_article(scaffold.kind)},
      {"@COMMAND@", prepare_command(scaffold.kind)},
      {"@MODEL@", named(Kind::model, "llama")},
      {"@DATASET@", named(Kind::dataset, "corpus")},
      {"@STRATEGY@", named(Kind::strategy, scaffold.kind == Kind::model ? "full" : "lora")},
      {"@SECTION@", section_of(scaffold.kind, plugin)},
  };
  write_folder(folder.parent_path(),
               {{"CMakeLists.txt", filled(templates::cmake, marks)},
                {plugin + ".cpp", filled(scaffold.source, marks)},
                {"test_" + plugin + ".cpp", filled(scaffold.test, marks)},
                {"example.toml", filled(templates::run_file, marks)},
                {"README.md", filled(templates::readme, marks)}},
               {named(Kind::model, "llama"), named(Kind::dataset, "corpus")});
  std::cout << fmt::format("{}: {} that builds, and a test that passes; {} says how\n",
                           folder.parent_path().string(), with_article(scaffold.kind),
                           (folder / "README.md").string());
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command new_command{
    "new", "KIND NAME [--to DIR]",
    "creates a plugin project: a working strategy, optimizer, schedule, callback, dataset or model",
    create};

}  // namespace attune::program
