#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <core/names.hpp>
#include <fmt/ranges.h>
#include <fnmatch.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <set>
#include <unordered_map>

namespace attune::nn {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// The first few of a long list, and how many more there are.
std::string some(std::vector<std::string> parts, std::size_t most) {
  const auto more = parts.size() > most ? parts.size() - most : 0;
  parts.resize(parts.size() - more);
  return joined(parts) + (more ? fmt::format(" and {} more", more) : "");
}

/// "a.b.c" -> "a.b.c", "b.c", "c"
void add_endings(const std::string& name, std::set<std::string>& endings) {
  endings.insert(name);
  for (auto dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1))
    endings.insert(name.substr(dot + 1));
}

std::vector<std::pair<std::string, at::Tensor>> parameters_and_buffers(torch::nn::Module& module) {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (const auto& item : module.named_parameters()) all.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) all.emplace_back(item.key(), item.value());
  return all;
}

/// Names of the weights that files hold as [in, out].
std::set<std::string> transposed_weights(torch::nn::Module& module) {
  std::set<std::string> names;
  for (const auto& [name, linear] : linears(module))
    if (linear->is_stored_transposed) names.insert(name + ".weight");
  return names;
}

/// Without a copy where the parameter may have the memory that was read.
void give(at::Tensor& parameter, const at::Tensor& read) {
  if (parameter.device() == read.device()) return parameter.set_data(read);
  const torch::NoGradGuard no_grad;
  parameter.copy_(read);
}

template <class T>
constexpr const char* json_type() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::int64_t>) return "an integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  return "text";
}

template <class T>
bool holds(const nlohmann::json& value) {
  if constexpr (std::is_same_v<T, bool>) return value.is_boolean();
  if constexpr (std::is_same_v<T, std::int64_t>) return value.is_number_integer();
  if constexpr (std::is_same_v<T, double>) return value.is_number();
  if constexpr (std::is_same_v<T, std::string>) return value.is_string();
}

const nlohmann::json* present(const nlohmann::json& config, const std::string& key) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

template <class T>
T checked(const nlohmann::json& value, const std::string& key) {
  if (!holds<T>(value))
    fail(
        "config.json has {} = {} where {} is needed: take the config.json that came with the "
        "weights",
        key, value.dump(), json_type<T>());
  return value.get<T>();
}

/// What a number of config.json may be.
struct Range {
  std::string_view key;  // of all keys that end so
  double low;
  double high;
  bool is_open = false;  // low itself is not in it
};

constexpr double largest_size = 1 << 24;

constexpr Range ranges[] = {
    {"eps", 0, 1},
    {"epsilon", 0, 1},
    {"rope_theta", 1, 1e30, true},
    {"factor", 0, 1e6, true},
    {"max_position_embeddings", 1, largest_size},
    {"beta_fast", 0, 1e6, true},
    {"beta_slow", 0, 1e6, true},
    {"mscale", 0, 1e6},
    {"mscale_all_dim", 0, 1e6},
    {"query_pre_attn_scalar", 0, 1e6, true},
    {"softcapping", 0, 1e6},
    {"max_window_layers", 0, largest_size},
    {"num_key_value_heads", 1, largest_size},
    {"head_dim", 1, largest_size},
    {"pad_token_id", 0, largest_size},
    {"_coefficient", 0, 1e3, true},
    {"depth_divisor", 1, 1e4},
    {"squeeze_expansion_ratio", 0, 1},
};

void check_range(double value, const std::string& key) {
  const auto range =
      std::ranges::find_if(ranges, [&](const Range& one) { return key.ends_with(one.key); });
  if (range == std::end(ranges)) return;
  const bool is_within =
      value <= range->high && (range->is_open ? value > range->low : value >= range->low);
  if (!is_within)
    fail(
        "config.json has {} = {}, where a number {} {} and at most {} is needed: take the "
        "config.json that came with the weights",
        key, value, range->is_open ? "above" : "of at least", range->low, range->high);
}

/// The value as it is meant: of its type, and a number that makes sense under its key.
template <class T>
T read(const nlohmann::json& value, const std::string& key) {
  const T result = checked<T>(value, key);
  if constexpr (std::is_same_v<T, double> || std::is_same_v<T, std::int64_t>)
    check_range(static_cast<double>(result), key);
  return result;
}

}  // namespace

torch::nn::Module& module_at(torch::nn::Module& root, const std::string& name) {
  const auto dot = name.find('.');
  const auto first = name.substr(0, dot);
  const auto children = root.named_children();
  const auto* found = children.find(first);
  auto& child =
      *(found ? *found : root.register_module(first, std::make_shared<torch::nn::Module>()));
  return dot == std::string::npos ? child : module_at(child, name.substr(dot + 1));
}

