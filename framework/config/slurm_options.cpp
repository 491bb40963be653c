#include "config/slurm_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <set>
#include <span>
#include <sstream>
#include <string_view>

#include "config/document.hpp"
#include "config/run_config.hpp"

namespace attune::config {

namespace {
constexpr const char* element_pattern = R"(\$(SLURM_ARRAY_TASK_ID\b|\{SLURM_ARRAY_TASK_ID\}))";
}

void SlurmOptions::describe(Schema<SlurmOptions>& s) {
  s.key("nodes", &SlurmOptions::nodes, "number of nodes of the job").at_least(1);
  s.key("tasks_per_node", &SlurmOptions::tasks_per_node, "ranks per node").at_least(1);
  s.key("gpus_per_node", &SlurmOptions::gpus_per_node, "GPUs per node; each rank uses one")
      .at_least(0);
  s.key("gpu_type", &SlurmOptions::gpu_type,
        "type of the GPUs as the cluster names it, such as \"a100\"; empty: any");
  s.key("cpus_per_task", &SlurmOptions::cpus_per_task,
        "CPUs per rank; the rank computes with as many threads")
      .at_least(1);
  s.key("memory", &SlurmOptions::memory,
        "memory per node, such as \"64G\"; empty: the partition's default");
  s.key("time", &SlurmOptions::time,
        "time limit of one attempt: minutes or [days-]hours:minutes:seconds; empty: the "
        "partition's default");
  s.key("partition", &SlurmOptions::partition,
        "partition to submit to; empty: the cluster's default");
  s.key("account", &SlurmOptions::account, "account to charge; empty: your default account");
  s.key("qos", &SlurmOptions::qos, "quality of service (QOS) of the job; empty: your default");
  s.key("constraint", &SlurmOptions::constraint,
        "node features that the job requires; empty: none");
  s.key("reservation", &SlurmOptions::reservation, "reservation to run in; empty: none");
  s.key("dependency", &SlurmOptions::dependency,
        "jobs to wait for, such as \"afterok:123\"; empty: none");
  s.key("mail_type", &SlurmOptions::mail_type,
        "job events that trigger an e-mail, such as \"END,FAIL\"; empty: none");
  s.key("mail_user", &SlurmOptions::mail_user, "recipient of e-mails about the job");
  s.key("array", &SlurmOptions::array,
        "job array in sbatch syntax: \"0-9%3\", \"1,3,5-20:5\"; each element is a separate run "
        "with its index appended to the name; empty: a single run");
  s.key("each", &SlurmOptions::each,
        "settings of each array element, with $SLURM_ARRAY_TASK_ID as its index: { "
        "\"dataset.path\" = \"data/part-$SLURM_ARRAY_TASK_ID.h5\" }");
  s.key("options", &SlurmOptions::options,
        "additional sbatch options, passed through unchanged: { exclusive = \"\", switches = \"1\" "
        "}");
  s.key("srun_options", &SlurmOptions::srun_options,
        "additional options of the srun that starts the ranks; $NAMES are expanded in the job: { "
        "\"cpu-bind\" = \"cores\", \"container-image\" = \"attune.sqsh\" }");
  s.key("launcher", &SlurmOptions::launcher,
        "program that starts the ranks; srun survives preemption, mpirun needs no PMIx support in "
        "Slurm",
        {{"srun", JobLauncher::srun}, {"mpirun", JobLauncher::mpirun}});
  s.key("mpi", &SlurmOptions::mpi,
        "value of srun --mpi; `srun --mpi=list` lists the available ones");
  s.key("modules", &SlurmOptions::modules, "environment modules to load, in this order");
  s.key(
      "environment", &SlurmOptions::environment,
      "environment variables to set; $NAMES are expanded in the job, \\$ is a literal dollar sign");
  s.key("lines", &SlurmOptions::lines,
        "additional lines of the job script, run before the ranks start");
  s.key("signal", &SlurmOptions::signal,
        "grace time in seconds: how long before the time limit the run is signalled to save; one "
        "step plus one checkpoint must take at least 30 s less")
      .at_least(1);
  s.key("restarts", &SlurmOptions::restarts, "maximum number of requeues").at_least(0);
  s.key("stalled", &SlurmOptions::stalled,
        "stop requeueing after this many consecutive attempts without a new checkpoint, or when "
        "more than this many launches have failed")
      .at_least(1);
  s.key("retries", &SlurmOptions::retries,
        "maximum number of restarts after a failure; mistakes in the run file are not retried")
      .at_least(0);
}

std::vector<std::string> SlurmOptions::overrides_of(std::int64_t element) const {
  std::vector<std::string> overrides;
  for (const auto& [key, value] : each)
    overrides.push_back(
        key + "=" +
        std::regex_replace(value, std::regex(element_pattern), std::to_string(element)));
  return overrides;
}

std::vector<std::int64_t> array_elements(const std::string& text) {
  static const std::regex form(R"(([0-9,:-]+)(%[1-9]\d*)?)");
  // Slurm's largest number has seven digits
  static const std::regex range(R"((\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?)");
  std::smatch whole;
  std::smatch part;
  if (!std::regex_match(text, whole, form)) return {};
  std::set<std::int64_t> elements;
  std::istringstream ranges(whole[1]);
  for (std::string one; std::getline(ranges, one, ',');) {
    if (!std::regex_match(one, part, range)) return {};
    const auto first = std::stoll(part[1]);
    const auto last = part[2].matched ? std::stoll(part[2]) : first;
    const auto step = part[3].matched ? std::stoll(part[3]) : 1;
    if (last < first || step == 0) return {};
    for (auto element = first; element <= last; element += step) elements.insert(element);
  }
  return {elements.begin(), elements.end()};
}

std::string array_text(const std::vector<std::int64_t>& elements) {
  std::string text;
  for (std::size_t i = 0; i < elements.size();) {
    auto last = i;
    while (last + 1 < elements.size() && elements[last + 1] == elements[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(elements[i]);
    if (last > i) text += "-" + std::to_string(elements[last]);
    i = last + 1;
  }
  return text;
}

double memory_bytes(const std::string& text) {
  if (text.empty() || !std::isdigit(static_cast<unsigned char>(text[0]))) return 0;
  const auto power = std::string_view("KMGT").find(text.back());
  return std::stod(text) *
         std::pow(1024.0, power == std::string_view::npos ? 2 : static_cast<double>(power) + 1);
}

std::string objection_to_time(const SlurmOptions& options) {
  constexpr double early = 30;  // seconds that Slurm's signal may come before its time
  const auto seconds = seconds_of(options.time);
  if (options.time.empty() || !seconds || *seconds == 0 ||
      *seconds > static_cast<double>(options.signal) + early)
    return "";  // 0: no limit
  return fmt::format(
      "'time' is '{}', but the run is signalled to save {} s before its end ('signal'), or up to "
      "30 s earlier, so it would never train; raise 'time', or lower 'signal'",
      options.time, options.signal);
}

namespace {

/// The texts of both; the same again counts once.
void put_before(const std::vector<std::string>& first, std::vector<std::string>& all) {
  auto both = first;
  for (auto& text : all)
    if (std::find(both.begin(), both.end(), text) == both.end()) both.push_back(std::move(text));
  all = std::move(both);
}

const toml::source_region& place_of(const toml::table& table, std::string_view key) {
  return (table.contains(key) ? *table.get(key) : table).source();
}

void check_array(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  static const std::regex element(element_pattern);
  if (!options.array.empty() && array_elements(options.array).empty())
    problems.add(place_of(table, "array"),
                 fmt::format("'array' is '{}', which is not a job array: write numbers and ranges, "
                             "such as \"0-9\", \"0-9%3\" (three at a time) or \"1,3,5-20:5\"",
                             options.array));
  if (!table.contains("each")) return;
  const auto& where = place_of(table, "each");
  if (options.array.empty()) problems.add(where, "'each' needs 'array', which is not set");
  for (const auto& [key, value] : options.each)
    if (key == "name" || key == "output" || key.starts_with("slurm"))
      problems.add(where, fmt::format("'{}' in 'each': all elements share one job script, and "
                                      "their names are the run's name with their index appended",
                                      key));
  if (std::none_of(options.each.begin(), options.each.end(),
                   [](const auto& one) { return std::regex_search(one.second, element); }))
    problems.add(where,
                 "'each' sets the same values for every element: use the element's index "
                 "$SLURM_ARRAY_TASK_ID in a value");
}

bool has_control(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7F; });
}
bool has_control(const std::vector<std::string>& texts) {
  return std::any_of(texts.begin(), texts.end(),
                     [](const auto& text) { return has_control(text); });
}
bool has_control(const OptionMap& map) {
  return std::any_of(map.begin(), map.end(), [](const auto& one) {
    return has_control(one.first) || has_control(one.second);
  });
}
template <class T>
bool has_control(const T&) {
  return false;
}

/// Every value is one line of the script, or part of one.
void check_lines(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  for (const auto& option : attune::describe<SlurmOptions>().options)
    if (option.name != "lines" &&
        std::visit([](const auto& value) { return has_control(value); }, option.get(&options)))
      problems.add(
          place_of(table, option.name),
          fmt::format("'{}' must be a single line without control characters", option.name));
}

void check_forms(const toml::table& table, const SlurmOptions& options, Problems& problems) {
  static const std::regex memory(R"(\d+[KMGT]?)");
  static const std::regex variable("[A-Za-z_][A-Za-z0-9_]*");
  static const std::regex option("[a-z][a-z0-9-]+");
  if (!options.time.empty() && !seconds_of(options.time))
    problems.add(place_of(table, "time"),
                 fmt::format("'time' is '{}', which is not a time: write minutes, minutes:seconds, "
                             "hours:minutes:seconds or days-hours:minutes:seconds",
                             options.time));
  if (!options.memory.empty() && !std::regex_match(options.memory, memory))
    problems.add(
        place_of(table, "memory"),
        fmt::format("'memory' is '{}': write a number followed by K, M, G or T, such as \"64G\"",
                    options.memory));
  for (const auto& [name, value] : options.environment)
    if (!std::regex_match(name, variable))
      problems.add(place_of(table, "environment"),
                   fmt::format("'{}' is not a valid name of an environment variable", name));
  for (const auto& [name, value] : options.options)
    if (!std::regex_match(name, option))
      problems.add(
          place_of(table, "options"),
          fmt::format(
              "'{}' is not a long option of sbatch: write the long name without leading dashes",
              name));
  for (const auto& [name, value] : options.srun_options)
    if (!std::regex_match(name, option))
      problems.add(
          place_of(table, "srun_options"),
          fmt::format(
              "'{}' is not a long option of srun: write the long name without leading dashes",
              name));
  if (const auto objection = objection_to_time(options); !objection.empty())
    problems.add(place_of(table, table.contains("time") ? "time" : "signal"), objection);
  check_array(table, options, problems);
  check_lines(table, options, problems);
}

/// An option that Attune sets itself, and what to use instead.
using Taken = std::pair<std::string_view, std::string_view>;
constexpr Taken taken_of_sbatch[] = {{"nodes", "nodes"},
                                     {"ntasks", "nodes and tasks_per_node"},
                                     {"ntasks-per-node", "tasks_per_node"},
                                     {"cpus-per-task", "cpus_per_task"},
                                     {"gpus-per-node", "gpus_per_node"},
                                     {"gpus", "gpus_per_node"},
                                     {"gpus-per-task", "gpus_per_node"},
                                     {"gpus-per-socket", "gpus_per_node"},
                                     {"mem", "memory"},
                                     {"time", "time"},
                                     {"signal", "signal"},
                                     {"partition", "partition"},
                                     {"account", "account"},
                                     {"qos", "qos"},
                                     {"constraint", "constraint"},
                                     {"reservation", "reservation"},
                                     {"dependency", "dependency"},
                                     {"mail-type", "mail_type"},
                                     {"mail-user", "mail_user"},
                                     {"array", "array"}};
constexpr Taken taken_of_srun[] = {{"mpi", "mpi"},
                                   {"nodes", "nodes"},
                                   {"ntasks", "nodes and tasks_per_node"},
                                   {"ntasks-per-node", "tasks_per_node"},
                                   {"cpus-per-task", "cpus_per_task"}};

/// Those that take the script, its folder or its log from where Attune has them, and why that
/// contradicts.
constexpr Taken refused_of_sbatch[] = {
    {"chdir",
     "relative paths in the run file are resolved against the folder of `attune submit`: submit "
     "from the folder that you want"},
    {"output", "the log is in the run directory: set 'output' and 'name' in the run file"},
    {"error", "errors are written to the same log in the run directory, in order"},
    {"open-mode", "every attempt appends to the same log"},
    {"job-name", "the job is named after the run: set 'name' in the run file"},
    {"wrap", "the job runs Attune's script: extend it with 'lines'"},
    {"wait", "`attune submit --wait` waits for the job"},
    {"test-only", "`attune submit --print` submits nothing"}};
constexpr Taken refused_of_srun[] = {
    {"output", "the ranks' output goes to the job's log"},
    {"error", "the ranks' output goes to the job's log"},
    {"chdir", "relative paths in the run file are resolved against the folder of `attune submit`"}};

void check_taken(const toml::table& table, const char* key, const OptionMap& options,
                 std::span<const Taken> taken, std::span<const Taken> refused, Problems& problems) {
  for (const auto& [name, value] : options) {
    for (const auto& [theirs, ours] : taken)
      if (name == theirs)
        problems.add(
            place_of(table, key),
            fmt::format("'{}' is set in '{}', which Attune does not interpret: use {} of [slurm]",
                        name, key, ours));
    for (const auto& [theirs, why] : refused)
      if (name == theirs)
        problems.add(place_of(table, key),
                     fmt::format("'{}' in '{}' contradicts the job script: {}", name, key, why));
  }
}

void check_contradictions(const toml::table& table, const SlurmOptions& options,
                          Problems& problems) {
  if (options.gpus_per_node > 0 && options.tasks_per_node != options.gpus_per_node)
    problems.add(
        place_of(table, table.contains("tasks_per_node") ? "tasks_per_node" : "gpus_per_node"),
        fmt::format(
            "{} ranks and {} GPUs per node: each rank uses one GPU, so set tasks_per_node = {}",
            options.tasks_per_node, options.gpus_per_node, options.gpus_per_node));
  if (table.contains("gpu_type") && table.contains("gpus_per_node") && options.gpus_per_node == 0)
    problems.add(place_of(table, "gpu_type"),
                 "'gpu_type' without GPUs: set gpus_per_node and tasks_per_node to the number of "
                 "GPUs of a node");
  check_taken(table, "options", options.options, taken_of_sbatch, refused_of_sbatch, problems);
  check_taken(table, "srun_options", options.srun_options, taken_of_srun, refused_of_srun,
              problems);
  for (const char* resources : {"gres", "tres-per-node", "tres-per-socket", "tres-per-task"}) {
    const auto found = options.options.find(resources);
    if (found != options.options.end() && found->second.find("gpu") != std::string::npos)
      problems.add(place_of(table, "options"),
                   fmt::format("GPUs are set in '{}' of 'options', which Attune does not "
                               "interpret: use gpus_per_node and gpu_type of [slurm]",
                               resources));
  }
  for (const char* other : {"mem-per-cpu", "mem-per-gpu"})
    if (!options.memory.empty() && options.options.contains(other))
      problems.add(
          place_of(table, "options"),
          fmt::format("'{}' in 'options' and 'memory' contradict each other: keep one of them",
                      other));
  if (options.launcher == JobLauncher::mpirun && !options.srun_options.empty())
    problems.add(
        place_of(table, "srun_options"),
        "'srun_options' need launcher = \"srun\", but the launcher is mpirun: remove one of them");
}

}  // namespace

void bind_slurm(const toml::table& slurm, SlurmOptions& options, Problems& problems) {
  const auto before = options;
  bind_options(slurm, describe<SlurmOptions>(), &options, problems);
  put_before(before.modules, options.modules);
  put_before(before.lines, options.lines);
  options.srun_options.insert(before.srun_options.begin(), before.srun_options.end());
  options.options.insert(before.options.begin(), before.options.end());
  options.environment.insert(before.environment.begin(), before.environment.end());
  check_forms(slurm, options, problems);
  check_contradictions(slurm, options, problems);
}

}  // namespace attune::config
