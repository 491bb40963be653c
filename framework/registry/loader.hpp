// Finds, validates and loads plugin libraries. A library is loaded only if its file is complete,
// exports `attune_plugin`, and has a note that matches this Attune. Libraries stay loaded until the
// process ends, because the registry holds their code.
#pragma once
#include <attune/registry.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace attune {

/// A loaded library.
struct PluginLibrary {
  // as stated by the library
  std::string name;
  std::string version;
  std::string build_id;
  std::filesystem::path file;  // canonical
};

/// Loads plugins from folders (all *.so files, by name) or files. If one is rejected, none is
/// added. A file that is listed twice, or is already in the registry, is loaded once. Error for a
/// missing path, a file that is not a plugin, one built for another Attune (all mismatches in one
/// message), a duplicate name, or an `add` that throws.
std::vector<PluginLibrary> load_plugins(Registry& registry,
                                        const std::vector<std::filesystem::path>& places);

/// The same, but loads only libraries with a name in `names` (lora.so for "lora"): a run typically
/// needs six of forty. The others are loaded together when a name is requested that these do not
/// provide.
void load_named_plugins(Registry& registry, const std::vector<std::filesystem::path>& places,
                        const std::vector<std::string>& names);

/// Attune's own plugins: <folder of the program>/plugins and <prefix>/lib/attune/plugins, if they
/// exist.
std::vector<std::filesystem::path> own_plugin_folders();
/// The colon-separated paths in ATTUNE_PLUGINS, which must exist.
std::vector<std::filesystem::path> further_plugin_places();
/// own_plugin_folders() and further_plugin_places().
std::vector<std::filesystem::path> default_plugin_places();

}  // namespace attune
