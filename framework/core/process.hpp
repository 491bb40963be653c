// Status of a process, and memory, from /proc.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace attune {

struct ProcessStatus {
  std::string name;
  char state = '?';     // R running, S sleeping, Z zombie, ...
  double ticks = 0;     // processor time so far, user and kernel mode
  std::string started;  // clock ticks since boot; needed because pids are reused

  bool has_ended() const { return state == 'Z' || state == 'X'; }
};

/// Absent if there is no such process, or /proc does not show it.
std::optional<ProcessStatus> process_status(std::int64_t pid);

/// Bytes in a line "Name:   123 kB" of a file in /proc; 0 without such a line.
std::size_t bytes_in_line(const char* file, const std::string& name);

/// Bytes of memory that this process holds: its own pages, and its share of those that several
/// processes have mapped (PSS, proc(5)). 0 if /proc does not tell.
std::int64_t proportional_memory();

/// Gives memory that was freed back to the kernel, where jemalloc allocates: it keeps such memory
/// otherwise (docs/performance.md).
void release_freed_memory();

/// Parses a line of /proc/PID/stat (proc(5)); absent if it is invalid.
std::optional<ProcessStatus> parse_process_status(const std::string& line);

}  // namespace attune
