#include "run_directory/evaluation.hpp"

#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "run_directory/places.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
namespace {

std::map<std::string, double> values_of(const nlohmann::json& object) {
  std::map<std::string, double> values;
  for (const auto& [name, value] : object.items()) values[name] = number_of(value);
  return values;
}

}  // namespace

std::string evaluation_text(const Evaluation& evaluation) {
  nlohmann::ordered_json json;
  add_format(json, evaluation_format);
  json["split"] = evaluation.split;
  json["samples"] = evaluation.samples;
  json["base"] = evaluation.base;
  json["tuned"] = evaluation.tuned;
  json["metrics"] = nlohmann::ordered_json::parse(metrics_to_json(evaluation.declared));
  return json.dump(2) + "\n";
}

void write_evaluation(const fs::path& run, const Evaluation& evaluation) {
  write_text(evaluation_file(run), evaluation_text(evaluation));
}

Evaluation read_evaluation(const fs::path& run) {
  const auto file = evaluation_file(run);
  const auto json = parse_object(read_text(file), evaluation_format, file.string());
  try {
    Evaluation evaluation{json.at("split"),
                          json.at("samples"),
                          values_of(json.at("base")),
                          values_of(json.at("tuned")),
                          {}};
    evaluation.declared = metrics_of_json(json.value("metrics", nlohmann::json::object()).dump());
    return evaluation;
  } catch (const nlohmann::json::exception& error) {
    fail("{} is damaged ({})", file.string(), error.what());
  }
}

}  // namespace attune::run_directory
