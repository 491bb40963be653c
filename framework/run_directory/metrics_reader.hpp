// metrics.jsonl, read: while the run writes it, after a crash, and as earlier versions wrote it.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "run_directory/metrics_line.hpp"

namespace attune::run_directory {

struct MetricsLines {
  std::optional<MetricsLine> first;  // of the log: run_begin
  // in their order, some hundred; `first` is among them in a short log
  std::vector<MetricsLine> newest;
  // a sentence on lines that are left out; "": none of those that were looked at
  std::string damage;
};

/// The beginning and the end of the log. Error when it cannot be read or is of a newer version.
MetricsLines read_metrics(const std::filesystem::path& run);

struct NewestEvaluation {
  std::optional<MetricsLine> line;
  std::string damage;  // a sentence on lines of evaluations that are left out; "": there are none
};
/// The newest evaluation, in the whole log, of what was trained.
NewestEvaluation find_newest_evaluation(const std::filesystem::path& run);

/// Whether the line has one: that of run_begin is the base's, or repeats an earlier one.
bool is_evaluation(const MetricsLine& line);

/// Error when the log was begun by an Attune that writes a newer version.
void check_metrics_version(const std::filesystem::path& run);

}  // namespace attune::run_directory
