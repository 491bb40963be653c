#include "text/tokenizer_folder.hpp"

#include <algorithm>
#include <set>

#include "text/base64.hpp"
#include "text/convert.hpp"
#include "text/merges.hpp"
#include "text/part.hpp"
#include "text/tokenizer_class.hpp"
#include "text/tokenizer_json.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

constexpr const char* mark = "\u2581";  // SentencePiece's space

/// A tokenizer while it is put together.
struct Draft {
  TokenizerParts parts;
  Json added = Json::array();  // the added tokens that its files begin with
  Json rest = Json::object();  // what else tokenizer.json holds
};

TokenizerParts parts_of(const Json& json) {
  const auto part = [&](const char* name) { return json.contains(name) ? json.at(name) : Json(); };
  return {part("normalizer"), part("pre_tokenizer"), part("post_processor"), part("decoder"),
          json.at("model")};
}

Draft whole(Json json) {
  return {parts_of(json), value_or(json, "added_tokens", Json::array()), std::move(json)};
}

std::string model_type(const Json& model) {
  return value_or<std::string>(model, "type", model.contains("merges") ? "BPE" : "");
}

/// SentencePiece's normalisation in a tokenizer.json; null: there is none.
Json charsmap_of(const Json& normalizer) {
  if (!normalizer.is_object()) return nullptr;
  if (normalizer.value("type", "") == "Precompiled")
    return normalizer.value("precompiled_charsmap", Json());
  for (const auto& part : value_or(normalizer, "normalizers", Json::array()))
    if (part.is_object() && part.value("type", "") == "Precompiled")
      return part.value("precompiled_charsmap", Json());
  return nullptr;
}

/// What a class takes from a tokenizer.json: the vocabulary and, where it has one, the
/// post-processor.
Draft rebuilt(Json json, const TokenizerClass& type, TokenizerSettings& settings) {
  auto old = parts_of(json);
  if (const auto found = model_type(old.model); !found.empty() && found != type.model)
    fail(
        "tokenizer.json: contains a {} model, but a {} needs {}; correct tokenizer_class in "
        "tokenizer_config.json (PreTrainedTokenizerFast accepts any)",
        found, type.name, type.model);
  const TokenizerVocabulary vocabulary{old.model.at("vocab"),
                                       value_or(old.model, "merges", Json::array()),
                                       charsmap_of(old.normalizer)};
  Draft draft{type.build(vocabulary, settings), Json::array(), std::move(json)};
  if (!old.post_processor.is_null()) draft.parts.post_processor = std::move(old.post_processor);
  return draft;
}

Draft from_tokenizer_json(Json json, const TokenizerClass& type, TokenizerSettings& settings) {
  return type.model.empty() || type.keeps_stages ? whole(std::move(json))
                                                 : rebuilt(std::move(json), type, settings);
}

// SentencePiece

TokenizerVocabulary vocabulary_of(const SentencePieceModel& model, bool as_bpe,
                                  const std::string& file) {
  TokenizerVocabulary vocabulary{as_bpe ? Json::object() : Json::array(), nullptr, nullptr};
  std::vector<std::string> texts;
  for (const auto& piece : model.pieces) texts.push_back(piece.text);
  for (std::size_t id = 0; id < texts.size(); ++id) {
    if (as_bpe)
      vocabulary.vocab[texts[id]] = id;
    else
      vocabulary.vocab.push_back({texts[id], model.pieces[id].score});
  }
  if (as_bpe) vocabulary.merges = merges_by_id(texts, file);
  if (!model.precompiled_charsmap.empty())
    vocabulary.charsmap = to_base64(model.precompiled_charsmap);
  vocabulary.unknown_id = model.unknown_id;
  return vocabulary;
}

/// Control and user-defined pieces are found in the text before anything else.
void mark_added(const SentencePieceModel& model, TokenizerVocabulary& vocabulary) {
  using Kind = SentencePieceModel::Kind;
  for (const auto& piece : model.pieces) {
    if (piece.kind != Kind::control && piece.kind != Kind::user_defined) continue;
    auto token = added_token(piece.text, piece.kind == Kind::control);
    token["normalized"] = false;
    vocabulary.added.push_back(std::move(token));
  }
}

