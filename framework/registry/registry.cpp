#include <attune/error.hpp>
#include <attune/registry.hpp>

#include <algorithm>
#include <utility>

#include "core/names.hpp"

namespace attune {
namespace {

std::string origin(const Registry::Entry& entry) {
  return entry.file.empty() ? entry.plugin : fmt::format("{} ({})", entry.file, entry.plugin);
}

auto find_entry(const std::deque<Registry::Entry>& entries, Kind kind, const std::string& name) {
  return std::find_if(entries.begin(), entries.end(),
                      [&](const auto& entry) { return entry.kind == kind && entry.name == name; });
}

void append(std::deque<Registry::Entry>& entries, Registry::Entry entry) {
  if (const auto taken = find_entry(entries, entry.kind, entry.name); taken != entries.end())
    fail(
        "the {} '{}' is registered twice, by {} and by {}; rename one of them, or remove one "
        "library from the plugin folders",
        name(entry.kind), entry.name, origin(*taken), origin(entry));
  entries.push_back(std::move(entry));
}

}  // namespace

const char* name(Kind kind) {
  switch (kind) {
    case Kind::model: return "model";
    case Kind::dataset: return "dataset";
    case Kind::strategy: return "strategy";
    case Kind::callback: return "callback";
    case Kind::optimizer: return "optimizer";
    case Kind::schedule: return "schedule";
  }
  ATTUNE_ASSERT(false, "kind {}", static_cast<int>(kind));
  return "";
}

void Registry::add(Entry entry) { append(entries_, std::move(entry)); }

void Registry::draw_on_reserve() const {
  const auto reserve = std::exchange(reserve_, nullptr);
  if (!reserve) return;
  for (auto& entry : reserve()) append(entries_, std::move(entry));
}

const std::deque<Registry::Entry>& Registry::entries() const {
  draw_on_reserve();
  return entries_;
}

bool Registry::has(Kind kind, const std::string& name) const {
  const auto is_here = [&] { return find_entry(entries_, kind, name) != entries_.end(); };
  return is_here() || (draw_on_reserve(), is_here());
}

const Registry::Entry& Registry::find(Kind kind, const std::string& name) const {
  if (has(kind, name)) return *find_entry(entries_, kind, name);
  auto known = names(kind);
  if (known.empty())
    fail(
        "there is no {} '{}': no plugin with a {} is loaded; add its folder to `plugins` or "
        "ATTUNE_PLUGINS",
        attune::name(kind), name, attune::name(kind));
  if (const auto near = std::find(known.begin(), known.end(), nearest(name, known));
      near != known.end())
    std::rotate(known.begin(), near, near + 1);
  fail("there is no {} '{}'{} (there are: {})", attune::name(kind), name, did_you_mean(name, known),
       joined(known));
}

std::vector<std::string> Registry::names(Kind kind) const {
  std::vector<std::string> names;
  for (const auto& entry : entries())
    if (entry.kind == kind) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace attune
