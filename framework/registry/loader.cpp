#include "registry/loader.hpp"

#define BOOST_DLL_USE_STD_FS
#include <attune/plugin.hpp>
#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>
#include <sstream>

#include "core/names.hpp"
#include "registry/built_for.hpp"
#include "registry/elf.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

using boost::dll::shared_library;

constexpr const char* entry_point = "attune_plugin";

/// Every *.so of the folders and every named file, each once, in the order of the places.
std::vector<fs::path> libraries_in(const std::vector<fs::path>& places) {
  std::vector<fs::path> files;
  const auto followed = [](const fs::path& file) {
    std::error_code broken;
    auto canonical = fs::canonical(file, broken);
    if (broken)
      fail("{}: is a dangling link ({}); remove it or rebuild the plugin", file.string(),
           broken.message());
    return canonical;
  };
  const auto add = [&](const fs::path& canonical) {
    if (std::find(files.begin(), files.end(), canonical) == files.end()) files.push_back(canonical);
  };
  for (const auto& place : places) {
    if (!fs::exists(place))
      fail(
          "{}: there is no such plugin file or folder; correct `plugins` in the run file, or "
          "ATTUNE_PLUGINS",
          place.string());
    if (!fs::is_directory(place)) {
      add(followed(place));
      continue;
    }
    std::set<fs::path> sorted;
    for (const auto& entry : fs::directory_iterator(fs::canonical(place)))
      if (entry.path().extension() == ".so")
        sorted.insert(entry.is_symlink() ? followed(entry.path()) : entry.path());
    for (const auto& file : sorted) add(file);
  }
  return files;
}

std::string cure_for(const std::string& reason) {
  if (reason.find("undefined symbol") != std::string::npos)
    return "it was built against a different Attune or LibTorch: rebuild it against this one";
  if (reason.find("libtorch") != std::string::npos || reason.find("libc10") != std::string::npos)
    return "the library does not find LibTorch: build it with attune_add_plugin, which sets the "
           "rpath, or add LibTorch's lib folder to LD_LIBRARY_PATH";
  return "install the library it needs, or add its folder to LD_LIBRARY_PATH";
}

/// Error, with all mismatches at once, for a file that is no plugin or was not built for this
/// Attune. None of its code has run.
void check_built_for_this_attune(const fs::path& file) {
  if (!registry::exports_symbol(file, entry_point))
    fail(
        "{}: is a shared library but not an Attune plugin (it does not export '{}'); add "
        "ATTUNE_PLUGIN(...) at the end of its source",
        file.string(), entry_point);
  const auto note = registry::read_note(file, ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE);
  if (!note)
    fail(
        "{}: does not declare which Attune it was built for, like plugins of older versions; "
        "rebuild it against this Attune's headers",
        file.string());
  const auto mismatches = registry::mismatches(*note);
  if (!mismatches.empty())
    fail(
        "{}: was built for a different Attune: {}; rebuild it against this Attune's headers, with "
        "this Attune's compiler settings",
        file.string(), joined(mismatches, "; "));
}

/// Opened once; stays open until the process ends, whatever happens to the registry.
const shared_library& open_library(const fs::path& file) {
  check_built_for_this_attune(file);
  static auto& opened = *new std::vector<std::unique_ptr<const shared_library>>;
  try {
    opened.push_back(std::make_unique<const shared_library>(
        file, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local));
  } catch (const std::exception& error) {
    fail("{}: cannot be opened ({}); {}", file.string(), error.what(), cure_for(error.what()));
  }
  return *opened.back();
}

/// What the library says of itself. Error when that is not whole.
const AttunePluginInfo& checked_info(const shared_library& library, const fs::path& file) {
  const auto* info = library.get<const AttunePluginInfo*()>(entry_point)();
  constexpr auto whole = static_cast<std::uint32_t>(sizeof(AttunePluginInfo));
  if (!info)
    fail("{}: its {}() returned nothing; add ATTUNE_PLUGIN(...) at the end of its source",
         file.string(), entry_point);
  if (info->size < whole)
    fail(
        "{}: its description has {} bytes, but this Attune reads {}: it was built with an older "
        "Attune; rebuild it with this one",
        file.string(), info->size, whole);
  if (!info->add || !info->name || !info->version || !info->build_id)
    fail(
        "{}: its description is incomplete; add ATTUNE_PLUGIN(\"name\", \"version\", registry) at "
        "the end of its source",
        file.string());
  return *info;
}

/// What the library's `add` registers, by itself: nothing of it is taken over when `add` fails.
Registry entries_of(const AttunePluginInfo& info, const fs::path& file) {
  Registry entries;
  entries.set_origin(fmt::format("{} {}", info.name, info.version), file.string());
  try {
    info.add(entries);
  } catch (const std::exception& error) {
    fail("{}: plugin '{}' failed during registration: {}", file.string(), info.name, error.what());
  } catch (...) {
    fail("{}: plugin '{}' failed during registration without giving a reason", file.string(),
         info.name);
  }
  return entries;
}

}  // namespace

namespace {

std::vector<PluginLibrary> load_libraries(Registry& registry, const std::vector<fs::path>& files) {
  Registry extended = registry;
  std::vector<PluginLibrary> loaded;
  for (const auto& file : files) {
    const auto from_this_file = [&](const auto& entry) { return entry.file == file; };
    if (std::ranges::any_of(registry.entries(), from_this_file)) continue;
    const auto& info = checked_info(open_library(file), file);
    const auto added = entries_of(info, file);
    for (const auto& entry : added.entries()) extended.add(entry);
    loaded.push_back({info.name, info.version, info.build_id, file});
  }
  registry = std::move(extended);
  return loaded;
}

}  // namespace

std::vector<PluginLibrary> load_plugins(Registry& registry, const std::vector<fs::path>& places) {
  return load_libraries(registry, libraries_in(places));
}

void load_named_plugins(Registry& registry, const std::vector<fs::path>& places,
                        const std::vector<std::string>& names) {
  auto named = libraries_in(places);
  const auto others = std::ranges::stable_partition(named, [&](const fs::path& file) {
    return std::ranges::find(names, file.stem().string()) != names.end();
  });
  const std::vector<fs::path> reserve(others.begin(), others.end());
  named.erase(others.begin(), others.end());
  load_libraries(registry, named);
  registry.set_reserve([reserve] {
    Registry found;
    load_libraries(found, reserve);
    return found.entries();
  });
}

std::vector<fs::path> own_plugin_folders() {
  const auto folder = boost::dll::program_location().parent_path();
  std::vector<fs::path> folders{folder / "plugins",
                                folder.parent_path() / "lib" / "attune" / "plugins"};
  std::erase_if(folders, [](const fs::path& place) { return !fs::is_directory(place); });
  return folders;
}

std::vector<fs::path> further_plugin_places() {
  std::vector<fs::path> places;
  const char* listed = std::getenv("ATTUNE_PLUGINS");
  std::istringstream texts(listed ? listed : "");
  for (std::string text; std::getline(texts, text, ':');)
    if (!text.empty()) places.emplace_back(text);
  return places;
}

std::vector<fs::path> default_plugin_places() {
  auto places = own_plugin_folders();
  std::ranges::copy(further_plugin_places(), std::back_inserter(places));
  return places;
}

}  // namespace attune
