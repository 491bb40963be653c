// optimizers_parity REQUEST.json: updates given parameters by given gradients, and writes the
// parameters; writes learning rates, too. For optimizers_parity.py to compare.
#include <attune/error.hpp>
#include <attune/registry.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "registry/loader.hpp"
#include "train/schedule.hpp"
#include "train/updater.hpp"
#include "weights/safetensors.hpp"

namespace {

using attune::NamedTensor;
using nlohmann::json;

attune::OptionValue option_value(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.get<std::string>();
}

template <class Interface>
std::shared_ptr<Interface> build(const attune::Registry& registry, attune::Kind kind,
                                 const json& request) {
  const auto& entry = registry.find(kind, request.at("plugin"));
  const auto options = entry.defaults();
  for (const auto& [name, value] : request.at("options").items()) {
    const auto option = std::ranges::find(entry.schema.options, name, &attune::Option::name);
    if (option == entry.schema.options.end())
      attune::fail("'{}' has no option '{}'", entry.name, name);
    option->set(options.get(), option_value(value));
  }
  return std::static_pointer_cast<Interface>(entry.build(options.get(), nullptr));
}

/// The parameters after the steps of case["written"].
std::vector<NamedTensor> trained(const attune::Registry& registry, attune::WeightSource& input,
                                 const json& one) {
  const auto dtype = one.at("dtype") == "bfloat16" ? at::kBFloat16 : at::kFloat;
  std::vector<attune::ParameterGroup> groups;
  for (const auto& given : one.at("groups")) {
    attune::ParameterGroup group;
    group.learning_rate_scale = given.at("learning_rate_scale");
    group.weight_decay_scale = given.at("weight_decay_scale");
    for (const std::string name : given.at("parameters"))
      group.parameters.emplace_back(name, input.read(name).clone().to(dtype).requires_grad_());
    groups.push_back(std::move(group));
  }
  attune::train::Updater updater(build<attune::Optimizer>(registry, attune::Kind::optimizer, one),
                                 groups, one.at("weight_decay"), {"block."});
  std::vector<NamedTensor> results;
  const std::vector<double> rates = one.at("learning_rates");
  const std::vector<std::size_t> written = one.at("written");
  for (std::size_t step = 0; step < rates.size(); ++step) {
    for (auto [name, parameter] : updater.parameters())
      parameter.mutable_grad() =
          input.read("gradient." + std::to_string(step) + "." + name).clone().to(dtype);
    updater.step(updater.gradients(), rates[step], one.at("gradient_scale"));
    if (std::ranges::count(written, step) == 0) continue;
    for (const auto& [name, parameter] : updater.parameters())
      results.emplace_back(
          one.at("name").get<std::string>() + "/" + std::to_string(step) + "/" + name,
          parameter.detach().to(at::kFloat, false, true));
  }
  return results;
}

json learning_rates(const attune::Registry& registry, const json& one) {
  attune::config::TrainOptions options;
  options.learning_rate = one.at("learning_rate");
  options.warmup = one.at("warmup");
  const auto schedule = build<attune::Schedule>(registry, attune::Kind::schedule, one);
  const std::int64_t steps = one.at("steps");
  json rates = json::array();
  for (std::int64_t step = 0; step < steps; ++step)
    rates.push_back(attune::train::learning_rate_at(step, steps, options, *schedule));
  return rates;
}

void run(const json& request) {
  attune::Registry registry;
  attune::load_plugins(registry, {request.at("plugins").get<std::string>()});
  const auto input = attune::open_safetensors(request.at("input").get<std::string>());
  const std::filesystem::path output = request.at("output").get<std::string>();
  std::vector<NamedTensor> results;
  for (const auto& one : request.at("optimizers"))
    for (auto& result : trained(registry, *input, one)) results.push_back(std::move(result));
  attune::write_safetensors(output / "parameters.safetensors", results);
  json rates = json::array();
  for (const auto& one : request.at("schedules")) rates.push_back(learning_rates(registry, one));
  attune::write_text(output / "rates.json", rates.dump());
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 2) attune::fail("usage: optimizers_parity REQUEST.json");
    run(json::parse(attune::read_text(arguments[1])));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optimizers_parity: %s\n", error.what());
    return 1;
  }
}
