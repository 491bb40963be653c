// evaluation.json: the latest evaluation of a run, for the base model and the tuned model.
#pragma once
#include <attune/metric.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace attune::run_directory {

struct Evaluation {
  std::string split;
  std::int64_t samples = 0;
  // by metric name
  std::map<std::string, double> base;
  std::map<std::string, double> tuned;
  std::vector<Metric> declared;
};

std::string evaluation_text(const Evaluation& evaluation);
void write_evaluation(const std::filesystem::path& run, const Evaluation& evaluation);

/// Reads evaluation.json. JSON null becomes NaN; it represents NaN and infinity. Error naming the
/// file if it is missing, damaged or of a newer version.
Evaluation read_evaluation(const std::filesystem::path& run);

}  // namespace attune::run_directory
