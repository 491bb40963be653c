// Reader for metrics.jsonl: during a run, after a crash, and for files of earlier versions.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "run_directory/metrics_line.hpp"

namespace attune::run_directory {

struct MetricsLines {
  std::optional<MetricsLine> first;  // first line of the log: run_begin
  // the last lines, some hundred, in order; in a short log they include `first`
  std::vector<MetricsLine> newest;
  // a sentence about skipped lines; "" if there were none in the part that was read
  std::string damage;
};

/// Reads the start and the end of the log. Error if it cannot be read or is of a newer version.
MetricsLines read_metrics(const std::filesystem::path& run);

struct NewestEvaluation {
  std::optional<MetricsLine> line;
  std::string damage;  // a sentence about skipped evaluation lines; "" if there are none
};
/// The latest evaluation of the tuned model. Searches the whole log.
NewestEvaluation find_newest_evaluation(const std::filesystem::path& run);

/// Whether the line has a new evaluation of the tuned model. The one of run_begin is the base's, or
/// repeats an earlier one.
bool is_evaluation(const MetricsLine& line);

/// Error if the log was written by an Attune with a newer format version.
void check_metrics_version(const std::filesystem::path& run);

}  // namespace attune::run_directory
