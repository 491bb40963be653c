// The schema of a line in metrics.jsonl, for writing and reading.
#pragma once
#include <attune/callback.hpp>

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::run_directory {

/// Content of a line. A NaN that was read represents NaN or infinity, which JSON lacks. Absent
/// members are not in the line.
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

  /// The line with its line feed.
  std::string text() const;
};

/// Whether the log records this event.
bool is_logged(Event event);

/// The line for an event at the current time.
MetricsLine line_of(Event event, const Run& run);

/// Absent if the object is not a valid line: no event, no step, or a value of another type. Error
/// if it is of a newer version.
std::optional<MetricsLine> parse_line(const nlohmann::json& object);

}  // namespace attune::run_directory
