#include "weights/describe.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "core/files.hpp"
#include "core/names.hpp"
#include "weights/licence.hpp"
#include "weights/tensor_table.hpp"

namespace attune {
namespace {

/// 134515008 -> "134,515,008"
std::string grouped(std::uint64_t number) {
  auto digits = std::to_string(number);
  for (auto i = static_cast<std::int64_t>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), 1, ',');
  return digits;
}

struct Share {
  std::uint64_t tensors = 0;
  std::uint64_t parameters = 0;
  std::uint64_t bytes = 0;
  void add(const TensorInfo& info) {
    tensors += 1;
    parameters += *weights::element_count(info.shape);
    bytes += info.bytes;
  }
};

std::string describe_share(const Share& share) {
  return fmt::format("{} parameters in {} tensor{}, {}", grouped(share.parameters), share.tensors,
                     share.tensors == 1 ? "" : "s", human_bytes(static_cast<double>(share.bytes)));
}

}  // namespace

void check_architecture(const ModelFiles& files, const Registry& registry) {
  const auto found = files.config.find("model_type");
  const auto type =
      found != files.config.end() && found->is_string() ? found->get<std::string>() : "";
  if (!registry.has(Kind::model, type))
    fail("{}: is a model of type '{}', which no installed plugin supports; supported are: {}",
         files.path.string(), type, joined(registry.names(Kind::model)));
}

std::string describe_model(const ModelFiles& files) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    fmt::format_to(std::back_inserter(text), "{:<16}{}\n", name, value);
  };
  // Families differ in how they call the same thing.
  const auto from_config = [&](std::string_view name, std::initializer_list<const char*> keys) {
    for (const auto* key : keys) {
      const auto found = files.config.find(key);
      if (found == files.config.end() || found->is_null()) continue;
      return line(name, found->is_string() ? found->get<std::string>()
                                           : found->dump(-1, ' ', false,
                                                         nlohmann::json::error_handler_t::replace));
    }
  };
  Share all;
  std::map<std::string, Share> by_storage;
  for (const auto& info : files.weights->tensors()) {
    all.add(info);
    by_storage[info.stored].add(info);
  }

  line("model", files.path.string());
  from_config("architecture", {"model_type"});
  line("parameters", describe_share(all));
  for (const auto& [stored, share] : by_storage) line("  " + stored, describe_share(share));
  from_config("layers", {"num_hidden_layers", "n_layer", "n_layers"});
  from_config("hidden size", {"hidden_size", "n_embd", "dim"});
  from_config("feed-forward", {"intermediate_size", "n_inner"});
  from_config("heads", {"num_attention_heads", "n_head", "n_heads"});
  from_config("key/value heads", {"num_key_value_heads"});
  from_config("context", {"max_position_embeddings", "n_positions"});
  from_config("picture size", {"image_size"});
  from_config("vocabulary", {"vocab_size"});
  line("tokenizer",
       !files.tokenizer_problem.empty() ? "cannot be used: " + files.tokenizer_problem
       : files.tokenizer.is_null()
           ? "none"
           : grouped(static_cast<std::uint64_t>(tokenizer_size(files.tokenizer))) + " tokens");
  line("chat template", files.chat_template.empty() ? "no" : "yes");
  line("licence", files.licence.empty() ? "not stated: ask the distributor of the files before you "
                                          "use or redistribute a model derived from them"
                                        : files.licence);
  if (const auto terms = usage_terms(files.licence); !terms.empty()) line("terms", terms);
  for (const auto& file : files.weight_files)
    line("weights", file.filename().string() + ", " +
                        human_bytes(static_cast<double>(std::filesystem::file_size(file))));
  return text;
}

}  // namespace attune
