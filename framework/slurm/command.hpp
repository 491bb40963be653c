// Slurm's commands, called as programs: they are there on every cluster, and need nothing at build
// time.
#pragma once
#include <string>
#include <vector>

#include "core/lines.hpp"

namespace attune::slurm {

struct Said {
  int code = 0;  // 127: there is no such program
  std::string out;
  std::string err;
};

/// Runs it and waits. environment: that of the new process; empty: this one's.
Said run_command(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment = {});

/// Looked for in PATH.
bool is_installed(const std::string& program);

/// As posix_spawn takes them, ended by a null; valid as long as the texts.
std::vector<char*> argument_pointers(const std::vector<std::string>& texts);

}  // namespace attune::slurm