/// tokenizer_config.json may name other tokens for the places of a vocabulary.
void rename_placeholders(Json& vocab, const TokenizerSettings& settings) {
  std::map<std::int64_t, std::string> tokens;
  for (const auto& [token, id] : vocab.items()) tokens[id.get<std::int64_t>()] = token;
  for (const auto& [id, token] : settings.added()) {
    const auto content = token.at("content").get<std::string>();
    const auto old = tokens.find(id);
    if (old == tokens.end() || old->second == content || vocab.contains(content)) continue;
    vocab.erase(old->second);
    vocab[content] = id;
    old->second = content;
  }
}

/// For a class without rules of its own: a SentencePiece model as it is.
TokenizerParts plain_sentencepiece(const SentencePieceModel& model, TokenizerVocabulary vocabulary,
                                   TokenizerSettings& settings) {
  const Json to_marks = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", mark}};
  const Json from_marks = {{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", " "}};
  TokenizerParts parts;
  Json::array_t steps;
  if (!vocabulary.charsmap.is_null())
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", vocabulary.charsmap}});
  steps.push_back(to_marks);
  parts.normalizer = {{"type", "Sequence"}, {"normalizers", steps}};
  Json::array_t decoding = {from_marks};
  if (model.byte_fallback)
    decoding.insert(decoding.end(), {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  parts.decoder = {{"type", "Sequence"}, {"decoders", decoding}};
  if (model.type == SentencePieceModel::Type::unigram) {
    parts.model = {{"type", "Unigram"},
                   {"unk_id", model.unknown_id},
                   {"vocab", vocabulary.vocab},
                   {"byte_fallback", model.byte_fallback}};
  } else {
    rename_placeholders(vocabulary.vocab, settings);
    parts.model = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", model.unknown_piece},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", true},
                   {"byte_fallback", model.byte_fallback},
                   {"ignore_merges", false},
                   {"vocab", vocabulary.vocab},
                   {"merges", vocabulary.merges}};
  }
  if (model.bos_id >= 0) settings.set_default("bos_token", model.bos_piece);
  if (model.eos_id >= 0) settings.set_default("eos_token", model.eos_piece);
  settings.set_default("unk_token", model.unknown_piece);
  return parts;
}

Draft from_sentencepiece(std::string_view bytes, const std::string& file,
                         const TokenizerClass& type, TokenizerSettings& settings) {
  const auto model = read_sentencepiece(bytes, file);
  const bool as_bpe =
      type.model.empty() ? model.type == SentencePieceModel::Type::bpe : type.model == "BPE";
  if (type.model == "WordPiece")
    fail(
        "{}: is a SentencePiece model, but a {} needs a vocab.txt; correct tokenizer_class in "
        "tokenizer_config.json",
        file, type.name);
  auto vocabulary = vocabulary_of(model, as_bpe, file);
  mark_added(model, vocabulary);
  if (type.reorder) type.reorder(vocabulary, settings);
  settings.set_default_extra(vocabulary.added);
  return {type.build ? type.build(vocabulary, settings)
                     : plain_sentencepiece(model, std::move(vocabulary), settings)};
}

// Ranked bytes

Draft from_tekken(const std::string& text) {
  try {
    return whole(tokenizer_json_from_tekken(Json::parse(text)));
  } catch (const Json::exception& error) {
    fail("tekken.json: does not have Mistral's form ({}); fetch it again", error.what());
  }
}

/// The special tokens behind the ranks: those of added_tokens_decoder by id, with placeholders
/// between, then the extra ones.
std::vector<std::string> tokens_behind(std::int64_t ranks, const TokenizerSettings& settings) {
  constexpr std::int64_t most = 1'000'000;
  std::vector<std::string> tokens;
  std::set<std::string> seen;
  const auto add = [&](std::string token) {
    seen.insert(token);
    tokens.push_back(std::move(token));
  };
  const auto last = settings.added().empty() ? 0 : settings.added().rbegin()->first;
  if (last >= ranks + most)
    fail(
        "tokenizer_config.json: \"added_tokens_decoder\" has the id {}, far beyond the {} tokens "
        "of the vocabulary",
        last, ranks);
  for (std::int64_t id = ranks; id <= last; ++id) {
    const auto found = settings.added().find(id);
    add(found == settings.added().end() ? fmt::format("<|reserved_token_{}|>", id)
                                        : found->second.at("content").get<std::string>());
  }
  for (const auto& token : settings.extra_tokens())
    if (const auto content = token_text(token); !seen.contains(content)) add(content);
  return tokens;
}

// The vocabulary where there is no tokenizer.json

/// The lines of a vocab.txt, each without the white space at its end; of equal ones the last has
/// the id.
Draft from_vocab_txt(std::string_view text, const TokenizerClass& type, TokenizerSettings& settings,
                     const std::vector<std::string>& unnamed) {
  Json vocab = Json::object();
  for (std::size_t id = 0; auto& line : lines(text)) {
    if (is_valid_utf8(line)) line.resize(trailing_whitespace(line));
    vocab[line] = id++;
  }
  for (const char* name : {"unk_token", "cls_token", "sep_token"})
    if (const auto token = settings.token(name);
        std::find(unnamed.begin(), unnamed.end(), token) != unnamed.end() && !vocab.contains(token))
      fail(
          "vocab.txt: the vocabulary has no token {}, so it is not a BERT vocabulary; check the "
          "file, or set {} in tokenizer_config.json",
          token, name);
  return {type.build({std::move(vocab), nullptr, nullptr}, settings)};
}

/// vocab.json and merges.txt: a line for each merge, and lines "#version" that say nothing.
Draft from_vocab_json(const std::string& vocab, const std::optional<std::string>& merges_txt,
                      const TokenizerClass& type, TokenizerSettings& settings) {
  if (!merges_txt)
    fail("vocab.json: the merges.txt that a {} needs is missing; put it in the same folder",
         type.name);
  Json merges = Json::array();
  std::size_t row = 0;
  for (const auto& line : lines(*merges_txt)) {
    ++row;
    if (line.starts_with("#version")) continue;
    const auto space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
      fail(
          "merges.txt:{}: must be two tokens with a space between them, but is '{}'; fetch the "
          "file again",
          row, line);
    merges.push_back({line.substr(0, space), line.substr(space + 1)});
  }
  auto json = Json::parse(vocab, nullptr, false);
  if (!json.is_object())
    fail("vocab.json: must be a JSON object of tokens and ids; fetch the file again");
  return {type.build({std::move(json), std::move(merges), nullptr}, settings)};
}

/// BERT's form needs no other file, so it is known by itself.
const TokenizerClass& class_of_bare_vocabulary(const TokenizerFolder& folder,
                                               const TokenizerClass& type) {
  const bool bare = type.vocab_file != "vocab.txt" && type.model.empty() &&
                    !folder.read(type.vocab_file) && !folder.read("vocab.json");
  return bare && folder.read("vocab.txt") ? *find_tokenizer_class("BertTokenizer") : type;
}

std::optional<Draft> from_vocabulary_files(const TokenizerFolder& folder,
                                           const TokenizerClass& type, TokenizerSettings& settings,
                                           const std::vector<std::string>& unnamed) {
  if (const auto tekken = folder.read("tekken.json")) return from_tekken(*tekken);
  for (const auto& file :
       {std::string("tokenizer.model"), std::string("tiktoken.model"), type.vocab_file}) {
    const auto content = file.empty() ? std::nullopt : folder.read(file);
    if (!content) continue;
    if (file == "vocab.txt") return from_vocab_txt(*content, type, settings, unnamed);
    if (file == "vocab.json")
      return from_vocab_json(*content, folder.read("merges.txt"), type, settings);
    if (!is_tiktoken(*content)) return from_sentencepiece(*content, file, type, settings);
    const auto ranks = read_tiktoken(*content, file);
    return whole(tokenizer_json_from_tiktoken(
        ranks, tokens_behind(static_cast<std::int64_t>(ranks.size()), settings), file));
  }
  if (folder.read("vocab.json"))
    fail(
        "tokenizer_config.json: its tokenizer_class does not define how to read vocab.json; set "
        "it, or add the model's tokenizer.json");
  return std::nullopt;
}

/// bos and eos around a text, as add_bos_token and add_eos_token ask for them.
Json surrounding(const AddedTokenList& added, const TokenizerSettings& settings) {
  const auto wanted = [&](const char* flag, const char* name) {
    std::vector<NamedToken> tokens;
    const auto token = settings.token(name);
    if (!token.empty() && settings.flag(flag, false))
      tokens.emplace_back(token, added.id(token).value_or(0));
    return tokens;
  };
  return template_processing(wanted("add_bos_token", "bos_token"),
                             wanted("add_eos_token", "eos_token"));
}

/// Tokens that only a class names and that the model has no row for: no text of the model's holds
/// them.
void drop_unused(Json& added, const std::vector<std::string>& unnamed, const Json& config) {
  const auto rows = config.is_object() ? config.value("vocab_size", Json()) : Json();
  if (!rows.is_number_unsigned()) return;
  const std::set<std::string> names(unnamed.begin(), unnamed.end());
  std::erase_if(added.get_ref<Json::array_t&>(), [&](const Json& token) {
    return token["id"] >= rows && names.contains(token["content"].get<std::string>());
  });
}

/// The file's own list where it says the same, so that a tokenizer without changes stays as it is.
Json kept_or(const Json& old, Json tokens) {
  Json read = Json::array();
  for (const auto& token : old) {
    read.push_back(added_token_from(token, false, "tokenizer.json"));
    read.back()["id"] = token.at("id");
  }
  std::sort(read.begin(), read.end(),
            [](const Json& a, const Json& b) { return a["id"] < b["id"]; });
  return read == tokens ? old : std::move(tokens);
}

/// tokenizer.json with these parts; what is there and stays the same is left as it is.
Json written(Json json, TokenizerParts parts, Json added) {
  if (json.empty())
    return tokenizer_json(std::move(added), std::move(parts.normalizer),
                          std::move(parts.pre_tokenizer), std::move(parts.post_processor),
                          std::move(parts.decoder), std::move(parts.model));
  const auto set = [&](const char* name, Json part) {
    if (json.contains(name) || !part.empty()) json[name] = std::move(part);
  };
  set("added_tokens", std::move(added));
  set("normalizer", std::move(parts.normalizer));
  set("pre_tokenizer", std::move(parts.pre_tokenizer));
  set("post_processor", std::move(parts.post_processor));
  set("decoder", std::move(parts.decoder));
  set("model", std::move(parts.model));
  return json;
}

Json assembled(Draft draft, const TokenizerClass& type, const TokenizerSettings& settings,
               const std::vector<std::string>& unnamed, const Json& config) {
  AddedTokenList added(draft.parts.model);
  for (const auto& token : draft.added) added.add(added_token_from(token, false, "tokenizer.json"));
  settings.add_tokens_to(added);
  const bool asked = settings.has("add_bos_token") || settings.has("add_eos_token");
  if (asked || (draft.parts.post_processor.is_null() && draft.rest.empty()))
    draft.parts.post_processor = surrounding(added, settings);
  if (type.finish) type.finish(draft.parts, added, settings);
  auto tokens = added.json();
  drop_unused(tokens, unnamed, config);
  tokens = kept_or(value_or(draft.rest, "added_tokens", Json::array()), std::move(tokens));
  return written(std::move(draft.rest), std::move(draft.parts), std::move(tokens));
}

}  // namespace

FolderTokenizer read_tokenizer_folder(TokenizerFolder folder) {
  const bool has_json = !folder.tokenizer_json.is_null();
  const auto text = has_json ? folder.read("tokenizer.json") : std::nullopt;
  const bool byte_level = text && text->find("\"ByteLevel\"") != std::string::npos;
  const auto& chosen = tokenizer_class(folder.config, folder.settings.tokenizer_config, byte_level);
  const auto& type = has_json ? chosen : class_of_bare_vocabulary(folder, chosen);
  folder.settings.tokenizer_json = has_json ? &folder.tokenizer_json : nullptr;
  TokenizerSettings settings(folder.settings);
  std::vector<std::string> unnamed;
  for (const auto& [name, token] : type.tokens) {
    if (settings.has(name)) continue;
    settings.set_default(name, token);
    unnamed.push_back(token);
  }
  auto draft = has_json ? from_tokenizer_json(folder.tokenizer_json, type, settings)
                        : from_vocabulary_files(folder, type, settings, unnamed);
  auto json = draft ? assembled(std::move(*draft), type, settings, unnamed, folder.config) : Json();
  return {std::move(json), settings.token_texts()};
}

}  // namespace attune::text
