// Slurm's commands, run as programs: they exist on every cluster and need no library at build time.
#pragma once
#include <string>
#include <vector>

#include "core/lines.hpp"

namespace attune::slurm {

struct Said {
  int code = 0;  // 127: program not found
  std::string out;
  std::string err;
};

/// Runs a command and waits for it. environment: for the new process; empty: inherited.
Said run_command(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment = {});

/// Whether the program is in PATH.
bool is_installed(const std::string& program);

/// Null-terminated pointers for posix_spawn; valid as long as `texts`.
std::vector<char*> argument_pointers(const std::vector<std::string>& texts);

}  // namespace attune::slurm
