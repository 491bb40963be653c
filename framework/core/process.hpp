// What the kernel says of a process, from /proc.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace attune {

struct ProcessStatus {
  std::string name;
  char state = '?';     // R running, S sleeping, Z ended and not yet noticed by its parent, ...
  double ticks = 0;     // of processors, in user and kernel mode, so far
  std::string started;  // in clock ticks since the machine started: process numbers are used again

  bool has_ended() const { return state == 'Z' || state == 'X'; }
};

/// Absent when there is no such process, or /proc does not show it.
std::optional<ProcessStatus> process_status(std::int64_t pid);

/// Of a line of /proc/PID/stat (proc(5)); absent when it is none.
std::optional<ProcessStatus> parse_process_status(const std::string& line);

}  // namespace attune
