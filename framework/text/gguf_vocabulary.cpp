#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "text/base64.hpp"
#include "text/convert.hpp"
#include "text/merges.hpp"
#include "text/part.hpp"
#include "text/tokenizer_json.hpp"
#include "text/unicode.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {
namespace {

constexpr const char* word_mark = "\u2581";  // SentencePiece's space

Json split(const char* expression) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", expression}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json sequence(Json::array_t parts) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

/// How a family of byte-level BPE cuts text, and how its tokenizer.json writes that.
struct Family {
  Json normalizer;
  Json pre_tokenizer;
  bool ignore_merges = false;
  bool add_bos = false;
};

Family cut_by(std::initializer_list<const char*> expressions) {
  Json::array_t parts;
  for (const char* expression : expressions) parts.push_back(split(expression));
  parts.push_back(byte_level(false));
  return {nullptr, sequence(parts)};
}

Family normalised(Family family) {
  family.normalizer = {{"type", "NFC"}};
  return family;
}

Family llama_family(Family family) {
  family.ignore_merges = family.add_bos = true;
  return family;
}

Json digits(bool each) { return {{"type", "Digits"}, {"individual_digits", each}}; }

using Families = std::map<std::string, Family>;

void add(Families& families, const Family& family, std::initializer_list<const char*> names) {
  for (const char* name : names) families.emplace(name, family);
}

void add_gpt2(Families& families) {
  const Family gpt2 = {nullptr, byte_level(true)};
  const Family digit_wise = {nullptr, sequence({digits(true), byte_level(true)})};
  add(families, gpt2,
      {"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0",
       "mellum", "exaone4", "granite-docling", "jais", "modern-bert", "trillion"});
  add(families, normalised(gpt2), {"mpt", "olmo"});
  add(families, digit_wise,
      {"smollm", "starcoder", "refact", "codeshell", "exaone", "mellum2", "minerva-7b"});
  add(families, normalised(digit_wise), {"command-r"});
  const Json punctuation = {{"type", "Punctuation"}, {"behavior", "Contiguous"}};
  add(families,
      {nullptr, sequence({punctuation, byte_level(true), digits(false), split("[0-9][0-9][0-9]")})},
      {"falcon"});
  // For a file that names no rules of its own; the patterns are those of llama.cpp
  // (src/llama-vocab.cpp).
  add(families,
      cut_by({R"([\p{P}\$\+<=>\^~\|]+)",
              R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))",
              R"(\p{N}+)", "[0-9][0-9][0-9]"}),
      {"default"});
}

