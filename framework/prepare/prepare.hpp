// Raw files to one data file, by all ranks: scan, read and clean, decide, encode and write.
#pragma once
#include <attune/comm.hpp>
#include <attune/registry.hpp>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "prepare/ledger.hpp"
#include "prepare/recipe.hpp"

namespace attune {

struct PrepareReport {
  std::filesystem::path output;
  std::int64_t records = 0;                     // read from the sources
  std::map<std::string, std::int64_t> samples;  // kept, by split
  // by reason
  Tallies rejected;
  Tallies changed;
};

/// How far it has come, for who watches.
struct PrepareProgress {
  const char* stage;  // "scanning", "reading", "encoding"
  // bytes of this rank's share (when encoding: of draws, over all ranks)
  std::uint64_t done;
  std::uint64_t all;
  std::int64_t records;  // of those
};
using Watch = std::function<void(const PrepareProgress&)>;

/// Collective. The same content whatever the number of ranks. The file appears whole or not at all:
/// all work is done in the folder <output>.partial, which is made anew, and is gone when this
/// returns or throws. Memory: some tens of MiB, and on rank 0 about 30 bytes a record; the disk
/// holds the records once more while it runs. Error for sources that do not fit, a split that ends
/// up empty, a full disk, and what the dataset plugin refuses.
PrepareReport prepare(const Recipe& recipe, const Registry& registry, const Comm& comm = {},
                      const Watch& watch = {});

}  // namespace attune
