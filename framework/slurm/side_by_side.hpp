// Processes run so many at a time, each with a log of its own.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace attune::slurm {

struct Task {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=value, besides this process's
  std::filesystem::path log;             // written on at its end
};

/// next gives the tasks one after another, and false when there is none at the moment; ended is
/// told the number of each (from 0, in the order they came) with its exit code, and may make next
/// give more. After a signal that this process has noted (core/signals.hpp) no more begin, and all
/// that run get SIGUSR1, at which ranks save and end. Returns when none runs and next gives none.
void run_side_by_side(std::size_t slots, const std::function<bool(Task&)>& next,
                      const std::function<void(std::size_t, int)>& ended);

}  // namespace attune::slurm
