#include "slurm/queue.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "core/names.hpp"
#include "slurm/environment.hpp"

namespace attune::slurm {
namespace {

/// "1500K", "2.5G": bytes.
double bytes_of(const std::string& text) {
  char* unit = nullptr;
  const double number = std::strtod(text.c_str(), &unit);
  switch (*unit) {
    case 'K': return number * 1024;
    case 'M': return number * 1048576;
    case 'G': return number * 1073741824;
    case 'T': return number * 1099511627776;
    default: return number;
  }
}

/// "billing=4,cpu=4,gres/gpu=2,mem=2000M,node=1" -> 2
double gpus_of(const std::string& resources) {
  static const std::regex gpus("gres/gpu=([0-9]+)");
  std::smatch found;
  return std::regex_search(resources, found, gpus) ? std::stod(found[1]) : 0;
}

double number_of(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

}  // namespace

bool QueuedJob::is_live() const {
  static const std::set<std::string> ended{"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"};
  return !ended.contains(state);
}

std::vector<QueuedJob> read_queue(const std::string& text) {
  std::vector<QueuedJob> jobs;
  for (const auto& line : lines_of(text)) {
    const auto cell = pieces_of(line, '|');
    if (cell.size() != 7) continue;
    jobs.push_back({cell[0], cell[1], cell[2] == "N/A" ? "" : cell[2], cell[3], cell[4], cell[5], cell[6]});
  }
  return jobs;
}

std::optional<std::vector<QueuedJob>> ask_queue(const std::vector<std::string>& ids) {
  if (ids.empty()) return std::vector<QueuedJob>{};
  const auto said = run_slurm({"squeue", "--noheader", "--array", "--states=all", "--jobs=" + joined(ids, ","), "--format=%A|%F|%K|%T|%r|%L|%N"});
  if (said.code == 0) return read_queue(said.out);
  if (said.err.find("Invalid job id") != std::string::npos) return std::vector<QueuedJob>{};  // it is long gone
  return std::nullopt;
}

std::optional<nlohmann::ordered_json> read_accounting(const std::string& text) {
  double elapsed = 0, processors = 0, gpus = 0, memory = 0, energy = 0;
  std::string state;
  for (const auto& line : lines_of(text)) {
    const auto cell = pieces_of(line, '|');
    if (cell.size() != 7) continue;
    memory = std::max(memory, bytes_of(cell[4]));
    const auto step = cell[0].find('.');
    if (step != std::string::npos) {  // what it was allocated is the job's; energy is metered by the steps of srun
      if (std::isdigit(static_cast<unsigned char>(cell[0].back()))) energy += number_of(cell[5]);
      continue;
    }
    state = cell[1].substr(0, cell[1].find(' '));
    elapsed += number_of(cell[2]);
    processors += number_of(cell[3]);
    gpus += number_of(cell[2]) * gpus_of(cell[6]);
  }
  if (state.empty() || state == "PENDING" || state == "RUNNING") return std::nullopt;  // not over yet
  nlohmann::ordered_json accounting{{"state", state}, {"elapsed_seconds", elapsed}, {"cpu_seconds", processors}};
  if (gpus > 0) accounting["gpu_seconds"] = gpus;
  if (memory > 0) accounting["memory_bytes"] = memory;
  if (energy > 0) accounting["energy_joules"] = energy;
  return accounting;
}

std::optional<nlohmann::ordered_json> ask_accounting(const std::string& id) {
  const auto said = run_slurm({"sacct", "--noheader", "--parsable2", "--duplicates", "--jobs=" + id, "--format=JobID,State,ElapsedRaw,CPUTimeRAW,MaxRSS,ConsumedEnergyRaw,AllocTRES"});
  return said.code == 0 ? read_accounting(said.out) : std::nullopt;
}

}  // namespace attune::slurm
