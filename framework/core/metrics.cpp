#include <attune/callback.hpp>
#include <attune/error.hpp>

#include <map>

#include "core/names.hpp"

namespace attune {
namespace {

/// What evaluate() measures, and which way is better.
const std::map<std::string, bool>& directions() {
  static const std::map<std::string, bool> larger_is_better{{"accuracy", true}, {"f1", true}, {"loss", false}, {"pearson", true}, {"perplexity", false}};
  return larger_is_better;
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const auto names = [] {
    std::vector<std::string> all;
    for (const auto& [name, larger] : directions()) all.push_back(name);
    return all;
  }();
  return names;
}

bool larger_is_better(const std::string& metric) {
  const auto found = directions().find(metric);
  if (found == directions().end()) fail("there is no metric '{}'; choose one of {}", metric, joined(metric_names()));
  return found->second;
}

}  // namespace attune
