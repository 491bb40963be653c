// One effective value of a run, and where it came from.
#pragma once
#include <attune/schema.hpp>

#include <string>

namespace attune::config {

/// For printing, comparing and hashing; the typed values are in RunConfig.
struct Setting {
  std::string name;
  std::string value;   // as in a TOML file
  std::string origin;  // "run.toml:4:1", "command line" or "default"
  OptionRole role = OptionRole::setting;
};

}  // namespace attune::config
