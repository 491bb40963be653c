#include "placement/neighbours.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <thread>

#include "core/process.hpp"

namespace attune::placement {
namespace {

namespace fs = std::filesystem;

bool is_number(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](unsigned char c) { return c >= '0' && c <= '9'; });
}

std::map<int, ProcessStatus> all_processes() {
  std::map<int, ProcessStatus> all;
  std::error_code hidden;
  for (const auto& entry : fs::directory_iterator("/proc", hidden)) {
    if (!is_number(entry.path().filename())) continue;
    const int number = std::stoi(entry.path().filename());
    if (auto status = process_status(number)) all[number] = std::move(*status);
  }
  return all;
}

/// Of all processors: the ticks given to other machines, and all of them.
std::pair<double, double> stolen_of_all() {
  std::ifstream file("/proc/stat");
  std::string name;
  file >> name;
  std::vector<double> ticks(8);  // user, nice, system, idle, iowait, irq, softirq, steal
  for (auto& value : ticks) file >> value;
  return {ticks.back(), std::accumulate(ticks.begin(), ticks.end(), 0.0)};
}

}  // namespace

Neighbours neighbours(std::chrono::milliseconds look) {
  const auto began = std::chrono::steady_clock::now();
  const auto before = all_processes();
  const auto stolen_before = stolen_of_all();
  std::this_thread::sleep_for(look);
  const auto after = all_processes();
  const auto stolen_after = stolen_of_all();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const double ticks_a_second = static_cast<double>(::sysconf(_SC_CLK_TCK));

  Neighbours found;
  for (const auto& [process, status] : after) {
    if (process == ::getpid() || !before.contains(process)) continue;
    const double cores = (status.ticks - before.at(process).ticks) / ticks_a_second / seconds;
    if (cores >= 0.1) found.processes.push_back({process, status.name, cores});
  }
  std::ranges::sort(found.processes, std::greater(), &Neighbour::cores);
  const double all = stolen_after.second - stolen_before.second;
  if (all > 0) found.stolen = (stolen_after.first - stolen_before.first) / all;
  return found;
}

}  // namespace attune::placement
