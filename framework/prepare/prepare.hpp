// Conversion of raw files to a data file by all ranks: scan, read and clean, plan, encode and
// write.
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
  // counts by reason
  Tallies rejected;
  Tallies changed;
};

/// Progress, for display.
struct PrepareProgress {
  const char* stage;  // "scanning", "reading", "encoding"
  // bytes of this rank's share (during encoding: draws, over all ranks)
  std::uint64_t done;
  std::uint64_t all;
  std::int64_t records;  // records in `done`
};
using Watch = std::function<void(const PrepareProgress&)>;

/// Prepares a data file, with the same content for any number of ranks. The file is written
/// atomically: all work is done in a new folder <output>.partial, which is removed on return or
/// exception. Memory: some tens of MiB, and about 30 bytes per record on rank 0. Temporary disk
/// space: the size of the records. Error for unsuitable sources, an empty split, a full disk, and
/// errors of the dataset plugin. Collective.
PrepareReport prepare(const Recipe& recipe, const Registry& registry, const Comm& comm = {},
                      const Watch& watch = {});

}  // namespace attune
