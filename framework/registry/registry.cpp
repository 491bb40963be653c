#include <attune/error.hpp>
#include <attune/registry.hpp>

#include <algorithm>

#include "core/names.hpp"

namespace attune {
namespace {

std::string origin(const Registry::Entry& entry) { return entry.file.empty() ? entry.plugin : fmt::format("{} ({})", entry.file, entry.plugin); }

auto find_entry(const std::vector<Registry::Entry>& entries, Kind kind, const std::string& name) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.kind == kind && entry.name == name; });
}

}  // namespace

const char* name(Kind kind) {
  switch (kind) {
    case Kind::model: return "model";
    case Kind::dataset: return "dataset";
    case Kind::strategy: return "strategy";
    case Kind::callback: return "callback";
  }
  ATTUNE_ASSERT(false, "kind {}", static_cast<int>(kind));
  return "";
}

void Registry::add(Entry entry) {
  if (const auto taken = find_entry(entries_, entry.kind, entry.name); taken != entries_.end())
    fail("the {} '{}' is registered twice, by {} and by {}; rename one of them, or take one library out of the plugin folders",
         attune::name(entry.kind), entry.name, origin(*taken), origin(entry));
  entries_.push_back(std::move(entry));
}

const Registry::Entry& Registry::find(Kind kind, const std::string& name) const {
  if (const auto found = find_entry(entries_, kind, name); found != entries_.end()) return *found;
  auto known = names(kind);
  if (known.empty()) fail("there is no {} '{}': no plugin with a {} is loaded; name its folder in `plugins` or in ATTUNE_PLUGINS",
                          attune::name(kind), name, attune::name(kind));
  if (const auto near = std::find(known.begin(), known.end(), nearest(name, known)); near != known.end()) std::rotate(known.begin(), near, near + 1);
  fail("there is no {} '{}'{} (there are: {})", attune::name(kind), name, did_you_mean(name, known), joined(known));
}

std::vector<std::string> Registry::names(Kind kind) const {
  std::vector<std::string> names;
  for (const auto& entry : entries_)
    if (entry.kind == kind) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace attune
