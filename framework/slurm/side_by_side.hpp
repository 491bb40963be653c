// Concurrent execution of processes with separate logs.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace attune::slurm {

struct Task {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=value, in addition to this process's
  std::filesystem::path log;             // appended to
};

/// Runs tasks with at most `slots` at a time. next() provides a task, or false if there is none at
/// the moment. ended() receives each task's number (from 0, in start order) and exit code, and may
/// make further tasks available. After a signal (core/signals.hpp) no task is started, and running
/// ones get SIGUSR1, on which ranks save and end. Returns if no task is running and next() provides
/// none.
void run_side_by_side(std::size_t slots, const std::function<bool(Task&)>& next,
                      const std::function<void(std::size_t, int)>& ended);

}  // namespace attune::slurm
