#include "prepare/encoder.hpp"

#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "core/plugin_call.hpp"
#include "data/store.hpp"
#include "prepare/augment.hpp"
#include "prepare/truncate.hpp"
#include "text/chat_writer.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

std::shared_ptr<Dataset> dataset_of(const Recipe& recipe, const Registry& registry) {
  return std::static_pointer_cast<Dataset>(
      registry.find(Kind::dataset, recipe.kind).build(recipe.dataset_options.get(), nullptr));
}

/// For kinds that read no text.
json no_tokenizer() {
  return {{"added_tokens", json::array()},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", {{"[UNK]", 0}}}}}};
}

/// A tokenizer.json, itself or from a model's files; null: the recipe names none.
json tokenizer_of(const Recipe& recipe) {
  return recipe.tokenizer.empty() ? json() : open_tokenizer(recipe.resolve(recipe.tokenizer));
}

/// The recipe names a form instead of a template.
bool names_form(const Recipe& recipe) {
  return !recipe.chat_template.empty() && !recipe.chat_template.ends_with(".jinja");
}

/// The template in the file that the recipe names, else the one that the tokenizer comes with; none
/// for a form.
ChatSource source_of(const Recipe& recipe) {
  if (names_form(recipe)) return {};
  const auto place = recipe.tokenizer.empty() ? fs::path() : recipe.resolve(recipe.tokenizer);
  return recipe.chat_template.empty()
             ? chat_template_of(place)
             : chat_template_in(recipe.resolve(recipe.chat_template), place);
}

std::optional<ChatTemplate> chat_of(const Recipe& recipe, const ChatSource& source) {
  if (names_form(recipe)) return ChatTemplate::by_name(recipe.chat_template);
  return source.jinja.empty() ? std::nullopt : std::optional(ChatTemplate::from_jinja(source));
}

}  // namespace

Encoder::Encoder(const Recipe& recipe, const Registry& registry)
    : Encoder(recipe, registry, tokenizer_of(recipe)) {}

Encoder::Encoder(const Recipe& recipe, const Registry& registry, const json& tokenizer)
    : recipe_(recipe),
      dataset_(dataset_of(recipe, registry)),
      digest_(tokenizer.is_null() ? "" : tokenizer_sha256(tokenizer)),
      tokenizer_(tokenizer.is_null() ? no_tokenizer() : tokenizer),
      source_(source_of(recipe)),
      chat_(chat_of(recipe, source_)) {
  if (digest_.empty() && dataset_->reads_text())
    fail("{}: needs tokenizer = \"...\": a model folder, a tokenizer.json or a .gguf",
         recipe.path.string());
  if (!digest_.empty()) frame_ = tokenizer_.encode("");
}

ChatSource Encoder::chat_source() const {
  return names_form(recipe_)
             ? ChatSource{text::form_as_jinja(recipe_.chat_template, tokenizer_), "", {}}
             : source_;
}

std::string Encoder::form() const { return names_form(recipe_) ? recipe_.chat_template : ""; }

std::vector<Sample> Encoder::encode(const std::vector<Draw>& draws, const Records& records,
                                    const std::vector<std::string>& labels, Ledger& ledger) const {
  const EncodeContext context{tokenizer_, chat_ ? &*chat_ : nullptr, labels};
  std::vector<Sample> samples;
  for (const auto& draw : draws) {
    auto record = records.read(static_cast<int>(draw.rank), draw.offset, draw.bytes);
    if (draw.variant > 0)
      augment(recipe_.augment,
              fingerprint_of(record)[0] ^ (static_cast<std::uint64_t>(recipe_.split.seed) << 32) ^
                  draw.variant,
              record);
    if (const auto label = record.fields.find("label"); label != record.fields.end())
      label->second = named_in(labels, label->second);
    ledger.guard(recipe_.sources[draw.source].on_error == "skip", record.source, record.row,
                 [&] { encode(record, context, samples, ledger); });
  }
  return samples;
}

void Encoder::encode(const Record& record, const EncodeContext& context,
                     std::vector<Sample>& samples, Ledger& ledger) const {
  const auto unless_rejected = [&](const auto& work) {
    try {
      work();
    } catch (const Rejected& reason) {
      ledger.drop(reason.what(), record);
    }
  };
  std::vector<Sample> encoded;
  unless_rejected([&] {
    encoded = call_plugin({"the dataset plugin", "encode", {}},
                          [&] { return dataset_->encode_all(record, context); });
    if (encoded.empty()) throw Rejected("no sample");
  });
  for (auto& sample : encoded)
    unless_rejected([&] {
      for (auto& part : truncated(recipe_.truncate, std::move(sample), frame_))
        samples.push_back(std::move(part));
    });
}

}  // namespace attune