void load_parameters(torch::nn::Module& module, WeightSource& source, const Rename& rename) {
  std::unordered_map<std::string, const TensorInfo*> stored;
  for (const auto& info : source.tensors()) stored.emplace(info.name, &info);

  struct Wanted {
    at::Tensor tensor;
    std::string name;
    bool is_transposed;
  };
  std::vector<Wanted> wanted;
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  const auto transposed = transposed_weights(module);
  for (auto& [key, tensor] : parameters_and_buffers(module)) {
    const std::string name = rename ? rename(key) : key;
    if (name.empty()) continue;
    const bool is_transposed = transposed.contains(key);
    const auto sizes = (is_transposed ? tensor.t() : tensor).sizes().vec();
    const auto found = stored.find(name);
    if (found == stored.end()) {
      missing.push_back(name);
    } else if (sizes != found->second->shape) {
      misshapen.push_back(fmt::format("{} is {}, not {}", name, shape_text(found->second->shape),
                                      shape_text(sizes)));
    } else {
      wanted.push_back({tensor, name, is_transposed});
    }
  }
  if (!missing.empty() || !misshapen.empty()) {
    std::string what;
    if (!missing.empty())
      what += fmt::format("{} tensors are missing ({})", missing.size(), some(missing, 8));
    if (!misshapen.empty())
      what += fmt::format("{}{} have another shape ({})", what.empty() ? "" : ", ",
                          misshapen.size(), some(misshapen, 8));
    fail(
        "the weights do not match the model's config.json: {}; use config.json and weights of the "
        "same model",
        what);
  }
  for (auto& [tensor, name, is_transposed] : wanted) {
    give(tensor, source.read_as(name, tensor.scalar_type(), is_transposed));
  }
}

std::vector<std::pair<std::string, at::Tensor>> stored_tensors(torch::nn::Module& module) {
  const auto transposed = transposed_weights(module);
  auto tensors = parameters_and_buffers(module);
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.detach();
    if (transposed.contains(name)) tensor = tensor.t();
  }
  return tensors;
}

std::int64_t count_labels(const nlohmann::json& config, const std::vector<std::string>& labels) {
  if (!labels.empty()) return static_cast<std::int64_t>(labels.size());
  const auto* names = present(config, "id2label");
  const std::int64_t named =
      names && names->is_object() && !names->empty() ? static_cast<std::int64_t>(names->size()) : 2;
  const auto count = config_value<std::int64_t>(config, "num_labels", named);
  if (count < 1) fail("config.json has num_labels {}: a classifier needs at least one", count);
  return count;
}

void set_labels(nlohmann::json& config, const std::vector<std::string>& labels) {
  if (labels.empty()) return;
  nlohmann::json names = nlohmann::json::object();
  nlohmann::json numbers = nlohmann::json::object();
  for (std::size_t label = 0; label < labels.size(); ++label) {
    names[std::to_string(label)] = labels[label];
    numbers[labels[label]] = label;
  }
  config["id2label"] = names;
  config["label2id"] = numbers;
  config.erase("num_labels");
}

bool has_tensor(const WeightSource& source, const std::string& name,
                const std::vector<std::int64_t>& shape) {
  return std::ranges::any_of(source.tensors(), [&](const TensorInfo& info) {
    return info.name == name && info.shape == shape;
  });
}

template <class T>
T config_value(const nlohmann::json& config, const std::string& key) {
  const auto* value = present(config, key);
  if (!value) fail("config.json lacks '{}': take the config.json that came with the weights", key);
  return read<T>(*value, key);
}

template <class T>
T config_value(const nlohmann::json& config, const std::string& key, T fallback) {
  const auto* value = present(config, key);
  return value ? read<T>(*value, key) : fallback;
}

template bool config_value(const nlohmann::json&, const std::string&);
template std::int64_t config_value(const nlohmann::json&, const std::string&);
template double config_value(const nlohmann::json&, const std::string&);
template std::string config_value(const nlohmann::json&, const std::string&);
template bool config_value(const nlohmann::json&, const std::string&, bool);
template std::int64_t config_value(const nlohmann::json&, const std::string&, std::int64_t);
template double config_value(const nlohmann::json&, const std::string&, double);
template std::string config_value(const nlohmann::json&, const std::string&, std::string);

std::int64_t config_size(const nlohmann::json& config, const std::string& key) {
  const auto size = config_value<std::int64_t>(config, key);
  if (size < 1 || size > (1 << 24))
    fail(
        "config.json has {} = {}, which no model has: take the config.json that came with the "
        "weights",
        key, size);
  return size;
}

void require_model_type(const nlohmann::json& config, const std::string& type) {
  const auto found = config_value<std::string>(config, "model_type");
  if (found == type) return;
  fail(
      "config.json says model_type \"{}\", which plugin '{}' does not serve: set plugin = \"{}\" "
      "under [model] (`attune list` shows the plugins there are)",
      found, type, found);
}

bool name_matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0 ||
         fnmatch(("*." + pattern).c_str(), name.c_str(), 0) == 0;
}

std::vector<std::string> select_names(const std::vector<std::string>& patterns,
                                      const std::vector<std::string>& names,
                                      const std::string& option) {
  std::set<std::string> chosen;
  for (const auto& pattern : patterns) {
    bool any = false;
    for (const auto& name : names) {
      if (name_matches(pattern, name)) {
        chosen.insert(name);
        any = true;
      }
    }
    if (any) continue;
    std::set<std::string> endings;
    for (const auto& name : names) add_endings(name, endings);
    const auto hint = did_you_mean(pattern, {endings.begin(), endings.end()});
    fail("{} contains \"{}\", which matches nothing in the model{}", option, pattern,
         hint.empty() ? "; it has " + some(names, 12) : hint);
  }
  std::vector<std::string> ordered;
  for (const auto& name : names) {
    if (chosen.contains(name)) ordered.push_back(name);
  }
  return ordered;
}

}  // namespace attune::nn
