// Raw files to one data file: read, clean, split, encode on all ranks, written by all of them.
#pragma once
#include <attune/comm.hpp>
#include <attune/registry.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "prepare/recipe.hpp"
#include "data/store.hpp"

namespace attune {

/// Records dropped for one reason.
struct Rejection {
  std::int64_t count = 0;
  std::vector<std::string> examples;  // the first few: "train.csv, row 7"
};

struct PrepareReport {
  std::filesystem::path output;
  std::int64_t records = 0;                 // read from the sources
  std::map<std::string, std::int64_t> samples;    // kept, by split
  std::map<std::string, Rejection> rejected;      // by reason
};

/// Collective. The same content whatever the number of ranks. The file appears whole or not at all: until then it is <output>.partial.
/// Error for sources that do not fit, a split that ends up empty, and what the dataset plugin refuses.
PrepareReport prepare(const Recipe& recipe, const Registry& registry, const Comm& comm = {});

}  // namespace attune
