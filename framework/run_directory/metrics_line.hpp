// A line of metrics.jsonl: its schema, written and read in one place.
#pragma once
#include <attune/callback.hpp>

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::run_directory {

/// What a line holds. NaN, read, stands for NaN and infinity, which JSON does not have. Absent: the
/// line does not say.
struct MetricsLine {
  using Values = std::map<std::string, double>;
  std::string event;
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  double seconds = 0;
  double unix_seconds = 0;

  // run_begin
  std::optional<std::int64_t> steps;
  std::optional<std::int64_t> parameters;
  std::optional<std::int64_t> trainable_parameters;
  std::optional<std::vector<Metric>> declared;
  // step_end
  std::optional<double> loss;
  std::optional<double> learning_rate;
  std::optional<double> grad_norm;
  std::optional<double> tokens_per_second;
  std::optional<std::int64_t> tokens;
  Values scalars;
  std::int64_t skipped_steps = 0;
  // step_end and run_end
  std::int64_t samples_without_target = 0;
  // checkpoint_saved
  std::optional<std::int64_t> saved_step;
  // run_begin (of the base) and evaluated
  std::optional<Values> evaluation;
  // run_end
  std::string stop_reason;

  /// With its line feed.
  std::string text() const;
};

/// Whether the log has a line for the event.
bool is_logged(Event event);

/// The event of a run, now.
MetricsLine line_of(Event event, const Run& run);

/// Absent when the object is no line: without an event or a step, or with a value of another type.
/// Error when it is of a newer version.
std::optional<MetricsLine> parse_line(const nlohmann::json& object);

}  // namespace attune::run_directory
