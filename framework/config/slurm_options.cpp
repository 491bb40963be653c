#include "config/slurm_options.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>

#include "config/document.hpp"
#include "config/run_config.hpp"

namespace attune::config {

namespace {
constexpr const char* element_pattern = R"(\$(SLURM_ARRAY_TASK_ID\b|\{SLURM_ARRAY_TASK_ID\}))";
}

void SlurmOptions::describe(Schema<SlurmOptions>& s) {
  s.key("nodes", &SlurmOptions::nodes, "nodes of the job").at_least(1);
  s.key("tasks_per_node", &SlurmOptions::tasks_per_node, "ranks on each node").at_least(1);
  s.key("gpus_per_node", &SlurmOptions::gpus_per_node, "GPUs of each node, one for each rank there").at_least(0);
  s.key("cpus_per_task", &SlurmOptions::cpus_per_task, "processors of a rank, and threads it computes with").at_least(1);
  s.key("memory", &SlurmOptions::memory, "of a node, such as \"64G\"; empty: the partition's default");
  s.key("time", &SlurmOptions::time, "limit of one attempt: minutes, [days-]hours:minutes:seconds; empty: the partition's default");
  s.key("partition", &SlurmOptions::partition, "empty: the cluster's default");
  s.key("account", &SlurmOptions::account, "to charge; empty: your default");
  s.key("qos", &SlurmOptions::qos, "quality of service");
  s.key("constraint", &SlurmOptions::constraint, "features that the nodes must have");
  s.key("reservation", &SlurmOptions::reservation, "to run in");
  s.key("dependency", &SlurmOptions::dependency, "jobs to wait for, such as \"afterok:123\"");
  s.key("mail_type", &SlurmOptions::mail_type, "when to write, such as \"END,FAIL\"");
  s.key("mail_user", &SlurmOptions::mail_user, "to whom");
  s.key("array", &SlurmOptions::array, "a job array, as sbatch has it: \"0-9%3\", \"1,3,5-20:5\"; every element is a run of its own, with its number behind the name; empty: one run");
  s.key("each", &SlurmOptions::each, "what every element of the array sets, with its number: { \"dataset.path\" = \"data/part-$SLURM_ARRAY_TASK_ID.h5\" }");
  s.key("options", &SlurmOptions::options, "any other option of sbatch, as it is: { exclusive = \"\", switches = \"1\" }");
  s.key("launcher", &SlurmOptions::launcher, "starts the ranks; srun survives preemption, mpirun needs no PMIx in Slurm").choices({"srun", "mpirun"});
  s.key("mpi", &SlurmOptions::mpi, "of srun --mpi; `srun --mpi=list` names what there is");
  s.key("modules", &SlurmOptions::modules, "to load, in this order");
  s.key("environment", &SlurmOptions::environment, "variables to set");
  s.key("lines", &SlurmOptions::lines, "further lines of the job script, before the ranks start");
  s.key("signal", &SlurmOptions::signal, "seconds before the time limit at which the run is told to save; one step and a checkpoint must fit in half a minute less").at_least(1);
  s.key("restarts", &SlurmOptions::restarts, "how often the job may go back into the queue").at_least(0);
  s.key("stalled", &SlurmOptions::stalled, "attempts in a row without a newer checkpoint after which it no longer does").at_least(1);
  s.key("retries", &SlurmOptions::retries, "how often a run that failed, for another reason than a mistake in its run file, starts again").at_least(0);
}

std::vector<std::string> SlurmOptions::overrides_of(std::int64_t element) const {
  std::vector<std::string> overrides;
  for (const auto& [key, value] : each) overrides.push_back(key + "=" + std::regex_replace(value, std::regex(element_pattern), std::to_string(element)));
  return overrides;
}

std::vector<std::int64_t> array_elements(const std::string& text) {
  static const std::regex form(R"(([0-9,:-]+)(%[1-9]\d*)?)"), range(R"((\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?)");  // Slurm's largest number has seven digits
  std::smatch whole, part;
  if (!std::regex_match(text, whole, form)) return {};
  std::set<std::int64_t> elements;
  std::istringstream ranges(whole[1]);
  for (std::string one; std::getline(ranges, one, ',');) {
    if (!std::regex_match(one, part, range)) return {};
    const auto first = std::stoll(part[1]), last = part[2].matched ? std::stoll(part[2]) : first, step = part[3].matched ? std::stoll(part[3]) : 1;
    if (last < first || step == 0) return {};
    for (auto element = first; element <= last; element += step) elements.insert(element);
  }
  return {elements.begin(), elements.end()};
}

namespace {

/// The texts of both; the same again counts once.
void put_before(const std::vector<std::string>& first, std::vector<std::string>& all) {
  auto both = first;
  for (auto& text : all)
    if (std::find(both.begin(), both.end(), text) == both.end()) both.push_back(std::move(text));
  all = std::move(both);
}

const toml::source_region& place_of(const toml::table& table, std::string_view key) { return (table.contains(key) ? *table.get(key) : table).source(); }

void check_array(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  static const std::regex element(element_pattern);
  if (!options.array.empty() && array_elements(options.array).empty())
    problems.add(place_of(table, "array"), fmt::format("'array' is '{}', which is no array: write numbers and ranges, such as \"0-9\", \"0-9%3\" (three at a time) or \"1,3,5-20:5\"", options.array));
  if (!table.contains("each")) return;
  const auto& where = place_of(table, "each");
  if (options.array.empty()) problems.add(where, "'each' is for the elements of an 'array', which is not given");
  for (const auto& [key, value] : options.each)
    if (key == "name" || key == "output" || key.starts_with("slurm")) problems.add(where, fmt::format("'{}' in 'each': all elements have one job script, and the run's name with their number behind it", key));
  if (std::none_of(options.each.begin(), options.each.end(), [](const auto& one) { return std::regex_search(one.second, element); }))
    problems.add(where, "'each' sets the same for every element: put $SLURM_ARRAY_TASK_ID, its number, into a value");
}

void check_forms(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  static const std::regex memory(R"(\d+[KMGT]?)"), variable("[A-Za-z_][A-Za-z0-9_]*"), option("[a-z][a-z-]*");
  if (!options.time.empty() && !seconds_of(options.time))
    problems.add(place_of(table, "time"), fmt::format("'time' is '{}', which is no time: write minutes, minutes:seconds, hours:minutes:seconds or days-hours:minutes:seconds", options.time));
  if (!options.memory.empty() && !std::regex_match(options.memory, memory))
    problems.add(place_of(table, "memory"), fmt::format("'memory' is '{}': write a number with K, M, G or T behind it, such as \"64G\"", options.memory));
  for (const auto& [name, value] : options.environment)
    if (!std::regex_match(name, variable)) problems.add(place_of(table, "environment"), fmt::format("'{}' cannot be the name of a variable", name));
  for (const auto& [name, value] : options.options)
    if (!std::regex_match(name, option)) problems.add(place_of(table, "options"), fmt::format("'{}' is no long option of sbatch: write it without dashes before it", name));
  check_array(table, options, problems);
  // Every value is one line of the script, or part of one.
  for (const auto& setting : settings(table, describe<SlurmOptions>(), &options))
    if (setting.name != "lines" && setting.value.find("\\n") != std::string::npos) problems.add(place_of(table, setting.name), fmt::format("'{}' must stand on one line", setting.name));
}

void check_contradictions(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  if (options.gpus_per_node > 0 && options.tasks_per_node != options.gpus_per_node)
    problems.add(place_of(table, table.contains("tasks_per_node") ? "tasks_per_node" : "gpus_per_node"),
                 fmt::format("{} ranks and {} GPUs on a node: every rank computes on one GPU, so set tasks_per_node = {}", options.tasks_per_node, options.gpus_per_node, options.gpus_per_node));
  for (const auto& [name, value] : options.options)
    for (const auto& [theirs, ours] : {std::pair{"nodes", "nodes"}, {"ntasks", "nodes and tasks_per_node"}, {"ntasks-per-node", "tasks_per_node"}, {"cpus-per-task", "cpus_per_task"}, {"gpus-per-node", "gpus_per_node"},
                                       {"mem", "memory"}, {"time", "time"}, {"signal", "signal"}, {"partition", "partition"}, {"account", "account"}, {"qos", "qos"}, {"array", "array"}})
      if (name == theirs) problems.add(place_of(table, "options"), fmt::format("'{}' stands in 'options', where Attune does not see it: use {} of [slurm]", name, ours));
}

}  // namespace

void bind_slurm(const toml::table& slurm, SlurmOptions& options, Problems& problems) {
  const auto before = options;
  bind_options(slurm, describe<SlurmOptions>(), &options, problems);
  put_before(before.modules, options.modules);
  put_before(before.lines, options.lines);
  options.options.insert(before.options.begin(), before.options.end());
  options.environment.insert(before.environment.begin(), before.environment.end());
  check_forms(slurm, options, problems);
  check_contradictions(slurm, options, problems);
}

}  // namespace attune::config
