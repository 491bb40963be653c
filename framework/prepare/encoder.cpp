#include "prepare/encoder.hpp"

#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "data/store.hpp"
#include "prepare/augment.hpp"
#include "prepare/truncate.hpp"
#include "weights/json_file.hpp"
#include "weights/model_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

std::shared_ptr<Dataset> dataset_of(const Recipe& recipe, const Registry& registry) {
  return std::static_pointer_cast<Dataset>(registry.find(Kind::dataset, recipe.kind).build(recipe.dataset_options.get(), nullptr));
}

/// For kinds that read no text.
json no_tokenizer() {
  return {{"added_tokens", json::array()},
          {"model", {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"continuing_subword_prefix", "##"}, {"max_input_chars_per_word", 100},
                     {"vocab", {{"[UNK]", 0}}}}}};
}

/// A tokenizer.json and the chat template beside it, from a tokenizer.json itself or a model's files; null: the recipe names none.
std::pair<json, std::string> tokenizer_files(const Recipe& recipe) {
  if (recipe.tokenizer.empty()) return {nullptr, ""};
  const auto path = recipe.resolve(recipe.tokenizer);
  if (path.extension() == ".json") return {weights::read_json(path), ""};
  auto files = ModelFiles::open(path);
  if (files.tokenizer.is_null()) fail("{}: there is no tokenizer in it; set tokenizer to a place that has one", path.string());
  return {std::move(files.tokenizer), std::move(files.chat_template)};
}

/// Unless the recipe names one, a template we do not know is none: not every kind of data needs one.
std::optional<ChatTemplate> chat_template_of(const Recipe& recipe, const std::string& jinja) {
  if (!recipe.chat_template.empty()) return ChatTemplate::by_name(recipe.chat_template);
  if (jinja.empty()) return std::nullopt;
  try {
    return ChatTemplate::recognise(jinja);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

Encoder::Encoder(const Recipe& recipe, const Registry& registry) : Encoder(recipe, registry, tokenizer_files(recipe)) {}

Encoder::Encoder(const Recipe& recipe, const Registry& registry, std::pair<json, std::string> tokenizer_and_chat)
    : recipe_(recipe),
      dataset_(dataset_of(recipe, registry)),
      digest_(tokenizer_and_chat.first.is_null() ? "" : tokenizer_sha256(tokenizer_and_chat.first)),
      tokenizer_(tokenizer_and_chat.first.is_null() ? no_tokenizer() : tokenizer_and_chat.first),
      chat_(chat_template_of(recipe, tokenizer_and_chat.second)) {
  if (digest_.empty() && dataset_->reads_text())
    fail("{}: needs tokenizer = \"...\": a model folder, a tokenizer.json or a .gguf", recipe.path.string());
  if (!digest_.empty()) frame_ = tokenizer_.encode("");
}

std::vector<Sample> Encoder::encode(const std::vector<Draw>& draws, const Records& records, const std::vector<std::string>& labels, Ledger& ledger) const {
  const EncodeContext context{tokenizer_, chat_ ? &*chat_ : nullptr, labels};
  std::vector<Sample> samples;
  for (const auto& draw : draws) {
    auto record = records.read(static_cast<int>(draw.rank), draw.offset, draw.bytes);
    if (draw.variant > 0)
      augment(recipe_.augment, fingerprint_of(record)[0] ^ (static_cast<std::uint64_t>(recipe_.split.seed) << 32) ^ draw.variant, record);
    if (const auto label = record.fields.find("label"); label != record.fields.end()) label->second = named_in(labels, label->second);
    ledger.guard(recipe_.sources[draw.source].on_error == "skip", record.source, record.row, [&] { encode(record, context, samples, ledger); });
  }
  return samples;
}

void Encoder::encode(const Record& record, const EncodeContext& context, std::vector<Sample>& samples, Ledger& ledger) const {
  const auto unless_rejected = [&](const auto& work) {
    try {
      work();
    } catch (const Rejected& reason) {
      ledger.drop(reason.what(), record);
    }
  };
  std::vector<Sample> encoded;
  unless_rejected([&] {
    encoded = dataset_->encode_all(record, context);
    if (encoded.empty()) throw Rejected("no sample");
  });
  for (auto& sample : encoded)
    unless_rejected([&] {
      for (auto& part : truncated(recipe_.truncate, std::move(sample), frame_)) samples.push_back(std::move(part));
    });
}

}  // namespace attune
