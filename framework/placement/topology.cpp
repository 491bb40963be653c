#include "placement/topology.hpp"

#include <attune/error.hpp>
#include <hwloc.h>

namespace attune::placement {
namespace {

/// A set of hwloc's, freed at its end.
class Set {
 public:
  Set() : bits_(hwloc_bitmap_alloc()) {}
  explicit Set(const Processors& processors) : Set() {
    for (const int number : processors) hwloc_bitmap_set(bits_, static_cast<unsigned>(number));
  }
  ~Set() { hwloc_bitmap_free(bits_); }
  Set(const Set&) = delete;
  Set& operator=(const Set&) = delete;
  hwloc_bitmap_t get() const { return bits_; }

 private:
  hwloc_bitmap_t bits_;
};

Processors numbers_of(hwloc_const_bitmap_t bits) {
  Processors numbers;
  for (int i = hwloc_bitmap_first(bits); i >= 0; i = hwloc_bitmap_next(bits, i))
    numbers.push_back(i);
  return numbers;
}

using Loaded = std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)>;

/// Caches, disks and GPUs are left out: looking for them takes most of the time.
Loaded load(const std::string& description) {
  hwloc_topology_t topology = nullptr;
  ATTUNE_ASSERT(hwloc_topology_init(&topology) == 0, "hwloc has no memory");
  Loaded owned(topology, &hwloc_topology_destroy);
  if (!description.empty())
    ATTUNE_ASSERT(hwloc_topology_set_synthetic(topology, description.c_str()) == 0, "{}",
                  description);
  hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
  for (const auto type : {HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE})
    hwloc_topology_set_type_filter(topology, type, HWLOC_TYPE_FILTER_KEEP_ALL);
  hwloc_topology_set_type_filter(topology, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
  ATTUNE_ASSERT(hwloc_topology_load(topology) == 0, "hwloc cannot read this machine's topology");
  return owned;
}

/// The lowest level that may be divided among ranks. Machines without cores in /sys have processors
/// alone.
hwloc_obj_type_t core_type(hwloc_topology_t topology) {
  return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

}  // namespace

Topology::Topology(hwloc_topology* loaded) : loaded_(loaded, &hwloc_topology_destroy) {}
Topology Topology::here() { return Topology(load("").release()); }
Topology Topology::of(const std::string& description) {
  return Topology(load(description).release());
}

int Topology::all_cores() const {
  return hwloc_get_nbobjs_by_type(loaded_.get(), core_type(loaded_.get()));
}

std::vector<int> Topology::cores(const Processors& processors) const {
  auto* topology = loaded_.get();
  const Set wanted(processors);
  std::vector<int> found;
  for (int i = 0; i < all_cores(); ++i) {
    const auto* core =
        hwloc_get_obj_by_type(topology, core_type(topology), static_cast<unsigned>(i));
    if (hwloc_bitmap_intersects(core->cpuset, wanted.get())) found.push_back(i);
  }
  return found;
}

bool Topology::is_packages(const Processors& mine, const Processors& of) const {
  auto* topology = loaded_.get();
  const Set wanted(mine);
  const Set around(of);
  const Set found;
  for (int i = 0; i < hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE); ++i) {
    const auto* package =
        hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, static_cast<unsigned>(i));
    if (hwloc_bitmap_intersects(package->cpuset, wanted.get()))
      hwloc_bitmap_or(found.get(), found.get(), package->cpuset);
  }
  hwloc_bitmap_and(found.get(), found.get(), around.get());
  return hwloc_bitmap_isequal(found.get(), wanted.get()) != 0;
}

std::vector<Processors> Topology::shares(const Processors& processors, int ranks) const {
  const auto count = static_cast<std::size_t>(ranks);
  if (std::ssize(cores(processors)) < ranks) return std::vector<Processors>(count, processors);
  hwloc_topology_t copy = nullptr;
  ATTUNE_ASSERT(hwloc_topology_dup(&copy, loaded_.get()) == 0, "hwloc has no memory");
  const Loaded restricted(copy, &hwloc_topology_destroy);
  const Set wanted(processors);
  ATTUNE_ASSERT(hwloc_topology_restrict(copy, wanted.get(), 0) == 0,
                "none of the processors is here");

  std::vector<hwloc_bitmap_t> sets(count, nullptr);  // hwloc allocates them
  auto* root = hwloc_get_root_obj(copy);
  hwloc_distrib(copy, &root, 1, sets.data(), static_cast<unsigned>(ranks),
                hwloc_get_type_depth(copy, core_type(copy)), 0);
  std::vector<Processors> shares;
  for (auto* set : sets) {
    shares.push_back(numbers_of(set));
    hwloc_bitmap_free(set);
  }
  return shares;
}

}  // namespace attune::placement
