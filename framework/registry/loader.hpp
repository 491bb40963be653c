// Finds, checks and opens plugin libraries. A library is opened only when its file is whole,
// exports `attune_plugin` and has a note that says it was built for this Attune. Opened libraries
// stay open until the process ends: the registry holds their code.
#pragma once
#include <attune/registry.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace attune {

/// A library that was loaded.
struct PluginLibrary {
  // as it says itself
  std::string name;
  std::string version;
  std::string build_id;
  std::filesystem::path file;  // canonical
};

/// Places are folders (every *.so in them, by name) or files. All of them, or none: when one is
/// refused the registry is as it was. A file that is named twice, or whose entries the registry
/// holds already, is loaded once. Error for a place that does not exist, a file that is no plugin,
/// one built for another Attune (every mismatch in one message), a name taken twice, and an `add`
/// that throws.
std::vector<PluginLibrary> load_plugins(Registry& registry,
                                        const std::vector<std::filesystem::path>& places);

/// The same, but at first only libraries named like one of `names` (lora.so for "lora") are opened:
/// a run needs six of forty. The others are the registry's reserve: opened together when a name is
/// looked for that those do not hold.
void load_named_plugins(Registry& registry, const std::vector<std::filesystem::path>& places,
                        const std::vector<std::string>& names);

/// <folder of the program>/plugins and <prefix>/lib/attune/plugins, where they exist: Attune's own.
std::vector<std::filesystem::path> own_plugin_folders();
/// The paths in ATTUNE_PLUGINS (separated by colons), which must exist.
std::vector<std::filesystem::path> further_plugin_places();
/// All of these.
std::vector<std::filesystem::path> default_plugin_places();

}  // namespace attune
