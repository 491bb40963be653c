#include "slurm/queue.hpp"

#include <pwd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "config/slurm_options.hpp"
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

bool has_ended(const std::string& state) {
  static const std::set<std::string> ended{"BOOT_FAIL", "CANCELLED", "COMPLETED",     "DEADLINE",
                                           "FAILED",    "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
                                           "REVOKED",   "TIMEOUT"};
  return ended.contains(state.substr(0, state.find(' ')));  // "CANCELLED by 1000"
}

bool QueuedJob::is_live() const { return !has_ended(state); }

bool has_live(const std::vector<QueuedJob>& queue, const std::string& id) {
  return std::ranges::any_of(
      queue, [&](const QueuedJob& job) { return job.is_live() && job.is_called(id); });
}

std::optional<bool> is_live(const std::string& id) {
  const auto queue = ask_queue({id});
  return queue ? std::optional(has_live(*queue, id)) : std::nullopt;
}

std::vector<QueuedJob> read_queue(const std::string& text) {
  std::vector<QueuedJob> jobs;
  for (const auto& line : lines_of(text)) {
    const auto cell = pieces_of(line, '|');
    if (cell.size() != 7) continue;
    jobs.push_back(
        {cell[0], cell[1], cell[2] == "N/A" ? "" : cell[2], cell[3], cell[4], cell[5], cell[6]});
  }
  return jobs;
}

std::vector<std::string> comma_lists(const std::vector<std::string>& ids) {
  constexpr std::size_t longest = 100'000;  // Linux takes 131,072 bytes in one argument
  std::vector<std::string> lists;
  for (const auto& id : ids)
    if (lists.empty() || lists.back().size() + id.size() >= longest)
      lists.push_back(id);
    else
      lists.back() += "," + id;
  return lists;
}

std::optional<std::vector<QueuedJob>> ask_queue(const std::vector<std::string>& ids) {
  std::vector<QueuedJob> jobs;
  for (const auto& list : comma_lists(ids)) {
    const auto said = run_slurm({"squeue", "--noheader", "--array", "--states=all",
                                 "--jobs=" + list, "--format=%A|%F|%K|%T|%r|%L|%N"});
    const bool is_long_gone = said.err.find("Invalid job id") != std::string::npos;
    if (said.code != 0 && !is_long_gone) return std::nullopt;
    for (auto& job : read_queue(said.out)) jobs.push_back(std::move(job));
  }
  return jobs;
}

namespace {

/// A line of sacct's answer: a job's attempt, or a step of one.
struct AccountLine {
  std::string id;
  std::string state;
  double elapsed = 0;
  double processors = 0;
  double memory = 0;
  double energy = 0;
  std::string resources;
  std::string exit;
  std::string nodes;

  std::string job() const { return id.substr(0, id.find('.')); }
  bool is_step() const { return id.find('.') != std::string::npos; }
};

constexpr const char* account_format =
    "--format=JobID,State,ElapsedRaw,CPUTimeRAW,MaxRSS,ConsumedEnergyRaw,AllocTRES,ExitCode,"
    "NodeList";

/// No value for a line of another form.
std::optional<AccountLine> account_line(const std::string& line) {
  auto cell = pieces_of(line, '|');
  if (cell.size() < 7) return std::nullopt;
  cell.resize(9);
  return AccountLine{cell[0],
                     cell[1],
                     number_of(cell[2]),
                     number_of(cell[3]),
                     bytes_of(cell[4]),
                     number_of(cell[5]),
                     cell[6],
                     cell[7],
                     cell[8]};
}

std::vector<AccountLine> account_lines(const std::string& text) {
  std::vector<AccountLine> lines;
  for (const auto& line : lines_of(text))
    if (auto one = account_line(line)) lines.push_back(std::move(*one));
  return lines;
}

/// "CANCELLED by 1000": the user's name.
std::string canceller_in(const std::string& state) {
  const std::string_view start = "CANCELLED by ";
  if (!state.starts_with(start)) return "";
  const auto number = state.substr(start.size());
  const auto* user = ::getpwuid(static_cast<uid_t>(std::strtoul(number.c_str(), nullptr, 10)));
  return user ? user->pw_name : "user " + number;
}

/// "12_[3-5%1]", the elements that never began, as they are asked for.
std::vector<std::string> jobs_named(const std::string& id) {
  const auto open = id.find('[');
  if (open == std::string::npos || !id.ends_with(']')) return {id};
  std::vector<std::string> jobs;
  for (const auto element : config::array_elements(id.substr(open + 1, id.size() - open - 2)))
    jobs.push_back(id.substr(0, open) + std::to_string(element));
  return jobs;
}

}  // namespace

