#include "core/process.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

/// Of jemalloc, in a program that is linked to it.
extern "C" int mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                       std::size_t new_size) __attribute__((weak));

namespace attune {

std::optional<ProcessStatus> parse_process_status(const std::string& line) {
  // "4321 (a name) S ...": the name may hold anything, brackets and blanks too.
  const auto open = line.find('(');
  const auto close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  std::istringstream rest(line.substr(close + 1));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  // after the name
  constexpr std::size_t state = 0;
  constexpr std::size_t user = 11;
  constexpr std::size_t system = 12;
  constexpr std::size_t started = 19;
  if (fields.size() <= started) return std::nullopt;
  const auto ticks = [&](std::size_t field) { return std::strtod(fields[field].c_str(), nullptr); };
  const auto name = line.substr(open + 1, close - open - 1);
  return ProcessStatus{name, fields[state][0], ticks(user) + ticks(system), fields[started]};
}

std::optional<ProcessStatus> process_status(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  return parse_process_status(line);
}

std::size_t bytes_in_line(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  return 0;
}

std::int64_t proportional_memory() {
  return static_cast<std::int64_t>(bytes_in_line("/proc/self/smaps_rollup", "Pss"));
}

void release_freed_memory() {
  // MALLCTL_ARENAS_ALL of jemalloc/jemalloc.h: of all threads
  if (mallctl) mallctl("arena.4096.purge", nullptr, nullptr, nullptr, 0);
}

}  // namespace attune
