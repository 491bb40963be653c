#include "strategy/peft_config.hpp"

#include <attune/error.hpp>
#include <attune/module_name.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/names.hpp"
#include "text/python_pattern.hpp"

namespace attune {
namespace {

using nlohmann::ordered_json;
using text::PythonPattern;

/// How a key of adapter_config.json is treated.
enum class Use {
  same,  // it has to be the run's own value
  // its effect is compared: which modules are adapted, with which rank and scale, from which start
  weighed,
  shown,   // it shows in the tensors' names and shapes, which are compared
  unused,  // it describes the adapter, or serves training alone
};
using Uses = std::map<std::string, Use>;

/// By peft_type. A key that is not here is refused unless its value is PEFT's way to say "none"
/// (is_empty).
const std::map<std::string, Uses>& known_keys() {
  static const Uses targets{{"target_modules", Use::weighed}, {"exclude_modules", Use::weighed}};
  static const Uses layers{{"layers_to_transform", Use::weighed}, {"layers_pattern", Use::weighed}};
  static const Uses every{{"peft_type", Use::same},
                          {"task_type", Use::unused},
                          {"auto_mapping", Use::unused},
                          {"peft_version", Use::unused},
                          {"base_model_name_or_path", Use::unused},
                          {"revision", Use::unused},
                          {"inference_mode", Use::unused},
                          {"modules_to_save", Use::shown}};
  static const Uses lora{{"r", Use::weighed},
                         {"lora_alpha", Use::weighed},
                         {"rank_pattern", Use::weighed},
                         {"alpha_pattern", Use::weighed},
                         {"use_rslora", Use::weighed},
                         {"init_lora_weights", Use::weighed},
                         {"use_dora", Use::same},
                         {"bias", Use::same},
                         {"lora_bias", Use::same},
                         {"trainable_token_indices", Use::weighed},
                         {"lora_dropout", Use::unused},
                         {"fan_in_fan_out", Use::unused},
                         {"runtime_config", Use::unused},
                         {"megatron_core", Use::unused},
                         {"qalora_group_size", Use::unused},
                         {"ensure_weight_tying", Use::shown},
                         {"loftq_config", Use::unused},
                         {"eva_config", Use::unused},
                         {"corda_config", Use::unused},
                         {"lora_ga_config", Use::unused}};
  static const Uses ia3{{"feedforward_modules", Use::shown},
                        {"fan_in_fan_out", Use::unused},
                        {"init_ia3_weights", Use::unused}};
  static const Uses vera{{"r", Use::same},
                         {"save_projection", Use::weighed},
                         {"projection_prng_key", Use::weighed},
                         {"bias", Use::same},
                         {"vera_dropout", Use::unused},
                         {"d_initial", Use::unused},
                         {"fan_in_fan_out", Use::unused},
                         {"init_weights", Use::unused}};
  static const Uses virtual_tokens{{"num_virtual_tokens", Use::shown},
                                   {"token_dim", Use::shown},
                                   {"num_layers", Use::shown},
                                   {"num_transformer_submodules", Use::same}};
  static const Uses prompt{{"num_attention_heads", Use::unused},
                           {"prompt_tuning_init", Use::unused},
                           {"prompt_tuning_init_text", Use::unused},
                           {"tokenizer_name_or_path", Use::unused},
                           {"tokenizer_kwargs", Use::unused}};
  static const Uses prefix{{"num_attention_heads", Use::same},
                           {"encoder_hidden_size", Use::unused},
                           {"prefix_projection", Use::unused},
                           {"init_weights", Use::unused}};
  const auto all = [](std::initializer_list<Uses> parts) {
    Uses sum = every;
    for (const auto& part : parts) sum.insert(part.begin(), part.end());
    return sum;
  };
  static const std::map<std::string, Uses> keys{{"LORA", all({targets, layers, lora})},
                                                {"IA3", all({targets, ia3})},
                                                {"VERA", all({targets, layers, vera})},
                                                {"PROMPT_TUNING", all({virtual_tokens, prompt})},
                                                {"PREFIX_TUNING", all({virtual_tokens, prefix})}};
  return keys;
}

/// Why a key that has a value is refused, and what to do.
std::string cure_for(const std::string& key) {
  static const std::map<std::string, std::string> cures{
      {"layer_replication",
       "its layers are repeated: merge it in PEFT, and start from the merged model"},
      {"target_parameters",
       "it adapts parameters outside of linear layers: merge it in PEFT, and start from the merged "
       "model"},
      {"alora_invocation_tokens",
       "it takes effect only after certain tokens, which a merged model cannot reproduce: train an "
       "adapter without it"},
  };
  const auto found = cures.find(key);
  return found != cures.end() ? found->second
                              : "Attune does not know what it changes: merge the adapter in PEFT, "
                                "and start from the merged model";
}

bool is_empty(const ordered_json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

/// The value, or nothing where the key is absent or null.
const ordered_json* given(const ordered_json& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

template <class T>
T as(const ordered_json& value, const char* key) {
  try {
    return value.get<T>();
  } catch (const nlohmann::json::exception&) {
    fail("adapter_config.json: {} is {}, which has the wrong type", key, value.dump());
  }
}

template <class T>
T value_of(const ordered_json& config, const char* key, T fallback) {
  const auto* value = given(config, key);
  return value ? as<T>(*value, key) : fallback;
}

/// A text as a list of one; an empty text as none.
std::vector<std::string> texts_of(const ordered_json& config, const char* key) {
  const auto* value = given(config, key);
  if (!value || !value->is_string()) return value_of(config, key, std::vector<std::string>{});
  const auto text = value->get<std::string>();
  return text.empty() ? std::vector<std::string>{} : std::vector{text};
}

bool is_full_match(const std::string& expression, const std::string& module, const char* key) {
  return PythonPattern("(?:" + expression + ")\\z", fmt::format("adapter_config.json: {}", key))
      .matches(module);
}

/// A list names modules, or their ends after a dot; a text is a regular expression for the whole
/// name.
bool names_module(const ordered_json& names, const std::string& module, const char* key) {
  if (names.is_string()) return is_full_match(names.get<std::string>(), module, key);
  return std::ranges::any_of(names, [&](const ordered_json& name) {
    return name.is_string() && (name == module || module.ends_with("." + name.get<std::string>()));
  });
}

bool is_saved_whole(const ordered_json& config, const std::string& module) {
  return std::ranges::any_of(texts_of(config, "modules_to_save"), [&](const std::string& saved) {
    return PythonPattern("(^|.*\\.)" + saved + "($|\\..*)", "adapter_config.json: modules_to_save")
        .matches(module);
  });
}

/// The number of the layer that a module lies in.
std::optional<std::int64_t> layer_of(const ordered_json& config, const std::string& module) {
  auto patterns = texts_of(config, "layers_pattern");
  for (auto& pattern : patterns) pattern = "(?:^|.*?\\.)" + pattern + "\\.(?P<idx>\\d+)\\.";
  if (patterns.empty()) patterns.push_back(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.");
  for (const auto& pattern : patterns)
    if (const auto index =
            PythonPattern(pattern, "adapter_config.json: layers_pattern").group(module, "idx"))
      return std::stoll(*index);
  return std::nullopt;
}

bool is_in_chosen_layers(const ordered_json& config, const std::string& module) {
  const auto* layers = given(config, "layers_to_transform");
  if (!layers || (layers->is_array() && layers->empty())) return true;
  const auto layer = layer_of(config, module);
  if (!layer) return false;
  return layers->is_array() ? std::ranges::find(*layers, ordered_json(*layer)) != layers->end()
                            : *layers == *layer;
}

/// The pattern's value for a module; absent when none matches.
template <class T>
std::optional<T> first_match(const ordered_json& config, const char* key,
                             const std::string& module) {
  const auto* patterns = given(config, key);
  if (!patterns) return std::nullopt;
  if (!patterns->is_object()) fail("adapter_config.json: {} is not a table of patterns", key);
  for (const auto& [pattern, value] : patterns->items())
    if (PythonPattern("(.*\\.)?(" + pattern + ")$", fmt::format("adapter_config.json: {}", key))
            .matches(module))
      return as<T>(value, key);
  return std::nullopt;
}

/// Modules that an adapter changes, by its tensors' names.
std::vector<std::string> adapted_modules(const Adapter& adapter) {
  static constexpr std::string_view prefix = "base_model.model.";
  static constexpr std::string_view marks[] = {".lora_A.weight", ".ia3_l", ".vera_lambda_d"};
  std::vector<std::string> modules;
  for (const auto& [name, tensor] : adapter.tensors)
    for (const auto mark : marks)
      if (name.starts_with(prefix) && name.ends_with(mark))
        modules.push_back(name.substr(prefix.size(), name.size() - prefix.size() - mark.size()));
  return modules;
}

/// The configurations of both sides, and where theirs is from.
struct Comparison {
  const Adapter& ours;
  ordered_json mine;
  ordered_json other;
  std::string from;

  std::string difference(const std::string& key) const {
    const auto text = [&](const ordered_json& config) {
      return config.contains(key) ? config.at(key).dump() : "not set";
    };
    return fmt::format("{} is {} there and {} here", key, text(other), text(mine));
  }

  [[noreturn]] void differ(const std::vector<std::string>& how) const {
    fail("{}: is an adapter with different options: {}; set [strategy] to match", from,
         joined(how, "; "));
  }
};

void check_type(const Comparison& c) {
  static const std::map<std::string, std::string> plugins{{"LORA", "lora"},
                                                          {"IA3", "ia3"},
                                                          {"VERA", "vera"},
                                                          {"PROMPT_TUNING", "prompt"},
                                                          {"PREFIX_TUNING", "prefix"}};
  const auto theirs = value_of(c.other, "peft_type", std::string());
  const auto mine = value_of(c.mine, "peft_type", std::string());
  if (theirs == mine) return;
  if (plugins.contains(theirs))
    fail("{}: is an adapter with different options: {}; set strategy.plugin = \"{}\"", c.from,
         c.difference("peft_type"), plugins.at(theirs));
  std::vector<std::string> readable;
  for (const auto& [type, plugin] : plugins) readable.push_back(type);
  if (!theirs.empty())
    fail(
        "{}: peft_type is \"{}\", which Attune does not read; it reads {}: merge the adapter in "
        "PEFT, and start from the merged model",
        c.from, theirs, joined(readable, ", "));
  c.differ({c.difference("peft_type")});
}

/// For the adapters of strategies that PEFT does not have: what both sides name has to be the same.
void check_named_alike(const Comparison& c) {
  static const std::set<std::string> unused{"base_model_name_or_path", "inference_mode",
                                            "modules_to_save", "task_type", "revision"};
  std::vector<std::string> how;
  for (const auto& [key, value] : c.mine.items())
    if (!unused.contains(key) && c.other.contains(key) && c.other[key] != value)
      how.push_back(c.difference(key));
  if (!how.empty()) c.differ(how);
}

void check_keys(const Comparison& c, const Uses& uses) {
  std::vector<std::string> how;
  for (const auto& [key, value] : c.other.items()) {
    const auto use = uses.find(key);
    if (use == uses.end() && !is_empty(value))
      fail("{}: adapter_config.json has {} = {}: {}", c.from, key, value.dump(), cure_for(key));
    if (use == uses.end() || use->second != Use::same || is_empty(value)) continue;
    if (!c.mine.contains(key) || c.mine.at(key) != value) how.push_back(c.difference(key));
  }
  for (const auto& [key, value] : c.mine.items())  // what is only set here
    if (const auto use = uses.find(key); use != uses.end() && use->second == Use::same &&
                                         !is_empty(value) && value != "none" &&
                                         (!c.other.contains(key) || is_empty(c.other.at(key))))
      how.push_back(c.difference(key));
  if (!how.empty()) c.differ(how);
}

void check_modules(const Comparison& c) {
  for (const auto& module : adapted_modules(c.ours))
    if (!peft_adapts(c.other, module))
      fail(
          "{}: adapter_config.json excludes {}, which this run adapts (target_modules, "
          "exclude_modules, layers_to_transform, layers_pattern): remove it from strategy.targets",
          c.from, module);
}

void check_scales(const Comparison& c) {
  for (const auto& module : adapted_modules(c.ours)) {
    const auto mine = lora_scale(c.mine, module);
    const auto other = lora_scale(c.other, module);
    if (mine.rank == other.rank &&
        std::abs(mine.scale - other.scale) <= 1e-9 * std::abs(mine.scale))
      continue;
    std::vector<std::string> how;
    for (const char* key : {"r", "lora_alpha", "use_rslora"}) {
      const auto empty = [&](const ordered_json& config) {
        return !config.contains(key) || is_empty(config.at(key));
      };
      if (empty(c.mine) && empty(c.other)) continue;
      if (!c.mine.contains(key) || !c.other.contains(key) || c.mine.at(key) != c.other.at(key))
        how.push_back(c.difference(key));
    }
    // other words may say the same of this layer
    for (const char* key : {"rank_pattern", "alpha_pattern"})
      if (first_match<double>(c.mine, key, module) != first_match<double>(c.other, key, module))
        how.push_back(c.difference(key));
    how.push_back(fmt::format("{} has rank {} and scale {:g} there, {} and {:g} here", module,
                              other.rank, other.scale, mine.rank, mine.scale));
    c.differ(how);
  }
}

/// The start, as strategy.init calls it, with which this run's base is the one that PEFT makes:
/// PEFT repeats the start on loading.
std::string start_of(const Comparison& c) {
  const auto* init = given(c.other, "init_lora_weights");
  if (!init || init->is_boolean()) return "default";
  auto name = value_of(c.other, "init_lora_weights", std::string());
  const auto written = name;
  std::ranges::transform(name, name.begin(), [](unsigned char letter) {
    return static_cast<char>(std::tolower(letter));
  });
  if (written == "pissa" || name == "olora") return name;
  // the base stays as it is
  if (std::set<std::string>{"gaussian", "orthogonal", "eva", "mica"}.contains(name))
    return "default";
  const auto base = value_of(c.other, "base_model_name_or_path", std::string());
  fail(
      "{}: init_lora_weights is \"{}\": the adapter belongs to a base whose weights its start has "
      "changed, which cannot be computed again from {}; set model.path to that base and "
      "init_lora_weights to true, or save the adapter in PEFT with "
      "path_initial_model_for_weight_conversion",
      c.from, written, base.empty() ? "the original" : "'" + base + "'");
}

void check_start(const Comparison& c) {
  const auto mine = value_of(c.mine, "init_lora_weights", std::string("default"));
  const auto other = start_of(c);
  if (mine == other) return;
  const auto* init = given(c.other, "init_lora_weights");
  const auto written = init ? init->dump() : "not set";
  if (other == "default")
    fail(
        "{}: init_lora_weights is {}: the adapter is for the base as it is, and strategy.init = "
        "\"{}\" changes it: leave out strategy.init, the initialisation",
        c.from, written, mine);
  fail(
      "{}: init_lora_weights is {}: the adapter is for the base less the start of its change, "
      "which PEFT takes away on loading: set strategy.init = \"{}\"",
      c.from, written, other);
}

/// The ids of PEFT's trainable_token_indices by the last part of a module's name, or by none: a
/// list is of the embedding.
std::map<std::string, ordered_json> token_rows(const ordered_json& config) {
  std::map<std::string, ordered_json> rows;
  const auto* given_rows = given(config, "trainable_token_indices");
  if (!given_rows || is_empty(*given_rows)) return rows;
  if (!given_rows->is_object()) return {{"", *given_rows}};
  for (const auto& [module, ids] : given_rows->items()) rows[last_part(module)] = ids;
  return rows;
}

/// A list says the same as a table in which a tied head is named as well. Which modules they are is
/// in the tensors' names.
bool are_same_rows(const std::map<std::string, ordered_json>& a,
                   const std::map<std::string, ordered_json>& b) {
  const auto is_list = [](const auto& rows) { return rows.contains(""); };
  if (a.empty() != b.empty()) return false;
  if (is_list(a) == is_list(b)) return a == b;
  const auto& list = is_list(a) ? a : b;
  return std::ranges::all_of(is_list(a) ? b : a,
                             [&](const auto& named) { return named.second == list.at(""); });
}

bool has_repeats(const ordered_json& ids) {
  std::vector<ordered_json> sorted(ids.begin(), ids.end());
  std::ranges::sort(sorted);
  return std::ranges::adjacent_find(sorted) != sorted.end();
}

void check_token_rows(const Comparison& c) {
  const auto mine = token_rows(c.mine);
  const auto other = token_rows(c.other);
  if (are_same_rows(mine, other)) return;
  if (std::ranges::any_of(other, [](const auto& named) { return has_repeats(named.second); }))
    fail(
        "{}: adapter_config.json has trainable_token_indices = {}, in which a token is named "
        "twice: merge it in PEFT, and start from the merged model",
        c.from, c.other.at("trainable_token_indices").dump());
  const auto cure =
      other.empty() ? "leave out strategy.token_rows and strategy.head_rows"
      : other.size() == 1
          ? fmt::format("set strategy.{} = {}",
                        other.begin()->first == "lm_head" ? "head_rows" : "token_rows",
                        other.begin()->second.dump())
          : "set strategy.token_rows and strategy.head_rows to match, or, where the head shares "
            "the embedding's weight, merge it in PEFT, and start from "
            "the merged model";
  fail("{}: is an adapter with different options: {}; {}", c.from,
       c.difference("trainable_token_indices"), cure);
}

void check_projection(const Comparison& c, const Adapter& theirs) {
  const auto holds = [&](const char* name) {
    return std::ranges::any_of(theirs.tensors,
                               [&](const NamedTensor& tensor) { return tensor.first == name; });
  };
  if (holds("base_model.vera_A") && holds("base_model.vera_B")) return;
  if (c.mine.at("projection_prng_key") == value_of(c.other, "projection_prng_key", std::int64_t{0}))
    return;
  fail(
      "{}: contains no projection, which must be regenerated from its seed: {}; set "
      "strategy.projection_seed to match",
      c.from, c.difference("projection_prng_key"));
}

}  // namespace

LoraScale lora_scale(const ordered_json& config, const std::string& module) {
  const auto rank = first_match<std::int64_t>(config, "rank_pattern", module)
                        .value_or(value_of(config, "r", std::int64_t{8}));
  const auto alpha = first_match<double>(config, "alpha_pattern", module)
                         .value_or(value_of(config, "lora_alpha", 8.0));
  const auto r = static_cast<double>(rank);
  return {rank, alpha / (value_of(config, "use_rslora", false) ? std::sqrt(r) : r)};
}

bool peft_adapts(const ordered_json& config, const std::string& module) {
  const auto* targets = given(config, "target_modules");
  const auto* excluded = given(config, "exclude_modules");
  if (!targets) return false;
  if (excluded && !excluded->empty() && names_module(*excluded, module, "exclude_modules"))
    return false;
  if (is_saved_whole(config, module)) return false;
  if (targets->is_string())
    return *targets == "all-linear" || names_module(*targets, module, "target_modules");
  const bool is_named_whole = std::ranges::find(*targets, ordered_json(module)) != targets->end();
  return is_named_whole ||
         (names_module(*targets, module, "target_modules") && is_in_chosen_layers(config, module));
}

void check_peft_config(const Adapter& ours, const Adapter& theirs, const std::string& from) {
  const Comparison c{ours, ordered_json::parse(ours.config), ordered_json::parse(theirs.config),
                     from};
  if (!c.other.is_object()) fail("{}: adapter_config.json is not a JSON object", from);
  check_type(c);
  const auto type = value_of(c.mine, "peft_type", std::string());
  const auto uses = known_keys().find(type);
  if (uses == known_keys().end()) return check_named_alike(c);
  check_keys(c, uses->second);
  if (uses->second.contains("target_modules")) check_modules(c);
  if (type == "LORA") {
    check_start(c);
    check_scales(c);
    check_token_rows(c);
  }
  if (type == "VERA") check_projection(c, theirs);
}

}  // namespace attune