std::optional<nlohmann::ordered_json> read_accounting(const std::string& text) {
  double elapsed = 0;
  double processors = 0;
  double gpus = 0;
  double memory = 0;
  double energy = 0;
  std::string state;
  bool is_over = false;
  for (const auto& line : account_lines(text)) {
    memory = std::max(memory, line.memory);
    // what it was allocated is the job's; energy is metered by the steps of srun
    if (line.is_step()) {
      if (std::isdigit(static_cast<unsigned char>(line.id.back()))) energy += line.energy;
      continue;
    }
    state = line.state.substr(0, line.state.find(' '));
    is_over = has_ended(state);
    elapsed += line.elapsed;
    processors += line.processors;
    gpus += line.elapsed * gpus_of(line.resources);
  }
  if (!is_over) return std::nullopt;
  nlohmann::ordered_json accounting{
      {"state", state}, {"elapsed_seconds", elapsed}, {"cpu_seconds", processors}};
  if (gpus > 0) accounting["gpu_seconds"] = gpus;
  if (memory > 0) accounting["memory_bytes"] = memory;
  if (energy > 0) accounting["energy_joules"] = energy;
  return accounting;
}

std::optional<Ending> read_ending(const std::string& text) {
  std::optional<Ending> ending;
  for (const auto& line : account_lines(text)) {
    // the job itself fails with an exit code when a step of it runs out of memory
    if (line.is_step()) {
      if (ending && ending->state == "FAILED" && line.state == "OUT_OF_MEMORY")
        ending->state = line.state;
      continue;
    }
    ending.reset();
    if (!has_ended(line.state)) continue;
    ending =
        Ending{line.state.substr(0, line.state.find(' ')), canceller_in(line.state), line.nodes};
    if (line.nodes == "None assigned") ending->nodes.clear();
    std::sscanf(line.exit.c_str(), "%d:%d", &ending->code, &ending->signal);
  }
  return ending;
}

std::map<std::string, std::string> split_accounts(const std::string& text) {
  std::map<std::string, std::string> accounts;
  std::map<std::string, std::string> not_begun;
  for (const auto& line : lines_of(text)) {
    const auto one = account_line(line);
    if (!one) continue;
    const auto jobs = jobs_named(one->job());
    auto& kept = one->job().ends_with(']') ? not_begun : accounts;
    for (const auto& job : jobs) kept[job] += line + "\n";
  }
  accounts.merge(not_begun);  // an element's own lines are the newer ones
  return accounts;
}

std::map<std::string, std::string> ask_accounts(const std::vector<std::string>& ids) {
  // arrays are asked for as a whole: sacct leaves out elements that never began when they are named
  std::set<std::string> whole;
  for (const auto& id : ids) whole.insert(id.substr(0, id.find('_')));
  std::map<std::string, std::string> accounts;
  for (const auto& list : comma_lists({whole.begin(), whole.end()})) {
    // Without the variable a long list of elements is cut.
    const auto said = run_slurm({"env", "SLURM_BITSTR_LEN=0", "sacct", "--noheader", "--parsable2",
                                 "--duplicates", "--jobs=" + list, account_format});
    if (said.code == 0) accounts.merge(split_accounts(said.out));
  }
  return accounts;
}

}  // namespace attune::slurm
