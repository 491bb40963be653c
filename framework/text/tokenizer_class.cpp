#include "text/tokenizer_class.hpp"

#include <map>
#include <ranges>

#include "text/part.hpp"
#include "text/tokenizer_json.hpp"

namespace attune::text {
namespace {

constexpr const char* mark = "\u2581";  // SentencePiece's space

using Parts = TokenizerParts;
using Vocab = TokenizerVocabulary;
using Settings = TokenizerSettings;

Json byte_level(bool prefix, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", prefix},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json split(const char* expression, const char* behaviour = "Isolated", bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", expression}}},
          {"behavior", behaviour},
          {"invert", invert}};
}

Json replace(const char* kind, const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", to}};
}

Json pre_tokenizers(Json::array_t parts) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}
Json normalizers(Json::array_t parts) {
  return {{"type", "Sequence"}, {"normalizers", std::move(parts)}};
}
Json decoders(Json::array_t parts) {
  return {{"type", "Sequence"}, {"decoders", std::move(parts)}};
}

Json metaspace(const std::string& scheme, bool cuts = true) {
  return {
      {"type", "Metaspace"}, {"replacement", mark}, {"prepend_scheme", scheme}, {"split", cuts}};
}

std::string scheme(bool prefix) { return prefix ? "always" : "never"; }

Json precompiled(const Json& charsmap) {
  return charsmap.is_null() ? Json()
                            : Json{{"type", "Precompiled"}, {"precompiled_charsmap", charsmap}};
}

struct BpeRules {
  std::string unknown = {};
  bool fuse_unknown = false;
  bool byte_fallback = false;
  std::string suffix = {};
};

Json bpe(const Vocab& vocabulary, const BpeRules& rules) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", rules.unknown.empty() ? Json() : Json(rules.unknown)},
          {"continuing_subword_prefix", ""},
          {"end_of_word_suffix", rules.suffix},
          {"fuse_unk", rules.fuse_unknown},
          {"byte_fallback", rules.byte_fallback},
          {"ignore_merges", false},
          {"vocab", vocabulary.vocab},
          {"merges", vocabulary.merges}};
}

Json unigram(const Vocab& vocabulary, std::int64_t unknown_id) {
  return {{"type", "Unigram"},
          {"unk_id", unknown_id},
          {"vocab", vocabulary.vocab},
          {"byte_fallback", false}};
}

// Byte-level BPE

Parts gpt2(const Vocab& vocabulary, Settings& settings) {
  return {nullptr, byte_level(settings.flag("add_prefix_space", false), true), nullptr,
          byte_level(true, true), bpe(vocabulary, {})};
}

Parts gpt_neox(const Vocab& vocabulary, Settings& settings) {
  auto parts = gpt2(vocabulary, settings);
  parts.normalizer = {{"type", "NFC"}};
  return parts;
}

Parts cohere(const Vocab& vocabulary, Settings& settings) {
  auto parts = gpt_neox(vocabulary, settings);
  parts.pre_tokenizer =
      pre_tokenizers({{{"type", "Digits"}, {"individual_digits", true}}, parts.pre_tokenizer});
  return parts;
}

Parts qwen(const Vocab& vocabulary, Settings& settings, const char* expression) {
  auto parts = gpt_neox(vocabulary, settings);
  parts.pre_tokenizer = pre_tokenizers(
      {split(expression), byte_level(settings.flag("add_prefix_space", false), false)});
  return parts;
}

