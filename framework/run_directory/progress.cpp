#include "run_directory/progress.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cmath>

#include "run_directory/jobs.hpp"
#include "run_directory/metrics_reader.hpp"
#include "run_directory/not_finite.hpp"
#include "run_directory/record.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
namespace {

std::map<std::string, double> finite_of(const MetricsLine::Values& values) {
  std::map<std::string, double> finite;
  for (const auto& [name, value] : values)
    if (std::isfinite(value)) finite[name] = value;
  return finite;
}

std::optional<double> finite_of(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? value : std::nullopt;
}

void take_evaluation(Progress& p, const MetricsLine& line) {
  p.evaluated_step = line.step;
  p.evaluation = finite_of(*line.evaluation);
  p.not_finite.clear();
  for (const auto& [name, value] : *line.evaluation)
    if (!std::isfinite(value)) p.not_finite.push_back(name);
}

void take_steps(Progress& p, const MetricsLine& first, const MetricsLine& last) {
  p.step = last.step;
  p.loss = last.loss;
  p.tokens_per_second = finite_of(last.tokens_per_second);
  p.scalars = finite_of(last.scalars);
  const auto steps = last.step - first.step;
  const double seconds = last.seconds - first.seconds;
  if (steps > 0 && std::isfinite(seconds))
    p.seconds_per_step = seconds / static_cast<double>(steps);
}

void take_lines(Progress& p, const std::vector<MetricsLine>& lines) {
  const MetricsLine* first = nullptr;
  const MetricsLine* last = nullptr;
  for (const auto& line : lines) {
    p.step = std::max(p.step, line.step);
    p.seconds = std::max(p.seconds, finite_of(std::optional(line.seconds)).value_or(0));
    p.steps = std::max(p.steps, line.steps.value_or(0));
    if (is_evaluation(line)) take_evaluation(p, line);
    if (line.event != name(Event::step_end)) continue;
    if (!first || line.step < first->step) first = &line;
    last = &line;
  }
  if (last) take_steps(p, *first, *last);
}

void add_problem(Progress& p, const std::string& problem) {
  if (!problem.empty()) p.problem += (p.problem.empty() ? "" : "; ") + problem;
}

void read_log(Progress& p, const fs::path& run) {
  const auto log = read_metrics(run);
  take_lines(p, log.newest);
  if (log.first) {
    if (p.steps == 0) p.steps = log.first->steps.value_or(0);
    p.trainable_parameters = log.first->trainable_parameters.value_or(0);
    p.declared = log.first->declared.value_or(std::vector<Metric>{});
  }
  add_problem(p, log.damage);
}

void read_history(Progress& p, const fs::path& run) {
  const auto record = read_record(run);
  if (!record) return;
  for (const auto& entry : record->history) {
    p.last = entry.what;
    p.note = entry.note;
    p.starts += p.last == "started" || p.last == "resumed";
  }
  p.run_file = record->run_file;
  p.memory = record->memory;
  const auto& job = record->slurm_job;
  if (!job.empty() && std::ranges::count(p.jobs, job) == 0) p.jobs.push_back(job);
}

void read_divergence(Progress& p, const fs::path& run) {
  const auto newest = newest_not_finite(run);
  p.diverged = !p.is_finished() && newest.step > p.step;
  add_problem(p, newest.damage);
}

void read_submissions(Progress& p, const fs::path& run) {
  auto list = read_jobs(run);
  p.jobs = std::move(list.ids);
  add_problem(p, list.problem);
}

/// Does what may fail of one file, so that the others are read all the same.
template <class Read>
void read_part(Progress& p, const Read& read) {
  try {
    read();
  } catch (const fs::filesystem_error& error) {
    add_problem(p, fmt::format("{} cannot be read ({})", error.path1().filename().string(),
                               error.code().message()));
  } catch (const std::exception& error) {
    add_problem(p, error.what());
  }
}

}  // namespace

Progress read_progress(const fs::path& run) {
  Progress p;
  p.directory = run;
  std::error_code hidden;
  const bool is_there = fs::exists(run, hidden);
  if (is_there || hidden) fs::directory_iterator(run, hidden);
  if (hidden) {
    p.problem = fmt::format("{} cannot be read ({})", run.filename().string(), hidden.message());
    return p;
  }
  read_part(p, [&] { read_submissions(p, run); });
  read_part(p, [&] { read_history(p, run); });
  read_part(p, [&] { read_log(p, run); });
  read_part(p, [&] { read_divergence(p, run); });
  read_part(p, [&] { p.holder = holder_of(run); });
  return p;
}

Progress read_whole_progress(const fs::path& run) {
  auto p = read_progress(run);
  if (p.evaluated_step) return p;
  read_part(p, [&] {
    const auto newest = find_newest_evaluation(run);
    if (newest.line) take_evaluation(p, *newest.line);
    // else the end of the log has told of its own
    if (p.problem.empty()) add_problem(p, newest.damage);
  });
  return p;
}

bool is_finished(const fs::path& run) {
  try {
    const auto record = read_record(run);
    return record && !record->history.empty() && record->history.back().what == "finished";
  } catch (const Error& error) {
    fail("{}: the state of this run is unknown: {}", run.string(), error.what());
  }
}

void check_can_go_on(const fs::path& run) {
  earlier_record(run);
  check_metrics_version(run);
}

}  // namespace attune::run_directory
