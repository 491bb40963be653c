#include "sweep/results.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "core/host.hpp"
#include "core/names.hpp"
#include "run_directory/places.hpp"
#include "slurm/run_state.hpp"

namespace attune::sweep {
using run_directory::Progress;
namespace {

/// The keys that trials differ in, in the order they first come.
std::vector<std::string> keys_of(const Sweep& sweep) {
  std::vector<std::string> keys;
  for (const auto& trial : sweep.trials)
    for (const auto& assignment : trial.values)
      if (std::find(keys.begin(), keys.end(), assignment.key) == keys.end())
        keys.push_back(assignment.key);
  return keys;
}

std::string value_of(const Trial& trial, const std::string& key, const std::string& none = "-") {
  for (const auto& assignment : trial.values)
    if (assignment.key == key) {
      auto value = assignment.value;
      if (value.starts_with('"')) value = value.substr(1, value.size() - 2);
      return value;
    }
  return none;
}

std::string number(const std::optional<double>& value) {
  return value ? fmt::format("{:.4f}", *value) : "-";
}

/// A model whose loss is no number may have an accuracy by chance, and a run may have diverged
/// after its newest evaluation.
std::optional<double> metric_of(const Progress& progress, const std::string& name) {
  const auto is_bad = [&](const std::string& metric) {
    return std::ranges::count(progress.not_finite, metric) > 0;
  };
  if (progress.diverged || is_bad("loss") || is_bad(name)) return {};
  const auto found = progress.evaluation.find(name);
  return found == progress.evaluation.end() ? std::nullopt : std::optional(found->second);
}

/// For full_table: what is no number is "nan", what was not measured is empty.
std::string measured(const Progress& progress, const std::string& name) {
  const auto found = progress.evaluation.find(name);
  if (!progress.evaluated_step && !progress.diverged) return "";
  if (progress.diverged || std::ranges::count(progress.not_finite, name) > 0) return "nan";
  return found == progress.evaluation.end() ? "" : fmt::format("{}", found->second);
}

/// Of all trials, and the one that ranks them.
std::set<std::string> metrics_of(const Sweep& sweep, const std::vector<Result>& results) {
  std::set<std::string> names{sweep.options.metric};
  for (const auto& result : results) {
    for (const auto& [name, value] : result.progress.evaluation) names.insert(name);
    names.insert(result.progress.not_finite.begin(), result.progress.not_finite.end());
  }
  return names;
}

/// Its own, or that of the run file; empty when it has not begun.
std::string seed_of(const Result& result) {
  const auto run_file =
      config::Document::parse_text(result.progress.run_file, run_directory::names::run_file);
  const auto seed = run_file.root["seed"].value<std::int64_t>();
  return value_of(*result.trial, "seed", seed ? std::to_string(*seed) : "");
}

/// "train.steps" and the like, with their values; a list of tables as one value.
std::map<std::string, std::string> flat(const std::string& run_file) {
  std::map<std::string, std::string> values;
  const auto add = [&](const std::string& key, const toml::node& node) {
    std::ostringstream text;
    text << toml::node_view<const toml::node>(node);
    values[key] = text.str();
  };
  for (const auto& [section, node] :
       config::Document::parse_text(run_file, run_directory::names::run_file).root) {
    const std::string name(section.str());
    if (name == "slurm") continue;
    if (const auto* table = node.as_table())
      for (const auto& [key, value] : *table) add(name + "." + std::string(key.str()), value);
    else
      add(name, node);
  }
  return values;
}

std::vector<std::string> differing_keys(const std::string& one, const std::string& other) {
  const auto a = flat(one);
  const auto b = flat(other);
  std::set<std::string> keys;
  for (const auto& [key, value] : a)
    if (const auto found = b.find(key); found == b.end() || found->second != value)
      keys.insert(key);
  for (const auto& [key, value] : b)
    if (!a.contains(key)) keys.insert(key);
  return {keys.begin(), keys.end()};
}

/// A run file that is none is told, and compared with nothing.
void check_run_file(Progress& progress) {
  try {
    config::Document::parse_text(progress.run_file, run_directory::names::run_file);
  } catch (const Error&) {
    progress.run_file.clear();
    const std::string problem = "the run file in its record is damaged";
    progress.problem += progress.problem.empty() ? problem : "; " + problem;
  }
}

}  // namespace

std::vector<Result> read_results(const Sweep& sweep) {
  std::vector<Result> results;
  std::vector<std::string> jobs;
  for (const auto& trial : sweep.trials) {
    results.push_back({&trial,
                       run_directory::read_whole_progress(sweep.options.directory() / trial.name),
                       "",
                       {}});
    auto& progress = results.back().progress;
    check_run_file(progress);
    if (!progress.is_finished() && !progress.jobs.empty()) jobs.push_back(progress.jobs.back());
    results.back().metric = metric_of(progress, sweep.options.metric);
  }
  auto queue = slurm::ask_queue(jobs).value_or(std::vector<slurm::QueuedJob>{});
  // In an allocation that was requeued, an earlier attempt of this job has begun trials that nobody
  // runs now; locks tell which are run.
  std::erase_if(queue,
                [own = slurm_job()](const slurm::QueuedJob& job) { return job.is_called(own); });
  for (auto& result : results) {
    result.state = slurm::state_of(result.progress, queue);
    if (result.state == "done" && result.progress.note.starts_with("pruned"))
      result.state = "pruned";
  }
  return results;
}

Metric ranking_metric(const Sweep& sweep, const std::vector<Result>& results) {
  const auto& name = sweep.options.metric;
  for (const auto& result : results)
    if (const auto* declared = find_metric(result.progress.declared, name)) return *declared;
  const auto known = metrics::all();
  if (const auto* declared = find_metric(known, name)) return *declared;
  const bool has_begun = std::ranges::any_of(
      results, [](const Result& result) { return !result.progress.declared.empty(); });
  if (has_begun)
    fail(
        "{}: no trial measures the metric '{}'; set 'metric' to one that their evaluations "
        "contain, such as 'loss'",
        sweep.file.string(), name);
  return {name};  // nothing to rank yet
}

void sort_by_metric(std::vector<Result>& results, const Metric& metric) {
  const auto group = [](const Result& result) {
    return !result.metric ? 2 : result.state == "failed" ? 1 : 0;
  };
  std::stable_sort(results.begin(), results.end(), [&](const Result& a, const Result& b) {
    if (group(a) != group(b)) return group(a) < group(b);
    if (!a.metric) return false;
    return metric.cost(*a.metric) < metric.cost(*b.metric);
  });
}

void note_changes(std::vector<Result>& results, const Sweep& sweep,
                  const std::vector<std::string>& run_files) {
  for (auto& result : results) {
    if (result.progress.run_file.empty()) continue;
    const auto index = static_cast<std::size_t>(result.trial - sweep.trials.data());
    result.changed = differing_keys(result.progress.run_file, run_files[index]);
  }
}

std::vector<std::string> told_changes(const std::vector<Result>& results, const Sweep& sweep) {
  const auto count =
      std::ranges::count_if(results, [](const Result& result) { return !result.changed.empty(); });
  if (count == 0) return {};
  std::set<std::string> keys;
  for (const auto& result : results) keys.insert(result.changed.begin(), result.changed.end());
  return {fmt::format(
      "{} of {} trials ran with a different version of the run file {}; different values: {}; "
      "remove their directories to run them again, or give the sweep another name",
      count, results.size(), sweep.options.run, joined({keys.begin(), keys.end()}))};
}

std::vector<std::string> told_problems(const std::vector<Result>& results) {
  constexpr std::size_t most = 5;
  std::vector<std::string> told;
  std::size_t others = 0;
  for (const auto& result : results) {
    const auto& problem = result.progress.problem;
    if (problem.empty()) continue;
    if (told.size() < most)
      told.push_back(fmt::format("{}: {}", result.trial->name, problem));
    else
      ++others;
  }
  if (others > 0)
    told.push_back(fmt::format("{} more trial{} damaged files: attune status names them", others,
                               others == 1 ? " has" : "s have"));
  return told;
}

Table result_table(const Sweep& sweep, const std::vector<Result>& results) {
  const auto keys = keys_of(sweep);
  Table table{keys};
  for (const auto& column : {std::string("state"), std::string("steps"), std::string("seconds"),
                             sweep.options.metric, std::string("trial")})
    table[0].push_back(column);
  for (const auto& result : results) {
    std::vector<std::string> row;
    for (const auto& key : keys) row.push_back(value_of(*result.trial, key));
    row.insert(row.end(), {result.state, std::to_string(result.progress.step),
                           fmt::format("{:.0f}", result.progress.seconds), number(result.metric),
                           result.trial->name});
    table.push_back(std::move(row));
  }
  return table;
}

Table full_table(const Sweep& sweep, const std::vector<Result>& results) {
  auto keys = keys_of(sweep);
  std::erase(keys, "seed");
  const auto measured_names = metrics_of(sweep, results);
  Table table{keys};
  auto& head = table[0];
  head.insert(head.end(),
              {"seed", "state", "steps", "seconds", "trainable_parameters", "evaluated_step"});
  head.insert(head.end(), measured_names.begin(), measured_names.end());
  head.insert(head.end(), {"run_file_changes", "trial"});
  for (const auto& result : results) {
    const auto& p = result.progress;
    std::vector<std::string> row;
    for (const auto& key : keys) row.push_back(value_of(*result.trial, key, ""));
    const auto parameters =
        p.trainable_parameters > 0 ? std::to_string(p.trainable_parameters) : "";
    const auto evaluated = p.evaluated_step ? std::to_string(*p.evaluated_step) : "";
    row.insert(row.end(), {seed_of(result), result.state, std::to_string(p.step),
                           fmt::format("{}", p.seconds), parameters, evaluated});
    for (const auto& name : measured_names) row.push_back(measured(p, name));
    row.insert(row.end(), {joined(result.changed, " "), result.trial->name});
    table.push_back(std::move(row));
  }
  return table;
}

Table setting_table(const Sweep& sweep, const std::vector<Result>& results) {
  auto keys = keys_of(sweep);
  std::erase(keys, "seed");
  struct Seeds {
    std::vector<double> values;
    bool one_failed = false;
  };
  std::map<std::vector<std::string>, Seeds> settings;
  for (const auto& result : results) {
    std::vector<std::string> row;
    for (const auto& key : keys) row.push_back(value_of(*result.trial, key));
    if (result.state == "done" && result.metric)
      settings[row].values.push_back(*result.metric);
    else if (result.state == "done" || result.state == "failed")
      settings[row].one_failed = true;
  }
  const auto metric = ranking_metric(sweep, results);
  std::vector<std::tuple<bool, double, std::vector<std::string>>> rows;
  for (const auto& [setting, seeds] : settings) {
    const auto& values = seeds.values;
    if (values.empty()) continue;
    double sum = 0;
    for (const double value : values) sum += value;
    const double mean = sum / static_cast<double>(values.size());
    auto row = setting;
    const auto [smallest, largest] = std::ranges::minmax(values);
    row.insert(row.end(),
               {std::to_string(values.size()), number(mean), number(smallest), number(largest)});
    rows.emplace_back(seeds.one_failed, metric.cost(mean), std::move(row));
  }
  std::sort(rows.begin(), rows.end());
  Table table{keys};
  for (const auto& column : {std::string("seeds"), "mean " + sweep.options.metric,
                             std::string("smallest"), std::string("largest")})
    table[0].push_back(column);
  for (auto& [failed, mean, row] : rows) table.push_back(std::move(row));
  return table;
}

std::string csv(const Table& table) {
  std::string text;
  for (const auto& row : table) {
    std::vector<std::string> cells;
    for (const auto& cell : row) {
      if (cell.find_first_of(",\"\n") == std::string::npos) {
        cells.push_back(cell);
        continue;
      }
      std::string quoted = "\"";
      for (const char c : cell) quoted += c == '"' ? "\"\"" : std::string{c};
      cells.push_back(quoted + "\"");
    }
    text += joined(cells, ",") + "\n";
  }
  return text;
}

std::string summary(const std::vector<Result>& results) {
  std::map<std::string, int> counts;
  for (const auto& result : results) ++counts[result.state];
  std::vector<std::string> parts;
  for (const auto& [state, count] : counts) parts.push_back(fmt::format("{} {}", count, state));
  return fmt::format("{} trial{}: {}", results.size(), results.size() == 1 ? "" : "s",
                     joined(parts));
}

bool hours_are_spent(const Sweep& sweep) {
  if (sweep.options.hours == 0) return false;
  double seconds = 0;
  for (const auto& trial : sweep.trials)
    seconds += run_directory::read_progress(sweep.options.directory() / trial.name).seconds;
  return seconds >= 3600 * sweep.options.hours;
}

}  // namespace attune::sweep
