// evaluation.json: what the newest evaluation of a run found, of the base model and the tuned one.
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
  // by the names in `declared`
  std::map<std::string, double> base;
  std::map<std::string, double> tuned;
  std::vector<Metric> declared;
};

std::string evaluation_text(const Evaluation& evaluation);
void write_evaluation(const std::filesystem::path& run, const Evaluation& evaluation);

/// NaN stands for what is null: NaN and infinity. Error naming the file when it is not there,
/// damaged or of a newer version.
Evaluation read_evaluation(const std::filesystem::path& run);

}  // namespace attune::run_directory
