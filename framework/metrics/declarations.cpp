#include <attune/callback.hpp>
#include <attune/error.hpp>
#include <attune/metric.hpp>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/names.hpp"
#include "metrics/objection.hpp"

namespace attune {
namespace {

class SumAccumulator final : public Accumulator {
 public:
  using Sums = std::function<std::vector<double>(const Measured&)>;
  using Value = std::function<double(const std::vector<double>&)>;
  SumAccumulator(Sums sums, Value value) : sums_of_(std::move(sums)), value_of_(std::move(value)) {}

  void add(const Measured& batch) override { merge(sums_of_(batch)); }
  std::vector<double> state() const override { return sums_; }
  void merge(const std::vector<double>& state) override {
    if (sums_.empty()) sums_.resize(state.size(), 0.0);
    ATTUNE_ASSERT(state.size() == sums_.size(), "{} sums and {}", state.size(), sums_.size());
    for (std::size_t i = 0; i < state.size(); ++i) sums_[i] += state[i];
  }
  double value() const override {
    return sums_.empty() ? std::numeric_limits<double>::quiet_NaN() : value_of_(sums_);
  }

 private:
  Sums sums_of_;
  Value value_of_;
  std::vector<double> sums_;
};

std::vector<std::string> sorted_names(const std::vector<Metric>& metrics) {
  std::vector<std::string> names;
  for (const auto& metric : metrics) names.push_back(metric.name);
  std::ranges::sort(names);
  return names;
}

}  // namespace

MakeAccumulator accumulate_sums(std::function<std::vector<double>(const Measured&)> sums,
                                std::function<double(const std::vector<double>&)> value) {
  return [sums = std::move(sums), value = std::move(value)] {
    return std::make_shared<SumAccumulator>(sums, value);
  };
}

const Metric* find_metric(const std::vector<Metric>& metrics, const std::string& name) {
  const auto found = std::ranges::find(metrics, name, &Metric::name);
  return found == metrics.end() ? nullptr : &*found;
}

std::string metric_names(const std::vector<Metric>& metrics) {
  return joined(sorted_names(metrics));
}

std::string metrics_to_json(const std::vector<Metric>& metrics) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& name : sorted_names(metrics)) {
    const auto& metric = *find_metric(metrics, name);
    json[name] = {{"better", metric.better == Better::larger ? "larger" : "smaller"},
                  {"unit", metric.unit},
                  {"doc", metric.doc}};
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<Metric> metrics_of_json(const std::string& json) {
  std::vector<Metric> metrics;
  const auto all = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  const auto text = [](const nlohmann::json& one, const char* key) {
    const auto found = one.find(key);
    return found != one.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!all.is_object()) return metrics;
  for (const auto& [name, one] : all.items()) {
    if (!one.is_object()) continue;
    const auto better = text(one, "better");
    if (better != "larger" && better != "smaller") continue;
    metrics.push_back({name, better == "larger" ? Better::larger : Better::smaller,
                       text(one, "unit"), text(one, "doc")});
  }
  return metrics;
}

std::string objection_to_metric(const std::string& name, const std::vector<Metric>& metrics) {
  if (find_metric(metrics, name)) return "";
  const auto names = sorted_names(metrics);
  return fmt::format("this run has no metric '{}'; it measures {}{}", name, joined(names),
                     did_you_mean(name, names));
}

const Metric& Run::metric(const std::string& name) const {
  if (const auto* found = find_metric(declared, name)) return *found;
  fail("{}", objection_to_metric(name, declared));
}

}  // namespace attune
