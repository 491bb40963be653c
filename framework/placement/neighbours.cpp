#include "placement/neighbours.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <thread>

namespace attune::placement {
namespace {

namespace fs = std::filesystem;

struct Used {
  std::string name;
  double ticks = 0;  // of a processor, so far
};

/// "4321 (a name) S ...", whose 14th and 15th fields are the ticks. Empty name: the process is gone.
Used used_by(const fs::path& process) {
  std::ifstream file(process / "stat");
  std::string line;
  std::getline(file, line);
  const auto open = line.find('('), close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return {};
  std::istringstream rest(line.substr(close + 1));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  constexpr std::size_t user = 11, system = 12;  // after the name
  if (fields.size() <= system) return {};
  return {line.substr(open + 1, close - open - 1), std::stod(fields[user]) + std::stod(fields[system])};
}

bool is_number(const std::string& name) { return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; }); }

std::map<int, Used> used_by_all() {
  std::map<int, Used> all;
  std::error_code hidden;
  for (const auto& entry : fs::directory_iterator("/proc", hidden)) {
    if (!is_number(entry.path().filename())) continue;
    if (auto used = used_by(entry.path()); !used.name.empty()) all[std::stoi(entry.path().filename())] = std::move(used);
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
  const auto before = used_by_all();
  const auto stolen_before = stolen_of_all();
  std::this_thread::sleep_for(look);
  const auto after = used_by_all();
  const auto stolen_after = stolen_of_all();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const double ticks_a_second = static_cast<double>(::sysconf(_SC_CLK_TCK));

  Neighbours found;
  for (const auto& [process, used] : after) {
    if (process == ::getpid() || !before.contains(process)) continue;
    const double cores = (used.ticks - before.at(process).ticks) / ticks_a_second / seconds;
    if (cores >= 0.1) found.processes.push_back({process, used.name, cores});
  }
  std::ranges::sort(found.processes, std::greater(), &Neighbour::cores);
  const double all = stolen_after.second - stolen_before.second;
  if (all > 0) found.stolen = (stolen_after.first - stolen_before.first) / all;
  return found;
}

}  // namespace attune::placement
