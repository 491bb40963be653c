#include "text/convert.hpp"

#include <map>
#include <string>
#include <vector>

#include "text/part.hpp"

namespace attune::text {
namespace {

Json split(const char* expression) {
  return {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json sequence(Json::array_t parts) { return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}}; }

/// How a family of byte-level BPE cuts text; the patterns are those of llama.cpp (src/llama-vocab.cpp).
struct Family {
  Json normalizer, pre_tokenizer;
  bool ignore_merges = false, add_bos = false;
};

const std::map<std::string, Family>& families() {
  static const char* llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const char* qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::map<std::string, Family> families = {
      {"default", {nullptr, sequence({split(R"([\p{P}\$\+<=>\^~\|]+)"),
                                      split(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"), split(R"(\p{N}+)"),
                                      split("[0-9][0-9][0-9]"), byte_level(false)})}},
      {"gpt-2", {nullptr, byte_level(true)}},
      {"llama-bpe", {nullptr, sequence({split(llama3), byte_level(false)}), true, true}},
      {"qwen2", {{{"type", "NFC"}}, sequence({split(qwen2), byte_level(false)})}},
      {"smollm", {nullptr, sequence({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)})}},
  };
  return families;
}

const Family& family(const std::string& name) {
  const auto found = families().find(name);
  if (found != families().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, family] : families()) names.push_back(known);
  fail("the GGUF vocabulary is cut by the rules '{}' (tokenizer.ggml.pre), which are not known; known are {}; use the model's tokenizer.json instead",
       name, joined(names));
}

const Json& required(const Json& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) fail("the GGUF file has no {}, so its vocabulary cannot be read; use the model's tokenizer.json instead", key);
  return *found;
}

Json added_token(std::int64_t id, const std::string& content, bool special) {
  return {{"id", id},         {"content", content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

/// The name of each special token, around "$A".
Json template_processing(const std::vector<std::pair<std::string, std::int64_t>>& before, const std::vector<std::pair<std::string, std::int64_t>>& after) {
  const auto side = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto put = [&](const std::string& name, std::int64_t id) {
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  for (const auto& [name, id] : before) put(name, id);
  single.push_back(side("A", 0));
  for (const auto& [name, id] : after) put(name, id);
  pair = single;
  pair.push_back(side("B", 1));
  for (const auto& [name, id] : after) pair.push_back({{"SpecialToken", {{"id", name}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json tokenizer_json(Json added, Json normalizer, Json pre_tokenizer, Json post_processor, Json decoder, Json model) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", std::move(post_processor)},
          {"decoder", std::move(decoder)},
          {"model", std::move(model)}};
}

Json from_gguf(const Json& metadata) {
  constexpr int control = 3, user_defined = 4;  // llama.cpp's token types that are added tokens
  const auto model = required(metadata, "tokenizer.ggml.model").get<std::string>();
  if (model != "gpt2") fail("the GGUF vocabulary is of the model '{}'; supported is gpt2 (byte-level BPE); use the model's tokenizer.json instead", model);
  const auto& rules = family(metadata.value("tokenizer.ggml.pre", "default"));
  const auto& tokens = required(metadata, "tokenizer.ggml.tokens");
  const auto types = metadata.value("tokenizer.ggml.token_type", Json(Json::array_t(tokens.size(), 1)));
  if (types.size() != tokens.size())
    fail("the GGUF file has {} tokens but {} token types; it is damaged, fetch it again", tokens.size(), types.size());
  Json vocab = Json::object(), added = Json::array();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto token = tokens[id].get<std::string>();
    const int type = types[id].get<int>();
    vocab[token] = id;
    if (type == control || type == user_defined) added.push_back(added_token(static_cast<std::int64_t>(id), token, type == control));
  }
  Json post_processor = byte_level(true);
  if (metadata.value("tokenizer.ggml.add_bos_token", rules.add_bos)) {
    const auto bos = required(metadata, "tokenizer.ggml.bos_token_id").get<std::size_t>();
    if (bos >= tokens.size()) fail("the GGUF file's bos_token_id is {}, but there are {} tokens; it is damaged, fetch it again", bos, tokens.size());
    post_processor = template_processing({{tokens[bos].get<std::string>(), static_cast<std::int64_t>(bos)}}, {});
  }
  return tokenizer_json(std::move(added), rules.normalizer, rules.pre_tokenizer, std::move(post_processor), byte_level(true),
                        {{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", nullptr},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", false},
                         {"byte_fallback", false},
                         {"ignore_merges", rules.ignore_merges},
                         {"vocab", std::move(vocab)},
                         {"merges", required(metadata, "tokenizer.ggml.merges")}});
}

/// Lines without their ends; the last may have none.
std::vector<std::string> lines(std::string_view text) {
  std::vector<std::string> result;
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    result.emplace_back(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return result;
}

}  // namespace

Json tokenizer_json_from_gguf(const Json& metadata) {
  try {
    return from_gguf(metadata);
  } catch (const Json::exception& error) {
    fail("the GGUF file's vocabulary is not as it should be ({}); fetch the file again, or use the model's tokenizer.json", error.what());
  }
}

Json tokenizer_json_from_vocab(std::string_view vocab_txt, bool lowercase) {
  Json vocab = Json::object(), added = Json::array();
  const auto tokens = lines(vocab_txt);
  for (std::size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  const auto id = [&](const char* name) { return vocab[name].get<std::int64_t>(); };
  for (const char* name : {"[UNK]", "[CLS]", "[SEP]"})
    if (!vocab.contains(name)) fail("vocab.txt has no line {}, so it is not a BERT vocabulary; check the file", name);
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
    if (vocab.contains(name)) added.push_back(added_token(id(name), name, true));
  Json post_processor = template_processing({{"[CLS]", id("[CLS]")}}, {{"[SEP]", id("[SEP]")}});
  return tokenizer_json(
      std::move(added),
      {{"type", "BertNormalizer"}, {"clean_text", true}, {"handle_chinese_chars", true}, {"strip_accents", nullptr}, {"lowercase", lowercase}},
      {{"type", "BertPreTokenizer"}},
      std::move(post_processor),
      {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}},
      {{"type", "WordPiece"},
       {"unk_token", "[UNK]"},
       {"continuing_subword_prefix", "##"},
       {"max_input_chars_per_word", 100},
       {"vocab", std::move(vocab)}});
}

}  // namespace attune::text
