// attune inspect: what a file is.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "command.hpp"
#include "data/card.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "weights/describe.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

bool starts_with(const fs::path& path, std::string_view magic) {
  std::string head(magic.size(), '\0');
  std::ifstream(path, std::ios::binary).read(head.data(), static_cast<std::streamsize>(head.size()));
  return head == magic;
}

/// Whether a plugin here runs this kind of model.
std::string support(const ModelFiles& files) {
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto type = files.config.value("model_type", "");
  for (const auto& name : registry.names(Kind::model))
    if (name == type) return "supported by the plugin '" + name + "'";
  return "not supported: no plugin here runs models of type '" + type + "'";
}

void inspect(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (fs::is_directory(path) || starts_with(path, "GGUF")) {
    const auto files = ModelFiles::open(path);
    std::cout << describe_model(files) << support(files) << "\n";
  } else if (starts_with(path, "\x89HDF\r\n\x1a\n")) {
    const auto file = DataFile::open(path);
    for (const auto& split : file.splits()) file.split(split).verify();
    std::cout << data_card(file) << "the content is what was written: every split's SHA-256 holds\n";
  } else {
    fail("{}: is neither a model (a Hugging Face folder or a .gguf file) nor a data file made by `attune prepare`", path.string());
  }
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("file", options::value<std::string>()->required(), "model or data file");
  const auto values = parse(inspect_command, arguments, description, {{"file", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm&) {
    inspect((*values)["file"].as<std::string>());
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command inspect_command{"inspect", "MODEL|DATA.h5", "says what a model or data file holds, and verifies data files", run};

}  // namespace attune::program
