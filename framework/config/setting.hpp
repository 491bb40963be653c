// An effective setting of a run, and its origin.
#pragma once
#include <attune/schema.hpp>

#include <string>

namespace attune::config {

/// For printing, comparison and hashing; RunConfig has the typed values.
struct Setting {
  std::string name;
  std::string value;   // in TOML syntax
  std::string origin;  // "run.toml:4:1", "command line" or "default"
  OptionRole role = OptionRole::setting;
};

}  // namespace attune::config