void add_tiktoken(Families& families) {
  const auto llama3 = cut_by(
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto qwen2 = cut_by(
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto qwen35 = cut_by(
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto tekken = cut_by(
      {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto gpt4o = cut_by(
      {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto seed_coder = cut_by(
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  const auto bailing = cut_by(
      {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"});
  add(families, llama_family(llama3),
      {"falcon-h1", "jina-v5-nano", "lfm2", "llama-bpe", "llama-v3", "llama3", "midm-2.0",
       "pixtral"});
  auto falcon3 = llama_family(llama3);
  falcon3.add_bos = false;
  add(families, falcon3, {"falcon3"});
  auto glm5 = llama3;
  glm5.ignore_merges = true;
  add(families, glm5, {"glm5"});
  add(families, llama3, {"chatglm-bpe", "dbrx", "glm4", "smaug-bpe"});
  add(families, normalised(qwen2), {"deepseek-r1-qwen", "qwen2"});
  add(families, qwen2,
      {"f2llmv2", "grok-2", "hunyuan", "kormo", "megrez", "solar-open", "stablelm2"});
  add(families, qwen35, {"qwen35"});
  add(families, tekken, {"tekken"});
  add(families, gpt4o, {"gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"});
  add(families, seed_coder, {"seed-coder"});
  add(families, bailing, {"bailingmoe", "bailingmoe2", "llada-moe"});
}

void add_deepseek(Families& families) {
  static const char* letters =
      R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
  static const char* ideographs = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
  const auto ending_in_digits = [](std::initializer_list<const char*> expressions) {
    auto family = cut_by(expressions);
    auto& parts = family.pre_tokenizer["pretokenizers"];
    parts.insert(parts.end() - 1, digits(true));
    return family;
  };
  add(families,
      ending_in_digits(
          {"[\r\n]", letters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", ideographs}),
      {"deepseek-llm"});
  add(families, ending_in_digits({"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", ideographs}),
      {"deepseek-coder"});
  add(families,
      cut_by(
          {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
           R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}),
      {"deepseek-v3", "hunyuan-dense"});
}

void add_bloom(Families& families) {
  static const char* words = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+";
  add(families, cut_by({words}), {"bloom", "gpt3-finnish", "poro-chat"});
  add(families, cut_by({words, R"(\p{N})"}), {"viking"});
}

const Families& families() {
  static const auto families = [] {
    Families families;
    add_gpt2(families);
    add_tiktoken(families);
    add_deepseek(families);
    add_bloom(families);
    return families;
  }();
  return families;
}

const Family& family(const std::string& name) {
  const auto found = families().find(name);
  if (found != families().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, family] : families()) names.push_back(known);
  fail(
      "the GGUF vocabulary uses the unknown pre-tokenizer '{}' (tokenizer.ggml.pre); known are {}; "
      "use the model's tokenizer.json instead",
      name, joined(names));
}

const Json& required(const Json& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end())
    fail(
        "the GGUF file has no {}, so its vocabulary cannot be read; use the model's tokenizer.json "
        "instead",
        key);
  return *found;
}

/// What a GGUF file says of a vocabulary, whatever its model.
class Contents {
 public:
  explicit Contents(const Json& metadata) : metadata_(metadata) {
    for (const auto& token : required(metadata, "tokenizer.ggml.tokens"))
      tokens.push_back(token.get<std::string>());
    const auto types =
        metadata.value("tokenizer.ggml.token_type", Json(Json::array_t(tokens.size(), 1)));
    check_size(types, "token types");
    for (const auto& type : types) types_.push_back(type.get<int>());
  }

  std::vector<std::string> tokens;

  std::vector<double> scores() const {
    const auto& scores = required(metadata_, "tokenizer.ggml.scores");
    check_size(scores, "scores");
    auto numbers = scores.get<std::vector<double>>();
    if (std::any_of(numbers.begin(), numbers.end(), [](double score) { return std::isnan(score); }))
      fail("the GGUF file has scores that are not numbers; it is damaged, fetch it again");
    return numbers;
  }

  Json vocab() const {
    Json vocab = Json::object();
    for (std::size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
    return vocab;
  }

  Json added() const {
    // llama.cpp's token types that are added tokens
    constexpr int control = 3;
    constexpr int user_defined = 4;
    std::set<std::int64_t> named;  // special whatever their type, as transformers reads them
    for (const char* name : {"bos", "eos", "unknown", "padding"})
      if (const auto token = this->named(name)) named.insert(token->second);
    Json added = Json::array();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto id = static_cast<std::int64_t>(i);
      const bool special = types_[i] == control || named.contains(id);
      if (special || types_[i] == user_defined)
        added.push_back(added_token(id, tokens[i], special));
    }
    return added;
  }

  /// The token whose id stands under "tokenizer.ggml.<name>_token_id"; nothing when there is no
  /// such key.
  std::optional<NamedToken> named(const std::string& name) const {
    const auto key = "tokenizer.ggml." + name + "_token_id";
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) return std::nullopt;
    const auto id = found->get<std::size_t>();
    if (id >= tokens.size())
      fail(
          "the GGUF file's {}_token_id is {}, but there are {} tokens; it is damaged, fetch it "
          "again",
          name, id, tokens.size());
    return NamedToken(tokens[id], static_cast<std::int64_t>(id));
  }

  /// bos and eos around a text as far as the file asks for them; `otherwise` when it asks for none.
  Json post_processor(bool add_bos, bool add_eos, Json otherwise) const {
    const auto wanted = [&](const char* name, bool usual) {
      std::vector<NamedToken> tokens;
      if (!metadata_.value(fmt::format("tokenizer.ggml.add_{}_token", name), usual)) return tokens;
      required(metadata_, fmt::format("tokenizer.ggml.{}_token_id", name).c_str());
      tokens.push_back(*named(name));
      return tokens;
    };
    const auto before = wanted("bos", add_bos);
    const auto after = wanted("eos", add_eos);
    return before.empty() && after.empty() ? otherwise : template_processing(before, after);
  }

 private:
  void check_size(const Json& list, const char* what) const {
    if (list.size() != tokens.size())
      fail("the GGUF file has {} tokens but {} {}; it is damaged, fetch it again", tokens.size(),
           list.size(), what);
  }

  const Json& metadata_;
  std::vector<int> types_;
};

Json bpe(Json vocab, Json merges, bool ignore_merges, bool byte_fallback) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", byte_fallback},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

/// Older files name no rules. They are GPT-2's, as transformers reads such a file, or those that
/// the architecture's models have.
std::string rules_of(const Json& metadata) {
  const auto architecture = metadata.value("general.architecture", "");
  return metadata.value("tokenizer.ggml.pre",
                        architecture == "gptneox" || architecture == "mpt" ? "mpt" : "gpt-2");
}

Json byte_level_bpe(const Json& metadata) {
  const Contents contents(metadata);
  const auto& rules = family(rules_of(metadata));
  return tokenizer_json(contents.added(), rules.normalizer, rules.pre_tokenizer,
                        contents.post_processor(rules.add_bos, false, byte_level(true)),
                        byte_level(true),
                        bpe(contents.vocab(), required(metadata, "tokenizer.ggml.merges"),
                            rules.ignore_merges, false));
}

Json replaced(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

/// Gemma's files spell runs of spaces as spaces, and its scores do not follow the order of merging:
/// that of the tokens does.
void respell_gemma(Contents& contents, std::vector<double>& scores) {
  for (std::size_t id = 0; id < contents.tokens.size(); ++id) {
    auto& token = contents.tokens[id];
    scores[id] = -static_cast<double>(id);
    if (token.find_first_not_of(' ') != std::string::npos) continue;
    std::string marks;
    for (std::size_t i = 0; i < token.size(); ++i) marks += word_mark;
    token = marks;
  }
}

Json sentencepiece_bpe(const Json& metadata) {
  Contents contents(metadata);
  const auto architecture = metadata.value("general.architecture", "llama");
  // with merges, and runs of spaces spelled as in the vocabulary
  const bool gemma4 = metadata.at("tokenizer.ggml.model") == "gemma4";
  const bool gemma = gemma4 || architecture.starts_with("gemma");
  const bool phi3 = architecture == "phi3";
  const bool prefix = !gemma && metadata.value("tokenizer.ggml.add_space_prefix", true);
  auto scores = contents.scores();
  if (gemma && !gemma4) respell_gemma(contents, scores);
  Json normalizer;
  Json pre_tokenizer;
  Json decoders = {replaced(word_mark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  if (gemma)
    normalizer = replaced(" ", word_mark);
  else if (phi3)
    normalizer = {
        {"type", "Sequence"},
        {"normalizers", {{{"type", "Prepend"}, {"prepend", word_mark}}, replaced(" ", word_mark)}}};
  else
    pre_tokenizer = {{"type", "Metaspace"},
                     {"replacement", word_mark},
                     {"prepend_scheme", prefix ? "first" : "never"},
                     {"split", false}};
  const auto merges = metadata.find("tokenizer.ggml.merges");
  // its chat template writes <bos>
  return tokenizer_json(
      contents.added(), normalizer, pre_tokenizer,
      gemma4 ? Json() : contents.post_processor(true, false, nullptr),
      {{"type", "Sequence"}, {"decoders", decoders}},
      bpe(contents.vocab(),
          merges == metadata.end() ? merges_by_score(contents.tokens, scores, "the GGUF file")
                                   : *merges,
          false, true));
}

Json unigram(const Json& metadata) {
  const Contents contents(metadata);
  const auto scores = contents.scores();
  Json vocab = Json::array();
  Json normalizer;
  for (std::size_t id = 0; id < scores.size(); ++id)
    vocab.push_back({contents.tokens[id], scores[id]});
  if (const auto map = metadata.find("tokenizer.ggml.precompiled_charsmap");
      map != metadata.end()) {
    std::string bytes;
    for (const auto& byte : *map) bytes += static_cast<char>(byte.get<int>());
    normalizer = {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(bytes)}};
  }
  const Json metaspace = {{"type", "Metaspace"},
                          {"replacement", word_mark},
                          {"prepend_scheme", "always"},
                          {"split", true}};
  const auto unknown = contents.named("unknown");
  return tokenizer_json(contents.added(), normalizer,
                        sequence({{{"type", "WhitespaceSplit"}}, metaspace}),
                        contents.post_processor(false, true, nullptr), metaspace,
                        {{"type", "Unigram"},
                         {"unk_id", unknown ? unknown->second : 2},
                         {"vocab", vocab},
                         {"byte_fallback", false}});
}

/// llama.cpp turns the prefix "##" around: it marks the start of a word instead of what goes on. It
/// reads all text as uncased.
Json word_piece(const Json& metadata) {
  Contents contents(metadata);
  for (auto& token : contents.tokens) {
    const bool special = token.starts_with('[') && token.ends_with(']');
    if (token.starts_with(word_mark))
      token.erase(0, std::string_view(word_mark).size());
    else if (!special)
      token.insert(0, "##");
  }
  Json added = Json::array();
  const auto vocab = contents.vocab();
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
    if (vocab.contains(name)) added.push_back(added_token(vocab.at(name), name, true));
  return bert_tokenizer_json(vocab, added, true);
}

Json from_gguf(const Json& metadata) {
  const auto model = required(metadata, "tokenizer.ggml.model").get<std::string>();
  static const std::map<std::string, Json (*)(const Json&)> readers = {
      {"bert", word_piece},
      {"gemma4", sentencepiece_bpe},
      {"gpt2", byte_level_bpe},
      {"llama", sentencepiece_bpe},
      {"t5", unigram}};
  if (const auto reader = readers.find(model); reader != readers.end())
    return reader->second(metadata);
  fail(
      "the GGUF vocabulary has the model '{}'; supported are bert, gemma4, gpt2, llama and t5; use "
      "the model's tokenizer.json instead",
      model);
}

}  // namespace

Json tokenizer_json_from_gguf(const Json& metadata) {
  try {
    return from_gguf(metadata);
  } catch (const Json::exception& error) {
    fail(
        "the GGUF file's vocabulary is invalid ({}); fetch the file again, or use the model's "
        "tokenizer.json",
        error.what());
  }
}

}  // namespace attune::text