Parts qwen2(const Vocab& vocabulary, Settings& settings) {
  return qwen(
      vocabulary, settings,
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

Parts qwen3_5(const Vocab& vocabulary, Settings& settings) {
  return qwen(
      vocabulary, settings,
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

Parts clip(const Vocab& vocabulary, Settings& settings) {
  static const char* words =
      R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  return {
      normalizers({{{"type", "NFC"}}, replace("Regex", R"(\s+)", " "), {{"type", "Lowercase"}}}),
      pre_tokenizers({split(words, "Removed", true), byte_level(false, true)}), nullptr,
      byte_level(true, true),
      bpe(vocabulary, {.unknown = settings.token("unk_token"), .suffix = "</w>"})};
}

// SentencePiece's BPE

Parts llama(const Vocab& vocabulary, Settings& settings) {
  const bool prefix = settings.flag("add_prefix_space", true);
  const bool legacy = settings.flag("legacy", false);
  Json::array_t decoding = {
      replace("String", mark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix) decoding.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const char* first_or_always = legacy ? "always" : "first";
  return {nullptr, metaspace(prefix ? first_or_always : "never", false), nullptr,
          decoders(decoding), bpe(vocabulary, {.fuse_unknown = true, .byte_fallback = true})};
}

Parts code_llama(const Vocab& vocabulary, Settings& settings) {
  const bool prefix = settings.flag("add_prefix_space", true);
  const Json::array_t decoding = {replace("String", mark, " "),
                                  {{"type", "ByteFallback"}},
                                  {{"type", "Fuse"}},
                                  {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}};
  settings.set_default("add_bos_token", true);
  return {
      nullptr, metaspace(prefix ? "first" : "never", false), nullptr, decoders(decoding),
      bpe(vocabulary,
          {.unknown = settings.token("unk_token"), .fuse_unknown = true, .byte_fallback = true})};
}

Parts gemma(const Vocab& vocabulary, Settings& settings) {
  const Json at_spaces = {{"type", "Split"},
                          {"pattern", {{"String", " "}}},
                          {"behavior", "MergedWithPrevious"},
                          {"invert", false}};
  return {
      replace("String", " ", mark), at_spaces, nullptr,
      decoders({replace("String", mark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}),
      bpe(vocabulary,
          {.unknown = settings.token("unk_token"), .fuse_unknown = true, .byte_fallback = true})};
}

// Unigram

std::vector<Json> extra_ids(const Settings& settings) {
  std::vector<Json> tokens;
  for (std::int64_t i = 0; i < settings.number("extra_ids", 100); ++i)
    tokens.push_back(fmt::format("<extra_id_{}>", i));
  return tokens;
}

Parts t5(const Vocab& vocabulary, Settings& settings) {
  settings.set_default_extra(extra_ids(settings));
  return {precompiled(vocabulary.charsmap),
          pre_tokenizers({{{"type", "WhitespaceSplit"}}, metaspace("always")}), nullptr,
          metaspace("always"), unigram(vocabulary, 2)};
}

void reorder_t5(Vocab& vocabulary, Settings& settings) {
  const auto extra = extra_ids(settings);
  for (const auto& token : std::views::reverse(extra)) vocabulary.vocab.emplace_back(token, 0.0);
  vocabulary.added.insert(vocabulary.added.end(), extra.begin(), extra.end());
}

Parts xlm_roberta(const Vocab& vocabulary, Settings& settings) {
  const auto prefix = scheme(settings.flag("add_prefix_space", true));
  return {precompiled(vocabulary.charsmap),
          pre_tokenizers({{{"type", "WhitespaceSplit"}}, metaspace(prefix)}), nullptr,
          metaspace(prefix), unigram(vocabulary, 3)};
}

/// fairseq's order: its own special tokens take the place of the first pieces.
void put_in_front(Vocab& vocabulary, Settings& settings, const Json::array_t& front,
                  std::size_t skipped) {
  auto vocab = front;
  for (std::size_t i = skipped; i < vocabulary.vocab.size(); ++i)
    vocab.push_back(vocabulary.vocab[i]);
  vocab.push_back({settings.token("mask_token"), 0.0});
  vocabulary.vocab = std::move(vocab);
}

void reorder_xlm_roberta(Vocab& vocabulary, Settings& settings) {
  Json::array_t front;
  for (const char* name : {"bos_token", "pad_token", "eos_token", "unk_token"})
    front.push_back({settings.token(name), 0.0});
  put_in_front(vocabulary, settings, front, 3);
}

Parts camembert(const Vocab& vocabulary, Settings& settings) {
  settings.set_default_extra({"<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"});
  std::int64_t unknown = 0;
  for (std::size_t i = vocabulary.vocab.size(); i-- > 0;)
    if (vocabulary.vocab[i].at(0) == settings.token("unk_token"))
      unknown = static_cast<std::int64_t>(i);
  auto parts = xlm_roberta(vocabulary, settings);
  parts.model = unigram(vocabulary, unknown);
  return parts;
}

void reorder_camembert(Vocab& vocabulary, Settings& settings) {
  put_in_front(vocabulary, settings,
               {{"<s>NOTUSED", 0.0},
                {settings.token("pad_token"), 0.0},
                {"</s>NOTUSED", 0.0},
                {settings.token("unk_token"), 0.0},
                {"<unk>NOTUSED", -100.0}},
               1);
}

Parts albert(const Vocab& vocabulary, Settings& settings) {
  Json::array_t steps = {replace("String", "``", "\""), replace("String", "''", "\"")};
  if (!settings.flag("keep_accents", false))
    steps.insert(steps.end(), {{{"type", "NFKD"}}, {{"type", "StripAccents"}}});
  if (settings.flag("do_lower_case", true)) steps.push_back({{"type", "Lowercase"}});
  if (!vocabulary.charsmap.is_null()) steps.push_back(precompiled(vocabulary.charsmap));
  auto parts = xlm_roberta(vocabulary, settings);
  parts.normalizer = normalizers(steps);
  parts.model = unigram(vocabulary, 1);
  const AddedTokenList pieces(parts.model);
  const auto cls = pieces.id(settings.token("cls_token"));
  const auto sep = pieces.id(settings.token("sep_token"));
  if (!cls || !sep)
    fail(
        "tokenizer_config.json: the vocabulary lacks the cls_token or the sep_token of an ALBERT "
        "tokenizer; correct them");
  parts.post_processor = template_processing({{"[CLS]", *cls}}, {{"[SEP]", *sep}});
  return parts;
}

Parts deberta_v2(const Vocab& vocabulary, Settings& settings) {
  Json::array_t steps;
  Json::array_t cuts;
  if (settings.flag("do_lower_case", false)) steps.push_back({{"type", "Lowercase"}});
  steps.insert(steps.end(), {replace("Regex", R"(\s{2,}|[\n\r\t])", " "),
                             {{"type", "NFC"}},
                             {{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}});
  if (settings.flag("split_by_punct", false))
    cuts.push_back({{"type", "Punctuation"}, {"behavior", "Isolated"}});
  const auto space = metaspace(settings.flag("add_prefix_space", true) ? "always" : "first");
  cuts.push_back(space);
  std::int64_t unknown =
      vocabulary.unknown_id >= 0 ? vocabulary.unknown_id : settings.number("unk_id", 1);
  for (std::size_t i = vocabulary.vocab.size(); i-- > 0;)
    if (vocabulary.vocab[i].at(0) == settings.token("unk_token") &&
        vocabulary.vocab[i].at(1) == 0.0)
      unknown = static_cast<std::int64_t>(i);
  return {normalizers(steps), pre_tokenizers(cuts), nullptr, space, unigram(vocabulary, unknown)};
}

// WordPiece

Parts bert(const Vocab& vocabulary, Settings& settings) {
  const bool lowercase = settings.flag("do_lower_case", true);
  const bool strip = settings.flag("strip_accents", lowercase);
  const auto unknown = settings.token("unk_token");
  if (!vocabulary.vocab.contains(unknown))
    fail(
        "the vocabulary has no token {}, so it is not a BERT vocabulary; check the file, or set "
        "unk_token in tokenizer_config.json",
        unknown);
  return {{{"type", "BertNormalizer"},
           {"clean_text", true},
           {"handle_chinese_chars", settings.flag("tokenize_chinese_chars", true)},
           {"strip_accents", strip == lowercase ? Json() : Json(strip)},  // null: with the case
           {"lowercase", lowercase}},
          {{"type", "BertPreTokenizer"}},
          nullptr,
          {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}},
          {{"type", "WordPiece"},
           {"unk_token", unknown},
           {"continuing_subword_prefix", "##"},
           {"max_input_chars_per_word", 100},
           {"vocab", vocabulary.vocab}}};
}

// What stands around a text

NamedToken named(const AddedTokenList& added, const Settings& settings, const char* name) {
  const auto token = settings.token(name);
  const auto id = added.id(token);
  if (!id)
    fail(
        "tokenizer_config.json: the {} is missing, which this tokenizer puts around each text; set "
        "it",
        name);
  return {token, *id};
}

void put_cls_and_sep(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor = template_processing({named(added, settings, "cls_token")},
                                             {named(added, settings, "sep_token")});
}

void put_bos_and_eos(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor = template_processing({named(added, settings, "bos_token")},
                                             {named(added, settings, "eos_token")});
}

void put_end(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor =
      template_processing({}, {{"</s>", named(added, settings, "eos_token").second}});
}

Json roberta_processing(const NamedToken& before, const NamedToken& after, bool trim, bool prefix) {
  return {{"type", "RobertaProcessing"},
          {"sep", {after.first, after.second}},
          {"cls", {before.first, before.second}},
          {"trim_offsets", trim},
          {"add_prefix_space", prefix}};
}

void finish_roberta(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor = roberta_processing(
      named(added, settings, "cls_token"), named(added, settings, "sep_token"),
      settings.flag("trim_offsets", true), settings.flag("add_prefix_space", false));
}

void finish_mpnet(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor = roberta_processing(named(added, settings, "cls_token"),
                                            named(added, settings, "sep_token"), true, false);
}

void finish_clip(Parts& parts, AddedTokenList& added, const Settings& settings) {
  parts.post_processor = roberta_processing(named(added, settings, "bos_token"),
                                            named(added, settings, "eos_token"), false, false);
}

/// The post-processor of tokenizer.json does not count.
void finish_gpt_neox(Parts& parts, AddedTokenList& added, const Settings& settings) {
  std::vector<NamedToken> before;
  std::vector<NamedToken> after;
  if (settings.flag("add_bos_token", false)) before.push_back(named(added, settings, "bos_token"));
  if (settings.flag("add_eos_token", false)) after.push_back(named(added, settings, "eos_token"));
  parts.post_processor = template_processing(before, after);
}

/// Special tokens lose what tokenizer.json says of the spaces beside them.
void finish_qwen2(Parts&, AddedTokenList& added, const Settings& settings) {
  for (const auto& token : settings.special_tokens())
    added.add(added_token(token_text(token), true));
}

/// Special tokens are added once more, as tokenizer_config.json has them.
void finish_cohere(Parts&, AddedTokenList& added, const Settings& settings) {
  for (auto token : settings.special_tokens()) {
    if (token.is_string()) token = added_token(token.get<std::string>(), true);
    token["special"] = true;
    added.add(token);
  }
}

using Tokens = std::vector<std::pair<std::string, std::string>>;
const Tokens bert_tokens = {{"unk_token", "[UNK]"},
                            {"sep_token", "[SEP]"},
                            {"pad_token", "[PAD]"},
                            {"cls_token", "[CLS]"},
                            {"mask_token", "[MASK]"}};
const Tokens gpt2_tokens = {
    {"unk_token", "<|endoftext|>"}, {"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}};
const Tokens qwen_tokens = {
    {"unk_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}};
const Tokens llama_tokens = {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
const Tokens fairseq_tokens = {
    {"bos_token", "<s>"},   {"eos_token", "</s>"},  {"sep_token", "</s>"},   {"cls_token", "<s>"},
    {"unk_token", "<unk>"}, {"pad_token", "<pad>"}, {"mask_token", "<mask>"}};
const Tokens deberta_tokens = {
    {"bos_token", "[CLS]"}, {"eos_token", "[SEP]"}, {"unk_token", "[UNK]"},  {"sep_token", "[SEP]"},
    {"pad_token", "[PAD]"}, {"cls_token", "[CLS]"}, {"mask_token", "[MASK]"}};

Tokens with(Tokens tokens, const Tokens& more) {
  for (const auto& [name, token] : more) {
    std::erase_if(tokens, [&, key = name](const auto& entry) { return entry.first == key; });
    tokens.emplace_back(name, token);
  }
  return tokens;
}

std::vector<TokenizerClass> make_classes() {
  const char* json = "vocab.json";
  return {
      {"TokenizersBackend", "", "tokenizer.model", {}},
      {"AlbertTokenizer", "Unigram", "spiece.model",
       with(deberta_tokens, {{"unk_token", "<unk>"}, {"pad_token", "<pad>"}}), albert},
      {"BertTokenizer", "WordPiece", "vocab.txt", bert_tokens, bert, nullptr, put_cls_and_sep},
      {"CLIPTokenizer", "BPE", json, with(qwen_tokens, {{"bos_token", "<|startoftext|>"}}), clip,
       nullptr, finish_clip},
      {"CamembertTokenizer", "Unigram", "sentencepiece.bpe.model", fairseq_tokens, camembert,
       reorder_camembert, put_bos_and_eos},
      {"CodeLlamaTokenizer", "BPE", "tokenizer.model",
       with(llama_tokens, {{"prefix_token", "\u2581<PRE>"},
                           {"middle_token", "\u2581<MID>"},
                           {"suffix_token", "\u2581<SUF>"},
                           {"eot_token", "\u2581<EOT>"},
                           {"fill_token", "<FILL_ME>"}}),
       code_llama},
      {"CohereTokenizer",
       "BPE",
       json,
       {{"unk_token", "<UNK>"},
        {"bos_token", "<BOS_TOKEN>"},
        {"eos_token", "<|END_OF_TURN_TOKEN|>"},
        {"pad_token", "<PAD>"},
        {"cls_token", "<CLS>"},
        {"sep_token", "<SEP>"},
        {"mask_token", "<MASK_TOKEN>"}},
       cohere,
       nullptr,
       finish_cohere},
      {"ConvBertTokenizer", "WordPiece", "vocab.txt", bert_tokens, bert, nullptr, put_cls_and_sep,
       true},
      {"DebertaTokenizer", "BPE", json, deberta_tokens, gpt2, nullptr, put_cls_and_sep},
      {"DebertaV2Tokenizer", "Unigram", "spm.model", deberta_tokens, deberta_v2, nullptr,
       put_cls_and_sep},
      {"GPT2Tokenizer", "BPE", json, gpt2_tokens, gpt2},
      {"GPTNeoXTokenizer", "BPE", json, with(gpt2_tokens, {{"pad_token", "<|padding|>"}}), gpt_neox,
       nullptr, finish_gpt_neox},
      {"GemmaTokenizer",
       "BPE",
       "",
       {{"unk_token", "<unk>"},
        {"bos_token", "<bos>"},
        {"eos_token", "<eos>"},
        {"pad_token", "<pad>"},
        {"mask_token", "<mask>"}},
       gemma},
      {"LlamaTokenizer", "BPE", "tokenizer.model", llama_tokens, llama},
      {"MPNetTokenizer", "WordPiece", "vocab.txt", with(fairseq_tokens, {{"unk_token", "[UNK]"}}),
       bert, nullptr, finish_mpnet},
      {"Qwen2Tokenizer", "BPE", json, qwen_tokens, qwen2, nullptr, finish_qwen2},
      {"Qwen3_5Tokenizer", "BPE", "", qwen_tokens, qwen3_5},
      {"RobertaTokenizer", "BPE", json, fairseq_tokens, gpt2, nullptr, finish_roberta},
      {"T5Tokenizer",
       "Unigram",
       "spiece.model",
       {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
       t5,
       reorder_t5,
       put_end},
      {"XLMRobertaTokenizer", "Unigram", "sentencepiece.bpe.model", fairseq_tokens, xlm_roberta,
       reorder_xlm_roberta, put_bos_and_eos},
  };
}

const std::map<std::string, TokenizerClass>& classes() {
  static const auto all = [] {
    std::map<std::string, TokenizerClass> all;
    for (auto& each : make_classes()) all.emplace(each.name, each);
    // Other names of the same classes.
    for (const char* name : {"DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer",
                             "SqueezeBertTokenizer", "LayoutLMTokenizer", "LxmertTokenizer"})
      all.emplace(name, all.at("BertTokenizer"));
    for (const char* name :
         {"BartTokenizer", "LEDTokenizer", "LongformerTokenizer", "MvpTokenizer"})
      all.emplace(name, all.at("RobertaTokenizer"));
    for (const char* name : {"PreTrainedTokenizerFast", "PreTrainedTokenizer", "BloomTokenizer",
                             "ParakeetTokenizer", "MistralCommonBackend"})
      all.emplace(name, all.at("TokenizersBackend"));
    all.emplace("CodeGenTokenizer", all.at("GPT2Tokenizer"));
    all.emplace("Phi3Tokenizer", all.at("LlamaTokenizer"));
    return all;
  }();
  return all;
}

}  // namespace

const TokenizerClass* find_tokenizer_class(const std::string& name) {
  const auto found = classes().find(name);
  return found == classes().end() ? nullptr : &found->second;
}

}  // namespace attune::text
