#include "nn/generation_defaults.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "weights/model_files.hpp"
#include "weights/special_tokens.hpp"

namespace attune::nn {
using nlohmann::json;
namespace {

/// Keys that say how something other than the choice of tokens is done, or what is returned.
const std::set<std::string> without_effect = {"_commit_hash",
                                              "_from_model_config",
                                              "assistant_confidence_threshold",
                                              "assistant_early_exit",
                                              "assistant_ensemble_weight",
                                              "assistant_lookbehind",
                                              "bos_token_id",
                                              "cache_config",
                                              "cache_implementation",
                                              "compile_config",
                                              "decoder_start_token_id",
                                              "disable_compile",
                                              "early_stopping",
                                              "is_assistant",
                                              "length_penalty",
                                              "low_memory",
                                              "max_cache_len",
                                              "max_matching_ngram_size",
                                              "num_assistant_tokens",
                                              "num_assistant_tokens_schedule",
                                              "num_return_sequences",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "output_logits",
                                              "output_scores",
                                              "pad_token_id",
                                              "prefill_chunk_size",
                                              "remove_invalid_values",
                                              "renormalize_logits",
                                              "return_dict_in_generate",
                                              "speculation_type",
                                              "target_lookbehind",
                                              "transformers_version",
                                              "use_cache",
                                              "use_mtp"};

const std::set<std::string> used = {"do_sample",      "eos_token_id", "max_length",
                                    "max_new_tokens", "min_p",        "repetition_penalty",
                                    "temperature",    "top_k",        "top_p"};

/// The values at which transformers' other keys do nothing. null and false do nothing either.
const std::map<std::string, json> neutral = {{"diversity_penalty", 0},
                                             {"encoder_no_repeat_ngram_size", 0},
                                             {"encoder_repetition_penalty", 1},
                                             {"epsilon_cutoff", 0},
                                             {"eta_cutoff", 0},
                                             {"guidance_scale", 1},
                                             {"min_length", 0},
                                             {"min_new_tokens", 0},
                                             {"no_repeat_ngram_size", 0},
                                             {"num_beam_groups", 1},
                                             {"num_beams", 1},
                                             {"penalty_alpha", 0},
                                             {"typical_p", 1}};

/// Those that change which token is chosen or when an answer ends, and that `generate` has no
/// counterpart for.
const std::set<std::string> unsupported = {"bad_words_ids",
                                           "begin_suppress_tokens",
                                           "constraints",
                                           "diversity_penalty",
                                           "dola_layers",
                                           "encoder_no_repeat_ngram_size",
                                           "encoder_repetition_penalty",
                                           "epsilon_cutoff",
                                           "eta_cutoff",
                                           "exponential_decay_length_penalty",
                                           "force_words_ids",
                                           "forced_bos_token_id",
                                           "forced_decoder_ids",
                                           "forced_eos_token_id",
                                           "guidance_scale",
                                           "max_time",
                                           "min_length",
                                           "min_new_tokens",
                                           "no_repeat_ngram_size",
                                           "num_beam_groups",
                                           "num_beams",
                                           "penalty_alpha",
                                           "prompt_lookup_num_tokens",
                                           "sequence_bias",
                                           "stop_strings",
                                           "suppress_tokens",
                                           "token_healing",
                                           "top_h",
                                           "typical_p",
                                           "watermarking_config"};

bool does_nothing(const std::string& key, const json& value) {
  const auto found = neutral.find(key);
  const bool is_empty = value.is_array() && value.empty();
  return value.is_null() || value == false || is_empty ||
         (found != neutral.end() && found->second == value);
}

/// config.json over what it has nested for its language model.
json with_text_config(const json& config) {
  const auto inner = config.find("text_config");
  auto all = inner != config.end() && inner->is_object() ? *inner : json::object();
  for (const auto& [key, value] : config.items())
    if (!value.is_null()) all[key] = value;
  return all;
}

struct Source {
  std::string file;
  json values;

  double number(const char* key, double fallback, double least, double most) const {
    const auto found = values.find(key);
    if (found == values.end() || found->is_null()) return fallback;
    const double value =
        found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (value >= least && value <= most) return value;
    fail(
        "{} has {} = {}, where a number from {} to {} is needed: correct it, or remove it for "
        "transformers' default",
        file, key, found->dump(), least, most);
  }
  bool is_set(const char* key) const {
    const auto found = values.find(key);
    if (found == values.end() || found->is_null() || found->is_boolean())
      return found != values.end() && *found == true;
    fail("{} has {} = {}, where true or false is needed: correct it", file, key, found->dump());
  }
};

Source source_of(const ModelFiles& files) {
  const bool has_own = files.generation.is_object() && !files.generation.empty();
  if (has_own) return {"generation_config.json", files.generation};
  return {"config.json", with_text_config(files.config)};
}

/// Of generation_config.json every key that is not known counts; config.json is full of others.
std::vector<std::string> ignored_keys(const Source& source) {
  const bool is_own = source.file == "generation_config.json";
  std::vector<std::string> ignored;
  for (const auto& [key, value] : source.values.items()) {
    const bool counts =
        is_own ? !used.contains(key) && !without_effect.contains(key) : unsupported.contains(key);
    if (counts && !does_nothing(key, value)) ignored.push_back(key);
  }
  return ignored;
}

}  // namespace

std::vector<std::int32_t> end_tokens(const ModelFiles& files, const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ends;
  const auto add = [&](std::int64_t id) {
    const auto token = static_cast<std::int32_t>(id);
    if (std::ranges::find(ends, token) == ends.end()) ends.push_back(token);
  };
  for (const auto& ids :
       {token_ids(files.generation, "eos_token_id"), token_ids(files.config, "eos_token_id"),
        token_ids(files.config.value("text_config", json::object()), "eos_token_id")})
    std::ranges::for_each(ids, add);
  if (const auto text = special_token(files.tokenizer_config, "eos_token"); !text.empty())
    if (const auto id = tokenizer.id(text)) add(*id);
  return ends;
}

GenerationDefaults generation_defaults(const ModelFiles& files, const Tokenizer& tokenizer) {
  constexpr double most = 1 << 30;
  const auto source = source_of(files);
  GenerationDefaults defaults;
  auto& options = defaults.options;
  options.stop = end_tokens(files, tokenizer);
  options.temperature = source.is_set("do_sample") ? source.number("temperature", 1, 0, most) : 0;
  options.top_k = static_cast<std::int64_t>(source.number("top_k", 50, 0, most));
  options.top_p = source.number("top_p", 1, 0, 1);
  options.min_p = source.number("min_p", 0, 0, 1);
  options.repetition_penalty = source.number("repetition_penalty", 1, 1e-6, most);
  const auto tokens = static_cast<std::int64_t>(source.number("max_new_tokens", 0, 0, most));
  const auto length = static_cast<std::int64_t>(source.number("max_length", 0, 0, most));
  defaults.has_length = tokens > 0 || length > 0;
  if (tokens > 0)
    options.max_tokens = tokens;
  else if (length > 0)
    options.max_tokens = options.max_length = length;
  defaults.ignored = ignored_keys(source);
  return defaults;
}

}  // namespace attune::nn
