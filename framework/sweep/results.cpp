#include "sweep/results.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/names.hpp"

namespace attune::sweep {
namespace {

/// The keys that trials differ in, in the order they first come.
std::vector<std::string> keys_of(const Sweep& sweep) {
  std::vector<std::string> keys;
  for (const auto& trial : sweep.trials)
    for (const auto& assignment : trial.values)
      if (std::find(keys.begin(), keys.end(), assignment.key) == keys.end()) keys.push_back(assignment.key);
  return keys;
}

std::string value_of(const Trial& trial, const std::string& key) {
  for (const auto& assignment : trial.values)
    if (assignment.key == key) {
      auto value = assignment.value;
      if (value.starts_with('"')) value = value.substr(1, value.size() - 2);
      return value;
    }
  return "-";
}

std::string number(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "-"; }

}  // namespace

std::vector<Result> read_results(const Sweep& sweep) {
  std::vector<Result> results;
  std::vector<std::string> jobs;
  for (const auto& trial : sweep.trials) {
    results.push_back({&trial, slurm::read_progress(sweep.options.directory() / trial.name), "", {}});
    auto& progress = results.back().progress;
    if (!progress.is_finished() && !progress.jobs.empty()) jobs.push_back(progress.jobs.back());
    if (const auto found = progress.evaluation.find(sweep.options.metric); found != progress.evaluation.end() && std::isfinite(found->second))
      results.back().metric = found->second;
  }
  const auto queue = slurm::ask_queue(jobs).value_or(std::vector<slurm::QueuedJob>{});
  for (auto& result : results) {
    result.state = slurm::state_of(result.progress, queue);
    if (result.state == "done" && result.progress.note.starts_with("pruned")) result.state = "pruned";
  }
  return results;
}

void sort_by_metric(std::vector<Result>& results, bool rises) {
  std::stable_sort(results.begin(), results.end(), [&](const Result& a, const Result& b) {
    if (!a.metric || !b.metric) return a.metric.has_value() > b.metric.has_value();
    return rises ? *a.metric > *b.metric : *a.metric < *b.metric;
  });
}

Table result_table(const Sweep& sweep, const std::vector<Result>& results) {
  const auto keys = keys_of(sweep);
  Table table{keys};
  for (const auto& column : {std::string("state"), std::string("steps"), std::string("seconds"), sweep.options.metric, std::string("trial")}) table[0].push_back(column);
  for (const auto& result : results) {
    std::vector<std::string> row;
    for (const auto& key : keys) row.push_back(value_of(*result.trial, key));
    row.insert(row.end(), {result.state, std::to_string(result.progress.step), fmt::format("{:.0f}", result.progress.seconds), number(result.metric), result.trial->name});
    table.push_back(std::move(row));
  }
  return table;
}

Table setting_table(const Sweep& sweep, const std::vector<Result>& results) {
  auto keys = keys_of(sweep);
  std::erase(keys, "seed");
  std::map<std::vector<std::string>, std::vector<double>> settings;
  for (const auto& result : results) {
    if (result.state != "done" || !result.metric) continue;
    std::vector<std::string> row;
    for (const auto& key : keys) row.push_back(value_of(*result.trial, key));
    settings[row].push_back(*result.metric);
  }
  std::vector<std::pair<double, std::vector<std::string>>> rows;
  for (const auto& [setting, values] : settings) {
    double sum = 0;
    for (const double value : values) sum += value;
    const double mean = sum / static_cast<double>(values.size());
    auto row = setting;
    row.insert(row.end(), {std::to_string(values.size()), number(mean), number(*std::min_element(values.begin(), values.end())), number(*std::max_element(values.begin(), values.end()))});
    rows.emplace_back(sweep.options.rises() ? -mean : mean, std::move(row));
  }
  std::sort(rows.begin(), rows.end());
  Table table{keys};
  for (const auto& column : {std::string("seeds"), "mean " + sweep.options.metric, std::string("smallest"), std::string("largest")}) table[0].push_back(column);
  for (auto& [mean, row] : rows) table.push_back(std::move(row));
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
  return fmt::format("{} trial{}: {}", results.size(), results.size() == 1 ? "" : "s", joined(parts));
}

bool hours_are_spent(const Sweep& sweep) {
  if (sweep.options.hours == 0) return false;
  double seconds = 0;
  for (const auto& trial : sweep.trials) seconds += slurm::read_progress(sweep.options.directory() / trial.name).seconds;
  return seconds >= 3600 * sweep.options.hours;
}

}  // namespace attune::sweep
