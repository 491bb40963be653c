// One effective value of a run, and where it came from.
#pragma once
#include <string>

namespace attune::config {

struct Setting {
  std::string name;
  std::string value;   // as in a TOML file
  std::string origin;  // "run.toml:4:1", "command line" or "default"
};

}  // namespace attune::config
